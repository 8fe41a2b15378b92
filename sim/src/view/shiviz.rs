//! A recording as a log for ShiViz (<https://bestchai.bitbucket.io/shiviz/>), which draws what happened
//! before what from vector clocks.
//!
//! The first line is the regular expression that takes the others apart and the second, empty one says
//! that there is one run: ShiViz reads both from a file. Each further line is an event of a node or a
//! client: who, its clock as JSON, when and what. As ShiViz demands, the own entry of each clock grows
//! by one from line to line. Events in which nobody sends, receives or changes are left out, and so is
//! what disks do: they would only make the picture longer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::words::{self, Index};
use crate::recording::{Fate, LaneNumber, Recording, State, StepNumber};

/// Takes a line apart.
pub const PARSER: &str = r"(?<host>\S+) (?<clock>\{[^}]*\}) (?<event>.*)";

/// By lane: how many of its events are known.
type Clock = Vec<u32>;

/// The log of a recording, of all events for which `wanted` is true. Whatever is wanted should come with
/// its [past](crate::recording::past), or messages seem to come from nowhere.
pub fn render(recording: &Recording, wanted: impl Fn(StepNumber) -> bool) -> String {
    let index = Index::new(recording);
    let mut text = format!("{PARSER}\n\n");
    let lanes = recording.lanes.len();
    let mut clocks: Vec<Clock> = vec![vec![0; lanes]; lanes];
    let mut states = vec![State::default(); lanes];
    let mut lasts = vec![0; lanes];
    // What the sender of a message knew.
    let mut sent: Vec<Option<Clock>> = vec![None; recording.messages.len()];
    for step in (1..).take(recording.steps.len()) {
        let mut told = operations(recording, &index, step);
        for fault in index.faults.begins(step).map(|row| &recording.faults[row]) {
            let what = format!("fault: {}", recording.text(fault.what));
            fault.victims.iter().for_each(|lane| tell(&mut told, *lane, what.clone()));
        }
        for mark in index.marks(step) {
            tell(&mut told, mark.lane, words::mark(recording, mark));
        }
        for (row, letter) in index.ended(step).filter(|(_, l)| l.fate == Fate::Delivered) {
            let what = words::message(recording, letter);
            tell(
                &mut told,
                letter.to,
                format!("receives {what} from {}", recording.name(letter.from)),
            );
            if let Some(known) = sent[row].take() {
                let clock = &mut clocks[usize::from(letter.to)];
                clock.iter_mut().zip(known).for_each(|(own, other)| *own = other.max(*own));
            }
        }
        for change in index.states(step) {
            let lane = usize::from(change.lane);
            let what = words::change(recording, &states[lane], lasts[lane], change);
            tell(&mut told, change.lane, what);
            states[lane] = change.state;
            lasts[lane] = words::last(lasts[lane], change);
        }
        for (_, letter) in index.sent(step) {
            let (what, to) = (words::message(recording, letter), recording.name(letter.to));
            let lost = match letter.fate {
                Fate::Delivered | Fate::UnderWay => String::new(),
                fate => format!(", which is lost: {}", fate.name()),
            };
            tell(&mut told, letter.from, format!("sends {what} to {to}{lost}"));
        }
        if !wanted(step) {
            continue;
        }
        for (lane, parts) in told.into_iter().filter(|(lane, _)| *lane > 0) {
            let clock = &mut clocks[usize::from(lane)];
            clock[usize::from(lane)] += 1;
            line(&mut text, recording, lane, (clock, step), &parts.join("; "));
        }
        for (row, letter) in index.sent(step).filter(|(_, l)| l.fate == Fate::Delivered) {
            sent[row] = Some(clocks[usize::from(letter.from)].clone());
        }
    }
    text
}

fn tell(told: &mut BTreeMap<LaneNumber, Vec<String>>, lane: LaneNumber, what: String) {
    if !what.is_empty() {
        told.entry(lane).or_default().push(what);
    }
}

/// What clients ask for and are told in an event.
fn operations(
    recording: &Recording,
    index: &Index<'_>,
    step: StepNumber,
) -> BTreeMap<LaneNumber, Vec<String>> {
    let mut told = BTreeMap::new();
    for op in index.ops.ends(step).map(|row| &recording.ops[row]) {
        let (what, answer) = (recording.text(op.what), recording.text(op.answer));
        tell(&mut told, op.lane, format!("returns from {what}: {answer}"));
    }
    for op in index.ops.begins(step).map(|row| &recording.ops[row]) {
        tell(&mut told, op.lane, format!("calls {}", recording.text(op.what)));
    }
    told
}

fn line(
    text: &mut String,
    recording: &Recording,
    lane: LaneNumber,
    (clock, step): (&Clock, StepNumber),
    what: &str,
) {
    let known = clock.iter().zip(&recording.lanes).filter(|(count, _)| **count > 0);
    let known: Vec<String> =
        known.map(|(count, lane)| format!("\"{}\":{count}", lane.name)).collect();
    let at_us = recording.time_ns(step) / 1000;
    let (name, clock) = (recording.name(lane), known.join(","));
    let (ms, us, what) = (at_us / 1000, at_us % 1000, what.replace('\n', " "));
    writeln!(text, "{name} {{{clock}}} {ms}.{us:03} ms {what}").expect("a string takes all");
}
