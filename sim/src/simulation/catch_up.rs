//! Catching up: a healthy member gets what the others have, whatever they write meanwhile.
//!
//! A member that was away lacks a part of the log, or needs a snapshot. The others go on while it
//! receives one, so the leader must keep what follows it: otherwise the member needs the next snapshot
//! as soon as it has this one, and never catches up as long as clients write.
//!
//! A member has caught up when it applies the log as fast as it grows, which is measured in rounds as
//! in the Raft thesis (4.2.1): a round begins with the present commit index as its goal, and ends when
//! the member has applied that entry. A member that only receives one snapshot after the other reaches
//! its goals, too, but each round takes as long as a transfer.
//!
//! The demand is in force for fit members while [`availability`](super::availability) demands a leader,
//! and begins anew with each new leader and each disturbance.

use std::collections::BTreeMap;

use stormkv::env::FileName;
use stormkv::node::Node;
use stormkv::types::{LogIndex, NodeId, Term};

use super::Simulation;
use super::availability::{is_fit, is_lossless, round_ns};
use super::life::config;
use super::node::SimNode;
use crate::checker::{Broken, Check};
use crate::outcome::Class;
use crate::plan::{Delay, Plan};
use crate::service::Service;

/// What does not depend on speeds and timeouts.
const GRACE_NS: u64 = 1_000_000_000;
/// Election timeouts for what precedes a transfer: the leader probes the member first.
const ROUNDS: u64 = 4;
/// How many times the time of a transfer it may take: one may be under way that comes to nothing, and the
/// disks serve the log and snapshots of their own, too.
const TRANSFERS: u64 = 3;
/// How many times each byte goes through a disk: the leader reads it, the member writes and reads it.
const DISK_PASSES: u64 = 3;
/// The leader may have to save a state first that knows the member, after one that is under way.
const SAVES: u64 = 2;
/// A state is written in pieces of about this part of the largest, each followed by a pause that is as long
/// as it took.
const PIECE_PART: u32 = 8;
const PAUSES: u64 = 2;
/// On links that lose messages, chunks have to be sent again.
const LOSSY_FACTOR: u64 = 4;
/// Chunks that a leader sends ahead of their acknowledgement.
const WINDOW: u64 = 4;

/// A member on its way to what the others have.
#[derive(Clone, Copy, Debug)]
struct Lag {
    /// When it began to lag: the end of its last short round.
    since_ns: u64,
    /// The commit index when the present round began, and when that was.
    goal: LogIndex,
    round_ns: u64,
}

/// What is demanded of members that lag. See the module.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The longest round of a member that has caught up.
    short_ns: u64,
    /// How long a member may lag beside the time of a transfer.
    grace_ns: u64,
    /// The leader whose members these are.
    leader: Option<(NodeId, Term)>,
    members: BTreeMap<NodeId, Lag>,
}

impl CatchUp {
    pub fn new(plan: &Plan) -> Self {
        let round_ns = round_ns(plan);
        CatchUp {
            short_ns: round_ns,
            grace_ns: GRACE_NS + ROUNDS * round_ns,
            leader: None,
            members: BTreeMap::new(),
        }
    }

    /// Nothing is demanded at the moment, or under another leader.
    pub fn restart(&mut self, leader: Option<(NodeId, Term)>) {
        self.leader = leader;
        self.members.clear();
    }

    /// Notes what a member has applied. Returns for how long it has lagged, in nanoseconds.
    fn observe(&mut self, now_ns: u64, id: NodeId, applied: LogIndex, commit: LogIndex) -> u64 {
        let begun = Lag { since_ns: now_ns, goal: commit, round_ns: now_ns };
        let lag = self.members.entry(id).or_insert(begun);
        if applied >= lag.goal {
            let is_short = now_ns - lag.round_ns <= self.short_ns;
            let since_ns = if is_short { now_ns } else { lag.since_ns };
            *lag = Lag { since_ns, ..begun };
        }
        now_ns - lag.since_ns
    }
}

/// How long so many bytes take at this speed, in nanoseconds; 0 is as fast as can be.
fn at_speed_ns(bytes: u64, kib_per_s: u32) -> u64 {
    match u64::from(kib_per_s) << 10 {
        0 => 0,
        bytes_per_s => bytes * 1_000_000_000 / bytes_per_s,
    }
}

fn mean_us(delay: &Delay) -> u64 {
    delay.min_us + delay.mean_extra_us
}

/// How long it takes to save a state of so many bytes, in nanoseconds.
fn saving_ns(plan: &Plan, bytes: u64) -> u64 {
    let piece_bytes = config(plan, NodeId(1), false, 0).piece_bytes / PIECE_PART;
    let pieces = bytes / u64::from(piece_bytes.max(1)) + 1;
    let fixed_us =
        pieces * mean_us(&plan.disk.sync) + plan.cpu.work_us_per_kib * (bytes / 1024 + 1);
    PAUSES * (at_speed_ns(bytes, plan.disk.kib_per_s) + fixed_us * 1000)
}

/// How long it takes to transfer a state of so many bytes, in nanoseconds, if nothing else happens.
fn transfer_ns(plan: &Plan, bytes: u64) -> u64 {
    let way_us = mean_us(&plan.network.latency) * u64::from(plan.network.spread);
    // A chunk is acknowledged when it has come to the disk.
    let turn_us = 2 * way_us + mean_us(&plan.disk.read) + 2 * mean_us(&plan.disk.sync);
    let chunk_bytes = config(plan, NodeId(1), false, 0).chunk_bytes;
    let turns = bytes / (WINDOW * u64::from(chunk_bytes)) + 1;
    let work_us = 2 * plan.cpu.work_us_per_kib * (bytes / 1024 + 1);
    at_speed_ns(bytes, plan.network.kib_per_s)
        + DISK_PASSES * at_speed_ns(bytes, plan.disk.kib_per_s)
        + (turns * turn_us + work_us) * 1000
}

impl<S: Service> Simulation<'_, S> {
    /// Looks at the members that this leader has had since `since_ns`, if not for shorter.
    pub(super) fn watch_catch_up(&mut self, leader: (NodeId, Term), since_ns: u64) {
        if self.catch_up.leader != Some(leader) {
            self.catch_up.restart(Some(leader));
        }
        // A full disk has no room for a snapshot that the members could be sent.
        let is_short = |node: &Node<S::Machine>| node.disk_space().is_short;
        if self.cluster.node(leader.0).is_some_and(is_short) {
            return self.catch_up.restart(None);
        }
        let commit = self.safety.commit();
        let mut late = None;
        for (id, applied) in self.demanded(leader.0) {
            let Some(applied) = applied else {
                self.catch_up.members.remove(&id);
                continue;
            };
            let lagged_ns = self.catch_up.observe(self.kernel.now_ns(), id, applied, commit);
            let lagged_ns = lagged_ns.min(self.kernel.now_ns() - since_ns);
            if lagged_ns > 0 {
                self.safety.count(Check::CatchUp, 1);
            }
            if lagged_ns > self.catch_up.grace_ns {
                late = Some((id, applied, lagged_ns));
            }
        }
        let Some((id, applied, lagged_ns)) = late else { return };
        let factor = if is_lossless(self.plan) { 1 } else { LOSSY_FACTOR };
        let bytes = self.bytes_to_send(leader.0);
        let transfer_ns = transfer_ns(self.plan, bytes);
        let due_ns = TRANSFERS * transfer_ns + SAVES * saving_ns(self.plan, bytes);
        if lagged_ns <= factor * (self.catch_up.grace_ns + due_ns) {
            return;
        }
        let message = format!(
            "{id} has lagged for {} ms on a healthy network, although {} ms are enough to receive the \
             whole state: it has applied {applied} of {commit} committed entries (leader {})",
            lagged_ns / 1_000_000,
            transfer_ns / 1_000_000,
            leader.0,
        );
        self.fail(Class::Liveness, Broken::new(Check::CatchUp, message).at(id));
    }

    /// The members, each with the index that it has applied, or nothing if nothing is demanded of it.
    fn demanded(&self, leader: NodeId) -> Vec<(NodeId, Option<LogIndex>)> {
        let members =
            self.cluster.iter().filter(|slot| self.cluster.membership().contains(slot.id));
        let applied = |slot: &SimNode<S>| {
            let is_demanded = is_fit(slot, self.kernel.now_ns())
                && (slot.id == leader || self.are_connected(leader, slot.id));
            let node = slot.driver.as_ref().filter(|_| is_demanded)?.node();
            // A full disk takes no entries.
            if node.disk_space().is_short {
                return None;
            }
            Some(node.status().applied.index)
        };
        members.map(|slot| (slot.id, applied(slot))).collect()
    }

    /// Bytes of the snapshot that a leader can send, and of the log behind it.
    fn bytes_to_send(&self, leader: NodeId) -> u64 {
        let Some(slot) = self.cluster.get(leader) else { return 0 };
        let Some(node) = slot.driver.as_ref().map(|driver| driver.node()) else { return 0 };
        let snapshot = node.status().snapshot;
        let file = slot.disk.look(FileName::Snapshot(snapshot.index, snapshot.term));
        file.map_or(0, |bytes| bytes.len() as u64) + node.load().log_bytes
    }

    /// Returns whether messages between these two arrive in time.
    fn are_connected(&self, one: NodeId, other: NodeId) -> bool {
        let is_open = |from, to| !self.is_late(from, to) && !self.is_cut(from, to);
        is_open(one, other) && is_open(other, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NodeId = NodeId(2);

    fn catch_up() -> CatchUp {
        CatchUp { short_ns: 100, grace_ns: 1000, leader: None, members: BTreeMap::new() }
    }

    #[test]
    fn catch_up_member_that_follows_never_lags() {
        let mut members = catch_up();
        for now_ns in (0..10_000).step_by(50) {
            // Always one look behind.
            let lagged_ns = members.observe(now_ns, ID, now_ns, now_ns + 50);
            assert!(lagged_ns <= 50, "{lagged_ns} at {now_ns}");
        }
    }

    #[test]
    fn catch_up_member_lags_until_a_round_is_short() {
        let mut members = catch_up();
        assert_eq!(members.observe(0, ID, 0, 1000), 0);
        assert_eq!(members.observe(400, ID, 700, 1400), 400);
        // It has reached the goal of its round, but that took long.
        assert_eq!(members.observe(500, ID, 1000, 1500), 500);
        assert_eq!(members.observe(550, ID, 1500, 1550), 0);
        assert_eq!(members.observe(600, ID, 1600, 1600), 0);
    }

    #[test]
    fn catch_up_snapshots_one_after_the_other_do_not_catch_up() {
        let mut members = catch_up();
        let mut lagged_ns = 0;
        for now_ns in (0..3000_u64).step_by(50) {
            // Each takes 300, and has what was committed when it was sent.
            let applied = (now_ns / 300 * 300).saturating_sub(300);
            lagged_ns = members.observe(now_ns, ID, applied, now_ns);
        }
        assert!(lagged_ns >= 2900, "{lagged_ns}");
    }
}
