//! The fault atlas: who holds damage, and how much of it the cluster can still repair.
//!
//! A member with damaged files counts as failed, from the moment at which they are damaged until it
//! has looked at them and holds again all that it once held. Damage is allowed as long as, in every
//! membership in force anywhere, those without damage form a quorum: among them is everything that
//! was ever committed, and they can elect somebody who gives it back. A sole voter is never damaged.
//!
//! A change of the membership could take away the quorum that damage has counted on. So there is no
//! damage while a change is under way, and the operator removes nobody while there is damage, which
//! is what a careful one does.
//!
//! Only what is vouched for is ever damaged (see [`stormkv::wal::vouched`]): damage to the end of a
//! log looks just like a torn tail, and no log whatsoever can tell the two apart.

use std::collections::{BTreeMap, BTreeSet};

use stormkv::node::Membership;
use stormkv::types::NodeId;

/// The damage of one member.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// What has hit it, by the names of the faults.
    pub kinds: BTreeSet<&'static str>,
    /// It was damaged after it last looked.
    pub fresh: bool,
    /// It has noticed, and says that it is not whole.
    pub noticed: bool,
    /// What it noticed was in a snapshot, not in the log.
    pub in_snapshot: bool,
    /// It was found whole at its last start, by what may only have been cached.
    pub cached: bool,
    /// It has stopped because nobody repaired it, or refused to start.
    pub stopped: bool,
}

/// Who holds damage. See the module.
#[derive(Debug, Default)]
pub(super) struct Atlas {
    marks: BTreeMap<NodeId, Mark>,
    /// More was damaged than a quorum can repair.
    exceeded: bool,
}

impl Atlas {
    /// Whether all these memberships keep a quorum if `id` is damaged, too. `failed` names others
    /// who will never give anything back, because they were wiped or removed.
    pub fn allows<'a>(
        &self,
        id: NodeId,
        mut memberships: impl Iterator<Item = &'a Membership>,
        failed: impl Fn(NodeId) -> bool,
    ) -> bool {
        let intact = |peer| peer != id && !self.is_damaged(peer) && !failed(peer);
        memberships.all(|membership| {
            let voters = !membership.voters().is_empty();
            !voters || membership.is_quorum(intact)
        })
    }

    /// `id` was damaged by a fault of this name.
    pub fn damaged(&mut self, id: NodeId, kind: &'static str, within: bool) {
        let mark = self.marks.entry(id).or_default();
        mark.fresh = true;
        mark.kinds.insert(kind);
        self.exceeded |= !within;
    }

    /// Whether `id` holds damage.
    pub fn is_damaged(&self, id: NodeId) -> bool {
        self.marks.contains_key(&id)
    }

    /// Whether anybody does.
    pub fn is_blank(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether anybody, but for those that have `left`, has noticed damage and is not whole yet.
    pub fn is_repairing(&self, left: impl Fn(NodeId) -> bool) -> bool {
        self.marks.iter().any(|(id, mark)| mark.noticed && !left(*id))
    }

    /// Whether more was damaged than a quorum can repair.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    pub fn mark(&mut self, id: NodeId) -> Option<&mut Mark> {
        self.marks.get_mut(&id)
    }

    pub fn marks(&self) -> impl Iterator<Item = (NodeId, &Mark)> {
        self.marks.iter().map(|(id, mark)| (*id, mark))
    }

    /// `id` is whole again, or gone for good. Returns what its damage was.
    pub fn whole(&mut self, id: NodeId) -> Option<Mark> {
        self.marks.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkv::config::Config;
    use stormkv::driver::Driver;
    use stormkv::kv::Kv;

    use crate::disk::SimDisk;
    use crate::port::{Port, Watch};

    struct Nobody;

    impl Watch for Nobody {
        fn applied(&mut self, _: stormkv::node::Applied) {}
        fn queued(&mut self, _: &[stormkv::env::DiskOp]) {}
    }

    /// The membership of a cluster founded by this many.
    fn founded(voters: u64) -> Membership {
        let config = Config::new(NodeId(1), (1..=voters).map(NodeId).collect());
        let (mut disk, mut effects) = (SimDisk::new(1, 1), Vec::new());
        let mut port = Port { now_ns: 0, disk: &mut disk, effects: &mut effects, watch: Nobody };
        let driver = Driver::<Kv>::start(config, &mut port).expect("an empty disk");
        driver.node().membership().clone()
    }

    #[test]
    fn damage_stays_within_a_minority_of_every_membership() {
        let memberships = [founded(5), founded(3)];
        let mut atlas = Atlas::default();
        let allows = |atlas: &Atlas, id| atlas.allows(NodeId(id), memberships.iter(), |_| false);
        assert!(allows(&atlas, 1));
        atlas.damaged(NodeId(1), "rot", true);
        assert!(!allows(&atlas, 2), "two of the three");
        assert!(allows(&atlas, 4), "two of the five");
        assert!(allows(&atlas, 1), "it is damaged anyway");
        atlas.damaged(NodeId(4), "rot", true);
        assert!(!allows(&atlas, 5), "three of the five");
        atlas.whole(NodeId(1));
        assert!(allows(&atlas, 2));
        assert!(!atlas.is_exceeded());
    }

    #[test]
    fn the_sole_voter_is_never_damaged_and_the_failed_count() {
        let atlas = Atlas::default();
        assert!(!atlas.allows(NodeId(1), [founded(1)].iter(), |_| false));
        let three = [founded(3)];
        assert!(!atlas.allows(NodeId(1), three.iter(), |id| id == NodeId(2)));
        assert!(atlas.allows(NodeId(4), three.iter(), |_| false), "it has no vote");
    }
}
