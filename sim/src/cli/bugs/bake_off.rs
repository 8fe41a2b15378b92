//! Which way to choose plans finds the bugs soonest, given the same time?
//!
//! Each repeat of each way is a campaign of its own, on one thread: one that learns from its runs
//! must have seen one before it chooses the next. The repeats of all ways take turns, so that
//! whatever else the machine does hits them alike.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::bugs::{self, Catch, Interval, Median, SEEDS_APART};
use crate::campaign;
use crate::explore::{Exploration, Explorer};
use crate::parallel;
use crate::plan::Plan;
use crate::report;
use crate::simulation::RunOptions;
use crate::version;
use rustc_hash::FxHashSet;
use serde::Serialize;
use stormkv::bugs::Info;

use super::super::console::Console;
use super::super::engine::{self, Engine};
use super::super::{BugsArgs, Exit};
use super::table::{Grid, micros};

/// How long a repeat took until it found the bug, and how many plans; `None` if its time was up.
type Repeat = Option<(Duration, u64)>;

/// What one way to choose plans came to with one bug.
struct Cell {
    detected: u64,
    time_s: Median,
    plans: Median,
}

struct Row {
    info: &'static Info,
    /// In the order of [`Explorer::ALL`].
    cells: Vec<Cell>,
}

/// How a way compares with the first over all bugs.
struct Overall {
    explorer: Explorer,
    /// Bugs that at least one repeat has found.
    bugs: usize,
    repeats: u64,
    /// Time until a bug is found, as a multiple of what the first way took.
    ratio: Median,
}

#[derive(Serialize)]
struct BakeOffJson {
    bugs: Vec<RowJson>,
    overall: Vec<OverallJson>,
    repeats: u64,
    budget_s: f64,
    version: &'static str,
    revision: &'static str,
}

#[derive(Serialize)]
struct RowJson {
    id: &'static str,
    name: &'static str,
    class: &'static str,
    explorers: Vec<CellJson>,
}

#[derive(Serialize)]
struct CellJson {
    explorer: &'static str,
    detected: u64,
    cpu_s_median: Option<f64>,
    /// An end is null if the repeat there was cut off.
    cpu_s_ci: Option<[Option<f64>; 2]>,
    plans_median: Option<f64>,
}

#[derive(Serialize)]
struct OverallJson {
    explorer: &'static str,
    bugs: usize,
    repeats: u64,
    ratio_median: Option<f64>,
    ratio_ci: Option<[Option<f64>; 2]>,
}

/// Compares all ways to choose plans on these bugs.
pub fn bake_off(
    chosen: &[&'static Info],
    args: &BugsArgs,
    engine: &Engine,
    console: &Console,
) -> Exit {
    let mut rows = Vec::new();
    for info in chosen {
        let row = Row { info, cells: compare(info, args, engine) };
        let cells = row.cells.iter().zip(Explorer::ALL);
        let told =
            cells.map(|(cell, explorer)| format!("{} {}", explorer.name(), tell(cell, args)));
        let told = told.collect::<Vec<_>>().join(", ");
        console.err.print(&format!("{:>2} {}: {told}\n", info.id, info.name));
        rows.push(row);
    }
    let budget_s = (args.budget / args.repeats as u32).as_secs_f64();
    let overall: Vec<Overall> = Explorer::ALL
        .iter()
        .enumerate()
        .map(|(at, way)| overall(&rows, at, *way, budget_s))
        .collect();
    if args.json {
        console.print_json(&BakeOffJson {
            bugs: rows.iter().map(RowJson::new).collect(),
            overall: overall.iter().map(OverallJson::new).collect(),
            repeats: args.repeats,
            budget_s: report::seconds(args.budget),
            version: version::VERSION,
            revision: version::REVISION,
        });
    } else {
        console.out.print(&each(&rows, args).text(args.markdown));
        console.out.print("\n");
        console.out.print(&all(&overall, rows.len(), args).text(args.markdown));
    }
    Exit::Clean
}

/// All repeats of all ways against one bug.
fn compare(info: &'static Info, args: &BugsArgs, engine: &Engine) -> Vec<Cell> {
    let turns: Vec<(u64, Explorer)> = (0..args.repeats)
        .flat_map(|repeat| Explorer::ALL.map(|explorer| (repeat, explorer)))
        .collect();
    let budget = args.budget / args.repeats as u32;
    let run = |(repeat, explorer): &(u64, Explorer)| {
        search(Exploration::new(*explorer, repeat * SEEDS_APART), info, budget, engine)
    };
    let jobs = args.jobs.map_or_else(campaign::default_jobs, usize::from);
    let results = parallel::judge(&turns, jobs, &run, &|_| false);
    let cell = |way: Explorer| {
        let turns = turns.iter().zip(&results).filter(|((_, explorer), _)| *explorer == way);
        Cell::of(&turns.map(|(_, result)| result.flatten()).collect::<Vec<_>>())
    };
    Explorer::ALL.map(cell).into()
}

/// One campaign, until the bug is found or the time is up. What proves that the bug is to blame is
/// not part of its time.
fn search(
    mut exploration: Exploration,
    info: &'static Info,
    budget: Duration,
    engine: &Engine,
) -> Repeat {
    let (mut spent, mut plans) = (Duration::ZERO, 0);
    while spent < budget {
        let ((plan, find), time) = engine::timed(|| {
            let plan =
                Plan { bug: Some(info.name.to_owned()), ..(engine.next_plan)(&mut exploration) };
            let pictures = Rc::new(RefCell::new(FxHashSet::default()));
            let mut options = RunOptions::default();
            if exploration.learns() {
                let pictures = pictures.clone();
                options.pictures = Some(Box::new(move |picture| {
                    pictures.borrow_mut().insert(picture);
                }));
            }
            let find = bugs::attempt(|| (engine.run_plan)(&plan, options));
            if exploration.learns() {
                exploration.learn(Plan { bug: None, ..plan.clone() }, &pictures.borrow());
            }
            (plan, find)
        });
        spent += time;
        plans += 1;
        let Some(find) = find else { continue };
        let without =
            || (engine.run_plan)(&Plan { bug: None, ..plan.clone() }, RunOptions::default());
        if let Catch::Found(_) = bugs::confirm(find, without) {
            return Some((spent, plans));
        }
    }
    None
}

impl Cell {
    fn of(repeats: &[Repeat]) -> Cell {
        let found = || repeats.iter().flatten();
        let detected = found().count();
        let cut_off = repeats.len() - detected;
        Cell {
            detected: detected as u64,
            time_s: Median::of(found().map(|(time, _)| time.as_secs_f64()), cut_off),
            plans: Median::of(found().map(|(_, plans)| *plans as f64), cut_off),
        }
    }
}

/// Compares a way with the first. Where only one of the two has a median, the other one's is larger
/// than the time that it had; where none has, nothing is known.
fn overall(rows: &[Row], at: usize, explorer: Explorer, budget_s: f64) -> Overall {
    let (mut known, mut cut_off) = (Vec::new(), 0);
    for row in rows {
        match (row.cells[at].time_s.value, row.cells[0].time_s.value) {
            (Some(time), first) => known.push(time / first.unwrap_or(budget_s)),
            (None, Some(_)) => cut_off += 1,
            (None, None) => {}
        }
    }
    Overall {
        explorer,
        bugs: rows.iter().filter(|row| row.cells[at].detected > 0).count(),
        repeats: rows.iter().map(|row| row.cells[at].detected).sum(),
        ratio: Median::of(known, cut_off),
    }
}

// ---- what is printed ----

/// The median with its interval; how often it was found, if that is not always.
fn tell(cell: &Cell, args: &BugsArgs) -> String {
    let mut text = spread(cell.time_s, " s");
    if cell.detected < args.repeats {
        text.push_str(&format!(", {}/{}", cell.detected, args.repeats));
    }
    text
}

fn spread(median: Median, unit: &str) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let value = median.value.map_or("-".to_owned(), |value| format!("{value:.2}{unit}"));
    match median.interval {
        Some(Interval { low, high }) => format!("{value} ({} to {})", number(low), number(high)),
        None => value,
    }
}

fn each(rows: &[Row], args: &BugsArgs) -> Grid {
    let names = Explorer::ALL.map(Explorer::name);
    let titles: Vec<&str> = ["id", "name", "class"].into_iter().chain(names).collect();
    let mut grid = Grid::new(&titles, &[3, 4, 5, 6]);
    for Row { info, cells } in rows {
        let head = [info.id, info.name, info.class.letter()].map(str::to_owned);
        grid.row(head.into_iter().chain(cells.iter().map(|cell| tell(cell, args))));
    }
    grid
}

fn all(overall: &[Overall], bugs: usize, args: &BugsArgs) -> Grid {
    let mut grid = Grid::new(&["explorer", "bugs", "repeats", "time, as a multiple"], &[1, 2, 3]);
    for Overall { explorer, bugs: found, repeats, ratio } in overall {
        grid.row([
            explorer.name().to_owned(),
            format!("{found}/{bugs}"),
            format!("{repeats}/{}", bugs as u64 * args.repeats),
            spread(*ratio, ""),
        ]);
    }
    grid
}

fn ends(median: Median) -> Option<[Option<f64>; 2]> {
    median.interval.map(|Interval { low, high }| [low.map(micros), high.map(micros)])
}

impl RowJson {
    fn new(row: &Row) -> RowJson {
        let Row { info, cells } = row;
        let cells = cells.iter().zip(Explorer::ALL).map(|(cell, explorer)| CellJson {
            explorer: explorer.name(),
            detected: cell.detected,
            cpu_s_median: cell.time_s.value.map(micros),
            cpu_s_ci: ends(cell.time_s),
            plans_median: cell.plans.value,
        });
        let class = info.class.letter();
        RowJson { id: info.id, name: info.name, class, explorers: cells.collect() }
    }
}

impl OverallJson {
    fn new(overall: &Overall) -> OverallJson {
        OverallJson {
            explorer: overall.explorer.name(),
            bugs: overall.bugs,
            repeats: overall.repeats,
            ratio_median: overall.ratio.value.map(micros),
            ratio_ci: ends(overall.ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(seconds: &[f64], cut_off: usize) -> Cell {
        let found = seconds.iter().map(|s| Some((Duration::from_secs_f64(*s), 1)));
        Cell::of(&found.chain((0..cut_off).map(|_| None)).collect::<Vec<_>>())
    }

    fn row(cells: [Cell; 2]) -> Row {
        Row { info: bugs::named("30").unwrap(), cells: cells.into() }
    }

    #[test]
    fn what_was_not_found_counts_as_longer_than_the_time_that_there_was() {
        let rows = [
            row([cell(&[1.0, 2.0, 3.0], 0), cell(&[4.0, 4.0, 4.0], 0)]),
            row([cell(&[], 3), cell(&[5.0, 5.0], 1)]),
            row([cell(&[2.0, 2.0], 1), cell(&[9.0], 2)]),
            row([cell(&[], 3), cell(&[], 3)]),
        ];
        let way = overall(&rows, 1, Explorer::Uniform, 10.0);
        // 2, at most 0.5, and more than all others.
        assert_eq!((way.bugs, way.repeats, way.ratio.value), (3, 6, Some(2.0)));
        let first = overall(&rows, 0, Explorer::Swarm, 10.0);
        assert_eq!((first.bugs, first.repeats, first.ratio.value), (2, 5, Some(1.0)));
    }

    #[test]
    fn a_median_is_told_with_its_interval() {
        let six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(spread(cell(&six, 0).time_s, " s"), "3.50 s (1.00 to 6.00)");
        assert_eq!(spread(cell(&six[..3], 3).time_s, " s"), "- (1.00 to -)");
        assert_eq!(spread(cell(&six[..2], 0).time_s, " s"), "1.50 s");
    }
}
