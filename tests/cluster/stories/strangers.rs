//! Strangers at the port for peers: whoever says nothing keeps no member out.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::fleet::Fleet;
use crate::harness::nodes::PROGRAM;
use crate::harness::{turn, within};

/// For a cluster to have a leader after a restart, whoever else connects.
const LIMIT: Duration = Duration::from_secs(10);

/// Connections that are made again and again, and never say anything.
struct Strangers {
    ended: Arc<AtomicBool>,
    connected: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Strangers {
    /// So many strangers at each of these ports.
    fn besiege(ports: &[SocketAddr], each: usize) -> Strangers {
        let (ended, connected) = (Arc::default(), Arc::default());
        let mut strangers = Strangers { ended, connected, threads: Vec::new() };
        for &to in ports {
            let (ended, connected) = (strangers.ended.clone(), strangers.connected.clone());
            strangers.threads.push(thread::spawn(move || {
                let mut streams: Vec<Option<TcpStream>> = (0..each).map(|_| None).collect();
                while !ended.load(Ordering::Relaxed) {
                    for stream in streams.iter_mut().filter(|stream| is_closed(stream.as_ref())) {
                        *stream = TcpStream::connect(to).ok();
                        let Some(stream) = stream else { break };
                        stream.set_nonblocking(true).expect("a socket that does not block");
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }));
        }
        strangers
    }
}

fn is_closed(stream: Option<&TcpStream>) -> bool {
    let Some(mut stream) = stream else { return true };
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Restarts the whole cluster while 300 strangers connect to each of its members.
fn restart_besieged(fleet: &mut Fleet) {
    stormkv::tcp::raise_limit();
    fleet.leader();
    fleet.put(1, "key", "value");
    let ports: Vec<SocketAddr> = fleet.nodes.values().map(|node| node.peers).collect();
    let strangers = Strangers::besiege(&ports, 300);
    for round in 0..3 {
        fleet.kill_all();
        let before = strangers.connected.load(Ordering::Relaxed);
        fleet.start_all();
        let began = Instant::now();
        let ids = fleet.ids();
        within(LIMIT, "a leader is elected", || fleet.leader_among(&ids));
        println!("round {round}: a leader after {:?}", began.elapsed());
        for id in ids {
            assert_eq!(fleet.get(id, "key").as_deref(), Some("value"), "node {id}");
        }
        let came = strangers.connected.load(Ordering::Relaxed) - before;
        assert!(came > 900, "only {came} strangers came");
    }
}

#[test]
fn silent_strangers_keep_no_member_out() {
    let _turn = turn();
    let mut fleet = Fleet::prepare(3, &[]);
    fleet.start_all();
    restart_besieged(&mut fleet);
}

#[test]
fn silent_strangers_keep_no_member_with_a_certificate_out() {
    let _turn = turn();
    let mut fleet = Fleet::prepare_with("https", 3, &[]);
    let folder = fleet.folder().join("certs");
    let made = std::process::Command::new(PROGRAM)
        .args(["certs", "--hosts", "127.0.0.1", "--output"])
        .arg(&folder)
        .output()
        .expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (id, node) in &mut fleet.nodes {
        let files = [
            ("--peer-ca", "peer-ca.pem".to_owned()),
            ("--peer-cert", format!("node-{id}.pem")),
            ("--peer-key", format!("node-{id}.key")),
        ];
        for (flag, name) in files {
            node.arguments.extend([flag.to_owned(), folder.join(name).display().to_string()]);
        }
    }
    fleet.start_all();
    restart_besieged(&mut fleet);
}
