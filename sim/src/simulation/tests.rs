//! Shows that the simulation's own checks can fail: the same run is silent before each lie.

mod liveness;

use stormkv::env::{Completion, DiskQueue, FileName};
use stormkv::error::{DiskError, DiskErrorKind};
use stormkv::types::NodeId;
use stormkv::wire::Message;

use super::*;
use crate::disk::Crash;
use crate::kv::KeyValue;
use crate::scenario;

mod checkers;
mod clock;
mod failure;
mod fork;
mod process;
mod recorder;

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
    scenario::parse::<KeyValue>("majority-down.toml", &text).expect("a scenario")
}

/// Class and name of the checker that spoke.
fn verdict(outcome: &Outcome) -> Option<(Class, &'static str)> {
    outcome.violation.as_ref().map(|violation| (violation.class, violation.checker))
}

/// The simulation after so many events.
fn after_events(plan: &Plan, steps: u64) -> Simulation<'_, KeyValue> {
    let mut simulation = Simulation::<KeyValue>::new(plan);
    assert_eq!(verdict(&simulation.run(steps)), None);
    simulation
}

/// Lets everything happen that is due up to this moment; nothing may break.
fn pass_until(simulation: &mut Simulation<'_, KeyValue>, until_ms: u64) {
    while simulation.kernel.next_at_ns().is_some_and(|at_ns| at_ns <= until_ms * 1_000_000) {
        let event = simulation.kernel.next().expect("there is one");
        simulation.handle(event);
        assert_eq!(simulation.violation, None);
    }
}

#[test]
fn a_cluster_that_needs_longer_than_the_bound_breaks_convergence() {
    let options = RunOptions::default;
    let calm = run::<KeyValue>(&plan(10_000), &mut options());
    assert_eq!(verdict(&calm), None);
    assert_eq!(calm.checks["convergence"], 1);
    let late = run::<KeyValue>(&plan(1), &mut options());
    assert_eq!(verdict(&late), Some((Class::Liveness, "convergence")));
}

#[test]
fn a_node_that_panics_is_reported_under_its_name() {
    let plan = plan(10_000);
    let mut simulation = after_events(&plan, 100);
    simulation.with(N1, |_| panic!("a bug of the node"));
    let violation = simulation.violation.expect("it was caught");
    assert_eq!((violation.class, violation.checker), (Class::Safety, "panic"));
    let start = "n1, a follower in term 2, panicked: a bug of the node (at ";
    assert!(violation.message.starts_with(start), "{}", violation.message);
    let place = crate::shrink::Fingerprint::of(&violation).place.expect("it has one");
    assert!(place.contains("tests.rs:"), "panics are told apart by their places: {place}");
}

#[test]
fn a_node_that_stops_without_a_reason_breaks_fail_stop() {
    let plan = plan(10_000);
    let (mut simulation, ticket) = (1..100)
        .find_map(|events| {
            let mut simulation = after_events(&plan, events);
            let ticket =
                simulation.cluster.get_mut(N1)?.batches[DiskQueue::Log as usize].as_ref()?.ticket;
            Some((simulation, ticket))
        })
        .expect("it writes");
    simulation.with(N1, |driver| {
        let error = DiskError {
            operation: "sync",
            file: None,
            kind: DiskErrorKind::Other,
            reason: "made up".into(),
        };
        driver.complete(Completion::Done(DiskQueue::Log, ticket, Err(error)));
    });
    let violation = simulation.violation.expect("nothing explains the error");
    assert_eq!((violation.class, violation.checker), (Class::Safety, "fail-stop"));
    assert!(violation.message.starts_with("n1 stopped: "), "{}", violation.message);
    assert!(violation.message.contains("made up"), "{}", violation.message);
}

/// The only voter, which nobody can give anything back.
const ALONE: &str = r#"
schema = 1
name = "alone"
seed = 1
cluster.nodes = 1

[[op]]
at_ms = 500
client = 1
do = "put a 1"
"#;

/// What comes of a node whose disk was damaged without anybody being told.
fn after_secret_damage(plan: &Plan) -> Option<(Class, &'static str)> {
    let mut simulation = after_events(plan, 300);
    let slot = simulation.cluster.get_mut(N1).expect("it is there");
    // In the header, which is synced before anything else is written.
    assert!(slot.disk.decay(FileName::Segment(1), 30, &[0xff]));
    simulation.crash(N1, Crash::Kill, 0);
    simulation.start(N1);
    verdict(&simulation.outcome())
}

#[test]
fn a_node_that_refuses_its_disk_breaks_recovery() {
    let plan = scenario::parse::<KeyValue>("alone.toml", ALONE).expect("a scenario");
    assert_eq!(after_secret_damage(&plan), Some((Class::Safety, "recovery")));
}

#[test]
fn a_node_must_not_imagine_damage() {
    let plan = plan(10_000);
    let mut simulation = after_events(&plan, 300);
    simulation.crash(N1, Crash::Kill, 0);
    simulation.start(N1);
    assert_eq!(verdict(&simulation.outcome()), None);
    assert_eq!(after_secret_damage(&plan), Some((Class::Safety, "damage-imagined")));
}

/// So many of three logs rot, one after the other; then the power goes for all.
fn rotten(logs: u32, beyond_quorum: bool) -> Plan {
    let mut text = format!(
        r#"
schema = 1
name = "rotten"
seed = 1
end.beyond_quorum = {beyond_quorum}

op = [
    {{ at_ms = 500, client = 1, do = "put a 1" }},
    {{ at_ms = 520, client = 2, do = "put b 1" }},
    {{ at_ms = 540, client = 1, do = "put c 1" }},
    {{ at_ms = 1500, client = 1, do = "scan *" }},
]
fault = [
    {{ at_ms = 1010, until_ms = 1100, do = "crash all" }},
"#
    );
    for node in 1..=logs {
        text.push_str(&format!("    {{ at_ms = 90{node}, do = \"rot {node} log garbage\" }},\n"));
    }
    text.push_str("]\n");
    scenario::parse::<KeyValue>("rotten.toml", &text).expect("a scenario")
}

#[test]
fn the_atlas_keeps_damage_within_a_minority() {
    let outcome = run::<KeyValue>(&rotten(2, false), &mut RunOptions::default());
    assert_eq!(verdict(&outcome), None);
    assert_eq!((outcome.faults["rot"], outcome.faults["forbidden-by-atlas"]), (1, 1));
    assert_eq!(outcome.waypoints["corrupt-entry-refilled"], 1);
    assert_eq!((outcome.checks["damage-noticed"], outcome.checks["damage-repaired"]), (1, 1));
}

#[test]
fn beyond_a_quorum_the_cluster_may_recover_or_stop_but_not_lie() {
    let outcome = run::<KeyValue>(&rotten(2, true), &mut RunOptions::default());
    assert_eq!(verdict(&outcome), None);
    assert_eq!((outcome.faults["rot"], outcome.faults["recovered-beyond-quorum"]), (2, 1));
    let outcome = run::<KeyValue>(&rotten(3, true), &mut RunOptions::default());
    assert_eq!(verdict(&outcome), None);
    assert_eq!((outcome.faults["rot"], outcome.faults["stopped-beyond-quorum"]), (3, 1));
    assert!(outcome.waypoints["damaged-member-gave-up"] >= 3);
}

#[test]
fn a_sole_voter_that_is_damaged_refuses_to_start() {
    let fault = r#"fault = [
    { at_ms = 900, do = "rot 1 log 1" },
    { at_ms = 1010, until_ms = 1100, do = "crash 1" },
]
"#;
    let (head, ops) = ALONE.split_once("\n[[op]]").expect("it has operations");
    for beyond in [false, true] {
        let text = format!("{head}\nend.beyond_quorum = {beyond}\n{fault}\n[[op]]{ops}");
        let plan = scenario::parse::<KeyValue>("alone.toml", &text).expect("a scenario");
        let outcome = run::<KeyValue>(&plan, &mut RunOptions::default());
        assert_eq!(verdict(&outcome), None);
        let counted = if beyond { "stopped-beyond-quorum" } else { "forbidden-by-atlas" };
        assert_eq!(outcome.faults[counted], 1, "{:?}", outcome.faults);
    }
}

#[test]
fn damage_that_nobody_notices_breaks_frame_integrity() {
    let plan = plan(10_000);
    for noticed in [true, false] {
        let mut simulation = after_events(&plan, 100);
        let (from, sent) = (NodeId(2), Message::ReadIndex { id: 7 });
        let mut frame = Message::ReadIndex { id: 8 }.encode();
        if noticed {
            frame = frame.slice(1..);
        }
        simulation.receive_damaged(from, N1, &sent, &frame);
        let expected = (!noticed).then_some((Class::Safety, "frame-integrity"));
        assert_eq!(verdict(&simulation.outcome()), expected);
    }
}
