//! What a recording holds is what was there, and recording changes nothing.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::checker::Check;
use crate::kv::KeyValue;
use crate::recording::{Answered, Fate, LaneKind, MessageRecord, State, condition};
use crate::swarm;
use crate::view::Recording;

/// Runs a plan and keeps the recording.
fn recording(plan: &Plan) -> (Outcome, Recording) {
    let kept = Rc::new(RefCell::new(None));
    let sink = Rc::clone(&kept);
    let take: RecordingSink = Box::new(move |recording| *sink.borrow_mut() = Some(recording));
    let outcome =
        run::<KeyValue>(plan, &mut RunOptions { recording: Some(take), ..RunOptions::default() });
    (outcome, kept.take().expect("it was recorded"))
}

#[test]
fn a_run_that_is_filmed_is_the_same_run() {
    for seed in 0..12 {
        let plan = swarm::generate::<KeyValue>(seed);
        let (outcome, recording) = recording(&plan);
        assert_eq!(outcome, run::<KeyValue>(&plan, &mut RunOptions::default()), "seed {seed}");
        assert_eq!(recording.steps.len() as u64, outcome.events);
        assert_eq!(recording.time_ns(recording.steps.len() as u32), outcome.sim_ns);
        let delivered = recording.messages.iter().filter(|letter| letter.fate == Fate::Delivered);
        assert!(delivered.count() as u64 >= outcome.messages, "raft messages, and others");
        let answered = recording.ops.iter().filter(|op| op.outcome == Answered::Ok).count();
        assert_eq!(answered as u64, outcome.acknowledged, "seed {seed}");
        assert_eq!(recording.past, []);
    }
}

/// All that changes of a node come to what it is.
#[test]
fn the_changes_of_a_node_come_to_what_it_is() {
    for seed in 0..12 {
        let plan = swarm::generate::<KeyValue>(seed);
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        simulation.observers.record(&plan, &simulation.clients);
        simulation.drive(u64::MAX);
        let recording = simulation.take_recording(false).expect("it was recorded");
        for (lane, name) in
            recording.lanes.iter().enumerate().filter(|(_, l)| l.kind == LaneKind::Node)
        {
            let (mut state, mut log) = (State::default(), Vec::new());
            for change in recording.states.iter().filter(|change| usize::from(change.lane) == lane)
            {
                state = change.state;
                if let Some(change) = &change.log {
                    log.retain(|(index, _)| *index < change.from);
                    let terms = change.runs.iter();
                    let terms = terms.flat_map(|run| (0..run.count).map(|_| run.term));
                    log.extend((change.from..).zip(terms));
                }
                log.retain(|(index, _)| *index >= state.first);
            }
            let id = NodeId(name.name[1..].parse().expect("nodes are called by their number"));
            let Some(node) = simulation.cluster.node(id) else {
                assert_eq!(state.condition & condition::UP, 0, "seed {seed} {id}");
                continue;
            };
            let status = node.status();
            assert_eq!(state.condition & condition::UP, condition::UP);
            assert_eq!(
                (state.term, state.commit),
                (status.hard_state.term, status.hard_state.commit)
            );
            assert_eq!((state.applied, state.first), (status.applied.index, status.first));
            assert_eq!(state.durable, simulation.safety.durable(id));
            let there =
                (status.first..=status.last.index).filter_map(|i| Some((i, node.term_at(i)?)));
            assert_eq!(log, there.collect::<Vec<_>>(), "seed {seed} {id}");
        }
    }
}

#[test]
fn a_node_without_a_membership_says_so() {
    let (_, recording) = recording(&swarm::generate_beyond::<KeyValue>(4));
    let mut unknown = 0;
    for change in recording.states.iter().filter(|row| row.state.condition & condition::UP != 0) {
        let members = recording.text(change.state.members as u32);
        assert!(!members.is_empty(), "{change:?}");
        if members == "none known" {
            assert_ne!(change.state.condition & condition::DAMAGED, 0, "{change:?}");
            unknown += 1;
        }
    }
    assert!(unknown > 0, "nobody has lost it");
}

/// Writes take effect between their call and their return, in the order of the log.
#[test]
fn a_point_lies_between_call_and_return() {
    let mut placed = 0;
    for seed in 0..12 {
        let (_, recording) = recording(&swarm::generate::<KeyValue>(seed));
        let mut points = Vec::new();
        for op in recording.ops.iter().filter(|op| op.outcome == Answered::Ok) {
            let what = recording.text(op.what);
            if what.contains("!stale") || what.starts_with("move") {
                // It is answered as of any moment, or is the operator's.
                continue;
            }
            if what.starts_with("transfer") {
                assert_eq!((op.index, op.point), (0, 0), "it stands in no log");
                continue;
            }
            assert!((op.call..=op.ret).contains(&op.point), "seed {seed}: {op:?}");
            let is_read = recording.text(op.what).starts_with(['g', 's']);
            points.extend((!is_read).then_some((op.index, op.point)));
            placed += 1;
        }
        points.sort_unstable();
        assert!(points.is_sorted_by_key(|(_, point)| *point), "seed {seed}");
    }
    assert!(placed > 500, "{placed} operations");
}

#[test]
fn every_message_comes_to_an_end_that_is_after_its_beginning() {
    let (mut copies, mut stale, mut lost) = (0, 0, 0);
    for seed in 0..12 {
        let (_, recording) = recording(&swarm::generate::<KeyValue>(seed));
        for pair in recording.messages.windows(2).filter(|pair| pair[1].copy) {
            assert_eq!((pair[0].sent, pair[0].kind), (pair[1].sent, pair[1].kind));
        }
        for letter in &recording.messages {
            match letter.fate {
                Fate::UnderWay => assert_eq!(letter.end, 0),
                _ => assert!(letter.end >= letter.sent, "{letter:?}"),
            }
            copies += u32::from(letter.copy);
            stale += u32::from(letter.stale);
            lost += u32::from(letter.fate > Fate::Delivered);
        }
    }
    assert!(copies > 10 && stale > 10 && lost > 100, "{copies} {stale} {lost}");
}

#[test]
fn a_message_for_a_term_that_its_receiver_has_left_is_stale() {
    // In the last two, nodes hear of a term and act on it some events later.
    for seed in [0, 1, 2, 28, 37] {
        let (_, recording) = recording(&swarm::generate::<KeyValue>(seed));
        let for_a_term = |letter: &&MessageRecord| letter.fate == Fate::Delivered && letter.op == 0;
        let is_node = |lane| recording.lanes[usize::from(lane)].kind == LaneKind::Node;
        let mut messages: Vec<&MessageRecord> =
            recording.messages.iter().filter(for_a_term).collect();
        messages.retain(|letter| is_node(letter.from) && is_node(letter.to));
        messages.sort_by_key(|letter| letter.end);
        let mut terms = vec![0; recording.lanes.len()];
        let mut changes = recording.states.iter().peekable();
        for letter in messages {
            while let Some(change) = changes.next_if(|change| change.step < letter.end) {
                terms[usize::from(change.lane)] = change.state.term;
            }
            let is_over = letter.term > 0 && letter.term < terms[usize::from(letter.to)];
            assert_eq!(letter.stale, is_over, "seed {seed}: {letter:?}");
        }
    }
}

#[test]
fn a_stall_follows_from_everybody_and_a_lie_from_its_teller() {
    let (outcome, recording) = recording(&plan(1));
    assert_eq!(verdict(&outcome), Some((Class::Liveness, "convergence")));
    let last = recording.steps.len() as u32;
    assert!(recording.is_past(1) && recording.is_past(last), "{:?}", recording.past);

    let plan = plan(10_000);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    simulation.observers.record(&plan, &simulation.clients);
    simulation.drive(250);
    simulation.fail(Class::Safety, Broken::new(Check::Content, "a lie".to_owned()).at(NodeId(3)));
    let recording = simulation.take_recording(true).expect("it was recorded");
    assert_eq!(recording.blamed.map(|lane| recording.name(lane)), Some("n3"));
    let outside = (1..).zip(&recording.steps).filter(|(step, _)| !recording.is_past(*step));
    let names: Vec<&str> = outside.map(|(_, step)| recording.name(step.lane)).collect();
    assert!(!names.is_empty() && !names.contains(&"n3"), "{names:?}");
}
