//! One plan, one run: the same events in every process, in every build, on any number of threads.
//!
//! A seed that fails elsewhere is only worth something if it fails here too. So the simulator runs
//! as a program of its own, built with and without optimization, and the hashes over all events
//! must be the same. No hash is written down: it may change with any change of the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use stormkv_sim::plan::Wire;
use stormkv_sim::swarm;
use stormkv_sim::world::{self, RunOptions};

const SEEDS: &str = "0..60";

/// Builds the simulator into the usual target directory and says where it is. Cargo knows best:
/// the place depends on CARGO_TARGET_DIR and on its configuration. With the features of this build:
/// another one would take the place of the program that other tests use.
fn build(config: &[&str]) -> PathBuf {
    let features: &[&str] = if cfg!(feature = "bugs") { &["--features", "bugs"] } else { &[] };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--offline", "--quiet", "--package", "stormkv-sim"])
        .args(["--bin", "stormkv-sim", "--message-format", "json-render-diagnostics"])
        .args(config)
        .args(features)
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the simulator does not build: {errors}");
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "stormkv-sim")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program")
}

/// The simulator as tests are built, optimized, and without any optimization of our own code. The
/// other crates are the same: to build those once more would take longer than all tests together.
/// A real release takes part in `.ci/run`.
struct Programs {
    optimized: PathBuf,
    plain: PathBuf,
}

fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| {
        let plain = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stormkv-sim-plain");
        let built = build(&[
            "--config",
            "profile.dev.package.stormkv.opt-level=0",
            "--config",
            "profile.dev.package.stormkv-sim.opt-level=0",
        ]);
        fs::copy(built, &plain).expect("a program can be copied");
        // Last, because it goes to the same place, where other tests look for it.
        Programs { optimized: build(&[]), plain }
    })
}

fn optimized() -> &'static Path {
    &programs().optimized
}

fn plain() -> &'static Path {
    &programs().plain
}

/// Runs the simulator in a fresh process; the object that it prints.
fn sim(program: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(program).args(arguments).output().expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?} printed no JSON ({error}): {text}{errors}")
    })
}

fn hash(object: &Value) -> String {
    object["trace_hash"].as_str().expect("a trace hash").to_string()
}

fn campaign(program: &Path, jobs: &str) -> String {
    hash(&sim(program, &["run", "--seeds", SEEDS, "--jobs", jobs, "--json"]))
}

/// The hash of the campaign that all others are compared with.
fn reference() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| campaign(optimized(), "2"))
}

#[test]
fn the_number_of_threads_changes_nothing() {
    assert_eq!(campaign(optimized(), "1"), reference());
}

#[test]
fn a_fresh_process_changes_nothing() {
    assert_eq!(campaign(optimized(), "2"), reference());
}

#[test]
fn optimization_changes_nothing() {
    let bytes = |program| fs::read(program).expect("a program can be read");
    assert!(bytes(plain()) != bytes(optimized()), "these are one and the same");
    assert_eq!(campaign(plain(), "2"), reference());
}

#[test]
fn watching_changes_nothing() {
    let wire = |wire| (0..).find(|seed| swarm::generate(*seed).cluster.wire == wire);
    let encoded = wire(Wire::Encoded).expect("some seed encodes its messages");
    let value = wire(Wire::Value).expect("some seed does not");
    for seed in [encoded, value, 17, 1 << 40] {
        let here = world::run(&swarm::generate(seed), &mut RunOptions::default()).trace_hash;
        let seed = seed.to_string();
        let silent = sim(optimized(), &["replay", "--seed", &seed, "--json"]);
        let traced = sim(optimized(), &["replay", "--seed", &seed, "--json", "--trace"]);
        assert_eq!(hash(&silent), hash(&traced), "seed {seed} with and without a trace");
        assert_eq!(hash(&silent), format!("{here:016x}"), "seed {seed} in this process");
        assert_eq!(silent["plan_hash"], traced["plan_hash"], "seed {seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    // A hash that covered nothing would pass all tests above.
    let one = hash(&sim(optimized(), &["replay", "--seed", "17", "--json"]));
    assert_ne!(one, hash(&sim(optimized(), &["replay", "--seed", "18", "--json"])));
    let cut = sim(optimized(), &["replay", "--seed", "17", "--until", "100", "--json"]);
    assert_ne!(one, hash(&cut));
}
