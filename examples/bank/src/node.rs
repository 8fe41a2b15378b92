//! A real node of the ledger, over TCP and files; its flags are those of `stormkv`.
//!
//! A member of a cluster on this machine, and a transfer (`cargo run -p bank --features node
//! --bin bank-node -- --help` lists the flags):
//!
//! ```sh
//! cluster=http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379
//! bank-node --id 1 --cluster $cluster --port 12380 --data-dir bank-1 &
//! bank-node --id 2 --cluster $cluster --port 22380 --data-dir bank-2 &
//! bank-node --id 3 --cluster $cluster --port 32380 --data-dir bank-3 &
//! curl http://127.0.0.1:12380/v1/command -d 'transfer 1 2 30'
//! curl http://127.0.0.1:22380/v1/query -d 'balance 2'
//! ```

use std::error::Error;

use bank::Accounts;
use clap::Parser;
use stormkv::tcp::Server;
use stormkv::tcp::options::Settings;

/// A node of a replicated ledger
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Arguments::parse().settings;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut server = Server::start_with::<Accounts>(settings.resolve()?, ()).await?;
    tokio::select! {
        ended = server.ended() => Err(format!("the node has stopped: {ended:?}").into()),
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            server.stop().await;
            Ok(())
        }
    }
}
