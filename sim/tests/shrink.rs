//! Shrinking as a whole: a stall of the real world becomes a small file, which can be replayed and
//! shrunk again; nothing that somebody wrote is overwritten.

#![allow(clippy::disallowed_methods, reason = "a test of the host's command line")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::outcome::Class;
use stormkv_sim::scenario;
use stormkv_sim::shrink::{Options, Progress};
use stormkv_sim::simulation::RunOptions;

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkv-sim"));
    command.args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A place in a directory that cargo keeps for this package, with nothing there yet.
fn place(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path.into_os_string().into_string().expect("UTF-8")
}

/// Two of three members are lost for good: whatever else happens, the third stands still.
const STALL: &str = r#"
schema = 1
name = "stall"
seed = 32
cluster.nodes = 3
cluster.segment_kib = 8
network.drop = 0.01
clients.count = 7
op = [
  { at_ms = 300, client = 2, do = "put k1 v1*500" },
  { at_ms = 500, client = 1, do = "put a 1" },
  { at_ms = 700, client = 7, do = "txn if a=1 then put b 2; get a" },
  { at_ms = 1000, client = 2, do = "put a 2 @3" },
  { at_ms = 60000, client = 3, do = "get a" },
]
fault = [
  { at_ms = 310, until_ms = 600, do = "pause 2" },
  { at_ms = 800, do = "crash 1" },
  { at_ms = 900, do = "crash 2" },
  { at_ms = 950, until_ms = 1234.567, do = "weather all -> 3 drop=0.25" },
]
end.heal_at_ms = 1500
end.core = [3]
"#;

#[test]
fn a_stall_gets_small_and_stays_what_it_is() {
    let plan = scenario::parse::<KeyValue>("stall", STALL).expect("a scenario");
    let mut told = 0;
    let mut report = |_: &Progress<'_>| {
        told += 1;
        ControlFlow::Continue(())
    };
    let shrunk = kv::shrink(&plan, &Options::default(), &mut report).expect("it stalls");
    assert!(shrunk.minimal && told > 10);
    let rows = shrunk.plan.ops.len() + shrunk.plan.faults.len() + shrunk.plan.net.len();
    assert!(rows <= 2, "{}", scenario::save(&shrunk.plan));
    let outcome = kv::run(&shrunk.plan, &mut RunOptions::default());
    assert_eq!(outcome, shrunk.outcome);
    let violation = outcome.violation.expect("it still stalls");
    assert_eq!((violation.class, violation.checker), (Class::Liveness, "convergence"));
    assert_eq!(shrunk.plan.end.bound_us, plan.end.bound_us);
}

#[test]
fn the_file_replays_as_expected_and_can_be_shrunk_again() {
    let (from, small, again) = (place("stall.toml"), place("small.toml"), place("again.toml"));
    std::fs::write(&from, STALL).expect("the temporary directory can be written");
    let output = sim(&["shrink", &from, "-o", &small, "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains("4 faults, 5 operations, 3 nodes"), "{out}");
    assert!(out.contains(&format!("  replay   cargo sim replay {small}\n")), "{out}");
    let plan = scenario::load::<KeyValue>(&small).expect("a scenario");
    assert_eq!(
        (plan.name.as_str(), plan.expect.violation.as_deref()),
        ("small", Some("convergence"))
    );
    assert_eq!(plan.found.as_ref().map(|found| found.seed), Some(32));
    assert!(!Path::new(&format!("{small}.part")).exists());
    let replay = sim(&["replay", &small]);
    assert!(text(&replay.stdout).contains("as expected: the scenario expects convergence"));
    // What came of it can take its own place, or go elsewhere; there is nothing left to do.
    for out in [&small, &again] {
        assert_eq!(sim(&["shrink", &small, "-o", out]).status.code(), Some(2));
        assert_eq!(scenario::load::<KeyValue>(out).expect("a scenario").hash(), plan.hash());
    }
}

#[test]
fn what_somebody_wrote_is_not_overwritten_and_what_does_not_fail_is_refused() {
    let (from, taken) = (place("written.toml"), place("taken.toml"));
    std::fs::write(&from, STALL).expect("the temporary directory can be written");
    std::fs::write(&taken, "mine").expect("the temporary directory can be written");
    for out in [&from, &taken] {
        let output = sim(&["shrink", &from, "-o", out]);
        assert_eq!(output.status.code(), Some(64));
        let message = text(&output.stderr);
        assert!(message.contains("is there and is not what became of seed 32; name another file"));
    }
    assert_eq!(std::fs::read_to_string(&from).expect("it is there"), STALL);
    assert_eq!(std::fs::read_to_string(&taken).expect("it is there"), "mine");
    let clean = place("clean.toml");
    let output = sim(&["shrink", "--seed", "3", "-o", &clean]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(text(&output.stderr), "error: seed 3 does not fail: nothing to shrink\n");
    assert!(!Path::new(&clean).exists());
    let output = sim(&["shrink", "--seed", "3"]);
    assert_eq!(output.status.code(), Some(64), "there must be a file to write");
}
