//! Connections against file descriptors: a node that has few keeps its log and its watchers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::fleet::Fleet;
use crate::harness::http::{Connection, Request};
use crate::harness::{PATIENCE, turn, until};

/// Connections that say nothing.
struct Idle {
    to: SocketAddr,
    streams: Vec<TcpStream>,
}

impl Idle {
    fn open(to: SocketAddr, count: usize) -> Idle {
        let streams = (0..count).map(|_| connect(to)).collect();
        Idle { to, streams }
    }

    /// Opens some of those again that the node has closed.
    fn refresh(&mut self) {
        let mut left = 5;
        for stream in &mut self.streams {
            let closed = match stream.read(&mut [0]) {
                Ok(count) => count == 0,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            if closed && left > 0 {
                *stream = connect(self.to);
                left -= 1;
            }
        }
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the system's queue of connections has room");
    stream.set_nonblocking(true).expect("a socket that does not block");
    stream
}

/// 700 idle connections to each of three nodes that may have 256 files open, while the log goes through
/// a dozen segments.
#[test]
fn idle_connections_do_not_take_the_descriptors_of_the_disk() {
    let _turn = turn();
    stormkv::tcp::raise_limit();
    let mut fleet = Fleet::prepare(3, &["--segment-mib", "1"]);
    fleet.nodes.values_mut().for_each(|node| node.limits = Some("-n 256"));
    fleet.start_all();
    fleet.leader();
    // Whoever is connected already goes on.
    let mut writers: Vec<Connection> =
        fleet.nodes.values().map(|node| Connection::new(node.http, PATIENCE)).collect();
    for writer in &mut writers {
        writer.ask(&Request::new("GET", "/health")).expect("an answer");
    }
    let ports = fleet.nodes.values().flat_map(|node| [(node.http, 400), (node.peers, 300)]);
    let mut idle: Vec<Idle> = ports.map(|(to, count)| Idle::open(to, count)).collect();
    let value = "x".repeat(100_000);
    for number in 0..120 {
        let put = Request::new("PUT", format!("/key-{}", number % 10)).body(value.clone());
        until("a value of 100 kB is written", || {
            let answer = writers[number % 3].ask(&put).ok()?;
            (answer.status == 204).then_some(())
        });
        idle.iter_mut().for_each(Idle::refresh);
    }
    for id in 1..=3 {
        for path in ["/health", "/ready", "/v1/status", "/metrics"] {
            fleet.ask(id, &Request::new("GET", path), 200);
        }
        assert!(fleet.node(id).is_up(), "node {id} has stopped");
        let printed = fleet.node(id).printed();
        assert!(!printed.contains("the node stops"), "{printed}");
    }
    drop(idle);
    fleet.converge(&[1, 2, 3]);
}

/// A low soft limit is raised; a low hard one is refused with the remedy.
#[test]
fn soft_limit_is_raised_and_a_low_hard_limit_is_refused() {
    let _turn = turn();
    let mut fleet = Fleet::prepare(1, &[]);
    fleet.node(1).limits = Some("-S -n 64");
    fleet.start_all();
    fleet.put(1, "key", "value");
    fleet.node(1).kill();
    fleet.node(1).limits = Some("-n 100");
    fleet.node(1).start();
    let status = fleet.node(1).exit();
    let printed = fleet.node(1).printed();
    assert_eq!(status.code(), Some(64), "{printed}");
    assert!(printed.contains("ulimit -Hn"), "{printed}");
}

/// All connections are in use by clients that do not finish their bodies: the state of the node can be
/// seen as ever, and everybody else learns why there is no answer.
#[test]
fn full_node_still_answers_its_watchers() {
    let _turn = turn();
    let mut fleet = Fleet::found_with(1, &["--max-connections", "8"]);
    let to = fleet.node(1).http;
    let head = format!("PUT /slow HTTP/1.1\r\nhost: {to}\r\ncontent-length: 10\r\n\r\nx");
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(to).expect("the node listens");
        stream.write_all(head.as_bytes()).expect("sent");
        busy.push(stream);
    }
    let refused = fleet.ask(1, &Request::new("PUT", "/key").body("x".repeat(500_000)), 503);
    assert_eq!(refused.code(), "too_many_connections", "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Strangers do not keep the watchers out, either.
    let _idle: Vec<TcpStream> = (0..100).map(|_| connect(to)).collect();
    for path in ["/health", "/ready", "/v1/status", "/metrics"] {
        let answer = fleet.node(1).get(path).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    drop(busy);
    fleet.put(1, "key", "value");
}
