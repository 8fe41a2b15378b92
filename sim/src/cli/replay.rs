//! `cargo sim replay`: one seed or scenario again, told as a story.
//!
//! The exit code follows the verdict even when the scenario expects a violation: whether a known
//! bug still shows is for `cargo test` to judge, and a script that replays wants to know what
//! happened.

use serde::Serialize;
use stormkv_sim::campaign::{self, Failure, Totals};
use stormkv_sim::outcome::{Outcome, Recovery, Violation};
use stormkv_sim::plan::Plan;
use stormkv_sim::report::{self, Json, JsonFailure, Paint, Subject, Table};
use stormkv_sim::scenario;
use stormkv_sim::world::{self, Recorded, RunOptions};

use super::console::Console;
use super::engine::{self, Engine};
use super::page::Kept;
use super::{Exit, ReplayArgs, SubjectArgs, Usage, bugs, run};

pub fn replay(args: &ReplayArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let (subject, plan) = load(&args.subject)?;
    bugs::warn_if_missing(&subject, &plan, console);
    if !args.json {
        console.out.print(&opening(&subject, &plan, console.paint()));
    }
    let kept = Kept::default();
    let options =
        RunOptions { trace: trace(args, console), until_step: args.until, ..RunOptions::default() };
    let options = kept.recording(options);
    let (outcome, wall) = engine::timed(|| campaign::guarded(|| (engine.run_plan)(&plan, options)));
    let planted = plan.bug.clone().filter(|_| cfg!(feature = "bugs"));
    let telling = Telling {
        subject,
        plan_hash: plan.hash(),
        expected: engine::expected(&plan),
        stopped: args.until.filter(|until| *until <= outcome.events),
        violation: outcome.violation.clone(),
        recorded: kept.take(),
        steps: outcome.events,
        recovery: outcome.recovery,
        totals: Totals { wall, bug: planted, ..totals(args.subject.seed, outcome) },
    };
    if args.json {
        console.print_json(&telling.json());
        console.err.print(&telling.last_words(console.err_paint()));
    } else {
        console.out.print(&telling.text(console.paint()));
    }
    Ok(Exit::of(telling.violation.as_ref()))
}

/// The plan that is asked for.
pub(super) fn load(args: &SubjectArgs) -> Result<(Subject, Plan), Usage> {
    match (args.seed, &args.file) {
        (Some(seed), _) => {
            let bug = bugs::resolve(args.bug.as_deref())?;
            let subject = Subject::of_seed(seed, args.beyond_quorum, bug.as_deref());
            Ok((subject, run::plan(seed, args.beyond_quorum, bug.as_deref())))
        }
        (None, Some(path)) => {
            let plan = scenario::load(path)
                .map_err(|error| Usage(report::one_line(&error.to_string())))?;
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
    /// The event at which the user asked to stop, if the run came that far.
    stopped: Option<u64>,
    violation: Option<Violation>,
    recorded: Option<Recorded>,
    steps: u64,
    recovery: Recovery,
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
    stopped: bool,
}

impl Telling {
    fn found(&self) -> &str {
        self.violation.as_ref().map_or("none", |violation| violation.checker)
    }

    fn as_expected(&self) -> bool {
        self.found() == self.expected
    }

    fn json(&self) -> ReplayJson<'_> {
        let seed = self.subject.seed();
        let failed = self.totals.failed.iter();
        let failed =
            failed.map(|Failure { violation, .. }| JsonFailure::new(seed, violation)).collect();
        let violation = self.violation.as_ref();
        ReplayJson {
            run: Json { failed, ..report::campaign_json(&self.totals, world::WAYPOINTS) },
            steps: self.steps,
            verdict: report::verdict(violation),
            checker: violation.map(|violation| violation.checker),
            message: violation.map(|violation| violation.message.as_str()),
            at: violation.map(|violation| violation.at_ns as f64 / 1e9),
            at_step: violation.map(|violation| violation.step),
            plan_hash: format!("{:016x}", self.plan_hash),
            expected: &self.expected,
            as_expected: self.as_expected(),
            stopped: self.stopped.is_some(),
        }
    }

    fn text(&self, paint: Paint) -> String {
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
        report::coverage(&mut table, &self.totals, &[]);
        let mut text = table.render(paint);
        if let Some(sentence) = self.expectation() {
            text.push_str(&format!("\n{sentence}\n"));
        }
        let words = self.last_words(paint);
        if !words.is_empty() {
            text.push_str(&format!("\n{words}"));
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

    /// How the verdict compares with what the scenario says; `None` if clean was expected of it
    /// and clean it is, or if the run was cut short and has not failed yet.
    fn expectation(&self) -> Option<String> {
        match (self.as_expected(), self.expected.as_str()) {
            (true, "none") => None,
            (true, checker) => Some(format!("as expected: the scenario expects {checker} to fail")),
            (false, _) if self.violation.is_none() && self.stopped.is_some() => None,
            (false, "none") => match self.subject {
                Subject::File(_) => {
                    Some("unexpected: the scenario expects no violation".to_string())
                }
                _ => None,
            },
            (false, checker) => Some(match self.found() {
                "none" => format!("unexpected: the scenario expects {checker} to fail"),
                found => {
                    format!("unexpected: the scenario expects {checker} to fail, not {found}")
                }
            }),
        }
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
