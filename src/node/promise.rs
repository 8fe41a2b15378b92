//! Promises: changes of the membership that wait until their new voters have caught up.
//!
//! A voter counts for the quorum from the moment at which it becomes one. If it has nothing by then,
//! nothing is committed until it has received and restored the whole state: a cluster that grows from
//! one voter to two would stand still for as long as that takes (Raft thesis, 4.2.1). A new voter is
//! therefore a learner first, and the promise of its vote is part of the replicated membership. Every
//! later leader knows the promise and keeps it (see `catch_up.rs`), and the request is answered before
//! the new member has the state, or even runs.
//!
//! A change with such voters is split. Their addition as learners, the other new learners and the
//! removal of members without a vote happen at once. The loss of a vote waits with the new voters and
//! happens together with their promotion: when one voter replaces another, the old one votes until the
//! new one does.
//!
//! The leader keeps a promise only while a quorum of the voters after it answers (see `activity.rs`).
//!
//! A later change takes precedence over an earlier promise. It cancels a promise if it removes one of
//! the new voters or names it as a learner, and takes out of the other promises what they say about
//! the members that it names. A promise that is never kept stands in the way of no other change.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::membership::Membership;
use crate::api::Reconfigure;
use crate::types::NodeId;

/// The most promises that are open at the same time.
pub(super) const MAX_PROMISES: usize = 16;

/// A part of a change that waits for its new voters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
}

impl Promise {
    /// The learners that become voters.
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Returns whether `id` loses its vote when the promise is kept.
    pub fn unseats(&self, id: NodeId) -> bool {
        self.learners.contains(&id) || self.removed.contains(&id)
    }

    /// Returns whether some voter loses its vote when the promise is kept.
    pub fn unseats_any(&self) -> bool {
        !self.learners.is_empty() || !self.removed.is_empty()
    }

    /// The change that keeps the promise.
    pub(crate) fn kept_by(&self) -> Reconfigure {
        let list = |ids: &BTreeSet<NodeId>| ids.iter().copied().collect();
        Reconfigure {
            voters: list(&self.voters),
            learners: list(&self.learners),
            removed: list(&self.removed),
            ..Reconfigure::default()
        }
    }

    fn names(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.unseats(id)
    }

    /// Returns whether keeping this promise does all that `other` says.
    fn covers(&self, other: &Promise) -> bool {
        self.voters == other.voters
            && self.learners.is_superset(&other.learners)
            && self.removed.is_superset(&other.removed)
    }

    /// Returns whether all its new voters are members, as those of every promise that is open.
    pub(super) fn is_sound(&self, membership: &Membership) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|id| membership.contains(*id))
    }

    fn is_kept(&self, membership: &Membership) -> bool {
        self.voters.is_subset(membership.voters()) && !self.unseats_any()
    }
}

/// A change as it stands in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Takes effect when it is applied.
    pub now: Reconfigure,
    /// Takes effect when the new voters have caught up.
    pub promise: Option<Promise>,
}

impl From<Reconfigure> for Change {
    fn from(now: Reconfigure) -> Self {
        Change { now, promise: None }
    }
}

impl Change {
    /// Splits a change whose new voters lack a part of the log.
    pub fn promising(change: &Reconfigure, membership: &Membership) -> Self {
        let (mut now, mut promise) = (Reconfigure::default(), Promise::default());
        now.addresses.clone_from(&change.addresses);
        for id in change.voters.iter().copied() {
            if membership.votes(id) {
                now.voters.push(id);
            } else {
                // Also if it is one already: an entry without a single change leaves a joint
                // configuration.
                now.learners.push(id);
                promise.voters.insert(id);
            }
        }
        for id in change.learners.iter().copied() {
            match membership.votes(id) {
                true => drop(promise.learners.insert(id)),
                false => now.learners.push(id),
            }
        }
        for id in change.removed.iter().copied() {
            match membership.votes(id) {
                true => drop(promise.removed.insert(id)),
                false => now.removed.push(id),
            }
        }
        Change { now, promise: Some(promise) }
    }

    /// The change that was asked for.
    pub fn asked(self) -> Reconfigure {
        Reconfigure { addresses: self.now.addresses.clone(), ..self.wish().kept_by() }
    }

    /// The role of each named member when all of the change is done.
    fn wish(&self) -> Promise {
        let mut wish = self.promise.clone().unwrap_or_default();
        let learners = self.now.learners.iter().filter(|id| !wish.voters.contains(id));
        wish.learners.extend(learners.copied().collect::<Vec<_>>());
        wish.voters.extend(&self.now.voters);
        wish.removed.extend(&self.now.removed);
        wish
    }
}

/// The promises that are open once `change` has made `membership` what it is.
pub(super) fn after(open: &[Promise], change: &Change, membership: &Membership) -> Vec<Promise> {
    let wish = change.wish();
    let mut left = Vec::new();
    for promise in open.iter().filter(|promise| !promise.voters.iter().any(|id| wish.unseats(*id)))
    {
        let mut promise = promise.clone();
        promise.learners.retain(|id| !wish.names(*id));
        promise.removed.retain(|id| !wish.names(*id));
        left.push(promise);
    }
    if let Some(new) = &change.promise {
        left.retain(|promise| !new.covers(promise));
        if !left.iter().any(|promise| promise.covers(new)) {
            left.push(new.clone());
        }
    }
    left.retain(|promise| promise.is_sound(membership) && !promise.is_kept(membership));
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::node::membership::{decode, from_raft, membership_change, to_raft};
    use raft::eraftpb::ConfState;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn request(voters: &[u64], learners: &[u64], removed: &[u64]) -> Reconfigure {
        let list = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        Reconfigure {
            voters: list(voters),
            learners: list(learners),
            removed: list(removed),
            ..Reconfigure::default()
        }
    }

    fn founded(voters: &[u64]) -> Membership {
        Membership::founded_by(&Config::new(NodeId(1), set(voters).into_iter().collect()))
    }

    /// The membership after a change, without the joint configuration that raft puts in between.
    fn changed(membership: &Membership, change: &Change) -> Membership {
        let now = &change.now;
        assert!(membership.allows(now), "{now:?}");
        let named = |id: &NodeId| {
            now.voters.contains(id) || now.learners.contains(id) || now.removed.contains(id)
        };
        let left = |ids: &BTreeSet<NodeId>, more: &[NodeId]| {
            let stay = ids.iter().filter(|id| !named(id));
            stay.chain(more).map(|id| id.0).collect::<Vec<u64>>()
        };
        let state = ConfState {
            voters: left(membership.voters(), &now.voters),
            learners: left(membership.learners(), &now.learners),
            ..ConfState::default()
        };
        let changed = membership.changed(&state, change);
        assert!(changed.is_sound(), "{changed:?}");
        changed
    }

    fn promise(membership: &Membership, change: &Reconfigure) -> Membership {
        assert!(membership.allows(change) && membership.keeps_roles(change));
        changed(membership, &Change::promising(change, membership))
    }

    fn keep(membership: &Membership, number: usize) -> Membership {
        let change = membership.promises()[number].kept_by();
        assert!(membership.keeps_promises(&change));
        changed(membership, &change.into())
    }

    #[test]
    fn promise_replacement_keeps_the_old_voter_until_the_new_one_votes() {
        let three = founded(&[1, 2, 3]);
        let open = promise(&three, &request(&[4], &[], &[1]));
        assert_eq!(open.voters(), &set(&[1, 2, 3]));
        assert_eq!(open.learners(), &set(&[4]));
        assert!(open.is_promised(NodeId(4)) && !open.is_promised(NodeId(1)));
        assert!(open.promises()[0].unseats(NodeId(1)));
        assert_ne!(open.digest(), three.digest());
        assert_ne!(open.digest(), open.clone().with_promises(Vec::new()).digest());
        let kept = keep(&open, 0);
        assert_eq!(kept.voters(), &set(&[2, 3, 4]));
        assert!(kept.has_left(NodeId(1)) && kept.promises().is_empty());
    }

    #[test]
    fn promise_leaves_out_what_takes_no_vote() {
        let mut config = Config::new(NodeId(1), set(&[1, 2, 3]).into_iter().collect());
        config.founding_learners = vec![NodeId(4), NodeId(5)];
        let five = Membership::founded_by(&config);
        let open = promise(&five, &request(&[5, 6], &[2, 7], &[3, 4]));
        assert_eq!(open.voters(), &set(&[1, 2, 3]));
        assert_eq!(open.learners(), &set(&[5, 6, 7]));
        assert!(open.has_left(NodeId(4)) && !open.is_promised(NodeId(7)));
        let kept = keep(&open, 0);
        assert_eq!(kept.voters(), &set(&[1, 5, 6]));
        assert_eq!(kept.learners(), &set(&[2, 7]));
    }

    #[test]
    fn promise_travels_with_its_entry_and_older_versions_read_the_rest() {
        let mut change = request(&[4], &[], &[1]);
        change.addresses.insert(NodeId(4), "http://four".to_owned());
        for asked in [change, request(&[4, 5], &[2, 6], &[3])] {
            let change = Change::promising(&asked, &founded(&[1, 2, 3]));
            let raft = to_raft(&change);
            let bytes = protobuf::Message::write_to_bytes(&raft).unwrap();
            assert_eq!(decode(&bytes).as_ref().map(from_raft), Some(change.clone()));
            assert_eq!(membership_change(&bytes), Some(asked));
            // As they read it.
            let addresses = postcard::from_bytes(&raft.context).unwrap();
            assert_eq!(change.now.addresses, addresses);
        }
    }

    #[test]
    fn promise_is_cancelled_by_the_removal_or_demotion_of_its_voter() {
        let open = promise(&founded(&[1, 2, 3]), &request(&[4], &[], &[1]));
        for change in [request(&[], &[], &[4]), request(&[], &[4], &[])] {
            assert!(open.keeps_promises(&change));
            let cancelled = changed(&open, &change.into());
            assert!(cancelled.promises().is_empty());
            assert_eq!(cancelled.voters(), &set(&[1, 2, 3]));
        }
    }

    #[test]
    fn promise_repeated_is_made_once() {
        let open = promise(&founded(&[1, 2, 3]), &request(&[4], &[], &[1]));
        for again in [request(&[4], &[], &[1]), request(&[4], &[], &[])] {
            assert_eq!(promise(&open, &again), open, "{again:?}");
        }
        // More than before takes its place; another one stands beside it.
        let more = promise(&open, &request(&[4], &[], &[1, 2]));
        assert_eq!(more.promises().len(), 1);
        assert_eq!(keep(&more, 0).voters(), &set(&[3, 4]));
        let other = promise(&open, &request(&[5], &[], &[]));
        assert_eq!(other.promises().len(), 2);
        assert_eq!(keep(&keep(&other, 1), 0).voters(), &set(&[2, 3, 4, 5]));
    }

    #[test]
    fn promise_gives_way_to_a_later_change() {
        let open = promise(&founded(&[1, 2, 3]), &request(&[4], &[], &[1]));
        // Removed by itself, it is not removed again.
        let removed = changed(&open, &request(&[], &[], &[1]).into());
        assert_eq!(removed.promises()[0].kept_by(), request(&[4], &[], &[]));
        // The new voter has its vote early, and the old one still has to go.
        let promoted = changed(&open, &request(&[4], &[], &[]).into());
        assert!(!promoted.is_promised(NodeId(4)));
        assert_eq!(keep(&promoted, 0).voters(), &set(&[2, 3, 4]));
        // A promise to remove a member ends an earlier one to promote it.
        let later = promise(&promoted, &request(&[5], &[], &[4]));
        assert_eq!(later.promises().len(), 1);
        assert_eq!(keep(&later, 0).voters(), &set(&[1, 2, 3, 5]));
    }

    #[test]
    fn promise_needs_a_voter_that_stays() {
        let open = promise(&founded(&[1, 2]), &request(&[4], &[], &[1]));
        assert!(!open.keeps_promises(&request(&[], &[], &[2])), "no voter would stay with it");
        assert!(open.keeps_promises(&request(&[], &[], &[1])));
        let both = promise(&open, &request(&[5], &[], &[2]));
        assert_eq!(keep(&keep(&both, 0), 0).voters(), &set(&[4, 5]));
        assert_eq!(keep(&keep(&both, 1), 0).voters(), &set(&[4, 5]));
    }

    #[test]
    fn promise_keeps_the_role_of_its_voter() {
        let open = promise(&founded(&[1, 2, 3]), &request(&[4], &[], &[]));
        let at = |mut change: Reconfigure| {
            change.addresses.insert(NodeId(4), "http://new".to_owned());
            change
        };
        let moved = promise(&open, &at(request(&[4], &[], &[])));
        assert_eq!(moved.promises(), open.promises());
        assert_eq!(moved.addresses()[&NodeId(4)], "http://new");
        assert!(!open.keeps_roles(&at(request(&[], &[4], &[]))));
    }
}
