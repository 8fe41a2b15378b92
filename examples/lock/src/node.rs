//! A real node of the lock service, over TCP and files; its flags are those of `stormkv` and one more.
//!
//! A cluster of one on this machine, and a lease on lock 3 for five seconds:
//!
//! ```sh
//! lock-node --id 1 --cluster http://127.0.0.1:12379 --port 12380 --data-dir lock-1 &
//! curl http://127.0.0.1:12380/v1/command -d 'acquire 3 5000'
//! curl http://127.0.0.1:12380/v1/query -d 'holder 3'
//! ```

use std::error::Error;

use clap::Parser;
use lock::{Limits, Locks};
use stormkv::tcp::Server;
use stormkv::tcp::options::Settings;

/// A node of a replicated lock service
#[derive(Parser)]
struct Arguments {
    /// The longest lease that is granted, in milliseconds; equal on all members
    #[arg(long, value_name = "MS", default_value_t = Limits::default().longest_ms)]
    longest_lease_ms: u64,

    #[command(flatten)]
    settings: Settings,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { longest_lease_ms, settings } = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let limits = Limits { longest_ms: longest_lease_ms };
    let mut server = Server::start_with::<Locks>(settings.resolve()?, limits).await?;
    tokio::select! {
        ended = server.ended() => Err(format!("the node has stopped: {ended:?}").into()),
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            server.stop().await;
            Ok(())
        }
    }
}
