//! Plans and their runs: the one place that generates a plan, reads one and runs it for a test.

use crate::caught::guarded;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::{self, Subject};
use crate::scenario::{self, ScenarioError};
use crate::service::Service;
use crate::simulation::{self, RunOptions};
use crate::swarm;

/// The plans of one kind of swarm of a service, and the functions that read and run them.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Whether disks are damaged beyond what a quorum can repair.
    pub beyond_quorum: bool,
    /// The planted bug, by name.
    pub bug: Option<String>,
    generate: fn(u64) -> Plan,
    generate_beyond: fn(u64) -> Plan,
    parse: fn(&str, &str) -> Result<Plan, ScenarioError>,
    run: fn(&Plan) -> Outcome,
}

impl Source {
    /// The default swarm of a service.
    pub fn of<S: Service>() -> Source {
        // The name of a test executable is of no use to who reads its report.
        report::set_program(if S::COMMAND.is_empty() { "PROGRAM" } else { S::COMMAND });
        Source {
            beyond_quorum: false,
            bug: None,
            generate: swarm::generate::<S>,
            generate_beyond: swarm::generate_beyond::<S>,
            parse: scenario::parse::<S>,
            run: |plan| simulation::run::<S>(plan, &mut RunOptions::default()),
        }
    }

    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let plan = match self.beyond_quorum {
            false => (self.generate)(seed),
            true => (self.generate_beyond)(seed),
        };
        Plan { bug: self.bug.clone(), ..plan }
    }

    /// The plan of a scenario file's text; `file` is only named in errors.
    pub fn parse(&self, file: &str, text: &str) -> Result<Plan, String> {
        (self.parse)(file, text).map_err(|error| error.to_string())
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
