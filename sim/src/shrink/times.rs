//! Makes times rounder, gaps shorter, and puts rows in the order in which they happen.

use std::collections::BTreeSet;

use super::search::Search;
use crate::plan::Plan;

/// What times are rounded to, in microseconds: whole seconds, 100 ms, 10 ms, 1 ms.
const UNITS_US: [u64; 4] = [1_000_000, 100_000, 10_000, 1_000];

/// Works on all times of a plan.
pub(super) fn times(search: &mut Search<'_>) {
    let order = |plan: &Plan| {
        let mut sorted = plan.clone();
        sorted.faults.sort_by_key(|row| row.at_us);
        sorted.ops.sort_by_key(|row| row.at_us);
        let faults = Plan { ops: plan.ops.clone(), ..sorted.clone() };
        let ops = Plan { faults: plan.faults.clone(), ..sorted.clone() };
        vec![sorted, faults, ops]
    };
    search.repeat(&order);
    search.repeat(&open_ended);
    search.repeat(&shorter_faults);
    search.repeat(&all_rounder);
    for at in 0..count(search.best()) {
        search.repeat(&|plan| {
            let candidate = |unit_us: &u64| {
                let mut plan = plan.clone();
                change(&mut plan, |slot, us| if slot == at { round(us, *unit_us) } else { us });
                plan
            };
            UNITS_US.iter().map(candidate).collect()
        });
    }
    search.repeat(&shorter_gaps);
    search.repeat(&order);
}

/// Faults that end with the storm: all of them, then each.
fn open_ended(plan: &Plan) -> Vec<Plan> {
    let mut all = plan.clone();
    all.faults.iter_mut().for_each(|row| row.until_us = None);
    let mut candidates = vec![all];
    for at in (0..plan.faults.len()).filter(|at| plan.faults[*at].until_us.is_some()) {
        let mut candidate = plan.clone();
        candidate.faults[at].until_us = None;
        candidates.push(candidate);
    }
    candidates
}

/// Each fault for a shorter time.
fn shorter_faults(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    for (at, row) in plan.faults.iter().enumerate() {
        let Some(until_us) = row.until_us else { continue };
        let half_us = (until_us - row.at_us) / 2;
        for lasts_us in [100_000, round(half_us, 100_000)] {
            if (1..until_us - row.at_us).contains(&lasts_us) {
                let mut candidate = plan.clone();
                candidate.faults[at].until_us = Some(row.at_us + lasts_us);
                candidates.push(candidate);
            }
        }
    }
    candidates
}

fn all_rounder(plan: &Plan) -> Vec<Plan> {
    let rounded = |unit_us: &u64| {
        let mut plan = plan.clone();
        change(&mut plan, |_, us| round(us, *unit_us));
        plan
    };
    UNITS_US.iter().map(rounded).collect()
}

/// Everything behind a gap between two moments happens earlier.
fn shorter_gaps(plan: &Plan) -> Vec<Plan> {
    let mut moments = BTreeSet::from([0]);
    change(&mut plan.clone(), |_, us| {
        moments.insert(us);
        us
    });
    let moments: Vec<u64> = moments.into_iter().collect();
    let mut candidates = Vec::new();
    for pair in moments.windows(2) {
        let gap_us = pair[1] - pair[0];
        let mut cuts: Vec<u64> =
            [gap_us, gap_us / 2, 1_000_000, 100_000].map(|us| us / 100_000 * 100_000).to_vec();
        cuts.push(gap_us);
        cuts.retain(|cut_us| (1..=gap_us).contains(cut_us));
        cuts.dedup();
        for cut_us in cuts {
            let mut candidate = plan.clone();
            change(&mut candidate, |_, us| if us > pair[0] { us - cut_us } else { us });
            candidates.push(candidate);
        }
    }
    candidates
}

/// To the nearest unit, but nothing that is later than the beginning moves to it.
fn round(us: u64, unit_us: u64) -> u64 {
    let rounded = (us + unit_us / 2) / unit_us * unit_us;
    if rounded == 0 { us.min(unit_us) } else { rounded }
}

fn count(plan: &Plan) -> usize {
    let mut count = 0;
    change(&mut plan.clone(), |_, us| {
        count += 1;
        us
    });
    count
}

/// Changes each time of the plan, given its position.
fn change(plan: &mut Plan, mut new_us: impl FnMut(usize, u64) -> u64) {
    let ops = plan.ops.iter_mut().map(|row| &mut row.at_us);
    let faults =
        plan.faults.iter_mut().flat_map(|row| [Some(&mut row.at_us), row.until_us.as_mut()]);
    let times = ops.chain(faults.flatten()).chain(plan.end.heal_at_us.as_mut());
    times.enumerate().for_each(|(slot, us)| *us = new_us(slot, *us));
}
