//! One node as a process: started, signalled, waited for, and never left behind.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::disks::Disk;
use super::http::{Connection, Failure, Request, Response};
use super::{PATIENCE, until};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_stormkv");

/// Lines of each log that a failing test prints.
const SHOWN: usize = 60;

/// An address nobody listens at. It is below the range from which the system takes ports for
/// outgoing connections, so nobody takes it before the node does, which binds it later.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 12_000;
    // Other programs with tests begin elsewhere.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + at % COUNT) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} on is free");
}

/// A node, running or not.
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Where it serves clients.
    pub http: SocketAddr,
    /// Where it listens for peers.
    pub peers: SocketAddr,
    /// What the other members know it by.
    pub url: String,
    /// Its data.
    pub data: PathBuf,
    /// What it printed, over all of its lives.
    pub log: PathBuf,
    /// All arguments it is started with.
    pub arguments: Vec<String>,
    /// Limits that it is started under, as arguments of the shell's `ulimit`.
    pub limits: Option<&'static str>,
    /// A disk that the test controls, if it has one.
    pub disk: Option<Disk>,
    process: Option<Child>,
    paused: bool,
}

impl Node {
    /// A node that is not started yet.
    pub fn new(id: u64, folder: &Path, http: SocketAddr, peers: SocketAddr, url: String) -> Node {
        Node {
            id,
            http,
            peers,
            url,
            data: folder.join(format!("data-{id}")),
            log: folder.join(format!("node-{id}.log")),
            arguments: Vec::new(),
            limits: None,
            disk: None,
            process: None,
            paused: false,
        }
    }

    /// Starts the process. It may not serve yet when this returns.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let twin = log.try_clone().expect("a second handle");
        let mut command = match self.limits {
            None => Command::new(PROGRAM),
            Some(limits) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit {limits} && exec \"$0\" \"$@\"")).arg(PROGRAM);
                shell
            }
        };
        let process = command
            .args(&self.arguments)
            .envs(self.disk.iter().flat_map(Disk::variables))
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(twin)
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM} cannot be started: {error}"));
        self.process = Some(process);
        self.paused = false;
    }

    /// Whether the process is there, paused or not.
    pub fn is_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Whether it was started and neither killed nor waited for.
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it was stopped by SIGSTOP.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// kill -9. Nothing happens if it is down.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        self.paused = false;
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub fn pause(&mut self) {
        self.signal("STOP");
        self.paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal("CONT");
        self.paused = false;
    }

    /// SIGTERM: it should end by itself.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// SIGHUP: it should read its certificates and tokens again.
    pub fn hang_up(&mut self) {
        self.signal("HUP");
    }

    fn signal(&mut self, name: &str) {
        let Some(process) = &self.process else { panic!("node {} is down", self.id) };
        let number = process.id();
        // The shell's own `kill` is there on every machine that has a shell.
        let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {number}")).status();
        assert!(done.is_ok_and(|status| status.success()), "SIG{name} to process {number}");
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        assert!(self.process.is_some(), "node {} is down", self.id);
        let what = format!("node {} ends by itself", self.id);
        let status = until(&what, || {
            self.process.as_mut().and_then(|process| process.try_wait().expect("its own child"))
        });
        self.process = None;
        status
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it printed.
    pub fn tail(&self, lines: usize) -> String {
        let printed = self.printed();
        let all: Vec<&str> = printed.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, request: &Request) -> Result<Response, Failure> {
        Connection::new(self.http, PATIENCE).ask(request)
    }

    /// A GET that should be answered soon.
    pub fn get(&self, target: &str) -> Option<Response> {
        Connection::new(self.http, Duration::from_secs(6)).ask(&Request::new("GET", target)).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of the logs, for a test that fails.
pub fn print_logs<'a>(nodes: impl Iterator<Item = &'a Node>) {
    for node in nodes {
        println!("--- node {}: {} (end)\n{}", node.id, node.log.display(), node.tail(SHOWN));
    }
}
