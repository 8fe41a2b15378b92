//! Goes back to the default of every setting that does not matter.

use super::search::Search;
use crate::plan::{Clients, Cluster, Core, Cpu, Disk, End, Load, Network, Plan};

/// Puts one or more settings back.
type Reset = fn(&mut Plan);

/// Whole sections. The number of nodes is not a matter of taste.
const SECTIONS: &[Reset] = &[
    |plan| {
        let (nodes, learners) = (plan.cluster.nodes, plan.cluster.learners);
        plan.cluster = Cluster { nodes, learners, ..Cluster::default() };
    },
    |plan| plan.network = Network::default(),
    |plan| plan.disk = Disk::default(),
    |plan| plan.cpu = Cpu::default(),
    |plan| plan.clients = Clients { count: plan.clients.count, ..Clients::default() },
    |plan| plan.clients = Clients::default(),
    |plan| {
        let (bound_us, heal_at_us) = (plan.end.bound_us, plan.end.heal_at_us);
        plan.end = End { bound_us, heal_at_us, ..End::default() };
    },
];

/// Single settings.
const SINGLE: &[Reset] = &[
    |plan| plan.cluster.tick_us = Cluster::default().tick_us,
    |plan| plan.cluster.election_ticks = Cluster::default().election_ticks,
    |plan| plan.cluster.heartbeat_ticks = Cluster::default().heartbeat_ticks,
    |plan| plan.cluster.snapshot_every = Cluster::default().snapshot_every,
    |plan| plan.cluster.keep_entries = Cluster::default().keep_entries,
    |plan| plan.cluster.log_kib = Cluster::default().log_kib,
    |plan| plan.cluster.segment_kib = Cluster::default().segment_kib,
    |plan| plan.cluster.sessions = Cluster::default().sessions,
    |plan| plan.cluster.session_kib = Cluster::default().session_kib,
    |plan| plan.cluster.chunk_bytes = Cluster::default().chunk_bytes,
    |plan| plan.cluster.wire = Cluster::default().wire,
    |plan| plan.cluster.batch_us = Cluster::default().batch_us,
    |plan| plan.cluster.backup_keys = Cluster::default().backup_keys,
    |plan| plan.cluster.backup_keys = plan.cluster.backup_keys.min(1),
    |plan| plan.network.latency = Network::default().latency,
    |plan| plan.network.heavy_tail = 0.0,
    |plan| plan.network.drop = 0.0,
    |plan| plan.network.duplicate = 0.0,
    |plan| plan.network.fifo = Network::default().fifo,
    |plan| plan.network.spread = 1,
    |plan| plan.network.kib_per_s = 0,
    |plan| plan.network.queue_us = Network::default().queue_us,
    |plan| plan.network.garble = 0.0,
    |plan| plan.network.tells = 0.0,
    |plan| plan.disk.write = Disk::default().write,
    |plan| plan.disk.sync = Disk::default().sync,
    |plan| plan.disk.read = Disk::default().read,
    |plan| plan.disk.kib_per_s = 0,
    |plan| plan.disk.size_kib = 0,
    |plan| plan.clients.count = Clients::default().count,
    |plan| plan.clients.retry_us = Clients::default().retry_us,
    |plan| plan.clients.give_up_us = Clients::default().give_up_us,
    |plan| plan.clients.think_us = Clients::default().think_us,
    |plan| plan.clients.in_flight = Clients::default().in_flight,
    |plan| plan.clients.operators = Clients::default().operators,
    |plan| plan.clients.backs_off = false,
    |plan| plan.load = Load::default(),
    |plan| plan.end.core = Core::All,
    |plan| plan.end.beyond_quorum = false,
    |plan| plan.end.heal_at_us = None,
];

/// A stall is found by exceeding the bound, so only the search for something else may lower it.
const BOUND: Reset = |plan| plan.end.bound_us = End::default().bound_us;

/// Goes back to defaults: all at once, section by section, one by one.
pub(super) fn settings(search: &mut Search<'_>) {
    let bound: &[Reset] = if search.is_stall() { &[] } else { &[BOUND] };
    let resets = || SECTIONS.iter().chain(bound).chain(SINGLE);
    let all = |plan: &mut Plan| SECTIONS.iter().chain(bound).for_each(|reset| reset(plan));
    let mut candidate = search.best().clone();
    all(&mut candidate);
    search.try_all(vec![candidate]);
    for reset in resets() {
        let mut candidate = search.best().clone();
        reset(&mut candidate);
        search.try_all(vec![candidate]);
    }
    search.repeat(&smaller_limits);
}

/// Limits that are reached earlier, so that fewer operations reach them.
fn smaller_limits(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let mut push = |set: &dyn Fn(&mut Cluster)| {
        let mut candidate = plan.clone();
        set(&mut candidate.cluster);
        candidates.push(candidate);
    };
    let default = Cluster::default();
    for few in [1, 2, 3, 5, 10, 20, 50] {
        if plan.cluster.snapshot_every != default.snapshot_every {
            push(&|cluster| cluster.snapshot_every = few);
        }
    }
    for few in [0, 1, 5, 10] {
        if plan.cluster.keep_entries != default.keep_entries {
            push(&|cluster| cluster.keep_entries = few);
        }
    }
    for few in [1, 2, 4, 8] {
        if plan.cluster.sessions != default.sessions {
            push(&|cluster| cluster.sessions = few);
        }
        if plan.cluster.segment_kib != default.segment_kib {
            push(&|cluster| cluster.segment_kib = few);
        }
    }
    candidates
}

/// The plan with all defaults, with those of all sections but one, and with single ones.
pub(super) fn plainer(plan: &Plan) -> Vec<Plan> {
    let without = |skip: usize| {
        let mut candidate = plan.clone();
        let resets = SECTIONS.iter().enumerate().filter(|(at, _)| *at != skip);
        resets.for_each(|(_, reset)| reset(&mut candidate));
        candidate
    };
    let single = SINGLE.iter().map(|reset| {
        let mut candidate = plan.clone();
        reset(&mut candidate);
        candidate
    });
    let mut candidates: Vec<Plan> = (0..=SECTIONS.len()).rev().map(without).chain(single).collect();
    candidates.retain(|candidate| candidate != plan);
    candidates
}
