//! `cargo sim view`: one run as a page to look at, or as a file that other programs show.
//!
//! The run is made once more, with a camera. The exit code is that of the verdict, of a scenario, too:
//! what it expects is for `replay` to judge. A failure ends with its sentence and the line that replays
//! it. These go where the file does not:
//! to standard error if that is standard output. Of a failure, the page and the data block say how
//! likely it was, event by event, which takes a thousand runs more.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use crate::campaign;
use crate::caught::guarded;
use crate::outcome::Class;
use crate::plan::Plan;
use crate::recording::StepNumber;
use crate::report;
use crate::simulation::RunOptions;
use crate::view::curve::{self, Original};
use crate::view::{About, Curve, Recording, block, html, perfetto, shiviz, text};

use super::console::Console;
use super::engine::Engine;
use super::{Exit, Usage, ViewArgs, ViewFormat, bugs, file, replay};

/// What `cargo sim view --help` ends with.
pub const HELP: &str = "\
The page is one file that any browser opens, and loads nothing from anywhere. Continuations are the run
up to an event, and from there on the same plan with other chance. Where the share of them that fails
jumps, something happened that the failure follows from.

ShiViz reads its log from a file, whose first line says how to take the others apart. It draws some
thousand events at most: of a failing run, --past leaves those that matter.

Exit codes: 0 clean, 1 violation, 2 liveness, 3 unknown (a time limit), 64 usage, 70 internal error";

pub fn view(args: &ViewArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    refuse(args)?;
    let to_file = args.output.as_os_str() != "-";
    if to_file {
        file::check(&args.output)?;
    }
    let (subject, plan) = replay::load(&args.subject, engine)?;
    bugs::warn_if_missing(&subject, &plan, console);
    let kept = Rc::new(RefCell::new(None));
    let sink = Rc::clone(&kept);
    let recording = move |recording| *sink.borrow_mut() = Some(recording);
    let options = RunOptions { recording: Some(Box::new(recording)), ..RunOptions::default() };
    let outcome = guarded(|| (engine.run_plan)(&plan, options));
    let mut about = About {
        title: replay::title(&subject),
        replay: subject.replay_command(),
        plan_hash: plan.hash(),
        trace_hash: outcome.trace_hash,
        bug: plan.bug.clone().filter(|_| cfg!(feature = "bugs")),
        violation: outcome.violation,
        curve: None,
    };
    let recording = kept.take();
    about.curve = recording
        .as_ref()
        .and_then(|recording| curve(args, &plan, recording, &about, engine, console));
    let (stream, paint) = match to_file {
        true => (&console.out, console.paint()),
        false => (&console.err, console.err_paint()),
    };
    match &recording {
        // A panic outside of a node ends the run before there is a recording.
        None => stream.print("note: the run panicked, so there is nothing to show\n"),
        Some(recording) => {
            let written = written(args, recording, &about)?;
            if to_file {
                file::write(&args.output, &written)?;
                stream.print(&summary(recording, &about, (&args.output, written.len())));
            } else {
                console.out.write(&written);
            }
        }
    }
    if let Some(violation) = &about.violation {
        let blank = if to_file { "\n" } else { "" };
        stream.print(blank);
        stream.print(&report::last_words(&subject, Some(about.plan_hash), violation, paint));
    }
    Ok(Exit::of(about.violation.as_ref()))
}

/// How many continuations there are of a failure, if nobody says.
const CONTINUATIONS: u32 = 20;

/// Which continuations of the run fail, if that is wanted.
fn curve(
    args: &ViewArgs,
    plan: &Plan,
    recording: &Recording,
    about: &About,
    engine: &Engine,
    console: &Console,
) -> Option<Curve> {
    let has_room = matches!(args.format, ViewFormat::Html | ViewFormat::Json);
    let failure = about.violation.as_ref().filter(|found| found.class != Class::Unknown);
    let runs = args.continuations.unwrap_or(if failure.is_some() { CONTINUATIONS } else { 0 });
    if runs == 0 || !has_room {
        return None;
    }
    let events = recording.steps.len() as StepNumber;
    let original = Original {
        plan,
        last: failure.map_or(events, |failure| failure.step as StepNumber),
        checker: failure.map(|failure| failure.checker),
    };
    let bar = console.progress_line();
    let jobs = args.jobs.map_or_else(campaign::default_jobs, usize::from);
    let run = |plan: &Plan, options| (engine.run_plan)(plan, options);
    let curve = curve::curve(&original, runs, jobs, &run, &mut |done, of| {
        let (done, of) = (report::thousands(done.into()), report::thousands(of.into()));
        bar.set_message(format!("{done} of {of} continuations"));
        bar.tick();
    });
    bar.finish_and_clear();
    Some(curve)
}

/// The page and the data block have room for all that is known; the exports have not.
fn refuse(args: &ViewArgs) -> Result<(), Usage> {
    let problem = match args.format {
        ViewFormat::Html if args.past => {
            "the page has all events, and shows the past of the violation if asked; leave out --past"
        }
        ViewFormat::Json if args.past => {
            "the data block has all events, and says itself which are the past of the violation; \
             leave out --past"
        }
        ViewFormat::Text | ViewFormat::Shiviz | ViewFormat::Perfetto
            if args.continuations.is_some() || args.jobs.is_some() =>
        {
            "only the page and the data block have room for what comes of continuations; leave out \
             --continuations and --jobs, or take --format html or json"
        }
        _ => return Ok(()),
    };
    Err(Usage(problem.to_owned()))
}

/// What goes into the file.
fn written(args: &ViewArgs, recording: &Recording, about: &About) -> Result<Vec<u8>, Usage> {
    if args.past && about.violation.is_none() {
        let title = &about.title;
        return Err(Usage(format!(
            "{title} is clean, so there is nothing to look for the past of; leave out --past"
        )));
    }
    let wanted = |step| !args.past || recording.is_past(step);
    Ok(match args.format {
        ViewFormat::Html => {
            html::render(&block::json(recording, about), &title(about)).into_bytes()
        }
        ViewFormat::Text => text::render(recording, wanted).into_bytes(),
        ViewFormat::Shiviz => shiviz::render(recording, wanted).into_bytes(),
        ViewFormat::Perfetto => perfetto::render(recording, wanted),
        ViewFormat::Json => (block::json(recording, about) + "\n").into_bytes(),
    })
}

/// What the page is called: `seed 7: violation · stormkv`.
fn title(about: &About) -> String {
    format!("{}: {} · stormkv", about.title, report::verdict(about.violation.as_ref()))
}

/// What was written where: `seed 7: clean, 12,345 events, 1,204 KB in run.json`.
fn summary(recording: &Recording, about: &About, (path, bytes): (&Path, usize)) -> String {
    let verdict = report::verdict(about.violation.as_ref());
    let events = report::thousands(recording.steps.len() as u128);
    let size = report::thousands(bytes.div_ceil(1000) as u128);
    let name = report::one_line(&path.to_string_lossy());
    format!("{}: {verdict}, {events} events, {size} KB in {name}\n", about.title)
}
