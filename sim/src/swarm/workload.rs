//! When the clients of a random plan do something, and what, unless the service has a workload of its own.

use stormkv::types::NodeId;

use crate::plan::{self, Call, Clients, Cluster, Manner, OpRow};
use crate::service::{Service, call, parsed};

use super::dice::{Dice, Purpose};

/// The shortest and the longest burst, in milliseconds: from one batch of a leader to some elections.
const BURST_MS: (u32, u32) = (5, 1000);

/// When operations start, in order: spread over the horizon, or in bursts that pile up entries. How long
/// these are, and how silent it is between them, differs from plan to plan.
/// Also returns when the bursts begin, because faults like to strike there.
pub(super) fn times(seed: u64, horizon_us: u64) -> (Vec<u64>, Vec<u64>) {
    let dice = &mut Dice::new(seed, Purpose::Times);
    let horizon_ms = (horizon_us / 1000) as u32;
    let count = dice.between(60, 200);
    let mut bursts = Vec::new();
    if dice.percent(50) {
        bursts = (0..dice.between(2, 6)).map(|_| dice.time_us(0, horizon_ms)).collect();
    }
    let special = &mut Dice::new(seed, Purpose::Bursts);
    let burst_ms = special.scaled(BURST_MS.0, BURST_MS.1);
    let between_percent = special.between(0, 50);
    let mut times: Vec<u64> = (0..count)
        .map(|_| match bursts.is_empty() || dice.percent(between_percent) {
            true => dice.time_us(0, horizon_ms),
            false => dice.pick(&bursts) + dice.time_us(0, burst_ms),
        })
        .collect();
    times.sort_unstable();
    (times, bursts)
}

/// The call of a write to this place, by a service that has writes of any size.
pub(super) fn write<S: Service>(place: &str, word: &str, bytes: u32) -> Call {
    call::<S>(&S::write(place, word, bytes).expect("this service has such writes"))
}

/// Returns whether the service has writes of any size.
pub(super) fn has_writes<S: Service>() -> bool {
    S::write("k", "v", 16).is_some()
}

/// Draws one operation of some client for each of these times.
pub fn usual<S: Service>(
    seed: u64,
    times: &[u64],
    cluster: &Cluster,
    clients: &Clients,
) -> Vec<OpRow> {
    let dice = &mut Dice::new(seed, Purpose::Operations);
    let pin_percent = if dice.percent(30) { dice.between(10, 60) } else { 0 };
    let nodes = cluster.nodes + cluster.learners;
    let mut rows = Vec::with_capacity(times.len());
    for (number, at_us) in (1..).zip(times) {
        let client = dice.between(1, clients.count);
        let op = S::generate(dice, number);
        let pinned = dice.percent(pin_percent);
        let node = pinned.then(|| NodeId(dice.between(1, nodes).into()));
        rows.push(OpRow { at_us: *at_us, client, call: Call { node, ..call::<S>(&op) } });
    }
    let special = &mut Dice::new(seed, Purpose::Keys);
    if special.percent(20) {
        restart_clients(special, &mut rows, clients.count);
    }
    rows
}

/// Some clients die and come back without their sessions: most of them in the middle of something.
pub fn restart_clients(dice: &mut Dice, rows: &mut Vec<OpRow>, clients: u32) {
    for _ in 0..dice.between(1, 6) {
        let OpRow { at_us, client, .. } = rows[dice.below(rows.len() as u32) as usize];
        let in_the_middle = dice.percent(70) && client > 0;
        let client = if in_the_middle { client } else { dice.between(1, clients) };
        let at_us = at_us + dice.scaled_us(1, 100);
        rows.push(OpRow { at_us, client, call: plan::Op::Restart.into() });
    }
}

/// Share of the plans in which something is asked for in another manner, in percent.
pub const VARIED: u32 = 40;
/// Share of these whose clients use a number again for another command, in percent.
pub const REUSING: u32 = 15;

/// Has some operations asked for in another manner: commands without a session or with a number that was
/// used before, stale reads.
pub fn manners<S: Service>(seed: u64, rows: &mut [OpRow]) {
    let dice = &mut Dice::new(seed, Purpose::Surface);
    if !dice.percent(VARIED) {
        return;
    }
    let mut share = |most| if dice.percent(50) { dice.between(5, most) } else { 0 };
    let (no_session, stale) = (share(70), share(70));
    let reused = if dice.percent(REUSING) { dice.between(5, 30) } else { 0 };
    for call in rows.iter_mut().map(|row| &mut row.call) {
        let Some(op) = parsed::<S>(&call.op) else { continue };
        call.manner = match S::is_read(&op) {
            true if dice.percent(stale) => Manner::Stale,
            false if dice.percent(no_session) => Manner::NoSession,
            false if dice.percent(reused) => Manner::Reused,
            _ => call.manner,
        };
    }
}
