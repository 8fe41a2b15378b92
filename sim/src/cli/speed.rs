//! `cargo sim speed`: how much this machine simulates in a second, on one thread.
//!
//! One thread on purpose: the numbers compare with each other and with other machines, and a
//! campaign scales with its jobs anyway. Each workload is run once to warm up and then measured
//! several times; the median is reported, because the mean follows the worst disturbance. A run
//! that fails has no speed: the first violation ends the measurement.
//!
//! A third measurement shows what an event costs in clusters of three to thirty-one nodes: it should
//! hardly grow.

use std::time::Duration;

use crate::campaign::Totals;
use crate::caught::guarded;
use crate::outcome::Violation;
use crate::plan::Plan;
use crate::report;
use crate::simulation::RunOptions;
use crate::swarm::SpeedKind;
use serde::Serialize;

use super::console::Console;
use super::engine::{self, Engine};
use super::{Exit, SpeedArgs, Usage};

/// How often each workload is measured; odd, so that there is a median.
const MEASUREMENTS: usize = 5;

/// How many short runs make up the workload that tells seeds per second.
const SEEDS: u64 = 50;

/// The sizes of a cluster for which the cost of an event is measured.
const SIZES: [u32; 7] = [3, 5, 7, 9, 15, 23, 31];

/// The object of `--json`.
#[derive(Serialize)]
struct SpeedJson {
    workloads: Vec<Workload>,
    seeds_per_s: f64,
    growth: Vec<Cost>,
    /// Null where the system does not tell.
    peak_rss_mb: Option<f64>,
}

#[derive(Serialize)]
struct Workload {
    name: &'static str,
    messages_per_s: f64,
    events_per_s: f64,
    sim_s_per_wall_s: f64,
    puts_per_s: f64,
}

/// What an event costs in a cluster of this size.
#[derive(Serialize)]
struct Cost {
    nodes: u32,
    events: u64,
    us_per_event: f64,
}

/// What was run when a run failed, and how.
struct Failed {
    what: String,
    violation: Violation,
}

pub fn speed(args: &SpeedArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let speed = match measure(engine) {
        Ok(speed) => speed,
        Err(Failed { what, violation }) => {
            let message = report::one_line(&violation.message);
            console.err.print(&format!(
                "error: {what} failed, so its speed means nothing: {}: {message}\n",
                violation.checker
            ));
            return Ok(Exit::of(Some(&violation)));
        }
    };
    if args.json {
        console.print_json(&speed);
    } else {
        console.out.print(&text(&speed));
    }
    Ok(Exit::Clean)
}

fn measure(engine: &Engine) -> Result<SpeedJson, Failed> {
    let steady = [(engine.speed_plan)(SpeedKind::Steady)];
    let seeds: Vec<Plan> =
        (0..SEEDS).map(|seed| (engine.speed_plan)(SpeedKind::PerSeed(seed))).collect();
    let (steady, _) = workload("steady", &steady, engine)?;
    let (per_seed, wall) = workload("per-seed", &seeds, engine)?;
    let growth = SIZES.map(|nodes| cost(nodes, engine)).into_iter().collect::<Result<_, _>>()?;
    Ok(SpeedJson {
        growth,
        workloads: vec![steady, per_seed],
        seeds_per_s: rate(SEEDS as f64, wall),
        peak_rss_mb: peak_rss_mb(),
    })
}

/// Measures what an event costs in a calm cluster of this size.
fn cost(nodes: u32, engine: &Engine) -> Result<Cost, Failed> {
    let plan = [(engine.speed_plan)(SpeedKind::Nodes(nodes))];
    let (totals, wall) = median(|| run_all(&plan, engine))?;
    let us = wall.as_secs_f64() * 1e6 / totals.events.max(1) as f64;
    Ok(Cost { nodes, events: totals.events, us_per_event: (us * 1000.0).round() / 1000.0 })
}

/// Measures running all of these plans; also the median time that this took.
fn workload(
    name: &'static str,
    plans: &[Plan],
    engine: &Engine,
) -> Result<(Workload, Duration), Failed> {
    let (totals, wall) = median(|| run_all(plans, engine))?;
    let workload = Workload {
        name,
        messages_per_s: rate(totals.messages as f64, wall),
        events_per_s: rate(totals.events as f64, wall),
        sim_s_per_wall_s: rate(totals.sim_ns as f64 / 1e9, wall),
        // The workloads consist of puts.
        puts_per_s: rate(totals.acknowledged as f64, wall),
    };
    Ok((workload, wall))
}

fn run_all(plans: &[Plan], engine: &Engine) -> Result<Totals, Failed> {
    let mut totals = Totals::default();
    for plan in plans {
        let outcome = guarded(|| (engine.run_plan)(plan, RunOptions::default()));
        if let Some(violation) = outcome.violation {
            return Err(Failed { what: format!("the workload {}", plan.name), violation });
        }
        totals.fold(plan.seed, outcome);
    }
    Ok(totals)
}

/// Runs `body` once to warm up and then [`MEASUREMENTS`] times; its last value and the median time.
fn median<T>(mut body: impl FnMut() -> Result<T, Failed>) -> Result<(T, Duration), Failed> {
    let mut value = body()?;
    let mut spans = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let (result, span) = engine::timed(&mut body);
        value = result?;
        spans.push(span);
    }
    spans.sort_unstable();
    Ok((value, spans[MEASUREMENTS / 2]))
}

fn rate(count: f64, wall: Duration) -> f64 {
    report::rounded(count / wall.as_secs_f64().max(1e-9))
}

/// The most memory this process ever held, in MiB; `None` where there is no `/proc`.
pub(super) fn peak_rss_mb() -> Option<f64> {
    parse_peak_rss_mb(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak_rss_mb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(report::rounded(kib / 1024.0))
}

fn text(speed: &SpeedJson) -> String {
    let whole = |value: f64| report::thousands(value.round() as u128);
    let header = ["workload", "messages/s", "events/s", "puts/s", "simulated s/s"];
    let mut rows = vec![header.map(String::from)];
    for workload in &speed.workloads {
        rows.push([
            workload.name.to_string(),
            whole(workload.messages_per_s),
            whole(workload.events_per_s),
            whole(workload.puts_per_s),
            whole(workload.sim_s_per_wall_s),
        ]);
    }
    let mut text = table(&rows);
    text.push_str(&format!("\nseeds        {:.1} per second\n", speed.seeds_per_s));
    if let Some(peak) = speed.peak_rss_mb {
        text.push_str(&format!("peak memory  {peak:.1} MiB\n"));
    }
    let mut rows = vec![["nodes", "events", "us/event"].map(String::from)];
    for Cost { nodes, events, us_per_event } in &speed.growth {
        let events = report::thousands((*events).into());
        rows.push([nodes.to_string(), events, format!("{us_per_event:.2}")]);
    }
    text + "\n" + &table(&rows)
}

/// Rows with their columns aligned: the first to the left, the others to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{:<1$}", row[0], widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status_of_the_process() {
        let status = "Name:\tsim\nVmPeak:\t  999 kB\nVmHWM:\t    2560 kB\nThreads:\t1\n";
        assert_eq!(parse_peak_rss_mb(status), Some(2.5));
        assert_eq!(parse_peak_rss_mb("Name:\tsim\n"), None);
        assert_eq!(parse_peak_rss_mb("VmHWM:\tmuch\n"), None);
    }

    #[test]
    fn the_median_comes_with_the_last_value() {
        let mut calls = 0;
        let counted = || {
            calls += 1;
            Ok(calls)
        };
        let (value, span) = median(counted).ok().unwrap();
        assert_eq!(value, MEASUREMENTS + 1, "one to warm up, the others measured");
        assert!(span < Duration::from_secs(1));
    }

    #[test]
    fn the_table_lines_up() {
        let workload = Workload {
            name: "steady",
            messages_per_s: 312_345.6,
            events_per_s: 1_234_567.0,
            sim_s_per_wall_s: 87.6,
            puts_per_s: 45_678.0,
        };
        let speed = SpeedJson {
            workloads: vec![workload],
            seeds_per_s: 123.4,
            growth: vec![Cost { nodes: 31, events: 123_456, us_per_event: 1.456 }],
            peak_rss_mb: Some(56.7),
        };
        let expected = "\
workload  messages/s   events/s  puts/s  simulated s/s
steady       312,346  1,234,567  45,678             88

seeds        123.4 per second
peak memory  56.7 MiB

nodes   events  us/event
31     123,456      1.46
";
        assert_eq!(text(&speed), expected);
    }
}
