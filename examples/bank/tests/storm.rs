//! The ledger in the storm: the right one stands, the leaky one is found and shrunk.

use std::sync::{Arc, Mutex};

use bank::{Accounts, Book, Ledger};
use stormkv::machine::StateMachine;
use stormkv_sim::checker::black_box::{self, Found, Known, Operation};
use stormkv_sim::outcome::Outcome;
use stormkv_sim::plan::Plan;
use stormkv_sim::service::{Model, Request, Service};
use stormkv_sim::shrink::{Options, shrink};
use stormkv_sim::simulation::{self, RunOptions};
use stormkv_sim::{scenario, swarm, testing};

fn run<S: Service>(plan: &Plan) -> Outcome {
    simulation::run::<S>(plan, &mut RunOptions::default())
}

#[test]
fn ledger_survives_the_swarm() {
    testing::swarm::<Ledger>(300);
}

#[test]
fn ledger_survives_days() {
    let window = |number| swarm::soak_window::<Ledger>(1, number);
    let soaked = simulation::soak::<Ledger>(4, &window, &mut |_| ());
    assert_eq!((soaked.outcome.violation, soaked.windows), (None, 4));
}

#[test]
fn leaky_ledger_is_found_and_shrunk() {
    let plans = (0..100).map(swarm::generate::<Ledger<true>>);
    let plan = plans
        .map(|plan| (run::<Ledger<true>>(&plan).violation, plan))
        .find_map(|(violation, plan)| violation.map(|_| plan))
        .expect("one of a hundred seeds finds it");
    let mut go_on = |_: &stormkv_sim::shrink::Progress<'_>| std::ops::ControlFlow::Continue(());
    let shrunk = shrink::<Ledger<true>>(&plan, &Options::default(), &mut go_on).expect("it fails");
    let text = scenario::save(&shrunk.plan);
    assert!(shrunk.plan.ops.len() <= 3 && shrunk.plan.faults.len() <= 2, "{text}");
    // The file says what happened in the words of the ledger, and is a scenario of it.
    let again = scenario::parse::<Ledger<true>>("leak.toml", &text).expect("a scenario");
    let violation = run::<Ledger<true>>(&again).violation.expect("it fails again");
    assert_eq!(Some(violation.checker), again.expect.violation.as_deref(), "{}", violation.message);
    assert_eq!(run::<Ledger>(&again).violation, None, "without the leak it is clean");
}

#[test]
fn invariant_notices_what_the_leak_has_lost() {
    let leaky = Accounts::<true>::new(&());
    let restored = Accounts::<true>::restore(&(), &mut leaky.snapshot()).expect("whole chunks");
    let invariant = Ledger::<true>::INVARIANT.expect("a ledger has one");
    assert_eq!(invariant(&leaky, &mut |_| ()), Ok(()));
    assert_eq!(
        invariant(&restored, &mut |_| ()),
        Err("holds 600 on all accounts, not 800".to_owned())
    );
}

#[test]
fn receipts_and_marks_exercised() {
    let outcomes: Vec<Outcome> =
        (0..20).map(|seed| run::<Ledger>(&swarm::generate::<Ledger>(seed))).collect();
    let checked: u64 = outcomes.iter().map(|outcome| outcome.checks["receipts"]).sum();
    assert!(checked > 100, "{checked}");
    let searched = |check| outcomes.iter().map(|outcome| outcome.checks[check]).sum::<u64>();
    assert!(searched("linearizability-black-box") > 0);
    for mark in Ledger::<false>::MARKS {
        assert!(outcomes.iter().any(|outcome| outcome.waypoints.contains_key(mark)), "{mark}");
    }
}

#[test]
fn operations_are_checked_when_a_scenario_is_read() {
    let text = |words: &str| {
        format!("schema = 1\nname = \"x\"\nop = [{{ at_ms = 1, client = 1, do = \"{words}\" }}]\n")
    };
    let error = |words: &str| {
        scenario::parse::<Ledger>("x.toml", &text(words)).expect_err("it is wrong").to_string()
    };
    assert_eq!(
        error("transfer 1 9 5"),
        "x.toml:3: `9` is not an account in `transfer 1 9 5`; use 0 to 7"
    );
    assert_eq!(
        error("transfre 1 2 5"),
        "x.toml:3: unknown operation `transfre`; did you mean `transfer`?"
    );
    assert_eq!(
        error("transfer 1 2 5 !stale"),
        "x.toml:3: `transfer` cannot be asked for like that in `transfer 1 2 5 !stale`; write \
         `transfer FROM TO AMOUNT`"
    );
    let plan = scenario::parse::<Ledger>("x.toml", &text("  total   !stale @2")).expect("right");
    assert_eq!(plan.ops[0].call.to_string(), "total !stale @2");
}

/// The leader is migrated: it pauses from 1 s to 2 s.
const MIGRATED: &str = "\
schema = 1
name = \"migrated\"

[expect]
no_skipped_faults = true

[end]
heal_at_ms = 4000

[[fault]]
at_ms = 1000
until_ms = 2000
do = \"migrate leader 300ms\"
";

fn trace(plan: &Plan) -> (Outcome, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let trace: simulation::Sink = Box::new(move |line: &str| {
        sink.lock().expect("no test panics here").push(line.trim().to_owned());
    });
    let mut options = RunOptions { trace: Some(trace), ..RunOptions::default() };
    let outcome = simulation::run::<Ledger>(plan, &mut options);
    drop(options);
    let lines = lines.lock().expect("no test panics here").clone();
    (outcome, lines)
}

#[test]
fn migration_pauses_node_and_breaks_its_connections() {
    let plan = scenario::parse::<Ledger>("migrated.toml", MIGRATED).expect("a scenario");
    let (outcome, lines) = trace(&plan);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.faults["migrate"], 1);
    // Only the end of the migration breaks connections.
    assert_eq!(outcome.waypoints.get("connection-reset"), Some(&1));
    let paused = |lines: &[String]| -> Vec<f64> {
        let lines = lines.iter().filter(|line| line.contains("is paused"));
        // Behind the number of the step.
        let time = |line: &String| line.split_whitespace().nth(1).and_then(|ms| ms.parse().ok());
        lines.map(|line| time(line).expect("a time in ms")).collect()
    };
    let times = paused(&lines);
    assert!(
        !times.is_empty() && times.iter().all(|ms| (1000.0..=2000.0).contains(ms)),
        "{times:?}"
    );
    // The clock matters, too.
    let mut shorter = plan.clone();
    shorter.faults[0].fault = "migrate leader 1ms".parse().expect("a fault");
    assert_ne!(trace(&shorter).0.trace_hash, outcome.trace_hash);
    // A paused node that nothing resumes would rest until the run heals, at 4 s.
    let mut unmended = plan.clone();
    unmended.faults[0].until_us = None;
    let (unmended, lines) = trace(&unmended);
    assert_eq!(unmended.waypoints.get("connection-reset"), None);
    assert!(paused(&lines).iter().any(|ms| *ms > 2000.0), "{lines:?}");
}

#[test]
fn migrations_drawn_by_the_swarm() {
    let plans: Vec<Plan> = (0..200).map(swarm::generate::<Ledger>).collect();
    let rows = plans.iter().flat_map(|plan| &plan.faults);
    let migrations = rows.filter(|row| row.fault.kind() == "migrate").count();
    assert!((10..300).contains(&migrations), "{migrations}");
    // Each plan can be saved as a scenario and read again.
    for plan in &plans {
        let text = scenario::save(plan);
        assert_eq!(scenario::parse::<Ledger>("x.toml", &text).as_ref(), Ok(plan), "{text}");
    }
}

#[test]
fn faults_are_checked_when_a_scenario_is_read() {
    let error = |words: &str| {
        let text =
            format!("schema = 1\nname = \"x\"\nfault = [{{ at_ms = 1, do = \"{words}\" }}]\n");
        scenario::parse::<Ledger>("x.toml", &text).expect_err("it is wrong").to_string()
    };
    assert_eq!(
        error("migrate 1 0ms"),
        "x.toml:3: `0ms` is not a time (1ms to 10000ms) in `migrate 1 0ms`; write `migrate \
         N|leader|same Tms`"
    );
    assert_eq!(error("migrat 1 5ms"), "x.toml:3: unknown fault `migrat`; did you mean `migrate`?");
    assert_eq!(
        error("migrate 9 5ms"),
        "x.toml:3: there is no node 9; use one of 1 2 3 (raise \
         cluster.nodes, or add the node by an operation)"
    );
}

/// The hash of the simulator's sources does not cover the ledger.
#[test]
fn campaign_resumed_by_the_same_program_only() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("campaign");
    let _ = std::fs::remove_dir_all(&folder);
    let run = || {
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_bank"))
            .args(["run", "--seeds", "2", "--out"])
            .arg(&folder)
            .output()
            .expect("the program starts");
        (program.status.code(), String::from_utf8(program.stderr).expect("text"))
    };
    assert_eq!(run().0, Some(0));
    assert_eq!(run().0, Some(0), "resumed");
    let file = folder.join("seeds-1-of-1.jsonl");
    let text = std::fs::read_to_string(&file).expect("the campaign is kept");
    let (before, rest) = text.split_once("\"program\":\"").expect("a hash of the program");
    std::fs::write(&file, format!("{before}\"program\":\"{}{}", "0".repeat(16), &rest[16..]))
        .expect("it can be written");
    let (code, message) = run();
    assert_eq!(code, Some(64));
    assert!(
        message.contains("with the program 0000000000000000, not with the program"),
        "{message}"
    );
}

/// The search alone, without a log: the second transfer needs what the first has brought.
#[test]
fn search_notices_a_wrong_order() {
    let ask = |call, text: &'static str, response: &'static str| Operation {
        call,
        ret: Some(call + 1),
        request: if text.starts_with("transfer") {
            Request::Command(text.into())
        } else {
            Request::Query(text.into())
        },
        known: Known::Response(response.into()),
    };
    let find = |operations: &[Operation]| {
        let search = Ledger::<false>::SEARCH.expect("a ledger has one");
        black_box::search(&search, Book::new(&()), operations, 1_000)
    };
    let mut operations = vec![
        ask(1, "transfer 0 1 100", "done: 0 left"),
        ask(3, "transfer 1 2 150", "done: 50 left"),
        ask(5, "balance 0", "0"),
        ask(7, "total", "800"),
    ];
    assert_eq!(find(&operations), Found::Linearizable);
    // The transfer that brings the money is called after the one that needs it has returned.
    operations.swap(0, 1);
    (operations[0].call, operations[0].ret) = (1, Some(2));
    (operations[1].call, operations[1].ret) = (3, Some(4));
    assert_eq!(find(&operations), Found::Violation { longest: vec![], stuck: 0 });
    // If both are under way at once, there is an order.
    operations[0].ret = Some(4);
    assert_eq!(find(&operations), Found::Linearizable);
}
