//! Back pressure: what a node takes in while its disk or its log is behind, and when it gives up on a disk.

use tracing::warn;

use super::Node;
use crate::bugs::{Bug, planted};
use crate::machine::StateMachine;

/// A log beyond its limit fills up by this part of what is left in one tick, at most.
const FILLING_TICKS: u64 = 200;

impl<M: StateMachine> Node<M> {
    /// More waits for the disk than may: what would add to it must wait outside. That includes entries
    /// that raft has and the log does not: a node that was paused takes up many messages at once.
    pub(super) fn disk_lags(&self) -> bool {
        self.unsynced + self.space.taken() > self.config.max_unsynced_bytes
    }

    /// The log in memory is so large, although snapshots are taken, that nothing may add to it: a
    /// snapshot is slow to write, or members that catch up still need what it covers.
    pub(super) fn log_is_full(&self) -> bool {
        !planted(Bug::LogUnbounded)
            && self.raft.log().bytes() + self.space.taken() >= 2 * self.config.max_log_bytes
    }

    /// Bytes of commands that may be proposed in one tick. Unlimited as long as the log is within its
    /// limit; beyond it less and less, so that the log never gets full at once: writers slow down
    /// until the snapshot is written, or the member that needs the log has caught up.
    pub(super) fn admissible_bytes(&self) -> u64 {
        let (bytes, limit) = (self.raft.log().bytes(), self.config.max_log_bytes);
        match bytes.checked_sub(limit) {
            Some(_) if planted(Bug::LogUnbounded) => u64::MAX,
            None => u64::MAX,
            Some(beyond) => limit.saturating_sub(beyond).div_ceil(FILLING_TICKS),
        }
    }

    /// The disk has completed nothing for so long, although the log waits for it, that it may never
    /// do so again.
    pub(super) fn disk_hangs(&self) -> bool {
        !self.persisting.is_empty()
            && !planted(Bug::HungDiskKeepsOffice)
            && self.disk_progress_at + u64::from(self.config.hang_ticks) <= self.now
    }

    /// One tick of a member that can make nothing durable. A leader in that state answers neither
    /// writes nor linearizable reads, because it applies only what is durable here too, but its
    /// heartbeats would keep the others from electing one that does. So it steps down. It does not
    /// stand for election either, and its vote waits for the disk as any promise does.
    pub(super) fn tick_with_hung_disk(&mut self) {
        if self.raft.is_leader() {
            warn!(id = %self.config.id, "the disk hangs: stepping down");
            self.raft.step_down();
        }
        self.raft.tick_passively();
    }
}
