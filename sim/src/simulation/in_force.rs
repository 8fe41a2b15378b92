//! The memberships that may be in force when the faults stop, now or later.
//!
//! A member goes by the membership of its own applied index, so an older one may be in force beside the
//! newest. A change may be in some log, committed or not, a promise may be kept at any time, and a
//! request of the operator may be on its way. Whoever recovers must be a quorum of the voters of all of
//! these. The set is larger than what can come about, because every change is thought of as made in any
//! order or not at all.
//!
//! Left out: changes whose member is not decided yet (`remove leader`), and more combinations than
//! [`MOST`]. There everybody is healed, which is always enough.

use std::collections::{BTreeSet, VecDeque};

use stormkv::api::Reconfigure;
use stormkv::node::{Membership, Promise, membership_change, membership_step};
use stormkv::types::{LogIndex, NodeId};

use super::Simulation;
use super::client;
use super::node::SimNode;
use crate::plan::Op;
use crate::service::Service;

/// The most sets of voters that are thought of.
const MOST: usize = 64;
/// Memberships of the past that are kept.
const KEPT: usize = 64;

type Voters = BTreeSet<NodeId>;

/// The memberships that were the newest, each with the index at which it was seen first.
#[derive(Default)]
pub(super) struct Past(VecDeque<(LogIndex, Membership)>);

impl Past {
    pub fn note(&mut self, index: LogIndex, membership: &Membership) {
        self.0.push_back((index, membership.clone()));
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Those that a member goes by which has applied all up to `index`, or more. `None` if they are
    /// not known any more.
    fn since(&self, index: LogIndex) -> Option<impl Iterator<Item = &Membership>> {
        let later = self.0.partition_point(|(first, _)| *first <= index);
        // The first membership of all is that of the founders, which is in force from the beginning.
        let from =
            if self.0.len() < KEPT { later.saturating_sub(1) } else { later.checked_sub(1)? };
        Some(self.0.range(from..).map(|(_, membership)| membership))
    }
}

/// What a change does to the voters.
#[derive(Debug)]
struct Step {
    come: Voters,
    go: Voters,
}

impl Step {
    fn of(change: &Reconfigure) -> Step {
        let go = change.removed.iter().chain(&change.learners);
        Step { come: change.voters.iter().copied().collect(), go: go.copied().collect() }
    }

    fn keeping(promise: &Promise, membership: &Membership) -> Step {
        let go = membership.voters().iter().filter(|id| promise.unseats(**id));
        Step { come: promise.voters().clone(), go: go.copied().collect() }
    }

    fn after(&self, voters: &Voters) -> Voters {
        voters.difference(&self.go).chain(&self.come).copied().collect()
    }
}

/// All that can be made of these voters with these steps; `None` if that is too much.
fn closure(mut open: Vec<Voters>, steps: &[Step]) -> Option<BTreeSet<Voters>> {
    let mut all = BTreeSet::new();
    while let Some(voters) = open.pop() {
        if voters.is_empty() || !all.insert(voters.clone()) {
            continue;
        }
        if all.len() > MOST {
            return None;
        }
        open.extend(steps.iter().map(|step| step.after(&voters)));
    }
    Some(all)
}

impl<S: Service> Simulation<'_, S> {
    /// The membership was another one `before`.
    pub(super) fn note_promises(&mut self, before: &Membership) {
        let now = self.cluster.membership();
        let made = now.learners().iter().any(|id| now.is_promised(*id) && !before.is_promised(*id));
        let kept = now.voters().iter().any(|id| before.is_promised(*id));
        if made {
            self.reach("voter-promised");
        }
        if kept {
            self.reach("promised-voter-votes");
        }
    }

    /// The voters of every membership that may be in force, now or later. `None` if that is not known.
    pub(super) fn voters_in_force(&self) -> Option<BTreeSet<Voters>> {
        let newest = self.cluster.membership();
        let members = self.cluster.iter().filter(|slot| newest.contains(slot.id));
        let least = members.filter(|slot| !slot.is_gone()).map(SimNode::surely_applied).min()?;
        let past: Vec<&Membership> = self.cluster.past().since(least)?.collect();
        let mut steps = Vec::new();
        for data in self.safety.changes_behind(least) {
            // At first only what takes effect at once, and then all.
            steps.extend(membership_step(data).as_ref().map(Step::of));
            steps.extend(membership_change(data).as_ref().map(Step::of));
        }
        for membership in &past {
            let promises = membership.promises().iter();
            steps.extend(promises.map(|promise| Step::keeping(promise, membership)));
        }
        for change in self.open_changes() {
            steps.push(Step::of(&change?));
        }
        let halves =
            past.iter().flat_map(|membership| [membership.voters(), membership.outgoing()]);
        closure(halves.cloned().collect(), &steps)
    }

    /// The changes that the operator waits for, and those that it has given up, which may be on their
    /// way. `None` for one whose member is not decided yet.
    fn open_changes(&self) -> impl Iterator<Item = Option<Reconfigure>> {
        let open = self.clients.all.iter().filter_map(|client| client.current.as_ref());
        let waiting = open.filter_map(|current| {
            let call = &self.plan.ops[current.row].call;
            let is_change = call.op.is_admin() && !matches!(call.op, Op::Transfer(_));
            is_change.then(|| {
                let decided = !call.op.is_aimed() || current.aim.is_some();
                client::request(call, current).change().filter(|_| decided)
            })
        });
        waiting.chain(self.clients.doubtful_changes.iter().cloned().map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[u64]) -> Voters {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn closure_makes_changes_in_any_order_or_not_at_all() {
        let steps = [
            Step { come: voters(&[4]), go: voters(&[]) },
            Step { come: voters(&[]), go: voters(&[1, 4]) },
        ];
        let all = closure(vec![voters(&[1, 2])], &steps).expect("few");
        let expected: [&[u64]; 4] = [&[1, 2], &[1, 2, 4], &[2], &[2, 4]];
        assert_eq!(all, expected.into_iter().map(voters).collect());
    }

    #[test]
    fn closure_has_a_bound() {
        let steps: Vec<Step> =
            (2..12).map(|id| Step { come: voters(&[id]), go: voters(&[]) }).collect();
        assert_eq!(closure(vec![voters(&[1])], &steps), None);
    }

    #[test]
    fn past_membership_is_in_force_until_all_have_applied_the_next_one() {
        let mut past = Past::default();
        let named = |ids: &[u64]| -> Membership {
            let value = serde_json::json!({
                "voters": ids, "outgoing": [], "learners": [], "learners_next": [],
                "auto_leave": false, "removed": [],
            });
            serde_json::from_value(value).expect("a membership")
        };
        for (index, ids) in [(1, &[1, 2, 3][..]), (5, &[1, 2]), (9, &[1, 2, 4])] {
            past.note(index, &named(ids));
        }
        let count = |index| past.since(index).expect("all is known").count();
        assert_eq!([count(0), count(4), count(5), count(8), count(9)], [3, 3, 2, 2, 1]);
    }
}
