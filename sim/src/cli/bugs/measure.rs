//! Runs the campaigns against the bugs: the threads and the clock are here.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::bugs::{self, Bag, Catch, Hunt, Limits, Score};
use crate::campaign;
use crate::plan::Plan;
use crate::report;
use crate::simulation::RunOptions;
use crate::swarm::{Group, Knobs};
use stormkv::bugs::{ALL, Info};

use super::super::console::Console;
use super::super::engine::{self, Engine};
use super::super::{BugsArgs, Exit, Usage, shrink};
use super::{bake_off, table};

/// A group of faults is needed if the median without it is more than this many times as large, and
/// beyond the interval.
const FARTHER: f64 = 5.0;

/// What is told about a bug.
pub struct Row {
    pub info: &'static Info,
    pub bag: Bag,
    pub score: Score,
    /// Events of the typical failing run, once it is shrunk.
    pub events_after: Option<u64>,
    /// Which groups of faults it takes. `None` if that was not asked, or the median is unknown.
    pub needs: Option<Needs>,
}

/// Which groups of faults a bug takes to be found.
#[derive(Default)]
pub struct Needs {
    pub needed: Vec<Group>,
    /// The budget was used up before that was clear.
    pub unclear: Vec<Group>,
}

pub fn bugs(args: &BugsArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let chosen = choose(&args.only)?;
    if args.list {
        table::list(&chosen, args, console);
        return Ok(Exit::Clean);
    }
    if args.bake_off {
        return Ok(bake_off::bake_off(&chosen, args, engine, console));
    }
    let hunter = Hunter {
        limits: Limits {
            repeats: args.repeats,
            seeds: args.seeds_per_repeat,
            budget: args.budget,
            enough: args.repeats,
        },
        jobs: args.jobs.map_or_else(campaign::default_jobs, usize::from),
        engine,
        shrink: args.shrink.as_deref(),
    };
    if let Some(directory) = hunter.shrink {
        fs::create_dir_all(directory).map_err(|error| {
            let name = report::one_line(&directory.to_string_lossy());
            Usage(format!("{name} cannot be written: {error}; name another directory"))
        })?;
    }
    let mut rows = Vec::new();
    for info in chosen {
        let row = hunter.measure(info, args.ablate)?;
        console.err.print(&format!("{}\n", table::progress(&row)));
        warn_of_unrelated(&row, console);
        rows.push(row);
    }
    table::tell(&rows, args, console);
    let all = rows.iter().all(|row| row.score.is_found());
    Ok(if all { Exit::Clean } else { Exit::Violation })
}

/// The bugs that are asked for, in the order of the catalogue.
fn choose(only: &[String]) -> Result<Vec<&'static Info>, Usage> {
    let mut chosen = Vec::new();
    for word in only {
        chosen.push(bugs::named(word).map_err(Usage)?.bug);
    }
    let is_chosen = |info: &&Info| chosen.is_empty() || chosen.contains(&info.bug);
    Ok(ALL.iter().filter(is_chosen).collect())
}

/// A seed that fails without the bug is a finding of its own, and a testbed with false alarms is
/// worth nothing.
fn warn_of_unrelated(row: &Row, console: &Console) {
    for (seed, find) in &row.bag.unrelated {
        console.err.print(&format!(
            "warning: seed {seed} fails without {}, too ({}), so it does not count: see `cargo sim \
             replay --seed {seed}`\n",
            row.info.name, find.checker
        ));
    }
}

struct Hunter<'a> {
    limits: Limits,
    jobs: usize,
    engine: &'a Engine,
    /// Where to keep a shrunk failure of each bug.
    shrink: Option<&'a Path>,
}

impl Hunter<'_> {
    fn measure(&self, info: &'static Info, ablate: bool) -> Result<Row, Usage> {
        let bag = self.hunt(info, &Knobs::default(), self.limits);
        let score = Score::of(&bag);
        let events_after = match (&score.typical, self.shrink) {
            (Some(typical), Some(directory)) => self.shrink(info, typical.seed, directory)?,
            _ => None,
        };
        let needs = ablate.then(|| self.farthest(&score)).flatten();
        let needs = needs.map(|seeds| self.ablate(info, seeds));
        Ok(Row { info, bag, score, events_after, needs })
    }

    /// Shrinks the failing plan of a seed and keeps it. Tells how many events are left of its run.
    fn shrink(
        &self,
        info: &'static Info,
        seed: u64,
        directory: &Path,
    ) -> Result<Option<u64>, Usage> {
        let plan = plan(self.engine, seed, info, &Knobs::default());
        let shrunk = (self.engine.shrink_within)(self.engine, &plan, self.jobs, self.limits.budget);
        let Some((plan, events)) = shrunk else { return Ok(None) };
        shrink::write(&directory.join(format!("{}.toml", info.name)), &plan)?;
        Ok(Some(events))
    }

    /// How many seeds without a group of faults say that it is needed. With few repeats the median
    /// may be far off, so the interval counts, too.
    fn farthest(&self, score: &Score) -> Option<u64> {
        let high = score.seeds.interval.and_then(|interval| interval.high).unwrap_or(0.0);
        let seeds = (score.seeds.value? * FARTHER).max(high).ceil() as u64;
        Some(seeds.min(self.limits.seeds))
    }

    /// Looks for the bug without each group of faults. As soon as half of the repeats have found it,
    /// the median without that group is known to be within the limit.
    fn ablate(&self, info: &'static Info, seeds: u64) -> Needs {
        let enough = self.limits.repeats.div_ceil(2);
        let limits = Limits { seeds, enough, ..self.limits };
        let mut needs = Needs::default();
        for group in Group::ALL {
            let bag = self.hunt(info, &Knobs::without(group), limits);
            if (bag.found.len() as u64) < enough {
                let list = if bag.out_of_budget { &mut needs.unclear } else { &mut needs.needed };
                list.push(group);
            }
        }
        needs
    }

    /// One campaign, on all threads.
    fn hunt(&self, info: &'static Info, knobs: &Knobs, limits: Limits) -> Bag {
        let hunt = Mutex::new(Hunt::new(limits));
        let run = self.engine.run_plan;
        let work = || {
            // The lock must not be held during the run.
            let deal = || lock(&hunt).deal();
            while let Some(turn) = deal() {
                let plan = || plan(self.engine, turn.seed, info, knobs);
                let (find, time) =
                    engine::timed(|| bugs::attempt(|| run(&plan(), RunOptions::default())));
                let without = || run(&Plan { bug: None, ..plan() }, RunOptions::default());
                let catch = find.map_or(Catch::Nothing, |find| bugs::confirm(find, without));
                lock(&hunt).take(turn, catch, time);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.jobs {
                scope.spawn(work);
            }
            work();
        });
        hunt.into_inner().unwrap_or_else(PoisonError::into_inner).end()
    }
}

/// Runs cannot poison it: what they do to themselves is caught before.
fn lock(hunt: &Mutex<Hunt>) -> MutexGuard<'_, Hunt> {
    hunt.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plan of a seed with a bug planted.
fn plan(engine: &Engine, seed: u64, info: &Info, knobs: &Knobs) -> Plan {
    Plan { bug: Some(info.name.to_owned()), ..(engine.generate_with)(seed, knobs) }
}

impl Row {
    /// The line that shows the typical failure again.
    pub fn replay(&self) -> Option<String> {
        let typical = self.score.typical.as_ref()?;
        let subject = report::Subject::of_seed(typical.seed, false, Some(self.info.name));
        Some(subject.replay_command())
    }
}
