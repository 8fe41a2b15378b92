//! The commands as a whole, with engines that fail, stall or panic on demand.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::kv::KeyValue;
use crate::outcome::{Outcome, Recovery};
use crate::simulation::{FailureReport, NodeRecord};
use serde_json::Value;

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
pub(super) fn fake() -> Engine {
    Engine {
        custom_faults: Vec::new,
        run_seed: |seed| match seed {
            1 => broken(Class::Liveness, seed),
            2 => broken(Class::Unknown, seed),
            3 | 4 => broken(Class::Safety, seed),
            5 => panic!("index out of bounds"),
            _ => Outcome { events: 10, trace_hash: seed, ..Outcome::default() },
        },
        run_beyond: |seed| broken(Class::Safety, seed),
        run_plan: |_, mut options| {
            if let Some(trace) = &mut options.trace {
                trace("n1 -> n2 Append");
            }
            broken(Class::Safety, 9)
        },
        interrupts: |_| false,
        #[cfg(feature = "bugs")]
        shrink_within: |_, _, _, _| None,
        ..Engine::default()
    }
}

fn fake_recovery() -> Recovery {
    Recovery {
        leader_ns: Some(120_000_000),
        converged_ns: Some(1_500_000_000),
        ..Recovery::default()
    }
}

/// The last line about a failure of a seed: it pins the plan.
pub(super) fn replay_line(
    subject: &str,
    seed: u64,
    beyond_quorum: bool,
    bug: Option<&str>,
) -> String {
    let hash = Engine::default().plan(seed, beyond_quorum, bug).hash();
    format!("  replay   cargo sim replay {subject} --plan {hash:016x}\n")
}

/// That of a seed of an ordinary campaign.
fn replays(seed: u64) -> String {
    replay_line(&format!("--seed {seed}"), seed, false, None)
}

/// Exit code, standard output and standard error of one command line.
pub(super) fn sim(engine: &Engine, line: &str) -> (Exit, String, String) {
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
        assert_eq!(exit, expected, "{seeds}");
        assert_eq!(err.is_empty(), expected == Exit::Clean, "{seeds}: {err}");
    }
}

#[test]
fn the_last_line_of_a_failure_replays_it() {
    let (_, out, _) = sim(&fake(), "run --seeds 0..9 --jobs 2");
    assert!(out.contains("\nsafety violation (election-safety): seed 3 broke\n"), "{out}");
    assert!(out.ends_with(&replays(3)), "{out}");
    let (_, out, _) = sim(&fake(), "run --seeds 6..9");
    assert!(out.starts_with("clean: 3 seeds, no violation\n"), "{out}");
}

#[test]
fn failing_seeds_are_named_as_they_are_found() {
    let (_, _, err) = sim(&fake(), "run --seeds 0..9 --jobs 2");
    let named: Vec<&str> = err.lines().collect();
    assert_eq!(named.len(), 5, "{err}");
    assert_eq!(named[2], "seed 3 failed: election-safety: seed 3 broke");
    let all = Engine { run_seed: |seed| broken(Class::Safety, seed), ..fake() };
    let (_, _, err) = sim(&all, "run --seeds 0..900 --jobs 2");
    let named: Vec<&str> = err.lines().collect();
    assert_eq!(named.len(), 11, "{err}");
    assert_eq!(named[10], "more seeds fail; they are counted only");
}

#[test]
fn an_interrupted_campaign_reports_what_it_has_found() {
    let early = || Engine { interrupts: |totals| totals.seeds == 5, ..fake() };
    let (exit, out, _) = sim(&early(), "run --seeds 6..900 --jobs 2");
    assert_eq!(exit, Exit::Interrupted);
    let first = "clean: 5 seeds, no violation, interrupted before the end\n";
    assert!(out.starts_with(first), "{out}");
    let (exit, out, err) = sim(&early(), "run --seeds 0..900 --jobs 2 --shrink");
    assert_eq!(exit, Exit::Violation, "the worst until then");
    assert!(out.starts_with("failed: 4 of 5 seeds, interrupted before the end\n"), "{out}");
    for seed in [1, 2, 4] {
        assert!(out.contains(&format!("\n  cargo sim replay --seed {seed}\n")), "{seed}: {out}");
    }
    assert!(out.ends_with(&replays(3)), "nothing is shrunk: {out}");
    assert_eq!(err.lines().count(), 4, "{err}");
    let (exit, out, _) = sim(&early(), "run --seeds 6..900 --jobs 2 --json");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &object["seeds"]), (Exit::Interrupted, &5.into()));
    assert_eq!(object["interrupted"], true);
    // An end that comes with the last seed is none.
    let (exit, out, _) = sim(&early(), "run --seeds 6..11 --json");
    assert!(exit == Exit::Clean && !out.contains("interrupted"), "{out}");
}

#[test]
fn all_counts_are_printed_on_demand() {
    let engine = Engine {
        run_seed: |seed| Outcome {
            trace_hash: seed,
            peaks: std::collections::BTreeMap::from([("log-entries", 9)]),
            ..Outcome::default()
        },
        ..fake()
    };
    let (_, brief, _) = sim(&engine, "run --seeds 6..9");
    assert!(brief.lines().count() <= 24 && brief.ends_with("\nall counts: --verbose\n"), "{brief}");
    assert!(!brief.contains("peaks of a node"), "{brief}");
    for flag in ["-v", "--verbose"] {
        let (_, full, _) = sim(&engine, &format!("run --seeds 6..9 {flag}"));
        assert!(full.starts_with("seeds ") && full.contains("\npeaks of a node\n"), "{full}");
        assert!(full.ends_with("\nclean: 3 seeds, no violation\n"), "{full}");
    }
}

#[test]
fn a_seed_of_another_version_is_refused() {
    let right = Engine::default().plan(9, false, None).hash();
    let (exit, _, _) = sim(&fake(), &format!("replay --seed 9 --plan {right:016x}"));
    assert_eq!(exit, Exit::Violation, "it is run");
    for command in ["replay", "view -o -", "shrink -o /no/such/directory/x.toml"] {
        let line = format!("{command} --seed 9 --plan {:016x}", right ^ 1);
        let (exit, out, err) = sim(&fake(), &line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line}");
        let start =
            format!("error: seed 9 is the plan {right:016x} in this version, {BUILD}, and not ");
        assert!(err.starts_with(&start) && err.contains("check out the revision"), "{line}: {err}");
    }
    let (exit, _, err) = sim(&fake(), "replay --seed 9 --plan 12");
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("`12` is not the hash of a plan: write its 16 hexadecimal"), "{err}");
}

#[test]
fn what_belongs_to_seeds_is_refused_with_a_file() {
    for flag in ["--beyond-quorum", "--bug 30"] {
        for command in ["replay", "view -o -", "shrink -o x.toml"] {
            if cfg!(not(feature = "bugs")) && flag != "--beyond-quorum" {
                continue;
            }
            let (exit, out, err) = sim(&fake(), &format!("{command} a.toml {flag}"));
            assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{command} {flag}");
            let word = flag.split(' ').next().unwrap();
            assert!(
                err.starts_with(&format!("error: {word} says what to make of a seed")),
                "{err}"
            );
        }
    }
}

#[test]
fn a_panic_of_a_run_is_a_failure_of_its_seed() {
    let (exit, out, _) = sim(&fake(), "run --seeds 5..8");
    assert_eq!(exit, Exit::Violation);
    assert!(out.contains("safety violation (panic): the run panicked: index out of bounds"));
    assert!(out.ends_with(&replays(5)), "{out}");
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
    assert!(err.ends_with(&replays(3)), "{err}");
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
    assert!(
        out.starts_with("clean: no seed falls to this shard, so nothing was tested\n"),
        "{out}"
    );
}

#[test]
fn a_replay_tells_the_verdict_and_ends_like_a_failure() {
    let (exit, out, err) = sim(&fake(), "replay --seed 9 --trace");
    assert_eq!((exit, err.as_str()), (Exit::Violation, ""));
    let (before, after) = out.split_once("n1 -> n2 Append\n").expect("the trace");
    assert!(before.starts_with("seed 9"), "{out}");
    assert!(after.contains("violation of election-safety at step 40, after 2.5 s\n"), "{out}");
    assert!(after.contains("trace hash  000000000000feed\n"), "{out}");
    assert!(out.ends_with(&replays(9)), "{out}");
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
fn a_replay_tells_the_times_of_its_recovery() {
    let engine = Engine {
        run_plan: |_, _| Outcome { recovery: fake_recovery(), ..Outcome::default() },
        ..fake()
    };
    let (_, out, _) = sim(&engine, "replay --seed 9");
    assert!(out.contains("recovery    leader after 120 ms, converged after 1.5 s\n"), "{out}");
    let (_, out, _) = sim(&engine, "replay --seed 9 --json");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["recovery"]["converged_ms"]["max"], 1500.0);
    assert_eq!(object["recovery"]["answered_ms"]["count"], 0);
    let (_, out, _) = sim(&fake(), "replay --seed 9");
    assert!(out.contains("recovery    none\n"), "{out}");
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
        ("run --canary 1.5", "`1.5` is not a share: write a number from 0 to 1, such as 0.01"),
        ("merge no-such-directory", "no-such-directory: "),
        ("replay --seed -1", "unexpected argument '-1'"),
        ("replay --seed abc", "invalid digit"),
        ("replay --seed 1 --plan xyz", "is not the hash of a plan"),
        ("soak --days 0", "`0` is not a number of days: write one from 0.03 to 366"),
        ("soak --days=-1", "`-1` is not a number of days"),
        ("soak --days 1e9", "`1e9` is not a number of days"),
        ("soak --days nan", "`nan` is not a number of days"),
        ("soak --seed x", "invalid digit"),
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
        "merge",
        "run --out",
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
    for line in
        ["--help", "run --help", "merge --help", "replay --help", "check --help", "speed --help"]
    {
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

#[test]
fn a_run_that_its_seed_does_not_determine_is_shown_event_by_event() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let engine = Engine {
        run_plan: |plan, mut options| {
            let run = RUNS.fetch_add(1, Ordering::SeqCst);
            for event in 1..=9 {
                let odd = plan.seed == 3 && event >= 6 && run % 2 == 1;
                let term = if odd { 8 } else { 7 };
                if let Some(trace) = &mut options.trace {
                    trace(&format!("{event:>6}  n1 -> n2 Vote t{term}"));
                }
                if let Some(digest) = &mut options.digest {
                    digest(event * 10 + term);
                }
            }
            Outcome { events: 9, ..Outcome::default() }
        },
        ..fake()
    };
    let (exit, out, err) = sim(&engine, "run --seeds 2..5 --jobs 1 --check-determinism");
    assert_eq!(exit, Exit::Violation);
    assert!(err.starts_with("seed 3 failed: determinism: ") && err.lines().count() == 1, "{err}");
    let (_, words) = out.rsplit_once("\n\n").unwrap();
    assert!(
        words.starts_with(
            "safety violation (determinism): two runs of this seed differ from event 6 on: \
             `6  n1 -> n2 Vote t7` in the first, `6  n1 -> n2 Vote t8` in the second\n    \
             the same in both:\n           2  n1 -> n2 Vote t7\n"
        ),
        "{words}"
    );
    assert!(words.contains("in the second run:\n           6  n1 -> n2 Vote t8\n  seed     3\n"));
    let (_, list) = out.split_once("failed seeds\n").unwrap();
    assert!(list.lines().next().unwrap().ends_with("t8` in the second"), "{list}");
}

#[test]
fn beyond_quorum_is_a_campaign_of_its_own_with_its_own_replay() {
    let (exit, out, _) = sim(&fake(), "run --seeds 7..8 --beyond-quorum");
    assert_eq!(exit, Exit::Violation);
    assert!(out.ends_with(&replay_line("--beyond-quorum --seed 7", 7, true, None)), "{out}");
    let (exit, out, _) = sim(&fake(), "run --seeds 7..8");
    assert_eq!(exit, Exit::Clean, "{out}");
    let (exit, _, err) = sim(&fake(), "replay --beyond-quorum some.toml");
    assert_eq!(exit, Exit::Usage, "{err}");
}

/// A directory of this process, with nothing in it.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("stormkv-sim-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

#[test]
fn a_failing_campaign_shrinks_its_worst_failure_beside_its_file() {
    let out = directory("shrink");
    let line = format!("run --seeds 0..9 --jobs 2 --shrink --out {}", out.display());
    let (exit, text, _) = sim(&fake(), &line);
    assert_eq!(exit, Exit::Violation);
    let path = out.join("seed-3.toml");
    let plan = crate::scenario::load::<KeyValue>(&path).unwrap();
    assert_eq!((plan.name.as_str(), plan.ops.len(), plan.faults.len()), ("seed-3", 0, 0));
    assert_eq!(plan.found.map(|found| (found.seed, found.events_before)), Some((3, 50)));
    assert!(text.ends_with(&format!("  replay   cargo sim replay {}\n", path.display())), "{text}");
    // A clean campaign has nothing to shrink; a canary cannot be.
    let (exit, text, _) = sim(&fake(), "run --seeds 6..9 --shrink");
    assert_eq!(exit, Exit::Clean);
    assert!(text.starts_with("clean: 3 seeds, no violation\n"), "{text}");
    let (exit, _, err) = sim(&fake(), "run --seeds 6..9 --shrink --canary 1");
    assert_eq!(exit, Exit::Violation);
    assert!(
        err.ends_with("note: not shrunk: seed 6 failed on purpose: nothing to shrink\n"),
        "{err}"
    );
    std::fs::remove_dir_all(&out).unwrap();
}

#[test]
fn a_search_that_runs_out_of_time_says_how_to_go_on() {
    let out = directory("budget");
    std::fs::create_dir(&out).unwrap();
    let file = out.join("small.toml");
    let line = format!("shrink --seed 4 -o {} --budget 0.000001", file.display());
    let (exit, text, _) = sim(&fake(), &line);
    assert_eq!(exit, Exit::Violation);
    let hint = format!("the time is up: `cargo sim shrink {0} -o {0}` goes on\n", file.display());
    assert!(text.contains(&hint), "{text}");
    assert!(file.exists());
    let (exit, _, err) = sim(&fake(), &format!("shrink --seed 4 -o {}/no/x.toml", out.display()));
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("x.toml cannot be written: "), "{err}");
    std::fs::remove_dir_all(&out).unwrap();
}

/// What an engine in the place of the simulator has recorded.
fn fake_record() -> FailureReport {
    let nodes = vec![NodeRecord {
        id: stormkv::types::NodeId(1),
        condition: "up".to_owned(),
        state: None,
        lines: Vec::new(),
    }];
    FailureReport { nodes, ..FailureReport::default() }
}

/// Fails in the same way as the campaign of [`fake`] does at seed 3, and records it.
fn recording() -> Engine {
    Engine {
        run_plan: |plan, mut options| {
            if let Some(record) = &mut options.record {
                record(fake_record());
            }
            broken(Class::Safety, plan.seed)
        },
        ..fake()
    }
}

const FAKE_PAGE: &str = "\nno operation had begun\n\neach node in the end, at event 40 after \
                         2500.000 ms\n  n1  up\n\nsafety violation (election-safety): seed ";

#[test]
fn a_failure_ends_with_a_page_and_then_with_the_last_words() {
    let (_, out, _) = sim(&recording(), "run --seeds 0..9 --jobs 2");
    assert!(out.contains(&format!("{FAKE_PAGE}3 broke\n  seed     3\n")), "{out}");
    assert!(out.ends_with(&replays(3)), "{out}");
    let (_, out, _) = sim(&recording(), "replay --seed 9");
    assert!(out.contains(&format!("{FAKE_PAGE}9 broke\n  seed     9\n")), "{out}");
    assert!(out.ends_with(&replays(9)), "{out}");
}

#[test]
fn with_json_the_page_goes_to_standard_error() {
    for line in ["run --seeds 0..9 --jobs 2 --json", "replay --seed 9 --json"] {
        let (_, out, err) = sim(&recording(), line);
        assert_eq!(out.lines().count(), 1, "{out}");
        assert!(err.contains("\neach node in the end, at event 40"), "{err}");
    }
}

#[test]
fn a_failure_that_does_not_show_again_has_no_page() {
    let (_, out, _) = sim(&fake(), "run --seeds 0..9 --jobs 2");
    let (_, words) = out.rsplit_once("\n\n").unwrap();
    assert!(words.starts_with("safety violation (election-safety): seed 3 broke\n"), "{words}");
    assert!(out.contains("\nnote: run once more, this seed did not fail in the same way"), "{out}");
    // What the plan alone does not do is not run again.
    let (_, out, _) = sim(&recording(), "run --seeds 6..9 --canary 1");
    assert!(!out.contains("each node") && !out.contains("note: "), "{out}");
    // Nor does a run that panics leave anything.
    let engine = Engine { run_plan: |_, _| panic!("index out of bounds"), ..fake() };
    let (_, out, _) = sim(&engine, "replay --seed 9");
    assert!(!out.contains("each node") && out.contains("the run panicked"), "{out}");
}
