//! A cluster on this machine in one command, for people who only want to look.
//!
//! Each node is a process of its own, with its own port and its own log file, so that one can be
//! killed and started again by hand to see what happens.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use stormkv::api::Consistency;
use stormkv::client::Client;

use super::{Exit, Failure};

#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes, 1 to 9
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// The first node's port for clients, from 1024; the others follow in steps of 10,000, as in raftexample
    #[arg(long, value_name = "PORT", default_value = "12380", value_parser = clap::value_parser!(u16).range(1024..))]
    port: u16,
    /// Keep the data here [default: a temporary directory that goes when the cluster stops]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// How long the nodes may take to become a cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// Node `index` (from 0) in a step of 10,000 if that fits, of 10 if not: (clients, peers).
fn ports(first: u16, nodes: u16, index: u16) -> (u16, u16) {
    let step = if u32::from(first) + u32::from(nodes - 1) * 10_000 < 65_536 { 10_000 } else { 10 };
    let client = first + index * step;
    (client, client - 1)
}

struct Node {
    id: u16,
    port: u16,
    child: Child,
    log: PathBuf,
}

/// The nodes, which do not outlive this process in good order.
struct Nodes(Vec<Node>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

pub fn dev(args: &DevArgs) -> Result<Exit, Failure> {
    let temporary = args.data_dir.is_none();
    let dir = match &args.data_dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| io(dir, &error))?;
            dir.clone()
        }
        None => scratch()?,
    };
    let result = run(args, &dir);
    if temporary {
        let _ = std::fs::remove_dir_all(&dir);
    }
    result
}

/// A directory that nobody else has made or can look into.
fn scratch() -> Result<PathBuf, Failure> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    for number in 0..100 {
        let name = format!("stormkv-dev-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        match builder.create(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| dir.clone()).map_err(|error| io(&dir, &error)),
        }
    }
    Err(Failure::usage("there is no name left for a temporary directory: give --data-dir"))
}

fn run(args: &DevArgs, dir: &Path) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    runtime.block_on(async {
        let handler =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Internal, error.to_string()));
        // Before the children start: they are told to stop by us, in order.
        let mut interrupt = handler(SignalKind::interrupt())?;
        let mut terminate = handler(SignalKind::terminate())?;
        // The terminal was closed.
        let mut hangup = handler(SignalKind::hangup())?;
        let mut nodes = start(args, dir)?;
        tokio::select! {
            ready = ready(&mut nodes) => ready?,
            _ = interrupt.recv() => return Ok(Exit::Ok),
            _ = terminate.recv() => return Ok(Exit::Ok),
            _ = hangup.recv() => return Ok(Exit::Ok),
        }
        introduce(&nodes, dir);
        tokio::select! {
            failure = watch(&mut nodes) => Err(failure),
            _ = interrupt.recv() => Ok(Exit::Ok),
            _ = terminate.recv() => Ok(Exit::Ok),
            _ = hangup.recv() => Ok(Exit::Ok),
        }
    })
}

fn start(args: &DevArgs, dir: &Path) -> Result<Nodes, Failure> {
    let ports: Vec<_> = (0..args.nodes).map(|at| ports(args.port, args.nodes, at)).collect();
    for port in ports.iter().flat_map(|(client, peer)| [*client, *peer]) {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            return Err(Failure::usage(format!(
                "port {port} is in use: stop what uses it, or choose others with --port"
            )));
        }
    }
    let urls: Vec<_> = ports.iter().map(|(_, peer)| format!("http://127.0.0.1:{peer}")).collect();
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Internal, format!("where am I? {error}")))?;
    let mut nodes = Nodes(Vec::new());
    for (id, (port, _)) in (1..).zip(&ports) {
        let log = dir.join(format!("node-{id}.log"));
        let file = std::fs::File::create(&log).map_err(|error| io(&log, &error))?;
        let mut command = Command::new(&program);
        command
            .args(["--id", &id.to_string(), "--port", &port.to_string()])
            .args(["--cluster", &urls.join(",")])
            .arg("--data-dir")
            .arg(dir.join(format!("node-{id}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        // Ctrl-C in a terminal reaches the whole group: only this process is to act on it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|error| io(&program, &error))?;
        nodes.0.push(Node { id, port: *port, child, log });
    }
    Ok(nodes)
}

/// Waits until each node answers, or one has ended.
async fn ready(nodes: &mut Nodes) -> Result<(), Failure> {
    #[allow(clippy::disallowed_methods, reason = "a person waits")]
    let began = Instant::now();
    for at in 0..nodes.0.len() {
        let endpoint = format!("http://127.0.0.1:{}", nodes.0[at].port);
        let client = Client::builder([endpoint]).build();
        let client = client.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        while client.get("ready", Consistency::Linearizable).await.is_err() {
            check(nodes)?;
            if began.elapsed() > PATIENCE {
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!(
                        "node {} does not answer: see {}",
                        nodes.0[at].id,
                        nodes.0[at].log.display()
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Whether all nodes are there, unless a person has killed one, which is what they are for.
fn check(nodes: &mut Nodes) -> Result<(), Failure> {
    use std::os::unix::process::ExitStatusExt;
    for node in &mut nodes.0 {
        if let Ok(Some(status)) = node.child.try_wait()
            && status.signal().is_none()
            && !status.success()
        {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it left no log");
            return Err(Failure::new(Exit::Io, format!("node {} ended: {last}", node.id)));
        }
    }
    Ok(())
}

async fn watch(nodes: &mut Nodes) -> Failure {
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        every.tick().await;
        if let Err(failure) = check(nodes) {
            return failure;
        }
    }
}

fn introduce(nodes: &Nodes, dir: &Path) {
    let mut text = String::from("a cluster is running; Ctrl-C stops it\n\n");
    for node in &nodes.0 {
        let (id, pid, port) = (node.id, node.child.id(), node.port);
        text += &format!("  node {id}  pid {pid:<8}  http://127.0.0.1:{port}\n");
    }
    let port = nodes.0[0].port;
    let endpoints: Vec<_> =
        nodes.0.iter().map(|node| format!("http://127.0.0.1:{}", node.port)).collect();
    text += &format!(
        "\n  curl http://127.0.0.1:{port}/greeting -XPUT -d hello\n  \
         curl http://127.0.0.1:{port}/greeting\n  \
         stormkv ctl --endpoints {} status\n\nlogs and data: {}\n",
        endpoints.join(","),
        dir.display()
    );
    // Whoever started this may have closed its end of the pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_raftexamples() {
        let three: Vec<_> = (0..3).map(|at| ports(12380, 3, at)).collect();
        assert_eq!(three, [(12380, 12379), (22380, 22379), (32380, 32379)]);
        assert_eq!(ports(50_000, 3, 2), (50_020, 50_019));
    }
}
