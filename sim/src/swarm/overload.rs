//! Overload: far more requests than the disks can carry, on time whether or not earlier ones are
//! answered, and repeated when they are not.
//!
//! Few plans are of this kind, and they are of nothing else: no fault, no change of the membership,
//! a perfect network. What limits the cluster is the bandwidth of its disks. First its clients ask
//! for a little less than that allows, then for many times as much, then for nothing, and in the end
//! for the first amount again: see [`Load`].

use crate::plan::{Cluster, Core, Cpu, Load, Network, OpRow, Plan};

use super::dice::{Dice, Purpose, us};
use super::shape::{prompt, reliable};
use super::workload::{has_writes, write};
use crate::service::Service;

/// Share of these plans, as one in this number. Each takes eight times as long as an average plan.
const ONE_IN: u32 = 200;
/// What a command takes on a disk beside its value, in bytes: key, session, record, hard state.
const COMMAND_BYTES: u32 = 128;
/// The steady load, in percent of what the disks can carry.
const STEADY_PERCENT: u32 = 80;
/// How long a client waits for the answer to an operation, in milliseconds: a little longer than a node
/// does, as clients of production do. What a leader admits before it knows that there is too much is
/// answered within that time.
const GIVE_UP_MS: u32 = 3500;
/// Clients, and operations of each that may be under way: far more than the cluster can answer in the
/// time that a client waits.
const CLIENTS: u32 = 8;
const IN_FLIGHT: u32 = 24;
/// When each of them opens its session, with a small command: there is a leader by then. Later, the
/// sessions of an overload would take what its commands are to have.
const OPENING_MS: (u32, u32) = (1500, 3500);
/// When the clients begin.
const BEGIN_MS: u32 = 4000;
/// How long they work before anything is counted: each has to open its sessions.
const WARM_UP_MS: u32 = 500;
/// How long the cluster may take to work off what the overload has left.
const RECOVERY_MS: u32 = 3000;

/// Makes some plans into one of an overload.
pub(super) fn apply<S: Service>(seed: u64, plan: &mut Plan) {
    let dice = &mut Dice::new(seed, Purpose::Overload);
    if dice.below(ONE_IN) != 0 || !has_writes::<S>() {
        return;
    }
    let per_s = dice.between(15, 30);
    let value_bytes = dice.between(2048, 8192);
    let factor = dice.between(4, 10);
    let steady_ms = dice.between(3000, 4000);
    let overload_ms = dice.between(3000, 5000);
    let keys = dice.between(1, 4);

    let begin = BEGIN_MS + WARM_UP_MS;
    let overload = begin + steady_ms;
    let relief = overload + overload_ms;
    let recovered = relief + RECOVERY_MS;
    let end = recovered + steady_ms;
    let steady_load = per_s * STEADY_PERCENT / 100;
    let parts = [
        (BEGIN_MS, overload, steady_load),
        (overload, relief, factor * per_s),
        (recovered - WARM_UP_MS, end, steady_load),
    ];
    plan.ops = operations::<S>(dice, &parts, keys, value_bytes);
    plan.faults.clear();
    plan.cpu = Cpu::default();
    plan.disk.size_kib = 0;
    plan.disk.kib_per_s = per_s * (value_bytes + COMMAND_BYTES) / 1024;
    plan.network = Network { kib_per_s: 0, ..reliable(&plan.network) };
    plan.clients = prompt(&plan.clients, CLIENTS, IN_FLIGHT);
    plan.clients.give_up_us = us(GIVE_UP_MS);
    plan.cluster.learners = 0;
    plan.cluster.sessions = 2 * CLIENTS * IN_FLIGHT;
    plan.cluster.session_kib = Cluster::default().session_kib;
    plan.cluster.log_kib = Cluster::default().log_kib;
    // Each operation under way has a session, so that a snapshot takes longer here than a hundred
    // commands do. What is compared is the load, and not how often a state is saved under it.
    plan.cluster.snapshot_every = 2000;
    plan.end.core = Core::All;
    // What the overload has left takes its time, one client after the other.
    plan.end.bound_us = 90_000_000;
    plan.load = Load {
        steady_us: us(begin),
        overload_us: us(overload),
        relief_us: us(relief),
        recovered_us: us(recovered),
        end_us: us(end),
    };
}

/// So many puts per second in each part, from and to a time in milliseconds, dealt to the clients in
/// turn.
fn operations<S: Service>(
    dice: &mut Dice,
    parts: &[(u32, u32, u32)],
    keys: u32,
    value_bytes: u32,
) -> Vec<OpRow> {
    let (from_ms, to_ms) = OPENING_MS;
    let lanes = CLIENTS * IN_FLIGHT;
    let opening = |lane: u32| {
        let call = write::<S>("k1", &format!("w{lane}"), 8);
        let at_us = us(from_ms + (to_ms - from_ms) * lane / lanes);
        OpRow { at_us, client: 1 + lane % CLIENTS, call }
    };
    let mut rows: Vec<OpRow> = (0..lanes).map(opening).collect();
    for &(from_ms, to_ms, per_s) in parts {
        let count = (to_ms - from_ms) * per_s / 1000;
        let mut times: Vec<u64> = (0..count).map(|_| dice.time_us(from_ms, to_ms - 1)).collect();
        times.sort_unstable();
        for at_us in times {
            let number = rows.len() as u32;
            let place = format!("k{}", dice.between(1, keys));
            let call = write::<S>(&place, &format!("v{number}"), value_bytes);
            rows.push(OpRow { at_us, client: 1 + number % CLIENTS, call });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use crate::kv::KeyValue;
    use crate::plan::Phase;

    #[test]
    fn an_overload_is_many_times_the_steady_load() {
        let plans: Vec<_> =
            (0..4000).map(generate::<KeyValue>).filter(|plan| plan.load.is_judged()).collect();
        assert!((10..40).contains(&plans.len()), "{}", plans.len());
        for plan in plans {
            plan.check().unwrap_or_else(|problem| panic!("{}: {problem}", plan.name));
            let rate = |phase| {
                let (begin_us, end_us) = plan.load.span_us(phase);
                let due = plan.ops.iter().filter(|row| (begin_us..end_us).contains(&row.at_us));
                due.count() as f64 / (end_us - begin_us) as f64
            };
            let (steady, overload) = (rate(Phase::Steady), rate(Phase::Overload));
            assert!((4.0..14.0).contains(&(overload / steady)), "{}", overload / steady);
            assert!((0.7..1.3).contains(&(rate(Phase::Recovered) / steady)));
            assert!(plan.faults.is_empty());
        }
    }
}
