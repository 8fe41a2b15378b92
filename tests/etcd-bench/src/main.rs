//! The closed loop of `stormkv bench` against etcd, over gRPC as etcd's own benchmark does it, and
//! what else a comparison of the two needs: the time to a new leader, and a table of medians.
//!
//! The loop, the histogram and the report are the very files of `stormkv bench`, so that both are
//! measured alike. The messages are written by hand: etcd's `KV` service has a dozen fields that
//! matter here.

#[path = "../../../src/program/bench/connection.rs"]
mod connection;
mod etcd;
mod failover;
#[path = "../../../src/program/bench/histogram.rs"]
mod histogram;
#[path = "../../../src/program/bench/load.rs"]
mod load;
#[path = "../../../src/program/bench/report.rs"]
mod report;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use load::{Load, Mix};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures etcd with a closed loop.
    Run(Run),
    /// Kills a leader and waits until the others accept a put. Prints the milliseconds.
    Failover(failover::Args),
    /// Prints the medians of the JSON reports in these files, and their ratios.
    Summary {
        /// Files with one report a line, of any of the two.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(clap::Args)]
struct Run {
    /// etcd's endpoints, the leader first: `http://host:port`.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// All clients talk to the first endpoint; with `false`, they spread.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    leader_only: bool,
    /// How many connections the clients share; 0 for one each.
    #[arg(long, default_value_t = 0)]
    conns: usize,
    /// How many clients, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,32,256")]
    clients: Vec<usize>,
    /// put, get, or mixed:SHARE with the share of gets.
    #[arg(long, default_value = "put")]
    mix: Mix,
    /// How many seconds each run is measured.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many seconds each run goes on before it is measured.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// The length of a value.
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// How many keys there are.
    #[arg(long, default_value_t = 1000)]
    keys: u64,
    /// Gets are serializable: any member answers from what it has.
    #[arg(long)]
    stale: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match (cli.command, runtime) {
        (_, Err(error)) => Err(format!("no runtime: {error}")),
        (Command::Run(run), Ok(runtime)) => runtime.block_on(measure(&run)),
        (Command::Failover(args), Ok(runtime)) => runtime.block_on(failover::run(&args)),
        (Command::Summary { files }, Ok(_)) => {
            summary::table(&files).map(|table| print!("{table}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("etcd-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(run: &Run) -> Result<(), String> {
    let time = |seconds| Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    let load = Load {
        mix: run.mix,
        keys: run.keys,
        value_bytes: run.value_bytes,
        warmup: time(run.warmup)?,
        measured: time(run.seconds)?,
    };
    let endpoints = if run.leader_only { &run.endpoints[..1] } else { &run.endpoints[..] };
    let target = endpoints.join(",");
    if !run.json {
        println!("etcd at {target}: {}, {} B values", load.mix, load.value_bytes);
        print!("{}", report::head());
    }
    if load.mix != Mix::Put {
        load::fill(&load, etcd::clients(endpoints, 32, run.conns, run.stale)?).await?;
    }
    let mut results = Vec::new();
    for &count in &run.clients {
        let clients = etcd::clients(endpoints, count, run.conns, run.stale)?;
        let (tally, _) = load::run(load, clients).await;
        if !run.json {
            print!("{}", report::line(count, &tally));
        }
        results.push((count, tally));
    }
    if run.json {
        println!("{}", report::json(&format!("etcd {target}"), &load, &results));
    }
    Ok(())
}
