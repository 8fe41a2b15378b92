//! What the checkers may forget in a run of days, and what they must not.
//!
//! They forget only when the cluster is at rest: no operation is under way, every member has
//! applied all that is committed, and the history so far was judged. From then on
//!
//! - of the log they keep what any disk or any memory of a node that may ever run again still
//!   reaches: whoever comes back is compared with that. Older entries can only be written, applied
//!   or snapshotted again by a node that lost what it had, and that is reported;
//! - of terms they keep the newest [`TERMS`] of each node's past: a vote or a leader in an older
//!   term would first have to go back behind the node's own durable term, which is a violation;
//! - of commands they keep those that have had no effect, but still may have one: their session
//!   lives and has not gone on. They are part of the next history, too;
//! - sessions and contents are kept as they are.

use std::collections::BTreeSet;

use stormkv::types::{LogIndex, NodeId, SessionId, Term};

use super::machine::MachineChecker;
use super::raft::RaftChecker;
use super::safety::Safety;
use crate::service::{Model, Service};

/// Terms before the oldest that a node is in which are not forgotten.
const TERMS: u64 = 64;

impl<S: Service> Safety<S> {
    /// Forgets what cannot matter any more, at rest; `present` are the nodes that may ever run
    /// again, with the first index that each has in memory.
    pub fn forget(&mut self, present: &[(NodeId, LogIndex)]) {
        let floor = self.raft.forget(present);
        self.repeats.forget(floor);
        self.machine.forget();
        let machine = &self.machine;
        self.opened.retain(|session| machine.sessions.contains_key(session));
    }

    /// Whether a command that has had no effect so far may have one later.
    pub fn may_take_effect(&self, session: SessionId, number: u64) -> bool {
        self.machine.may_take_effect(session, number)
    }

    /// The model of the service, as of the last committed entry.
    pub fn model(&self) -> &S::Model {
        &self.machine.model
    }

    /// Facts that are remembered: entries, votes, commands. For the memory's sake.
    pub fn remembered(&self) -> usize {
        self.raft.remembered() + self.machine.remembered() + self.repeats.kept()
    }
}

impl RaftChecker {
    /// Returns the index before which it has forgotten all.
    fn forget(&mut self, present: &[(NodeId, LogIndex)]) -> LogIndex {
        let ids: BTreeSet<NodeId> = present.iter().map(|(id, _)| *id).collect();
        self.nodes.retain(|id| ids.contains(&id));
        let mut floor = self.ledger.commit();
        let mut oldest: Term = self.max_term;
        for (id, first) in present {
            floor = floor.min(first.saturating_sub(1));
            if let Some(node) = self.nodes.get(*id) {
                let (durable, written) = (&node.shadow.durable, &node.shadow.written);
                floor = floor.min(durable.base().index).min(written.base().index);
                oldest = oldest.min(durable.term);
            }
        }
        self.ledger.forget(floor);
        self.digests.drop_before(floor as usize);
        let oldest = oldest.saturating_sub(TERMS);
        self.leader_of = self.leader_of.split_off(&oldest);
        self.votes.retain(|(_, term), _| *term >= oldest);
        self.candidates.retain(|(_, term), _| *term >= oldest);
        floor
    }

    fn remembered(&self) -> usize {
        self.ledger.kept()
            + self.digests.kept()
            + self.leader_of.len()
            + self.votes.len()
            + self.candidates.len()
    }
}

impl<S: Service> MachineChecker<S> {
    fn forget(&mut self) {
        let sessions = &self.sessions;
        let open = |session: &SessionId, number: u64| {
            sessions.get(session).is_some_and(|(_, newest, _)| number > *newest)
        };
        self.responses.clear();
        self.effects.clear();
        self.loose.clear();
        self.model.forget();
        self.copies.retain(|(session, number), _| open(session, *number));
    }

    fn may_take_effect(&self, session: SessionId, number: u64) -> bool {
        self.sessions.get(&session).is_some_and(|(_, newest, _)| number > *newest)
    }

    fn remembered(&self) -> usize {
        self.responses.len()
            + self.effects.len()
            + self.loose.len()
            + self.copies.len()
            + self.model.remembered()
    }
}
