//! The many ways in which the product can be asked: in some seeds, a part of the operations that
//! `workload.rs` has drawn is asked for differently. Writes go without a session or have a guard on
//! the revision or reuse a number, reads may be stale, scans come in pages, and members change their addresses.

use stormkv::types::NodeId;

use super::dice::{Dice, Purpose};
use crate::plan::{Guard, Manner, Op, OpRow};

/// Of a hundred seeds, so many ask for something differently.
const SEEDS: u32 = 40;
/// And of a hundred of these, so many have clients that use a number again for another command.
const REUSING: u32 = 15;

/// Changes how some operations are asked for.
pub(super) fn vary(seed: u64, rows: &mut [OpRow]) {
    let dice = &mut Dice::new(seed, Purpose::Surface);
    if !dice.percent(SEEDS) {
        return;
    }
    let mut share = || if dice.percent(50) { dice.between(10, 70) } else { 0 };
    let (no_session, guarded, stale, paged) = (share(), share(), share(), share());
    for row in rows.iter_mut() {
        let call = &mut row.call;
        match &mut call.op {
            Op::Put { key, value } if dice.percent(guarded) => {
                let (key, value) = (key.clone(), Some(value.clone()));
                call.op = Op::Guarded { key, guard: guard(dice), value };
            }
            Op::Delete { key } if dice.percent(guarded) => {
                call.op = Op::Guarded { key: key.clone(), guard: guard(dice), value: None };
            }
            Op::Scan { limit, .. } if dice.percent(paged) => *limit = dice.between(1, 4),
            _ => {}
        }
        if call.op.is_write() && dice.percent(no_session) {
            call.manner = Manner::NoSession;
        }
        if call.op.is_read() && dice.percent(stale) {
            call.manner = Manner::Stale;
        }
    }
    if dice.percent(REUSING) {
        let share = dice.between(5, 30);
        let puts = rows.iter_mut().map(|row| &mut row.call);
        let puts = puts.filter(|call| matches!(call.op, Op::Put { .. }));
        for call in puts.filter(|call| call.manner == Manner::Usual) {
            if dice.percent(share) {
                call.manner = Manner::Reused;
            }
        }
    }
}

fn guard(dice: &mut Dice) -> Guard {
    dice.weighted(&[(6, Guard::Seen), (2, Guard::Absent), (2, Guard::Present)])
}

/// Members of the beginning that are reached elsewhere from some time on. Most addresses are new; some
/// are those of another member, which is a mistake of the operator.
pub(super) fn moves(seed: u64, nodes: u64, horizon_us: u64) -> Vec<OpRow> {
    let dice = &mut Dice::new(seed, Purpose::Moves);
    if !dice.percent(10) {
        return Vec::new();
    }
    let mut last = None;
    let mut rows: Vec<OpRow> = (1..=dice.between(1, 5))
        .map(|number| {
            let node = NodeId(u64::from(dice.between(1, nodes as u32)));
            let at_us = dice.time_us(100, (horizon_us / 1000) as u32);
            let address = match &last {
                Some(taken) if dice.percent(20) => String::clone(taken),
                _ => format!("host-{number}:{}", 2000 + node.0),
            };
            last = Some(address.clone());
            OpRow { at_us, client: 0, call: Op::Move { node, address }.into() }
        })
        .collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}

/// With how many keys of a backup the cluster is founded.
pub(super) fn backup_keys(seed: u64) -> u32 {
    let dice = &mut Dice::new(seed, Purpose::Backup);
    if dice.percent(6) { dice.scaled(1, 32) } else { 0 }
}
