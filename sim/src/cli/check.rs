//! `cargo sim check`: is a recorded history linearizable? The history need not come from this
//! simulator.

use std::fs::File;
use std::io::BufReader;

use crate::checker::linearizable::{self, Limits, Verdict};
use crate::history::{Model, jsonl};
use crate::report;
use serde::Serialize;

use super::console::Console;
use super::engine;
use super::{CheckArgs, Exit, ModelArg, Usage};

/// The object of `--json`.
#[derive(Serialize)]
struct CheckJson<'a> {
    verdict: &'static str,
    operations: u64,
    wall_s: f64,
    explanation: &'a str,
}

pub fn check(args: &CheckArgs, console: &Console) -> Result<Exit, Usage> {
    let name = report::one_line(&args.file.to_string_lossy());
    let file = File::open(&args.file).map_err(|error| {
        Usage(format!("{name}: {error}; name a history with one JSON object a line"))
    })?;
    let model = match args.model {
        ModelArg::Kv => Model::Kv,
        ModelArg::Register => Model::Register,
    };
    let mut warn = |warning: String| {
        console.err.print(&format!("warning: {}\n", report::one_line(&warning)));
    };
    let history = jsonl::read(BufReader::new(file), &name, model, &mut warn)
        .map_err(|error| Usage(report::one_line(&error)))?;
    let operations = history.ops().len() as u64;

    // The time limit alone decides when to give up; a limit of steps would be one more to explain.
    let limits = Limits { steps: u64::MAX, ..Limits::default() };
    let started = engine::now();
    let mut expired = || started.elapsed() >= args.timeout;
    let (verdict, wall) = engine::timed(|| linearizable::check(&history, limits, &mut expired));
    let (word, explanation, exit) = match &verdict {
        Verdict::Linearizable => {
            ("linearizable", "there is an order that explains every answer", Exit::Clean)
        }
        Verdict::Violation(why) => ("violation", why.sentence.as_str(), Exit::Violation),
        Verdict::Unknown(why) => ("unknown", why.as_str(), Exit::Unknown),
    };
    if args.json {
        let wall_s = report::seconds(wall);
        console.print_json(&CheckJson { verdict: word, operations, wall_s, explanation });
        return Ok(exit);
    }
    let paint = console.paint();
    let painted = match exit {
        Exit::Clean => paint.green(word),
        Exit::Violation => paint.red(word),
        _ => paint.yellow(word),
    };
    let plural = if operations == 1 { "" } else { "s" };
    console.out.print(&format!(
        "{name}: {painted}, {} operation{plural} checked in {}\n  {}\n",
        report::thousands(operations.into()),
        report::duration(wall.as_secs_f64()),
        report::one_line(explanation),
    ));
    Ok(exit)
}
