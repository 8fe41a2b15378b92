//! The ledger in the storm: the right one stands, the leaky one is found and shrunk.

use bank::{Accounts, Ledger};
use stormkv::machine::StateMachine;
use stormkv_sim::checker::black_box::{self, Found, Known, Operation};
use stormkv_sim::outcome::Outcome;
use stormkv_sim::plan::Plan;
use stormkv_sim::service::{Request, Service};
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
    let leaky = Accounts::<true>::default();
    let restored = Accounts::<true>::restore(&mut leaky.snapshot()).expect("whole chunks");
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
        black_box::search(&search, operations, 1_000)
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
