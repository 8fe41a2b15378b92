//! A plan that is like another one, but for a step or two: for a search that goes on from plans
//! which showed something new.

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use crate::plan::{Fault, FaultRow, Member, Plan, ProcessFault};

use super::dice::{Dice, Purpose};

/// The most steps at once.
const MOST_STEPS: u32 = 3;
/// The most rows that are taken over from another plan at once.
const MOST_GRAFTED: u32 = 4;
/// How far a fault is moved, in milliseconds.
const FARTHEST_MS: u32 = 500;

/// Changes a plan at random: other chances, a fault less, or at another time, or some that another
/// plan has. The same seed makes the same of the same plans. What does not hold together after that
/// is left as it was, under other chances.
pub fn mutate(parent: &Plan, donor: &Plan, seed: u64) -> Plan {
    let dice = &mut Dice::new(seed, Purpose::Mutation);
    let mut child = parent.clone();
    child.name = format!("seed-{seed}-from-{}", parent.seed);
    child.seed = seed;
    for _ in 0..dice.between(0, MOST_STEPS) {
        match dice.below(4) {
            0 => remove(&mut child, dice),
            1 => shift(&mut child, dice),
            _ => graft(&mut child, donor, dice),
        }
    }
    child.faults.sort_by_key(|row| row.at_us);
    if child.check().is_err() {
        child.faults.clone_from(&parent.faults);
    }
    child
}

/// A fault that may be taken out, moved or taken over: not the loss of a disk, which the operator
/// answers by a change of the membership.
fn is_free(row: &FaultRow) -> bool {
    !matches!(row.fault, Fault::Process(_, ProcessFault::Wipe))
}

/// One of the faults that are free.
fn pick(plan: &Plan, dice: &mut Dice) -> Option<usize> {
    let free: Vec<usize> = (0..plan.faults.len()).filter(|at| is_free(&plan.faults[*at])).collect();
    (!free.is_empty()).then(|| dice.pick(&free))
}

fn remove(plan: &mut Plan, dice: &mut Dice) {
    if let Some(at) = pick(plan, dice) {
        plan.faults.remove(at);
    }
}

fn shift(plan: &mut Plan, dice: &mut Dice) {
    let (by_us, later) = (dice.scaled_us(1, FARTHEST_MS), dice.percent(50));
    let Some(at) = pick(plan, dice) else { return };
    move_row(&mut plan.faults[at], by_us, later);
}

fn move_row(row: &mut FaultRow, by_us: u64, later: bool) {
    let before_us = row.at_us;
    row.at_us = if later { before_us + by_us } else { before_us.saturating_sub(by_us) };
    row.until_us = row.until_us.map(|until_us| row.at_us + (until_us - before_us));
}

/// Takes over some faults that stand together, at their own time or at another.
fn graft(plan: &mut Plan, donor: &Plan, dice: &mut Dice) {
    let free: Vec<&FaultRow> = donor.faults.iter().filter(|row| is_free(row)).collect();
    if free.is_empty() {
        return;
    }
    let first = dice.below(free.len() as u32) as usize;
    let count = dice.between(1, MOST_GRAFTED) as usize;
    let (moves, by_us, later) =
        (dice.percent(50), dice.scaled_us(1, FARTHEST_MS), dice.percent(50));
    let there = nodes(plan);
    let is_there = |member: &Member| match member {
        Member::Node(node) => there.contains(node),
        Member::Client(client) => *client <= plan.clients.count,
    };
    for row in free.into_iter().skip(first).take(count) {
        if row.fault.members().iter().all(is_there) {
            let mut row = row.clone();
            if moves {
                move_row(&mut row, by_us, later);
            }
            plan.faults.push(row);
        }
    }
}

/// Every node that ever exists.
fn nodes(plan: &Plan) -> BTreeSet<NodeId> {
    let new = plan.ops.iter().flat_map(|row| row.call.op.new_nodes());
    plan.voters().chain(plan.learners()).chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;
    use crate::kv::KeyValue;

    #[test]
    fn what_comes_of_it_is_a_plan_and_another_one() {
        let mut other = 0;
        for seed in 0..300 {
            let (parent, donor) = (generate::<KeyValue>(seed), generate::<KeyValue>(seed + 1000));
            let child = mutate(&parent, &donor, seed + 2000);
            child.check().unwrap_or_else(|problem| panic!("{seed}: {problem}"));
            assert_eq!(child, mutate(&parent, &donor, seed + 2000));
            assert_eq!((&child.ops, &child.cluster), (&parent.ops, &parent.cluster));
            let wipes = |plan: &Plan| plan.faults.iter().filter(|row| !is_free(row)).count();
            assert_eq!(wipes(&child), wipes(&parent), "the operator answers each");
            other += u32::from(child.faults != parent.faults);
        }
        assert!(other > 150, "{other} plans have other faults");
    }

    #[test]
    fn nothing_moves_before_the_beginning() {
        let mut row = FaultRow { at_us: 300, until_us: Some(900), fault: Fault::CrashAll };
        move_row(&mut row, 500, false);
        assert_eq!((row.at_us, row.until_us), (0, Some(600)));
        move_row(&mut row, 500, true);
        assert_eq!((row.at_us, row.until_us), (500, Some(1100)));
    }
}
