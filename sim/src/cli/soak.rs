//! `cargo sim soak`: one cluster for simulated days. Log, snapshots, queues and files must stay
//! within their bounds, and the last quarter must need no more of them than the first.

use std::collections::BTreeMap;

use crate::campaign::Totals;
use crate::caught::guarded;
use crate::outcome::Violation;
use crate::report::{self, Table};
use crate::simulation::{SoakProgress, Soaked};
use crate::swarm;
use crate::version;
use serde::Serialize;

use super::console::Console;
use super::engine::{self, Engine};
use super::{Exit, SoakArgs, Usage, speed};

/// Progress is told after each part of so many.
const PARTS: u64 = 20;

/// The object of `--json`.
#[derive(Serialize)]
struct SoakJson<'a> {
    seed: u64,
    verdict: &'static str,
    checker: Option<&'a str>,
    message: Option<&'a str>,
    windows: u64,
    sim_s: f64,
    wall_s: f64,
    events: u64,
    operations: u64,
    trace_hash: String,
    /// Of a node, by quarter of the run.
    peaks_first_quarter: &'a BTreeMap<&'static str, u64>,
    peaks_last_quarter: &'a BTreeMap<&'static str, u64>,
    peaks: &'a BTreeMap<&'static str, u64>,
    faults: &'a BTreeMap<&'static str, u64>,
    waypoints: &'a BTreeMap<&'static str, u64>,
    checks: &'a BTreeMap<&'static str, u64>,
    /// Null where the system does not tell.
    peak_rss_mb: Option<f64>,
    version: &'static str,
    revision: &'static str,
}

pub fn soak(args: &SoakArgs, engine: &Engine, console: &Console) -> Result<Exit, Usage> {
    let windows = ((args.days * 86_400e6 / swarm::WINDOW_US as f64).ceil() as u64).max(4);
    let part = (windows / PARTS).max(1);
    let mut progress = |now: &SoakProgress| {
        let (done, all) = now.windows;
        if done.is_multiple_of(part) || done == all {
            let simulated = report::duration(now.sim_ns as f64 / 1e9);
            let events = report::thousands(now.events.into());
            let percent = done * 100 / all;
            console.err.print(&format!("{percent:>3} %  {simulated} simulated, {events} events\n"));
        }
    };
    let (mut soaked, wall) = engine::timed(|| {
        let mut soaked = None;
        // A panic of the simulation itself is reported as a violation, as everywhere.
        let outcome = guarded(|| {
            let window = |number| (engine.soak_window)(args.seed, number);
            let done = (engine.soak)(windows, &window, &mut progress);
            soaked.insert(done).outcome.clone()
        });
        soaked.unwrap_or_else(|| Soaked {
            outcome,
            quarters: Default::default(),
            windows: 0,
            remembered: [0; 4],
        })
    });
    let violation = soaked.outcome.violation.take();
    let mut totals = Totals { wall, ..Totals::default() };
    let trace_hash = soaked.outcome.trace_hash;
    totals.fold(args.seed, soaked.outcome.clone());
    totals.trace_hash = trace_hash;
    if args.json {
        console.print_json(&json(args.seed, &soaked, violation.as_ref(), &totals));
    } else {
        let paint = console.paint();
        console.out.print(&table(&soaked, &totals, &(engine.waypoints)()).render(paint));
        let verdict = match &violation {
            None => paint.green("clean"),
            Some(Violation { checker, message, .. }) => {
                format!("{} {checker}: {}", paint.red("violation"), report::one_line(message))
            }
        };
        let seed = args.seed;
        console.out.print(&format!("\n{verdict}: soak with --days {} --seed {seed}\n", args.days));
    }
    Ok(Exit::of(violation.as_ref()))
}

fn json<'a>(
    seed: u64,
    soaked: &'a Soaked,
    violation: Option<&'a Violation>,
    totals: &'a Totals,
) -> SoakJson<'a> {
    let [first, .., last] = &soaked.quarters;
    SoakJson {
        seed,
        verdict: report::verdict(violation),
        checker: violation.map(|violation| violation.checker),
        message: violation.map(|violation| violation.message.as_str()),
        windows: soaked.windows,
        sim_s: totals.sim_ns as f64 / 1e9,
        wall_s: report::seconds(totals.wall),
        events: totals.events,
        operations: totals.acknowledged,
        trace_hash: format!("{:016x}", totals.trace_hash),
        peaks_first_quarter: first,
        peaks_last_quarter: last,
        peaks: &totals.peaks,
        faults: &totals.faults,
        waypoints: &totals.waypoints,
        checks: &totals.checks,
        peak_rss_mb: speed::peak_rss_mb(),
        version: version::VERSION,
        revision: version::REVISION,
    }
}

fn table(soaked: &Soaked, totals: &Totals, waypoints: &[&str]) -> Table {
    let mut table = Table::default();
    let simulated = report::duration(totals.sim_ns as f64 / 1e9);
    let wall = report::duration(totals.wall.as_secs_f64());
    table.words("time", &format!("{simulated} simulated in {wall}"));
    table.row("windows", soaked.windows, "");
    table.row("events", totals.events, "");
    table.row("operations", totals.acknowledged, "acknowledged");
    table.words("trace hash", &format!("{:016x}", totals.trace_hash));
    if let Some(peak) = speed::peak_rss_mb() {
        table.words("peak memory", &format!("{peak:.1} MiB"));
    }
    report::coverage(&mut table, totals, waypoints);
    table.heading("peaks of a node in the last quarter");
    let [first, .., last] = &soaked.quarters;
    for (name, peak) in last.iter().filter(|(_, peak)| **peak > 0) {
        let before = first.get(name).copied().unwrap_or_default();
        table.row(name, *peak, &format!("{} in the first", report::thousands(before.into())));
    }
    let [first, .., last] = soaked.remembered;
    let before = report::thousands(first as u128);
    table.row("facts kept by checkers", last as u64, &format!("{before} in the first"));
    table
}
