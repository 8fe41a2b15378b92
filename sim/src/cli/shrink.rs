//! `cargo sim shrink`: a failing seed or scenario becomes a small scenario file.
//!
//! The best plan so far is written as soon as it improves, so an interrupted search loses little:
//! shrinking what it has left goes on from there. A file that is in the way is only replaced if it
//! is itself the shrunk scenario of the same seed.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::campaign::{self, CANARY, Failure};
use crate::plan::Plan;
use crate::report::{self, Subject};
use crate::scenario;
use crate::shrink::{Options, Progress, Shrunk, Weight};

use super::console::{Console, Stream};
use super::engine::{self, Engine};
use super::{Exit, RunArgs, ShrinkArgs, Usage, bugs, file, replay};

/// What to shrink, and how.
struct Task<'a> {
    plan: Plan,
    /// The seed that the plan comes from.
    seed: u64,
    /// What it is called on the terminal.
    title: String,
    out: &'a Path,
    jobs: usize,
    budget: Duration,
}

pub fn shrink(args: &ShrinkArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let (subject, plan) = replay::load(&args.subject, engine)?;
    bugs::warn_if_missing(&subject, &plan, console);
    let task = Task {
        seed: args.subject.seed.unwrap_or_else(|| origin(&plan)),
        plan,
        title: replay::title(&subject),
        out: &args.output,
        jobs: args.jobs.map_or_else(campaign::default_jobs, usize::from),
        budget: args.budget,
    };
    let shrunk = task.carry_out(engine, console, &console.out)?;
    Ok(Exit::of(shrunk.outcome.violation.as_ref()))
}

/// Shrinks the worst failure of a campaign into a file beside its other results.
pub fn shrink_worst(
    args: &RunArgs,
    worst: &Failure,
    plan: Plan,
    engine: &Engine,
    console: &Console,
) -> Result<(), Usage> {
    let seed = worst.seed;
    if worst.violation.checker == CANARY {
        return Err(Usage(format!("seed {seed} failed on purpose: nothing to shrink")));
    }
    let beyond = if args.beyond_quorum { "-beyond-quorum" } else { "" };
    let out = args.out.clone().unwrap_or_default().join(format!("seed-{seed}{beyond}.toml"));
    let task = Task {
        plan,
        seed,
        title: format!("seed {seed}"),
        out: &out,
        jobs: args.jobs.map_or_else(campaign::default_jobs, usize::from),
        budget: args.budget,
    };
    let stream = if args.json { &console.err } else { &console.out };
    stream.print("\n");
    task.carry_out(engine, console, stream).map(|_| ())
}

/// The seed that a plan comes from.
fn origin(plan: &Plan) -> u64 {
    plan.found.as_ref().map_or(plan.seed, |found| found.seed)
}

/// How much there is in a plan.
fn size(plan: &Plan) -> String {
    let counted = |count: usize, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{} {what}{plural}", report::thousands(count as u128))
    };
    let mut parts = vec![counted(plan.faults.len(), "fault"), counted(plan.ops.len(), "operation")];
    if !plan.net.is_empty() {
        parts.push(counted(plan.net.len(), "exception"));
    }
    parts.push(counted((plan.cluster.nodes + plan.cluster.learners) as usize, "node"));
    parts.join(", ")
}

impl Task<'_> {
    fn carry_out(
        &self,
        engine: &Engine,
        console: &Console,
        stream: &Stream,
    ) -> Result<Shrunk, Usage> {
        let there = self.what_is_there(engine)?;
        let bar = console.progress_line();
        let started = engine::now();
        let mut trouble = None;
        let mut report = |progress: &Progress<'_>| {
            if progress.improved && there.is_none_or(|there| (engine.weight)(progress.best) < there)
            {
                trouble = write(self.out, progress.best).err();
            }
            bar.set_message(format!(
                "{}, {} events, {} candidates tried: {}",
                size(progress.best),
                report::thousands(progress.events.into()),
                report::thousands(progress.tried.into()),
                progress.pass,
            ));
            bar.tick();
            match trouble.is_some() || started.elapsed() >= self.budget {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut options = Options::default();
        (options.jobs, options.seed) = (self.jobs, Some(self.seed));
        let run = |plan: &Plan, options| (engine.run_plan)(plan, options);
        let shrunk = (engine.shrink)(&self.plan, &options, &run, &mut report);
        bar.finish_and_clear();
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let shrunk = shrunk.map_err(|error| Usage(format!("{} {error}", self.title)))?;
        let plan = write(self.out, &shrunk.plan)?;
        let slips = self.save_slips(&shrunk)?;
        stream.print(&self.tell(&plan, &shrunk, started.elapsed()));
        stream.print(&slips);
        self.conclude(&plan, &shrunk, console, stream);
        Ok(shrunk)
    }

    /// How much is in the file that is to be written, if there is one that may be replaced.
    fn what_is_there(&self, engine: &Engine) -> Result<Option<Weight>, Usage> {
        if !self.out.exists() {
            return Ok(None);
        }
        let old = (engine.load)(self.out).ok();
        match old.filter(|old| old.found.as_ref().is_some_and(|found| found.seed == self.seed)) {
            Some(old) => Ok(Some((engine.weight)(&old))),
            None => Err(Usage(format!(
                "{} is there and is not what became of seed {}; name another file, or remove it",
                shown(self.out),
                self.seed
            ))),
        }
    }

    /// Saves what else failed on the way, unless that was done before.
    fn save_slips(&self, shrunk: &Shrunk) -> Result<String, Usage> {
        let mut text = String::new();
        for slip in &shrunk.slips {
            let checker = slip.violation.checker;
            let path = self.out.with_extension(format!("{checker}.toml"));
            if !path.exists() {
                write(&path, &slip.plan)?;
            }
            let sentence = slip.violation.message.split("\n\n").next().unwrap_or_default();
            writeln!(
                text,
                "slipped to {checker}, kept as {}: {}",
                shown(&path),
                report::one_line(sentence)
            )
            .expect("a string takes all");
        }
        Ok(text)
    }

    fn tell(&self, plan: &Plan, shrunk: &Shrunk, took: Duration) -> String {
        let events = |count: u64| format!("{} events", report::thousands(count.into()));
        let mut text = format!(
            "{}: {}, {}\nshrunk to {}, {} ({} steps, {} candidates, {})\n",
            self.title,
            size(&self.plan),
            events(shrunk.events_before),
            size(plan),
            events(shrunk.outcome.events),
            report::thousands(shrunk.adopted.into()),
            report::thousands(shrunk.tried.into()),
            report::duration(took.as_secs_f64()),
        );
        if !shrunk.minimal {
            let file = shown(self.out);
            writeln!(text, "the time is up: `cargo sim shrink {file} -o {file}` goes on")
                .expect("a string takes all");
        }
        let indented: Vec<String> = scenario::save(plan)
            .lines()
            .map(|line| if line.is_empty() { String::new() } else { format!("  {line}") })
            .collect();
        format!("{text}\n{}\n\n", indented.join("\n"))
    }

    /// The last lines, as of any failure.
    fn conclude(&self, plan: &Plan, shrunk: &Shrunk, console: &Console, stream: &Stream) {
        let subject = Subject::File(self.out.to_string_lossy().into_owned());
        let violation = shrunk.outcome.violation.as_ref().expect("what was shrunk fails");
        let paint = console.paint();
        stream.print(&report::last_words(&subject, Some(plan.hash()), violation, paint));
    }
}

/// Writes a scenario, whole or not at all, and returns it as it is in the file: it is called like its
/// file, as all scenarios are.
pub fn write(path: &Path, plan: &Plan) -> Result<Plan, Usage> {
    let mut plan = plan.clone();
    if let Some(stem) = path.file_stem() {
        plan.name = report::one_line(&stem.to_string_lossy());
    }
    file::write(path, scenario::save(&plan).as_bytes())?;
    Ok(plan)
}

fn shown(path: &Path) -> String {
    report::one_line(&path.to_string_lossy())
}
