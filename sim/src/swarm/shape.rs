//! The shape of the cluster, its timings, the network and the disks of a random plan.
//!
//! Limits are drawn small (snapshots every few dozen entries, segments of a few KiB), so that
//! compaction, rotation and snapshots, rare in production, happen in every run.

use crate::plan::{Clients, Cluster, Delay, Disk, Network, Wire};

use super::dice::{Dice, Purpose};

/// Draws the members and their settings.
pub(super) fn cluster(seed: u64) -> Cluster {
    let dice = &mut Dice::new(seed, Purpose::Shape);
    let nodes = dice.weighted(&[(5, 1), (45, 3), (40, 5), (10, 7)]);
    let learners = dice.weighted(&[(80, 0), (15, 1), (5, 2)]);
    let election_least = dice.between(8, 25);
    Cluster {
        nodes,
        learners,
        election_ticks: [election_least, election_least + dice.between(5, 2 * election_least)],
        heartbeat_ticks: dice.between(1, 3),
        snapshot_every: dice.scaled(10, 200).into(),
        keep_entries: if dice.percent(30) { 0 } else { dice.scaled(1, 50).into() },
        segment_kib: dice.weighted(&[(40, 4), (25, 8), (20, 16), (15, 64)]),
        sessions: if dice.percent(15) { dice.between(4, 10) } else { 64 },
        chunk_bytes: dice.scaled(128, 16384),
        wire: if dice.percent(10) { Wire::Encoded } else { Wire::Value },
        batch_us: batch_us(seed),
        ..Cluster::default()
    }
}

/// Draws how long nodes collect their inputs. Half of the seeds do not: there the checkers see every
/// step by itself. The longest time is half a tick, so that elections go on.
fn batch_us(seed: u64) -> u64 {
    let dice = &mut Dice::new(seed, Purpose::Batching);
    if dice.percent(50) { 0 } else { u64::from(dice.scaled(1, 100)) * 50 }
}

/// Draws the links in calm weather.
pub(super) fn network(seed: u64) -> Network {
    let dice = &mut Dice::new(seed, Purpose::Weather);
    let latency = Delay {
        min_us: u64::from(dice.scaled(1, 100)) * 100,
        mean_extra_us: u64::from(dice.scaled(1, 100)) * 100,
    };
    // Many seeds have no losses at all: they would hide what only a perfect network shows.
    let mut share = |off_percent, most_per_mille| {
        if dice.percent(off_percent) {
            0.0
        } else {
            f64::from(dice.scaled(1, most_per_mille)) / 1000.0
        }
    };
    Network {
        latency,
        heavy_tail: share(70, 50),
        drop: share(60, 100),
        duplicate: share(60, 100),
        fifo: dice.percent(30),
    }
}

/// Draws how long the disks take.
pub(super) fn disk(seed: u64) -> Disk {
    let dice = &mut Dice::new(seed, Purpose::Timing);
    let mut delay = |most_us| Delay {
        min_us: dice.scaled(5, most_us).into(),
        mean_extra_us: dice.scaled(5, most_us).into(),
    };
    Disk { write: delay(200), sync: delay(5000), read: delay(500) }
}

/// Draws how many clients there are and how patient they are.
pub(super) fn clients(seed: u64) -> Clients {
    let dice = &mut Dice::new(seed, Purpose::Clients);
    Clients {
        count: dice.between(2, 8),
        retry_us: u64::from(dice.between(10, 60)) * 10_000,
        give_up_us: u64::from(dice.between(10, 40)) * 100_000,
        think_us: if dice.percent(70) { 0 } else { u64::from(dice.between(1, 50)) * 1000 },
    }
}
