//! `cargo sim bugs`: how soon each planted bug is found.
//!
//! Bugs are behind the cargo feature `bugs`. `cargo sim` builds the simulator with it, so that one
//! build serves all commands; no production build has it. A simulator that was built without it does
//! not even know the names of the bugs, and says so.
//!
//! - `measure.rs` runs the campaigns, on threads and with a clock,
//! - `bake_off.rs` runs campaigns that choose their plans in different ways, and compares them,
//! - `table.rs` prints what came of them.

#[cfg(feature = "bugs")]
mod bake_off;
#[cfg(feature = "bugs")]
mod measure;
#[cfg(feature = "bugs")]
mod table;

use crate::plan::Plan;
use crate::report::{self, Subject};

use super::Usage;
use super::console::Console;

#[cfg(feature = "bugs")]
pub use measure::bugs;

/// What `cargo sim bugs --help` ends with.
pub const HELP: &str = "\
A bug is looked for several times, each time from a million seeds of its own, until a seed fails. The
budget is the time that all runs of a bug take together, added up over the threads; what is running
when it is used up is finished. A repeat that found nothing by then counts as larger than all others.
The interval holds the true median with a chance of at least 95 percent, whatever the distribution; it
takes six repeats. A failure that the seed shows without the bug, too, does not count.

With --ablate, a group of faults is needed if without it the median is more than five times as large, and
beyond the interval.

With --bake-off, each way to choose plans has the budget for each bug, and each of its repeats an equal
part of that. What a way spends on choosing counts as its time.

Exit codes: 0 all were found, 1 some were not, 64 usage, 70 internal error";

/// The name of the bug that is asked for by its number or name.
#[cfg(feature = "bugs")]
pub fn resolve(word: Option<&str>) -> Result<Option<String>, Usage> {
    let info = word.map(crate::bugs::named).transpose().map_err(Usage)?;
    Ok(info.map(|info| info.name.to_owned()))
}

/// No command line that asks for a bug comes as far as this: see [`missing`].
#[cfg(not(feature = "bugs"))]
pub fn resolve(word: Option<&str>) -> Result<Option<String>, Usage> {
    assert!(word.is_none(), "a build without bugs was asked for one");
    Ok(None)
}

/// Says that a plan names a bug which this build cannot plant.
pub fn warn_if_missing(subject: &Subject, plan: &Plan, console: &Console) {
    let Some(bug) = plan.bug.as_ref().filter(|_| !cfg!(feature = "bugs")) else { return };
    console.err.print(&format!(
        "warning: the plan names the bug `{}`, which is not planted, and whether it shows is not judged: \
         this build has no bugs; in the repository, `{}` runs it with them\n",
        report::one_line(bug),
        subject.replay_command()
    ));
}

/// The error for a command line that needs bugs, in a build that has none.
#[cfg(not(feature = "bugs"))]
pub fn missing(arguments: &[std::ffi::OsString]) -> Usage {
    let words = arguments.iter().map(|word| report::one_line(&word.to_string_lossy()));
    let words = words.collect::<Vec<_>>().join(" ");
    Usage(format!(
        "this build has no bugs to plant; in the repository, `cargo sim {words}` runs one that has \
         (it is built with `--features bugs`)"
    ))
}

#[cfg(all(test, feature = "bugs"))]
mod tests;
