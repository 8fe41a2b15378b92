//! The commands of `cargo sim`, their arguments and their exit codes.
//!
//! Scripts rely on three things: the exit codes of [`Exit`], one JSON object on standard output
//! with `--json` (whatever else there is to say goes to standard error), and one clear line for a
//! usage error. A reader that closes the pipe early does not change the exit code.

mod bugs;
mod check;
mod console;
mod engine;
mod file;
mod interrupt;
mod merge;
mod page;
mod replay;
mod run;
mod shrink;
mod soak;
mod speed;
mod view;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::campaign::{Canary, Seeds, Shard};
use crate::outcome::{Class, Violation};
use crate::report;
use crate::service::Service;
use crate::version::BUILD;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use console::Console;
use engine::Engine;

/// What a command tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Clean = 0,
    Violation = 1,
    Liveness = 2,
    Unknown = 3,
    Usage = 64,
    Internal = 70,
    /// Ctrl-C before the end, and nothing wrong until then.
    Interrupted = 130,
}

impl Exit {
    /// The code of a verdict.
    fn of(violation: Option<&Violation>) -> Exit {
        Exit::of_class(violation.map(|violation| violation.class))
    }

    fn of_class(class: Option<Class>) -> Exit {
        match class {
            None => Exit::Clean,
            Some(Class::Safety) => Exit::Violation,
            Some(Class::Liveness) => Exit::Liveness,
            Some(Class::Unknown) => Exit::Unknown,
        }
    }
}

/// A mistake of the user, in one line: what is wrong, with which thing, and what to do.
#[derive(Debug)]
pub struct Usage(String);

const EXIT_CODES: &str = "\
Exit codes: 0 clean, 1 violation, 2 liveness, 3 unknown (a time limit), 64 usage, 70 internal error";

const RUN_HELP: &str = "\
Ctrl-C ends the campaign and reports what was found so far; a second one ends the program at once.

Exit codes: 0 clean, 1 violation, 2 liveness, 3 unknown (a time limit), 64 usage, 70 internal error,
130 interrupted and clean so far. Several failures: the most severe counts";

/// Runs a Raft cluster in a simulated storm, and replays what it finds
#[derive(Debug, Parser)]
#[command(name = "stormkv-sim", version = BUILD)]
#[command(after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds: each is a cluster, a workload and a storm of its own
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Add up what `run --out` wrote, on one machine or on many, as if it were one run
    #[command(after_help = EXIT_CODES)]
    Merge(MergeArgs),
    /// Run one seed or scenario again, with a timeline of what happened
    #[command(after_help = replay::HELP)]
    Replay(ReplayArgs),
    /// Turn a failing seed or scenario into a small scenario that fails in the same way
    #[command(after_help = EXIT_CODES)]
    Shrink(ShrinkArgs),
    /// Run one seed or scenario again and make a page of it to look at, or data for other programs
    #[command(after_help = view::HELP)]
    View(ViewArgs),
    /// Check that a recorded history is linearizable
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Measure how fast this machine simulates, on one thread
    #[command(after_help = EXIT_CODES)]
    Speed(SpeedArgs),
    /// Run one cluster for simulated days: nothing that it keeps may grow
    #[command(after_help = EXIT_CODES)]
    Soak(SoakArgs),
    /// Plant known bugs, one at a time, and measure how soon each is found
    #[command(after_help = bugs::HELP)]
    Bugs(BugsArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Run the seeds 0..N, or A..B with B left out
    #[arg(long, value_name = "N|A..B", default_value = "1000", value_parser = Seeds::parse)]
    seeds: Seeds,
    /// Run the seeds of a file instead: one a line, # begins a comment
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    seed_file: Option<PathBuf>,
    /// Use so many threads; the result does not depend on it [default: all cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Run only every N-th seed, beginning with the K-th (from 1): one machine's part
    #[arg(long, value_name = "K/N", value_parser = Shard::parse)]
    shard: Option<Shard>,
    /// Keep one JSON line for each seed in this directory; go on there if it was stopped before
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fail this share of the seeds on purpose, from 0 to 1, to prove that failures are reported
    #[arg(long, value_name = "P", default_value = "0", value_parser = Canary::parse)]
    canary: Canary,
    /// Run each seed twice, and tell the first event that differs
    #[arg(long)]
    check_determinism: bool,
    /// Damage disks beyond what a quorum can repair, too: nobody may tell anything wrong, but the
    /// cluster may stop with a clear error
    #[arg(long)]
    beyond_quorum: bool,
    /// Plant this bug in every node; `cargo sim bugs --list` names them all
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// If seeds fail, shrink the worst failure to the scenario seed-S.toml, in DIR or here
    #[arg(long)]
    shrink: bool,
    /// Shrink for so many seconds at most
    #[arg(long, value_name = "S", default_value = "300", value_parser = time_limit)]
    #[arg(requires = "shrink")]
    budget: Duration,
    /// Print all counts: faults, waypoints, checks, recovery times, peaks
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MergeArgs {
    /// What `run --out` named, once or several times
    #[arg(value_name = "DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Add up what is there, although seeds are missing
    #[arg(long)]
    partial: bool,
    /// Print all counts: faults, waypoints, checks, recovery times, peaks
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Print one line for each event; with --json, to standard error
    #[arg(long)]
    trace: bool,
    /// Stop after this event
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Print all counts, too: faults, waypoints, checks, peaks
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShrinkArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Write the scenario here, again and again as it gets smaller; a file that is there is only
    /// replaced if it came of the same seed
    #[arg(short, long, value_name = "OUT.toml")]
    output: PathBuf,
    /// Use so many threads; the result does not depend on it [default: all cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Stop after so many seconds; shrinking OUT.toml goes on from there
    #[arg(long, value_name = "S", default_value = "300", value_parser = time_limit)]
    budget: Duration,
}

#[derive(Debug, Args)]
struct ViewArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Write in this format
    #[arg(long, value_enum, default_value_t)]
    format: ViewFormat,
    /// Leave out what the violation cannot follow from
    #[arg(long)]
    past: bool,
    /// Run so many continuations from each of some 50 events on, for the share of them that fails;
    /// 0 for none. For html and json [default: 20 of a run that fails, otherwise 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    continuations: Option<u32>,
    /// Run them on so many threads; the result does not depend on it [default: all cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Write to this file, which is replaced; - is standard output
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ViewFormat {
    /// A page for any browser, all in one file: who told whom what, and what each node was when
    #[default]
    Html,
    /// A line for each event, in fixed columns
    Text,
    /// A log with vector clocks for ShiViz, which draws what happened before what
    Shiviz,
    /// A trace for ui.perfetto.dev: tracks of nodes, and messages as flows
    Perfetto,
    /// The data block: all that is known of the run, as one JSON object
    Json,
}

/// What to run again: a seed, as a campaign ran it, or a scenario.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("subject").args(["seed", "file"]).required(true)))]
struct SubjectArgs {
    /// Take this seed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Take this scenario
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
    /// Take what `run --beyond-quorum` makes of the seed
    #[arg(long)]
    beyond_quorum: bool,
    /// Take what `run --bug` makes of the seed
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Refuse to run any other plan than this: a seed means another one in another version
    #[arg(long, value_name = "HASH", value_parser = plan_hash)]
    plan: Option<u64>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The history: one JSON object a line, in real-time order
    #[arg(value_name = "HISTORY.jsonl")]
    file: PathBuf,
    /// What the history talks to
    #[arg(long, value_enum, default_value_t = ModelArg::Kv)]
    model: ModelArg,
    /// Give up after so many seconds; the verdict is then unknown
    #[arg(long, value_name = "S", default_value = "60", value_parser = time_limit)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModelArg {
    /// Keys and values: get, put, append, cas, delete, scan, txn
    Kv,
    /// One value: read, write, cas
    Register,
}

#[derive(Debug, Args)]
struct SpeedArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// Simulate so many days; fractions will do
    #[arg(long, value_name = "D", default_value = "1", value_parser = days)]
    days: f64,
    /// Draw operations and faults from this seed
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BugsArgs {
    /// Tell what there is, and run nothing
    #[arg(long)]
    list: bool,
    /// Take these only, by number or name, separated by commas
    #[arg(long, value_name = "ID,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Spend so many seconds of computing on each bug; all its repeats share them
    #[arg(long, value_name = "S", default_value = "60", value_parser = time_limit)]
    budget: Duration,
    /// Look for each bug so many times, from seeds of its own each time
    #[arg(long, value_name = "R", default_value = "10",
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeats: u64,
    /// Give up a repeat after so many seeds
    #[arg(long, value_name = "N", default_value = "1000000",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds_per_repeat: u64,
    /// Use so many threads; what is found does not depend on it [default: all cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Look again without each group of faults, to tell which of them it takes
    #[arg(long)]
    ablate: bool,
    /// Compare ways to choose plans: how soon does each find the bugs, given the same time?
    #[arg(long, conflicts_with_all = ["ablate", "shrink", "seeds_per_repeat"])]
    bake_off: bool,
    /// Shrink a typical failure of each bug, for as long as its budget again, and keep it in this
    /// directory as a scenario
    #[arg(long, value_name = "DIR")]
    shrink: Option<PathBuf>,
    /// Print one JSON object, or with --list an array
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the table in Markdown
    #[arg(long)]
    markdown: bool,
}

/// From the shortest soak that has quarters to a year.
fn days(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|days| (0.03..=366.0).contains(days)).ok_or_else(|| {
        format!("`{text}` is not a number of days: write one from 0.03 to 366, such as 1 or 0.25")
    })
}

/// 16 hexadecimal digits, as all commands print them.
fn plan_hash(text: &str) -> Result<u64, String> {
    let digits = Some(text).filter(|text| text.len() == 16 && !text.starts_with('+'));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| {
        format!("`{text}` is not the hash of a plan: write its 16 hexadecimal digits")
    })
}

fn time_limit(text: &str) -> Result<Duration, String> {
    let limit = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| {
        format!(
            "`{text}` is not a time limit: write a number of seconds above 0, such as 60 or 0.5"
        )
    })
}

/// The whole command line for a service: arguments and streams of the process.
pub(crate) fn main<S: Service>() -> ExitCode {
    let console = Console::of_process();
    report::set_program(S::COMMAND);
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        execute(std::env::args_os(), &Engine::of::<S>(), &console)
    }));
    let exit = result.unwrap_or_else(|_| {
        // The panic hook has printed the message and the place.
        console.err.print(&format!(
            "internal error in stormkv-sim {BUILD}: this is a bug of the simulator, not a finding\n"
        ));
        Exit::Internal
    });
    ExitCode::from(console.finish(exit) as u8)
}

/// Runs one command line, the name of the program included.
fn execute(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    engine: &Engine,
    console: &Console,
) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let command = Cli::command().bin_name(report::program());
    let parsed = command.try_get_matches_from(&arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, console),
    };
    let result = match cli.command {
        #[cfg(not(feature = "bugs"))]
        Command::Bugs(_)
        | Command::Run(RunArgs { bug: Some(_), .. })
        | Command::Replay(ReplayArgs { subject: SubjectArgs { bug: Some(_), .. }, .. })
        | Command::Shrink(ShrinkArgs { subject: SubjectArgs { bug: Some(_), .. }, .. })
        | Command::View(ViewArgs { subject: SubjectArgs { bug: Some(_), .. }, .. }) => {
            Err(bugs::missing(arguments.get(1..).unwrap_or_default()))
        }
        #[cfg(feature = "bugs")]
        Command::Bugs(args) => bugs::bugs(&args, engine, console),
        Command::Run(args) => run::run(&args, engine, console),
        Command::Merge(args) => merge::merge(&args, engine, console),
        Command::Replay(args) => replay::replay(&args, engine, console),
        Command::Shrink(args) => shrink::shrink(&args, engine, console),
        Command::View(args) => view::view(&args, engine, console),
        Command::Check(args) => check::check(&args, console),
        Command::Soak(args) => soak::soak(&args, engine, console),
        Command::Speed(args) => speed::speed(&args, engine, console),
    };
    result.unwrap_or_else(|Usage(message)| {
        console.err.print(&format!("error: {message}\n"));
        Exit::Usage
    })
}

/// Prints what clap has to say. Help and version are no errors; a bad value is told in one line,
/// without the hint at `--help` that would follow it.
fn refuse(error: &clap::Error, console: &Console) -> Exit {
    let styled = error.render();
    if !error.use_stderr() {
        console.out.print(&console.styled(&styled, console.colours));
        return Exit::Clean;
    }
    let text = console.styled(&styled, false);
    match error.kind() {
        ErrorKind::ValueValidation => {
            let line = text.lines().next().unwrap_or_default();
            console.err.print(&format!("{line}\n"));
        }
        _ => console.err.print(&text),
    }
    Exit::Usage
}

#[cfg(test)]
mod tests;
