//! The cluster's time, as machines get it.

use std::time::Duration;

use bytes::Bytes;

use crate::digest::Digest;
use crate::machine::{Chunks, Context, StateMachine};
use crate::memory::MemCluster;
use crate::types::NodeId;

/// The times of all commands, in milliseconds, behind those that it was constructed with.
struct Times(Vec<u64>);

impl StateMachine for Times {
    type Params = Vec<u64>;

    fn new(params: &Vec<u64>) -> Times {
        Times(params.clone())
    }

    fn apply(&mut self, context: Context, _: &[u8]) -> Bytes {
        self.0.push(context.time.as_millis() as u64);
        Bytes::new()
    }

    fn query(&self, _: &[u8]) -> Bytes {
        Bytes::new()
    }

    fn snapshot(&self) -> Chunks {
        let times: Vec<u8> = self.0.iter().flat_map(|time| time.to_le_bytes()).collect();
        Box::new(std::iter::once(times.into()))
    }

    fn restore(
        params: &Vec<u64>,
        chunks: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<Times, String> {
        let bytes: Vec<u8> = chunks.flatten().collect();
        let times: Vec<u64> =
            bytes.as_chunks().0.iter().map(|time| u64::from_le_bytes(*time)).collect();
        assert!(times.starts_with(params), "the parameters of the machine that was saved");
        Ok(Times(times))
    }

    fn digest(&self) -> u64 {
        self.0.iter().fold(Digest::new(0), |digest, time| digest.u64(*time)).finish()
    }
}

/// A tick of these nodes, in milliseconds.
const TICK: u64 = 10;

/// Has a command applied; returns its time.
fn stamp(cluster: &mut MemCluster<Times>) -> u64 {
    cluster.command("");
    let leader = cluster.leader().expect("it has answered");
    *cluster.machine(leader).0.last().expect("the command")
}

fn others(leader: NodeId) -> impl Iterator<Item = NodeId> {
    (1..=3).map(NodeId).filter(move |id| *id != leader)
}

#[test]
fn time_goes_on_by_ticks_of_the_leader() {
    let mut cluster = MemCluster::<Times>::new(3).unwrap();
    let first = stamp(&mut cluster);
    cluster.run(100);
    let second = stamp(&mut cluster);
    assert!((100 * TICK..105 * TICK).contains(&(second - first)), "{first}, then {second}");
    let leader = cluster.leader().unwrap();
    let time = cluster.node(leader).unwrap().time();
    assert_eq!(time, Duration::from_millis(second));
}

#[test]
fn time_goes_on_when_the_leader_changes() {
    let mut cluster = MemCluster::<Times>::new(3).unwrap();
    let mut newest = stamp(&mut cluster);
    for _ in 0..4 {
        let leader = cluster.leader().unwrap();
        cluster.isolate(leader);
        // An idle cluster elects another one, and its time goes on without entries.
        cluster.run(200);
        let next = stamp(&mut cluster);
        assert_ne!(cluster.leader(), Some(leader));
        assert!((150 * TICK..260 * TICK).contains(&(next - newest)), "{newest}, then {next}");
        newest = next;
        cluster.heal();
        cluster.run(20);
    }
}

#[test]
fn time_survives_restarts_and_snapshots() {
    let params = vec![7, 8];
    let adjust = |config: &mut crate::config::Config| {
        (config.snapshot_every, config.keep_entries) = (4, 1);
    };
    let mut cluster = MemCluster::<Times>::with_params(params, 3, adjust).unwrap();
    let late = others(cluster.leader().unwrap_or(NodeId(1))).last().unwrap();
    cluster.isolate(late);
    cluster.run(500);
    let before: Vec<u64> = (0..20).map(|_| stamp(&mut cluster)).collect();
    assert!(before.is_sorted() && before[0] > 100 * TICK, "{before:?}");
    // It gets the state as a snapshot; then nothing but the disks knows the time.
    cluster.heal();
    cluster.run(100);
    let newest = stamp(&mut cluster);
    for id in (1..=3).map(NodeId) {
        cluster.crash(id);
    }
    for id in (1..=3).map(NodeId) {
        cluster.restart(id).unwrap();
    }
    cluster.run(50);
    let after = stamp(&mut cluster);
    assert!(after >= newest, "{newest}, then {after}");
    cluster.run(20);
    for id in (1..=3).map(NodeId) {
        let times = &cluster.machine(id).0;
        assert_eq!(times[..2], [7, 8], "{id}");
        assert!(times[2..].is_sorted() && times.last() == Some(&after), "{id}: {times:?}");
    }
}
