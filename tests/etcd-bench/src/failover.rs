//! How long a cluster accepts nothing after its leader was killed.
//!
//! The process is killed with signal 9. From then on a put is sent every 10 ms, to the endpoints
//! in turn, without waiting for the ones before; the first that is accepted ends it.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::connection::{Http, outcome};
use crate::etcd;
use crate::load::Connection;

/// Between two puts: how exact the result is.
const EVERY: Duration = Duration::from_millis(10);

/// How long a put may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for the first that is accepted.
const LONGEST: Duration = Duration::from_secs(30);

/// The arguments of `etcd-bench failover`.
#[derive(clap::Args)]
pub struct Args {
    /// The process that is killed.
    #[arg(long)]
    kill: u32,
    /// The endpoints of the survivors: `http://host:port`.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// They are nodes of stormkv, not of etcd.
    #[arg(long)]
    stormkv: bool,
}

/// Kills, waits, prints.
///
/// # Errors
/// If the process cannot be killed, or nothing was accepted in time.
pub async fn run(args: &Args) -> Result<(), String> {
    let killed = std::process::Command::new("kill").args(["-9", &args.kill.to_string()]).status();
    let begun = Instant::now();
    if !killed.is_ok_and(|status| status.success()) {
        return Err(format!("process {} cannot be killed", args.kill));
    }
    let mut puts = JoinSet::new();
    let mut endpoints = args.endpoints.iter().cycle();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < LONGEST {
        tokio::select! {
            _ = ticks.tick() => {
                let endpoint = endpoints.next().ok_or("there is no endpoint")?.clone();
                let stormkv = args.stormkv;
                puts.spawn(async move {
                    let put = timeout(PATIENCE, put(&endpoint, stormkv)).await;
                    put.is_ok_and(|accepted| accepted.is_some())
                });
            }
            Some(Ok(true)) = puts.join_next() => {
                println!("{}", begun.elapsed().as_millis());
                return Ok(());
            }
        }
    }
    Err(format!("nothing was accepted within {LONGEST:?}"))
}

/// One put over a connection of its own: whether it was accepted.
async fn put(endpoint: &str, stormkv: bool) -> Option<()> {
    if !stormkv {
        let mut clients = etcd::clients(&[endpoint.to_owned()], 1, 1, false).ok()?;
        return clients.first_mut()?.put("failover", b"v").await.ok();
    }
    let host = endpoint.strip_prefix("http://")?.trim_end_matches('/');
    let mut http = Http::new(Box::new(TcpStream::connect(host).await.ok()?));
    let head: [&[u8]; 3] = [b"PUT /v1/kv/failover HTTP/1.1\r\nhost: ", host.as_bytes(), b"\r\n"];
    let (status, body) = http.exchange(&head, b"v").await.ok()?;
    outcome(status, body).ok()
}
