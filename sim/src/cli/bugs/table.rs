//! What `cargo sim bugs` prints: a table for people, one for a README, an object for scripts.

use crate::bugs::{Found, Interval, Median};
use crate::outcome::Class;
use crate::report::{self, thousands};
use crate::swarm::Group;
use crate::version;
use serde::Serialize;
use stormkv::bugs::Info;

use super::super::BugsArgs;
use super::super::console::Console;
use super::measure::{Needs, Row};

/// An entry of the array of `--list --json`.
#[derive(Serialize)]
struct InfoJson {
    id: &'static str,
    name: &'static str,
    class: &'static str,
    origin: &'static str,
    what: &'static str,
}

/// The object of `--json`.
#[derive(Serialize)]
struct BugsJson {
    bugs: Vec<RowJson>,
    found: usize,
    of: usize,
    budget_s: f64,
    version: &'static str,
    revision: &'static str,
}

/// What is told about one bug; null where it is unknown.
#[derive(Serialize)]
struct RowJson {
    id: &'static str,
    name: &'static str,
    class: &'static str,
    found: bool,
    repeats: u64,
    detected: u64,
    checker: Option<&'static str>,
    seeds_median: Option<f64>,
    /// An end is null if the repeat there was cut off.
    seeds_ci: Option<[Option<f64>; 2]>,
    cpu_s_median: Option<f64>,
    events_before: Option<u64>,
    events_after: Option<u64>,
    /// Groups of faults; null without `--ablate`.
    needs: Option<Vec<&'static str>>,
    /// Those for which the budget did not suffice.
    needs_unclear: Option<Vec<&'static str>>,
    out_of_budget: bool,
    /// All that were run, and how long that took.
    seeds_run: u64,
    cpu_s: f64,
    finds: Vec<FindJson>,
    /// Seeds that fail without the bug, too.
    unrelated: Vec<u64>,
    replay: Option<String>,
}

/// What a repeat has found.
#[derive(Serialize)]
struct FindJson {
    seed: u64,
    seeds: u64,
    cpu_s: f64,
    checker: &'static str,
    verdict: &'static str,
    events: u64,
}

impl RowJson {
    fn new(row: &Row) -> RowJson {
        let Row { info, bag, score, events_after, needs } = row;
        let names = |groups: &Vec<Group>| groups.iter().map(|group| group.name()).collect();
        RowJson {
            id: info.id,
            name: info.name,
            class: info.class.letter(),
            found: score.is_found(),
            repeats: score.repeats,
            detected: score.detected,
            checker: score.checker,
            seeds_median: score.seeds.value,
            seeds_ci: score.seeds.interval.map(|Interval { low, high }| [low, high]),
            cpu_s_median: score.time_s.value.map(micros),
            events_before: score.events(),
            events_after: *events_after,
            needs: needs.as_ref().map(|needs| names(&needs.needed)),
            needs_unclear: needs.as_ref().map(|needs| names(&needs.unclear)),
            out_of_budget: bag.out_of_budget,
            seeds_run: bag.seeds,
            cpu_s: report::seconds(bag.time),
            finds: bag.found.iter().map(FindJson::new).collect(),
            unrelated: bag.unrelated.keys().copied().collect(),
            replay: row.replay(),
        }
    }
}

impl FindJson {
    fn new(found: &Found) -> FindJson {
        FindJson {
            seed: found.seed,
            seeds: found.seeds,
            cpu_s: report::seconds(found.time),
            checker: found.find.checker,
            verdict: match found.find.class {
                Class::Safety => "violation",
                Class::Liveness => "liveness",
                Class::Unknown => "unknown",
            },
            events: found.find.events,
        }
    }
}

/// More digits of a wall clock say nothing.
pub fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// What there is.
pub fn list(chosen: &[&'static Info], args: &BugsArgs, console: &Console) {
    if args.json {
        let entry = |info: &&'static Info| InfoJson {
            id: info.id,
            name: info.name,
            class: info.class.letter(),
            origin: info.origin,
            what: info.what,
        };
        return console.print_json(&chosen.iter().map(entry).collect::<Vec<_>>());
    }
    let mut grid = Grid::new(&["id", "name", "class", "origin", "what"], &[]);
    for info in chosen {
        grid.row([info.id, info.name, info.class.letter(), info.origin, info.what]);
    }
    console.out.print(&grid.text(args.markdown));
}

/// What came of it.
pub fn tell(rows: &[Row], args: &BugsArgs, console: &Console) {
    let found = rows.iter().filter(|row| row.score.is_found()).count();
    let missed = rows.iter().filter(|row| !row.score.is_found()).map(|row| row.info.name);
    let missed = missed.collect::<Vec<_>>().join(", ");
    if args.json {
        console.print_json(&BugsJson {
            bugs: rows.iter().map(RowJson::new).collect(),
            found,
            of: rows.len(),
            budget_s: report::seconds(args.budget),
            version: version::VERSION,
            revision: version::REVISION,
        });
    } else {
        let grid = grid(rows, args.ablate);
        console.out.print(&grid.text(args.markdown));
    }
    let stream = if args.json { &console.err } else { &console.out };
    if !missed.is_empty() {
        stream.print(&format!("\nnot found: {missed}\n"));
    }
    stream.print(&format!("\nfound {found} of {}\n", rows.len()));
}

fn grid(rows: &[Row], ablate: bool) -> Grid {
    let mut titles =
        vec!["id", "name", "class", "found", "checker", "seeds", "95 %", "CPU s", "events"];
    if ablate {
        titles.push("needs");
    }
    let mut grid = Grid::new(&titles, &[3, 5, 7, 8]);
    for row in rows {
        let Row { info, score, needs, .. } = row;
        let mut cells = vec![
            info.id.to_string(),
            info.name.to_string(),
            info.class.letter().to_string(),
            format!("{}/{}", score.detected, score.repeats),
            score.checker.unwrap_or("-").to_string(),
            number(score.seeds.value),
            interval(score.seeds),
            score.time_s.value.map_or_else(dash, |seconds| format!("{seconds:.2}")),
            events(score.events(), row.events_after),
        ];
        if ablate {
            cells.push(needs.as_ref().map_or_else(dash, needed));
        }
        grid.row(cells);
    }
    grid
}

/// One line about a bug, as soon as it is measured.
pub fn progress(row: &Row) -> String {
    let Row { info, bag, score, .. } = row;
    let all = format!("{} seeds in {}", thousands(bag.seeds.into()), time(bag.time.as_secs_f64()));
    let head = format!("{:>2} {}", info.id, info.name);
    let (Some(checker), Some(replay)) = (score.checker, row.replay()) else {
        return format!("{head}: not found, {all}");
    };
    let (detected, repeats) = (score.detected, score.repeats);
    format!("{head}: found {detected} of {repeats} times by {checker}, {all}; {replay}")
}

fn time(seconds: f64) -> String {
    report::duration(seconds)
}

fn dash() -> String {
    "-".to_string()
}

/// A whole number, or one with a half.
fn number(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| {
        let half = if value.fract() == 0.0 { "" } else { ".5" };
        format!("{}{half}", thousands(value.trunc() as u128))
    })
}

fn interval(median: Median) -> String {
    match median.interval {
        Some(Interval { low: low @ Some(_), high: high @ Some(_) }) => {
            format!("{} to {}", number(low), number(high))
        }
        Some(Interval { low: low @ Some(_), high: None }) => format!("at least {}", number(low)),
        _ => dash(),
    }
}

fn events(before: Option<u64>, after: Option<u64>) -> String {
    let Some(before) = before else { return dash() };
    let before = thousands(before.into());
    match after {
        None => before,
        Some(after) => format!("{before}, shrunk {}", thousands(after.into())),
    }
}

fn needed(needs: &Needs) -> String {
    let sure = needs.needed.iter().map(|group| group.name().to_string());
    let unclear = needs.unclear.iter().map(|group| format!("{}?", group.name()));
    let all: Vec<String> = sure.chain(unclear).collect();
    if all.is_empty() { "none".to_string() } else { all.join(", ") }
}

/// Cells that line up.
pub struct Grid {
    rows: Vec<Vec<String>>,
    /// The columns with numbers.
    right: Vec<usize>,
}

impl Grid {
    pub fn new(titles: &[&str], right: &[usize]) -> Grid {
        let titles = titles.iter().map(ToString::to_string).collect();
        Grid { rows: vec![titles], right: right.to_vec() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// In Markdown, or as plain text.
    pub fn text(&self, markdown: bool) -> String {
        if markdown { self.markdown() } else { self.plain() }
    }

    fn plain(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                match self.right.contains(&column) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(&format!("{}\n", line.trim_end()));
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
            if number == 0 {
                let rules = (0..row.len())
                    .map(|column| if self.right.contains(&column) { "---:" } else { "---" });
                text.push_str(&format!("| {} |\n", rules.collect::<Vec<_>>().join(" | ")));
            }
        }
        text
    }
}
