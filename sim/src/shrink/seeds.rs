//! Tries other seeds.
//!
//! The seed decides what the plan leaves open, such as who is elected first. With another one, less
//! may do.

use super::search::Search;
use super::{cast, settings};
use crate::plan::Plan;

/// More rows than this are not taken out one by one under each of the seeds.
const MOST_ROWS: usize = 40;

/// Takes something out and changes the seed in the same step.
pub(super) fn seeds(search: &mut Search<'_>) {
    let seeds = search.seeds();
    search.repeat(&|plan| {
        let mut smaller = vec![plan.clone()];
        smaller.extend(single_rows(plan));
        smaller.extend(cast::fewer_nodes(plan));
        smaller.extend(settings::plainer(plan));
        let reseeded = |plan: &Plan| {
            let plan = plan.clone();
            (0..seeds).map(move |seed| Plan { seed, ..plan.clone() })
        };
        smaller.iter().flat_map(reseeded).collect()
    });
}

/// The plan without each of its rows.
fn single_rows(plan: &Plan) -> Vec<Plan> {
    if plan.faults.len() + plan.ops.len() + plan.net.len() > MOST_ROWS {
        return Vec::new();
    }
    let mut candidates = Vec::new();
    let mut push = |remove: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        remove(&mut candidate);
        candidates.push(candidate);
    };
    (0..plan.faults.len()).for_each(|at| push(&|plan| drop(plan.faults.remove(at))));
    (0..plan.ops.len()).for_each(|at| push(&|plan| drop(plan.ops.remove(at))));
    (0..plan.net.len()).for_each(|at| push(&|plan| drop(plan.net.remove(at))));
    candidates
}
