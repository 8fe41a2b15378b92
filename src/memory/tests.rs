//! What the disk keeps and loses, in which order it completes, and what a cluster makes of it.

use bytes::Bytes;

use super::*;
use crate::api::{Reconfigure, Refusal, Reply, Request};
use crate::config::Config;
use crate::driver::Driver;
use crate::env::{Completion, Disk, DiskOp, DiskQueue, FileName};
use crate::error::{DiskErrorKind, Error};
use crate::kv::{Command, Kv, Query, Response};
use crate::node::Role;
use crate::types::{NodeId, Ticket};

const LOG: FileName = FileName::Segment(1);
const PART: FileName = FileName::Partial(5, 2);
const SNAP: FileName = FileName::Snapshot(5, 2);

fn create(file: FileName, len: u64) -> DiskOp {
    DiskOp::Create { file, len }
}

fn write(file: FileName, offset: u64, data: &'static [u8]) -> DiskOp {
    DiskOp::Write { file, offset, data: Bytes::from_static(data) }
}

fn sync(file: FileName) -> DiskOp {
    DiskOp::Sync { file }
}

fn run(disk: &mut MemDisk, ops: &[DiskOp]) {
    disk.run(ops).expect("nothing fails");
}

/// A disk with one durable file of eight bytes.
fn with_log() -> MemDisk {
    let mut disk = MemDisk::new();
    run(&mut disk, &[create(LOG, 8), write(LOG, 0, b"durable!"), sync(LOG), DiskOp::SyncDir]);
    disk
}

// ---- Durability ----

#[test]
fn crash_loses_unsynced_writes() {
    let mut disk = with_log();
    run(&mut disk, &[write(LOG, 2, b"XX"), write(LOG, 3, b"YY"), write(LOG, 6, b"longer")]);
    assert_eq!(disk.content(LOG), Some(&b"duXYYllonger"[..]));
    disk.crash();
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
}

#[test]
fn crash_keeps_what_is_synced_before() {
    let mut disk = with_log();
    run(&mut disk, &[write(LOG, 0, b"D"), sync(LOG), write(LOG, 1, b"U")]);
    disk.crash();
    assert_eq!(disk.content(LOG), Some(&b"Durable!"[..]));
}

#[test]
fn crash_loses_unsynced_names() {
    let mut disk = with_log();
    run(&mut disk, &[create(PART, 0), write(PART, 0, b"state"), sync(PART)]);
    run(&mut disk, &[DiskOp::Rename { from: PART, to: SNAP }, DiskOp::Remove { file: LOG }]);
    assert_eq!(disk.files().collect::<Vec<_>>(), [SNAP]);
    let mut synced = disk.image();
    disk.crash();
    assert_eq!(disk.files().collect::<Vec<_>>(), [LOG]);
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
    run(&mut synced, &[DiskOp::SyncDir]);
    synced.crash();
    assert_eq!(synced.files().collect::<Vec<_>>(), [SNAP]);
    assert_eq!(synced.content(SNAP), Some(&b"state"[..]));
}

#[test]
fn crash_leaves_a_durable_name_of_lost_content_empty() {
    let mut disk = MemDisk::new();
    run(&mut disk, &[create(PART, 0), write(PART, 0, b"state"), DiskOp::SyncDir]);
    disk.crash();
    assert_eq!(disk.content(PART), Some(&[][..]));
}

#[test]
fn crash_brings_back_a_file_that_was_created_again() {
    let mut disk = with_log();
    run(&mut disk, &[create(LOG, 3), sync(LOG)]);
    assert_eq!(disk.content(LOG), Some(&[0, 0, 0][..]));
    disk.crash();
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
}

#[test]
fn crash_with_everything_kept_loses_nothing() {
    let mut disk = with_log();
    run(&mut disk, &[write(LOG, 6, b"longer"), create(PART, 700), write(PART, 510, b"torn")]);
    let before = disk.image();
    disk.crash_with(|most| most);
    assert!(disk.files().eq(before.files()));
    for file in disk.files() {
        assert_eq!(disk.content(file), before.content(file), "{file}");
    }
}

#[test]
fn crash_tears_writes_at_sectors() {
    let mut disk = MemDisk::new();
    run(&mut disk, &[create(LOG, 1024), sync(LOG), DiskOp::SyncDir, write(LOG, 510, b"torn")]);
    // The first sector is asked for first, and its write is lost.
    let mut kept = [0, 1].into_iter();
    disk.crash_with(|_| kept.next().expect("two sectors are open"));
    assert_eq!(disk.content(LOG).expect("it is there")[508..516], *b"\0\0\0\0rn\0\0");
    // All of it is durable now.
    disk.crash();
    assert_eq!(disk.content(LOG).expect("it is there")[508..516], *b"\0\0\0\0rn\0\0");
}

#[test]
#[should_panic(expected = "is more than")]
fn crash_that_keeps_more_than_there_is_panics() {
    let mut disk = with_log();
    run(&mut disk, &[write(LOG, 0, b"x")]);
    disk.crash_with(|most| most + 1);
}

#[test]
fn damage_is_durable() {
    let mut disk = with_log();
    run(&mut disk, &[write(LOG, 0, b"D")]);
    disk.content_mut(LOG).expect("it is there").truncate(4);
    disk.insert(SNAP, *b"state");
    disk.crash();
    assert_eq!(disk.content(LOG), Some(&b"Dura"[..]));
    assert_eq!(disk.content(SNAP), Some(&b"state"[..]));
    assert!(disk.remove(SNAP) && !disk.remove(SNAP));
    disk.crash();
    assert_eq!(disk.content(SNAP), None);
}

// ---- Completions ----

/// A disk with two batches for the log, one for snapshots and a read.
fn busy() -> MemDisk {
    let mut disk = with_log();
    disk.submit(DiskQueue::Log, Ticket(1), vec![write(LOG, 0, b"1")]);
    disk.submit(DiskQueue::Snapshot, Ticket(1), vec![create(PART, 3)]);
    disk.submit(DiskQueue::Log, Ticket(2), vec![write(LOG, 0, b"2")]);
    disk.fetch(Ticket(1), LOG, 0, 3);
    disk
}

#[test]
fn poll_completes_in_order_of_submission() {
    let mut disk = busy();
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]), "nothing happens unasked");
    let done = |completion| match completion {
        Some(Completion::Done(queue, ticket, Ok(()))) => (queue, ticket.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(done(disk.poll()), (DiskQueue::Log, 1));
    assert_eq!(disk.content(LOG), Some(&b"1urable!"[..]));
    assert_eq!(done(disk.poll()), (DiskQueue::Snapshot, 1));
    assert_eq!(done(disk.poll()), (DiskQueue::Log, 2));
    let Some(Completion::Fetched(Ticket(1), Ok(found))) = disk.poll() else { panic!("a read") };
    assert_eq!(found, "2ur");
    assert!(disk.poll().is_none());
}

#[test]
fn finish_lets_reads_and_queues_overtake() {
    let mut disk = busy();
    let Some(Completion::Fetched(_, Ok(found))) = disk.finish(Pending::Fetch(Ticket(1))) else {
        panic!("a read")
    };
    assert_eq!(found, "dur");
    let snapshot = Pending::Batch(DiskQueue::Snapshot, Ticket(1));
    assert!(matches!(disk.finish(snapshot), Some(Completion::Done(..))));
    assert!(disk.finish(snapshot).is_none(), "it is finished already");
    let left = [1, 2].map(|ticket| Pending::Batch(DiskQueue::Log, Ticket(ticket)));
    assert!(disk.pending().eq(left));
}

#[test]
#[should_panic(expected = "in the same queue")]
fn finish_refuses_to_reorder_a_queue() {
    busy().finish(Pending::Batch(DiskQueue::Log, Ticket(2)));
}

#[test]
#[should_panic(expected = "tickets of a queue count upwards")]
fn submit_refuses_an_older_ticket() {
    busy().submit(DiskQueue::Log, Ticket(1), Vec::new());
}

#[test]
fn crash_forgets_what_is_pending() {
    let mut disk = busy();
    disk.crash();
    assert_eq!(disk.pending().count(), 0);
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
}

// ---- Failures ----

#[test]
fn fail_next_fails_once_and_without_effect() {
    let mut disk = with_log();
    disk.fail_next(DiskErrorKind::Other);
    let error = disk.run(&[write(LOG, 0, b"x"), sync(LOG)]).expect_err("it was ordered");
    assert_eq!((error.operation, error.file, error.is_full()), ("write", Some(LOG), false));
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
    run(&mut disk, &[write(LOG, 0, b"x")]);
}

#[test]
fn fail_after_fails_the_sync_of_an_append() {
    let mut disk = with_log();
    disk.fail_after(1, DiskErrorKind::Full);
    disk.submit(DiskQueue::Log, Ticket(1), vec![write(LOG, 0, b"x"), sync(LOG)]);
    let Some(Completion::Done(_, _, Err(error))) = disk.poll() else { panic!("a failed batch") };
    assert_eq!((error.operation, error.is_full()), ("fsync", true));
    assert_eq!(disk.content(LOG), Some(&b"xurable!"[..]));
    disk.crash();
    assert_eq!(disk.content(LOG), Some(&b"durable!"[..]));
}

#[test]
fn missing_file_fails_every_operation_but_remove() {
    let mut disk = MemDisk::new();
    for op in [write(LOG, 0, b"x"), sync(LOG), DiskOp::Rename { from: LOG, to: SNAP }] {
        let error = disk.run(std::slice::from_ref(&op)).expect_err("there is no file");
        assert_eq!((error.file, error.reason.as_str()), (Some(LOG), "no such file"), "{op:?}");
    }
    assert!(disk.load(LOG).is_err());
    run(&mut disk, &[DiskOp::Remove { file: LOG }]);
}

#[test]
fn capacity_refuses_growth_only() {
    let mut disk = with_log();
    assert_eq!(disk.free(), None);
    disk.set_capacity(Some(10));
    assert_eq!((disk.used(), disk.free()), (8, Some(2)));
    let error = disk.run(&[create(PART, 3)]).expect_err("there are two bytes");
    assert!(error.is_full() && error.file == Some(PART), "{error}");
    assert!(disk.run(&[write(LOG, 8, b"xyz")]).expect_err("two").is_full());
    // In the room that a file has, and in the room of the file that it replaces.
    run(&mut disk, &[write(LOG, 7, b"xyz"), create(LOG, 10)]);
    assert_eq!(disk.free(), Some(0));
    disk.set_capacity(Some(4));
    assert_eq!(disk.free(), Some(0));
    run(&mut disk, &[write(LOG, 0, b"abc"), DiskOp::Remove { file: LOG }, create(PART, 4)]);
}

// ---- Hosts and clusters ----

fn put(key: &'static str) -> Bytes {
    Command::Put { key: key.into(), value: "value".into() }.encode()
}

fn has(response: &[u8]) -> bool {
    matches!(Response::decode(response), Ok(Response::Value(Some(_))))
}

fn get(key: &'static str) -> Bytes {
    Query::Get { key: key.into() }.encode()
}

#[test]
fn node_on_a_disk_that_fails_stops() {
    let mut host = MemHost::new();
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.segment_bytes = 4096;
    let mut driver = Driver::<Kv>::start(config, &mut host).expect("an empty disk");
    host.disk_mut().fail_after(2, DiskErrorKind::Other);
    driver.complete(host.disk_mut().poll().expect("its first batch"));
    driver.flush(&mut host);
    assert!(
        matches!(driver.node().stopped(), Some(Error::Disk(error)) if error.operation == "fsync")
    );
}

#[test]
fn cluster_keeps_what_it_acknowledged_through_power_loss() {
    let mut cluster =
        MemCluster::<Kv>::with_config(3, |config| config.snapshot_every = 10).unwrap();
    for round in 0..4 {
        for key in ["a", "b", "c", "d", "e"] {
            cluster.command(put(key));
        }
        let crashed = NodeId(1 + round % 3);
        cluster.crash(crashed);
        assert!(cluster.node(crashed).is_none());
        cluster.command(put("while one is away"));
        cluster.restart(crashed).expect("its disk is good");
    }
    cluster.run(100);
    for id in [1, 2, 3].map(NodeId) {
        assert_eq!(cluster.machine(id), cluster.machine(NodeId(1)));
        assert!(cluster.node(id).expect("it runs").status().snapshot.index > 10);
    }
    assert!(has(&cluster.query(get("while one is away"))));
}

#[test]
fn cluster_is_deterministic() {
    let run = || {
        let mut cluster = MemCluster::<Kv>::new(3).unwrap();
        cluster.command(put("a"));
        let leader = cluster.leader().expect("it has answered");
        cluster.kill(leader);
        cluster.command(put("b"));
        cluster.restart(leader).expect("its disk is good");
        cluster.run(30);
        let status = |id| cluster.node(NodeId(id)).expect("it runs").status();
        (cluster.now(), [1, 2, 3].map(status))
    };
    assert_eq!(run(), run());
}

#[test]
fn isolated_leader_is_replaced_and_its_request_not_applied() {
    let mut cluster = MemCluster::<Kv>::new(3).unwrap();
    cluster.command(put("a"));
    let old = cluster.leader().expect("it has answered");
    cluster.isolate(old);
    let request = Request::Command { session: None, command: put("lost") };
    let lost = cluster.request(old, request);
    cluster.run(100);
    let new = cluster.leader().expect("two are a quorum");
    assert_ne!(new, old);
    assert_ne!(cluster.node(old).expect("it runs").status().role, Role::Leader);
    cluster.heal();
    cluster.command(put("b"));
    cluster.run(20);
    assert_eq!(cluster.take_reply(lost), Some(Reply::Refused(Refusal::Superseded)));
    assert!(!has(&cluster.query(get("lost"))));
}

#[test]
fn request_to_an_unreachable_leader_is_refused_at_once() {
    let mut cluster = MemCluster::<Kv>::new(3).unwrap();
    cluster.command(put("a"));
    cluster.run(10);
    let leader = cluster.leader().expect("it has answered");
    let follower = NodeId(leader.0 % 3 + 1);
    cluster.kill(leader);
    let request = Request::Command { session: None, command: put("b") };
    let id = cluster.request(follower, request);
    let reply = cluster.take_reply(id);
    assert_eq!(reply, Some(Reply::Refused(Refusal::NotLeader(Some(leader)))));
}

#[test]
fn node_that_was_added_becomes_a_member() {
    let mut cluster = MemCluster::<Kv>::new(1).unwrap();
    cluster.command(put("a"));
    let mut config = Config::new(NodeId(2), Vec::new());
    config.segment_bytes = 4096;
    cluster.add(config).expect("an empty disk");
    let change = Reconfigure { voters: vec![NodeId(2)], ..Default::default() };
    let reply = cluster.answer(&Request::Reconfigure(change));
    assert!(matches!(reply, Reply::Reconfigured { .. }), "{reply:?}");
    cluster.run(30);
    assert_eq!(cluster.machine(NodeId(2)), cluster.machine(NodeId(1)));
    assert_eq!(cluster.node(NodeId(1)).expect("it runs").membership().voters().len(), 2);
}

#[test]
fn full_disk_of_the_leader_refuses_growth() {
    let mut cluster = MemCluster::<Kv>::with_config(1, |config| {
        (config.segment_bytes, config.reserve_bytes) = (4096, 16384);
    })
    .unwrap();
    cluster.command(put("a"));
    let used = cluster.disk(NodeId(1)).used();
    cluster.disk_mut(NodeId(1)).set_capacity(Some(used + 20000));
    cluster.run(1);
    let reply = cluster.answer(&Request::Command { session: None, command: put("b") });
    assert_eq!(reply, Reply::Refused(Refusal::DiskFull(NodeId(1))));
    cluster.disk_mut(NodeId(1)).set_capacity(None);
    cluster.run(1);
    cluster.command(put("b"));
}

#[test]
fn lost_messages_are_not_delivered() {
    let mut cluster = MemCluster::<Kv>::new(3).unwrap();
    for _ in 0..200 {
        cluster.tick();
        cluster.settle();
    }
    assert!(cluster.leader().is_some());
    while cluster.packets().next().is_none() {
        cluster.tick();
    }
    cluster.retain_packets(|_| false);
    assert!(!cluster.deliver());
}
