//! The commands as a whole, with engines that fail, stall or panic on demand.

use serde_json::Value;
use stormkv_sim::outcome::Outcome;

use super::console::tests::captured;
use super::*;

fn broken(class: Class, seed: u64) -> Outcome {
    let violation = Violation {
        class,
        checker: "election-safety",
        message: format!("seed {seed} broke"),
        step: 40,
        at_ns: 2_500_000_000,
    };
    Outcome { violation: Some(violation), events: 50, trace_hash: 0xfeed, ..Outcome::default() }
}

/// Seed 1 misses liveness, 2 is undecided, 3 and 4 break safety, 5 panics.
fn fake() -> Engine {
    Engine {
        run_seed: |seed| match seed {
            1 => broken(Class::Liveness, seed),
            2 => broken(Class::Unknown, seed),
            3 | 4 => broken(Class::Safety, seed),
            5 => panic!("index out of bounds"),
            _ => Outcome { events: 10, trace_hash: seed, ..Outcome::default() },
        },
        run_plan: |_, mut options| {
            if let Some(trace) = &mut options.trace {
                trace("n1 -> n2 Append");
            }
            broken(Class::Safety, 9)
        },
    }
}

/// Exit code, standard output and standard error of one command line.
fn sim(engine: &Engine, line: &str) -> (Exit, String, String) {
    let (console, out, err) = captured();
    let exit = execute(std::iter::once("sim").chain(line.split_whitespace()), engine, &console);
    (console.finish(exit), out.text(), err.text())
}

#[test]
fn the_exit_code_is_that_of_the_most_severe_failure() {
    for (seeds, expected) in [
        ("6..9", Exit::Clean),
        ("1..2", Exit::Liveness),
        ("2..3", Exit::Unknown),
        ("1..3", Exit::Liveness),
        ("0..4", Exit::Violation),
        ("5..6", Exit::Violation),
    ] {
        let (exit, _, err) = sim(&fake(), &format!("run --seeds {seeds} --jobs 2"));
        assert_eq!((exit, err.as_str()), (expected, ""), "{seeds}");
    }
}

#[test]
fn the_last_line_of_a_failure_replays_it() {
    let (_, out, _) = sim(&fake(), "run --seeds 0..9 --jobs 2");
    assert!(out.contains("\nsafety violation (election-safety): seed 3 broke\n"), "{out}");
    assert!(out.ends_with("  replay   cargo sim replay --seed 3\n"), "{out}");
    let (_, out, _) = sim(&fake(), "run --seeds 6..9");
    assert!(out.ends_with("\nclean: 3 seeds, no violation\n"), "{out}");
}

#[test]
fn a_panic_of_a_run_is_a_failure_of_its_seed() {
    let (exit, out, _) = sim(&fake(), "run --seeds 5..8");
    assert_eq!(exit, Exit::Violation);
    assert!(out.contains("safety violation (panic): the run panicked: index out of bounds"));
    assert!(out.contains("passed") && out.ends_with("replay --seed 5\n"), "{out}");
}

#[test]
fn json_is_one_object_and_the_rest_goes_to_standard_error() {
    let (exit, out, err) = sim(&fake(), "run --seeds 6 --jobs 2 --json");
    assert_eq!(exit, Exit::Violation);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&object["seeds"], &object["passed"]), (&6.into(), &1.into()));
    let seeds: Vec<&Value> = object["failed"].as_array().unwrap().iter().collect();
    assert_eq!(
        seeds.iter().map(|f| f["seed"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(out.lines().count(), 1);
    assert!(err.ends_with("  replay   cargo sim replay --seed 3\n"), "{err}");
}

#[test]
fn the_hash_does_not_depend_on_jobs_but_on_the_seeds() {
    let hash = |line: &str| {
        let (_, out, _) = sim(&fake(), line);
        serde_json::from_str::<Value>(&out).unwrap()["trace_hash"].as_str().unwrap().to_string()
    };
    let one = hash("run --seeds 40 --jobs 1 --json");
    assert_eq!(one.len(), 16);
    assert_eq!(hash("run --seeds 40 --jobs 4 --json"), one);
    assert_ne!(hash("run --seeds 39 --jobs 4 --json"), one);
}

#[test]
fn an_empty_shard_says_that_nothing_was_tested() {
    let (exit, out, _) = sim(&fake(), "run --seeds 6..8 --shard 3/3");
    assert_eq!(exit, Exit::Clean);
    assert!(out.ends_with("clean: no seed falls to this shard, so nothing was tested\n"), "{out}");
}

#[test]
fn a_replay_tells_the_verdict_and_ends_like_a_failure() {
    let (exit, out, err) = sim(&fake(), "replay --seed 9 --trace");
    assert_eq!((exit, err.as_str()), (Exit::Violation, ""));
    let (before, after) = out.split_once("n1 -> n2 Append\n").expect("the trace");
    assert!(before.starts_with("seed 9"), "{out}");
    assert!(after.contains("violation of election-safety at step 40, after 2.5 s\n"), "{out}");
    assert!(after.contains("trace hash  000000000000feed\n"), "{out}");
    assert!(out.ends_with("  replay   cargo sim replay --seed 9\n"), "{out}");
}

#[test]
fn the_json_of_a_replay_extends_that_of_a_run() {
    let (exit, out, err) = sim(&fake(), "replay --seed 9 --json --trace");
    assert_eq!(exit, Exit::Violation);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["seeds"], 1);
    assert_eq!(object["failed"][0]["seed"], 9);
    assert_eq!(object["steps"], 50);
    assert_eq!(object["trace_hash"], "000000000000feed");
    assert_eq!(object["verdict"], "violation");
    assert_eq!(object["checker"], "election-safety");
    assert_eq!(object["message"], "seed 9 broke");
    assert_eq!(object["at"], 2.5);
    assert!(err.starts_with("n1 -> n2 Append\n"), "{err}");
}

#[test]
fn a_replay_cut_short_says_so() {
    let engine = Engine {
        run_plan: |_, options| Outcome {
            events: options.until_step.unwrap_or(100).min(100),
            ..Outcome::default()
        },
        ..fake()
    };
    let (exit, out, _) = sim(&engine, "replay --seed 9 --until 60");
    assert_eq!(exit, Exit::Clean);
    assert!(out.contains("clean up to step 60, where you asked to stop\n"), "{out}");
    let (_, out, _) = sim(&engine, "replay --seed 9 --until 101");
    assert!(!out.contains("up to step"), "the run ended before: {out}");
}

#[test]
fn a_panic_of_a_replay_is_a_violation_too() {
    let engine = Engine { run_plan: |_, _| panic!("out of order"), ..fake() };
    let (exit, out, _) = sim(&engine, "replay --seed 9");
    assert_eq!(exit, Exit::Violation);
    assert!(out.contains("safety violation (panic): the run panicked: out of order"), "{out}");
}

#[test]
fn a_workload_that_fails_has_no_speed() {
    let (exit, out, err) = sim(&fake(), "speed --json");
    assert_eq!((exit, out.as_str()), (Exit::Violation, ""));
    assert!(err.contains("failed, so its speed means nothing: election-safety: "), "{err}");
}

#[test]
fn a_usage_error_is_one_clear_line() {
    for (line, expected) in [
        ("run --seeds 5..2", "5..2 holds no seeds: write A..B with A below B"),
        ("run --seeds abc", "`abc` is not a number of seeds: write N (for 0..N) or A..B"),
        ("run --seeds 1..=3", "`1..=3` is not a range of seeds"),
        ("run --seeds 0..99999999999", "a campaign takes at most 1000000000: split the range"),
        ("run --jobs 0", "0 is not in 1..=1024"),
        ("run --shard 3/2", "`3/2` is not a shard: write K/N with K from 1 to N"),
        ("run --seed-file no-such-file", "no-such-file: "),
        ("replay --seed -1", "unexpected argument '-1'"),
        ("replay --seed abc", "invalid digit"),
        ("check h.jsonl --timeout 0", "`0` is not a time limit"),
        ("check h.jsonl --timeout nan", "`nan` is not a time limit"),
    ] {
        let (exit, out, err) = sim(&fake(), line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line}");
        assert!(err.starts_with("error: ") && err.contains(expected), "{line}: {err}");
        assert!(err.lines().count() == 1 || err.contains("unexpected argument"), "{line}: {err}");
    }
}

#[test]
fn what_is_missing_or_unknown_is_a_usage_error() {
    for line in [
        "",
        "fly",
        "shrink --seed 1",
        "run --fast",
        "run x",
        "replay",
        "replay --seed 1 a.toml",
        "check",
        "check h.jsonl --model queue",
        "run --seeds 3 --seed-file f",
    ] {
        let (exit, out, err) = sim(&fake(), line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line}");
        assert!(!err.is_empty(), "{line}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let (exit, out, _) = sim(&fake(), "--version");
    assert_eq!((exit, out), (Exit::Clean, format!("stormkv-sim {BUILD}\n")));
    for line in ["--help", "run --help", "replay --help", "check --help", "speed --help"] {
        let (exit, out, _) = sim(&fake(), line);
        assert_eq!(exit, Exit::Clean);
        assert!(out.contains("Usage: cargo sim") && out.contains("Exit codes: 0 clean"), "{out}");
    }
}

#[test]
fn the_arguments_are_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
