//! Shows that the world's own checks can fail: the same run is silent before each lie.

use stormkv::env::FileName;
use stormkv::types::NodeId;

use super::*;
use crate::disk::Crash;
use crate::scenario;

const N1: NodeId = NodeId(1);

/// A majority is down until all is healed, while a client waits for its answer.
fn plan(bound_ms: u64) -> Plan {
    let text = format!(
        r#"
schema = 1
name = "majority-down"
seed = 1

[end]
bound_ms = {bound_ms}

[[op]]
at_ms = 500
client = 1
do = "put a 1"

[[fault]]
at_ms = 400
do = "crash 1"

[[fault]]
at_ms = 400
do = "crash 2"
"#
    );
    scenario::parse("majority-down.toml", &text).expect("a scenario")
}

/// Class and name of the checker that spoke.
fn verdict(outcome: &Outcome) -> Option<(Class, &'static str)> {
    outcome.violation.as_ref().map(|violation| (violation.class, violation.checker))
}

/// The world after so many events.
fn after_events(plan: &Plan, steps: u64) -> World<'_> {
    let mut world = World::new(plan);
    assert_eq!(verdict(&world.run(steps)), None);
    world
}

#[test]
fn a_cluster_that_needs_longer_than_the_bound_breaks_convergence() {
    let options = RunOptions::default;
    let calm = run(&plan(10_000), &mut options());
    assert_eq!(verdict(&calm), None);
    assert_eq!(calm.checks["convergence"], 1);
    let late = run(&plan(1), &mut options());
    assert_eq!(verdict(&late), Some((Class::Liveness, "convergence")));
}

#[test]
fn a_node_that_panics_is_reported_under_its_name() {
    let plan = plan(10_000);
    let mut world = after_events(&plan, 100);
    world.with(N1, None, |_| panic!("a bug of the node"));
    let violation = world.violation.expect("it was caught");
    assert_eq!((violation.class, violation.checker), (Class::Safety, "panic"));
    assert!(violation.message.starts_with("n1 panicked at "), "{}", violation.message);
    assert!(violation.message.ends_with(": a bug of the node"), "{}", violation.message);
}

#[test]
fn a_node_that_refuses_its_disk_breaks_recovery() {
    let plan = plan(10_000);
    for damaged in [false, true] {
        let mut world = after_events(&plan, 300);
        let slot = world.slot(N1).expect("it is there");
        if damaged {
            // In the header, which is synced before anything else is written.
            assert!(slot.disk.corrupt(FileName::Segment(1), 30, 0));
        }
        world.crash(N1, Crash::Kill, 0);
        world.start(N1);
        let expected = damaged.then_some((Class::Safety, "recovery"));
        assert_eq!(verdict(&world.outcome()), expected);
    }
}
