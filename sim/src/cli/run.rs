//! `cargo sim run`: a campaign of seeds, its summary, and what broke first.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::campaign::{
    self, BEYOND_QUORUM, BUG, Failure, FileError, Kept, Manifest, PROGRAM, Seeds, Settings, Totals,
};
use crate::caught::caught;
use crate::determinism;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::{self, Subject};
use crate::simulation::RunOptions;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::console::Console;
use super::engine::{self, Engine};
use super::interrupt::Interrupt;
use super::merge::refused;
use super::page::{self, Page};
use super::{Exit, RunArgs, Usage, shrink};

/// How often the progress bar is drawn at most, per second.
const REDRAWS_PER_S: u8 = 8;

pub fn run(args: &RunArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let seeds = choose(args)?;
    let jobs = args.jobs.map_or_else(campaign::default_jobs, usize::from);
    let bug = super::bugs::resolve(args.bug.as_deref())?;
    let mut earlier = Totals {
        canary: args.canary,
        beyond_quorum: args.beyond_quorum,
        bug: bug.clone(),
        ..Totals::default()
    };
    let mut kept = match open(args, &seeds, &mut earlier, (engine, console)) {
        Ok(kept) => kept,
        Err(error) => return refused(&error, console),
    };

    let bar = progress_bar(seeds.len(), earlier.seeds, console);
    let interrupt = Interrupt::watch()
        .map_err(|error| Usage(format!("signals cannot be watched: {error}; try again")))?;
    let mut named = Named { before: earlier.failed.len(), count: earlier.failed.len() };
    let mut progress = |totals: &Totals| {
        if let Some(lines) = named.lines(totals) {
            bar.suspend(|| console.err.print(&lines));
            bar.set_message(format!(", {} failed", totals.failed.len()));
        }
        bar.set_position(totals.seeds);
        match interrupt.is_asked() || (engine.interrupts)(totals) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let mut record = |seed, outcome: &Outcome| match &mut kept {
        None => Ok(()),
        Some(kept) => kept.append(seed, outcome),
    };
    let run_seed = |seed| args.canary.applied(seed, run_seed(args, bug.as_deref(), engine, seed));
    let totals = campaign::go_on(&seeds, jobs, &run_seed, earlier, &mut record, &mut progress);
    bar.finish_and_clear();
    drop(interrupt);
    let synced = kept.as_mut().map_or(Ok(()), Kept::sync);
    let totals = match totals.and_then(|totals| synced.map(|()| totals)) {
        Ok(totals) => totals,
        Err(error) => return refused(&error, console),
    };
    let plural = if jobs == 1 { "" } else { "s" };
    let label = format!("{seeds}, {jobs} job{plural}");
    let page = |worst: &Failure, plan: &Plan, paint| page::again(worst, plan, engine, paint);
    let form = Form { json: args.json, verbose: args.verbose };
    let exit = print_totals(&label, &totals, form, (engine, console), &page);
    if totals.interrupted && args.out.is_some() {
        console
            .err
            .print("note: the same command goes on behind the last seed that was finished\n");
    }
    if args.shrink && !totals.interrupted {
        shrink_worst(args, &totals, engine, console);
    }
    Ok(exit)
}

/// Names failing seeds as they are found.
struct Named {
    /// How many were known before this run.
    before: usize,
    /// How many are known.
    count: usize,
}

impl Named {
    /// What to print about the failures that are new; `None` if there are none.
    fn lines(&mut self, totals: &Totals) -> Option<String> {
        let known = std::mem::replace(&mut self.count, totals.failed.len());
        let mut lines = String::new();
        for (at, Failure { seed, violation }) in totals.failed.iter().enumerate().skip(known) {
            match (at - self.before).cmp(&report::LISTED_FAILURES) {
                Ordering::Less => {
                    let (checker, message) =
                        (violation.checker, report::sentence(&violation.message));
                    lines.push_str(&format!("seed {seed} failed: {checker}: {message}\n"));
                }
                Ordering::Equal => lines.push_str("more seeds fail; they are counted only\n"),
                Ordering::Greater => {}
            }
        }
        (known < self.count).then_some(lines)
    }
}

/// Shrinks the worst failure, if there is one. That this fails is no news about the seeds: it does
/// not change the exit code.
fn shrink_worst(args: &RunArgs, totals: &Totals, engine: &Engine, console: &Console) {
    let Some(worst) = totals.worst() else { return };
    let plan = caught(|| engine.plan(worst.seed, args.beyond_quorum, totals.bug.as_deref()));
    let shrunk = match plan {
        Ok(plan) => shrink::shrink_worst(args, worst, plan, engine, console),
        Err(panic) => Err(Usage(format!("seed {} has no plan: {}", worst.seed, panic.message))),
    };
    if let Err(Usage(message)) = shrunk {
        console.err.print(&format!("note: not shrunk: {message}\n"));
    }
}

/// Runs one seed as the options say.
fn run_seed(args: &RunArgs, bug: Option<&str>, engine: &Engine, seed: u64) -> Outcome {
    let generate = || engine.plan(seed, args.beyond_quorum, bug);
    if !args.check_determinism {
        return match (bug, args.beyond_quorum) {
            (None, false) => (engine.run_seed)(seed),
            (None, true) => (engine.run_beyond)(seed),
            (Some(_), _) => (engine.run_plan)(&generate(), RunOptions::default()),
        };
    }
    // The plan is made anew each time: how it is made must be determined, too.
    let again = |options| (engine.run_plan)(&generate(), options);
    determinism::check(&again, &again)
}

/// Opens the file of this campaign, if one is asked for, and adds up what it holds.
fn open(
    args: &RunArgs,
    seeds: &Seeds,
    earlier: &mut Totals,
    (engine, console): (&Engine, &Console),
) -> Result<Option<Kept>, FileError> {
    let Some(directory) = &args.out else { return Ok(None) };
    let mut settings = Settings::new();
    if engine.is_foreign {
        let program = engine::hash_of_program().map_err(|error| {
            FileError::Refused(format!(
                "the program itself cannot be read: {error}; make it readable"
            ))
        })?;
        settings.insert(PROGRAM.to_owned(), format!("{program:016x}"));
    }
    if args.canary.is_on() {
        settings.insert("canary".to_owned(), args.canary.to_string());
    }
    if args.check_determinism {
        settings.insert("check-determinism".to_owned(), "true".to_owned());
    }
    if args.beyond_quorum {
        settings.insert(BEYOND_QUORUM.to_owned(), "true".to_owned());
    }
    settings.extend(earlier.bug.clone().map(|bug| (BUG.to_owned(), bug)));
    let manifest = Manifest::new(seeds, settings);
    let kept = Kept::open(directory, &manifest, seeds, &mut |seed, outcome| {
        earlier.fold(seed, outcome);
        earlier.read_back += 1;
    })?;
    if kept.was_torn() {
        let name = report::one_line(&kept.path().to_string_lossy());
        console.err.print(&format!(
            "note: the last line of {name} was cut off when its run was stopped; its seed is run \
             again\n"
        ));
    }
    Ok(Some(kept))
}

/// How a campaign is reported.
#[derive(Clone, Copy)]
pub struct Form {
    /// As one object.
    pub json: bool,
    /// With all counts.
    pub verbose: bool,
}

/// Reports what came of a campaign: the JSON object or the summary, and the last lines.
pub fn print_totals(
    label: &str,
    totals: &Totals,
    form: Form,
    (engine, console): (&Engine, &Console),
    page: Page<'_>,
) -> Exit {
    let waypoints = &(engine.waypoints)();
    let paint = console.paint();
    match form {
        Form { json: true, .. } => {
            console.print_json(&report::campaign_json(totals, waypoints));
        }
        Form { verbose: true, .. } => {
            console.out.print(&report::summary(label, totals, waypoints, paint));
            if totals.failed.is_empty() {
                console.out.print(&format!("\n{}\n", report::verdict_line(totals, paint)));
            }
        }
        _ => {
            let known = (&waypoints[..], &(engine.custom_faults)()[..]);
            console.out.print(&report::brief(label, totals, known, paint));
            console.out.print("\nall counts: --verbose\n");
        }
    }
    conclude(totals, form.json, (engine, console), page);
    let lost = totals.canaries().map_or(0, |canaries| canaries.lost());
    if lost > 0 {
        console.err.print(&format!(
            "error: {lost} canaries were due and not reported: failures get lost on the way; this \
             is a bug of the simulator\n"
        ));
        return Exit::Internal;
    }
    match totals.worst_class() {
        None if totals.interrupted => Exit::Interrupted,
        class => Exit::of_class(class),
    }
}

/// The seeds that the arguments ask for.
fn choose(args: &RunArgs) -> Result<Seeds, Usage> {
    let seeds = match &args.seed_file {
        None => args.seeds.clone(),
        Some(path) => {
            let name = report::one_line(&path.to_string_lossy());
            let text = std::fs::read_to_string(path).map_err(|error| {
                Usage(format!("{name}: {error}; name a text file with one seed a line"))
            })?;
            Seeds::parse_file(&name, &text).map_err(Usage)?
        }
    };
    Ok(match args.shard {
        None => seeds,
        Some(shard) => seeds.shard(shard),
    })
}

/// The last lines: the worst failure and how to see it again.
fn conclude(totals: &Totals, json: bool, (engine, console): (&Engine, &Console), page: Page<'_>) {
    let Some(worst) = totals.worst() else { return };
    // A plan that cannot even be generated is a panic of its seed, and has no hash.
    let (beyond_quorum, bug) = (totals.beyond_quorum, totals.bug.as_deref());
    let subject = Subject::of_seed(worst.seed, beyond_quorum, bug);
    let plan = caught(|| engine.plan(worst.seed, beyond_quorum, bug)).ok();
    let words = |paint| {
        let page = plan.as_ref().map_or_else(String::new, |plan| page(worst, plan, paint));
        let plan_hash = plan.as_ref().map(Plan::hash);
        let others = if totals.interrupted { others(totals, worst) } else { String::new() };
        others + &page + &report::last_words(&subject, plan_hash, &worst.violation, paint)
    };
    if json {
        console.err.print(&words(console.err_paint()));
    } else {
        console.out.print(&format!("\n{}", words(console.paint())));
    }
}

/// The lines that replay the other failures that were found, some of them if they are many.
fn others(totals: &Totals, worst: &Failure) -> String {
    let others = totals.failed.iter().filter(|failure| failure.seed != worst.seed);
    let lines: Vec<String> = others
        .take(report::LISTED_FAILURES)
        .map(|Failure { seed, .. }| {
            let subject = Subject::of_seed(*seed, totals.beyond_quorum, totals.bug.as_deref());
            format!("  {}\n", subject.replay_command())
        })
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("to replay the others\n{}\n", lines.concat()),
    }
}

/// A bar on standard error if that is a terminal; otherwise one that draws nothing.
/// `done` seeds were run before, which says nothing about the speed of this run.
fn progress_bar(count: u64, done: u64, console: &Console) -> ProgressBar {
    if !console.err_terminal {
        return ProgressBar::hidden();
    }
    let template = "{bar:32} {human_pos}/{human_len} seeds, {per_sec}{msg}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is ours");
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S);
    let bar = ProgressBar::with_draw_target(Some(count), target).with_style(style);
    bar.set_position(done);
    bar.reset_eta();
    bar
}
