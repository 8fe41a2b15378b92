//! Shrinking against oracles that are quick and known, and against the simulation.

use std::ops::ControlFlow;

use proptest::prelude::*;
use stormkv::types::NodeId;

use super::*;
use crate::kv::KeyValue;
use crate::plan::{Call, Core, Fault, FaultRow, OpRow};
use crate::version;
use crate::{scenario, swarm};

fn broken(class: Class, checker: &'static str, message: &str) -> Option<Violation> {
    Some(Violation { class, checker, message: message.to_owned(), step: 50, at_ns: 9_000_000_000 })
}

/// A run that takes an event per row, and breaks as `judge` says.
fn pretend(plan: &Plan, judge: impl Fn(&Plan) -> Option<Violation>) -> Outcome {
    let events = 100 + (plan.ops.len() + plan.faults.len()) as u64;
    Outcome { violation: judge(plan), events, ..Outcome::default() }
}

fn quiet(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn shrunk(plan: &Plan, jobs: usize, judge: &(dyn Fn(&Plan) -> Option<Violation> + Sync)) -> Shrunk {
    let options = Options { jobs, seeds: 4, ..Options::default() };
    shrink_with::<KeyValue>(plan, &options, &|plan, _| pretend(plan, judge), &mut quiet)
        .expect("it fails")
}

fn row(at_ms: u64, fault: &str) -> FaultRow {
    let fault = fault.parse().expect("a fault");
    FaultRow { at_us: at_ms * 1000, until_us: Some(at_ms * 1000 + 123_456), fault }
}

fn op(at_ms: u64, client: u32, call: &str) -> OpRow {
    OpRow { at_us: at_ms * 1000, client, call: call.parse().expect("an operation") }
}

fn has(plan: &Plan, kind: &str) -> bool {
    plan.faults.iter().any(|row| row.fault.kind() == kind)
}

fn writes(plan: &Plan) -> usize {
    plan.ops.iter().filter(|row| row.call.op.kind() == "put").count()
}

/// Needs a pause, a partition and two writes.
fn needy(plan: &Plan) -> Option<Violation> {
    if has(plan, "pause") && has(plan, "partition") && writes(plan) >= 2 {
        return broken(Class::Safety, "read-index", "n1 told an old value\n\nand more below");
    }
    // Another bug shows when the partition is alone.
    (has(plan, "partition") && !has(plan, "pause"))
        .then(|| broken(Class::Safety, "one-vote", "n2 voted twice"))
        .flatten()
}

fn storm() -> Plan {
    let mut plan = swarm::generate::<KeyValue>(7);
    plan.cluster.nodes = 5;
    plan.clients.count = plan.clients.count.max(4);
    plan.faults.retain(|row| row.at_us < 3_000_000);
    plan.faults.extend([row(2_345, "pause leader"), row(1_234, "partition 1 2 | 3 4 5 c4")]);
    plan.ops.extend([op(800, 4, "put k17 v9*4096 @5"), op(900, 2, "put k3 v10")]);
    plan.check().expect("a plan");
    plan
}

#[test]
fn what_is_left_is_what_the_failure_needs_and_says_where_it_comes_from() {
    let plan = storm();
    let result = shrunk(&plan, 1, &needy);
    assert!(result.minimal && result.adopted > 10 && result.tried > result.adopted);
    assert_eq!(result.events_before, 100 + (plan.ops.len() + plan.faults.len()) as u64);
    assert_eq!(result.outcome, pretend(&result.plan, needy));
    let mut expected = Plan::new("read-index-seed-7", 0);
    expected.story = "n1 told an old value".to_owned();
    let rev = version::REVISION.to_owned();
    expected.found = Some(Found { seed: 7, rev, events_before: result.events_before });
    expected.expect.violation = Some("read-index".to_owned());
    let text = scenario::save(&result.plan);
    assert_eq!((result.plan.faults.len(), result.plan.ops.len()), (2, 2), "{text}");
    assert!(has(&result.plan, "partition") && has(&result.plan, "pause"), "{text}");
    assert!(result.plan.cluster.nodes <= 2, "a partition needs two members\n{text}");
    let bare = Plan {
        cluster: result.plan.cluster.clone(),
        network: result.plan.network.clone(),
        clients: result.plan.clients.clone(),
        faults: result.plan.faults.clone(),
        ops: result.plan.ops.clone(),
        ..expected
    };
    assert_eq!(result.plan, bare, "every other setting has its default");
    assert_eq!(
        scenario::parse::<KeyValue>("shrunk.toml", &text),
        Ok(result.plan.clone()),
        "{text}"
    );
    assert!(text.lines().count() < 30, "{text}");
    let slips: Vec<&str> = result.slips.iter().map(|slip| slip.violation.checker).collect();
    assert_eq!(slips, ["one-vote"]);
    let slip = &result.slips[0].plan;
    assert_eq!(slip.expect.violation.as_deref(), Some("one-vote"));
    assert_eq!(needy(slip).expect("it fails").checker, "one-vote");
}

#[test]
fn the_result_does_not_depend_on_the_number_of_jobs() {
    let one = shrunk(&storm(), 1, &needy);
    for jobs in [2, 5] {
        assert_eq!(shrunk(&storm(), jobs, &needy), one);
    }
}

#[test]
fn a_plan_keeps_its_bug_and_the_origin_that_it_names() {
    let mut plan = storm();
    plan.bug = Some("read-at-once".to_owned());
    let found = Found { seed: 99, rev: "abc".to_owned(), events_before: 12_345 };
    plan.found = Some(found.clone());
    let needs_the_bug = |plan: &Plan| plan.bug.as_ref().and(needy(plan));
    let result = shrunk(&plan, 1, &needs_the_bug);
    assert_eq!(result.plan.bug, plan.bug);
    assert_eq!((result.plan.found, result.events_before), (Some(found), 12_345));
    assert_eq!(result.plan.name, "read-index-seed-99");
}

#[test]
fn a_plan_that_does_not_fail_is_refused() {
    let result = shrink_with::<KeyValue>(
        &storm(),
        &Options::default(),
        &|plan, _| pretend(plan, |_| None),
        &mut quiet,
    );
    assert_eq!(result, Err(DoesNotFail));
    assert_eq!(DoesNotFail.to_string(), "does not fail: nothing to shrink");
}

#[test]
fn whoever_stops_the_search_gets_what_there_is_and_can_go_on() {
    let mut left = 30;
    let mut bests = Vec::new();
    let mut report = |progress: &Progress<'_>| {
        if progress.improved {
            bests.push(progress.best.clone());
        }
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let run: Run<'_> = &|plan, _| pretend(plan, needy);
    let part = shrink_with::<KeyValue>(&storm(), &Options::default(), run, &mut report).unwrap();
    assert!(!part.minimal);
    assert_eq!(bests.last(), Some(&part.plan), "the last one reported is what is returned");
    assert!(bests.iter().all(|best| needy(best).is_some()));
    let whole = shrunk(&part.plan, 1, &needy);
    assert!(whole.minimal && whole.plan.faults.len() == 2);
    assert_eq!(whole.events_before, part.events_before, "it is still told what there was at first");
}

#[test]
fn a_panic_is_known_by_its_place() {
    let run: Run<'_> = &|plan, mut options| {
        let mut digest = options.digest.take().expect("the search counts");
        (0..7).for_each(&mut digest);
        assert!(!has(plan, "pause"), "one place: {} rows", plan.faults.len());
        assert!(!has(plan, "partition"), "another place");
        Outcome { events: 7, ..Outcome::default() }
    };
    let result = shrink_with::<KeyValue>(&storm(), &Options::default(), run, &mut quiet).unwrap();
    assert_eq!(result.plan.faults.len(), 1);
    assert!(has(&result.plan, "pause"));
    assert_eq!(result.outcome.events, 8, "it panicked in the event after the seventh");
    assert!(result.slips.iter().any(|slip| slip.violation.message.contains("another place")));
}

#[test]
fn the_bound_of_a_stall_is_not_touched() {
    let mut plan = storm();
    plan.end.bound_us = 30_000_000;
    let stalls = |plan: &Plan| {
        let late = plan.end.bound_us < 20_000_000 || has(plan, "pause");
        late.then(|| broken(Class::Liveness, "convergence", "for 30 s nobody leads")).flatten()
    };
    let result = shrunk(&plan, 1, &stalls);
    assert_eq!(result.plan.end.bound_us, 30_000_000);
    assert!(has(&result.plan, "pause"));
    // For another failure it is a setting like any other, and a stall within it is no finding.
    let breaks = |plan: &Plan| match has(plan, "pause") {
        true => broken(Class::Safety, "one-vote", "n2 voted twice"),
        false => stalls(plan),
    };
    let result = shrunk(&plan, 1, &breaks);
    assert_eq!(result.plan.end.bound_us, 10_000_000);
    assert!(result.slips.is_empty(), "{:?}", result.slips);
}

#[test]
fn fewer_nodes_keep_the_numbers_without_gaps() {
    let mut plan = Plan::new("membership", 1);
    plan.cluster.nodes = 4;
    plan.cluster.learners = 1;
    plan.faults = vec![
        row(100, "partition 1 2 | 3 5 c1"),
        row(200, "crash 2"),
        row(300, "bridge 3 : 1 2 | 4"),
        row(400, "ring 1 2 3 4"),
        row(500, "lag 2 -> all delay_ms=5"),
    ];
    plan.ops =
        vec![op(100, 0, "replace 2 6 @5"), op(200, 0, "change +7 -3"), op(300, 1, "put k v @2")];
    plan.end.core = Core::Only([1, 2, 6].map(NodeId).into());
    plan.check().expect("a plan");
    let candidates = cast::fewer_nodes(&plan);
    assert!(candidates.len() > 20);
    for candidate in &candidates {
        assert!(candidate.cluster.nodes + candidate.cluster.learners < 5);
        let repaired = rename::repaired(candidate);
        assert_eq!(repaired.check(), Ok(()), "{}", repaired.to_toml());
    }
    let texts =
        |plan: &Plan| plan.faults.iter().map(|row| row.fault.to_string()).collect::<Vec<String>>();
    let left = ["partition 1 | 2 4 c1", "bridge 2 : 1 | 3"];
    let without_2 = candidates.iter().find(|candidate| texts(candidate) == left);
    let without_2 = without_2.expect("node 2 can go with all that is about it; 3 to 5 move down");
    let ops: Vec<String> = without_2.ops.iter().map(|row| row.call.to_string()).collect();
    assert_eq!(ops, ["change +6 -2", "put k v"]);
    assert_eq!(without_2.end.core, Core::Only([1, 5].map(NodeId).into()));
}

#[test]
fn what_fails_without_its_bug_does_not_count() {
    let mut plan = storm();
    plan.bug = Some("read-at-once".to_owned());
    // With fewer than three rows it fails with or without the bug.
    let judge = |plan: &Plan| {
        let rows = plan.ops.len() + plan.faults.len();
        let fails = rows < 3 || (plan.bug.is_some() && has(plan, "pause"));
        fails.then(|| broken(Class::Safety, "read-index", "n1 told an old value")).flatten()
    };
    let result = shrunk(&plan, 1, &judge);
    assert_eq!(result.plan.faults.len() + result.plan.ops.len(), 3);
    assert!(has(&result.plan, "pause"));
}

#[test]
fn no_stall_is_made_of_timeouts_that_are_too_short() {
    let mut plan = storm();
    plan.network.latency.min_us = 20_000;
    plan.cluster.election_ticks = [100, 200];
    let judge = |plan: &Plan| {
        let hasty = plan.cluster.election_ticks[0] < 50 && plan.network.latency.min_us > 10_000;
        let stalls = hasty || has(plan, "pause");
        stalls.then(|| broken(Class::Liveness, "convergence", "nobody leads")).flatten()
    };
    assert!(has(&shrunk(&plan, 1, &judge).plan, "pause"));
}

#[test]
fn each_part_of_the_weight_counts() {
    let lighter = |change: &dyn Fn(&mut Plan)| {
        let mut heavy =
            Plan { seed: 0, ops: storm().ops, faults: storm().faults, ..Plan::new("", 0) };
        heavy.network.latency.mean_extra_us = 0;
        let light = heavy.clone();
        change(&mut heavy);
        assert!(
            Weight::of::<KeyValue>(&light) < Weight::of::<KeyValue>(&heavy),
            "{}",
            heavy.to_toml()
        );
    };
    lighter(&|plan| plan.network.drop += 0.5);
    lighter(&|plan| plan.network.latency.mean_extra_us += 1);
    lighter(&|plan| plan.faults.push(row(9_999, "crash 1")));
    lighter(&|plan| plan.cluster.nodes += 1);
    lighter(&|plan| plan.cluster.keep_entries += 7);
    lighter(&|plan| plan.ops[0].call = "put other words*9999 @1".parse::<Call>().unwrap());
    lighter(&|plan| plan.end.heal_at_us = Some(1_234_567));
    lighter(&|plan| plan.seed += 1_000_000);
    let told = Plan { story: "long".repeat(99), found: Some(Found::default()), ..storm() };
    assert_eq!(
        Weight::of::<KeyValue>(&told),
        Weight::of::<KeyValue>(&storm()),
        "what is said about a plan weighs nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_single_row_can_be_taken_out_of_a_result(seed in 0_u64..1_000, salt: u64, share in 5_u64..60) {
        // Fails by a hash of the kinds of its rows, as far as there are some: not monotone at all.
        let start = swarm::generate::<KeyValue>(seed);
        let rows = |plan: &Plan| plan.ops.len() + plan.faults.len();
        prop_assume!(rows(&start) > 0);
        let whole = rows(&start);
        let judge = |plan: &Plan| {
            let kinds = plan.faults.iter().map(|row| row.fault.kind());
            let kinds = kinds.chain(plan.ops.iter().map(|row| row.call.op.kind()));
            let hash = kinds.flat_map(str::bytes).fold(salt, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3).rotate_left(17)
            });
            (rows(plan) == whole || (rows(plan) > 2 && hash % 100 < share))
                .then(|| broken(Class::Safety, "hash", "it is what it is"))
                .flatten()
        };
        let result = shrunk(&start, 1, &judge);
        prop_assert!(result.minimal);
        prop_assert!(judge(&result.plan).is_some());
        prop_assert_eq!(result.plan.check(), Ok(()));
        for at in 0..result.plan.faults.len() {
            let mut less = result.plan.clone();
            less.faults.remove(at);
            let gone = less.check().is_err() || judge(&less).is_none();
            prop_assert!(gone, "fault {} of {}", at, less.to_toml());
        }
        for at in 0..result.plan.ops.len() {
            let mut less = result.plan.clone();
            less.ops.remove(at);
            let gone = less.check().is_err() || judge(&less).is_none();
            prop_assert!(gone, "operation {} of {}", at, less.to_toml());
        }
    }
}

/// A failure of the real world: the leader's loss costs it entries that nobody had.
fn truncates(plan: &Plan, mut options: RunOptions) -> Outcome {
    let mut outcome = simulation::run::<KeyValue>(plan, &mut options);
    let reached = |name: &str| outcome.waypoints.contains_key(name);
    if reached("entries-truncated") && reached("crash-of-leader") {
        outcome.violation = broken(Class::Safety, "pretended", "a leader lost what it had");
    }
    outcome
}

#[test]
fn a_story_of_the_real_world_gets_short() {
    let truncating = |seed: &u64| {
        let outcome = truncates(&swarm::generate::<KeyValue>(*seed), RunOptions::default());
        outcome.violation.is_some_and(|violation| violation.checker == "pretended")
    };
    let seed = (0..200).find(truncating).expect("that is no rare story");
    let plan = swarm::generate::<KeyValue>(seed);
    let options = Options { jobs: 2, seeds: 8, ..Options::default() };
    let result =
        shrink_with::<KeyValue>(&plan, &options, &truncates, &mut quiet).expect("it fails");
    let text = scenario::save(&result.plan);
    assert!(result.minimal);
    assert!(result.plan.faults.len() + result.plan.ops.len() <= 12, "{text}");
    assert!(result.plan.faults.iter().any(|row| !matches!(row.fault, Fault::Link(_))), "{text}");
    let again = truncates(&result.plan, RunOptions::default());
    assert_eq!(again, result.outcome, "{text}");
}
