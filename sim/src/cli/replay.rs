//! `cargo sim replay`: one seed or scenario again, with a timeline of what happened.
//!
//! A seed is judged by its verdict. A scenario says itself what must happen: the violation that it
//! expects is no failure, and a clean run that misses a waypoint is one.

use std::cell::RefCell;
use std::rc::Rc;

use crate::campaign::{Failure, Totals};
use crate::caught::guarded;
use crate::outcome::{Outcome, Recovery, Skipped, Violation};
use crate::plan::Plan;
use crate::report::{self, Json, JsonFailure, Paint, Subject, Table};
use crate::scenario;
use crate::simulation::{FailureReport, RunOptions};
use crate::version;
use crate::view::timeline;
use serde::Serialize;

use super::console::Console;
use super::engine::{self, Engine};
use super::page::Kept;
use super::{Exit, ReplayArgs, SubjectArgs, Usage, bugs};

/// What `cargo sim replay --help` ends with.
pub const HELP: &str = "\
A scenario is judged by what it expects (`expect.violation`, `expect.waypoints`,
`expect.no_skipped_faults`): 0 if all of that happened and nothing else failed. A run that --until cuts
short before anything has failed is not judged.

Exit codes: 0 clean, or as the scenario expects; 1 violation, or what the scenario expects did not
happen; 2 liveness, 3 unknown (a time limit), 64 usage, 70 internal error";

/// How many skipped faults are listed; `--json` lists them all.
const LISTED_SKIPPED: usize = 10;

pub fn replay(args: &ReplayArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let (subject, plan) = load(&args.subject, engine)?;
    bugs::warn_if_missing(&subject, &plan, console);
    if !args.json {
        console.out.print(&opening(&subject, &plan, console.paint()));
    }
    let kept = Kept::default();
    let mut options =
        RunOptions { trace: trace(args, console), until_step: args.until, ..RunOptions::default() };
    let recording = Rc::new(RefCell::new(None));
    if !args.json {
        let sink = Rc::clone(&recording);
        options.recording = Some(Box::new(move |recording| *sink.borrow_mut() = Some(recording)));
    }
    let options = kept.recording(options);
    let (outcome, wall) = engine::timed(|| guarded(|| (engine.run_plan)(&plan, options)));
    let planted = plan.bug.clone().filter(|_| cfg!(feature = "bugs"));
    let stopped = args.until.filter(|until| *until <= outcome.events);
    let timeline =
        recording.take().map(|recording| timeline::render(&recording, &outcome.skipped, &plan));
    let telling = Telling {
        subject,
        plan_hash: plan.hash(),
        expected: plan.expect.violation.clone().unwrap_or_else(|| "none".to_string()),
        unmet: unmet(&plan, &outcome, stopped),
        stopped,
        violation: outcome.violation.clone(),
        recorded: kept.take(),
        timeline: timeline.unwrap_or_default(),
        steps: outcome.events,
        recovery: outcome.recovery,
        skipped: outcome.skipped.iter().map(|skipped| SkippedJson::new(skipped, &plan)).collect(),
        totals: Totals { wall, bug: planted, ..totals(args.subject.seed, outcome) },
    };
    if args.json {
        console.print_json(&telling.json(&(engine.waypoints)()));
        console.err.print(&telling.last_words(console.err_paint()));
    } else {
        console.out.print(&telling.text(args.verbose, console.paint()));
    }
    Ok(telling.exit())
}

/// What of the plan's expectation was not met, as far as that can be said.
fn unmet(plan: &Plan, outcome: &Outcome, stopped: Option<u64>) -> Vec<String> {
    if stopped.is_some() && outcome.violation.is_none() {
        return Vec::new();
    }
    let mut judged = plan.clone();
    // What a bug does is not to be expected without it.
    if plan.bug.is_some() && cfg!(not(feature = "bugs")) {
        judged.expect.violation = None;
    }
    scenario::unmet(&judged, outcome)
}

/// The plan that is asked for.
pub(super) fn load(args: &SubjectArgs, engine: &Engine) -> Result<(Subject, Plan), Usage> {
    let (subject, plan) = load_any(args, engine)?;
    match args.plan {
        Some(expected) if expected != plan.hash() => {
            Err(another_plan(&subject, plan.hash(), expected))
        }
        _ => Ok((subject, plan)),
    }
}

/// The error for `--plan` with the hash of another plan.
fn another_plan(subject: &Subject, found: u64, expected: u64) -> Usage {
    let reason = match subject {
        Subject::File(_) => {
            "the file was changed since, or a default is another one in this version; take the file \
             and the version that the hash was printed with, or leave out --plan"
        }
        _ => {
            "a seed means the same plan only within one version; check out the revision that the \
             failure was printed with (its line `version`), or leave out --plan to run what the seed \
             means here. A scenario, as `cargo sim shrink` writes one, means the same in later versions"
        }
    };
    Usage(format!(
        "{} is the plan {found:016x} in this version, {}, and not {expected:016x}: {reason}",
        title(subject),
        version::BUILD
    ))
}

fn load_any(args: &SubjectArgs, engine: &Engine) -> Result<(Subject, Plan), Usage> {
    match (args.seed, &args.file) {
        (Some(seed), _) => {
            let bug = bugs::resolve(args.bug.as_deref())?;
            let subject = Subject::of_seed(seed, args.beyond_quorum, bug.as_deref());
            Ok((subject, engine.plan(seed, args.beyond_quorum, bug.as_deref())))
        }
        (None, Some(path)) => {
            let only_seeds =
                [("--beyond-quorum", args.beyond_quorum), ("--bug", args.bug.is_some())];
            if let Some((flag, _)) = only_seeds.iter().find(|(_, given)| *given) {
                return Err(Usage(format!(
                    "{flag} says what to make of a seed, and {} is a scenario, which says so itself; \
                     leave out {flag}",
                    report::one_line(&path.to_string_lossy())
                )));
            }
            let plan =
                (engine.load)(path).map_err(|error| Usage(report::one_line(&error.to_string())))?;
            Ok((Subject::File(path.to_string_lossy().into_owned()), plan))
        }
        (None, None) => unreachable!("clap demands one of them"),
    }
}

/// Takes one event, as a line of text.
type Trace = Box<dyn FnMut(&str)>;

/// Where the events go: to standard output, unless that belongs to the JSON object.
fn trace(args: &ReplayArgs, console: &Console) -> Option<Trace> {
    if !args.trace {
        return None;
    }
    let stream = if args.json { console.err.clone() } else { console.out.clone() };
    Some(Box::new(move |line| stream.print_line(line)))
}

/// One outcome, in the form of a campaign of one: the hash is the run's own.
fn totals(seed: Option<u64>, outcome: Outcome) -> Totals {
    let mut totals = Totals::default();
    let trace_hash = outcome.trace_hash;
    totals.fold(seed.unwrap_or_default(), outcome);
    Totals { trace_hash, ..totals }
}

/// What to call it.
pub(super) fn title(subject: &Subject) -> String {
    match subject {
        Subject::Seed(seed) => format!("seed {seed}"),
        Subject::BeyondQuorum(seed) => format!("seed {seed}, beyond a quorum"),
        Subject::Planted { seed, beyond_quorum: false, .. } => format!("seed {seed}"),
        Subject::Planted { seed, .. } => format!("seed {seed}, beyond a quorum"),
        Subject::File(path) => report::one_line(path),
    }
}

/// What is about to be run.
fn opening(subject: &Subject, plan: &Plan, paint: Paint) -> String {
    let summary = engine::summarize(plan);
    let mut text = paint.bold(&title(subject));
    // The name of a generated plan only repeats the seed.
    if let Subject::File(_) = subject {
        text.push_str(&format!(": {}", report::one_line(&summary.name)));
    }
    text.push('\n');
    for line in summary.story.lines().map(report::one_line).filter(|line| !line.is_empty()) {
        text.push_str(&format!("  {line}\n"));
    }
    let mut table = Table::default();
    table.words("cluster", &summary.cluster);
    table.words("operations", &report::thousands(summary.operations.into()));
    table.words("faults", &report::thousands(summary.faults.into()));
    if let Some(bug) = &plan.bug {
        let note = if cfg!(feature = "bugs") { "planted" } else { "not in this build" };
        table.words("bug", &format!("{}, {note}", report::one_line(bug)));
    }
    table.words("plan", &format!("{:016x}", plan.hash()));
    format!("{text}\n{}\n", table.render(paint))
}

/// The times of a recovery.
fn recovery(recovery: &Recovery) -> String {
    let Recovery { leader_ns, answered_ns, converged_ns, unled_ns: _ } = *recovery;
    let after = |what: &str, ns: Option<u64>| {
        Some(format!("{what} after {}", report::duration(ns? as f64 / 1e9)))
    };
    let times = [
        after("leader", leader_ns),
        after("open requests answered", answered_ns),
        after("converged", converged_ns),
    ];
    let told: Vec<String> = times.into_iter().flatten().collect();
    if told.is_empty() { "none".to_string() } else { told.join(", ") }
}

/// What came of a replay, and what was expected of it.
struct Telling {
    subject: Subject,
    plan_hash: u64,
    expected: String,
    /// What of the plan's expectation was not met, a sentence each.
    unmet: Vec<String>,
    /// The event at which the user asked to stop, if the run came that far.
    stopped: Option<u64>,
    violation: Option<Violation>,
    recorded: Option<FailureReport>,
    /// Empty if there is none.
    timeline: String,
    steps: u64,
    recovery: Recovery,
    skipped: Vec<SkippedJson>,
    totals: Totals,
}

/// `run`'s object for one seed, and what only a single run can tell.
#[derive(Serialize)]
struct ReplayJson<'a> {
    #[serde(flatten)]
    run: Json<'a>,
    steps: u64,
    verdict: &'static str,
    checker: Option<&'a str>,
    message: Option<&'a str>,
    /// Simulated seconds at which the violation was seen.
    at: Option<f64>,
    /// The event after which it was seen.
    at_step: Option<u64>,
    plan_hash: String,
    expected: &'a str,
    as_expected: bool,
    /// What of the expectation was not met.
    unmet: &'a [String],
    /// Faults that hit nothing.
    skipped_faults: &'a [SkippedJson],
    stopped: bool,
}

/// A fault that hit nothing.
#[derive(Serialize)]
struct SkippedJson {
    /// Its row in the plan.
    fault: usize,
    /// As the plan says it.
    r#do: String,
    /// Simulated milliseconds.
    at_ms: f64,
    why: &'static str,
}

impl SkippedJson {
    fn new(skipped: &Skipped, plan: &Plan) -> SkippedJson {
        let Skipped { fault, at_ns, why } = *skipped;
        let what = plan.faults[fault].fault.to_string();
        SkippedJson { fault, r#do: what, at_ms: (at_ns / 1000) as f64 / 1e3, why }
    }
}

impl Telling {
    fn found(&self) -> &str {
        self.violation.as_ref().map_or("none", |violation| violation.checker)
    }

    fn as_expected(&self) -> bool {
        self.found() == self.expected && self.unmet.is_empty()
    }

    /// A scenario is judged by what it expects, a seed by its verdict.
    fn exit(&self) -> Exit {
        let unexpected = self.violation.as_ref().filter(|found| found.checker != self.expected);
        match (&self.subject, self.unmet.is_empty()) {
            (Subject::File(_), true) => Exit::Clean,
            (Subject::File(_), false) if unexpected.is_none() => Exit::Violation,
            _ => Exit::of(self.violation.as_ref()),
        }
    }

    fn json<'a>(&'a self, waypoints: &[&'static str]) -> ReplayJson<'a> {
        let seed = self.subject.seed();
        let failed = self.totals.failed.iter();
        let failed =
            failed.map(|Failure { violation, .. }| JsonFailure::new(seed, violation)).collect();
        let violation = self.violation.as_ref();
        ReplayJson {
            run: Json { failed, ..report::campaign_json(&self.totals, waypoints) },
            steps: self.steps,
            verdict: report::verdict(violation),
            checker: violation.map(|violation| violation.checker),
            message: violation.map(|violation| violation.message.as_str()),
            at: violation.map(|violation| violation.at_ns as f64 / 1e9),
            at_step: violation.map(|violation| violation.step),
            plan_hash: format!("{:016x}", self.plan_hash),
            expected: &self.expected,
            as_expected: self.as_expected(),
            unmet: &self.unmet,
            skipped_faults: &self.skipped,
            stopped: self.stopped.is_some(),
        }
    }

    fn text(&self, verbose: bool, paint: Paint) -> String {
        let mut text = String::new();
        if !self.timeline.is_empty() {
            text.push_str(&format!("{}\n{}", paint.bold("timeline"), self.timeline));
        }
        text.push_str(&self.end(paint));
        let simulated = report::duration(self.totals.sim_ns as f64 / 1e9);
        let wall = report::duration(self.totals.wall.as_secs_f64());
        let mut table = Table::default();
        table.words("verdict", &self.verdict(paint));
        table.words("steps", &report::thousands(self.steps.into()));
        table.words("messages", &report::thousands(self.totals.messages.into()));
        let acknowledged = report::thousands(self.totals.acknowledged.into());
        table.words("operations", &format!("{acknowledged} acknowledged"));
        table.words("time", &format!("{simulated} simulated in {wall}"));
        table.words("trace hash", &format!("{:016x}", self.totals.trace_hash));
        table.words("recovery", &recovery(&self.recovery));
        if verbose {
            report::coverage(&mut table, &self.totals, &[]);
        }
        text.push_str(&table.render(paint));
        text.push_str(&self.skipped_faults(paint));
        text.push_str(&self.expectation(paint));
        let words = self.last_words(paint);
        if !words.is_empty() {
            text.push_str(&format!("\n{words}"));
        }
        text
    }

    /// The last line of the timeline, and a blank one; nothing without a timeline.
    fn end(&self, paint: Paint) -> String {
        if self.timeline.is_empty() {
            return String::new();
        }
        let (at_ns, what) = match &self.violation {
            Some(violation) => {
                let word = paint.red(report::verdict(Some(violation)));
                (violation.at_ns, format!("{word} of {}", violation.checker))
            }
            None if self.stopped.is_some() => (self.totals.sim_ns as u64, "stopped".to_owned()),
            None => (self.totals.sim_ns as u64, "the cluster is at rest".to_owned()),
        };
        let (ms, us) = (at_ns / 1_000_000, at_ns / 1000 % 1000);
        format!("{ms:>6}.{us:03} ms  {what}\n\n")
    }

    /// The faults that hit nothing; empty if all did.
    fn skipped_faults(&self, paint: Paint) -> String {
        if self.skipped.is_empty() {
            return String::new();
        }
        let mut text = format!("\n{}\n", paint.yellow("faults that hit nothing"));
        for SkippedJson { fault, r#do, at_ms, why } in self.skipped.iter().take(LISTED_SKIPPED) {
            text.push_str(&format!("  fault {fault}: {} at {at_ms} ms: {why}\n", r#do));
        }
        let more = self.skipped.len().saturating_sub(LISTED_SKIPPED);
        if more > 0 {
            text.push_str(&format!("  and {more} more: --json lists them all\n"));
        }
        text
    }

    fn verdict(&self, paint: Paint) -> String {
        match (&self.violation, self.stopped) {
            (None, None) => paint.green("clean"),
            (None, Some(step)) => {
                let step = report::thousands(step.into());
                format!("{} up to step {step}, where you asked to stop", paint.green("clean"))
            }
            (Some(violation), _) => {
                let word = paint.red(report::verdict(Some(violation)));
                let step = report::thousands(violation.step.into());
                let at = report::duration(violation.at_ns as f64 / 1e9);
                format!("{word} of {} at step {step}, after {at}", violation.checker)
            }
        }
    }

    /// How the run compares with what the scenario expects; empty for a seed.
    fn expectation(&self, paint: Paint) -> String {
        if !matches!(self.subject, Subject::File(_)) {
            return String::new();
        }
        if self.stopped.is_some() && self.violation.is_none() {
            return "\nnot judged: the run was stopped before its end\n".to_owned();
        }
        if self.unmet.is_empty() {
            let word = paint.green("as expected");
            return match self.violation {
                Some(_) => format!("\n{word}: the scenario expects {} to fail\n", self.expected),
                None => format!("\n{word}\n"),
            };
        }
        let word = paint.red("not as expected");
        let lines = self.unmet.iter().map(|sentence| format!("{word}: {sentence}\n"));
        format!("\n{}", lines.collect::<String>())
    }

    /// Empty if there is nothing to complain about.
    fn last_words(&self, paint: Paint) -> String {
        self.violation.as_ref().map_or_else(String::new, |violation| {
            let page = match &self.recorded {
                Some(recorded) => report::page(recorded, violation, paint) + "\n",
                None => String::new(),
            };
            page + &report::last_words(&self.subject, Some(self.plan_hash), violation, paint)
        })
    }
}
