//! `stormkv bench`: a closed loop of clients, and how long their operations take.

mod connection;
mod histogram;
mod load;
mod report;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use stormkv::client::Client;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{Connect, seconds};
use super::{Exit, Failure};
use connection::{Http, Stream, outcome};
use load::{Connection, Load, Mix};

/// The most clients that are run at once: each has a connection of its own.
const MAX_CLIENTS: usize = 10_000;

/// The largest value, as for every client.
const MAX_VALUE: i64 = stormkv::kv::MAX_VALUE as i64;

/// The arguments of `stormkv bench`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    /// How many clients, one run each: 1 to 10000.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,32,256")]
    clients: Vec<usize>,
    /// What they do: put, get, or mixed:SHARE with the share of gets.
    #[arg(long, default_value = "put")]
    mix: Mix,
    /// How long each run is measured: above 0, at most a day.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How long each run goes on before it is measured: above 0, at most a day.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// The length of a value: 0 to 1048576.
    #[arg(long, value_name = "N", default_value_t = 128,
        value_parser = clap::value_parser!(i64).range(0..=MAX_VALUE))]
    value_bytes: i64,
    /// How many keys there are, 1 to 100000000. They are all set before gets are measured.
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// All clients talk to the leader; with `false`, they spread over the endpoints.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_only: bool,
    /// Gets may be answered by any node from what it has, however old.
    #[arg(long)]
    stale: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs it. Returns the exit code: 0, 64 if the arguments make no sense, 69 if there is no cluster.
pub fn main(args: &Args) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args, &mut std::io::stdout().lock())),
        Err(error) => Err(Failure::new(Exit::Internal, format!("no runtime: {error}"))),
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(Failure { exit, message }) => {
            eprintln!("stormkv bench: {message}");
            exit
        }
    }
}

async fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    if let Some(wrong) = args.clients.iter().find(|&&count| count == 0 || count > MAX_CLIENTS) {
        return Err(Failure::usage(format!("{wrong} clients: 1 to {MAX_CLIENTS} are possible")));
    }
    let client = args.connect.builder().map_err(Failure::usage)?;
    let client = client.build().map_err(|error| Failure::usage(error.to_string()))?;
    let Some(leader) = client.find_leader().await else {
        let message = "no endpoint says that it leads: is the cluster up? Try stormkv ctl status";
        return Err(Failure::new(Exit::Unavailable, message));
    };
    let way = Arc::new(Way::new(args, client).map_err(Failure::usage)?);
    let load = Load {
        mix: args.mix,
        keys: args.keys,
        value_bytes: usize::try_from(args.value_bytes).unwrap_or_default(),
        warmup: args.warmup,
        measured: args.seconds,
    };
    let target = if args.leader_only { leader } else { args.connect.endpoints.join(",") };
    let results = measure(args, &load, &way, &target, out).await?;
    if args.json {
        let report = report::json(&format!("stormkv {target}"), &load, &results);
        writeln!(out, "{report}")
            .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    }
    Ok(())
}

async fn measure(
    args: &Args,
    load: &Load,
    way: &Arc<Way>,
    target: &str,
    out: &mut impl Write,
) -> Result<Vec<(usize, load::Tally)>, Failure> {
    let lost = |error: std::io::Error| Failure::new(Exit::Internal, error.to_string());
    if !args.json {
        let (mix, keys, bytes) = (load.mix, load.keys, load.value_bytes);
        let (measured, warmup) = (load.measured, load.warmup);
        let reads = if args.stale { "stale" } else { "linearizable" };
        writeln!(out, "{mix}, {bytes} B values, {keys} keys, {reads} reads, at {target}")
            .map_err(lost)?;
        writeln!(out, "each run {measured:?} after {warmup:?} of warm-up\n").map_err(lost)?;
        out.write_all(report::head().as_bytes()).map_err(lost)?;
    }
    let nodes = |count| (0..count).map(|number| Node::new(number, way.clone())).collect();
    if load.mix != Mix::Put {
        let fillers = nodes(args.clients.iter().copied().max().unwrap_or(1).min(64));
        load::fill(load, fillers)
            .await
            .map_err(|message| Failure::new(Exit::Unavailable, message))?;
    }
    let mut results = Vec::new();
    for &clients in &args.clients {
        let (tally, _) = load::run(*load, nodes(clients)).await;
        if !args.json {
            out.write_all(report::line(clients, &tally).as_bytes()).map_err(lost)?;
        }
        results.push((clients, tally));
    }
    Ok(results)
}

/// What all clients have in common.
struct Way {
    client: Client,
    endpoints: Vec<String>,
    leader_only: bool,
    /// What follows the key in a get's first line.
    get_tail: &'static [u8],
    /// The headers of every request but for `host`.
    headers: Vec<u8>,
}

impl Way {
    fn new(args: &Args, client: Client) -> Result<Way, String> {
        let token = args.connect.token()?;
        let headers = token.map(|token| format!("authorization: Bearer {token}\r\n"));
        let get_tail: &[u8] = if args.stale {
            b"?consistency=stale HTTP/1.1\r\nhost: "
        } else {
            b" HTTP/1.1\r\nhost: "
        };
        Ok(Way {
            client,
            endpoints: args.connect.endpoints.clone(),
            leader_only: args.leader_only,
            get_tail,
            headers: headers.unwrap_or_default().into_bytes(),
        })
    }

    /// Connects the client with this number. Returns the connection and its `host`.
    async fn connect(&self, number: usize) -> Option<(Http, Vec<u8>)> {
        let spread = &self.endpoints[number % self.endpoints.len()];
        let endpoint = if self.leader_only { self.client.find_leader().await } else { None };
        let endpoint = endpoint.unwrap_or_else(|| spread.clone());
        let uri: hyper::Uri = endpoint.trim().parse().ok()?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await.ok()?;
        tcp.set_nodelay(true).ok()?;
        let stream: Box<dyn Stream> = if is_tls {
            let name = rustls::pki_types::ServerName::try_from(host).ok()?;
            Box::new(TlsConnector::from(self.client.tls()).connect(name, tcp).await.ok()?)
        } else {
            Box::new(tcp)
        };
        let authority = uri.authority()?.as_str();
        Some((Http::new(stream), format!("{authority}\r\n").into_bytes()))
    }
}

/// One client.
struct Node {
    number: usize,
    way: Arc<Way>,
    open: Option<(Http, Vec<u8>)>,
}

impl Node {
    fn new(number: usize, way: Arc<Way>) -> Node {
        Node { number, way, open: None }
    }

    async fn ask(
        &mut self,
        method: &[u8],
        key: &str,
        tail: &[u8],
        body: &[u8],
    ) -> Result<(), load::Failure> {
        if self.open.is_none() {
            self.open = self.way.connect(self.number).await;
        }
        let (http, host) = self.open.as_mut().ok_or(load::Failure::NotSent)?;
        let head = [method, key.as_bytes(), tail, host, &self.way.headers];
        match http.exchange(&head, body).await {
            Ok((status, body)) => outcome(status, body),
            Err(_) => Err(load::Failure::Unknown),
        }
    }
}

impl Connection for Node {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), load::Failure> {
        self.ask(b"PUT /v1/kv/", key, b" HTTP/1.1\r\nhost: ", value).await
    }

    async fn get(&mut self, key: &str) -> Result<(), load::Failure> {
        let tail = self.way.get_tail;
        self.ask(b"GET /v1/kv/", key, tail, b"").await
    }

    fn reset(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests;
