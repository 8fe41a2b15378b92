//! The page about a failure: gets what it needs from a run.
//!
//! A campaign keeps no more than outcomes, so the plan of its worst failure is run once more: a run
//! is a pure function of its plan. A replay records in the one run that it makes.

use std::cell::RefCell;
use std::rc::Rc;

use crate::campaign::Failure;
use crate::caught::guarded;
use crate::plan::Plan;
use crate::report::{self, Paint};
use crate::simulation::{FailureReport, RunOptions};

use super::engine::Engine;

/// Says instead of a page that there is none.
const NOT_AGAIN: &str = "note: run once more, this seed did not fail in the same way, so there is \
                         no more to show: `cargo sim run --check-determinism` may tell why\n\n";

/// Makes the page about a failure and its plan; empty if there is nothing to show.
pub type Page<'a> = &'a dyn Fn(&Failure, &Plan, Paint) -> String;

/// What is recorded of a run, once it is over.
#[derive(Clone, Default)]
pub struct Kept(Rc<RefCell<Option<FailureReport>>>);

impl Kept {
    /// The same options, and the run is recorded.
    pub fn recording(&self, options: RunOptions) -> RunOptions {
        let kept = Rc::clone(&self.0);
        let record = move |recorded| *kept.borrow_mut() = Some(recorded);
        RunOptions { record: Some(Box::new(record)), ..options }
    }

    /// What was recorded; nothing of a run that passed or panicked.
    pub fn take(&self) -> Option<FailureReport> {
        self.0.take()
    }
}

/// Runs a plan that has failed once more, for the page.
pub fn again(worst: &Failure, plan: &Plan, engine: &Engine, paint: Paint) -> String {
    let violation = &worst.violation;
    if !report::is_by_plan(violation) {
        return String::new();
    }
    let kept = Kept::default();
    let options = kept.recording(RunOptions::default());
    let outcome = guarded(|| (engine.run_plan)(plan, options));
    match (outcome.violation, kept.take()) {
        (Some(again), Some(recorded)) if again == *violation => {
            report::page(&recorded, violation, paint) + "\n"
        }
        // A panic outside of a node leaves nothing to record.
        (Some(again), None) if again == *violation => String::new(),
        _ => NOT_AGAIN.to_owned(),
    }
}
