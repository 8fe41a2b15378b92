//! Weight: how fast the disks transfer, and how much the cluster has to keep.
//!
//! Real clusters fail where work is large, not only where it is lost: a snapshot that takes a second to
//! sync stands in the way of votes and heartbeats. What matters is how the time for the state compares
//! with an election timeout, so both are drawn as times: states of a few dozen KiB on a disk that is a
//! thousand times slower than one of production behave as states of a few dozen MiB do there, and cost
//! the simulator a thousandth.

use crate::plan::{Call, Cluster, Cpu, Op, OpRow, Value};

use super::dice::{Dice, Purpose};

/// The slowest and the fastest disk, in KiB per second.
const SLOWEST: u32 = 16;
const FASTEST: u32 = 2048;
/// Bytes of a value of which large states consist.
const VALUE_BYTES: u32 = 1024;
/// The smallest and the largest state, in values.
const LEAST_VALUES: u32 = 16;
const MOST_VALUES: u32 = 160;
/// A sync of the largest value takes at most this share of the shortest election timeout: a disk on
/// which a single write takes longer than that can serve no cluster with these timeouts.
const WRITES_PER_TIMEOUT: u64 = 4;

/// What is drawn.
pub(super) struct Weight {
    /// Bandwidth of the disks, in KiB per second; 0 for disks without weight.
    pub kib_per_s: u32,
    /// How long the nodes take.
    pub cpu: Cpu,
    /// Puts that fill the state before anything else happens.
    pub fill: Vec<OpRow>,
}

/// Draws the weight of a plan: a third of them have none, and some of the others have a large state.
pub(super) fn draw(seed: u64, cluster: &Cluster, clients: u32, ops: &[OpRow]) -> Weight {
    let dice = &mut Dice::new(seed, Purpose::Weight);
    if dice.percent(35) {
        return Weight { kib_per_s: 0, cpu: Cpu::default(), fill: Vec::new() };
    }
    let is_heavy = dice.percent(25);
    let drawn = dice.scaled(SLOWEST, FASTEST);
    // A state that takes between a tenth of a second and two seconds to write.
    let values = (drawn * dice.scaled(100, 2000) / VALUE_BYTES).clamp(LEAST_VALUES, MOST_VALUES);
    let fill = if is_heavy { fill(dice, values, clients) } else { Vec::new() };
    let sizes = ops.iter().chain(&fill).filter_map(|row| match &row.call.op {
        Op::Put { value, .. } | Op::Cas { new: value, .. } => Some(value.bytes().len() as u64),
        _ => None,
    });
    let largest = sizes.max().unwrap_or(0);
    let timeout_us = u64::from(cluster.election_ticks[0]) * cluster.tick_us;
    let least = largest * WRITES_PER_TIMEOUT * 1_000_000 / timeout_us / 1024;
    let cpu = if is_heavy && dice.percent(50) { cpu(dice) } else { Cpu::default() };
    Weight { kib_per_s: drawn.max(least as u32), cpu, fill }
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
fn fill(dice: &mut Dice, values: u32, clients: u32) -> Vec<OpRow> {
    let row = |number: u32| {
        let value = Value::padded(format!("state{number}"), VALUE_BYTES);
        let call = Call::from(Op::Put { key: format!("s{number}"), value });
        OpRow { at_us: dice.time_us(0, 500), client: 1 + number % clients, call }
    };
    let mut rows: Vec<OpRow> = (0..values).map(row).collect();
    rows.sort_by_key(|row| row.at_us);
    rows
}
