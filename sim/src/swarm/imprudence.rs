//! Imprudent operators, who change the membership while members are out.
//!
//! The other requests of the operator wait until every disk is whole, and are not aimed at faults, so a
//! change seldom meets a cluster that cannot afford it. These come while a fault keeps a member away, and
//! take the votes of other members. A leader must refuse those that leave no quorum of members that
//! answer, unless they are forced.

use stormkv::types::NodeId;

use super::dice::{Dice, Purpose};
use crate::plan::{Call, Cluster, Fault, FaultRow, LinkFault, Manner, Op, OpRow, Part};
use crate::plan::{DiskFault, ProcessFault};

/// Share of the plans, in percent.
const PERCENT: u32 = 8;
/// Share of the requests that are forced, in percent.
const FORCED: u32 = 25;
/// Time until a leader may have noticed that a member is gone, at least.
const NOTICED_MS: u32 = 100;
/// Time that an outage without an end leaves for requests.
const ENDLESS_US: u64 = 3_000_000;

/// Draws the requests of an imprudent operator; most plans have none.
pub(super) fn requests(
    seed: u64,
    cluster: &Cluster,
    faults: impl FnOnce() -> Vec<FaultRow>,
) -> Vec<OpRow> {
    let dice = &mut Dice::new(seed, Purpose::Imprudence);
    if !dice.percent(PERCENT) || cluster.nodes < 2 {
        return Vec::new();
    }
    let faults = faults();
    let outages: Vec<&FaultRow> =
        faults.iter().filter(|row| takes_members_out(&row.fault)).collect();
    if outages.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<OpRow> = (0..dice.between(1, 3))
        .map(|_| {
            let outage = dice.pick(&outages);
            let until_us = outage.until_us.filter(|until_us| *until_us > outage.at_us + 1000);
            let span_us = until_us.map_or(ENDLESS_US, |until_us| until_us - outage.at_us);
            let most_ms = (span_us / 1000) as u32;
            let after_us = dice.time_us(NOTICED_MS.min(most_ms), most_ms.max(1));
            let op = operation(dice, cluster);
            let manner = if dice.percent(FORCED) { Manner::Forced } else { Manner::Imprudent };
            let call = Call { op, manner, node: None };
            OpRow { at_us: outage.at_us + after_us, client: 0, call }
        })
        .collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}

fn operation(dice: &mut Dice, cluster: &Cluster) -> Op {
    let mut voters: Vec<NodeId> = (1..=u64::from(cluster.nodes)).map(NodeId).collect();
    dice.shuffle(&mut voters);
    let learner = NodeId(u64::from(cluster.nodes) + 1);
    match dice.below(8) {
        0..4 => Op::Remove(voters[0]),
        4 => Op::RemoveLeader,
        5 => Op::Change(vec![Part::Demote(voters[0])]),
        6 if voters.len() > 2 => Op::Change(vec![Part::Remove(voters[0]), Part::Remove(voters[1])]),
        7 if cluster.learners > 0 => {
            Op::Change(vec![Part::Promote(learner), Part::Remove(voters[0])])
        }
        _ => Op::Remove(voters[0]),
    }
}

/// Whether a fault keeps a member from answering for a while.
fn takes_members_out(fault: &Fault) -> bool {
    match fault {
        Fault::Crash(_) | Fault::Kill(_) | Fault::Pause(_) => true,
        Fault::Link(link) => matches!(link, LinkFault::Isolate(_) | LinkFault::Partition(_)),
        Fault::Process(_, what) => {
            matches!(what, ProcessFault::Wipe | ProcessFault::OldFormat)
        }
        Fault::Disk(_, what) => matches!(what, DiskFault::Sync | DiskFault::Write),
        _ => false,
    }
}
