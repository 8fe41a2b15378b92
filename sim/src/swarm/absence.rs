//! Absence: a member is away until it needs a snapshot, and comes back while the others go on writing.
//!
//! A transfer takes longer here than the time between two snapshots, and the log behind it is about as
//! large as nodes may keep. In other plans the clients have seldom enough to do for that. Nothing else
//! happens: what is demanded is that the member catches up (see `simulation/catch_up.rs`).

use stormkv::types::NodeId;

use crate::plan::{Cluster, Core, Fault, FaultRow, LinkFault, Network, OpRow, Plan, Who};

use super::dice::{Dice, Purpose, us};
use super::knobs::Knobs;
use super::shape::{prompt, reliable};
use super::workload::{has_writes, write};
use crate::service::Service;

/// Share of these plans, as one in this number. Each takes seven times as long as an average plan.
const ONE_IN: u32 = 200;
/// Bytes of a value of which the state consists.
const STATE_VALUE_BYTES: u32 = 2048;
/// Bytes of a command beside its value, in the log and in a record.
const COMMAND_BYTES: u32 = 96;
/// The narrowest path, in KiB per second. It carries the smallest append between two heartbeats, as
/// [`Config`](stormkv::config::Config) asks for, and has room to spare.
const NARROWEST: u32 = 200;
const HEARTBEAT_TICKS: u32 = 3;
/// Clients, and operations of each that may be under way.
const CLIENTS: u32 = 4;
const IN_FLIGHT: u32 = 4;
/// When the clients begin to write the state, and have it written.
const FILL_MS: (u32, u32) = (500, 2000);
/// When the member goes away.
const AWAY_MS: (u32, u32) = (2500, 4000);
/// For how long.
const ABSENCE_MS: (u32, u32) = (1000, 2500);
/// For how long the clients go on beside the time of [`TRANSFERS`] transfers: an election, and what the
/// demand allows.
const AFTER_MS: u32 = 5000;
const TRANSFERS: u32 = 4;

/// Makes some plans into one of an absence.
pub(super) fn apply<S: Service>(seed: u64, knobs: &Knobs, plan: &mut Plan) {
    let dice = &mut Dice::new(seed, Purpose::Absence);
    if dice.below(ONE_IN) != 0 || plan.cluster.nodes < 3 || !has_writes::<S>() {
        return;
    }
    let state_values = dice.between(48, 96);
    let state_kib = state_values * STATE_VALUE_BYTES / 1024;
    let kib_per_s = (state_kib * 1000 / dice.between(700, 1400)).max(NARROWEST);
    let transfer_ms = state_kib * 1000 / kib_per_s;
    let snapshots = dice.between(3, 8);
    let per_s = dice.between(30, 60);
    // The path has room for three times what is written, so that the member can catch up.
    let room = (kib_per_s * 1024 / 3 / per_s).saturating_sub(COMMAND_BYTES);
    let value_bytes = dice.scaled(256, 1024).min(room.max(16));

    // What is written during a transfer.
    let entries = per_s * transfer_ms / 1000;
    let log_bytes = entries * (value_bytes + COMMAND_BYTES);
    let snapshot_every = (entries / snapshots).max(4);
    let snapshot_ms = snapshot_every * 1000 / per_s;

    plan.cluster.heartbeat_ticks = HEARTBEAT_TICKS;
    plan.cluster.sessions = 4 * CLIENTS * IN_FLIGHT;
    plan.cluster.session_kib = Cluster::default().session_kib;
    plan.cluster.snapshot_every = snapshot_every.into();
    plan.cluster.keep_entries = dice.between(0, snapshot_every / 2).into();
    plan.cluster.log_kib = (log_bytes * dice.scaled(25, 250) / 100 / 1024).max(8);
    plan.cluster.chunk_bytes = dice.scaled(512, 4096);
    plan.network = Network {
        spread: 1,
        // Raft takes an append that overtakes another for a lost one, and sends one at a time then.
        fifo: true,
        kib_per_s,
        // A queue that holds but a few appends drops most of what a member catches up with.
        queue_us: us(dice.between(300, 1000)),
        ..reliable(&plan.network)
    };
    // A snapshot is written in a small part of the time between two.
    plan.disk.kib_per_s = state_kib * 1000 / snapshot_ms * dice.between(8, 32);
    plan.disk.size_kib = 0;
    plan.clients = prompt(&plan.clients, CLIENTS, IN_FLIGHT);
    let away = dice.between(AWAY_MS.0, AWAY_MS.1);
    let back = away + dice.between(ABSENCE_MS.0, ABSENCE_MS.1).max(3 * snapshot_ms);
    let end = back + AFTER_MS + TRANSFERS * transfer_ms;
    let member = NodeId(dice.between(1, plan.cluster.nodes).into());
    let fault = absence(dice, member);
    let row = FaultRow { at_us: us(away), until_us: Some(us(back)), fault };
    plan.faults.retain(|row| knobs.sets_priority(row));
    plan.faults.extend(Some(row).filter(|row| knobs.keeps(row, false)));
    plan.faults.sort_by_key(|row| row.at_us);
    plan.ops = fill::<S>(dice, state_values);
    plan.ops.extend(writes::<S>(dice, (FILL_MS.1, end), per_s, value_bytes));
    plan.end.core = Core::All;
}

fn absence(dice: &mut Dice, member: NodeId) -> Fault {
    let who = Who::Node(member);
    match dice.below(4) {
        0 => Fault::Crash(who),
        1 => Fault::Kill(who),
        2 => Fault::Pause(who),
        _ => LinkFault::Isolate(who).into(),
    }
}

/// Puts of values that no other operation touches, dealt to the clients in turn.
fn fill<S: Service>(dice: &mut Dice, values: u32) -> Vec<OpRow> {
    let mut times: Vec<u64> = (0..values).map(|_| dice.time_us(FILL_MS.0, FILL_MS.1)).collect();
    times.sort_unstable();
    let row = |(number, at_us): (u32, u64)| {
        let call = write::<S>(&format!("s{number}"), &format!("state{number}"), STATE_VALUE_BYTES);
        OpRow { at_us, client: 1 + number % CLIENTS, call }
    };
    (0..).zip(times).map(row).collect()
}

/// So many puts per second to a few keys, dealt to the clients in turn.
fn writes<S: Service>(
    dice: &mut Dice,
    span_ms: (u32, u32),
    per_s: u32,
    value_bytes: u32,
) -> Vec<OpRow> {
    let count = (span_ms.1 - span_ms.0) * per_s / 1000;
    let mut times: Vec<u64> = (0..count).map(|_| dice.time_us(span_ms.0, span_ms.1)).collect();
    times.sort_unstable();
    let row = |(number, at_us): (u32, u64)| {
        let place = format!("k{}", dice.between(1, 4));
        let call = write::<S>(&place, &format!("v{number}"), value_bytes);
        OpRow { at_us, client: 1 + number % CLIENTS, call }
    };
    (0..).zip(times).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use crate::kv::KeyValue;

    #[test]
    fn absence_plans_are_valid_and_not_rare() {
        let is_absence = |plan: &crate::plan::Plan| plan.cluster.log_kib != 4096;
        let plans: Vec<_> = (0..4000).map(generate::<KeyValue>).filter(is_absence).collect();
        assert!((8..40).contains(&plans.len()), "{}", plans.len());
        for plan in plans {
            plan.check().unwrap_or_else(|problem| panic!("{}: {problem}", plan.name));
            assert_eq!(plan.faults.len(), 1);
            assert!(plan.ops.len() > 300, "{}", plan.ops.len());
        }
    }
}
