//! Takes chance out of the network: no rates, fixed latencies, and if the failure needs that one
//! message is lost, doubled or late, an exception that says so.

use super::ddmin::ddmin;
use super::rows::keep;
use super::search::Search;
use crate::plan::{Delay, Fault, LinkFault, MAX_NET_ROWS, NetEffect, NetRow, Network, Plan};

/// The most exceptions that may take the place of chance. With more, the rates read better.
const MOST_ROWS: usize = 4;

/// How often the search for the exceptions that matter may fail to remove any.
const PATIENCE: usize = 2_000;

/// Takes chance out.
pub(super) fn chance(search: &mut Search<'_>) {
    search.repeat(&fixed);
    if needs_chance(search.best()) {
        explicit(search, false);
        explicit(search, true);
    }
}

/// Without rates, with fixed latencies, or both.
pub(super) fn fixed(plan: &Plan) -> Vec<Plan> {
    let latency = |plan: &Plan, min_us| {
        let mut plan = plan.clone();
        plan.network.latency = Delay { min_us, mean_extra_us: 0 };
        plan
    };
    let mut calm_plan = plan.clone();
    calm(&mut calm_plan.network);
    let Delay { min_us, mean_extra_us } = plan.network.latency;
    let latencies = [1000, min_us, min_us + mean_extra_us, 2000, 5000, 10_000];
    let both = latency(&calm_plan, 1000);
    let fixed = latencies.map(|us| latency(plan, us));
    [both, calm_plan].into_iter().chain(fixed).collect()
}

/// Without exceptions for single messages.
pub(super) fn without_exceptions(plan: &Plan) -> Vec<Plan> {
    vec![Plan { net: Vec::new(), ..plan.clone() }]
}

fn calm(network: &mut Network) {
    *network = Network {
        latency: network.latency,
        fifo: network.fifo,
        kib_per_s: network.kib_per_s,
        queue_us: network.queue_us,
        ..Network::default()
    };
}

fn is_weather(fault: &Fault) -> bool {
    matches!(fault, Fault::Link(LinkFault::Weather { .. }))
}

fn needs_chance(plan: &Plan) -> bool {
    let mut quiet = plan.network.clone();
    calm(&mut quiet);
    quiet.latency.mean_extra_us = 0;
    quiet != plan.network || plan.faults.iter().any(|row| is_weather(&row.fault))
}

/// Replaces losses and copies by exceptions; with `delays` also the latencies.
fn explicit(search: &mut Search<'_>, delays: bool) {
    let mut quiet = search.best().clone();
    calm(&mut quiet.network);
    quiet.faults.retain(|row| !is_weather(&row.fault));
    if delays {
        quiet.network.latency.mean_extra_us = 0;
    }
    let wanted = |row: &NetRow| delays || !matches!(row.effect, NetEffect::Delay { .. });
    let rows: Vec<NetRow> = search.chances().into_iter().filter(wanted).collect();
    let earlier = quiet.net.len();
    if rows.is_empty() || earlier + rows.len() > MAX_NET_ROWS {
        return;
    }
    quiet.net.extend(rows);
    let mut found = search.find(1, &|_| Some(quiet.clone()), &|_, _| true);
    if found.is_none() {
        return;
    }
    let mut failed = 0;
    ddmin(quiet.net.len(), &mut |count, make| {
        if failed > PATIENCE {
            return None;
        }
        let candidate = |at| {
            let mut plan = quiet.clone();
            keep(&mut plan.net, &make(at));
            Some(plan)
        };
        let next = search.find(count, &candidate, &|_, _| true);
        failed += if next.is_none() { count } else { 0 };
        let at = next.as_ref().map(|(at, ..)| *at);
        found = next.or(found.take());
        at
    });
    if let Some((_, plan, outcome)) = found
        && plan.net.len() <= earlier + MOST_ROWS
        && search.is_lighter(&plan)
    {
        search.adopt(plan, outcome);
    }
}
