//! The command as a whole, with engines in which a planted bug breaks what it is told to.

use crate::bugs::SEEDS_APART;
use crate::kv::KeyValue;
use crate::outcome::{Class, Outcome, Violation};
use crate::plan::Plan;
use crate::simulation::RunOptions;
use serde_json::{Value, json};

use super::super::Exit;
use super::super::engine::Engine;
use super::super::tests::{fake, replay_line, sim};

fn broken(checker: &'static str, events: u64) -> Outcome {
    let violation = Violation {
        class: Class::Safety,
        checker,
        message: "it broke".to_string(),
        step: events,
        at_ns: 1,
    };
    Outcome { violation: Some(violation), events, ..Outcome::default() }
}

/// Bug 30 breaks the seed 2 of each repeat, and the seed before it fails by itself. Bug 7 is found
/// in the first three repeats only, by the first seed. Others never break anything.
fn run(plan: &Plan, _: RunOptions) -> Outcome {
    let (repeat, offset) = (plan.seed / SEEDS_APART, plan.seed % SEEDS_APART);
    match (plan.bug.as_deref(), offset) {
        (Some("read-at-once") | None, 1) => broken("own", 5),
        (Some("read-at-once"), 2) => broken("read-index", 100 + repeat),
        (Some("failed-on-step-down"), 0) if repeat < 3 => broken("refusal", 7),
        _ => Outcome::default(),
    }
}

fn engine() -> Engine {
    Engine { run_plan: run, ..fake() }
}

fn bugs(line: &str) -> (Exit, String, String) {
    sim(&engine(), &format!("bugs {line}"))
}

fn rows(line: &str) -> Value {
    let (_, out, _) = bugs(line);
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str::<Value>(&out).unwrap()["bugs"].take()
}

#[test]
fn all_bugs_are_listed() {
    let (exit, out, err) = bugs("--list --json");
    assert_eq!((exit, err.as_str()), (Exit::Clean, ""));
    let list: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(list.len(), stormkv::bugs::ALL.len());
    for entry in &list {
        for field in ["id", "name", "class", "origin", "what"] {
            assert!(entry[field].as_str().is_some_and(|text| !text.is_empty()), "{entry}");
        }
    }
    let (exit, out, _) = bugs("--list --only u3,12");
    assert_eq!((exit, out.lines().count()), (Exit::Clean, 3), "{out}");
    assert!(out.starts_with("id  name                  class  origin       what\n12  "), "{out}");
    let (_, out, _) = bugs("--list --only 12 --markdown");
    assert!(out.starts_with("| id | name |") && out.contains("| --- |"), "{out}");
}

#[test]
fn an_unknown_bug_is_a_usage_error_that_names_the_nearest() {
    for line in ["bugs --only 12,read-at-onze", "run --bug read-at-onze"] {
        let (exit, out, err) = sim(&engine(), line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        assert_eq!(err, "error: there is no bug `read-at-onze`: did you mean `read-at-once`?\n");
    }
    for line in ["--budget 0", "--repeats 0", "--seeds-per-repeat 1000001", "--json --markdown"] {
        assert_eq!(bugs(line).0, Exit::Usage, "{line}");
    }
}

#[test]
fn a_row_has_all_promised_fields_for_any_number_of_jobs() {
    for jobs in [1, 2, 5] {
        let line = format!("--only 7,30 --seeds-per-repeat 4 --jobs {jobs} --json");
        let rows = rows(&line);
        let row = &rows[1];
        for (field, expected) in [
            ("id", json!("30")),
            ("name", json!("read-at-once")),
            ("class", json!("e")),
            ("found", json!(true)),
            ("repeats", json!(10)),
            ("detected", json!(10)),
            ("checker", json!("read-index")),
            ("seeds_median", json!(3.0)),
            ("seeds_ci", json!([3.0, 3.0])),
            ("events_before", json!(104)),
            ("events_after", json!(null)),
            ("needs", json!(null)),
            ("out_of_budget", json!(false)),
            ("replay", json!("cargo sim replay --seed 4000002 --bug read-at-once")),
        ] {
            assert_eq!(row[field], expected, "{field}");
        }
        assert!(row["cpu_s_median"].is_f64(), "{row}");
        let seeds = row["finds"].as_array().unwrap().iter().map(|find| find["seed"].as_u64());
        assert!(seeds.eq((0..10).map(|repeat| Some(repeat * SEEDS_APART + 2))), "{row}");
        assert_eq!(row["unrelated"][1], SEEDS_APART + 1, "seeds that fail by themselves: {row}");
        let row = &rows[0];
        assert_eq!((&row["found"], &row["detected"]), (&json!(true), &json!(3)));
        assert_eq!((&row["seeds_median"], &row["seeds_ci"]), (&json!(null), &json!([1.0, null])));
    }
}

#[test]
fn the_exit_code_and_the_last_line_say_whether_all_were_found() {
    let (exit, out, err) = bugs("--only 30 --seeds-per-repeat 4");
    assert_eq!(exit, Exit::Clean, "{out}");
    assert!(out.ends_with("\nfound 1 of 1\n") && !out.contains("not found"), "{out}");
    assert!(err.contains("cargo sim replay --seed 4000002 --bug read-at-once\n"), "{err}");
    assert!(err.contains("warning: seed 1 fails without read-at-once, too (own)"), "{err}");
    let (exit, out, err) = bugs("--only 30,1 --seeds-per-repeat 4");
    assert_eq!(exit, Exit::Violation, "{out}");
    assert!(out.ends_with("\nnot found: messages-before-sync\n\nfound 1 of 2\n"), "{out}");
    assert!(err.starts_with(" 1 messages-before-sync: not found, 40 seeds in "), "{err}");
    let (_, out, err) = bugs("--only 30,1 --seeds-per-repeat 4 --json");
    assert_eq!(out.lines().count(), 1);
    assert!(err.ends_with("\nfound 1 of 2\n"), "{err}");
}

#[test]
fn the_table_lines_up() {
    let (_, out, _) = bugs("--only 30,1 --seeds-per-repeat 4 --repeats 6");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("id  name                  class  found  checker     seeds"));
    assert!(lines[1].starts_with("1   messages-before-sync  m        0/6  -               -  -"));
    assert!(
        lines[2].starts_with("30  read-at-once          e        6/6  read-index      3  3 to 3")
    );
    let (_, out, _) = bugs("--only 30 --seeds-per-repeat 4 --markdown");
    assert!(
        out.contains("\n| 30 | read-at-once | e | 10/10 | read-index | 3 | 3 to 3 | "),
        "{out}"
    );
}

#[test]
fn what_a_bug_needs_is_told() {
    let engine = Engine {
        run_plan: |plan, _| match plan.bug {
            Some(_) if plan.network.drop > 0.0 => broken("lost", 7),
            _ => Outcome::default(),
        },
        ..fake()
    };
    let (_, out, _) = sim(&engine, "bugs --only 30 --ablate --json");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["bugs"][0]["needs"], json!(["links"]));
    assert_eq!(object["bugs"][0]["needs_unclear"], json!([]));
    let (_, out, _) = sim(&engine, "bugs --only 30 --ablate");
    assert!(out.lines().next().unwrap().ends_with("events  needs"), "{out}");
    assert!(out.lines().nth(1).unwrap().ends_with("  links"), "{out}");
}

#[test]
fn the_failure_with_the_median_of_events_is_shrunk() {
    let shrink_within = |_: &Engine, plan: &Plan, _, _| {
        (plan.seed == 4_000_002 && plan.bug.is_some()).then(|| (plan.clone(), 42))
    };
    let engine = Engine { shrink_within, ..engine() };
    let directory = std::env::temp_dir().join(format!("stormkv-bugs-{}", std::process::id()));
    let line = format!("bugs --only 30 --shrink {}", directory.display());
    let (_, out, _) = sim(&engine, &format!("{line} --json"));
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["bugs"][0]["events_after"], 42);
    let (_, out, _) = sim(&engine, &line);
    assert!(out.contains("  104, shrunk 42\n"), "{out}");
    let kept = crate::scenario::load::<KeyValue>(directory.join("read-at-once.toml")).unwrap();
    assert_eq!(kept.bug.as_deref(), Some("read-at-once"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_campaign_with_a_bug_says_so_and_its_failures_replay_with_it() {
    let bug = Some("read-at-once");
    let replays = replay_line("--seed 2 --bug read-at-once", 2, false, bug);
    let (exit, out, _) = sim(&engine(), "run --seeds 2..4 --bug 30");
    assert_eq!(exit, Exit::Violation);
    assert!(out.ends_with(&replays), "{out}");
    let (_, out, _) = sim(&engine(), "run --seeds 2..4 --bug 30 --json");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["bug"], "read-at-once");
    let (_, out, _) = sim(&engine(), "run --seeds 6..8 --json");
    assert!(!out.contains("\"bug\""), "{out}");
    let (exit, out, _) = sim(&engine(), "replay --seed 2 --bug 30");
    assert_eq!(exit, Exit::Violation);
    assert!(out.contains("bug         read-at-once, planted\n"), "{out}");
    assert!(out.ends_with(&replays), "{out}");
    let (exit, out, _) = sim(&engine(), "run --beyond-quorum --seeds 2..3 --bug 30");
    assert_eq!(exit, Exit::Violation);
    let last = replay_line("--beyond-quorum --seed 2 --bug read-at-once", 2, true, bug);
    assert!(out.ends_with(&last), "{out}");
}

#[test]
fn a_bake_off_compares_all_ways_to_choose_plans() {
    let line = "bugs --bake-off --only 30 --repeats 6 --budget 600 --jobs 1 --json";
    let (exit, out, err) = sim(&engine(), line);
    assert_eq!(exit, Exit::Clean);
    assert!(err.starts_with("30 read-at-once: swarm 0.0"), "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let ways = ["swarm", "uniform", "priorities", "novelty"];
    let explorers = told["bugs"][0]["explorers"].as_array().unwrap();
    assert_eq!(explorers.len(), ways.len());
    for (cell, way) in explorers.iter().zip(ways) {
        assert_eq!((&cell["explorer"], &cell["detected"]), (&json!(way), &json!(6)));
        // The second fails by itself, too.
        assert_eq!(cell["plans_median"], json!(3.0));
        assert!(cell["cpu_s_ci"][1].as_f64() >= cell["cpu_s_median"].as_f64());
    }
    for (overall, way) in told["overall"].as_array().unwrap().iter().zip(ways) {
        assert_eq!((&overall["explorer"], &overall["repeats"]), (&json!(way), &json!(6)));
    }
    assert_eq!(told["overall"][0]["ratio_median"], json!(1.0));
    let (_, out, _) = sim(&engine(), &line.replace("--json", "--markdown"));
    assert!(out.contains("\n| explorer | bugs | repeats | time, as a multiple |\n"), "{out}");
}
