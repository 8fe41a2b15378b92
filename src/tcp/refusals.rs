//! The peers that refuse this node because they know it by another data directory.
//!
//! Such a peer is right if the node has lost its disk: what it promised is in the other directory, and it
//! must not take part with this one. But a peer may also be wrong, for example because it was restored from
//! an old backup of its disk. So a single one does not end the node: it ends when those who are left are no
//! quorum, because then it can do nothing any more with this directory. Until then it is refused by the one
//! and served by the others.
//!
//! A refusal counts for a while only. Links are dialled again and again, so a peer that still refuses says so
//! soon.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::Membership;
use crate::types::NodeId;

/// For which a refusal counts. Links are dialled again every second, more or less.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// When each peer has refused this node last, in time since the node's start. Peers are members or were
/// given in the settings, which bounds it.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    at: BTreeMap<NodeId, Duration>,
}

impl Refusals {
    /// Records that `peer` refuses this node. Returns whether that is news.
    pub(super) fn record(&mut self, peer: NodeId, now: Duration) -> bool {
        self.at.retain(|_, at| now < *at + COUNTS_FOR);
        self.at.insert(peer, now).is_none()
    }

    /// Returns those who refuse the node, if the others are no quorum. A node that joins has no `membership`
    /// yet, and asks the members at the `initial` addresses.
    pub(super) fn outnumber(
        &self,
        me: NodeId,
        membership: &Membership,
        initial: &BTreeMap<NodeId, String>,
    ) -> Option<Vec<NodeId>> {
        let accepts = |id: NodeId| !self.at.contains_key(&id);
        let can_take_part = if membership.voters().is_empty() {
            let others = || initial.keys().filter(|id| **id != me);
            others().filter(|id| accepts(**id)).count() > others().count() / 2
        } else {
            membership.is_quorum(accepts)
        };
        (!can_take_part).then(|| self.at.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const ME: NodeId = NodeId(1);

    fn refused_by(peers: &[u64]) -> Refusals {
        let mut refusals = Refusals::default();
        for peer in peers {
            assert!(refusals.record(NodeId(*peer), Duration::ZERO));
        }
        refusals
    }

    #[test]
    fn one_of_two_others_does_not_end_a_node() {
        let three = Membership::founded_by(&Config::new(ME, vec![ME, NodeId(2), NodeId(3)]));
        let none = BTreeMap::new();
        assert_eq!(refused_by(&[2]).outnumber(ME, &three, &none), None);
        let both = vec![NodeId(2), NodeId(3)];
        assert_eq!(refused_by(&[2, 3]).outnumber(ME, &three, &none), Some(both));
        // Without the other of two there is no quorum.
        let two = Membership::founded_by(&Config::new(ME, vec![ME, NodeId(2)]));
        assert_eq!(refused_by(&[2]).outnumber(ME, &two, &none), Some(vec![NodeId(2)]));
    }

    #[test]
    fn a_joining_node_asks_the_members_of_its_settings() {
        let initial = (1..=4).map(|id| (NodeId(id), String::new())).collect();
        let (me, nobody) = (NodeId(4), Membership::default());
        assert_eq!(refused_by(&[1]).outnumber(me, &nobody, &initial), None);
        assert!(refused_by(&[1, 3]).outnumber(me, &nobody, &initial).is_some());
    }

    #[test]
    fn a_refusal_that_is_not_repeated_is_forgotten() {
        let mut refusals = refused_by(&[2]);
        assert!(!refusals.record(NodeId(2), COUNTS_FOR / 2), "known");
        assert!(refusals.record(NodeId(3), COUNTS_FOR * 2));
        let three = Membership::founded_by(&Config::new(ME, vec![ME, NodeId(2), NodeId(3)]));
        assert_eq!(refusals.outnumber(ME, &three, &BTreeMap::new()), None);
    }
}
