//! The one place where the command line touches runs, plans and the clock of the machine.
//!
//! The functions that run are values, so that tests can put ones in their place that fail, stall
//! or panic on demand: the real simulator does none of that on demand.

#[cfg(feature = "bugs")]
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use stormkv_sim::campaign::Totals;
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::outcome::Outcome;
use stormkv_sim::plan::Plan;
#[cfg(feature = "bugs")]
use stormkv_sim::shrink;
use stormkv_sim::swarm;
use stormkv_sim::world::RunOptions;

/// What runs seeds and plans.
pub struct Engine {
    /// Runs the plan of a seed.
    pub run_seed: fn(u64) -> Outcome,
    /// Runs the plan of a seed, with damage beyond what a quorum can repair.
    pub run_beyond: fn(u64) -> Outcome,
    /// Runs a plan.
    pub run_plan: fn(&Plan, RunOptions) -> Outcome,
    /// Whether a campaign ends early, as if the user had asked for it.
    pub interrupts: fn(&Totals) -> bool,
    /// Makes the failing plan of a seed as small as it goes in this time, and tells how many events
    /// are left of its run. `None` if it does not fail.
    #[cfg(feature = "bugs")]
    pub shrink: fn(&Plan, usize, Duration) -> Option<(Plan, u64)>,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            run_seed: |seed| run_plan(&swarm::generate::<KeyValue>(seed), RunOptions::default()),
            run_beyond: |seed| {
                run_plan(&swarm::generate_beyond::<KeyValue>(seed), RunOptions::default())
            },
            run_plan,
            interrupts: |_| false,
            #[cfg(feature = "bugs")]
            shrink: shrink_plan,
        }
    }
}

fn run_plan(plan: &Plan, mut options: RunOptions) -> Outcome {
    kv::run(plan, &mut options)
}

#[cfg(feature = "bugs")]
fn shrink_plan(plan: &Plan, jobs: usize, limit: Duration) -> Option<(Plan, u64)> {
    let started = now();
    let mut options = shrink::Options::default();
    options.jobs = jobs;
    let mut report = |_: &shrink::Progress<'_>| match started.elapsed() >= limit {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let shrunk = kv::shrink(plan, &options, &mut report).ok()?;
    Some((shrunk.plan, shrunk.outcome.events))
}

/// Runs `body` and measures how long it took on this machine.
pub fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let started = now();
    let value = body();
    (value, started.elapsed())
}

/// The clock of this machine.
#[allow(clippy::disallowed_methods, reason = "the host measures itself; no run sees it")]
pub fn now() -> Instant {
    Instant::now()
}

/// What a plan is about, in a few words each.
pub struct PlanSummary {
    /// Its name.
    pub name: String,
    /// Its story; empty if it has none.
    pub story: String,
    /// The cluster at the start.
    pub cluster: String,
    /// Client operations.
    pub operations: u64,
    /// Faults, exceptions for single messages included.
    pub faults: u64,
}

/// Summarizes a plan.
pub fn summarize(plan: &Plan) -> PlanSummary {
    let counted = |count: u32, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    };
    let mut cluster = counted(plan.cluster.nodes, "node");
    if plan.cluster.learners > 0 {
        cluster.push_str(&format!(" and {}", counted(plan.cluster.learners, "learner")));
    }
    PlanSummary {
        name: plan.name.clone(),
        story: plan.story.clone(),
        cluster,
        operations: plan.ops.len() as u64,
        faults: (plan.faults.len() + plan.net.len()) as u64,
    }
}
