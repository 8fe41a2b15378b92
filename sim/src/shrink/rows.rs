//! Takes out what happens after the violation, then as many faults, operations and exceptions as
//! possible.
//!
//! A row of a fault holds both its beginning and its end, so a crash never loses its restart.

use super::ddmin::ddmin;
use super::search::Search;
use crate::plan::Plan;

/// Takes out everything that begins after the violation. It cannot have mattered, except for the
/// numbers of the rows, which name some draws; so it is tried like everything else.
pub(super) fn truncate(search: &mut Search<'_>) {
    let end_us = search.violation().at_ns / 1000;
    let best = search.best().clone();
    let without = |ops: bool, faults: bool| {
        let mut plan = best.clone();
        plan.ops.retain(|row| !ops || row.at_us <= end_us);
        plan.faults.retain(|row| !faults || row.at_us <= end_us);
        plan
    };
    search.try_all(vec![without(true, true), without(false, true), without(true, false)]);
}

/// Takes out faults.
pub(super) fn faults(search: &mut Search<'_>) {
    remove(search, |plan| plan.faults.len(), |plan, kept| keep(&mut plan.faults, kept));
}

/// Takes out operations.
pub(super) fn operations(search: &mut Search<'_>) {
    remove(search, |plan| plan.ops.len(), |plan, kept| keep(&mut plan.ops, kept));
}

/// Takes out exceptions for single messages.
pub(super) fn exceptions(search: &mut Search<'_>) {
    remove(search, |plan| plan.net.len(), |plan, kept| keep(&mut plan.net, kept));
}

fn remove(search: &mut Search<'_>, count: fn(&Plan) -> usize, narrow: fn(&mut Plan, &[usize])) {
    let whole = search.best().clone();
    ddmin(count(&whole), &mut |count, make| {
        search.first(count, &|at| {
            let mut plan = whole.clone();
            narrow(&mut plan, &make(at));
            Some(plan)
        })
    });
}

/// Keeps the elements at these positions, which are in order.
pub(super) fn keep<T: Clone>(list: &mut Vec<T>, kept: &[usize]) {
    *list = kept.iter().map(|at| list[*at].clone()).collect();
}
