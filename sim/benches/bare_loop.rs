//! The simulator beside a bare event loop: how much of the speed of raft itself is left.
//!
//! Absolute speeds of a shared machine say little, and a loss between two revisions hides in its
//! noise. So both are measured in turns in one sitting, and the ratio is what counts:
//!
//!     cargo bench -p stormkv-sim --features bugs --bench bare_loop
//!
//! The bare loop is what a team would write in a day for the same cluster: five nodes of the crate
//! `raft`, an event heap, messages in protobuf with a checksum, a log in memory with the same. It
//! has no faults but crashes, no checkers, no trace and no flow control. The workloads are those of
//! `cargo sim speed`, whose program is run for the other side: one client in a closed loop that puts
//! 64 bytes, links of 1 to 10 ms, a tick of 10 ms.
//!
//! Left out on purpose: any tuning. A faster bare loop would be a different yardstick, and ratios of
//! different revisions would no longer compare.

#![allow(clippy::disallowed_methods, reason = "it measures time; no run sees it")]

#[path = "bare_loop/cluster.rs"]
mod cluster;
#[path = "bare_loop/node.rs"]
mod node;

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::Value;

use cluster::{Cluster, Totals};

/// Turns; odd, so that there is a median. `--rounds N` sets another number.
const ROUNDS: usize = 3;

/// Measurements of the bare loop in each turn, as many as `cargo sim speed` makes.
const MEASUREMENTS: usize = 5;

/// Puts of the workload `steady`, as in `cargo sim speed`.
const STEADY_PUTS: u64 = 20_000;

/// Runs of the workload `per-seed`, as in `cargo sim speed`.
const SEEDS: u64 = 50;
const PUTS_PER_SEED: u64 = 100;

/// Columns of a workload, named as in `cargo sim speed --json`.
const COLUMNS: [&str; 4] = ["messages_per_s", "events_per_s", "puts_per_s", "sim_s_per_wall_s"];

/// The speed of one side in one turn.
struct Speed {
    /// `steady` and `per-seed`, each with its [`COLUMNS`].
    workloads: [[f64; COLUMNS.len()]; 2],
    seeds_per_s: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts benchmarks, too, but without this argument.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured: run it with cargo bench");
        return ExitCode::SUCCESS;
    }
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(ROUNDS);
    let (mut bare, mut simulator) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        bare.push(measure_bare_loop());
        match measure_simulator() {
            Ok(speed) => simulator.push(speed),
            Err(error) => {
                eprintln!("error: the simulator was not measured: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    print(&bare, &simulator);
    ExitCode::SUCCESS
}

fn measure_bare_loop() -> Speed {
    let (steady, _) = workload(|| Cluster::new(1).run(STEADY_PUTS, false));
    let (per_seed, wall) = workload(|| {
        let mut totals = Totals::default();
        (0..SEEDS).for_each(|seed| totals.add(&Cluster::new(seed).run(PUTS_PER_SEED, true)));
        totals
    });
    Speed { workloads: [steady, per_seed], seeds_per_s: SEEDS as f64 / wall }
}

/// Runs `body` once to warm up, then measures it. Returns the columns and the median time in seconds.
fn workload(body: impl Fn() -> Totals) -> ([f64; COLUMNS.len()], f64) {
    let totals = body();
    let mut spans: Vec<f64> = (0..MEASUREMENTS)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(body(), totals, "the same run again");
            started.elapsed().as_secs_f64()
        })
        .collect();
    let wall = median(&mut spans);
    let counts = [totals.messages, totals.events, totals.puts, totals.simulated_us];
    let [messages, events, puts, simulated_us] = counts.map(|count| count as f64 / wall);
    ([messages, events, puts, simulated_us / 1e6], wall)
}

fn measure_simulator() -> Result<Speed, String> {
    let program = env!("CARGO_BIN_EXE_stormkv-sim");
    let mut command = Command::new(program);
    let output = command.args(["speed", "--json"]).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{program} does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} speed ended with {}", output.status));
    }
    let json: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{program} speed printed no JSON: {error}"))?;
    let number =
        |value: &Value| value.as_f64().ok_or_else(|| format!("a number is missing in {json}"));
    let workload = |at: usize| -> Result<_, String> {
        let mut columns = [0.0; COLUMNS.len()];
        for (column, name) in columns.iter_mut().zip(COLUMNS) {
            *column = number(&json["workloads"][at][name])?;
        }
        Ok(columns)
    };
    Ok(Speed {
        workloads: [workload(0)?, workload(1)?],
        seeds_per_s: number(&json["seeds_per_s"])?,
    })
}

fn print(bare: &[Speed], simulator: &[Speed]) {
    let sides = [("bare loop", bare), ("simulator", simulator)];
    let header = ["messages/s", "events/s", "puts/s", "simulated s/s"];
    println!("{:<9}  {:<8}{}", "", "workload", header.map(|name| format!("  {name:>13}")).concat());
    for (side, speeds) in sides {
        for (at, name) in ["steady", "per-seed"].into_iter().enumerate() {
            let cell = |column: usize| {
                let median = median_of(speeds, |speed| speed.workloads[at][column]);
                format!("  {:>13}", thousands(median))
            };
            println!("{side:<9}  {name:<8}{}", [0, 1, 2, 3].map(cell).concat());
        }
    }
    println!();
    for (side, speeds) in sides {
        println!("{side:<9}  {:.1} seeds per second", median_of(speeds, |speed| speed.seeds_per_s));
    }
    // The ratio of each turn, because the machine may have been slower for both in one of them.
    let ratio = |of: fn(&Speed) -> f64| {
        let ratios = simulator.iter().zip(bare).map(|(simulator, bare)| of(simulator) / of(bare));
        let mut ratios: Vec<f64> = ratios.collect();
        let median = median(&mut ratios);
        format!("{median:.2} ({:.2} to {:.2})", ratios[0], ratios[ratios.len() - 1])
    };
    println!(
        "\nsimulator / bare loop: messages {}, seeds {}",
        ratio(|speed| speed.workloads[0][0]),
        ratio(|speed| speed.seeds_per_s)
    );
}

fn median_of(speeds: &[Speed], of: impl Fn(&Speed) -> f64) -> f64 {
    median(&mut speeds.iter().map(of).collect::<Vec<_>>())
}

/// The median of at least one value; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
