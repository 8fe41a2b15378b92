//! Plans and their runs: the one place that generates a plan and runs it for a test.

use crate::campaign::guarded;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::Subject;
use crate::swarm;
use crate::world::{self, RunOptions};

/// The plans of one kind of swarm, and the function that runs them.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Whether disks are damaged beyond what a quorum can repair.
    pub beyond_quorum: bool,
    /// The planted bug, by name.
    pub bug: Option<String>,
    run: fn(&Plan) -> Outcome,
}

impl Source {
    /// The default swarm of the KV service.
    pub fn new() -> Source {
        Source { beyond_quorum: false, bug: None, run: simulate }
    }

    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let plan = match self.beyond_quorum {
            false => swarm::generate(seed),
            true => swarm::generate_beyond(seed),
        };
        Plan { bug: self.bug.clone(), ..plan }
    }

    /// Runs a plan. A panic is a violation of its run.
    pub fn run(&self, plan: &Plan) -> Outcome {
        guarded(|| (self.run)(plan))
    }

    /// The name of a seed on the command line.
    pub fn subject(&self, seed: u64) -> Subject {
        Subject::of_seed(seed, self.beyond_quorum, self.bug.as_deref())
    }

    /// Replaces the function that runs a plan.
    #[cfg(test)]
    pub fn with_run(mut self, run: fn(&Plan) -> Outcome) -> Source {
        self.run = run;
        self
    }
}

fn simulate(plan: &Plan) -> Outcome {
    world::run(plan, &mut RunOptions::default())
}
