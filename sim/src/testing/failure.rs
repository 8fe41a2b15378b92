//! The report of a failing seed: the violation, the lines to paste, and a scenario file of its plan.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::files;
use super::source::Source;
use crate::campaign::Failure;
use crate::caught::caught;
use crate::outcome::Violation;
use crate::plan::{Expect, Found, Plan};
use crate::report::{self, Paint, Subject};
use crate::scenario;
use crate::version;

/// Reports one failing seed and saves its plan below `folder`. Ends with the lines to paste.
pub(super) fn of_seed(source: &Source, failure: &Failure, folder: &Path) -> String {
    let Failure { seed, violation } = failure;
    // A generator that panics leaves no plan.
    let plan = caught(|| source.plan(*seed)).ok();
    let saved = match &plan {
        None => "none: the plan could not be generated".to_string(),
        Some(plan) => match save(plan, *seed, violation, folder) {
            Ok(path) => files::shown(&path),
            Err(error) => format!("not saved: {}: {error}", files::shown(folder)),
        },
    };
    let hash = plan.as_ref().map(Plan::hash);
    let lines = report::last_words(&source.subject(*seed), hash, violation, Paint::plain());
    // Libtest names the thread of a test after it, unless there is only one thread.
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    let test = name.map_or(String::new(), |name| format!(" {name}"));
    format!("{lines}  test     STORM_SEED={seed} cargo test{test}\n  scenario {saved}\n")
}

/// Reports a regression that fails again.
pub(super) fn of_regression(path: &Path, plan: &Plan, violation: &Violation) -> String {
    let subject = Subject::File(files::shown(path));
    report::last_words(&subject, Some(plan.hash()), violation, Paint::plain())
}

/// The first failures, a line each.
pub(super) fn list(failed: &[Failure]) -> String {
    let mut text = String::new();
    for Failure { seed, violation } in failed.iter().take(report::LISTED_FAILURES) {
        writeln!(text, "  seed {seed}: {}", violation.checker).expect("a string takes all");
    }
    let more = failed.len().saturating_sub(report::LISTED_FAILURES);
    if more > 0 {
        writeln!(text, "  and {more} more").expect("a string takes all");
    }
    text
}

/// Writes the plan as a scenario that expects this violation.
fn save(
    plan: &Plan,
    seed: u64,
    violation: &Violation,
    folder: &Path,
) -> Result<PathBuf, std::io::Error> {
    let bug = plan.bug.as_ref().map_or(String::new(), |bug| format!("-{bug}"));
    let name = format!("{}{bug}", plan.name);
    let path = folder.join(format!("{name}.toml"));
    let rev = version::REVISION.to_string();
    let scenario = Plan {
        name,
        story: report::sentence(&violation.message),
        found: Some(Found { seed, rev, events_before: violation.step }),
        expect: Expect { violation: Some(violation.checker.to_string()), ..Expect::default() },
        ..plan.clone()
    };
    std::fs::create_dir_all(folder)?;
    std::fs::write(&path, scenario::save(&scenario))?;
    Ok(path)
}
