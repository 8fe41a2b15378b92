//! Makes certificates, so that TLS is not left out because it is tedious.

use std::path::PathBuf;

use clap::Args;
use stormkv::tcp::certs::generate;
use stormkv::types::NodeId;

use super::{Exit, Failure};

#[derive(Debug, Args)]
pub struct CertsArgs {
    /// Where to put the files; those that exist are kept
    #[arg(short, long, value_name = "DIR", default_value = "certs")]
    output: PathBuf,
    /// For the members 1 to N, which is at most 1000
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=1000))]
    nodes: u64,
    /// Names and addresses by which clients reach the nodes
    #[arg(
        long,
        value_name = "HOST,..",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1"
    )]
    hosts: Vec<String>,
    /// Names of clients that get a certificate of their own
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    clients: Vec<String>,
}

pub fn certs(args: &CertsArgs) -> Result<Exit, Failure> {
    let nodes: Vec<NodeId> = (1..=args.nodes).map(NodeId).collect();
    generate(&args.output, &nodes, &args.hosts, &args.clients).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::InvalidInput => Exit::Usage,
            _ => Exit::Io,
        };
        Failure::new(exit, format!("{}: {error}", args.output.display()))
    })?;
    let dir = args.output.display();
    println!(
        "certificates are in {dir}; node 1 uses them with\n  \
         --peer-ca {dir}/peer-ca.pem --peer-cert {dir}/node-1.pem --peer-key {dir}/node-1.key\n  \
         --cert {dir}/server-1.pem --key {dir}/server-1.key [--client-ca {dir}/client-ca.pem]\n\
         and https:// URLs in --cluster; keep the keys of the CAs elsewhere"
    );
    Ok(Exit::Ok)
}
