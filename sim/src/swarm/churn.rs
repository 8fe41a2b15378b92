//! Membership changes that go far: every founder is replaced, several members change at once, one
//! leader after the other leaves, the cluster shrinks to one voter and grows again.
//!
//! Mixed changes rarely get there, because each step undoes a part of another. As with those, the
//! sequence makes sense if every step succeeds, and ids are never used again. A step that asks for
//! what an earlier one has made impossible is refused, which is a case of its own.

use stormkv::types::NodeId;

use crate::plan::{Cluster, Op, OpRow, Part};

use super::dice::{Dice, Purpose};
use super::membership::{MOST_VOTERS, Members, take};

/// Draws such a sequence, in order of time; most seeds have none.
pub(super) fn operations(seed: u64, cluster: &Cluster, horizon_us: u64) -> Option<Vec<OpRow>> {
    type Story = fn(&mut Dice, &mut Members) -> Vec<Op>;
    const STORIES: &[(u32, Option<Story>)] = &[
        (84, None),
        (6, Some(replace_founders)),
        (4, Some(change_several)),
        (3, Some(remove_leaders)),
        (3, Some(shrink_and_grow)),
    ];
    let dice = &mut Dice::new(seed, Purpose::Churn);
    let story = dice.weighted(STORIES)?;
    let ops = story(dice, &mut Members::founders(cluster));
    // Either each has time to succeed, or they pile up at the operator.
    let gap_ms = if dice.percent(70) { dice.scaled(150, 600) } else { 20 };
    let mut at_us = dice.time_us(100, (horizon_us / 3000) as u32);
    let rows = ops.into_iter().map(|op| {
        let row = OpRow { at_us, client: 0, call: op.into() };
        at_us += dice.time_us(gap_ms / 2, gap_ms * 2);
        row
    });
    Some(rows.collect())
}

fn replace_founders(dice: &mut Dice, members: &mut Members) -> Vec<Op> {
    let mut founders = std::mem::take(&mut members.voters);
    dice.shuffle(&mut founders);
    // Somebody must stay in each single step.
    let most = founders.len() as u32 - 1;
    let way = if most == 0 { dice.below(2) } else { dice.below(4) };
    let mut ops = Vec::new();
    while !founders.is_empty() {
        let group = if way == 3 { dice.between(1, most) as usize } else { 1 };
        let leaving = founders.split_off(founders.len().saturating_sub(group));
        let new = members.new_node();
        match way {
            0 => ops.extend([Op::Add(new), Op::Remove(leaving[0])]),
            1 => ops.extend([Op::Learner(new), Op::Promote(new), Op::Remove(leaving[0])]),
            2 => ops.push(Op::Replace { old: leaving[0], new }),
            _ => {
                let others = leaving[1..].iter().map(|_| members.new_node());
                let coming = std::iter::once(new).chain(others.collect::<Vec<_>>());
                let parts = coming.map(Part::Voter);
                ops.push(Op::Change(parts.chain(leaving.into_iter().map(Part::Remove)).collect()));
            }
        }
    }
    ops
}

fn change_several(dice: &mut Dice, members: &mut Members) -> Vec<Op> {
    (0..dice.between(1, 5)).filter_map(|_| one_step(dice, members)).collect()
}

/// One joint step of several parts, after which one of the present voters is still there.
fn one_step(dice: &mut Dice, members: &mut Members) -> Option<Op> {
    let mut parts = Vec::new();
    let (mut coming, mut learning) = (Vec::new(), Vec::new());
    for _ in 0..dice.between(2, 5) {
        let room = members.voters.len() + coming.len() < MOST_VOTERS;
        let many = members.voters.len() > 1;
        match dice.below(8) {
            0..3 if room => {
                coming.push(members.new_node());
                parts.extend(coming.last().copied().map(Part::Voter));
            }
            3 if learning.len() < 2 => {
                learning.push(members.new_node());
                parts.extend(learning.last().copied().map(Part::Learner));
            }
            4 if room && !members.learners.is_empty() => {
                let node = take(dice, &mut members.learners);
                coming.push(node);
                parts.push(Part::Promote(node));
            }
            5 if many => {
                let node = take(dice, &mut members.voters);
                learning.push(node);
                parts.push(Part::Demote(node));
            }
            6.. if many => parts.push(Part::Remove(take(dice, &mut members.voters))),
            _ => {}
        }
    }
    members.voters.extend(coming);
    members.learners.extend(learning);
    (!parts.is_empty()).then_some(Op::Change(parts))
}

fn remove_leaders(dice: &mut Dice, members: &mut Members) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..dice.between(1, 4) {
        ops.push(match dice.below(5) {
            0..2 => Op::RemoveLeader,
            2..4 => Op::ReplaceLeader(members.new_node()),
            _ => Op::Transfer(dice.pick(&members.voters)),
        });
    }
    ops
}

fn shrink_and_grow(dice: &mut Dice, members: &mut Members) -> Vec<Op> {
    let mut ops = Vec::new();
    while members.voters.len() > 1 {
        ops.push(Op::Remove(take(dice, &mut members.voters)));
    }
    let voters = if dice.percent(40) { 1 } else { dice.between(2, 5) };
    for _ in 1..voters {
        let node: NodeId = members.new_node();
        match dice.percent(50) {
            true => ops.push(Op::Add(node)),
            false => ops.extend([Op::Learner(node), Op::Promote(node)]),
        }
    }
    ops
}
