//! The ledger as a real cluster: three processes on this machine, one of which is killed.
//!
//! `cargo test -p bank --features node --test cluster`

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bank::{ACCOUNTS, Accounts};
use stormkv::machine::{Context, StateMachine};

/// Time for anything to happen: an election, or a start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Transfers before the leader is killed, and afterwards.
const TRANSFERS: u64 = 20;

/// The status and the body of an answer.
type Answer = (u16, String);

/// A member, and its process while it runs.
struct Node {
    id: usize,
    http: SocketAddr,
    process: Option<Child>,
}

impl Node {
    fn request(&self, method: &str, path: &str, header: &str, body: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{header}content-length: \
             {length}\r\n\r\n{body}",
            self.http
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => Err(io::Error::other(format!("no answer: {answer:?}"))),
        }
    }

    /// The answer to a query, once the node can give one.
    fn query(&self, query: &str) -> String {
        let answer = || self.request("POST", "/v1/query", "", query).ok();
        eventually(query, || answer().filter(|(status, _)| *status == 200)).1
    }

    fn is_ready(&self) -> bool {
        self.request("GET", "/ready", "", "").is_ok_and(|(status, _)| status == 200)
    }

    fn leads(&self) -> bool {
        let status = self.request("GET", "/v1/status", "", "");
        status.is_ok_and(|(_, body)| body.contains(r#""role":"leader""#))
    }

    /// Kills the process: nothing is handed over, and nothing is written any more.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it has ended");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster of three, and its directory.
struct Cluster {
    nodes: Vec<Node>,
    urls: String,
    folder: PathBuf,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("bank-cluster-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a directory");
        let [one, two, three, peers @ ..] = free_addresses();
        let urls = peers.map(|address: SocketAddr| format!("http://{address}")).join(",");
        let nodes = (1..).zip([one, two, three]);
        let nodes = nodes.map(|(id, http)| Node { id, http, process: None }).collect();
        let mut cluster = Cluster { nodes, urls, folder };
        (0..3).for_each(|at| cluster.launch(at));
        cluster
    }

    /// Starts the process of a member, on the data that it left if it ran before.
    fn launch(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let log = self.folder.join(format!("node-{}.log", node.id));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_bank-node"))
            .args(["--id", &node.id.to_string(), "--cluster", &self.urls])
            .args(["--listen-client", &node.http.to_string(), "--segment-mib", "1", "--data-dir"])
            .arg(self.folder.join(format!("data-{}", node.id)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        node.process = Some(process.expect("it starts"));
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// Sends a request to one member after the other until one of them answers with `status`.
    fn ask(&self, path: &str, header: &str, body: &str, status: u16) -> String {
        eventually(path, || {
            let mut answers = self.running().map(|node| node.request("POST", path, header, body));
            answers.find_map(|answer| answer.ok().filter(|(got, _)| *got == status))
        })
        .1
    }

    /// Checks each balance and the total at each member that runs.
    fn compare(&self, ledger: &Accounts) {
        let queries = (0..ACCOUNTS).map(|account| format!("balance {account}"));
        for query in queries.chain(["total".to_owned()]) {
            let wanted = ledger.query(query.as_bytes());
            for node in self.running() {
                assert_eq!(node.query(&query).as_bytes(), wanted, "{query} at node {}", node.id);
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
        if std::thread::panicking() {
            eprintln!("the logs are in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Six addresses at which no process listens. They are below the range from which the system takes ports
/// for outgoing connections, so none is taken before its node binds it.
fn free_addresses() -> [SocketAddr; 6] {
    // Another run of the test at the same time begins elsewhere.
    let first = 10_000 + (std::process::id().wrapping_mul(97) % 8_000) as u16;
    let addresses = (first..).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut free = addresses.filter(|address| TcpListener::bind(address).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}

/// Waits for a value.
fn eventually<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(begun.elapsed() < TIMEOUT, "never happened: {what}");
        sleep(PAUSE);
    }
}

#[test]
fn killed_leader_loses_no_transfer_and_no_money() {
    let mut cluster = Cluster::start();
    eventually("all are ready", || cluster.nodes.iter().all(Node::is_ready).then_some(()));
    let opened = cluster.ask("/v1/sessions", "", "", 201);
    let session = opened.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();

    // The same transfers on a ledger that is not replicated. A transfer is repeated until it is
    // answered, and has a number in the session: so it takes effect once.
    let mut ledger = Accounts::new(&());
    let mut transfer = |cluster: &Cluster, number: u64| {
        let (from, to) = (number as usize % ACCOUNTS, (3 * number as usize + 1) % ACCOUNTS);
        // Some are more than there is.
        let words = format!("transfer {from} {to} {}", 17 * number % 150);
        let key = format!("idempotency-key: {session}-{number}\r\n");
        let answer = cluster.ask("/v1/command", &key, &words, 200);
        assert_eq!(
            answer.as_bytes(),
            ledger.apply(Context::new(number, Duration::ZERO), words.as_bytes()),
            "{words}"
        );
    };
    (1..=TRANSFERS).for_each(|number| transfer(&cluster, number));

    let leader = eventually("a leader", || cluster.nodes.iter().position(Node::leads));
    cluster.nodes[leader].kill();
    (TRANSFERS + 1..=2 * TRANSFERS).for_each(|number| transfer(&cluster, number));
    cluster.compare(&ledger);

    cluster.launch(leader);
    eventually("it is ready again", || cluster.nodes[leader].is_ready().then_some(()));
    cluster.compare(&ledger);
    assert_eq!(cluster.nodes[leader].query("total"), "800");
    // A refusal of the ledger is an answer of the ledger, and words that it does not know, too.
    let refused = cluster.ask("/v1/command", "", "transfer 1 2 1000", 200);
    assert!(refused.starts_with("refused: "), "{refused}");
    let unknown = cluster.nodes[leader].query("sum");
    assert!(unknown.starts_with("`sum` is not an operation"), "{unknown}");
}
