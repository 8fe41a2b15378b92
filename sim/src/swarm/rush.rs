//! Rush: a calm cluster has so much to write at once that its disks work for longer than an election timeout.
//!
//! Nothing else happens: no fault, a perfect network, a leader that is well in office. It must stay there,
//! although the logs and the snapshots of all members wait for their disks. In other plans almost any fault
//! excuses an election, so that one without a cause is seldom noticed.

use crate::plan::{Call, Core, Cpu, Network, OpRow, Plan};

use super::dice::{Dice, Purpose, us};
use super::shape::{prompt, reliable};
use super::workload::{has_writes, write};
use crate::service::{Service, call};

/// Share of these plans, as one in this number.
const ONE_IN: u32 = 200;
/// For how long the disks are busy with what comes at once, in milliseconds.
const BUSY_MS: (u32, u32) = (500, 3000);
/// A sync of one command takes at most this part of the shortest election timeout.
const WRITES_PER_TIMEOUT: u32 = 4;
/// Commands that come at once, at most.
const MOST_COMMANDS: u32 = 160;
/// Bytes of a command on a disk beside its value.
const COMMAND_BYTES: u32 = 128;
/// Clients, and operations of each that may be under way: all that comes at once.
const CLIENTS: u32 = 4;
const IN_FLIGHT: u32 = MOST_COMMANDS.div_ceil(CLIENTS);
/// When the clients open their sessions, and when the rush begins: the leader has settled by then.
const OPENING_MS: (u32, u32) = (1000, 2000);
const BEGIN_MS: (u32, u32) = (4000, 5000);
/// How long after the rush the last command comes.
const AFTER_MS: u32 = 1000;

/// Makes some plans into one of a rush.
pub(super) fn apply<S: Service>(seed: u64, plan: &mut Plan) {
    let dice = &mut Dice::new(seed, Purpose::Rush);
    if dice.below(ONE_IN) != 0 || !has_writes::<S>() {
        return;
    }
    let timeout_ms =
        (u64::from(plan.cluster.election_ticks[0]) * plan.cluster.tick_us / 1000) as u32;
    let busy_ms = dice.between(BUSY_MS.0, BUSY_MS.1).max(2 * timeout_ms);
    let least = busy_ms * WRITES_PER_TIMEOUT / timeout_ms.max(1) + 1;
    let commands = dice.between(least.min(MOST_COMMANDS), MOST_COMMANDS);
    let value_bytes = dice.scaled(512, 4096);

    plan.ops = operations::<S>(dice, commands, value_bytes, busy_ms);
    plan.faults.clear();
    plan.cpu = Cpu::default();
    plan.disk.size_kib = 0;
    plan.disk.kib_per_s = (commands * (value_bytes + COMMAND_BYTES) / busy_ms * 1000 / 1024).max(1);
    plan.network = Network { kib_per_s: 0, ..reliable(&plan.network) };
    plan.clients = prompt(&plan.clients, CLIENTS, IN_FLIGHT);
    plan.cluster.sessions = 2 * CLIENTS * IN_FLIGHT;
    plan.end.core = Core::All;
}

/// A small put of each lane that opens its session, the rush, and a get at the end.
fn operations<S: Service>(
    dice: &mut Dice,
    commands: u32,
    value_bytes: u32,
    busy_ms: u32,
) -> Vec<OpRow> {
    let row =
        |at_us: u64, number: u32, call: Call| OpRow { at_us, client: 1 + number % CLIENTS, call };
    let put = |number: u32, bytes: u32| {
        write::<S>(&format!("k{}", number % 8), &format!("v{number}"), bytes)
    };
    let opening_us = |lane: u32| us(OPENING_MS.0 + (OPENING_MS.1 - OPENING_MS.0) * lane / commands);
    let begin_us = us(dice.between(BEGIN_MS.0, BEGIN_MS.1));
    let mut rows: Vec<OpRow> =
        (0..commands).map(|lane| row(opening_us(lane), lane, put(lane, 8))).collect();
    rows.extend(
        (0..commands).map(|number| row(begin_us, number, put(commands + number, value_bytes))),
    );
    let end_us = begin_us + us(busy_ms + AFTER_MS);
    rows.extend(S::read("k0").map(|op| row(end_us, 0, call::<S>(&op))));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use crate::kv::KeyValue;

    #[test]
    fn rush_plans_are_valid_and_not_rare() {
        let is_rush = |plan: &crate::plan::Plan| plan.clients.in_flight == super::IN_FLIGHT;
        let plans: Vec<_> = (0..4000).map(generate::<KeyValue>).filter(is_rush).collect();
        assert!((8..40).contains(&plans.len()), "{}", plans.len());
        for plan in plans {
            plan.check().unwrap_or_else(|problem| panic!("{}: {problem}", plan.name));
            assert!(plan.faults.is_empty() && plan.disk.kib_per_s > 0);
        }
    }
}
