//! What an operator does beside changes of the members: they get other addresses, and the cluster may be
//! founded with a backup.

use stormkv::types::NodeId;

use super::dice::{Dice, Purpose};
use crate::plan::{self, OpRow};

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
            OpRow { at_us, client: 0, call: plan::Op::Move { node, address }.into() }
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
