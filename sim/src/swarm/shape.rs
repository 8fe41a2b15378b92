//! The shape of the cluster, its timings, the network and the disks of a random plan.
//!
//! Limits are drawn small (snapshots every few dozen entries, segments of a few KiB), so that
//! compaction, rotation and snapshots, rare in production, happen in every run.

use crate::plan::{Clients, Cluster, Delay, Disk, Network, OpRow, Wire};
use crate::service::{Service, parsed};

use super::dice::{Dice, Purpose};

/// Draws the members and their settings.
pub(super) fn cluster(seed: u64) -> Cluster {
    let dice = &mut Dice::new(seed, Purpose::Shape);
    let nodes = dice.weighted(&[(5, 1), (8, 2), (39, 3), (38, 5), (10, 7)]);
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
        sessions: if dice.percent(15) { dice.between(4, 10) } else { MANY_SESSIONS },
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

/// Draws the links in calm weather. Many seeds have no losses at all, because they would hide what
/// only a perfect network shows; unless no link is `perfect`.
pub(super) fn network(seed: u64, perfect: bool) -> Network {
    let dice = &mut Dice::new(seed, Purpose::Weather);
    let latency = Delay {
        min_us: u64::from(dice.scaled(1, 100)) * 100,
        mean_extra_us: u64::from(dice.scaled(1, 100)) * 100,
    };
    let mut share = |off_percent, most_per_mille| {
        if dice.percent(off_percent) && perfect {
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
        ..paths(seed, latency)
    }
}

/// The longest average latency of a link, in microseconds. Far below an election timeout, because it
/// stays when all is healed.
const SLOWEST_LINK_US: u64 = 20_000;

/// Draws how links differ, what their connections carry, how often bytes are damaged, and whether
/// senders hear of losses. At least four chunks of a snapshot must pass in a second, or no transfer
/// ever ends.
fn paths(seed: u64, latency: Delay) -> Network {
    let dice = &mut Dice::new(seed, Purpose::Paths);
    let widest = SLOWEST_LINK_US / (latency.min_us + latency.mean_extra_us).max(1);
    let spread = if widest < 2 || dice.percent(40) { 1 } else { dice.scaled(2, widest as u32) };
    let bounded = dice.percent(30);
    let (kib_per_s, queue_ms) = (dice.scaled(128, 1024), dice.scaled(20, 1000));
    let (garbles, per_mille) = (dice.percent(15), dice.scaled(1, 20));
    let tells = dice.percent(50);
    let share = dice.pick(&[0.05, 0.25, 1.0]);
    let usual = Network::default();
    Network {
        spread,
        kib_per_s: if bounded { kib_per_s } else { 0 },
        queue_us: if bounded { u64::from(queue_ms) * 1000 } else { usual.queue_us },
        garble: if garbles { f64::from(per_mille) / 1000.0 } else { 0.0 },
        tells: if tells { share } else { 0.0 },
        ..usual
    }
}

/// The same network without messages that are lost, doubled, damaged or very late by chance.
pub(super) fn reliable(network: &Network) -> Network {
    let network = network.clone();
    Network { drop: 0.0, duplicate: 0.0, garble: 0.0, heavy_tail: 0.0, tells: 0.0, ..network }
}

/// Clients that begin each operation as soon as it is due, with up to `in_flight` of them each under way.
pub(super) fn prompt(clients: &Clients, count: u32, in_flight: u32) -> Clients {
    let clients = clients.clone();
    Clients { count, in_flight, operators: 1, think_us: 0, backs_off: true, ..clients }
}

/// Bytes of the values of the operation that writes most.
pub(super) fn largest_write<S: Service>(ops: &[OpRow]) -> u64 {
    let ops = ops.iter().filter_map(|row| parsed::<S>(&row.call.op));
    ops.map(|op| S::written_bytes(&op)).max().unwrap_or(0)
}

/// Gives the paths room for the largest value several times a second: its client sends it again and
/// again, and each time it goes into the log and to every follower.
pub(super) fn widen<S: Service>(network: &mut Network, ops: &[OpRow]) {
    let largest_kib = largest_write::<S>(ops).div_ceil(1024) as u32;
    if network.kib_per_s > 0 {
        network.kib_per_s = network.kib_per_s.max(32 * largest_kib);
    }
}

/// Draws how long the disks take.
pub(super) fn disk(seed: u64) -> Disk {
    let dice = &mut Dice::new(seed, Purpose::Timing);
    let mut delay = |most_us| Delay {
        min_us: dice.scaled(5, most_us).into(),
        mean_extra_us: dice.scaled(5, most_us).into(),
    };
    Disk { write: delay(200), sync: delay(5000), read: delay(500), ..Disk::default() }
}

/// Draws how many operations a client, and the operator, may have under way at once. Most clients
/// wait for each answer. The others pile up requests while nobody answers, as users do.
fn hands(seed: u64) -> (u32, u32) {
    let dice = &mut Dice::new(seed, Purpose::Hands);
    let in_flight = if dice.percent(70) { 1 } else { dice.scaled(2, 16) };
    let operators = if dice.percent(70) { 1 } else { dice.between(2, 4) };
    (in_flight, operators)
}

/// How many sessions a cluster remembers that remembers enough, at least.
const MANY_SESSIONS: u32 = 64;

/// Makes the sessions fit the clients. Where few are remembered, clients lose theirs now and then; if
/// each had many operations under way there, they would do nothing but take each other's sessions away.
pub(super) fn fit(cluster: &mut Cluster, clients: &mut Clients) {
    if cluster.sessions < MANY_SESSIONS {
        clients.in_flight = 1;
    } else {
        cluster.sessions = cluster.sessions.max(2 * clients.count * clients.in_flight);
    }
}

/// Draws how many clients there are and how patient they are.
pub(super) fn clients(seed: u64) -> Clients {
    let (in_flight, operators) = hands(seed);
    let dice = &mut Dice::new(seed, Purpose::Clients);
    Clients {
        in_flight,
        operators,
        count: dice.between(2, 8),
        retry_us: u64::from(dice.between(10, 60)) * 10_000,
        give_up_us: u64::from(dice.between(10, 40)) * 100_000,
        backs_off: false,
        think_us: if dice.percent(70) { 0 } else { u64::from(dice.between(1, 50)) * 1000 },
    }
}
