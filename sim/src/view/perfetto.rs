//! A recording as a trace for Perfetto (<https://ui.perfetto.dev>): protocol buffers, TrackEvents, with
//! simulated nanoseconds as time.
//!
//! Each node has a track with its role and term, and `down`, `paused` and `disk hangs`; below it are
//! one with its messages and what else happened to it, and one with its disk. A message that arrives
//! is a flow, from the moment in which it was sent to the one in which it arrived. Each client has a
//! track with its operations, faults have one together. Every event has the annotation `step`, its
//! number for `replay --until`.
//!
//! The numbers of the fields are those of Perfetto's `trace_packet.proto`, `track_descriptor.proto`,
//! `track_event.proto` and `debug_annotation.proto`; they never change.

use super::wire::Message;
use super::words::{self, Index};
use crate::recording::{
    Fate, FaultSpan, Lane, LaneKind, LaneNumber, ROLES, Recording, STORM, State, StepNumber,
    condition,
};

/// Fields of the messages, in the order in which these are nested.
mod field {
    pub const TRACE_PACKET: u64 = 1;
    pub const TIMESTAMP: u64 = 8;
    pub const SEQUENCE: u64 = 10;
    pub const TRACK_EVENT: u64 = 11;
    pub const TRACK_DESCRIPTOR: u64 = 60;
    /// Of a track descriptor.
    pub const UUID: u64 = 1;
    pub const TRACK_NAME: u64 = 2;
    pub const PARENT: u64 = 5;
    /// Of a track event.
    pub const ANNOTATION: u64 = 4;
    pub const TYPE: u64 = 9;
    pub const TRACK: u64 = 11;
    pub const CATEGORY: u64 = 22;
    pub const NAME: u64 = 23;
    pub const FLOW: u64 = 47;
    pub const FLOW_END: u64 = 48;
    /// Of an annotation.
    pub const NUMBER: u64 = 3;
    pub const KEY: u64 = 10;
}

/// What a track event is.
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;

/// The one who has written all packets.
const SEQUENCE: u64 = 1;

/// A track of a lane.
#[derive(Clone, Copy)]
enum Part {
    Main,
    Events,
    Disk,
}

/// The number of a track.
fn track(lane: LaneNumber, part: Part) -> u64 {
    // The 0 is taken.
    (u64::from(lane) + 1) * 4 + part as u64
}

/// Faults may overlap, and slices of one track must not.
fn fault_track(row: usize) -> u64 {
    1 << 32 | row as u64
}

/// The trace of a recording, of all events for which `wanted` is true. Roles, faults and operations are
/// always told.
pub fn render(recording: &Recording, wanted: impl Fn(StepNumber) -> bool) -> Vec<u8> {
    let mut trace = Trace { recording, bytes: Message::default() };
    trace.tracks();
    let index = Index::new(recording);
    let mut slices: Vec<Vec<String>> = vec![Vec::new(); recording.lanes.len()];
    let mut states = vec![State::default(); recording.lanes.len()];
    let mut lasts = vec![0; recording.lanes.len()];
    let (faults, ops) = (&index.faults, &index.ops);
    for step in (1..).take(recording.steps.len()) {
        for row in faults.ends(step) {
            trace.end(step, fault_track(row));
        }
        for row in faults.begins(step) {
            let what = recording.text(recording.faults[row].what);
            trace.event(step, (SLICE_BEGIN, fault_track(row)), ("fault", what), None);
        }
        for row in ops.ends(step) {
            trace.end(step, track(recording.ops[row].lane, Part::Main));
        }
        for row in ops.begins(step) {
            let op = &recording.ops[row];
            let what = format!("{}: {}", recording.text(op.what), answer(recording, row));
            trace.event(step, (SLICE_BEGIN, track(op.lane, Part::Main)), ("op", &what), None);
        }
        for change in index.states(step) {
            let lane = usize::from(change.lane);
            let what = words::change(recording, &states[lane], lasts[lane], change);
            (states[lane], lasts[lane]) = (change.state, words::last(lasts[lane], change));
            trace.turn(step, change.lane, &mut slices[lane], wanted_slices(&change.state));
            if wanted(step) && !what.is_empty() {
                let on = (INSTANT, track(change.lane, Part::Events));
                trace.event(step, on, ("state", &what), None);
            }
        }
        if wanted(step) {
            trace.instants(step, &index);
        }
    }
    let last = recording.steps.len() as StepNumber;
    for (lane, open) in slices.iter().enumerate() {
        open.iter().for_each(|_| trace.end(last, track(lane as LaneNumber, Part::Main)));
    }
    faults.open().for_each(|row| trace.end(last, fault_track(row)));
    ops.open().for_each(|row| trace.end(last, track(recording.ops[row].lane, Part::Main)));
    trace.bytes.bytes().to_vec()
}

fn answer(recording: &Recording, row: usize) -> &str {
    match recording.text(recording.ops[row].answer) {
        "" => "open",
        answer => answer,
    }
}

/// What a node's main track shows, the outermost first.
fn wanted_slices(state: &State) -> Vec<String> {
    let is = |bit: u64| state.condition & bit != 0;
    if !is(condition::UP) {
        let what = if is(condition::GONE) { "gone" } else { "down" };
        return vec![what.to_owned()];
    }
    let mut slices = vec![format!("{} t{}", ROLES[state.role as usize], state.term)];
    let others = [
        (condition::PAUSED, "paused"),
        (condition::DISK_HANGS, "disk hangs"),
        (condition::DAMAGED, "damaged"),
    ];
    slices.extend(others.iter().filter(|(bit, _)| is(*bit)).map(|(_, what)| (*what).to_owned()));
    slices
}

struct Trace<'a> {
    recording: &'a Recording,
    bytes: Message,
}

impl Trace<'_> {
    fn packet(&mut self, what: u64, content: &Message, at: Option<StepNumber>) {
        let mut packet = Message::default();
        if let Some(step) = at {
            packet.number(field::TIMESTAMP, self.recording.time_ns(step));
        }
        packet.number(field::SEQUENCE, SEQUENCE).message(what, content);
        self.bytes.message(field::TRACE_PACKET, &packet);
    }

    fn track(&mut self, uuid: u64, parent: Option<u64>, name: &str) {
        let mut track = Message::default();
        track.number(field::UUID, uuid).text(field::TRACK_NAME, name);
        if let Some(parent) = parent {
            track.number(field::PARENT, parent);
        }
        self.packet(field::TRACK_DESCRIPTOR, &track, None);
    }

    fn tracks(&mut self) {
        let recording = self.recording;
        for (lane, Lane { name, kind }) in (0..).zip(&recording.lanes) {
            let main = track(lane, Part::Main);
            self.track(main, None, name);
            match kind {
                LaneKind::Node => {
                    self.track(track(lane, Part::Events), Some(main), "events");
                    self.track(track(lane, Part::Disk), Some(main), "disk");
                }
                LaneKind::Client => self.track(track(lane, Part::Events), Some(main), "messages"),
                LaneKind::Storm => self.track(track(lane, Part::Events), Some(main), "events"),
            }
        }
        let storm = track(STORM, Part::Main);
        for (row, FaultSpan { kind, .. }) in recording.faults.iter().enumerate() {
            self.track(fault_track(row), Some(storm), recording.text(*kind));
        }
    }

    fn event(
        &mut self,
        step: StepNumber,
        (kind, track): (u64, u64),
        (category, name): (&str, &str),
        flow: Option<(u64, u64)>,
    ) {
        let mut annotation = Message::default();
        annotation.text(field::KEY, "step").number(field::NUMBER, step.into());
        let mut event = Message::default();
        event
            .number(field::TYPE, kind)
            .number(field::TRACK, track)
            .text(field::CATEGORY, category)
            .text(field::NAME, name)
            .message(field::ANNOTATION, &annotation);
        if let Some((field, id)) = flow {
            event.fixed(field, id);
        }
        self.packet(field::TRACK_EVENT, &event, Some(step));
    }

    fn end(&mut self, step: StepNumber, track: u64) {
        let mut event = Message::default();
        event.number(field::TYPE, SLICE_END).number(field::TRACK, track);
        self.packet(field::TRACK_EVENT, &event, Some(step));
    }

    /// Ends the slices of a node that are over, and begins those that are new.
    fn turn(
        &mut self,
        step: StepNumber,
        lane: LaneNumber,
        open: &mut Vec<String>,
        wanted: Vec<String>,
    ) {
        let on = track(lane, Part::Main);
        let same = open.iter().zip(&wanted).take_while(|(open, wanted)| open == wanted).count();
        (same..open.len()).for_each(|_| self.end(step, on));
        for what in &wanted[same..] {
            self.event(step, (SLICE_BEGIN, on), ("state", what), None);
        }
        *open = wanted;
    }

    fn instants(&mut self, step: StepNumber, index: &Index<'_>) {
        let recording = self.recording;
        for (row, letter) in index.ended(step) {
            let (what, from) = (words::message(recording, letter), recording.name(letter.from));
            let (lost, flow) = match letter.fate {
                Fate::Delivered => (String::new(), Some((field::FLOW_END, row as u64 + 1))),
                fate => (format!(" lost: {}", fate.name()), None),
            };
            let on = (INSTANT, track(letter.to, Part::Events));
            self.event(step, on, ("message", &format!("{what} from {from}{lost}")), flow);
        }
        for mark in index.marks(step) {
            let on = (INSTANT, track(mark.lane, Part::Events));
            self.event(step, on, ("mark", &words::mark(recording, mark)), None);
        }
        for work in index.disk(step) {
            let on = (INSTANT, track(work.lane, Part::Disk));
            self.event(step, on, ("disk", &words::disk(recording, work)), None);
        }
        for (row, letter) in index.sent(step) {
            let (what, to) = (words::message(recording, letter), recording.name(letter.to));
            let (lost, flow) = match letter.fate {
                Fate::Delivered => (String::new(), Some((field::FLOW, row as u64 + 1))),
                Fate::UnderWay => (String::new(), None),
                fate => (format!(" lost: {}", fate.name()), None),
            };
            let on = (INSTANT, track(letter.from, Part::Events));
            self.event(step, on, ("message", &format!("{what} to {to}{lost}")), flow);
        }
    }
}
