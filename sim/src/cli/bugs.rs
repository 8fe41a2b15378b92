//! `cargo sim bugs`: how soon each planted bug is found.
//!
//! Bugs are behind the cargo feature `bugs`, and a simulator that is built without it does not even
//! know their names. A user should not have to know that. So such a build hands the command line to
//! cargo, which builds the simulator with the feature and runs that: `bugs` itself, and `run` and
//! `replay` with `--bug`. That takes the variable `CARGO`, which `cargo sim` sets; a program that was
//! started by its path says how to build the other one.
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

use stormkv_sim::plan::Plan;
use stormkv_sim::report::{self, Subject};

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

/// The command that builds what this build is not, as a user would type it.
#[cfg(not(feature = "bugs"))]
const CARGO_RUN: [&str; 7] =
    ["run", "--release", "--quiet", "-p", "stormkv-sim", "--features", "bugs"];

/// The name of the bug that is asked for by its number or name.
#[cfg(feature = "bugs")]
pub fn resolve(word: Option<&str>) -> Result<Option<String>, Usage> {
    let info = word.map(stormkv_sim::bugs::named).transpose().map_err(Usage)?;
    Ok(info.map(|info| info.name.to_owned()))
}

/// Nobody can ask for a bug here: such a command line runs [`elsewhere`].
#[cfg(not(feature = "bugs"))]
pub fn resolve(word: Option<&str>) -> Result<Option<String>, Usage> {
    assert!(word.is_none(), "a build without bugs was asked for one");
    Ok(None)
}

/// Says that a plan names a bug which this build cannot plant.
pub fn warn_if_missing(subject: &Subject, plan: &Plan, console: &Console) {
    let Some(bug) = plan.bug.as_ref().filter(|_| !cfg!(feature = "bugs")) else { return };
    let again = subject.replay_command();
    let arguments = again.trim_start_matches("cargo sim ");
    console.err.print(&format!(
        "warning: the plan names the bug `{}`, which is not planted: this build has no bugs; run it \
         with them by `cargo run --release --quiet -p stormkv-sim --features bugs -- {arguments}`\n",
        report::one_line(bug)
    ));
}

/// Has cargo build the simulator with the bugs, and run this command line there.
#[cfg(not(feature = "bugs"))]
pub fn elsewhere(
    arguments: &[std::ffi::OsString],
    console: &Console,
) -> Result<super::Exit, Usage> {
    use std::path::Path;
    use std::process::Command;

    let Some(cargo) = std::env::var_os("CARGO") else {
        let words = arguments.iter().map(|word| report::one_line(&word.to_string_lossy()));
        let words = words.collect::<Vec<_>>().join(" ");
        return Err(Usage(format!(
            "this build has no bugs to plant; in the repository, `cargo {} -- {words}` builds and \
             runs one that has",
            CARGO_RUN.join(" ")
        )));
    };
    console
        .err
        .print("note: runs in a build with the feature `bugs`, which cargo makes if need be\n");
    let mut command = Command::new(cargo);
    command.args(CARGO_RUN);
    // Where the sources were when this was built; they may be gone, or elsewhere.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    if manifest.is_file() {
        command.arg("--manifest-path").arg(manifest);
    }
    let status = command.arg("--").args(arguments).status().map_err(|error| {
        Usage(format!("cargo cannot be started: {error}; check the variable CARGO"))
    })?;
    Ok(exit_of(status.code()))
}

/// The exit code of the other build as ours. Any other is cargo's own, which has said why.
#[cfg(not(feature = "bugs"))]
fn exit_of(code: Option<i32>) -> super::Exit {
    use super::Exit;
    let exits = [Exit::Clean, Exit::Violation, Exit::Liveness, Exit::Unknown, Exit::Usage];
    exits.into_iter().find(|exit| code == Some(*exit as i32)).unwrap_or(Exit::Internal)
}

#[cfg(all(test, feature = "bugs"))]
mod tests;

#[cfg(all(test, not(feature = "bugs")))]
mod tests {
    use super::super::Exit;
    use super::*;

    #[test]
    fn the_exit_code_of_the_other_build_is_passed_on() {
        for exit in [0, 1, 2, 3, 64, 70] {
            assert_eq!(exit_of(Some(exit)) as i32, exit);
        }
        for code in [Some(101), None] {
            assert_eq!(exit_of(code), Exit::Internal, "cargo failed");
        }
    }
}
