//! Sending over real sockets: order, loss, and never twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::tcp::handle::Input;
use crate::tcp::handshake::{Hello, Status, Welcome};
use crate::tcp::testing::{TestNode, chunk, cluster, eventually, forward, heartbeat, life};

fn forward_id(message: &Message) -> u64 {
    let Message::Forward { id, .. } = message else { panic!("not a forward: {message:?}") };
    *id
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_delivers_all_in_order() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    one.meet(&[&two]);
    for n in 1..=300 {
        one.peers.send(two.id, forward(n, 3000));
        one.peers.send(two.id, heartbeat(1, 2, n));
        if n <= 3 {
            one.peers.send(two.id, chunk(1, n, 1 << 20));
        }
    }
    let mut lanes: [Vec<Message>; 3] = Default::default();
    for _ in 0..603 {
        let (from, message) = two.message().await;
        assert_eq!(from, one.id);
        lanes[usize::from(Lane::of(&message).number())].push(message);
    }
    let expected: [Vec<Message>; 3] = [
        (1..=300).map(|n| heartbeat(1, 2, n)).collect(),
        (1..=300).map(|n| forward(n, 3000)).collect(),
        (1..=3).map(|n| chunk(1, n, 1 << 20)).collect(),
    ];
    assert!(lanes == expected, "order or content was lost");
    let stats = one.network.stats().peer(two.id);
    let bulk = stats.lane(Lane::Bulk);
    assert!(bulk.rtt().is_some() && bulk.connected_for().is_some());
    eventually("all are counted", || bulk.sent.get() == 300).await;
    assert!(bulk.sent_bytes.get() > 900_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_reports_once() {
    // It accepts, but never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let mut one = TestNode::with(1, |options| {
        options.cluster = cluster(7);
        options.queue_messages = 10;
        // So that nothing else reports while the test looks.
        options.timing.handshake = Duration::from_secs(600);
    })
    .await;
    one.peers.update_addresses(&BTreeMap::from([(NodeId(2), url)]));
    for n in 0..25 {
        one.peers.send(NodeId(2), forward(n, 10));
    }
    let stats = one.network.stats().peer(NodeId(2));
    assert_eq!(stats.lane(Lane::Bulk).dropped_full.get(), 15);
    assert!(matches!(one.inbox.try_recv(), Ok(Input::Unreachable(NodeId(2)))));
    assert!(one.inbox.try_recv().is_err(), "reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_acceptor_is_found_again_and_nothing_arrives_twice() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    one.meet(&[&two]);
    let (mut sent, mut last) = (0, 0);
    for restart in 0..3 {
        // What arrives is newer than all before, so nothing comes twice or out of order.
        for _ in 0..200 {
            for _ in 0..20 {
                sent += 1;
                one.peers.send(two.id, forward(sent, 2000));
            }
            // While there is no connection, none of these is sent.
            let wait = Duration::from_millis(100);
            let arrived = tokio::time::timeout(wait, two.message()).await;
            let Ok((_, message)) = arrived else { continue };
            let id = forward_id(&message);
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert!(last > 4000 * restart, "it got through");
        two.stop_listening().await;
        let stats = one.network.stats().peer(two.id);
        eventually("one notices", || stats.lane(Lane::Bulk).failures.get() > restart).await;
        two.listen().await;
        // Whatever arrived late is newer too.
        while let Ok(input) = two.inbox.try_recv() {
            if let Input::Message(_, message) = input {
                assert!(forward_id(&message) > last);
                last = forward_id(&message);
            }
        }
    }
    let unreachable = |input| matches!(input, Input::Unreachable(NodeId(2)));
    assert!(one.inbox.try_iter().any(unreachable), "raft was told");
    assert_eq!(two.network.stats().garbage.get(), 0);
}

/// Passes connections on to `target`, and cuts each after so many bytes of the dialer's.
async fn cutting_proxy(target: String, limits: Vec<usize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let cuts = Arc::new(AtomicUsize::new(0));
        loop {
            let (mut dialer, _) = listener.accept().await.unwrap();
            let (target, limits, cuts) = (target.clone(), limits.clone(), cuts.clone());
            tokio::spawn(async move {
                let hello = Hello::read(&mut dialer).await?;
                let mut acceptor = TcpStream::connect(&target).await?;
                acceptor.write_all(&hello.encode()).await?;
                let (mut from, mut back) = dialer.split();
                let (mut answers, mut to) = acceptor.split();
                // Only the lane under test is cut.
                let bulk = hello.lane == Lane::Bulk.number();
                let cut = bulk.then(|| limits.get(cuts.fetch_add(1, SeqCst)).copied()).flatten();
                let limit = cut.map_or(u64::MAX, |cut| cut as u64);
                let mut limited = (&mut from).take(limit);
                tokio::select! {
                    _ = tokio::io::copy(&mut limited, &mut to) => {}
                    _ = tokio::io::copy(&mut answers, &mut back) => {}
                }
                std::io::Result::Ok(())
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_inside_a_frame_loses_but_never_repeats() {
    let (mut one, two) = (TestNode::start(1).await, TestNode::start(2).await);
    let target = format!("127.0.0.1:{}", two.port());
    // Inside the header, the kind, the body, and after many frames.
    let url = cutting_proxy(target, vec![3, 8, 100, 2000, 77_777]).await;
    one.peers.update_addresses(&BTreeMap::from([(two.id, url)]));
    let stats = one.network.stats().peer(two.id);
    let bulk = stats.lane(Lane::Bulk);
    let (mut sent, mut last) = (0, 0);
    while bulk.connects.get() < 6 || last + 100 < sent {
        assert!(sent < 100_000, "it never gets through");
        sent += 1;
        one.peers.send(two.id, forward(sent, 500));
        if sent % 8 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while let Ok(input) = two.inbox.try_recv() {
            let Input::Message(_, message) = input else { continue };
            assert!(forward_id(&message) > last);
            last = forward_id(&message);
        }
    }
    assert_eq!(two.network.stats().garbage.get(), 0, "a cut is no garbage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_nobody_told_us_about_is_answered_where_it_says_it_is() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    two.peers.send(one.id, heartbeat(2, 1, 1));
    assert_eq!(two.network.stats().dropped_unknown.get(), 1, "one has not called yet");
    one.meet(&[&two]);
    one.peers.send(two.id, heartbeat(1, 2, 5));
    assert_eq!(two.message().await, (one.id, heartbeat(1, 2, 5)));
    two.peers.send(one.id, heartbeat(2, 1, 2));
    assert_eq!(one.message().await, (two.id, heartbeat(2, 1, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_member_is_reached_for_a_while_and_then_forgotten() {
    let (mut one, mut two) = (
        TestNode::with(1, |options| {
            options.cluster = cluster(7);
            options.timing.grace = Duration::from_secs(1);
        })
        .await,
        TestNode::start(2).await,
    );
    one.meet(&[&two]);
    one.meet(&[]);
    one.peers.send(two.id, Message::Removed);
    assert_eq!(two.message().await, (one.id, Message::Removed));
    let lane = one.peers.peers[&two.id].lanes[0].clone();
    eventually("its lanes end", || lane.queue.is_closed()).await;
    one.peers.send(two.id, Message::Removed);
    assert_eq!(one.network.stats().dropped_unknown.get(), 1);
    assert!(one.peers.peers.is_empty());
    // It is a member again.
    one.meet(&[&two]);
    one.peers.send(two.id, heartbeat(1, 2, 9));
    assert_eq!(two.message().await, (one.id, heartbeat(1, 2, 9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_dialed_at_once() {
    let (mut one, wrong) = (TestNode::start(1).await, TestNode::start(3).await);
    let mut two = TestNode::start(2).await;
    one.peers.update_addresses(&BTreeMap::from([(two.id, wrong.url.clone())]));
    let stats = one.network.stats().peer(two.id);
    let control = stats.lane(Lane::Control);
    eventually("it is the wrong node", || control.last_error().is_some()).await;
    let error = control.last_error().unwrap();
    assert!(error.contains("n2's address leads to n3"), "{error}");
    one.meet(&[&two]);
    eventually("the right one is found", || control.connected_for().is_some()).await;
    one.peers.send(two.id, heartbeat(1, 2, 1));
    assert_eq!(two.message().await, (one.id, heartbeat(1, 2, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_with_another_data_directory_is_told_nothing() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    let mut forgetful = TestNode::start(2).await;
    one.meet(&[&two]);
    one.peers.send(two.id, heartbeat(1, 2, 1));
    assert_eq!(two.message().await, (one.id, heartbeat(1, 2, 1)));
    let known = format!("life.2 = \"{}\"", two.network.options.life);
    assert!(one.peers_file().contains(&known), "{}", one.peers_file());

    one.meet(&[&forgetful]);
    let stats = one.network.stats().peer(two.id);
    let control = stats.lane(Lane::Control);
    let refused = || control.last_error().is_some_and(|why| why.contains("another data directory"));
    eventually("it is refused", refused).await;
    let failures = control.failures.get();
    for n in 2..100 {
        one.peers.send(two.id, heartbeat(1, 2, n));
        one.peers.send(two.id, forward(n, 10));
    }
    eventually("and refused again", || control.failures.get() >= failures + 2).await;
    assert!(!forgetful.inbox.try_iter().any(|input| matches!(input, Input::Message(..))));

    // The right one, at the new address as it were.
    one.meet(&[&two]);
    eventually("it is found", || control.connected_for().is_some()).await;
    one.peers.send(two.id, heartbeat(1, 2, 100));
    while two.message().await != (one.id, heartbeat(1, 2, 100)) {}
    // The other one finds out as soon as it dials.
    forgetful.meet(&[&one]);
    while !matches!(forgetful.next().await, Input::OtherLife(NodeId(1))) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_paced_and_impatience_adds_nothing() {
    let mut one = TestNode::with(1, |options| {
        options.cluster = cluster(7);
        options.snapshot_bytes_per_second = 512 << 10;
    })
    .await;
    let two = TestNode::start(2).await;
    one.meet(&[&two]);
    let begun = Instant::now();
    let chunks: Vec<Message> = (0..4).map(|n| chunk(1, n << 18, 256 << 10)).collect();
    for chunk in &chunks {
        one.peers.send(two.id, chunk.clone());
    }
    let mut received = Vec::new();
    while received.len() < 4 {
        if let Ok(Input::Message(_, message)) = two.inbox.try_recv() {
            received.push(message);
        }
        // The core sends again, every 100 ms, what is not acknowledged.
        let unacknowledged = &chunks[received.len()..];
        for chunk in unacknowledged.iter().skip(1) {
            one.peers.send(two.id, chunk.clone());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(received == chunks, "each once, in order");
    // Three chunks are paid for before the fourth is written.
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
    let stats = one.network.stats().peer(two.id);
    assert!(stats.lane(Lane::Snapshot).superseded.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_but_never_answers_is_given_up() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = mute.accept().await.unwrap();
            Hello::read(&mut stream).await.unwrap();
            let (status, id, life) = (Status::Ok, NodeId(2), life(1));
            let welcome = Welcome { version: 1, status, cluster: cluster(7), id, life };
            stream.write_all(&welcome.encode()).await.unwrap();
            kept.push(stream);
        }
    });
    let mut one = TestNode::with(1, |options| {
        options.cluster = cluster(7);
        options.timing.ping = Duration::from_millis(100);
        options.timing.silence = Duration::from_secs(1);
    })
    .await;
    one.peers.update_addresses(&BTreeMap::from([(NodeId(2), url)]));
    let stats = one.network.stats().peer(NodeId(2));
    let control = stats.lane(Lane::Control);
    eventually("it is given up", || control.failures.get() > 0).await;
    let error = control.last_error().unwrap();
    assert!(error.contains("took or answered nothing"), "{error}");
    assert!(matches!(one.next().await, Input::Unreachable(NodeId(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_writes_what_is_queued() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    one.meet(&[&two]);
    for n in 1..=100 {
        one.peers.send(two.id, forward(n, 10_000));
    }
    let peers =
        std::mem::replace(&mut one.peers, Peers::new(one.network.clone(), Runtime::current()));
    peers.close(Duration::from_secs(30)).await;
    for n in 1..=100 {
        assert_eq!(forward_id(&two.message().await.1), n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_for_a_peer_that_is_down_is_given_back_and_never_sent() {
    let (mut one, mut two) = (TestNode::start(1).await, TestNode::start(2).await);
    two.stop_listening().await;
    one.meet(&[&two]);
    // It waits for the first attempt to connect, unless that has failed already.
    let mut unsent = Vec::new();
    if !one.peers.send(two.id, forward(1, 10)) {
        unsent.push(1);
    }
    while !unsent.contains(&1) {
        if let Input::Disconnected { peer, unsent: ids } = one.next().await {
            assert_eq!(peer, two.id);
            unsent.extend(ids);
        }
    }
    assert_eq!(unsent, [1]);
    assert!(!one.peers.send(two.id, forward(2, 10)), "the connection is known to be broken");
    assert!(!one.peers.send(NodeId(9), forward(3, 10)), "nobody knows where that is");
    two.listen().await;
    let stats = one.network.stats().peer(two.id);
    eventually("they are connected", || stats.lane(Lane::Bulk).connected_for().is_some()).await;
    assert!(one.peers.send(two.id, forward(4, 10)));
    assert_eq!(forward_id(&two.message().await.1), 4);
}
