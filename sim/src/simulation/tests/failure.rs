//! What is recorded for a page, and that recording changes nothing.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::checker::Check;
use crate::kv::KeyValue;
use crate::simulation::{Choice, FailureReport};

/// Runs a plan and keeps what is recorded, if that is anything.
fn record(plan: &Plan) -> (Outcome, Option<FailureReport>) {
    let kept = Rc::new(RefCell::new(None));
    let sink = Rc::clone(&kept);
    let record: Record = Box::new(move |recorded| *sink.borrow_mut() = Some(recorded));
    let outcome =
        run::<KeyValue>(plan, &mut RunOptions { record: Some(record), ..RunOptions::default() });
    (outcome, kept.take())
}

#[test]
fn a_run_that_fails_is_recorded_and_is_the_same_run() {
    let plan = plan(1);
    let (outcome, recorded) = record(&plan);
    assert_eq!(
        outcome,
        run::<KeyValue>(&plan, &mut RunOptions::default()),
        "recording changes nothing"
    );
    assert_eq!(verdict(&outcome), Some((Class::Liveness, "convergence")));
    let FailureReport { choice, operations, faults, nodes } = recorded.expect("it failed");
    assert_eq!(choice, Choice::Around { open: 1, told: 1 });
    let [put] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!((put.client.as_str(), put.what.as_str(), put.return_ns), ("c1", "put a 1", None));
    assert_eq!((put.call_ns, put.answer.starts_with("open, asks n")), (500_000_000, true));
    let healed_ns = outcome.violation.map(|violation| violation.at_ns).unwrap_or_default();
    let told: Vec<_> = faults.iter().map(|fault| (fault.what.as_str(), fault.at_ns)).collect();
    assert_eq!(told, [("crash 1", 400_000_000), ("crash 2", 400_000_000)]);
    assert!(faults.iter().all(|fault| fault.end_ns.is_some_and(|end_ns| end_ns <= healed_ns)));
    assert_eq!(nodes.iter().map(|node| node.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    for node in &nodes {
        assert_eq!((node.condition.as_str(), node.state.is_some()), ("up", true));
        let texts: Vec<&str> = node.lines.iter().map(|line| line.text.as_str()).collect();
        let mere = |text: &&str| text.contains("tick") || text.contains("Heartbeat");
        assert!(!texts.is_empty() && !texts.iter().any(mere), "{texts:?}");
        assert!(node.lines.is_sorted_by_key(|line| line.step), "{texts:?}");
    }
    let started = |node: &super::NodeRecord| node.lines.iter().any(|l| l.text.ends_with("starts"));
    assert!(started(&nodes[0]) && started(&nodes[1]), "{nodes:#?}");
}

#[test]
fn a_clean_run_is_not_recorded() {
    let (outcome, recorded) = record(&plan(10_000));
    assert_eq!((verdict(&outcome), recorded), (None, None));
}

#[test]
fn a_proof_is_told_with_what_its_client_asked_and_heard() {
    let plan = plan(10_000);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    simulation.observers.record_failure();
    simulation.drive(u64::MAX);
    let broken = Broken::new(Check::Response, "a lie".to_owned());
    simulation.fail(Class::Safety, broken.shown_by([0]));
    let recorded = simulation.take_record().expect("it was recorded");
    assert_eq!(recorded.choice, Choice::Proof);
    let [put] = recorded.operations.as_slice() else { panic!("{:?}", recorded.operations) };
    assert!(put.answer.starts_with("ok, entry "), "{}", put.answer);
    let last = put.attempts.last().map(|line| line.text.as_str()).unwrap_or_default();
    assert!(last.contains(" -> c1 applied at "), "{:?}", put.attempts);
    let lines = recorded.nodes.iter().map(|node| node.lines.len());
    assert_eq!(lines.sum::<usize>(), 0, "what happened last has nothing to do with it");
}

#[test]
fn whom_the_violation_is_about_comes_first() {
    let plan = plan(10_000);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    simulation.observers.record_failure();
    pass_until(&mut simulation, 450);
    simulation.fail(Class::Safety, Broken::new(Check::Content, "a lie".to_owned()).at(NodeId(3)));
    let recorded = simulation.take_record().expect("it was recorded");
    assert_eq!(recorded.nodes.iter().map(|node| node.id.0).collect::<Vec<_>>(), [3, 1, 2]);
    let down = &recorded.nodes[1];
    assert_eq!(down.condition, "down");
    assert!(down.state.is_some_and(|state| state.term > 0), "its last state is known: {down:?}");
    assert!(down.lines.last().is_some_and(|line| line.text == "n1 is down"), "{down:?}");
}
