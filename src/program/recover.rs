//! Founds a new cluster with what is left of one that has lost its quorum for good.

use std::path::PathBuf;

use clap::Args;
use stormkv::kv::Kv;
use stormkv::tcp::Recovery;
use stormkv::tcp::identity::RestoreId;
use stormkv::tcp::options::Settings;

use super::backup::found;
use super::{Exit, Failure};

#[derive(Debug, Args)]
#[command(
    after_help = "Stop all members first, and never start the old ones again. Without --yes it only reads the \
                  directories and reports. With it, a new cluster is founded in the directory --into; the \
                  old ones are not changed. Begin with one member (one URL) and add the others to it with \
                  POST /ID."
)]
pub struct RecoverArgs {
    /// The data directory of a member that survives; repeat it for each one
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Vec<PathBuf>,
    /// The number of the member that founds the new cluster, from 1
    #[arg(long, value_name = "N")]
    id: u64,
    /// The peer URLs of the new cluster's members, as for a node
    #[arg(long, value_name = "URL,..", value_delimiter = ',', required = true)]
    cluster: Vec<String>,
    /// The directory of the new member, which must not exist yet [default: stormkv-ID]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// For more than one URL: the restore id that this command has printed for the first member
    #[arg(long, value_name = "ID")]
    restore_id: Option<RestoreId>,
    /// Sets clusters apart that are founded at the same URLs one after the other, as for a node
    #[arg(long, value_name = "TEXT")]
    cluster_token: Option<String>,
    /// Certificates that sign the peers' certificates, as for a node; needed if the URLs are https
    #[arg(long, value_name = "FILE", requires_all = ["peer_cert", "peer_key"])]
    peer_ca: Option<PathBuf>,
    /// The new member's certificate for peers
    #[arg(long, value_name = "FILE")]
    peer_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    peer_key: Option<PathBuf>,
    /// Found the new cluster
    #[arg(long)]
    yes: bool,
}

pub fn recover(args: RecoverArgs) -> Result<Exit, Failure> {
    let RecoverArgs { data_dir, id, restore_id, yes, .. } = args;
    let settings = Settings {
        id: Some(id),
        cluster: Some(args.cluster),
        cluster_token: args.cluster_token,
        data_dir: args.into,
        peer_ca: args.peer_ca,
        peer_cert: args.peer_cert,
        peer_key: args.peer_key,
        // The node's own flags decide about this, when it starts.
        allow_plaintext: Some(true),
        ..Settings::default()
    };
    let options = settings.resolve().map_err(Failure::usage)?;
    let new = options.data_dir.clone();
    let recovery = Recovery::read::<Kv>(&data_dir, &())?;
    println!("{recovery}\n");
    if new.exists() {
        return Err(Failure::usage(format!(
            "{} exists: name another directory for the new member with --into; the old ones are kept",
            new.display()
        )));
    }
    if !yes {
        println!("nothing was changed; with --yes a new cluster is founded in {}", new.display());
        return Ok(Exit::Ok);
    }
    let ready = format!("ready to start as member {id} of a new cluster");
    found(options, recovery.backup(), restore_id, (&ready, "recover"))?;
    Ok(Exit::Ok)
}
