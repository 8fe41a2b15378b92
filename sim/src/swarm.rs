//! Random plans: one 64-bit seed gives one [`Plan`].
//!
//! Every dimension is drawn per seed: the cluster's shape, its limits and timings, the network,
//! the mix of operations, and which families of faults are on at all and how hard they hit (swarm
//! testing: Groce et al., ISSTA 2012). Each part draws from a stream of its own, so drawing the
//! operations in another way leaves the faults of every seed as they were.
//!
//! The plan says everything: nothing here runs, and the simulation never asks the seed what to do
//! next, except for micro-choices such as the latency of one message.

mod absence;
mod churn;
mod combos;
mod dice;
mod families;
mod growth;
mod imprudence;
mod knobs;
mod membership;
mod mutate;
mod overload;
mod priorities;
mod rush;
mod shape;
mod silence;
mod soak;
mod storm;
mod surface;
mod weight;
mod workload;

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use crate::plan::{Core, Delay, Disk, End, Fault, FaultRow, Network, OpRow, Plan, Who};

pub use dice::Dice;
pub use knobs::{Group, Knobs, Mix};
pub use mutate::mutate;
pub use soak::{WINDOW_US, soak_window};

pub(crate) use dice::Purpose;
pub(crate) use workload::{REUSING, VARIED, manners, restart_clients, usual};

use crate::service::{Service, call};
use storm::Cast;

/// The smallest chunk for a large state, in bytes: each window of chunks takes a message there and back.
const LEAST_HEAVY_CHUNK: u32 = 512;

/// Draws the plan of this seed. The same seed gives the same plan in every build.
pub fn generate<S: Service>(seed: u64) -> Plan {
    generate_with::<S>(seed, &Knobs::default())
}

/// Draws the plan of this seed in this way, and leaves out of it what is switched off.
pub fn generate_with<S: Service>(seed: u64, knobs: &Knobs) -> Plan {
    let (mut cluster, mut clients) = (shape::cluster(seed), shape::clients(seed));
    let growth = growth::draw(seed);
    if let Some(growth) = &growth {
        growth.shape(&mut cluster);
    }
    shape::fit(&mut cluster, &mut clients);
    cluster.backup_keys = surface::backup_keys(seed);
    let horizon_us = Dice::new(seed, Purpose::Horizon).time_us(2000, 12_000);
    let (times, mut marks) = workload::times(seed, horizon_us);
    let first_nodes = cluster.nodes + cluster.learners;
    let mut ops = S::workload(seed, &times, &cluster, &clients);
    S::strain(seed, &mut ops, &mut cluster, &clients);
    let changes = match &growth {
        Some(growth) => vec![growth.operation()],
        None => membership::operations(seed, &cluster, horizon_us),
    };

    marks.extend(changes.iter().map(|row| row.at_us));
    // One that is added again was there before.
    let new_nodes = changes.iter().flat_map(|row| row.call.op.new_nodes());
    let nodes: BTreeSet<NodeId> =
        (1..=u64::from(first_nodes)).map(NodeId).chain(new_nodes).collect();
    let cast = Cast {
        nodes: nodes.into_iter().collect(),
        clients: clients.count,
        horizon_us,
        election_us: u64::from(cluster.election_ticks[1]) * cluster.tick_us,
        marks,
        custom: S::FAULTS,
    };
    let grows = growth.is_some();
    let weight = weight::draw::<S>(seed, &cluster, clients.count, horizon_us, &ops, grows);
    let mut faults = storm::faults(seed, &cast, knobs);
    knobs.keep_founders(&mut faults, first_nodes);
    if growth.as_ref().is_some_and(|growth| growth.is_calm) {
        faults.clear();
    }
    if knobs.mix() == Mix::Priorities {
        let founders = (1..=u64::from(first_nodes)).map(NodeId).collect::<Vec<_>>();
        faults.extend(priorities::lags(seed, &founders, &cast));
        faults.sort_by_key(|row| row.at_us);
    }
    let free = cast.nodes.iter().map(|node| node.0).max().unwrap_or(0) + 1;
    if !knobs.is_off(Group::Membership) {
        ops.extend(changes);
    }
    ops.extend(combos::replacements(seed, &faults, free));
    if !weight.fill.is_empty() {
        cluster.chunk_bytes = cluster.chunk_bytes.max(LEAST_HEAVY_CHUNK);
    }
    ops.extend(weight.fill);
    S::vary(seed, &mut ops);
    if !knobs.is_off(Group::Membership) {
        ops.extend(surface::moves(seed, u64::from(first_nodes), horizon_us));
        if growth.is_none() {
            // Aimed at the faults as they are with nothing switched off, so that nothing else moves.
            let faults = || storm::faults(seed, &cast, &Knobs::mixed(knobs.mix()));
            ops.extend(imprudence::requests(seed, &cluster, faults));
        }
    }
    if growth.is_none() {
        silence::fall(seed, &cast, first_nodes, &mut ops, &mut faults);
    }
    ops.sort_by_key(|row| row.at_us);

    let mut network = knobs.calm(shape::network(seed, knobs.mix() != Mix::Uniform));
    shape::widen::<S>(&mut network, &ops);
    let mut plan = Plan {
        cluster,
        network,
        disk: Disk { kib_per_s: weight.kib_per_s, size_kib: weight.size_kib, ..shape::disk(seed) },
        cpu: weight.cpu,
        clients,
        ops,
        faults,
        // Clients may have piled up work while nothing could be done, on links of 20 ms.
        end: End { bound_us: 30_000_000, core: core(seed), ..End::default() },
        ..Plan::new(format!("seed-{seed}"), seed)
    };
    absence::apply::<S>(seed, knobs, &mut plan);
    rush::apply::<S>(seed, &mut plan);
    overload::apply::<S>(seed, &mut plan);
    plan
}

/// Draws who is healed in the end. Often only some: a cluster must also get well without the others.
fn core(seed: u64) -> Core {
    let dice = &mut Dice::new(seed, Purpose::Core);
    if dice.percent(60) { Core::Random } else { Core::All }
}

/// Draws the plan of this seed, and damage to disks on top of it that may go beyond what a quorum can
/// repair.
pub fn generate_beyond<S: Service>(seed: u64) -> Plan {
    let mut plan = generate::<S>(seed);
    plan.name = format!("seed-{seed}-beyond-quorum");
    plan.end.beyond_quorum = true;
    let nodes = u64::from(plan.cluster.nodes + plan.cluster.learners);
    families::damage::beyond_quorum(seed, nodes, &mut plan);
    plan
}

/// Which measurement a plan without randomness is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeedKind {
    /// A long, calm run: messages per second.
    Steady,
    /// A short life with one crash of each node, for this seed: seeds per second.
    PerSeed(u64),
    /// A calm run of so many nodes: how the cost of an event grows with the cluster.
    Nodes(u32),
}

/// How many puts the steady run has: some minutes of simulated time.
const STEADY_PUTS: u64 = 20_000;

/// How many puts a run has that shows how costs grow.
const GROWTH_PUTS: u64 = 300;

/// The plan of a measurement: five nodes if the kind says nothing else, ticks of 10 ms, links of 1 to about 10 ms, and one client
/// that puts 64 bytes, again as soon as it is answered.
pub fn speed_plan<S: Service>(kind: SpeedKind) -> Plan {
    let (name, seed, puts) = match kind {
        SpeedKind::Steady => ("speed-steady".to_string(), 1, STEADY_PUTS),
        SpeedKind::PerSeed(seed) => (format!("speed-seed-{seed}"), seed, 100),
        SpeedKind::Nodes(nodes) => (format!("speed-nodes-{nodes}"), 1, GROWTH_PUTS),
    };
    let mut plan = Plan::new(name, seed);
    plan.cluster.nodes = match kind {
        SpeedKind::Nodes(nodes) => nodes,
        SpeedKind::Steady | SpeedKind::PerSeed(_) => 5,
    };
    plan.network =
        Network { latency: Delay { min_us: 1000, mean_extra_us: 4500 }, ..Network::default() };
    plan.clients.count = 1;
    plan.ops = (1..=puts)
        .map(|number| {
            let write = S::write(&format!("k{}", number % 16), &format!("v{number}"), 64);
            let op = write.unwrap_or_else(|| {
                S::generate(&mut Dice::new(seed, Purpose::Operations), number as u32)
            });
            OpRow { at_us: 0, client: 1, call: call::<S>(&op) }
        })
        .collect();
    // A put takes two round trips at most, about 25 ms; no measurement may hit the bound.
    plan.end.bound_us = 60_000_000 + puts * 100_000;
    if let SpeedKind::PerSeed(_) = kind {
        plan.faults = (1..=u64::from(plan.cluster.nodes))
            .map(|node| FaultRow {
                at_us: 400_000 * node,
                until_us: Some(400_000 * node + 150_000),
                fault: Fault::Crash(Who::Node(NodeId(node))),
            })
            .collect();
    }
    plan
}
