//! A recording as text: at least one line for each event, in fixed columns, for `grep` and `less`.
//!
//! ```text
//!    812     12.034 ms  n2     n1@2 -> n2 Append prev=3@1 [4@2] commit=3
//! ```
//!
//! The number of the event, its time, whom the line is about, and what happened. A message is told when
//! it arrives, with its sender's term; one that is lost when it is sent or lost, with `-x` instead of
//! the arrow and the reason; one that is under way when the run ends when it was sent. The one that
//! breaks a promise by what it says ends in `(the violation)`.

use std::fmt::Write as _;

use super::words::{self, Index};
use crate::recording::{Fate, MessageRecord, Recording, STORM, State, StepKind, StepNumber};

/// The lines of a recording, of all events for which `wanted` is true.
pub fn render(recording: &Recording, wanted: impl Fn(StepNumber) -> bool) -> String {
    let index = Index::new(recording);
    let mut lines = Lines::new(recording);
    for (step, event) in (1..).zip(&recording.steps) {
        lines.step = step;
        lines.wanted = wanted(step);
        lines.event(&index, event.kind);
        lines.faults(&index);
        for mark in index.marks(step) {
            lines.push(mark.lane, &words::mark(recording, mark));
        }
        for work in index.disk(step) {
            lines.push(work.lane, &words::disk(recording, work));
        }
        lines.changes(&index);
        for (row, letter) in index.sent(step) {
            match letter.fate {
                Fate::UnderWay => lines.message((row, letter), "->", " (under way)"),
                fate if words::is_lost_at_once(letter) => {
                    lines.message((row, letter), "-x", &format!(" lost: {}", fate.name()));
                }
                _ => {}
            }
        }
        lines.operations(&index);
        lines.at_least_one(event.lane, event.kind);
    }
    lines.text
}

struct Lines<'a> {
    recording: &'a Recording,
    text: String,
    step: StepNumber,
    wanted: bool,
    /// The present event has a line.
    told: bool,
    states: Vec<State>,
    lasts: Vec<u64>,
}

impl<'a> Lines<'a> {
    fn new(recording: &'a Recording) -> Lines<'a> {
        Lines {
            recording,
            text: String::new(),
            step: 0,
            wanted: true,
            told: false,
            states: vec![State::default(); recording.lanes.len()],
            lasts: vec![0; recording.lanes.len()],
        }
    }

    fn push(&mut self, lane: u16, what: &str) {
        // A difference without words is no line.
        if what.is_empty() {
            return;
        }
        if self.wanted {
            let at_us = self.recording.time_ns(self.step) / 1000;
            let (ms, us) = (at_us / 1000, at_us % 1000);
            let name = if lane == STORM { "" } else { self.recording.name(lane) };
            // What follows a sentence in another line is no other event.
            let what = what.replace('\n', " ");
            writeln!(self.text, "{:>7} {ms:>6}.{us:03} ms  {name:<5}  {what}", self.step)
                .expect("a string takes all");
        }
        self.told = true;
    }

    fn message(&mut self, (row, letter): (usize, &MessageRecord), arrow: &str, end: &str) {
        let (from, to) = (words::sender(self.recording, letter), self.recording.name(letter.to));
        let what = words::message(self.recording, letter);
        let lie = if row + 1 == self.recording.lie as usize { " (the violation)" } else { "" };
        let what = format!("{from} {arrow} {to} {what}{end}{lie}");
        let lane = if letter.end > letter.sent { letter.to } else { letter.from };
        self.push(lane, &what);
    }

    /// What arrives in an event.
    fn event(&mut self, index: &Index<'_>, kind: StepKind) {
        self.told = false;
        for ended in index.ended(self.step) {
            match ended.1.fate {
                Fate::Delivered => self.message(ended, "->", ""),
                fate => self.message(ended, "-x", &format!(" lost: {}", fate.name())),
            }
        }
        if kind == StepKind::Heal {
            self.push(STORM, "all faults end");
        }
    }

    fn faults(&mut self, index: &Index<'_>) {
        let recording = self.recording;
        let begun = index.faults.begins(self.step).map(|row| (row, ""));
        for (row, ends) in begun.chain(index.faults.ends(self.step).map(|row| (row, " ends"))) {
            let fault = &recording.faults[row];
            let lane = match fault.victims.as_slice() {
                [lane] => *lane,
                _ => STORM,
            };
            self.push(
                lane,
                &format!("fault {}{ends}: {}", fault.number, recording.text(fault.what)),
            );
        }
    }

    fn changes(&mut self, index: &Index<'_>) {
        for change in index.states(self.step) {
            let lane = usize::from(change.lane);
            let what = words::change(self.recording, &self.states[lane], self.lasts[lane], change);
            self.push(change.lane, &what);
            self.states[lane] = change.state;
            self.lasts[lane] = words::last(self.lasts[lane], change);
        }
    }

    fn operations(&mut self, index: &Index<'_>) {
        let recording = self.recording;
        for op in index.ops.ends(self.step).map(|row| &recording.ops[row]) {
            let (what, answer) = (recording.text(op.what), recording.text(op.answer));
            self.push(op.lane, &format!("returns from {what}: {answer}"));
        }
        for op in index.ops.begins(self.step).map(|row| &recording.ops[row]) {
            self.push(op.lane, &format!("calls {}", recording.text(op.what)));
        }
    }

    /// Nothing came of an event: it is told all the same.
    fn at_least_one(&mut self, lane: u16, kind: StepKind) {
        if !self.told {
            let what = match kind {
                StepKind::PutOff => "must wait",
                StepKind::Tick => "ticks",
                StepKind::Client => "looks at the clock",
                StepKind::Disk => "has nothing to do for its disk",
                StepKind::Read => "has read something",
                StepKind::Flush => "acts on its inputs",
                StepKind::Notice => "hears that messages were lost",
                StepKind::Rest => "not at rest yet",
                kind => kind.name(),
            };
            self.push(lane, what);
        }
    }
}
