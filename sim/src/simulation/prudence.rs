//! Prudence: no leader proposes a change of the voters after which too few of them are there.
//!
//! The product judges by its own record of answers. This checker counts deliveries instead: which
//! members a leader can have heard of at all within twice the time that the product allows. Time is
//! counted in firings of the leader's timer, of which each is a tick at least. So a leader that was
//! paused, or whose clock jumped, is judged by what it can know. If those members and the leader are no
//! quorum of the voters after the change, nothing can excuse it.
//!
//! A change that the operator has forced is exempt.
//!
//! Left out: the opposite, a prudent change that is refused. Answers may be lost or late, and the
//! operator asks again.

use std::collections::BTreeSet;

use stormkv::api::Reconfigure;
use stormkv::node::{Membership, membership_step};
use stormkv::types::{EntryKind, LogIndex, NodeId};

use super::{Simulation, stall};
use crate::checker::{Broken, Check};
use crate::outcome::Class;
use crate::plan::Plan;
use crate::service::Service;

/// Firings of the timer that are settings anew by a fault of the clock, not ticks.
const SPARE: u64 = 8;

/// The firings of a leader's timer after which a member that it has not heard of is certainly silent.
fn silent_after(plan: &Plan) -> u64 {
    2 * u64::from(plan.cluster.election_ticks[0]) + SPARE
}

/// Judges the part of a change that takes effect at once. `None` if it leaves the voters as they are;
/// otherwise whether a quorum of the voters after it may be there, with these voters.
fn judge(
    membership: &Membership,
    step: &Reconfigure,
    may_be_there: impl Fn(NodeId) -> bool,
) -> Option<(bool, BTreeSet<NodeId>)> {
    let mut after = membership.voters().clone();
    after.retain(|id| !step.removed.contains(id) && !step.learners.contains(id));
    after.extend(&step.voters);
    if after == *membership.voters() {
        return None;
    }
    let there = after.iter().filter(|id| may_be_there(**id)).count();
    Some((2 * there > after.len(), after))
}

impl<S: Service> Simulation<'_, S> {
    /// A message of raft from this node has reached that one.
    pub(super) fn note_heard(&mut self, from: NodeId, to: NodeId) {
        if let Some(slot) = self.cluster.get_mut(to) {
            slot.heard.insert(from, slot.timer);
        }
    }

    /// Judges the changes that a leader has just written into its log behind `last`.
    pub(super) fn judge_changes(&mut self, id: NodeId, last: LogIndex) {
        // Of this bug the consequences are of interest: nothing is committed for a while.
        if cfg!(feature = "bugs") && self.plan.bug.as_deref() == Some("voter-added-at-once") {
            return;
        }
        let Some(node) = self.cluster.node(id) else { return };
        let entries = (last + 1..=node.status().last.index).filter_map(|index| node.entry(index));
        let changes = entries.filter(|entry| entry.kind == EntryKind::Membership);
        let steps: Vec<Reconfigure> =
            changes.filter_map(|entry| membership_step(&entry.data)).collect();
        for step in steps {
            self.judge_change(id, &step);
        }
    }

    fn judge_change(&mut self, id: NodeId, step: &Reconfigure) {
        let is_step = |forced: &Reconfigure| {
            (&forced.voters, &forced.learners, &forced.removed)
                == (&step.voters, &step.learners, &step.removed)
        };
        if self.clients.forced.iter().any(is_step) {
            return;
        }
        let silent_after = silent_after(self.plan);
        let Some(slot) = self.cluster.get(id) else { return };
        let Some(driver) = &slot.driver else { return };
        let may_be_there = |peer: NodeId| {
            let heard = slot.heard.get(&peer);
            peer == id || heard.is_some_and(|at| slot.timer - at <= silent_after)
        };
        let Some((is_prudent, after)) = judge(driver.node().membership(), step, may_be_there)
        else {
            return;
        };
        let silent: Vec<NodeId> = after.iter().copied().filter(|id| !may_be_there(*id)).collect();
        self.safety.count(Check::Prudence, 1);
        if !is_prudent {
            let message = format!(
                "{id} makes {} the voters, although it has not heard of {} for longer than two \
                 election timeouts: the others are no quorum",
                stall::list(after),
                stall::list(silent)
            );
            self.fail(Class::Safety, Broken::new(Check::Prudence, message).at(id));
        }
    }

    /// Why no quorum comes back, if that is the operator's doing: an imprudent change was accepted when
    /// nothing spoke against it, because the leader could not know yet that a disk is gone.
    pub(super) fn excuse_imprudence(&self) -> Option<String> {
        let newest = self.cluster.membership();
        let proven = self.clients.was_imprudent && !newest.is_quorum(|id| !self.is_wiped(id));
        proven.then(|| {
            let wiped = newest.voters().iter().copied().filter(|id| self.is_wiped(*id));
            format!("the operator has left a quorum that needs the lost {}", stall::list(wiped))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[u64]) -> Membership {
        let value = serde_json::json!({
            "voters": voters, "outgoing": [], "learners": [9], "learners_next": [],
            "auto_leave": false, "removed": [],
        });
        serde_json::from_value(value).expect("a membership")
    }

    fn step(voters: &[u64], learners: &[u64], removed: &[u64]) -> Reconfigure {
        let list = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        Reconfigure {
            voters: list(voters),
            learners: list(learners),
            removed: list(removed),
            ..Reconfigure::default()
        }
    }

    #[test]
    fn prudence_counts_the_voters_after_the_change() {
        let three = membership(&[1, 2, 3]);
        let judged = |step: &Reconfigure, there: &'static [u64]| {
            judge(&three, step, |id| there.contains(&id.0)).map(|(is_prudent, _)| is_prudent)
        };
        assert_eq!(judged(&step(&[], &[], &[2]), &[1, 2]), Some(false));
        assert_eq!(judged(&step(&[], &[2], &[]), &[1, 2]), Some(false));
        assert_eq!(judged(&step(&[], &[], &[3]), &[1, 2]), Some(true), "the lost one goes");
        assert_eq!(judged(&step(&[4], &[], &[]), &[1, 2]), Some(false));
        assert_eq!(judged(&step(&[4], &[], &[3]), &[1, 2]), Some(true));
        assert_eq!(judged(&step(&[], &[8], &[9]), &[1]), None, "no vote changes");
    }
}
