//! Keeping the promises of the membership (see `promise.rs`), which is the leader's task.
//!
//! A member has caught up when it receives the log as fast as it grows. That is measured in rounds
//! (Raft thesis, 4.2.1): a round begins with the present commit index as its goal and ends when the
//! member has that entry. If the last round took no longer than an election timeout, the next commit
//! will not wait longer than that for the new voter either. The goal is the commit index and not the
//! last index, which makes the measure fair: a member that is as fast as the quorum has caught up
//! under any load and on any disk.
//!
//! Only the leader measures, and only in memory. A new leader starts with new rounds.

use std::collections::BTreeMap;

use raft::{Progress, ProgressState};
use tracing::info;

use super::membership;
use super::promise::{Change, Promise};
use super::request::leaves;
use super::{Node, Raft};
use crate::machine::StateMachine;
use crate::types::{LogIndex, NodeId};

/// Progress of a promised voter towards a goal.
#[derive(Clone, Copy, Debug)]
struct Round {
    goal: LogIndex,
    /// The tick at which it began.
    since: u64,
    /// The previous round was short enough, and this one is not too long yet.
    was_short: bool,
}

/// The round of each promised voter. Empty on all but the leader.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<NodeId, Round>);

impl Rounds {
    fn have_caught_up(&self, id: NodeId) -> bool {
        self.0.get(&id).is_some_and(|round| round.was_short)
    }

    /// Takes note of the progress of `id`.
    fn observe(&mut self, id: NodeId, progress: &Progress, commit: LogIndex, now: u64, limit: u64) {
        if !follows_log(progress, commit) {
            self.0.remove(&id);
            return;
        }
        let begun = Round { goal: commit, since: now, was_short: false };
        let round = self.0.entry(id).or_insert(begun);
        let took = now - round.since;
        if progress.matched >= round.goal {
            *round = Round { was_short: took <= limit, ..begun };
        } else if took > limit {
            round.was_short = false;
        }
    }
}

/// Returns whether a member receives the log, not a snapshot. Behind a snapshot with nothing after it, raft
/// goes on probing until there is another entry, so a member that has all that is committed counts.
fn follows_log(progress: &Progress, commit: LogIndex) -> bool {
    progress.state == ProgressState::Replicate || progress.matched >= commit
}

fn progress_of(raft: &Raft, id: NodeId) -> Option<&Progress> {
    raft.progress().find(|(other, _)| *other == id).map(|(_, progress)| progress)
}

impl<M: StateMachine> Node<M> {
    /// Returns whether each new voter of a change has all that is committed, so that it may vote at once.
    pub(super) fn have_all(&self, voters: &[NodeId]) -> bool {
        let commit = self.raft.commit();
        let has_all = |id: NodeId| {
            self.is_active(id) && progress_of(&self.raft, id).is_some_and(|p| p.matched >= commit)
        };
        voters.iter().all(|id| self.replica.membership().votes(*id) || has_all(*id))
    }

    /// Proposes, at a tick of the leader, the change that keeps the first promise that is due.
    pub(super) fn keep_promises(&mut self) {
        let membership = self.replica.membership();
        if membership.promises().is_empty() || !self.raft.is_leader() {
            self.rounds = Rounds::default();
            return;
        }
        self.observe_promised();
        let membership = self.replica.membership();
        if membership.is_joint()
            || self.raft.has_pending_change()
            || self.raft.is_transferring()
            || !self.raft.committed_in_term()
        {
            return;
        }
        let due = membership.promises().iter().find(|promise| self.is_due(promise));
        let Some(change) = due.map(Promise::kept_by) else { return };
        if leaves(&change, self.config.id) && self.hand_over(&change) {
            return;
        }
        info!(id = %self.config.id, ?change, "the promised voters have caught up");
        self.raft.propose_change(membership::to_raft(&Change::from(change)));
    }

    fn observe_promised(&mut self) {
        let limit = u64::from(self.config.election_ticks.0);
        let (commit, now) = (self.raft.commit(), self.now);
        let membership = self.replica.membership();
        let promised = |id: &NodeId| membership.is_promised(*id);
        self.rounds.0.retain(|id, _| promised(id));
        for id in membership.learners().iter().copied().filter(promised) {
            match progress_of(&self.raft, id) {
                Some(progress) => self.rounds.observe(id, progress, commit, now, limit),
                None => drop(self.rounds.0.remove(&id)),
            }
        }
    }

    /// Returns whether a promise can be kept now: its new voters have caught up and answer, and so does a
    /// quorum of the voters after it. Until then it waits: it was made when others may have answered,
    /// and stands in the way of no other change. One of these is a voter already, to which a leader that loses
    /// its own vote can hand over.
    fn is_due(&self, promise: &Promise) -> bool {
        let membership = self.replica.membership();
        let (me, commit) = (self.config.id, self.raft.commit());
        let follows =
            |id| progress_of(&self.raft, id).is_some_and(|progress| follows_log(progress, commit));
        let answers = |id: NodeId| id == me || self.is_active(id) && follows(id);
        let has_vote = |id: NodeId| membership.voters().contains(&id);
        let is_ready =
            |id: &NodeId| has_vote(*id) || self.rounds.have_caught_up(*id) && answers(*id);
        if !promise.voters().iter().all(is_ready) {
            return false;
        }
        let stays = |id: &NodeId| has_vote(*id) && !promise.unseats(*id);
        let change = promise.kept_by();
        membership.keeps_quorum(&change, answers)
            && membership.voters().iter().filter(|id| stays(id)).any(|id| answers(*id))
            && membership.allows(&change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10;

    fn at(matched: LogIndex) -> Progress {
        let mut progress = Progress::new(matched + 1, 256);
        progress.become_replicate();
        (progress.matched, progress.recent_active) = (matched, true);
        progress
    }

    #[test]
    fn rounds_member_with_everything_has_caught_up() {
        let mut rounds = Rounds::default();
        rounds.observe(NodeId(4), &at(100), 100, 7, LIMIT);
        assert!(rounds.have_caught_up(NodeId(4)));
        assert!(!rounds.have_caught_up(NodeId(5)));
    }

    #[test]
    fn rounds_slow_member_has_not_caught_up() {
        let mut rounds = Rounds::default();
        // It gets 10 entries per tick of a log that grows by 100.
        for now in 0..200 {
            rounds.observe(NodeId(4), &at(10 * now), 1000 + 100 * now, now, LIMIT);
            assert!(!rounds.have_caught_up(NodeId(4)), "at {now}");
        }
    }

    #[test]
    fn rounds_fast_member_has_caught_up_although_it_always_lags() {
        let mut rounds = Rounds::default();
        for now in 3..20 {
            rounds.observe(NodeId(4), &at(100 * (now - 3)), 100 * now, now, LIMIT);
        }
        assert!(rounds.have_caught_up(NodeId(4)));
        // It stops, and is not waited for.
        for now in 20..40 {
            rounds.observe(NodeId(4), &at(1600), 100 * now, now, LIMIT);
        }
        assert!(!rounds.have_caught_up(NodeId(4)));
    }

    #[test]
    fn rounds_member_with_everything_is_still_probed() {
        let mut rounds = Rounds::default();
        let probed = |matched| {
            let mut progress = at(matched);
            progress.become_probe();
            progress
        };
        rounds.observe(NodeId(4), &probed(99), 100, 7, LIMIT);
        assert!(!rounds.have_caught_up(NodeId(4)));
        rounds.observe(NodeId(4), &probed(100), 100, 8, LIMIT);
        assert!(rounds.have_caught_up(NodeId(4)));
    }

    #[test]
    fn rounds_member_that_needs_a_snapshot_begins_anew() {
        let mut rounds = Rounds::default();
        let mut snapshot = at(100);
        snapshot.become_snapshot(150);
        rounds.observe(NodeId(4), &at(100), 100, 7, LIMIT);
        assert!(rounds.have_caught_up(NodeId(4)));
        rounds.observe(NodeId(4), &snapshot, 200, 8, LIMIT);
        assert!(!rounds.have_caught_up(NodeId(4)));
    }
}
