//! A member that has lost part of what it held durably, until it holds that again.
//!
//! Recovery of the write-ahead log (see [`wal`](crate::wal)) tells such damage from a torn tail,
//! and keeps what can still be trusted. The member goes on with that, as one that has fallen
//! behind: the leader gives it the rest as it would give it to any follower. But three kinds of
//! promises may rest on what is lost, and they are kept in other ways (Protocol-Aware Recovery,
//! FAST'18):
//!
//! - *Votes.* The terms and votes are known: whatever shows the damage is newer than it, and each
//!   record says them.
//! - *Acknowledgements, as others count them.* A leader may take it for granted that this member
//!   has what it acknowledged, and would never send it again. An acknowledgement holds for a term;
//!   so recovery moves the member on to a term of its own, without a vote, durably before it says
//!   a word. A leader of an older term learns of it from any answer and steps down, and the next
//!   one begins with no opinion about its followers.
//! - *Acknowledgements, as its own vote guards them.* A leader is elected by voters none of which
//!   has a longer log, so that it has all that is committed. For that a voter need not *hold* its
//!   log: it compares no more than index and term of the last entry. Those are known, and durable
//!   as the *floor* of the log. So a damaged member may vote as it would have with its whole log:
//!   for nobody whose last entry is before the floor. It never stands for election itself.
//!
//! It is whole when its own last entry is not before the floor, term first, then index. For take an
//! entry that it has acknowledged, and that is committed or may be in an older term: its term is at
//! most the floor's. The log of any member is the beginning of the log of the leader that made its
//! last entry. If that leader's term is the floor's, its log holds the floor, and what is before;
//! if it is later, that leader was elected with all that could be committed by then, and made its
//! own entries behind it. Either way the entry is there.
//!
//! The floor may be set too high, never too low: if it is not known which term the last entry was
//! of, the newest term of all stands for it. That costs votes, not the repair: any new leader makes
//! an entry of its own term, which is later still.
//!
//! If nobody repairs it the member stops, so that somebody looks. That a member cannot be repaired
//! at all is known only if it is the only voter: that one is refused at once, before anything is
//! changed. So that damage to the log cannot make an only voter of one that has others by now, a
//! snapshot is taken as soon as it has.

use raft::eraftpb::MessageType;
use tracing::info;

use super::Node;
use crate::error::Error;
use crate::machine::StateMachine;
use crate::types::SnapshotId;
use crate::wal::Damage;
use crate::wire::{Kind, RaftMessage};

/// How the repair of a member goes.
#[derive(Debug)]
pub(super) struct Repair {
    damage: Damage,
    /// What was there at the last progress, and when that was.
    seen: (SnapshotId, u64, u64),
    progress_at: u64,
}

impl Repair {
    pub fn new(damage: Damage) -> Self {
        Repair { damage, seen: Default::default(), progress_at: 0 }
    }

    pub fn damage(&self) -> &Damage {
        &self.damage
    }
}

impl<M: StateMachine> Node<M> {
    /// One tick of a damaged member: it waits for a leader, but not for ever.
    pub(super) fn tick_repair(&mut self) {
        self.raft.tick_passively();
        let last = self.status().last;
        let (transfer, received) = self.snapshots.receiving();
        let seen = (last, transfer, received);
        let Some(repair) = &mut self.repair else { return };
        if repair.seen != seen {
            (repair.seen, repair.progress_at) = (seen, self.now);
        } else if repair.progress_at + u64::from(self.config.repair_ticks) <= self.now {
            // Nobody gives anything to one who was removed.
            if self.farewell.was_told() {
                return self.stop(Error::Removed);
            }
            let Damage { file, offset, reason, floor } = repair.damage.clone();
            self.stop(Error::BeyondRepair { file, offset, reason, floor });
        }
    }

    /// Whether raft must not see a message, because it might vote, or stand for election, without
    /// knowing what this member's log once held.
    pub(super) fn must_not_vote(&self, message: &RaftMessage) -> bool {
        let Some(repair) = &self.repair else { return false };
        let inner = &message.0;
        match inner.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let candidate = SnapshotId { index: inner.index, term: inner.log_term };
                // Raft refuses what comes from before its own term, and tells the candidate so.
                inner.term >= self.raft.term() && candidate.rank() < repair.damage.floor.rank()
            }
            _ => message.kind() == Kind::TimeoutNow,
        }
    }

    /// Something has become durable: perhaps the log holds again what it once held.
    pub(super) fn consider_whole(&mut self) {
        if self.repair.is_none() || self.wal.floor().is_some() {
            return;
        }
        let last = self.status().last;
        info!(id = %self.config.id, last = last.index, term = last.term, "the log is whole again");
        self.repair = None;
        // Only now may go what was left of it.
        let mut ops = Vec::new();
        self.wal.compact(&mut ops);
        if !ops.is_empty() {
            self.submit(ops, None);
        }
        self.clean_up();
    }
}
