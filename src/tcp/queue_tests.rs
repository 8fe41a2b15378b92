//! The queue in one thread: its bounds, its order, and chunks of snapshots.

use super::queue::{Pushed, Queue};
use crate::api::Request;
use crate::types::SnapshotId;
use crate::wire::{Chunk, Message};
use bytes::Bytes;

fn forward(bytes: usize) -> Message {
    let request = Request::Command { session: None, command: Bytes::from(vec![0; bytes]) };
    Message::Forward { id: 1, request }
}

fn chunk(transfer: u64, offset: u64) -> Message {
    let (snapshot, data) = (SnapshotId { index: 1, term: 1 }, Bytes::from_static(b"1234"));
    Message::Chunk(Chunk { transfer, term: 1, snapshot, total: 100, offset, data })
}

#[test]
fn both_bounds_hold_and_anything_fits_into_an_empty_queue() {
    let queue = Queue::new(3, 1000);
    assert_eq!(queue.push(forward(5000)), Pushed::Queued(0));
    assert_eq!(queue.push(Message::Removed), Pushed::Full);
    let mut taken = Vec::new();
    assert!(queue.take(1, &mut taken));
    assert_eq!(taken, [forward(5000)]);
    for _ in 0..3 {
        assert_eq!(queue.push(Message::Removed), Pushed::Queued(0));
    }
    assert_eq!(queue.push(Message::Removed), Pushed::Full);
    assert_eq!(queue.clear(), 3);
    assert_eq!(queue.push(forward(800)), Pushed::Queued(0));
    assert_eq!(queue.push(forward(800)), Pushed::Full);
}

#[test]
fn a_request_does_not_wait_for_a_broken_connection() {
    let queue = Queue::new(10, 10_000);
    queue.push(Message::Removed);
    queue.push(forward(100));
    assert_eq!(queue.disconnected(), [1]);
    assert_eq!(queue.push(forward(100)), Pushed::Broken);
    assert_eq!(queue.push(Message::Removed), Pushed::Queued(0));
    assert!(queue.disconnected().is_empty());
    queue.connected();
    assert_eq!(queue.push(forward(100)), Pushed::Queued(0));
    let mut taken = Vec::new();
    assert!(queue.take(usize::MAX, &mut taken));
    assert_eq!(taken, [Message::Removed, Message::Removed, forward(100)]);
}

#[test]
fn a_batch_ends_at_its_size_and_keeps_the_order() {
    let queue = Queue::new(10, 10_000);
    for id in 1..=4 {
        queue.push(Message::ReadIndex { id });
    }
    let mut taken = Vec::new();
    assert!(!queue.take(2 * Message::Removed.weight(), &mut taken));
    assert!(queue.take(usize::MAX, &mut taken));
    assert_eq!(taken, [1, 2, 3, 4].map(|id| Message::ReadIndex { id }));
}

#[test]
fn a_chunk_waits_only_once_and_a_new_transfer_displaces_the_old() {
    let queue = Queue::new(10, 10_000);
    assert_eq!(queue.push(chunk(1, 0)), Pushed::Queued(0));
    assert_eq!(queue.push(chunk(1, 4)), Pushed::Queued(0));
    assert_eq!(queue.push(chunk(1, 0)), Pushed::Twice);
    assert_eq!(queue.push(chunk(2, 0)), Pushed::Queued(2));
    let mut taken = Vec::new();
    assert!(queue.take(usize::MAX, &mut taken));
    assert_eq!(taken, [chunk(2, 0)]);
    assert_eq!(queue.push(chunk(2, 0)), Pushed::Queued(0), "a resend after it was sent");
}

#[test]
fn a_closed_queue_still_gives_what_it_has() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let queue = Queue::new(10, 10_000);
    queue.push(Message::Removed);
    queue.close();
    assert_eq!(queue.push(Message::Removed), Pushed::Closed);
    assert!(runtime.block_on(queue.ready()));
    queue.take(1, &mut Vec::new());
    assert!(!runtime.block_on(queue.ready()));
}
