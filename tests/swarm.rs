//! Runs a swarm of seeds, each a random cluster in a random storm.
//!
//! `STORM_SEEDS=N` or `A..B` chooses the seeds, `STORM_SEED=S` replays one, and `STORM_JOBS=N` sets
//! the number of threads. For long campaigns and statistics there is `cargo sim run`.

use std::env::{self, VarError};
use std::num::NonZeroUsize;

use stormkv_sim::campaign::{self, Failure, Seeds, Totals};
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::outcome::Outcome;
use stormkv_sim::swarm;
use stormkv_sim::world::RunOptions;

/// Few enough for a build without optimization of the test itself to take seconds.
const DEFAULT_SEEDS: u64 = 400;

/// And of those with more damage than a quorum can repair.
const BEYOND_SEEDS: u64 = 100;

/// How many failures are listed; the worst is told in full.
const LISTED: usize = 20;

fn variable(name: &str) -> Option<String> {
    match env::var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(value)) => panic!("{name}={} is not a number", value.display()),
    }
}

/// The seeds and the threads that the variables ask for.
fn choose(
    seed: Option<&str>,
    seeds: Option<&str>,
    jobs: Option<&str>,
) -> Result<(Seeds, usize), String> {
    let seeds = match (seed, seeds) {
        (Some(_), Some(_)) => return Err("set STORM_SEED or STORM_SEEDS, not both".to_string()),
        (Some(seed), None) => {
            let seed = seed.parse().map_err(|_| format!("STORM_SEED={seed} is not a number"))?;
            Seeds::one(seed)
        }
        (None, Some(seeds)) => {
            Seeds::parse(seeds).map_err(|reason| format!("STORM_SEEDS: {reason}"))?
        }
        (None, None) => Seeds::range(0, DEFAULT_SEEDS)?,
    };
    let jobs = match jobs {
        Some(jobs) => jobs
            .parse()
            .map(NonZeroUsize::get)
            .map_err(|_| format!("STORM_JOBS={jobs} is not a number of threads"))?,
        None => campaign::default_jobs(),
    };
    Ok((seeds, jobs))
}

fn run_seed(seed: u64) -> Outcome {
    kv::run(&swarm::generate::<KeyValue>(seed), &mut RunOptions::default())
}

/// What to print of a campaign that failed.
fn complaint(totals: &Totals, worst: &Failure) -> String {
    let (seed, violation) = (worst.seed, &worst.violation);
    let plan = swarm::generate::<KeyValue>(seed).hash();
    let mut text = format!(
        "{} of {} seeds failed; seed {seed}, step {}:\n{}: {}\n\n\
         replay: STORM_SEED={seed} cargo test --test swarm\n        \
         cargo sim replay --seed {seed} --plan {plan:016x}\n",
        totals.failed.len(),
        totals.seeds,
        violation.step,
        violation.checker,
        violation.message,
    );
    for Failure { seed, violation } in totals.failed.iter().take(LISTED) {
        text.push_str(&format!("\n  seed {seed}: {}", violation.checker));
    }
    if totals.failed.len() > LISTED {
        text.push_str(&format!("\n  and {} more", totals.failed.len() - LISTED));
    }
    text
}

#[test]
fn no_seed_breaks_a_promise() {
    let [seed, seeds, jobs] = ["STORM_SEED", "STORM_SEEDS", "STORM_JOBS"].map(variable);
    let (seeds, jobs) = choose(seed.as_deref(), seeds.as_deref(), jobs.as_deref())
        .unwrap_or_else(|reason| panic!("{reason}"));
    let totals = campaign::run(&seeds, jobs, &run_seed, &mut |_| ());
    println!(
        "seeds {seeds}: {} events, {} operations acknowledged, trace hash {:016x}",
        totals.events, totals.acknowledged, totals.trace_hash
    );
    if let Some(worst) = totals.worst() {
        panic!("{}", complaint(&totals, worst));
    }
    assert!(totals.acknowledged > 0, "no client was ever answered: nothing was tested");
}

/// Damage to disks beyond what a quorum can repair may stop a cluster, but it must not make it lie.
#[test]
fn no_seed_lies_beyond_a_quorum() {
    let seeds = Seeds::range(0, BEYOND_SEEDS).expect("there are some");
    let run = |seed| kv::run(&swarm::generate_beyond::<KeyValue>(seed), &mut RunOptions::default());
    let totals = campaign::run(&seeds, campaign::default_jobs(), &run, &mut |_| ());
    if let Some(worst) = totals.worst() {
        let plan = swarm::generate_beyond::<KeyValue>(worst.seed).hash();
        let replay =
            format!("cargo sim replay --beyond-quorum --seed {} --plan {plan:016x}", worst.seed);
        panic!("{}: {}\nreplay: {replay}", worst.violation.checker, worst.violation.message);
    }
    for ended in ["stopped-beyond-quorum", "recovered-beyond-quorum"] {
        assert!(totals.faults.get(ended).is_some_and(|count| *count > 10), "{ended} is rare");
    }
}

#[test]
fn the_variables_choose_seeds_and_threads() {
    let chosen = |seed, seeds| choose(seed, seeds, Some("3")).map(|(seeds, _)| seeds.to_string());
    assert_eq!(chosen(None, None).unwrap(), "0..400");
    assert_eq!(chosen(None, Some("7")).unwrap(), "0..7");
    assert_eq!(chosen(None, Some("5..9")).unwrap(), "5..9");
    assert_eq!(chosen(Some("42"), None).unwrap(), "42");
    assert_eq!(choose(None, None, Some("3")).unwrap().1, 3);
    for (seed, seeds, jobs) in [
        (Some("1"), Some("1"), None),
        (Some("one"), None, None),
        (None, Some("9..5"), None),
        (None, None, Some("0")),
    ] {
        assert!(choose(seed, seeds, jobs).is_err(), "{seed:?} {seeds:?} {jobs:?}");
    }
}

#[test]
fn a_failure_says_how_to_replay_it() {
    let rotten = |seed: u64| {
        assert!(seed != 5, "seed 5 is rotten");
        Outcome::default()
    };
    let totals = campaign::run(&Seeds::range(3, 8).unwrap(), 1, &rotten, &mut |_| ());
    let text = complaint(&totals, totals.worst().expect("seed 5 failed"));
    for part in [
        "1 of 5 seeds failed; seed 5",
        "panic: the run panicked: seed 5 is rotten",
        "STORM_SEED=5 cargo test --test swarm",
        "cargo sim replay --seed 5",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
