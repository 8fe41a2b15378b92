//! Takes out nodes and clients.
//!
//! A node that goes takes along what is about it, or hands it to another one. Those above it move
//! down, so that the numbers stay without gaps.

use std::collections::{BTreeMap, BTreeSet};

use stormkv::types::NodeId;

use super::rename::Names;
use super::search::Search;
use crate::plan::{Member, Plan};

/// Takes out nodes and learners.
pub(super) fn nodes(search: &mut Search<'_>) {
    search.repeat(&fewer_nodes);
}

/// All plans with fewer nodes that are worth a try, the smallest clusters first.
pub(super) fn fewer_nodes(plan: &Plan) -> Vec<Plan> {
    let (voters, learners) = (plan.cluster.nodes, plan.cluster.learners);
    let all = voters + learners;
    let mut candidates = Vec::new();
    if learners > 0 {
        candidates.push(without(plan, &(voters + 1..=all).collect(), None));
    }
    for count in 1..voters {
        // The lowest, then the highest numbers stay.
        candidates.push(without(plan, &(count + 1..=voters).collect(), None));
        candidates.push(without(plan, &(1..=voters - count).collect(), None));
    }
    for gone in 1..=all {
        candidates.push(without(plan, &BTreeSet::from([gone]), None));
        for heir in (1..=all).filter(|heir| *heir != gone) {
            candidates.push(without(plan, &BTreeSet::from([gone]), Some(heir)));
        }
    }
    candidates.retain(|plan| plan.cluster.nodes > 0);
    candidates
}

/// The plan without these nodes. What is about them is about the heir now, if there is one.
fn without(plan: &Plan, gone: &BTreeSet<u32>, heir: Option<u32>) -> Plan {
    let moved = |id: u64| {
        let below = gone.iter().filter(|gone| u64::from(**gone) < id).count() as u64;
        NodeId(id - below)
    };
    let is_gone = |id: NodeId| u32::try_from(id.0).is_ok_and(|id| gone.contains(&id));
    let node = |id: NodeId| match is_gone(id) {
        true => heir.map(|heir| moved(heir.into())),
        false => Some(moved(id.0)),
    };
    let mut renamed = Names { node: &node, client: &Some }.rename(plan);
    let voters = gone.iter().filter(|id| **id <= plan.cluster.nodes).count() as u32;
    renamed.cluster.nodes -= voters;
    renamed.cluster.learners -= gone.len() as u32 - voters;
    renamed
}

/// Lets fewer clients do what is left to do, and numbers them from 1.
pub(super) fn clients(search: &mut Search<'_>) {
    search.repeat(&fewer_clients);
}

pub(super) fn fewer_clients(plan: &Plan) -> Vec<Plan> {
    let used: BTreeSet<u32> = plan.ops.iter().map(|row| row.client).filter(|c| *c > 0).collect();
    // Clients that do nothing can still be cut off by a fault.
    let named = plan.faults.iter().flat_map(|row| row.fault.members());
    let named = named.filter_map(|member| match member {
        Member::Client(number) => Some(number),
        Member::Node(_) => None,
    });
    let all: BTreeSet<u32> = used.iter().copied().chain(named).collect();
    let dense: BTreeMap<u32, u32> = all.iter().copied().zip(1..).collect();
    let rename = |client: &dyn Fn(u32) -> Option<u32>| {
        Names { node: &Some, client: &|number| if number == 0 { Some(0) } else { client(number) } }
            .rename(plan)
    };
    let mut candidates: Vec<Plan> = (1..used.len() as u32)
        .map(|count| rename(&|number| Some(1 + (dense.get(&number)? - 1) % count)))
        .collect();
    for one in &used {
        for other in used.iter().filter(|other| *other < one) {
            candidates.push(rename(&|number| Some(if number == *one { *other } else { number })));
        }
    }
    candidates.push(rename(&|number| dense.get(&number).copied()));
    candidates.push(rename(&|number| used.contains(&number).then_some(number)));
    let least = |mut plan: Plan| {
        let most = plan.ops.iter().map(|row| row.client).max().unwrap_or(0);
        plan.clients.count = most.max(1);
        plan
    };
    let fewest: Vec<Plan> = candidates.iter().cloned().map(least).collect();
    [fewest, candidates].concat()
}
