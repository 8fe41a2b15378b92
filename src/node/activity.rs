//! Recent answers of the other members, by which a leader judges changes of the membership.
//!
//! A change that takes effect needs a quorum of the membership that it makes. If too many of these
//! voters are gone, nothing is committed any more, not even the change that would repair the
//! membership: of three voters one is lost, and the removal of another one leaves a quorum of two
//! with one voter. Nothing but the lost disk brings such a cluster back. The leader therefore refuses
//! a change of the voters unless a quorum of the voters after it has answered recently, as etcd does
//! with `--strict-reconfig-check`. The removal of a lost voter makes the quorum smaller and passes.
//! A promise of votes changes no voter when it is made. It is judged when it is due, and waits until
//! it can be kept prudently.
//!
//! Raft's own flag `recent_active` is not enough: raft sets it for a member that was just added, and
//! clears it at each check of the quorum. Here the answers count that name the present term, among
//! them the votes by which the leader was elected, for one election timeout each.
//!
//! A member that fails later is not foreseen: a change of which a quorum answered when it was proposed
//! is made.

use std::collections::BTreeMap;

use super::Node;
use crate::machine::StateMachine;
use crate::types::NodeId;
use crate::wire::{Kind, RaftMessage};

/// The tick of the last answer of each member.
#[derive(Debug, Default)]
pub(super) struct Activity(BTreeMap<NodeId, u64>);

impl Activity {
    /// Records an answer at tick `now`. Answers older than `limit` ticks go when a member is new, so
    /// the record does not grow with the ids that were ever used.
    fn note(&mut self, id: NodeId, now: u64, limit: u64) {
        if self.0.insert(id, now).is_none() {
            self.0.retain(|_, at| now - *at <= limit);
        }
    }

    fn is_recent(&self, id: NodeId, now: u64, limit: u64) -> bool {
        self.0.get(&id).is_some_and(|at| now - at <= limit)
    }
}

impl<M: StateMachine> Node<M> {
    /// Records that a member has answered in this node's term. Other messages prove less: a member
    /// that hears nothing still sends them.
    pub(super) fn note_answer(&mut self, from: NodeId, message: &RaftMessage) {
        let is_answer =
            matches!(message.kind(), Kind::AppendResp | Kind::HeartbeatResp | Kind::VoteResp);
        if is_answer && message.term() == self.raft.term() {
            let limit = self.activity_ticks();
            self.activity.note(from, self.now, limit);
        }
    }

    /// Returns whether a member has answered within an election timeout. A leader answers itself.
    pub(super) fn is_active(&self, id: NodeId) -> bool {
        id == self.config.id || self.activity.is_recent(id, self.now, self.activity_ticks())
    }

    /// The shortest election timeout: a leader that hears no quorum for so long steps down.
    fn activity_ticks(&self) -> u64 {
        u64::from(self.config.election_ticks.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_answer_counts_for_a_while() {
        let mut activity = Activity::default();
        assert!(!activity.is_recent(NodeId(2), 0, 10));
        activity.note(NodeId(2), 5, 10);
        assert!(activity.is_recent(NodeId(2), 15, 10));
        assert!(!activity.is_recent(NodeId(2), 16, 10));
        assert!(!activity.is_recent(NodeId(3), 5, 10));
    }

    #[test]
    fn activity_forgets_members_that_left() {
        let mut activity = Activity::default();
        for id in 1..=1000 {
            activity.note(NodeId(id), id, 10);
        }
        assert!(activity.0.len() <= 12, "{}", activity.0.len());
    }
}
