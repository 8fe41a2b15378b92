//! What is written in pieces, and beside what is read, arrives once, whole and in order.

use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;
use crate::tcp::choppy::{Choppy, Step, poll_and_drop, steps};
use crate::tcp::testing::TestNode;
use crate::wire::MAX_FRAME;

const LONG: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts")
}

/// Messages of different sizes with these numbers.
fn message(id: u64, size: usize) -> Message {
    let command = bytes::Bytes::from(vec![id as u8; size]);
    Message::Forward { id, request: crate::api::Request::Command { session: None, command } }
}

/// Messages are queued while a connection works that moves `room` bytes at most at once, in the
/// pieces of `steps`. Returns the messages that arrive.
async fn carry(room: usize, steps: Vec<Step>, sizes: &[(usize, bool)]) -> Vec<Message> {
    let node = TestNode::with(1, |options| options.timing.ping = Duration::from_millis(1)).await;
    let peer = NodeId(2);
    let stats = node.network.stats().peer(peer);
    let shared = Arc::new(Shared::new(node.network.clone(), peer, Lane::Bulk, stats));
    let (ours, theirs) = duplex(room);
    let (_keep, mut address) = watch::channel(String::new());
    let driven = shared.clone();
    let driving = tokio::spawn(async move {
        let stream = Box::new(Choppy::new(ours, steps));
        Driving::new(&driven, stream).run(&mut address).await.map(|never| match never {})
    });
    let (theirs, mut pongs) = tokio::io::split(theirs);
    let reading = tokio::spawn(async move {
        let mut reader = FrameReader::new(theirs, MAX_FRAME);
        let mut found = Vec::new();
        while let Some(frame) = reader.next(LONG).await.expect("whole frames") {
            match frame {
                Frame::Message(message) => found.push(message),
                Frame::Ping(number) => {
                    let mut pong = Vec::new();
                    Frame::Pong(number).encode_into(&mut pong);
                    // The other side may have ended.
                    let _ = pongs.write_all(&pong).await;
                }
                Frame::Pong(_) => panic!("nothing was asked"),
            }
        }
        found
    });
    for (id, (size, pause)) in sizes.iter().enumerate() {
        shared.queue.push(message(id as u64, *size));
        if *pause {
            sleep(Duration::from_millis(1)).await;
        }
    }
    shared.queue.close();
    let end = driving.await.expect("no panic");
    assert!(matches!(end, Err(End::Closed)), "it ends when all is sent");
    reading.await.expect("no panic")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn messages_arrive_once_and_in_order_beside_pings(
        // As a socket does, the way back holds a pong while the other side writes.
        room in PING_BYTES..5000,
        steps in steps(),
        sizes in proptest::collection::vec((0..3000_usize, any::<bool>()), 0..20),
    ) {
        let found = runtime().block_on(carry(room, steps, &sizes));
        let sent = sizes.iter().enumerate().map(|(id, (size, _))| message(id as u64, *size));
        prop_assert_eq!(found, sent.collect::<Vec<_>>());
    }

    #[test]
    fn short_writes_are_continued(
        data in proptest::collection::vec(any::<u8>(), 0..3000),
        steps in steps(),
    ) {
        let runtime = runtime();
        let _guard = runtime.enter();
        let mut stream = Choppy::new(Vec::new(), steps);
        let written = poll_and_drop(write_all(&mut stream, &data, LONG), usize::MAX);
        prop_assert!(matches!(written, Some(Ok(()))));
        prop_assert_eq!(stream.into_inner(), data);
    }
}
