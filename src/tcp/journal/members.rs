//! Memberships in words.

use std::collections::BTreeSet;

use crate::node::Membership;
use crate::types::NodeId;

fn all(membership: &Membership) -> BTreeSet<NodeId> {
    let voters = membership.voters().union(membership.outgoing()).copied();
    voters.chain(membership.learners().iter().copied()).collect()
}

fn role(membership: &Membership, id: NodeId) -> &'static str {
    if membership.voters().contains(&id) {
        "voter"
    } else if membership.outgoing().contains(&id) {
        "outgoing voter"
    } else if membership.is_promised(id) {
        "learner that becomes a voter"
    } else {
        "learner"
    }
}

fn url(membership: &Membership, id: NodeId) -> &str {
    membership.addresses().get(&id).map_or("unknown", String::as_str)
}

/// All members, with their roles and addresses.
pub(super) fn list(membership: &Membership) -> String {
    let one = |id: &NodeId| format!("{id} {} {}", role(membership, *id), url(membership, *id));
    all(membership).iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the second membership has that the first one has not; empty if that is nothing.
pub(super) fn difference(before: &Membership, after: &Membership) -> String {
    let (old, new) = (all(before), all(after));
    let mut changes = Vec::new();
    for id in new.difference(&old) {
        changes.push(format!("{id} added as {} at {}", role(after, *id), url(after, *id)));
    }
    for id in old.intersection(&new) {
        let (was, is) = (role(before, *id), role(after, *id));
        if was != is {
            changes.push(format!("{id} is now {is}, was {was}"));
        }
        if url(before, *id) != url(after, *id) {
            changes.push(format!("{id} is now at {}", url(after, *id)));
        }
    }
    for id in old.difference(&new) {
        changes.push(format!("{id} removed"));
    }
    changes.join(", ")
}
