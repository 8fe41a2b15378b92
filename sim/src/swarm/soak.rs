//! The windows of a run of days: one cluster under steady load, and a storm that never stops.
//!
//! The cluster is the same in all windows, the load is steady in rate and size, so that what the
//! nodes keep may be compared from the first hour to the last. What the clients do and which faults
//! strike is drawn per window, from all families.

use stormkv::types::NodeId;

use crate::plan::{Call, Delay, Fault, FaultRow, Network, Op, OpRow, Plan, ProcessFault};
use crate::service::{Service, call, parsed};

use super::dice::{Dice, Purpose};
use super::knobs::Knobs;
use super::storm::{self, Cast};

/// How long clients and faults go on in one window: ten minutes.
pub const WINDOW_US: u64 = 600_000_000;
/// Between the starts of two operations, on average.
const PACE_US: u64 = 500_000;
const NODES: u32 = 5;
const CLIENTS: u32 = 8;
/// A member joins, votes, leads perhaps and leaves in one window of so many.
const CHANGE_EVERY: u64 = 6;

/// The plan of one window of the soak with this seed.
pub fn soak_window<S: Service>(seed: u64, number: u64) -> Plan {
    // Consecutive windows of neighbouring seeds must not be the same.
    let drawn = (seed ^ 0x736f_616b).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
    let mut plan = Plan::new(format!("soak-{seed}-{number}"), seed);
    let cluster = &mut plan.cluster;
    cluster.nodes = NODES;
    // Long ticks: days consist of few events then, and timeouts are still short beside a window.
    cluster.tick_us = 50_000;
    (cluster.snapshot_every, cluster.keep_entries) = (200, 50);
    cluster.segment_kib = 16;
    cluster.chunk_bytes = 2048;
    // One less than clients: those who were silent for long lose their session.
    cluster.sessions = CLIENTS - 1;
    plan.network = Network {
        latency: Delay { min_us: 1000, mean_extra_us: 4000 },
        heavy_tail: 0.01,
        drop: 0.005,
        duplicate: 0.005,
        fifo: false,
        ..Network::default()
    };
    plan.clients.count = CLIENTS;
    (plan.clients.retry_us, plan.clients.give_up_us) = (1_500_000, 10_000_000);

    let dice = &mut Dice::new(drawn, Purpose::Times);
    let count = WINDOW_US / PACE_US;
    let mut times: Vec<u64> =
        (0..count).map(|_| dice.time_us(0, (WINDOW_US / 1000) as u32)).collect();
    times.sort_unstable();
    plan.ops = S::workload(drawn, &times, &plan.cluster, &plan.clients);
    even_out::<S>(&mut plan.ops);
    let changes = membership(number);
    let cast = Cast {
        nodes: (1..=u64::from(NODES)).map(NodeId).collect(),
        clients: CLIENTS,
        horizon_us: WINDOW_US,
        election_us: u64::from(plan.cluster.election_ticks[1]) * plan.cluster.tick_us,
        marks: changes.iter().map(|row| row.at_us).collect(),
        custom: S::FAULTS,
    };
    plan.faults = storms(drawn, &cast);
    plan.ops.extend(changes);
    plan.ops.sort_by_key(|row| row.at_us);
    plan.end.bound_us = 120_000_000;
    plan
}

/// The faults of a window: two or three storms of a random plan at the same time, so that there is no
/// quiet window and every family strikes within hours. Nobody loses its disk for ever: the members
/// must be the same to the end.
fn storms(drawn: u64, cast: &Cast) -> Vec<FaultRow> {
    let count = Dice::new(drawn, Purpose::Intensity).between(2, 3);
    let mut rows: Vec<FaultRow> = (1..)
        .map(|part| storm::faults(drawn ^ (part << 48), cast, &Knobs::default()))
        .filter(|storm| !storm.is_empty())
        .take(count as usize)
        .flatten()
        .filter(|row| !matches!(row.fault, Fault::Process(_, ProcessFault::Wipe)))
        .collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}

/// Makes the operations write as much in all windows.
fn even_out<S: Service>(rows: &mut [OpRow]) {
    for (at, row) in rows.iter_mut().enumerate() {
        let Some(mut op) = parsed::<S>(&row.call.op) else { continue };
        S::even_out(&mut op, at);
        row.call.op = call::<S>(&op).op;
    }
}

/// What the operator does in this window. A removal may be in vain while faults strike, so it is
/// made more than once.
fn membership(number: u64) -> Vec<OpRow> {
    if !number.is_multiple_of(CHANGE_EVERY) {
        return Vec::new();
    }
    let id = NodeId(u64::from(NODES) + 1 + number / CHANGE_EVERY);
    [
        (60, Op::Learner(id)),
        (120, Op::Promote(id)),
        (180, Op::Transfer(id)),
        (300, Op::Remove(id)),
        (400, Op::Remove(id)),
        (500, Op::Remove(id)),
    ]
    .map(|(at_s, op)| OpRow { at_us: at_s * 1_000_000, client: 0, call: Call::from(op) })
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kv::KeyValue;

    #[test]
    fn every_window_has_faults_and_all_kinds_of_the_swarm_strike_within_hours() {
        let soaked: Vec<Plan> = (0..36).map(|number| soak_window::<KeyValue>(1, number)).collect();
        assert!(soaked.iter().all(|plan| !plan.faults.is_empty()));
        let kinds = |plans: Vec<Plan>| -> BTreeSet<&'static str> {
            plans.iter().flat_map(|plan| &plan.faults).map(|row| row.fault.kind()).collect()
        };
        let mut swarm = kinds((0..400).map(crate::swarm::generate::<KeyValue>).collect());
        assert!(swarm.remove("wipe"), "it is the only one left out");
        let missing: Vec<_> = swarm.difference(&kinds(soaked)).copied().collect();
        assert_eq!(missing, [""; 0]);
    }
}
