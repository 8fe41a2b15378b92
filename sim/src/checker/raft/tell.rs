//! Sentences about nodes that hold different things, or less than before.

use stormkv::node::{Applied, Status};
use stormkv::types::{LogIndex, NodeId, SnapshotId};

use super::RaftChecker;
use crate::checker::ledger::Version;
use crate::checker::shadow::Image;
use crate::checker::{Broken, Check};
use crate::words;

impl RaftChecker {
    /// A node and the first one hold different states after the same entry.
    pub(super) fn different_states(&self, id: NodeId, first: NodeId, applied: &Applied) -> Broken {
        let entry = self.entry(applied.id);
        let message = match (applied.by_snapshot, first == id) {
            (true, _) => format!(
                "the snapshot that {id} has loaded up to {entry} is not the state that {first} had \
                 there, although the same log must give the same state"
            ),
            (false, true) => format!(
                "{id} has applied {entry} again, after a restart, and holds another state than \
                 before: the same log must give the same state"
            ),
            (false, false) => format!(
                "{id} and {first} hold different states after {entry}, although the same log must \
                 give the same state"
            ),
        };
        Broken::new(Check::StateHash, message)
    }

    /// A node and the first one go by different memberships after the same entry.
    pub(super) fn different_members(&self, id: NodeId, first: NodeId, applied: &Applied) -> Broken {
        let (entry, again) = (self.entry(applied.id), if first == id { " before" } else { "" });
        let who = match applied.by_snapshot {
            true => format!("the snapshot that {id} has loaded up to {entry} has"),
            false => format!("{id} has after {entry}"),
        };
        let message = format!(
            "{who} another membership than {first} had there{again}: they may count different \
             quorums"
        );
        Broken::new(Check::MembershipHash, message)
    }

    /// An entry, and what it does: `entry 9@3 (put k1 v7)`.
    fn entry(&self, SnapshotId { index, term }: SnapshotId) -> String {
        let what = self.committed_version(index).map(|version| self.describe(version));
        let what = what.map_or_else(String::new, |what| format!(" ({what})"));
        format!("entry {index}@{term}{what}")
    }

    fn describe(&self, version: &Version) -> String {
        words::entry(self.describe, version.kind, &version.data)
    }

    /// What the committed entry at `index` does, if it is still known.
    pub(in crate::checker) fn what(&self, index: LogIndex) -> Option<String> {
        self.committed_version(index).map(|version| self.describe(version))
    }
}

/// `vote n2`, or `no vote`.
pub(super) fn vote(vote: NodeId) -> String {
    if vote == NodeId(0) { "no vote".to_owned() } else { format!("vote {vote}") }
}

/// A node that came back with less than was durable.
pub(super) fn forgotten(id: NodeId, status: &Status, durable: &Image) -> String {
    format!(
        "{id} came back with term {} ({}), log up to {}@{} and snapshot {}, but it had made \
         durable: term {} ({}), log up to {}@{} and snapshot {}: it has forgotten what others \
         rely on",
        status.hard_state.term,
        vote(status.hard_state.vote),
        status.last.index,
        status.last.term,
        status.snapshot.index,
        durable.term,
        vote(durable.vote),
        durable.last().0.index,
        durable.last().0.term,
        durable.snapshot.index,
    )
}
