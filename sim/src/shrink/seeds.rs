//! Tries other seeds.
//!
//! The seed decides what the plan leaves open, such as who is elected first and what a power loss
//! leaves of a file. And the number of a fault's row decides which of these draws are its own, so a
//! row may only be in the plan to keep the numbers of those behind it. Under one seed in a few, less
//! will do.

use super::ddmin::ddmin;
use super::rows::keep;
use super::search::Search;
use super::{cast, chance, settings};
use crate::plan::Plan;

/// About how many events may be spent on one question: a second or two.
const EVENTS: u64 = 4_000_000;

/// Takes something out and changes the seed in the same step.
pub(super) fn seeds(search: &mut Search<'_>) {
    smaller_seed(search);
    remove(search, |plan| plan.faults.len(), |plan, kept| keep(&mut plan.faults, kept));
    remove(search, |plan| plan.ops.len(), |plan, kept| keep(&mut plan.ops, kept));
    remove(search, |plan| plan.net.len(), |plan, kept| keep(&mut plan.net, kept));
    for wishes in [
        cast::fewer_nodes,
        cast::fewer_clients,
        settings::plainer,
        chance::fixed,
        chance::without_exceptions,
    ] {
        while {
            let best = search.best().clone();
            let plans = wishes(&best);
            under_any(search, plans.len(), &|at| plans[at].clone()).is_some()
        } {}
    }
    smaller_seed(search);
}

fn smaller_seed(search: &mut Search<'_>) {
    let best = search.best().clone();
    under_any(search, 1, &|_| best.clone());
}

/// Removes rows, under whatever seed it takes.
fn remove(search: &mut Search<'_>, count: fn(&Plan) -> usize, narrow: fn(&mut Plan, &[usize])) {
    let whole = search.best().clone();
    ddmin(count(&whole), &mut |count, make| {
        under_any(search, count, &|at| {
            let mut plan = whole.clone();
            narrow(&mut plan, &make(at));
            plan
        })
    });
}

/// Tries each plan under each of the seeds; those with small runs under more of them.
fn under_any(search: &mut Search<'_>, count: usize, make: &dyn Fn(usize) -> Plan) -> Option<usize> {
    let each = search.violation().step.max(200).saturating_mul(count.max(1) as u64);
    let seeds = (EVENTS / each).clamp(search.seeds().min(8), search.seeds());
    let seeds = usize::try_from(seeds).unwrap_or(usize::MAX);
    // All plans under one seed before the next: which of the plans works is not known, either.
    let found = search.first(count * seeds, &|at| {
        let seed = (at / count) as u64;
        Some(Plan { seed, ..make(at % count) })
    })?;
    Some(found % count)
}
