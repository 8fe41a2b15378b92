//! Weight: how fast the disks transfer, and how much the cluster has to keep.
//!
//! Real clusters fail where work is large, not only where it is lost: a snapshot that takes a second to
//! sync stands in the way of votes and heartbeats. What matters is how the time for the state compares
//! with an election timeout, so both are drawn as times: states of a few dozen KiB on a disk that is a
//! thousand times slower than one of production behave as states of a few dozen MiB do there, and cost
//! the simulator a thousandth.

use crate::plan::{Call, Cluster, Cpu, OpRow};
use crate::service::{Service, call};

use super::dice::{Dice, Purpose};
use super::shape::largest_write;
use super::workload::{has_writes, write};

/// The slowest and the fastest disk, in KiB per second.
const SLOWEST: u32 = 16;
const FASTEST: u32 = 2048;
/// Bytes of a value of which large states consist.
const VALUE_BYTES: u32 = 1024;
/// The smallest and the largest state, in values.
const LEAST_VALUES: u32 = 16;
const MOST_VALUES: u32 = 160;
/// Share of the plans with weight that have a large state, in percent. Such a plan takes twice as long as
/// others.
const HEAVY: u32 = 12;
/// Share of the plans with a large state that have small disks, in percent.
const SMALL_DISKS: u32 = 50;
/// A sync of the largest value takes at most this share of the shortest election timeout: a disk on
/// which a single write takes longer than that can serve no cluster with these timeouts.
const WRITES_PER_TIMEOUT: u64 = 4;

/// What is drawn.
pub(super) struct Weight {
    /// Bandwidth of the disks, in KiB per second; 0 for disks without weight.
    pub kib_per_s: u32,
    /// How long the nodes take.
    pub cpu: Cpu,
    /// Size of the disks, in KiB; 0 if there is always room.
    pub size_kib: u32,
    /// Puts that fill the state before anything else happens.
    pub fill: Vec<OpRow>,
}

/// Draws the weight of a plan: a third of them have none, and some of the others, and all that grow, have
/// a large state, half of these on disks that are not much larger.
pub(super) fn draw<S: Service>(
    seed: u64,
    cluster: &Cluster,
    clients: u32,
    horizon_us: u64,
    ops: &[OpRow],
    grows: bool,
) -> Weight {
    let dice = &mut Dice::new(seed, Purpose::Weight);
    if dice.percent(35) && !grows {
        return Weight { kib_per_s: 0, cpu: Cpu::default(), size_kib: 0, fill: Vec::new() };
    }
    let is_heavy = (dice.percent(HEAVY) || grows) && has_writes::<S>();
    let drawn = dice.scaled(SLOWEST, FASTEST);
    // A state that takes between a tenth of a second and two seconds to write.
    let values = (drawn * dice.scaled(100, 2000) / VALUE_BYTES).clamp(LEAST_VALUES, MOST_VALUES);
    let mut fill = if is_heavy { fill::<S>(dice, values, clients) } else { Vec::new() };
    let largest = largest_write::<S>(ops).max(largest_write::<S>(&fill));
    let timeout_us = u64::from(cluster.election_ticks[0]) * cluster.tick_us;
    let least = largest * WRITES_PER_TIMEOUT * 1_000_000 / timeout_us / 1024;
    let cpu = if is_heavy && dice.percent(50) { cpu(dice) } else { Cpu::default() };
    let mut size_kib = 0;
    let dice = &mut Dice::new(seed, Purpose::DiskSize);
    if is_heavy && dice.percent(SMALL_DISKS) {
        let state_kib = values * VALUE_BYTES / 1024;
        size_kib = state_kib * dice.between(12, 30) / 10 + log_kib(cluster);
        fill.extend(turnover::<S>(dice, values, clients, horizon_us));
    }
    let kib_per_s = drawn.max(least as u32);
    Weight { kib_per_s, cpu, size_kib, fill }
}

/// Size of the disk that a log needs, in KiB: below this no node can work. Some segments, and some of the
/// largest values that are common.
fn log_kib(cluster: &Cluster) -> u32 {
    8 * cluster.segment_kib + 64
}

/// Deletes of many of the values that fill the state, then puts of other ones: a full disk has to
/// become one that is not full.
fn turnover<S: Service>(dice: &mut Dice, values: u32, clients: u32, horizon_us: u64) -> Vec<OpRow> {
    let horizon_ms = (horizon_us / 1000) as u32;
    let mut rows = Vec::new();
    let mut push = |at_us: u64, call: Call| {
        let client = 1 + rows.len() as u32 % clients;
        rows.push(OpRow { at_us, client, call });
    };
    let deleted = dice.between(30, 100);
    for number in 0..values {
        if dice.percent(deleted) {
            let at_us = dice.time_us(500, horizon_ms / 2);
            if let Some(op) = S::erase(&format!("s{number}")) {
                push(at_us, call::<S>(&op));
            }
        }
        if dice.percent(50) {
            let at_us = dice.time_us(horizon_ms / 2, horizon_ms);
            let (place, word) = (format!("t{number}"), format!("again{number}"));
            push(at_us, write::<S>(&place, &word, VALUE_BYTES));
        }
    }
    rows
}

/// A thousandth of the bytes takes as long as in production, where a thread encodes or restores 200 MB/s
/// to 5 GB/s, and copies ten times as much.
fn cpu(dice: &mut Dice) -> Cpu {
    Cpu {
        input_us: dice.scaled(1, 50).into(),
        us_per_kib: dice.scaled(5, 100).into(),
        work_us_per_kib: dice.scaled(200, 5000).into(),
    }
}

/// Puts of values that no other operation touches, dealt to the clients in turn.
fn fill<S: Service>(dice: &mut Dice, values: u32, clients: u32) -> Vec<OpRow> {
    let row = |number: u32| {
        let call = write::<S>(&format!("s{number}"), &format!("state{number}"), VALUE_BYTES);
        OpRow { at_us: dice.time_us(0, 500), client: 1 + number % clients, call }
    };
    let mut rows: Vec<OpRow> = (0..values).map(row).collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}
