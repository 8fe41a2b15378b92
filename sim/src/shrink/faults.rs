//! Makes single faults plainer.

use stormkv::types::NodeId;

use super::search::Search;
use super::text;
use crate::plan::{Fault, FaultRow, LinkFault, Plan, Who};

/// Makes each fault as plain as it can be.
pub(super) fn faults(search: &mut Search<'_>) {
    let has_fault = search.plainer().has_fault;
    for at in 0..search.best().faults.len() {
        search.repeat(&|plan| plainer_at(plan, at, has_fault));
    }
}

/// There may be fewer faults than there were: a plan that is tried may lose some on the way.
fn plainer_at(plan: &Plan, at: usize, has_fault: fn(&Fault) -> bool) -> Vec<Plan> {
    let Some(FaultRow { fault, .. }) = plan.faults.get(at) else { return Vec::new() };
    let nodes: Vec<NodeId> = plan.voters().chain(plan.learners()).collect();
    let with = |fault: Fault| {
        let mut candidate = plan.clone();
        candidate.faults[at].fault = fault;
        candidate
    };
    let mut plain: Vec<Fault> = Vec::new();
    // The plainest that there are, of the same family first.
    let who = fault.who().into_iter().chain(nodes.iter().copied().map(Who::Node));
    let who: Vec<Who> = who.collect();
    let crash = who.iter().copied().map(Fault::Crash);
    let isolate = who.iter().copied().map(|who| LinkFault::Isolate(who).into());
    match fault {
        Fault::Link(_) => plain.extend(isolate.chain(crash)),
        _ => plain.extend(crash),
    }
    plain.extend(text::plainer(fault));
    plain.extend(named(fault, &nodes));
    plain.into_iter().filter(has_fault).map(with).collect()
}

/// The fault with a node's number where it says `leader` or `same`.
fn named(fault: &Fault, nodes: &[NodeId]) -> Vec<Fault> {
    let text = fault.to_string();
    let mut faults = Vec::new();
    for id in nodes {
        let word = |word: &str| match word {
            "leader" | "same" => id.0.to_string(),
            word => word.to_owned(),
        };
        let named: Vec<String> = text.split(' ').map(word).collect();
        faults.extend(named.join(" ").parse().ok());
    }
    faults
}
