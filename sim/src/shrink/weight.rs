//! What makes one plan lighter than another.
//!
//! The search only ever goes from a plan to a lighter one. All parts are whole numbers, so it ends.

use std::collections::BTreeSet;

use super::data;
use crate::plan::{Fault, LinkFault, Plan};
use crate::service::Service;

/// How much there is to read and to understand in a plan. The first part that differs decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    /// Things left to chance, such as a rate of loss.
    chances: u64,
    /// Faults, operations and exceptions.
    rows: u64,
    /// Nodes, and clients that do something.
    members: u64,
    /// Settings that are not the default.
    settings: u64,
    /// Different names, as the service counts them.
    names: u64,
    /// Digits of times that are not zeros at the end.
    digits: u64,
    /// Bytes of the text.
    bytes: u64,
    /// Rows that stand before one that is earlier.
    disorder: u64,
    /// The sum of all times, in microseconds, and of some limits.
    amount: u64,
    /// The seed.
    seed: u64,
}

impl Weight {
    /// That of a plan.
    pub fn of<S: Service>(plan: &Plan) -> Weight {
        Weight::with(plan, data::names::<S>(plan))
    }

    /// That of a plan whose operations have so many different names.
    pub(super) fn with(plan: &Plan, names: u64) -> Weight {
        // What is said about the plan does not count.
        let bare = Plan { name: String::new(), story: String::new(), found: None, ..plan.clone() };
        let text = bare.to_toml();
        let settings = text.lines().take_while(|line| !line.ends_with('['));
        let times = || times(plan);
        Weight {
            chances: chances(plan),
            rows: (plan.ops.len() + plan.faults.len() + plan.net.len()) as u64,
            members: members(plan),
            settings: settings.filter(|line| !line.is_empty()).count() as u64,
            names,
            digits: times().map(digits).sum(),
            bytes: text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count() as u64,
            disorder: disorder(plan.ops.iter().map(|row| row.at_us))
                + disorder(plan.faults.iter().map(|row| row.at_us)),
            amount: times().sum::<u64>() + limits(plan),
            seed: plan.seed,
        }
    }
}

fn chances(plan: &Plan) -> u64 {
    let network = &plan.network;
    let rates =
        [network.heavy_tail, network.drop, network.duplicate, network.garble, network.tells];
    let rates = rates.iter().filter(|rate| **rate > 0.0).count();
    let weather = plan.faults.iter().filter(|row| {
        matches!(&row.fault, Fault::Link(LinkFault::Weather { .. } | LinkFault::Garble { .. }))
    });
    (rates + weather.count()) as u64
        + u64::from(network.spread > 1)
        + u64::from(network.latency.mean_extra_us > 0)
}

fn members(plan: &Plan) -> u64 {
    let clients: BTreeSet<u32> = plan.ops.iter().map(|row| row.client).collect();
    let added: usize = plan.ops.iter().map(|row| row.call.op.new_nodes().len()).sum();
    u64::from(plan.cluster.nodes)
        + u64::from(plan.cluster.learners)
        + (clients.len() + added) as u64
}

/// Every time that a person has to read.
fn times(plan: &Plan) -> impl Iterator<Item = u64> {
    let ops = plan.ops.iter().map(|row| row.at_us);
    let faults = plan.faults.iter().flat_map(|row| [Some(row.at_us), row.until_us]);
    ops.chain(faults.flatten()).chain(plan.end.heal_at_us)
}

/// The smaller these limits are, the less it takes to reach them.
fn limits(plan: &Plan) -> u64 {
    let cluster = &plan.cluster;
    cluster.snapshot_every
        + cluster.keep_entries
        + u64::from(cluster.sessions)
        + u64::from(cluster.segment_kib)
}

fn digits(mut us: u64) -> u64 {
    while us > 0 && us.is_multiple_of(10) {
        us /= 10;
    }
    u64::from(us.checked_ilog10().map_or(0, |log| log + 1))
}

fn disorder(times: impl Iterator<Item = u64>) -> u64 {
    let times: Vec<u64> = times.collect();
    times.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64
}
