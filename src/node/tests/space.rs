//! A disk that fills up: nothing that the node does by itself stops it.

use super::*;
use crate::env::{DiskOp, FileName};
use crate::kv::Command;
use crate::types::Ticket;

const RESERVE: u64 = 1 << 20;
const SEGMENT: u64 = 64 << 10;

fn configure(config: &mut Config) {
    (config.reserve_bytes, config.segment_bytes) = (RESERVE, SEGMENT);
    (config.snapshot_every, config.snapshot_ticks) = (10, 20);
}

/// A leader of three, with so many bytes free.
fn leading(free: u64) -> Host {
    let mut host = Host::found(3, configure);
    host.persist();
    host.take();
    host.campaign();
    host.persist();
    host.vote(2);
    host.persist();
    host.acknowledge(2, 2);
    host.node.report_free(Some(free));
    host.take();
    host
}

fn delete(key: &'static str) -> Request {
    Request::Command { session: None, command: Command::Delete { key: key.into() }.encode() }
}

/// Commits and applies so many deletes.
fn apply_deletes(host: &mut Host, count: u64) {
    for id in 0..count {
        host.ask(1000 + id, delete("k"));
        host.persist();
        let last = host.node.status().last.index;
        host.acknowledge(2, last);
    }
}

/// Carries out the work beside the node, and returns what it then asks of the queue for snapshots.
fn snapshot_batches(host: &mut Host) -> Vec<(Ticket, Vec<DiskOp>)> {
    let mut batches = Vec::new();
    loop {
        let outputs = host.take();
        if outputs.is_empty() {
            return batches;
        }
        for output in outputs {
            match output {
                Output::Work { ticket, work } => {
                    let product = work.run(&mut MemDisk::new());
                    host.node.complete(Completion::Worked(ticket, Ok(product)));
                }
                Output::Disk { queue: DiskQueue::Snapshot, ticket, ops } => {
                    batches.push((ticket, ops));
                }
                _ => {}
            }
        }
        host.collect();
    }
}

fn creates(ops: &[DiskOp]) -> bool {
    ops.iter().any(|op| matches!(op, DiskOp::Create { file: FileName::Partial(..), .. }))
}

fn removes(ops: &[DiskOp]) -> bool {
    ops.iter().any(|op| matches!(op, DiskOp::Remove { file: FileName::Partial(..) }))
}

fn full(file: FileName) -> DiskError {
    let (kind, reason) = (DiskErrorKind::Full, "no space left on device".into());
    DiskError { operation: "write", file: Some(file), kind, reason }
}

#[test]
fn growth_refused_when_short_while_reads_and_deletes_go_on() {
    let mut host = leading(2 * RESERVE - 1);
    host.put(5);
    let refused = Reply::Refused(Refusal::DiskFull(NodeId(1)));
    assert_eq!(replies(&host.take()), [(5, &refused)]);
    let last = host.node.status().last.index;
    host.ask(6, delete("k"));
    host.ask(7, get());
    assert_eq!(replies(&host.take()), []);
    assert_eq!(host.node.status().last.index, last + 1, "the delete is in the log");
    assert!(host.node.disk_space().is_short);
    // Somebody makes room.
    host.node.report_free(Some(4 * RESERVE));
    host.put(8);
    assert_eq!(replies(&host.take()), []);
    assert_eq!(host.node.status().last.index, last + 2);
}

#[test]
fn growth_refused_while_a_quorum_has_no_room() {
    let refused = |id| Reply::Refused(Refusal::DiskFull(NodeId(id)));
    let mut host = leading(8 * RESERVE);
    let ask = |host: &mut Host, id| {
        host.put(id);
        let outputs = host.take();
        replies(&outputs).first().map(|(_, reply)| (*reply).clone())
    };
    // One of three: the other two are a quorum.
    host.receive(2, Message::DiskShort);
    assert_eq!(ask(&mut host, 5), None);
    host.receive(3, Message::DiskShort);
    assert_eq!(ask(&mut host, 6), Some(refused(2)));
    let last = host.node.status().last.index;
    host.ask(7, delete("k"));
    assert_eq!(host.node.status().last.index, last + 1, "the delete is in the log");
    // A report that is not repeated lapses; one member without room is enough if the other is gone.
    for _ in 0..30 {
        host.acknowledge(2, 2);
        host.receive(2, Message::DiskShort);
        host.tick();
        host.persist();
    }
    assert_eq!(ask(&mut host, 8), Some(refused(2)));
    for _ in 0..30 {
        host.acknowledge(2, 2);
        host.acknowledge(3, 2);
        host.receive(2, Message::DiskShort);
        host.tick();
        host.persist();
    }
    assert_eq!(ask(&mut host, 9), None);
}

#[test]
fn follower_reports_to_its_leader_that_its_disk_is_nearly_full() {
    let mut host = Host::found(3, configure);
    host.persist();
    host.receive_raft(raft(2, MessageType::MsgHeartbeat, 2));
    host.persist();
    host.node.report_free(Some(RESERVE));
    host.take();
    let mut reports = 0;
    for _ in 0..8 {
        host.receive_raft(raft(2, MessageType::MsgHeartbeat, 2));
        host.tick();
        reports += sent(&host.take()).iter().filter(|sent| **sent == (2, Kind::DiskShort)).count();
    }
    assert_eq!(reports, 2);
    // The leader judges.
    host.put(5);
    assert_eq!(sent(&host.take()), [(2, Kind::Forward)]);
}

#[test]
fn snapshot_that_finds_no_room_is_dropped_and_tried_again() {
    let mut host = leading(8 * RESERVE);
    apply_deletes(&mut host, 30);
    let batches = snapshot_batches(&mut host);
    let [(ticket, ops)] = &batches[..] else { panic!("{batches:?}") };
    assert!(creates(ops));
    let error = full(FileName::Partial(5, 2));
    host.node.complete(Completion::Done(DiskQueue::Snapshot, *ticket, Err(error)));
    host.collect();
    assert_eq!(host.node.stopped(), None);
    let batches = snapshot_batches(&mut host);
    assert!(batches.len() == 1 && removes(&batches[0].1), "{batches:?}");
    assert_eq!(host.node.disk_space().misfits, 1);
    let removal = Completion::Done(DiskQueue::Snapshot, batches[0].0, Ok(()));
    host.node.complete(removal);
    // Not at once, but after a while.
    host.collect();
    assert!(snapshot_batches(&mut host).is_empty());
    for _ in 0..25 {
        host.acknowledge(2, 2);
        host.tick();
    }
    let batches = snapshot_batches(&mut host);
    assert!(batches.iter().any(|(_, ops)| creates(ops)), "{batches:?}");
}

#[test]
fn snapshot_leaves_the_reserve_alone() {
    let mut host = leading(RESERVE + 10);
    apply_deletes(&mut host, 30);
    let batches = snapshot_batches(&mut host);
    assert!(!batches.iter().any(|(_, ops)| creates(ops)), "{batches:?}");
    assert!(host.node.disk_space().misfits > 0);
    assert_eq!(host.node.stopped(), None);
}

#[test]
fn log_takes_small_entries_only_when_the_reserve_is_used_up() {
    let mut host = Host::found(3, configure);
    host.persist();
    host.receive_raft(raft(2, MessageType::MsgHeartbeat, 2));
    host.persist();
    let mut append = |free: u64, bytes: usize| {
        host.node.report_free(Some(free));
        let mut message = raft(2, MessageType::MsgAppend, 2);
        (message.index, message.log_term) = (1, 1);
        let data = vec![0; bytes].into();
        message.entries.push(eraftpb::Entry { index: 2, term: 2, data, ..Default::default() });
        host.receive_raft(message);
        host.node.status().last.index == 2
    };
    assert!(!append(RESERVE / 8 - 1, 0));
    assert!(!append(RESERVE / 4, 4096));
    assert!(append(RESERVE / 4 - 1, 0));
}

#[test]
fn full_disk_stops_the_node_when_the_log_cannot_be_written() {
    let mut host = leading(8 * RESERVE);
    host.put(5);
    let error = full(FileName::Segment(1));
    host.node.complete(Completion::Done(DiskQueue::Log, host.submitted, Err(error.clone())));
    assert_eq!(host.node.stopped(), Some(&Error::Disk(error)));
}

#[test]
fn start_on_a_full_disk_begins_a_small_segment() {
    let mut disk = MemDisk::new();
    disk.set_capacity(Some(RESERVE / 2));
    let mut config = Config::new(NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
    configure(&mut config);
    let mut node: crate::node::Node<crate::kv::Kv> = Node::start(config, &mut disk).unwrap();
    let mut outputs = Vec::new();
    node.take_outputs(&mut outputs);
    let created = outputs.iter().find_map(|output| match output {
        Output::Disk { ops, .. } => ops.iter().find_map(|op| match op {
            DiskOp::Create { file: FileName::Segment(_), len } => Some(*len),
            _ => None,
        }),
        _ => None,
    });
    assert_eq!(created, Some(SEGMENT / 8));
}
