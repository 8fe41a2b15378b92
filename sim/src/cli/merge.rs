//! `cargo sim merge`: the files of many shards as one campaign, told as `cargo sim run` tells it.

use crate::campaign::{self, Failure, FileError, Merged, Totals};
use crate::plan::Plan;
use crate::report;

use super::console::Console;
use super::engine::{self, Engine};
use super::run::{Form, print_totals};
use super::{Exit, MergeArgs, Usage};

pub fn merge(args: &MergeArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let (merged, wall) = engine::timed(|| campaign::merge(&args.paths, args.partial));
    let Merged { totals, label, missing } = match merged {
        Ok(merged) => merged,
        Err(error) => return refused(&error, console),
    };
    if let Some(missing) = missing {
        console.err.print(&format!("warning: {}\n", report::one_line(&missing)));
    }
    // It may have come from far away: nothing is run.
    let page = |_: &Failure, _: &Plan, _| String::new();
    let form = Form { json: args.json, verbose: args.verbose };
    Ok(print_totals(&label, &Totals { wall, ..totals }, form, (engine, console), &page))
}

/// What a file that cannot be used means for the exit code.
pub fn refused(error: &FileError, console: &Console) -> Result<Exit, Usage> {
    let text = report::one_line(&error.to_string());
    let exit = match error {
        FileError::Refused(_) => return Err(Usage(text)),
        FileError::Lost(_) => Exit::Internal,
        // As for `--check-determinism`: the simulator broke its first promise.
        FileError::Contradiction(_) => Exit::Violation,
    };
    console.err.print(&format!("error: {text}\n"));
    Ok(exit)
}
