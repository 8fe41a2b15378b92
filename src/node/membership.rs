//! Who belongs to the cluster, and how that changes.
//!
//! A change is an entry of the log like any other and takes effect when it is applied. More than
//! one change at once goes through joint consensus, which raft leaves by itself. The ids of removed
//! members are remembered, in the snapshot too, and refused for ever: an id that comes back with an
//! empty disk would break promises that its former self gave.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};

use super::promise::{self, Change, Promise};
use crate::api::{MAX_ADDRESS, Reconfigure};
use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::digest::Digest;
use crate::types::{Entry, EntryKind, NodeId};

/// The membership of a cluster at one index of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    voters: BTreeSet<NodeId>,
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    learners_next: BTreeSet<NodeId>,
    auto_leave: bool,
    removed: BTreeSet<NodeId>,
    /// Only of members; those of removed ones are forgotten. Stands apart in a snapshot, whose
    /// format is older.
    #[serde(skip)]
    addresses: BTreeMap<NodeId, String>,
    /// Oldest first. They stand apart in a snapshot for the same reason.
    #[serde(skip)]
    promises: Vec<Promise>,
}

impl Membership {
    pub(crate) fn founded_by(config: &Config) -> Self {
        let mut membership = Membership {
            voters: config.founders.iter().copied().collect(),
            learners: config.founding_learners.iter().copied().collect(),
            ..Membership::default()
        };
        membership.learn_addresses(config.addresses.clone());
        membership
    }

    /// Where the members can be reached, as far as they were added with an address.
    pub fn addresses(&self) -> &BTreeMap<NodeId, String> {
        &self.addresses
    }

    /// Forgets all addresses, for a bug that does.
    pub(crate) fn forget_addresses(&mut self) {
        self.addresses.clear();
    }

    pub(crate) fn learn_addresses(&mut self, addresses: BTreeMap<NodeId, String>) {
        self.addresses.extend(addresses);
        let mut all = std::mem::take(&mut self.addresses);
        all.retain(|id, _| self.contains(*id));
        self.addresses = all;
    }

    /// Changes that wait for their new voters, oldest first.
    pub fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// Returns whether `id` is a learner that becomes a voter as soon as it has caught up.
    pub fn is_promised(&self, id: NodeId) -> bool {
        let promises = || self.promises.iter().any(|promise| promise.voters().contains(&id));
        !self.votes(id) && promises()
    }

    /// Takes over the promises of a snapshot.
    pub(crate) fn with_promises(self, promises: Vec<Promise>) -> Self {
        Membership { promises, ..self }
    }

    /// The voters; in a joint configuration, those of the incoming half.
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// The voters of the outgoing half of a joint configuration; otherwise empty.
    pub fn outgoing(&self) -> &BTreeSet<NodeId> {
        &self.outgoing
    }

    /// The members that receive the log but do not vote.
    pub fn learners(&self) -> &BTreeSet<NodeId> {
        &self.learners
    }

    /// The members that left. Their ids are never used again.
    pub fn removed(&self) -> &BTreeSet<NodeId> {
        &self.removed
    }

    /// Whether a change of several members is halfway done.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` has a vote; in a joint configuration, in either half.
    pub fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` takes part in any role.
    pub fn contains(&self, id: NodeId) -> bool {
        self.votes(id) || self.learners.contains(&id)
    }

    /// Whether `id` has left for good: removed, and no longer needed by a joint configuration.
    pub fn has_left(&self, id: NodeId) -> bool {
        self.removed.contains(&id) && !self.contains(id)
    }

    /// Whether the `acks` are a quorum: a majority of the voters, of both halves if joint.
    pub fn is_quorum(&self, acks: impl Fn(NodeId) -> bool) -> bool {
        let majority = |half: &BTreeSet<NodeId>| {
            half.is_empty() || half.iter().filter(|id| acks(**id)).count() > half.len() / 2
        };
        majority(&self.voters) && majority(&self.outgoing)
    }

    /// Returns the change that moves `id`, a member, to another address, and leaves it in its role.
    pub fn relocation(&self, id: NodeId, address: String) -> Reconfigure {
        let addresses = BTreeMap::from([(id, address)]);
        let mut change = Reconfigure { addresses, ..Reconfigure::default() };
        let learns = self.learners.contains(&id) && !self.is_promised(id);
        if learns { &mut change.learners } else { &mut change.voters }.push(id);
        change
    }

    /// Returns whether there is no other member, in whatever role.
    pub fn is_only_member(&self, id: NodeId) -> bool {
        self.contains(id) && self.voters.len() + self.outgoing.len() + self.learners.len() == 1
    }

    /// Whether there can be such a membership at all; raft panics on others.
    pub(crate) fn is_sound(&self) -> bool {
        let [voters, outgoing, learners] = [&self.voters, &self.outgoing, &self.learners];
        let sets = [voters, outgoing, learners, &self.learners_next, &self.removed];
        let learns_later = |id: &NodeId| outgoing.contains(id) && !voters.contains(id);
        !voters.is_empty()
            && !sets.iter().any(|set| set.contains(&NodeId(0)))
            && learners.is_disjoint(voters)
            && learners.is_disjoint(outgoing)
            && self.learners_next.iter().all(learns_later)
            && (self.is_joint() || !self.auto_leave)
            && self.removed.is_disjoint(voters)
            && self.removed.is_disjoint(learners)
            && self.removed.is_disjoint(&self.learners_next)
            && self.promises.iter().all(|promise| promise.is_sound(self))
    }

    /// A hash of everything above.
    pub fn digest(&self) -> u64 {
        let halves = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        let mut digest = u64::from(self.auto_leave);
        for set in halves.into_iter().chain([&self.removed]) {
            for id in set {
                digest = (digest ^ id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
            digest = digest.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ 0x51;
        }
        for (id, address) in &self.addresses {
            digest = Digest::new(digest).u64(id.0).bytes(address.as_bytes()).finish();
        }
        for promise in &self.promises {
            let bytes = postcard::to_stdvec(promise).expect("writing to memory cannot fail");
            digest = Digest::new(digest).bytes(&bytes).finish();
        }
        digest
    }

    /// Whether `change` may be made to this membership. A present voter must stay: those who leave
    /// stop, and nobody else could finish the change.
    pub(crate) fn allows(&self, change: &Reconfigure) -> bool {
        let added: BTreeSet<_> = change.voters.iter().chain(&change.learners).copied().collect();
        let removed: BTreeSet<_> = change.removed.iter().copied().collect();
        let named = change.voters.len() + change.learners.len() + change.removed.len();
        let addressable =
            |id: &NodeId| (added.contains(id) || self.contains(*id)) && !removed.contains(id);
        let distinct = added.union(&removed).count() == named;
        let voters_stay =
            self.voters.iter().any(|id| !removed.contains(id) && !change.learners.contains(id));
        named > 0
            && distinct
            && !added.contains(&NodeId(0))
            && (added.is_disjoint(&self.removed) || planted(Bug::IdsReused))
            && removed.iter().all(|id| self.contains(*id))
            && voters_stay
            && change.addresses.keys().all(addressable)
            && change.addresses.values().all(|address| address.len() <= MAX_ADDRESS)
    }

    /// Whether `change` leaves each present member that it gives an address in its role. An address
    /// comes with a member that is added or moved, and whoever asks for that may not know of a role
    /// that has changed meanwhile; a promotion or demotion is asked for by name, without an address.
    /// Not part of [`allows`](Self::allows), which decides about entries of the log, too.
    pub(crate) fn keeps_roles(&self, change: &Reconfigure) -> bool {
        let moved = |id: &&NodeId| change.addresses.contains_key(*id) && self.contains(**id);
        let is_voter = |id: &NodeId| self.votes(*id) || self.is_promised(*id);
        change.voters.iter().filter(moved).all(is_voter)
            && !change.learners.iter().filter(moved).any(is_voter)
    }

    /// Returns whether no member gets the address that another one has: the others would take one for the
    /// other. Not part of [`allows`](Self::allows) either.
    pub(crate) fn keeps_addresses_apart(&self, change: &Reconfigure) -> bool {
        let stays =
            |id: &NodeId| !change.removed.contains(id) && !change.addresses.contains_key(id);
        let kept = self.addresses.iter().filter(|(id, _)| stays(id)).map(|(_, address)| address);
        let mut taken: BTreeSet<&String> = kept.collect();
        change.addresses.values().all(|address| taken.insert(address))
    }

    /// Returns whether each promise can still be kept after `change`: a voter must stay for it, as for any
    /// change. A promised voter that has its vote by then is one.
    /// Not part of [`allows`](Self::allows) either: members of older versions know of no promises,
    /// and must come to the same decision about each entry.
    pub(crate) fn keeps_promises(&self, change: &Reconfigure) -> bool {
        let goes = |id: &NodeId| change.removed.contains(id) || change.learners.contains(id);
        let mut open = self.promises.iter().filter(|promise| !promise.voters().iter().any(goes));
        open.all(|promise| {
            let mut voters = self.voters.iter().chain(&change.voters);
            voters.any(|id| !goes(id) && !promise.unseats(*id))
        })
    }

    /// The voters after `change`, when a joint configuration on the way is left.
    fn voters_after(&self, change: &Reconfigure) -> BTreeSet<NodeId> {
        let stays = |id: &&NodeId| !change.removed.contains(id) && !change.learners.contains(id);
        self.voters.iter().filter(stays).chain(&change.voters).copied().collect()
    }

    /// Returns whether a quorum of the voters after `change` is active. A change that leaves the
    /// voters as they are puts nothing at risk.
    /// Not part of [`allows`](Self::allows) either: only the leader knows who is active.
    pub(crate) fn keeps_quorum(
        &self,
        change: &Reconfigure,
        is_active: impl Fn(NodeId) -> bool,
    ) -> bool {
        let after = self.voters_after(change);
        let active = after.iter().filter(|id| is_active(**id)).count();
        after == self.voters || active > after.len() / 2
    }

    /// The membership after raft made `state` of it; `change` says who was removed, and what is
    /// promised.
    pub(crate) fn changed(&self, state: &ConfState, change: &Change) -> Self {
        let now = &change.now;
        let set = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        let mut removed = self.removed.clone();
        removed.extend(&now.removed);
        if planted(Bug::IdsReused) {
            removed.retain(|id| !now.voters.contains(id) && !now.learners.contains(id));
        }
        let mut membership = Membership {
            voters: set(&state.voters),
            outgoing: set(&state.voters_outgoing),
            learners: set(&state.learners),
            learners_next: set(&state.learners_next),
            auto_leave: state.auto_leave,
            removed,
            addresses: self.addresses.clone(),
            promises: Vec::new(),
        };
        membership.learn_addresses(now.addresses.clone());
        membership.promises = promise::after(&self.promises, change, &membership);
        membership
    }

    /// The same in raft's words. The sets are sorted, so equal memberships give equal bytes.
    pub(crate) fn to_raft(&self) -> ConfState {
        let list = |set: &BTreeSet<NodeId>| set.iter().map(|id| id.0).collect();
        ConfState {
            voters: list(&self.voters),
            voters_outgoing: list(&self.outgoing),
            learners: list(&self.learners),
            learners_next: list(&self.learners_next),
            auto_leave: self.auto_leave,
            ..ConfState::default()
        }
    }
}

/// A change in raft's words. What raft does not know stands in the context: the addresses, and
/// behind them the promise. Members of a version that knows no promises read the addresses only, and
/// add mere learners: the change is the same to them, but they forget what was promised.
pub(crate) fn to_raft(change: &Change) -> ConfChangeV2 {
    let Change { now, promise } = change;
    let mut raft = ConfChangeV2::default();
    let groups = [
        (ConfChangeType::AddNode, &now.voters),
        (ConfChangeType::AddLearnerNode, &now.learners),
        (ConfChangeType::RemoveNode, &now.removed),
    ];
    for (kind, ids) in groups {
        for id in ids {
            let mut single = ConfChangeSingle { node_id: id.0, ..Default::default() };
            single.set_change_type(kind);
            raft.changes.push(single);
        }
    }
    let context = match promise {
        Some(promise) => postcard::to_stdvec(&(&now.addresses, promise)),
        None if now.addresses.is_empty() => return raft,
        None => postcard::to_stdvec(&now.addresses),
    };
    raft.context = Bytes::from(context.expect("writing to memory cannot fail"));
    raft
}

/// The membership after these entries as [`Bug::MembershipWithoutApplied`] has it: changes of several
/// members at once are not counted.
pub(crate) fn after<'a>(
    membership: &Membership,
    entries: impl Iterator<Item = &'a Entry>,
) -> ConfState {
    let mut state = membership.to_raft();
    let changes = entries.filter(|entry| entry.kind == EntryKind::Membership);
    for change in changes.filter_map(|entry| decode(&entry.data)) {
        if let [single] = change.changes.as_slice() {
            state.voters.retain(|id| *id != single.node_id);
            state.learners.retain(|id| *id != single.node_id);
            match single.get_change_type() {
                ConfChangeType::AddNode => state.voters.push(single.node_id),
                ConfChangeType::AddLearnerNode => state.learners.push(single.node_id),
                ConfChangeType::RemoveNode => {}
            }
        }
    }
    state
}

/// The change in the data of a membership entry; `None` if there is none.
pub(crate) fn decode(data: &[u8]) -> Option<ConfChangeV2> {
    let mut change = ConfChangeV2::default();
    protobuf::Message::merge_from_bytes(&mut change, data).ok()?;
    context(&change)?;
    Some(change)
}

/// The addresses and the promise that come with a change; `None` for bytes that are none.
fn context(change: &ConfChangeV2) -> Option<(BTreeMap<NodeId, String>, Option<Promise>)> {
    if change.context.is_empty() {
        return Some((BTreeMap::new(), None));
    }
    let (addresses, rest) = postcard::take_from_bytes(&change.context).ok()?;
    if rest.is_empty() {
        return Some((addresses, None));
    }
    let (promise, rest) = postcard::take_from_bytes(rest).ok()?;
    rest.is_empty().then_some((addresses, Some(promise)))
}

/// Reads the change that was asked for out of the data of a membership entry, with what it only
/// promises and with each list sorted; `None` for data that is none. An empty change leaves a joint
/// configuration.
#[must_use]
pub fn membership_change(data: &[u8]) -> Option<Reconfigure> {
    decode(data).map(|change| from_raft(&change).asked())
}

/// Reads the part of a change that takes effect when its entry is applied, without what it only
/// promises; `None` for data that is no membership entry.
#[must_use]
pub fn membership_step(data: &[u8]) -> Option<Reconfigure> {
    decode(data).map(|change| from_raft(&change).now)
}

/// Raft's change in our words. An empty one leaves a joint configuration.
pub(crate) fn from_raft(raft: &ConfChangeV2) -> Change {
    let (addresses, promise) = context(raft).expect("checked when it was decoded");
    let mut now = Reconfigure { addresses, ..Reconfigure::default() };
    for single in &raft.changes {
        let id = NodeId(single.node_id);
        match single.get_change_type() {
            ConfChangeType::AddNode => now.voters.push(id),
            ConfChangeType::AddLearnerNode => now.learners.push(id),
            ConfChangeType::RemoveNode => now.removed.push(id),
        }
    }
    Change { now, promise }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn founded_by(voters: &[u64]) -> Membership {
        Membership::founded_by(&Config::new(NodeId(1), ids(voters)))
    }

    #[test]
    fn a_joint_quorum_needs_both_halves() {
        let mut membership = founded_by(&[1, 2, 3]);
        membership.outgoing = ids(&[3, 4, 5]).into_iter().collect();
        let acked = |acks: &'static [u64]| move |id: NodeId| acks.contains(&id.0);
        assert!(!membership.is_quorum(acked(&[1, 2, 3])));
        assert!(membership.is_quorum(acked(&[1, 3, 4])));
    }

    #[test]
    fn a_removed_id_never_comes_back() {
        let membership = founded_by(&[1, 2, 3]);
        let remove = Reconfigure { removed: ids(&[3]), ..Default::default() };
        assert!(membership.allows(&remove));
        let mut state = membership.to_raft();
        state.voters = vec![1, 2];
        let membership = membership.changed(&state, &remove.into());
        assert!(membership.has_left(NodeId(3)));
        let again = Reconfigure { voters: ids(&[3]), ..Default::default() };
        assert!(!membership.allows(&again));
    }

    #[test]
    fn two_members_never_have_the_same_address() {
        let mut membership = founded_by(&[1, 2]);
        let url = |id: u64| (NodeId(id), format!("http://host:{id}"));
        membership.learn_addresses([url(1), url(2)].into());
        let at = |id: u64, address: u64, removed: &[u64]| Reconfigure {
            voters: ids(&[id]),
            removed: ids(removed),
            addresses: [(NodeId(id), url(address).1)].into(),
            ..Reconfigure::default()
        };
        assert!(membership.keeps_addresses_apart(&at(3, 3, &[])));
        assert!(!membership.keeps_addresses_apart(&at(3, 2, &[])));
        assert!(!membership.keeps_addresses_apart(&at(1, 2, &[])));
        assert!(membership.keeps_addresses_apart(&at(1, 1, &[])), "its own");
        assert!(membership.keeps_addresses_apart(&at(3, 2, &[2])), "the other one leaves");
        // Two that change places.
        let swap = Reconfigure {
            voters: ids(&[1, 2]),
            addresses: [(NodeId(1), url(2).1), (NodeId(2), url(1).1)].into(),
            ..Reconfigure::default()
        };
        assert!(membership.keeps_addresses_apart(&swap));
    }

    #[test]
    fn the_last_voter_stays() {
        let membership = founded_by(&[1]);
        let change = |voters: &[u64], learners: &[u64], removed: &[u64]| Reconfigure {
            voters: ids(voters),
            learners: ids(learners),
            removed: ids(removed),
            ..Default::default()
        };
        assert!(!membership.allows(&change(&[], &[], &[1])));
        assert!(!membership.allows(&change(&[], &[1], &[])));
        assert!(!membership.allows(&change(&[2], &[], &[1])), "first add, then remove");
        assert!(membership.allows(&change(&[2], &[], &[])));
        assert!(!membership.allows(&change(&[2], &[2], &[])), "named twice");
        assert!(!membership.allows(&change(&[], &[], &[])), "nothing to do");
    }

    #[test]
    fn an_address_travels_with_the_change_and_goes_with_its_member() {
        let membership = founded_by(&[1, 2, 3]);
        let at = |id: u64, address: &str| [(NodeId(id), address.to_owned())].into_iter().collect();
        let add = Reconfigure {
            voters: ids(&[4]),
            addresses: at(4, "http://four"),
            ..Default::default()
        };
        assert!(membership.allows(&add));
        let add = Change::from(add);
        let bytes = protobuf::Message::write_to_bytes(&to_raft(&add)).unwrap();
        assert_eq!(decode(&bytes).as_ref().map(from_raft), Some(add.clone()));
        let mut state = membership.to_raft();
        state.voters.push(4);
        let four = membership.changed(&state, &add);
        assert_eq!(four.addresses(), &at(4, "http://four"));
        assert_ne!(four.digest(), membership.changed(&state, &Change::default()).digest());

        let remove = Reconfigure { removed: ids(&[4]), ..Default::default() };
        assert!(four.changed(&membership.to_raft(), &remove.into()).addresses().is_empty());
        let stranger = Reconfigure { addresses: at(9, "http://nine"), ..add.now };
        assert!(!membership.allows(&stranger), "an address of nobody");
    }

    #[test]
    fn an_address_comes_with_the_role_that_the_member_has() {
        let mut membership = founded_by(&[1, 2, 3]);
        membership.learners.insert(NodeId(4));
        let change = |voters: &[u64], learners: &[u64], moved: &[u64]| Reconfigure {
            voters: ids(voters),
            learners: ids(learners),
            addresses: moved.iter().map(|id| (NodeId(*id), "http://new".to_owned())).collect(),
            ..Default::default()
        };
        for (change, keeps) in [
            (change(&[3], &[], &[3]), true),
            (change(&[], &[4], &[4]), true),
            (change(&[5], &[6], &[5, 6]), true),
            (change(&[], &[3], &[3]), false),
            (change(&[4], &[], &[4]), false),
            // By name, and not as a side effect.
            (change(&[4], &[3], &[]), true),
        ] {
            assert!(membership.allows(&change), "{change:?}");
            assert_eq!(membership.keeps_roles(&change), keeps, "{change:?}");
        }
    }

    #[test]
    fn a_change_with_a_damaged_address_is_none() {
        let add = Reconfigure { voters: ids(&[4]), ..Default::default() };
        let mut raft = to_raft(&add.into());
        // An address that ends early, a promise that does, and bytes behind one.
        for context in [&[1, 4, 200][..], &[0, 1, 4], &[0, 1, 4, 0, 0, 9]] {
            raft.context = Bytes::copy_from_slice(context);
            assert_eq!(decode(&protobuf::Message::write_to_bytes(&raft).unwrap()), None);
        }
    }

    #[test]
    fn an_impossible_membership_is_not_sound() {
        let good = founded_by(&[1, 2, 3]);
        assert!(good.is_sound());
        let broken: [fn(&mut Membership); 7] = [
            |membership| membership.voters.clear(),
            |membership| assert!(membership.outgoing.insert(NodeId(0))),
            |membership| assert!(membership.learners.insert(NodeId(2))),
            |membership| assert!(membership.learners_next.insert(NodeId(4))),
            |membership| assert!(membership.removed.insert(NodeId(3))),
            |membership| membership.auto_leave = true,
            |membership| membership.promises.push(Promise::default()),
        ];
        for (number, break_it) in broken.into_iter().enumerate() {
            let mut membership = good.clone();
            break_it(&mut membership);
            assert!(!membership.is_sound(), "{number}");
        }
        let mut joint = good;
        joint.outgoing = ids(&[1, 4]).into_iter().collect();
        joint.learners_next.insert(NodeId(4));
        joint.auto_leave = true;
        assert!(joint.is_sound());
    }
}
