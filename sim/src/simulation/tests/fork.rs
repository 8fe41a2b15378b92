//! Forks: the same run up to some event, and another one from there on.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::kv::KeyValue;
use crate::swarm;

/// The outcome of a run, and its rolling hash after each event.
fn digested(plan: &Plan, fork: Option<Fork>) -> (Outcome, Vec<u64>) {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&kept);
    let digest: Digest = Box::new(move |hash| sink.borrow_mut().push(hash));
    let mut options = RunOptions { digest: Some(digest), fork, ..RunOptions::default() };
    let outcome = run::<KeyValue>(plan, &mut options);
    let hashes = kept.take();
    assert_eq!(hashes.len() as u64, outcome.events);
    (outcome, hashes)
}

fn fork(after: u64, salt: u64) -> Option<Fork> {
    Some(Fork { after, salt })
}

#[test]
fn a_fork_is_the_run_up_to_its_event_and_another_one_from_there_on() {
    for seed in 0..6 {
        let plan = swarm::generate::<KeyValue>(seed);
        let (outcome, hashes) = digested(&plan, None);
        for after in [0, 1, hashes.len() / 3, hashes.len() / 2] {
            let mut ways = Vec::new();
            for salt in 1..4 {
                let (_, forked) = digested(&plan, fork(after as u64, salt));
                assert_eq!(forked[..after], hashes[..after], "seed {seed}, {after}");
                assert_ne!(forked.get(after..), hashes.get(after..), "seed {seed}, {after}");
                ways.push(forked);
            }
            ways.sort();
            ways.dedup();
            assert_eq!(ways.len(), 3, "seed {seed}, {after}: each salt is another way");
            let twice = [0; 2].map(|_| digested(&plan, fork(after as u64, 2)));
            assert_eq!(twice[0], twice[1], "seed {seed}, {after}");
        }
        assert_eq!(digested(&plan, fork(outcome.events, 1)).0, outcome);
    }
}

#[test]
fn a_fork_after_the_last_event_fails_as_its_run_did() {
    for plan in failing() {
        let failed = run::<KeyValue>(&plan, &mut RunOptions::default());
        assert!(failed.violation.is_some(), "{}", plan.name);
        for after in [failed.events, failed.events + 1, u64::MAX] {
            let options = &mut RunOptions { fork: fork(after, 1), ..RunOptions::default() };
            assert_eq!(run::<KeyValue>(&plan, options), failed, "{}", plan.name);
        }
    }
}

/// One that stalls, and one that lies, if this build can do that.
fn failing() -> Vec<Plan> {
    let lies = Plan { bug: Some("read-at-once".to_owned()), ..swarm::generate::<KeyValue>(124) };
    if cfg!(feature = "bugs") { vec![plan(1), lies] } else { vec![plan(1)] }
}

#[test]
fn nodes_that_run_draw_anew_too() {
    let plan = swarm::generate::<KeyValue>(1);
    let ends = [None, Some(1), Some(2)].map(|seed| {
        let mut simulation = after_events(&plan, 100);
        for slot in simulation.cluster.iter_mut() {
            if let (Some(seed), Some(driver)) = (seed, &mut slot.driver) {
                driver.reseed(seed);
            }
        }
        simulation.run(u64::MAX).trace_hash
    });
    assert!(ends[0] != ends[1] && ends[1] != ends[2] && ends[0] != ends[2], "{ends:?}");
}
