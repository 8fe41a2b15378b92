//! What an acceptor makes of dialers that are wrong, late, or no peers at all.

use tokio::io::AsyncReadExt;

use super::*;
use crate::tcp::network::Options;
use crate::tcp::testing::{TestNode, cluster, eventually, forward, heartbeat, life};

fn hello(from: u64, to: u64) -> Hello {
    Hello {
        versions: VERSIONS,
        lane: Lane::Control.number(),
        cluster: cluster(7),
        from: NodeId(from),
        to: NodeId(to),
        life: life(from + 100),
        url: "http://127.0.0.1:1".to_owned(),
    }
}

async fn dial(node: &TestNode) -> TcpStream {
    TcpStream::connect(("127.0.0.1", node.port())).await.unwrap()
}

async fn greet(node: &TestNode, hello: &Hello) -> (TcpStream, Welcome) {
    let mut stream = dial(node).await;
    stream.write_all(&hello.encode()).await.unwrap();
    let welcome = Welcome::read(&mut stream).await.unwrap();
    (stream, welcome)
}

/// Waits until the acceptor has closed the connection. Says what it sent before.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.expect("an end");
    rest
}

#[tokio::test]
async fn a_wrong_hello_is_told_what_is_wrong() {
    let node = TestNode::start(2).await;
    node.remove(&[5]);
    let right = hello(1, 2);
    let cases = [
        (right.clone(), Status::Ok),
        (Hello { cluster: None, ..right.clone() }, Status::Ok),
        (Hello { cluster: cluster(8), ..right.clone() }, Status::WrongCluster),
        (Hello { to: NodeId(3), ..right.clone() }, Status::WrongNode),
        (Hello { from: NodeId(5), ..right.clone() }, Status::Removed),
        (Hello { from: NodeId(5), cluster: cluster(8), ..right.clone() }, Status::WrongCluster),
        (Hello { from: NodeId(2), ..right.clone() }, Status::NotAllowed),
        (Hello { from: NodeId(0), ..right.clone() }, Status::NotAllowed),
        (Hello { versions: (2, 3), ..right.clone() }, Status::NoCommonVersion),
        (Hello { life: life(9), ..right.clone() }, Status::OtherLife),
        (Hello { life: life(9), cluster: None, ..right.clone() }, Status::OtherLife),
        (Hello { life: life(9), cluster: cluster(8), ..right.clone() }, Status::WrongCluster),
    ];
    let (version, id, life) = (1, NodeId(2), node.network.options.life);
    for (hello, status) in cases {
        let (stream, welcome) = greet(&node, &hello).await;
        assert_eq!(welcome, Welcome { version, status, cluster: cluster(7), id, life });
        if status != Status::Ok {
            assert!(closed(stream).await.is_empty());
        }
    }
    assert_eq!(node.network.stats().answered(Status::WrongCluster).get(), 3);
    assert_eq!(node.network.stats().answered(Status::OtherLife).get(), 2);
}

#[tokio::test]
async fn garbage_is_closed_and_counted() {
    let mut node = TestNode::start(2).await;
    let unknown_lane = Hello { lane: 9, ..hello(1, 2) }.encode();
    let first = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1], &unknown_lane];
    for bytes in first {
        let mut stream = dial(&node).await;
        stream.write_all(bytes).await.unwrap();
        assert!(closed(stream).await.is_empty(), "no answer");
    }
    let frame = |message: Message| message.encode().to_vec();
    let mut damaged = frame(heartbeat(1, 2, 3));
    damaged[10] ^= 1;
    let mut pong = Vec::new();
    Frame::Pong(1).encode_into(&mut pong);
    let then = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        damaged,
        pong,
        // In the name of another, on the wrong lane, and too long for the lane.
        frame(heartbeat(3, 2, 3)),
        frame(forward(1, 10)),
        (2_u32 << 20).to_le_bytes().into_iter().chain([0; 100]).collect(),
    ];
    let count = (first.len() + then.len()) as u64;
    for bytes in then {
        let (mut stream, welcome) = greet(&node, &hello(1, 2)).await;
        assert_eq!(welcome.status, Status::Ok);
        stream.write_all(&frame(heartbeat(1, 2, 1))).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert!(closed(stream).await.is_empty());
        assert_eq!(node.message().await, (NodeId(1), heartbeat(1, 2, 1)), "what came before");
    }
    let garbage = &node.network.stats().garbage;
    eventually("all are counted", || garbage.get() == count).await;
    assert!(node.inbox.try_recv().is_err(), "nothing else was delivered");
}

#[tokio::test]
async fn who_is_slow_or_silent_is_closed() {
    let patience = |options: &mut Options| {
        options.cluster = cluster(7);
        options.timing.handshake = Duration::from_secs(1);
        options.timing.silence = Duration::from_secs(1);
        options.max_handshakes = 1;
    };
    let mut node = TestNode::with(2, patience).await;
    let mut slow = dial(&node).await;
    slow.write_all(&hello(1, 2).encode()[..20]).await.unwrap();
    // There is one place for strangers: the next waits for it.
    let (silent, welcome) = greet(&node, &hello(1, 2)).await;
    assert_eq!(welcome.status, Status::Ok);
    assert!(closed(slow).await.is_empty());
    assert_eq!(node.network.stats().unfinished.get(), 1);
    assert!(closed(silent).await.is_empty());

    // Half a frame, then silence.
    let (mut stream, _) = greet(&node, &hello(1, 2)).await;
    let frame = heartbeat(1, 2, 3).encode();
    stream.write_all(&frame).await.unwrap();
    stream.write_all(&frame[..frame.len() - 1]).await.unwrap();
    closed(stream).await;
    assert_eq!(node.message().await.1, heartbeat(1, 2, 3));
    assert!(node.inbox.try_recv().is_err());
}

#[tokio::test]
async fn silent_strangers_keep_no_peer_out() {
    let mut node = TestNode::with(2, |options| {
        options.cluster = cluster(7);
        options.max_handshakes = 4;
    })
    .await;
    let mut strangers = Vec::new();
    for _ in 0..60 {
        strangers.push(dial(&node).await);
    }
    let began = Instant::now();
    let (mut stream, welcome) = greet(&node, &hello(1, 2)).await;
    assert_eq!(welcome.status, Status::Ok);
    // Four at a time, each for at least 50 ms, and not for the 5 s of a handshake.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    stream.write_all(&heartbeat(1, 2, 1).encode()).await.unwrap();
    assert_eq!(node.message().await.1, heartbeat(1, 2, 1));
    for stranger in strangers.drain(..50) {
        closed(stranger).await;
    }
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older() {
    let mut node = TestNode::with(2, |options| {
        options.cluster = cluster(7);
        options.max_connections = 3;
    })
    .await;
    let (mut first, _) = greet(&node, &hello(1, 2)).await;
    first.write_all(&heartbeat(1, 2, 1).encode()).await.unwrap();
    assert_eq!(node.message().await.1, heartbeat(1, 2, 1));
    let bulk = Hello { lane: Lane::Bulk.number(), ..hello(1, 2) };
    let (mut other, _) = greet(&node, &bulk).await;
    let (mut second, _) = greet(&node, &hello(1, 2)).await;
    closed(first).await;
    second.write_all(&heartbeat(1, 2, 2).encode()).await.unwrap();
    assert_eq!(node.message().await.1, heartbeat(1, 2, 2));
    other.write_all(&forward(1, 10).encode()).await.unwrap();
    assert_eq!(node.message().await.1, forward(1, 10), "other lanes live on");
    // Two places are taken, one was given back.
    let (_third, welcome) = greet(&node, &hello(3, 2)).await;
    assert_eq!(welcome.status, Status::Ok);
    let (_, welcome) = greet(&node, &hello(4, 2)).await;
    assert_eq!(welcome.status, Status::Busy);
}

#[tokio::test]
async fn a_peer_that_is_removed_while_connected_is_sent_to_ask_again() {
    let node = TestNode::start(2).await;
    let (mut stream, _) = greet(&node, &hello(5, 2)).await;
    let mut ping = Vec::new();
    Frame::Ping(1).encode_into(&mut ping);
    stream.write_all(&ping).await.unwrap();
    let mut pong = vec![0; ping.len()];
    stream.read_exact(&mut pong).await.unwrap();
    node.remove(&[5]);
    stream.write_all(&ping).await.unwrap();
    assert!(closed(stream).await.is_empty());
    assert_eq!(greet(&node, &hello(5, 2)).await.1.status, Status::Removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_learns_it_from_the_cluster_it_belonged_to() {
    let (mut removed, two) = (TestNode::start(1).await, TestNode::start(2).await);
    two.remove(&[1]);
    removed.meet(&[&two]);
    assert_eq!(removed.message().await, (NodeId(2), Message::Removed));

    // Another cluster has removed another node of that number.
    let mut stranger = TestNode::with(1, |options| options.cluster = cluster(8)).await;
    stranger.meet(&[&two]);
    let stats = stranger.network.stats().peer(NodeId(2));
    let control = stats.lane(Lane::Control);
    eventually("it is refused twice", || control.failures.get() >= 2).await;
    assert!(control.last_error().unwrap().contains("another cluster"));
    assert!(stranger.inbox.try_iter().all(|input| !matches!(input, Input::Message(..))));
}

#[tokio::test]
async fn a_peer_is_met_durably_and_nobody_takes_its_place() {
    let mut node = TestNode::start(2).await;
    let (mut first, welcome) = greet(&node, &hello(1, 2)).await;
    assert_eq!(welcome.status, Status::Ok);
    assert!(node.peers_file().contains("life.1 = \"0000000000000065\""), "{}", node.peers_file());
    for lane in Lane::ALL {
        let forgetful = Hello { lane: lane.number(), life: life(9), ..hello(1, 2) };
        let mut stream = dial(&node).await;
        // It does not wait for the answer.
        stream.write_all(&forgetful.encode()).await.unwrap();
        stream.write_all(&heartbeat(1, 2, 66).encode()).await.unwrap();
        assert_eq!(Welcome::read(&mut stream).await.unwrap().status, Status::OtherLife);
        closed(stream).await;
    }
    // The connection of the one that is known lives on.
    first.write_all(&heartbeat(1, 2, 1).encode()).await.unwrap();
    assert_eq!(node.message().await, (NodeId(1), heartbeat(1, 2, 1)));
    assert!(node.inbox.try_recv().is_err(), "nothing else was delivered");
    // Its directory may be elsewhere now, or its process another one.
    let (_, welcome) = greet(&node, &hello(1, 2)).await;
    assert_eq!(welcome.status, Status::Ok);
}

#[tokio::test]
async fn a_stranger_is_remembered_once_it_is_a_member() {
    let mut node = TestNode::start(2).await;
    node.know(&[2, 3]);
    // Two trials of a node that is to be added, with different directories.
    for number in [9, 8] {
        let trial = Hello { life: life(number), ..hello(1, 2) };
        let (mut stream, welcome) = greet(&node, &trial).await;
        assert_eq!(welcome.status, Status::Ok);
        stream.write_all(&heartbeat(1, 2, number).encode()).await.unwrap();
        assert_eq!(node.message().await, (NodeId(1), heartbeat(1, 2, number)));
        assert_eq!(node.peers_file(), "", "nothing is stored");
        if number == 8 {
            // Added, it is remembered by its next word, on the connection that it has.
            node.know(&[1, 2, 3]);
            stream.write_all(&heartbeat(1, 2, 7).encode()).await.unwrap();
            assert_eq!(node.message().await, (NodeId(1), heartbeat(1, 2, 7)));
        }
    }
    assert!(node.peers_file().contains("life.1 = \"0000000000000008\""), "{}", node.peers_file());
    let earlier = Hello { life: life(9), ..hello(1, 2) };
    assert_eq!(greet(&node, &earlier).await.1.status, Status::OtherLife);
}

#[tokio::test]
async fn who_cannot_be_remembered_is_sent_away() {
    let node = TestNode::start(2).await;
    let blocked = node.scratch.path().join("peers.toml.tmp");
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(greet(&node, &hello(1, 2)).await.1.status, Status::Busy);
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(greet(&node, &hello(1, 2)).await.1.status, Status::Ok);
    // Whoever is known needs no disk.
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(greet(&node, &hello(1, 2)).await.1.status, Status::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgetful_node_learns_it_from_its_cluster() {
    let (mut one, two) = (TestNode::start(1).await, TestNode::start(2).await);
    one.meet(&[&two]);
    let known = format!("life.1 = \"{}\"", one.network.options.life);
    eventually("it is met", || two.peers_file().contains(&known)).await;
    drop(one);
    let mut forgetful = TestNode::start(1).await;
    forgetful.meet(&[&two]);
    let told = loop {
        if let Input::OtherLife(peer) = forgetful.next().await {
            break peer;
        }
    };
    assert_eq!(told, NodeId(2));
    assert!(two.inbox.try_recv().is_err(), "nothing was delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_peer_of_the_cluster_cannot_say_that_a_node_forgot() {
    let (own, other) = (cluster(7), cluster(8));
    // Of another cluster, of none, another node than was meant; and told to one that joins.
    let cases = [(own, other, 2), (own, None, 2), (own, own, 3), (None, own, 2), (None, None, 2)];
    for (asks, says, id) in cases {
        let wrong = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", wrong.local_addr().unwrap());
        let acceptor = tokio::spawn(async move {
            loop {
                let (mut stream, _) = wrong.accept().await.unwrap();
                Hello::read(&mut stream).await.unwrap();
                let (status, life) = (Status::OtherLife, life(1));
                let welcome = Welcome { version: 1, status, cluster: says, id: NodeId(id), life };
                stream.write_all(&welcome.encode()).await.unwrap();
            }
        });
        let addresses = BTreeMap::from([(NodeId(2), url)]);
        let initial = addresses.clone();
        let mut node = TestNode::with(1, |options| {
            options.cluster = asks;
            options.initial = initial;
        })
        .await;
        node.peers.update_addresses(&addresses);
        let stats = node.network.stats().peer(NodeId(2));
        let control = stats.lane(Lane::Control);
        eventually("it is refused twice", || control.failures.get() >= 2).await;
        assert!(control.last_error().unwrap().contains("by another data directory"));
        assert!(node.inbox.try_iter().all(|input| !matches!(input, Input::Message(..))));
        acceptor.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_node_learns_its_cluster_by_dialing() {
    let member = TestNode::start(2).await;
    let initial = BTreeMap::from([(NodeId(2), member.url.clone())]);
    let mut joiner = TestNode::with(4, |options| options.initial = initial).await;
    joiner.meet(&[&member]);
    eventually("it knows", || joiner.network.cluster() == cluster(7)).await;
    let known = format!("life.4 = \"{}\"", joiner.network.options.life);
    eventually("it is known", || member.peers_file().contains(&known)).await;
    assert_eq!(*joiner.learned.lock().unwrap(), [cluster(7).unwrap()], "stored once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_node_learns_its_cluster_from_a_caller_it_was_told_of() {
    let mut member = TestNode::start(2).await;
    let initial = BTreeMap::from([(NodeId(2), member.url.clone())]);
    let mut joiner = TestNode::with(4, |options| options.initial = initial).await;
    // Nobody that it was told of: not even with the right cluster.
    assert_eq!(greet(&joiner, &hello(9, 4)).await.1.status, Status::NotAllowed);
    // Somebody who does not know it either.
    let lost = Hello { cluster: None, ..hello(2, 4) };
    assert_eq!(greet(&joiner, &lost).await.1.status, Status::Busy);
    assert_eq!(joiner.network.cluster(), None);

    member.meet(&[&joiner]);
    member.peers.send(joiner.id, heartbeat(2, 4, 1));
    assert_eq!(joiner.message().await, (NodeId(2), heartbeat(2, 4, 1)));
    assert_eq!(*joiner.learned.lock().unwrap(), [cluster(7).unwrap()], "before any message");
    let (_, welcome) = greet(&joiner, &hello(9, 4)).await;
    assert_eq!((welcome.status, welcome.cluster), (Status::Ok, cluster(7)));
    let other = Hello { cluster: cluster(8), ..hello(2, 4) };
    assert_eq!(greet(&joiner, &other).await.1.status, Status::WrongCluster);
}

#[tokio::test]
async fn plaintext_does_not_leave_this_machine_unless_allowed() {
    let node = TestNode::start(2).await;
    let everywhere = ([0, 0, 0, 0], 0).into();
    let error = Listener::bind(everywhere, node.network.clone()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let open = TestNode::with(2, |options| options.allow_plaintext = true).await;
    assert!(Listener::bind(everywhere, open.network.clone()).is_ok());
}
