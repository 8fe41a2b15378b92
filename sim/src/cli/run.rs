//! `cargo sim run`: a campaign of seeds, its summary, and what broke first.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use stormkv_sim::campaign::{self, Seeds, Totals};
use stormkv_sim::caught::caught;
use stormkv_sim::report::{self, Subject};
use stormkv_sim::{swarm, world};

use super::console::Console;
use super::engine::Engine;
use super::{Exit, RunArgs, Usage};

/// How often the progress bar is drawn at most, per second.
const REDRAWS_PER_S: u8 = 8;

pub fn run(args: &RunArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let seeds = choose(args)?;
    let jobs = args.jobs.map_or_else(campaign::default_jobs, usize::from);
    let bar = progress_bar(seeds.len(), console);
    let mut failures = 0;
    let mut progress = |totals: &Totals| {
        let failed = totals.failed.len();
        if failed != failures {
            failures = failed;
            bar.set_message(format!(", {failed} failed"));
        }
        bar.set_position(totals.seeds);
    };
    let totals = campaign::run(&seeds, jobs, &engine.run_seed, &mut progress);
    bar.finish_and_clear();

    if args.json {
        console.print_json(&report::campaign_json(&totals, world::WAYPOINTS));
    } else {
        let label = seeds.to_string();
        let paint = console.paint();
        console.out.print(&report::summary(&label, jobs, &totals, world::WAYPOINTS, paint));
    }
    conclude(&totals, args.json, console);
    Ok(Exit::of(totals.worst().map(|failure| &failure.violation)))
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

/// The last lines: the worst failure and how to see it again, or that there is none.
fn conclude(totals: &Totals, json: bool, console: &Console) {
    let Some(worst) = totals.worst() else {
        if !json {
            let word = console.paint().green("clean");
            let sentence = match totals.seeds {
                0 => "no seed falls to this shard, so nothing was tested".to_string(),
                1 => "1 seed, no violation".to_string(),
                n => format!("{} seeds, no violation", report::thousands(n.into())),
            };
            console.out.print(&format!("\n{word}: {sentence}\n"));
        }
        return;
    };
    // A plan that cannot even be generated is a panic of its seed, and has no hash.
    let plan_hash = caught(|| swarm::generate(worst.seed).hash()).ok();
    let subject = Subject::Seed(worst.seed);
    let words = |paint| report::last_words(&subject, plan_hash, &worst.violation, paint);
    if json {
        console.err.print(&words(console.err_paint()));
    } else {
        console.out.print(&format!("\n{}", words(console.paint())));
    }
}

/// A bar on standard error if that is a terminal; otherwise one that draws nothing.
fn progress_bar(count: u64, console: &Console) -> ProgressBar {
    if !console.err_terminal {
        return ProgressBar::hidden();
    }
    let template = "{bar:32} {human_pos}/{human_len} seeds, {per_sec}{msg}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is ours");
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S);
    ProgressBar::with_draw_target(Some(count), target).with_style(style)
}
