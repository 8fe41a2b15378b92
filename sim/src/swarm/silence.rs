//! Silence: in some plans everything stops early, right after something that had only begun.
//!
//! A mistake that the next write or the next snapshot repairs shows only if there is none. With
//! operations until the end there always is one, so some plans end soon after a burst of operations or
//! a change of the membership begins. The faults that have begun by then go on to their ends.

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use super::dice::{Dice, Purpose};
use super::knobs::hits_only;
use super::storm::Cast;
use crate::plan::{FaultRow, OpRow};

/// Share of the plans, in percent.
const PERCENT: u32 = 8;
/// Share of these that stop at any time, and not at a mark, in percent.
const UNMARKED_PERCENT: u32 = 25;
/// Time from the beginning of a burst or change to the silence, at most.
const MOST_MS: u32 = 400;
/// No plan falls silent earlier: there is a leader by then, most of the time.
const LEAST_US: u64 = 500_000;

/// Takes out of some plans what begins after some moment: one of the marks at which bursts and changes
/// begin, or a little later. The first operation of the clients stays. `founders` is the number of
/// nodes at the start.
pub(super) fn fall(
    seed: u64,
    cast: &Cast,
    founders: u32,
    ops: &mut Vec<OpRow>,
    faults: &mut Vec<FaultRow>,
) {
    let dice = &mut Dice::new(seed, Purpose::Silence);
    if !dice.percent(PERCENT) {
        return;
    }
    let begins_us = match cast.marks.is_empty() || dice.percent(UNMARKED_PERCENT) {
        true => dice.time_us(0, (cast.horizon_us / 1000) as u32),
        false => dice.pick(&cast.marks),
    };
    let clients = ops.iter().filter(|row| row.client > 0);
    let first_us = clients.map(|row| row.at_us).min().unwrap_or(0);
    let silent_us = (begins_us + dice.scaled_us(1, MOST_MS)).max(LEAST_US).max(first_us);
    ops.retain(|row| row.at_us <= silent_us);
    // A member that is never added cannot be hit.
    let added = ops.iter().flat_map(|row| row.call.op.new_nodes());
    let nodes: BTreeSet<NodeId> = (1..=u64::from(founders)).map(NodeId).chain(added).collect();
    faults.retain(|row| row.at_us <= silent_us && hits_only(row, |id| nodes.contains(&id)));
}
