//! How a removed member leaves: not before the others can do without it.
//!
//! A removal is decided by the members before it. A leader that knows it to be committed goes by the
//! new membership at once; but should it crash before its own disk knows that, it wakes up under the
//! old one, and may need the vote of the very member that it has removed. Likewise the others, as
//! long as the news has not reached them. So:
//!
//! - Who asked for a change is answered when the one that answers would still know of it after a
//!   crash (see `ready.rs`).
//! - A member tells another that it was removed under the same condition, and only when it hears
//!   from it.
//! - The removed one goes on voting and acknowledging, and asks the voters that it knows of until a
//!   quorum of them has told it. More of them can never be lost than leave one of these, and a
//!   candidate's question says what it knows to be committed, so from then on nobody needs the old
//!   membership. It cannot stand for election itself: raft sees to that.
//!
//! A member may be removed without hearing of it. It counts itself among its voters then, and learns
//! of it from whomever it asks for a vote, or, if it is damaged and may not, from whomever it asks
//! whether there is a leader. If it is told by too few for too long, because the others
//! that it knew are gone themselves, it leaves all the same.

use std::collections::BTreeSet;

use tracing::info;

use super::{Node, Output};
use crate::bugs::{Bug, planted};
use crate::error::Error;
use crate::machine::StateMachine;
use crate::types::NodeId;
use crate::wire::Message;

/// What a member has heard of its own removal.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    told_by: BTreeSet<NodeId>,
    /// The tick at which it was told first.
    since: Option<u64>,
}

impl Farewell {
    pub fn was_told(&self) -> bool {
        self.since.is_some()
    }
}

impl<M: StateMachine> Node<M> {
    /// Whether this member was removed, and knows it from its own state.
    pub(super) fn has_left(&self) -> bool {
        self.replica.membership().has_left(self.config.id)
    }

    /// Whether this member would still know of its present [`membership`](Node::membership) after a
    /// crash. Only then may those who were removed be turned away.
    pub fn membership_is_durable(&self) -> bool {
        self.done >= self.membership_vow
    }

    /// A removed member has said something.
    pub(super) fn turn_away(&mut self, from: NodeId) {
        if self.membership_is_durable() {
            self.outputs.push(Output::Send { to: from, message: Message::Removed });
        }
    }

    /// Another member says that this one was removed.
    pub(super) fn told_removed(&mut self, from: NodeId) {
        info!(id = %self.config.id, %from, "told to have been removed");
        self.farewell.since.get_or_insert(self.now);
        let (me, membership) = (self.config.id, self.replica.membership());
        if membership.votes(from) {
            self.farewell.told_by.insert(from);
        }
        let knows = |id: NodeId| id == me || self.farewell.told_by.contains(&id);
        if membership.is_quorum(knows) {
            self.stop(Error::Removed);
        }
    }

    /// Lets time pass for a member that was removed, or may have been: it asks those who have not
    /// told it yet.
    pub(super) fn tick_farewell(&mut self) {
        let since = self.farewell.since;
        let forsaken = self.repair.is_some() && self.raft.leader().is_none();
        if since.is_none() && !forsaken && !self.has_left() {
            return;
        }
        if since.is_some_and(|since| since + u64::from(self.config.repair_ticks) <= self.now) {
            return self.stop(Error::Removed);
        }
        if !self.now.is_multiple_of(u64::from(self.config.election_ticks.1)) {
            return;
        }
        let (me, membership) = (self.config.id, self.replica.membership());
        let asked = membership.voters().union(membership.outgoing()).copied();
        let asked: Vec<NodeId> =
            asked.filter(|id| *id != me && !self.farewell.told_by.contains(id)).collect();
        for to in asked {
            // Any question would do. The answer is nobody's, should there be one.
            let message = Message::ReadIndex { id: self.fresh_id() };
            self.outputs.push(Output::Send { to, message });
        }
    }

    /// A leader that was removed or became a learner steps down. It may have been elected between
    /// the proposal and the commit of that. Raft would let it go on, count on a quorum that it is
    /// not part of, and panic on almost anything that reaches a leader outside of its own
    /// configuration.
    pub(super) fn consider_stepping_down(&mut self) {
        if planted(Bug::LeaderRemovesItself) {
            return;
        }
        if self.raft.is_leader() && !self.replica.membership().votes(self.config.id) {
            self.raft.step_down();
        }
    }
}
