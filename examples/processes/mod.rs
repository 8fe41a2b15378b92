//! Three nodes of a service as processes on this machine, for the tests of the examples.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time for anything to happen: an election, or a start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// The status and the body of an answer.
type Answer = (u16, String);

/// A member, and its process while it runs.
pub struct Node {
    /// Its number, from 1.
    pub id: usize,
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
    pub fn query(&self, query: &str) -> String {
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
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// The program of a node, and its arguments beside those of every node.
    program: PathBuf,
    arguments: Vec<String>,
    urls: String,
    folder: PathBuf,
}

impl Cluster {
    /// Starts the three; their data and logs are in a directory of this name within `scratch`, until the
    /// cluster is dropped.
    pub fn start(program: &str, arguments: &[&str], scratch: &str, name: &str) -> Cluster {
        let folder = Path::new(scratch).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a directory");
        let [one, two, three, peers @ ..] = free_addresses();
        let urls = peers.map(|address: SocketAddr| format!("http://{address}")).join(",");
        let nodes = (1..).zip([one, two, three]);
        let nodes = nodes.map(|(id, http)| Node { id, http, process: None }).collect();
        let program = PathBuf::from(program);
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { nodes, program, arguments, urls, folder };
        (0..3).for_each(|at| cluster.launch(at));
        eventually("all are ready", || cluster.nodes.iter().all(Node::is_ready).then_some(()));
        cluster
    }

    /// Starts the process of a member, on the data that it left if it ran before.
    fn launch(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let log = self.folder.join(format!("node-{}.log", node.id));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let process = Command::new(&self.program)
            .args(&self.arguments)
            .args(["--id", &node.id.to_string(), "--cluster", &self.urls])
            .args(["--listen-client", &node.http.to_string(), "--segment-mib", "1", "--data-dir"])
            .arg(self.folder.join(format!("data-{}", node.id)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        node.process = Some(process.expect("it starts"));
    }

    /// Kills the leader; returns its place.
    pub fn kill_leader(&mut self) -> usize {
        let leader = eventually("a leader", || self.nodes.iter().position(Node::leads));
        self.nodes[leader].kill();
        leader
    }

    /// Starts a member again, and waits until it is ready.
    pub fn restart(&mut self, at: usize) {
        self.launch(at);
        eventually("it is ready again", || self.nodes[at].is_ready().then_some(()));
    }

    /// The members that run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// Sends a request to one member after the other until one of them answers with `status`; returns
    /// the body of that answer.
    pub fn ask(&self, path: &str, header: &str, body: &str, status: u16) -> String {
        eventually(path, || {
            let mut answers = self.running().map(|node| node.request("POST", path, header, body));
            answers.find_map(|answer| answer.ok().filter(|(got, _)| *got == status))
        })
        .1
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
pub fn eventually<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(begun.elapsed() < TIMEOUT, "never happened: {what}");
        sleep(PAUSE);
    }
}
