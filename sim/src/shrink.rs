//! Turns a failing plan into a small one that fails in the same way: a scenario that a person can
//! read.
//!
//! A candidate is the best plan so far with something taken out or put more simply. It is adopted
//! if it is *lighter* ([`Weight`]) and fails with the same [`Fingerprint`]. So each step makes
//! progress, whatever order the steps come in, and the search ends. The passes below follow each
//! other until none finds anything more; then no row of faults, operations or exceptions can be
//! taken out without losing the failure. A candidate that fails in another way is not adopted, but
//! kept as a finding of its own ([`Slip`]).
//!
//! The result is a function of the plan and of how it runs: not of the number of threads, and of
//! the clock only if the caller stops the search early. Candidates are run ahead on several threads,
//! but taken in their order, the first that serves. A run is cut off when it has become much longer
//! than the best failing one; such a candidate does not count as failing.
//!
//! - `search.rs` tries candidates and keeps the best, `weight.rs` compares,
//! - `ddmin.rs` removes as many elements of a list as possible,
//! - `rows.rs` takes out what happens after the end, faults, operations and exceptions,
//! - `cast.rs` takes out nodes and clients, `rename.rs` carries that through all rows,
//! - `data.rs` makes operations, keys and values plainer, `faults.rs` faults,
//! - `settings.rs` goes back to defaults, `chance.rs` replaces chance by exceptions,
//! - `times.rs` rounds times and closes gaps, `seeds.rs` tries whether another seed needs less.
//!
//! Left out: shrinking the liveness bound. Any cluster stalls if it is given no time.

mod cast;
mod chance;
mod data;
mod ddmin;
mod faults;
mod rename;
mod rows;
mod search;
mod seeds;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod times;
mod weight;

use std::fmt;
use std::ops::ControlFlow;

pub use ddmin::{Candidates, First, ddmin};
pub use weight::Weight;

use crate::outcome::{Class, Outcome, Violation};
use crate::plan::{Expect, Found, Plan};
use crate::report;
use crate::service::Service;
use crate::simulation::{self, RunOptions};

use data::Plainer;
use search::Search;

/// Runs a plan with these options; must be a pure function of them.
pub type Run<'a> = &'a (dyn Fn(&Plan, RunOptions) -> Outcome + Sync);

/// Hears how the search goes on, after every few candidates, and may stop it.
pub type Report<'a> = &'a mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>;

/// How to shrink.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Run candidates on so many threads. The result does not depend on it.
    pub jobs: usize,
    /// Try whether the plan gets smaller with one of the seeds below this one.
    pub seeds: u64,
    /// The seed that the plan comes from, if it is not the plan's own.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { jobs: 1, seeds: 256, seed: None }
    }
}

/// In which way a run fails: two failures with the same fingerprint are taken for the same bug.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    /// How bad.
    pub class: Class,
    /// Which checker spoke.
    pub checker: &'static str,
    /// For a panic, the place in the sources: all panics are reported by the same checker.
    pub place: Option<String>,
}

impl Fingerprint {
    /// That of a violation.
    pub fn of(violation: &Violation) -> Fingerprint {
        let place = (violation.checker == "panic")
            .then(|| violation.message.rsplit_once(" (at "))
            .flatten()
            .map(|(_, place)| place.trim_end_matches(')').to_owned());
        Fingerprint { class: violation.class, checker: violation.checker, place }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.checker)?;
        match &self.place {
            Some(place) => write!(f, " (at {place})"),
            None => Ok(()),
        }
    }
}

/// A candidate that failed in another way: another bug, or the same one seen by another checker.
#[derive(Clone, Debug, PartialEq)]
pub struct Slip {
    /// The plan, told like the result of a search.
    pub plan: Plan,
    /// What it broke.
    pub violation: Violation,
}

/// How far the search has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The best plan so far, told like the result.
    pub best: &'a Plan,
    /// Whether `best` is another one than the last time.
    pub improved: bool,
    /// The events of its run.
    pub events: u64,
    /// How many different candidates were judged.
    pub tried: u64,
    /// What is being tried, in a word.
    pub pass: &'static str,
}

/// What is left of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shrunk {
    /// The smallest plan found, with a name, a story, where it comes from and what must fail.
    pub plan: Plan,
    /// What its run comes to.
    pub outcome: Outcome,
    /// How many events the run had at the beginning.
    pub events_before: u64,
    /// How many different candidates were judged.
    pub tried: u64,
    /// How many of them were adopted, one after the other.
    pub adopted: u64,
    /// Other failures on the way, the first of each fingerprint.
    pub slips: Vec<Slip>,
    /// Whether the search came to its end: then no single row can be taken out. False if it was
    /// stopped.
    pub minimal: bool,
}

/// Why there is nothing to shrink: the plan does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFail;

impl fmt::Display for DoesNotFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("does not fail: nothing to shrink")
    }
}

impl std::error::Error for DoesNotFail {}

/// Shrinks a plan that fails in the simulation.
///
/// # Errors
/// If it does not fail.
pub fn shrink<S: Service>(
    plan: &Plan,
    options: &Options,
    report: Report<'_>,
) -> Result<Shrunk, DoesNotFail> {
    shrink_with::<S>(
        plan,
        options,
        &|plan, mut options| simulation::run::<S>(plan, &mut options),
        report,
    )
}

/// Shrinks a plan that fails when it is run by `run`. A panic of `run` is a failure.
///
/// # Errors
/// If it does not fail.
///
/// # Panics
/// If there are no jobs, if `report` panics, or if the system refuses a thread.
pub fn shrink_with<S: Service>(
    plan: &Plan,
    options: &Options,
    run: Run<'_>,
    report: Report<'_>,
) -> Result<Shrunk, DoesNotFail> {
    assert!(options.jobs > 0, "shrinking needs a thread");
    let mut search = Search::begin(plan, options, run, report, Plainer::of::<S>())?;
    // Any pass may open the way for any other.
    while !search.is_stopped() {
        let adopted = search.adopted();
        for (name, pass) in PASSES {
            search.enter(name);
            pass(&mut search);
        }
        if search.adopted() == adopted {
            break;
        }
    }
    Ok(search.finish())
}

/// One way to make a plan smaller. Takes all the steps of its kind that it finds.
type Pass = fn(&mut Search<'_>);

/// What costs little and takes away much comes first, because all later runs are then shorter.
const PASSES: &[(&str, Pass)] = &[
    ("truncate", rows::truncate),
    ("faults", rows::faults),
    ("operations", rows::operations),
    ("exceptions", rows::exceptions),
    ("nodes", cast::nodes),
    ("clients", cast::clients),
    ("settings", settings::settings),
    ("chance", chance::chance),
    ("seeds", seeds::seeds),
    ("data", data::data),
    ("kinds", faults::faults),
    ("times", times::times),
];

/// Puts a name, a story, the origin and the expectation on a plan that fails like this.
fn told(plan: &Plan, violation: &Violation, found: &Found) -> Plan {
    let sentence = violation.message.split("\n\n").next().unwrap_or_default();
    Plan {
        name: format!("{}-seed-{}", violation.checker, found.seed),
        story: report::one_line(sentence),
        found: Some(found.clone()),
        expect: Expect { violation: Some(violation.checker.to_owned()), ..Expect::default() },
        ..plan.clone()
    }
}
