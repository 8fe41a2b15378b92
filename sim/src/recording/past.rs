//! The causal past of a violation: all events that it may follow from, and no others.
//!
//! "Happened before" is Lamport's relation: what happens to one node or client is in order, and a
//! message is sent before it arrives. One that is lost is no cause. A fault belongs to the lanes of
//! the nodes that it hits. One that hits links or everybody leaves no trace in any lane, but explains
//! why there is nothing to see: it is always part of the past.
//!
//! The violation follows from what happened to the node that it is about; if client operations prove
//! it, from those, up to their return, and from the commit of each. One that is about nobody, such as
//! a cluster that does not come to rest, follows from everything.

use super::{Fate, LaneKind, LaneNumber, Recording, STORM, StepKind, StepNumber};

/// Finds the past of the violation, as ranges of events, the last included. `late` if it was found
/// when all was over, and its last event has nothing to do with it.
pub fn find(recording: &Recording, late: bool) -> Vec<(StepNumber, StepNumber)> {
    let end = recording.steps.len();
    if end == 0 {
        return Vec::new();
    }
    let lanes = lanes(recording);
    let mut is_past = vec![false; end + 1];
    // Up to which event each lane is part of it.
    let mut until = vec![0; recording.lanes.len()];
    let mut reach = |lane: LaneNumber, step: StepNumber| {
        let until = &mut until[usize::from(lane)];
        *until = step.max(*until);
    };
    let last = end as StepNumber;
    let proof = || recording.ops.iter().filter(|op| op.proof);
    for op in proof() {
        let ret = if op.ret == 0 { last } else { op.ret };
        reach(op.lane, ret);
        if op.point > 0 {
            reach(recording.steps[op.point as usize - 1].lane, op.point);
        }
    }
    match recording.blamed {
        Some(lane) => reach(lane, last),
        None if proof().next().is_none() => (0..recording.lanes.len()).for_each(|lane| {
            reach(lane as LaneNumber, last);
        }),
        None => {}
    }
    if !late {
        lanes[end].iter().for_each(|lane| reach(*lane, last));
    }
    // A message reaches from a lane into an earlier event of another one.
    let mut arrivals: Vec<(StepNumber, StepNumber, LaneNumber)> = recording
        .messages
        .iter()
        .filter(|letter| letter.fate == Fate::Delivered)
        .map(|letter| (letter.end, letter.sent, letter.from))
        .collect();
    arrivals.sort_unstable();
    for step in (1..=last).rev() {
        let place = step as usize;
        let mine = &lanes[place];
        is_past[place] = mine.iter().any(|lane| step <= until[usize::from(*lane)]);
        if !is_past[place] {
            continue;
        }
        for lane in mine {
            let until = &mut until[usize::from(*lane)];
            *until = step.max(*until);
        }
        let arrived = arrivals.partition_point(|(end, ..)| *end < step);
        for (end, sent, from) in &arrivals[arrived..] {
            if *end != step {
                break;
            }
            let until = &mut until[usize::from(*from)];
            *until = (*sent).max(*until);
            is_past[*sent as usize] = true;
        }
    }
    // It was seen in the last event, even if that happens to nobody.
    is_past[end] |= !late;
    for fault in recording.faults.iter().filter(|fault| fault.victims.is_empty()) {
        is_past[fault.start as usize] = true;
        is_past[fault.end as usize] = true;
    }
    ranges(&is_past)
}

/// The lanes of each event: of whom it happens to, and of whom a fault hits in it.
fn lanes(recording: &Recording) -> Vec<Vec<LaneNumber>> {
    let own = recording.steps.iter().map(|step| match step {
        // What is put off has not happened yet.
        step if step.lane == STORM || step.kind == StepKind::PutOff => Vec::new(),
        step => vec![step.lane],
    });
    let mut lanes: Vec<Vec<LaneNumber>> = std::iter::once(Vec::new()).chain(own).collect();
    for fault in &recording.faults {
        for step in [fault.start, fault.end] {
            lanes[step as usize].extend(&fault.victims);
        }
    }
    // Events in which somebody else is started, too.
    for letter in &recording.messages {
        lanes[letter.sent as usize].push(letter.from);
    }
    for change in &recording.states {
        lanes[change.step as usize].push(change.lane);
    }
    let is_node = |lane: &LaneNumber| recording.lanes[usize::from(*lane)].kind == LaneKind::Node;
    for (at, step) in recording.steps.iter().enumerate() {
        if step.kind == StepKind::Heal {
            lanes[at + 1].extend((0..recording.lanes.len() as LaneNumber).filter(is_node));
        }
    }
    lanes[0].clear();
    for lanes in &mut lanes {
        lanes.sort_unstable();
        lanes.dedup();
    }
    lanes
}

/// The numbers from 1 on that are set.
fn ranges(set: &[bool]) -> Vec<(StepNumber, StepNumber)> {
    let mut ranges: Vec<(StepNumber, StepNumber)> = Vec::new();
    for step in (1..set.len()).filter(|step| set[*step]) {
        let step = step as StepNumber;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == step => *last = step,
            _ => ranges.push((step, step)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::{FaultSpan, Lane, MessageRecord, Operation, Step};
    use super::*;

    /// Two nodes, a third that nobody hears, and a client; so many events of these lanes.
    fn recording(lanes: &[LaneNumber], messages: &[(StepNumber, StepNumber, Fate)]) -> Recording {
        let lane = |name: &str, kind| Lane { name: name.to_owned(), kind };
        let step = |(at, lane): (usize, &LaneNumber)| Step {
            at_ns: at as u64,
            lane: *lane,
            kind: StepKind::Tick,
        };
        let letter = |(sent, end, fate): &(StepNumber, StepNumber, Fate)| MessageRecord {
            sent: *sent,
            from: lanes[*sent as usize - 1],
            to: lanes[*end as usize - 1],
            fate: *fate,
            end: *end,
            ..MessageRecord::default()
        };
        let node = |name| lane(name, LaneKind::Node);
        Recording {
            lanes: vec![
                lane("storm", LaneKind::Storm),
                node("n1"),
                node("n2"),
                node("n3"),
                lane("c1", LaneKind::Client),
            ],
            steps: lanes.iter().enumerate().map(step).collect(),
            messages: messages.iter().map(letter).collect(),
            ..Recording::default()
        }
    }

    #[test]
    fn messages_that_arrive_are_causes_and_those_that_are_lost_are_not() {
        let (delivered, cut) = (Fate::Delivered, Fate::Cut);
        let mut recording = recording(&[1, 3, 2, 3, 1, 2, 1], &[(2, 7, cut), (3, 5, delivered)]);
        recording.blamed = Some(1);
        // n2's second event (6) comes too late, n3's are never heard of.
        assert_eq!(find(&recording, false), [(1, 1), (3, 3), (5, 5), (7, 7)]);
        recording.messages[0].fate = delivered;
        assert_eq!(find(&recording, false), [(1, 3), (5, 5), (7, 7)]);
    }

    #[test]
    fn a_fault_is_part_of_the_past_of_its_victims() {
        let mut recording = recording(&[2, STORM, STORM, STORM, 1], &[]);
        let fault =
            |start, victims| FaultSpan { number: 0, kind: 0, what: 0, start, end: 0, victims };
        recording.faults = vec![fault(2, vec![2]), fault(3, vec![1]), fault(4, Vec::new())];
        recording.blamed = Some(1);
        assert_eq!(find(&recording, false), [(3, 5)]);
    }

    #[test]
    fn a_proof_leads_to_its_operations_and_where_they_took_effect() {
        let mut recording = recording(&[4, 1, 2, 4, 2, 4], &[(1, 2, Fate::Delivered)]);
        let op =
            Operation { lane: 4, call: 1, ret: 4, point: 2, proof: true, ..Operation::default() };
        recording.ops = vec![op];
        assert_eq!(find(&recording, true), [(1, 2), (4, 4)]);
        recording.ops.clear();
        assert_eq!(find(&recording, true), [(1, 6)], "it is about no node");
    }
}
