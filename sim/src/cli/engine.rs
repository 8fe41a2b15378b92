//! The one place where the command line touches runs, plans and the clock of the machine.
//!
//! The functions that run are values, so that tests can put ones in their place that fail, stall
//! or panic on demand: the real simulator does none of that on demand.

use std::any::type_name;
use std::io;
#[cfg(feature = "bugs")]
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use stormkv::digest::Digest;

use crate::campaign::Totals;
#[cfg(feature = "bugs")]
use crate::explore::Exploration;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::scenario::{self, ScenarioError};
use crate::service::Service;
use crate::shrink::{self, DoesNotFail, Shrunk, Weight};
use crate::simulation::{self, RunOptions, SoakProgress, Soaked};
#[cfg(feature = "bugs")]
use crate::swarm::Knobs;
use crate::swarm::{self, SpeedKind};

/// The functions that make and run the plans of one service.
pub struct Engine {
    /// The service is of another crate, whose sources `version::SOURCES` does not cover.
    pub is_foreign: bool,
    /// The names of the faults that the service declares.
    pub custom_faults: fn() -> Vec<&'static str>,
    /// The situations that a campaign should reach.
    pub waypoints: fn() -> Vec<&'static str>,
    /// Draws the plan of a seed.
    pub generate: fn(u64) -> Plan,
    /// The same, with damage beyond what a quorum can repair.
    pub generate_beyond: fn(u64) -> Plan,
    /// Reads a scenario file.
    pub load: fn(&Path) -> Result<Plan, ScenarioError>,
    /// Runs the plan of a seed.
    pub run_seed: fn(u64) -> Outcome,
    /// Runs the plan of a seed, with damage beyond what a quorum can repair.
    pub run_beyond: fn(u64) -> Outcome,
    /// Runs a plan.
    pub run_plan: fn(&Plan, RunOptions) -> Outcome,
    /// Whether a campaign ends early, as if the user had asked for it.
    pub interrupts: fn(&Totals) -> bool,
    /// Makes a failing plan as small as it goes.
    pub shrink: ShrinkWith,
    /// Makes the failing plan of a seed as small as it goes in this time, on this number of threads, and returns
    /// how many events are left of its run. `None` if it does not fail.
    #[cfg(feature = "bugs")]
    pub shrink_within: ShrinkWithin,
    /// How much there is to read in a plan.
    pub weight: fn(&Plan) -> Weight,
    /// The plan of one window of a soak, by seed and number.
    pub soak_window: fn(u64, u64) -> Plan,
    /// Runs the windows of a soak, of which the first argument is the number.
    pub soak: Soak,
    /// The plan of a measurement.
    pub speed_plan: fn(SpeedKind) -> Plan,
    /// Draws the plan of a seed in some way.
    #[cfg(feature = "bugs")]
    pub generate_with: fn(u64, &Knobs) -> Plan,
    /// The next plan of a way to choose plans.
    #[cfg(feature = "bugs")]
    pub next_plan: fn(&mut Exploration) -> Plan,
}

/// See [`shrink::shrink_with`].
pub type ShrinkWith =
    fn(&Plan, &shrink::Options, shrink::Run<'_>, shrink::Report<'_>) -> Result<Shrunk, DoesNotFail>;

/// See [`Engine::shrink_within`].
#[cfg(feature = "bugs")]
pub type ShrinkWithin = fn(&Engine, &Plan, usize, Duration) -> Option<(Plan, u64)>;

/// See [`simulation::soak`].
pub type Soak = fn(u64, &dyn Fn(u64) -> Plan, &mut dyn FnMut(&SoakProgress)) -> Soaked;

impl Engine {
    /// That of a service.
    pub fn of<S: Service>() -> Engine {
        Engine {
            is_foreign: !type_name::<S>().starts_with(concat!(env!("CARGO_CRATE_NAME"), "::")),
            custom_faults: || S::FAULTS.iter().map(|fault| fault.name()).collect(),
            waypoints: simulation::waypoints::<S>,
            generate: swarm::generate::<S>,
            generate_beyond: swarm::generate_beyond::<S>,
            load: |path| scenario::load::<S>(path),
            run_seed: |seed| run_plan::<S>(&swarm::generate::<S>(seed), RunOptions::default()),
            run_beyond: |seed| {
                run_plan::<S>(&swarm::generate_beyond::<S>(seed), RunOptions::default())
            },
            run_plan: run_plan::<S>,
            interrupts: |_| false,
            shrink: shrink::shrink_with::<S>,
            #[cfg(feature = "bugs")]
            shrink_within: Engine::shrink_within,
            weight: Weight::of::<S>,
            soak_window: swarm::soak_window::<S>,
            soak: simulation::soak::<S>,
            speed_plan: swarm::speed_plan::<S>,
            #[cfg(feature = "bugs")]
            generate_with: swarm::generate_with::<S>,
            #[cfg(feature = "bugs")]
            next_plan: Exploration::next_plan::<S>,
        }
    }

    /// The plan of a seed in a campaign.
    pub fn plan(&self, seed: u64, beyond_quorum: bool, bug: Option<&str>) -> Plan {
        let generate = if beyond_quorum { self.generate_beyond } else { self.generate };
        Plan { bug: bug.map(str::to_owned), ..generate(seed) }
    }

    #[cfg(feature = "bugs")]
    fn shrink_within(&self, plan: &Plan, jobs: usize, limit: Duration) -> Option<(Plan, u64)> {
        let started = now();
        let options = shrink::Options { jobs, ..shrink::Options::default() };
        let mut report = |_: &shrink::Progress<'_>| match started.elapsed() >= limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let run = |plan: &Plan, options| (self.run_plan)(plan, options);
        let shrunk = (self.shrink)(plan, &options, &run, &mut report).ok()?;
        Some((shrunk.plan, shrunk.outcome.events))
    }
}

fn run_plan<S: Service>(plan: &Plan, mut options: RunOptions) -> Outcome {
    simulation::run::<S>(plan, &mut options)
}

/// Runs `body` and measures how long it took on this machine.
pub fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let started = now();
    let value = body();
    (value, started.elapsed())
}

/// A hash of the executable of this process.
///
/// # Errors
/// If it cannot be read.
pub fn hash_of_program() -> io::Result<u64> {
    let program = std::fs::read(std::env::current_exe()?)?;
    Ok(Digest::new(0).bytes(&program).finish())
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

#[cfg(test)]
impl Default for Engine {
    fn default() -> Engine {
        Engine::of::<crate::kv::KeyValue>()
    }
}
