//! One node, as the checker of Raft's invariants has seen it so far.

use stormkv::node::{Membership, Role, Status};
use stormkv::types::LogIndex;

use super::damage::Wound;
use crate::checker::shadow::Shadow;

/// The facts about one node that the checker has seen.
#[derive(Default)]
pub(in crate::checker) struct Watched {
    pub(in crate::checker) shadow: Shadow,
    /// The status after the last event of this life; `None` before the first.
    pub(super) status: Option<Status>,
    /// The membership that the node went by before and after the last event.
    pub(super) membership: (Membership, Membership),
    pub(super) membership_changed: bool,
    pub(in crate::checker) applied: LogIndex,
    /// The last life ended by the mere death of the process.
    pub(super) killed: bool,
    pub(super) wound: Wound,
}

impl Watched {
    /// Returns whether it leads, by its own account.
    pub(super) fn leads(&self) -> bool {
        self.status.is_some_and(|status| status.role == Role::Leader)
    }

    /// Records the membership that it goes by after an event.
    pub(super) fn note_membership(&mut self, now: &Membership) {
        let changed = self.membership.1 != *now;
        if changed || self.membership_changed {
            let before = std::mem::replace(&mut self.membership.1, now.clone());
            self.membership.0 = before;
        }
        self.membership_changed = changed;
    }
}
