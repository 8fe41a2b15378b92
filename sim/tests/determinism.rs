//! One plan, one run: the same events in every process, in every build, on any number of threads.
//!
//! A seed that fails elsewhere is only worth something if it fails here too. So the simulator runs
//! as a program of its own, and the hashes over all events must be the same. No hash is written down:
//! it may change with any change of the code. Other builds of the simulator, with and without
//! optimization, are compared by `.ci/run`, because to build them takes minutes.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::plan::Wire;
use stormkv_sim::simulation::RunOptions;
use stormkv_sim::swarm;

const PROGRAM: &str = env!("CARGO_BIN_EXE_stormkv-sim");
const SEEDS: &str = "0..60";

/// Runs the simulator in a fresh process; the object that it prints.
fn sim(arguments: &[&str]) -> Value {
    let output = Command::new(PROGRAM).args(arguments).output().expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?} printed no JSON ({error}): {text}{errors}")
    })
}

fn hash(object: &Value) -> String {
    object["trace_hash"].as_str().expect("a trace hash").to_string()
}

fn campaign(jobs: &str) -> String {
    hash(&sim(&["run", "--seeds", SEEDS, "--jobs", jobs, "--json"]))
}

/// The hash of the campaign that all others are compared with.
fn reference() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| campaign("2"))
}

#[test]
fn the_number_of_threads_changes_nothing() {
    assert_eq!(campaign("1"), reference());
}

#[test]
fn a_fresh_process_changes_nothing() {
    assert_eq!(campaign("2"), reference());
}

#[test]
fn watching_changes_nothing() {
    let wire = |wire| (0..).find(|seed| swarm::generate::<KeyValue>(*seed).cluster.wire == wire);
    let encoded = wire(Wire::Encoded).expect("some seed encodes its messages");
    let value = wire(Wire::Value).expect("some seed does not");
    for seed in [encoded, value, 17, 1 << 40] {
        let here =
            kv::run(&swarm::generate::<KeyValue>(seed), &mut RunOptions::default()).trace_hash;
        let seed = seed.to_string();
        let silent = sim(&["replay", "--seed", &seed, "--json"]);
        let traced = sim(&["replay", "--seed", &seed, "--json", "--trace"]);
        assert_eq!(hash(&silent), hash(&traced), "seed {seed} with and without a trace");
        assert_eq!(hash(&silent), format!("{here:016x}"), "seed {seed} in this process");
        assert_eq!(silent["plan_hash"], traced["plan_hash"], "seed {seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    // A hash that covered nothing would pass all tests above.
    let one = hash(&sim(&["replay", "--seed", "17", "--json"]));
    assert_ne!(one, hash(&sim(&["replay", "--seed", "18", "--json"])));
    let cut = sim(&["replay", "--seed", "17", "--until", "100", "--json"]);
    assert_ne!(one, hash(&cut));
}
