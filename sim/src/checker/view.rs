//! What the checkers ask of a node after an event.
//!
//! A trait only so that tests can show the checkers a node that a correct one never becomes.

use stormkv::machine::StateMachine;
use stormkv::node::{Membership, Node, Progress, Status};
use stormkv::types::{Entry, LogIndex, SnapshotId, Term};

/// A node, as far as the checkers look into it.
pub trait View {
    /// See [`Node::status`].
    fn status(&self) -> Status;
    /// See [`Node::membership`].
    fn membership(&self) -> &Membership;
    /// See [`Node::progress`].
    fn progress(&self) -> impl Iterator<Item = Progress>;
    /// See [`Node::term_at`].
    fn term_at(&self, index: LogIndex) -> Option<Term>;
    /// See [`Node::entry`].
    fn entry(&self, index: LogIndex) -> Option<Entry>;
    /// What the log must reach to be whole again; see [`Node::damage`].
    fn damage(&self) -> Option<SnapshotId>;
}

impl<M: StateMachine> View for Node<M> {
    fn status(&self) -> Status {
        self.status()
    }

    fn membership(&self) -> &Membership {
        self.membership()
    }

    fn progress(&self) -> impl Iterator<Item = Progress> {
        self.progress()
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.term_at(index)
    }

    fn entry(&self, index: LogIndex) -> Option<Entry> {
        self.entry(index)
    }

    fn damage(&self) -> Option<SnapshotId> {
        self.damage().map(|damage| damage.floor)
    }
}
