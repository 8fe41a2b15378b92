//! Records a run: fills the tables of a [`Recording`] while it goes on, if one is wanted.
//!
//! Events, messages, operations and faults come as observations. The states of nodes do not: after each
//! event the recorder looks at all nodes, so that no change can be missed.
//!
//! - `messages.rs` has the messages,
//! - `look.rs` looks at nodes and links,
//! - `points.rs` finds out when operations took effect, once all is over.

mod look;
mod messages;
mod points;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};
use stormkv::env::DiskOp;
use stormkv::node::Membership;
use stormkv::types::{LogIndex, NodeId};

use self::points::Asked;
use super::super::Simulation;
use super::super::client::Clients;
use super::super::event::{Event, Target};
use super::{MessageId, Observation, Stamp, failure};
use crate::disk::{Crash, DiskStats};
use crate::history;
use crate::plan::{Call, Plan};
use crate::recording::past;
use crate::recording::{
    Answered, DiskVerb, DiskWork, FaultSpan, Lane, LaneKind, LaneNumber, Mark, MarkKind, Operation,
    Recording, STORM, State, Step, StepKind, StepNumber, TermRun,
};
use crate::service::{Service, parsed};

/// Takes the recording, once the run is over.
pub type RecordingSink = Box<dyn FnMut(Recording)>;

/// What is known of a node.
#[derive(Default)]
struct Known {
    state: State,
    /// The first entry of its log, and the terms from there on.
    first: LogIndex,
    terms: VecDeque<u64>,
    incarnation: u64,
    membership: Option<Membership>,
    /// It has changed its log in this event, as far as can be told without a look.
    wrote: bool,
}

#[derive(Default)]
pub(in crate::simulation) struct Recorder {
    recording: Recording,
    step: StepNumber,
    /// By id; 0 for those that there never are.
    nodes: Vec<LaneNumber>,
    /// The lane of the first client's first hand, and whose hand each is.
    first_client: LaneNumber,
    hands: Vec<u32>,
    known: Vec<Known>,
    /// The operation under way, by hand.
    open: Vec<Option<u32>>,
    /// What kind each operation is of.
    asked: Vec<Asked>,
    /// Operations by their number in the history.
    recorded: FxHashMap<usize, u32>,
    /// The index of the last answer to each hand.
    answered: Vec<LogIndex>,
    told: FxHashSet<(u64, u64)>,
    /// The state of the network at the last look.
    weather: u64,
    proof: Vec<usize>,
    /// The message that is about to be found to be a lie.
    accused: MessageId,
    /// All events are over: what follows happens to nobody.
    over: bool,
    /// The violation was found then.
    late: bool,
}

impl Recorder {
    pub(super) fn new<S: Service>(plan: &Plan, clients: &Clients<S>) -> Recorder {
        let mut ids: Vec<NodeId> = plan.voters().chain(plan.learners()).collect();
        ids.extend(plan.ops.iter().flat_map(|row| row.call.op.new_nodes()));
        ids.sort_unstable();
        ids.dedup();
        let lane = |kind, name: String| Lane { name, kind };
        let mut recorder = Recorder::default();
        let mut lanes = vec![lane(LaneKind::Storm, "storm".to_owned())];
        for id in &ids {
            recorder.nodes.resize(id.0 as usize + 1, STORM);
            recorder.nodes[id.0 as usize] = lanes.len() as LaneNumber;
            lanes.push(lane(LaneKind::Node, id.to_string()));
        }
        recorder.known.resize_with(recorder.nodes.len(), Known::default);
        recorder.first_client = lanes.len() as LaneNumber;
        recorder.hands = clients.all.iter().map(|client| client.number).collect();
        recorder.open.resize(recorder.hands.len(), None);
        recorder.answered.resize(recorder.hands.len(), 0);
        lanes.extend(
            clients.all.iter().map(|client| lane(LaneKind::Client, client.name().to_owned())),
        );
        recorder.recording.lanes = lanes;
        recorder
    }

    fn node(&self, id: NodeId) -> LaneNumber {
        self.nodes.get(id.0 as usize).copied().unwrap_or(STORM)
    }

    fn hand(&self, lane: u32) -> LaneNumber {
        self.first_client + lane as LaneNumber
    }

    /// An event begins.
    pub(super) fn begin(&mut self, Stamp { step, at_ns }: Stamp) {
        self.step = step as StepNumber;
        let kind = StepKind::PutOff;
        self.recording.steps.push(Step { at_ns, lane: STORM, kind });
    }

    /// Takes in an observation.
    pub(super) fn observe<S: Service>(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Due(event) => self.event(event, StepKind::PutOff),
            Observation::Happens(event) => self.event(event, event.step_kind()),
            Observation::Wrote(id) => self.wrote(*id),
            Observation::Committed(fresh) => self.commits(fresh.clone()),
            Observation::Started(id) => self.mark(Some(*id), MarkKind::Start, ""),
            Observation::StartRefused(id, error) => {
                self.mark(Some(*id), MarkKind::Refused, &error.to_string());
            }
            Observation::Stopped(id, error) => {
                self.mark(Some(*id), MarkKind::Stop, &error.to_string());
            }
            Observation::Panicked(id, message) => self.mark(Some(*id), MarkKind::Panic, message),
            Observation::DiskCrashed { node, crash, before, after } => {
                self.crashes(*node, *crash, before, after);
            }
            Observation::Lost(id, loss) => self.mark(Some(*id), MarkKind::Lost, loss.describe()),
            Observation::DiskOp(id, op, result) => {
                self.disk(*id, op, result.is_err());
                if let Err(error) = result {
                    self.mark(Some(*id), MarkKind::DiskError, &error.to_string());
                }
            }
            Observation::Damaged { node, file, fault } => {
                self.mark(Some(*node), MarkKind::Damage, &format!("{fault}: {file}"));
            }
            Observation::Whole(id) => self.mark(Some(*id), MarkKind::Whole, ""),
            Observation::Called { lane, call, recorded, .. } => {
                self.calls::<S>(*lane, call, *recorded);
            }
            Observation::Returned { lane, outcome, .. } => self.returns(*lane, outcome),
            Observation::WorkerRestarts(lane) => self.client_restarts(*lane),
            Observation::FaultBegun(at, fault, victims) => {
                self.strikes(*at, fault.kind(), &fault.to_string(), victims);
            }
            Observation::FaultCleared(at) => self.mends(Some(*at)),
            Observation::Healed(core) => {
                self.mends(None);
                self.mark(None, MarkKind::Healed, core);
            }
            Observation::Accused(id) => self.accuse(*id),
            Observation::Violated(node, proof) => self.blame(*node, proof),
            Observation::Over => self.over(),
            message => self.observe_message::<S>(message),
        }
    }

    /// The present event is this one; it may turn out that it cannot happen yet.
    fn event(&mut self, event: &Event, kind: StepKind) {
        let lane = match event.target {
            Target::Worker(lane) => self.hand(lane),
            Target::Client(client) => {
                let hand = self.hands.iter().position(|number| *number == client);
                hand.map_or(STORM, |hand| self.hand(hand as u32))
            }
            Target::Node(id) => self.node(id),
            Target::Cluster => STORM,
        };
        if let Some(step) = self.recording.steps.last_mut() {
            (step.lane, step.kind) = (lane, kind);
        }
    }

    // ---- nodes and disks ----

    /// A disk has carried out an operation, or failed to.
    fn disk(&mut self, id: NodeId, op: &DiskOp, failed: bool) {
        let (verb, file, offset, len) = match op {
            DiskOp::Create { file, len } => (DiskVerb::Create, Some(file), 0, *len),
            DiskOp::Write { file, offset, data } => {
                (DiskVerb::Write, Some(file), *offset, data.len() as u64)
            }
            DiskOp::Sync { file } => (DiskVerb::Sync, Some(file), 0, 0),
            DiskOp::Rename { to, .. } => (DiskVerb::Rename, Some(to), 0, 0),
            DiskOp::Remove { file } => (DiskVerb::Remove, Some(file), 0, 0),
            DiskOp::SyncDir => (DiskVerb::SyncDir, None, 0, 0),
        };
        let file = file.map_or(0, |file| self.text(&file.to_string()));
        let (step, lane) = (self.step, self.node(id));
        self.recording.disk.push(DiskWork { step, lane, verb, file, offset, len, failed });
    }

    /// A node has changed its log.
    fn wrote(&mut self, id: NodeId) {
        if let Some(known) = self.known.get_mut(id.0 as usize) {
            known.wrote = true;
        }
    }

    /// The disk of a node that goes down has crashed.
    fn crashes(&mut self, id: NodeId, crash: Crash, before: &DiskStats, now: &DiskStats) {
        let lost = [
            (now.sectors_lost - before.sectors_lost, "unsynced sectors lost"),
            (now.entries_lost - before.entries_lost, "unsynced names lost"),
        ];
        let lost = lost.iter().filter(|(count, _)| *count > 0);
        let lost: Vec<String> = lost.map(|(count, what)| format!("{count} {what}")).collect();
        match crash {
            Crash::Kill if self.has_stopped(id) => {}
            Crash::Kill => self.mark(Some(id), MarkKind::Kill, ""),
            _ => self.mark(Some(id), MarkKind::Crash, &lost.join(", ")),
        }
        let torn = now.sectors_torn - before.sectors_torn;
        if torn > 0 {
            self.mark(Some(id), MarkKind::Torn, &format!("{torn} sectors half written"));
        }
    }

    /// Something has happened to a node, or to nobody in particular.
    fn mark(&mut self, id: Option<NodeId>, kind: MarkKind, text: &str) {
        let lane = id.map_or(STORM, |id| self.node(id));
        let (step, text) = (self.step, self.text(text));
        self.recording.marks.push(Mark { step, lane, kind, text });
    }

    /// Whether a node has stopped by itself in this event, and said so.
    fn has_stopped(&self, id: NodeId) -> bool {
        let stop = |mark: &Mark| mark.kind == MarkKind::Stop && mark.lane == self.node(id);
        self.recording.marks.last().is_some_and(|mark| mark.step == self.step && stop(mark))
    }

    /// A client's process was replaced.
    fn client_restarts(&mut self, lane: u32) {
        let (step, lane, kind) = (self.step, self.hand(lane), MarkKind::ClientRestart);
        self.recording.marks.push(Mark { step, lane, kind, text: 0 });
    }

    /// A fault strikes.
    fn strikes(&mut self, number: usize, kind: &str, what: &str, victims: &[NodeId]) {
        let victims = victims.iter().map(|id| self.node(*id)).collect();
        let (kind, what) = (self.text(kind), self.text(what));
        let (number, start) = (number as u32, self.step);
        self.recording.faults.push(FaultSpan { number, kind, what, start, end: 0, victims });
    }

    /// A fault ends; all do if it has no number.
    fn mends(&mut self, number: Option<usize>) {
        let is_it = |fault: &&mut FaultSpan| {
            fault.end == 0 && number.is_none_or(|number| fault.number as usize == number)
        };
        let ended = self.recording.faults.iter_mut().filter(is_it);
        ended.for_each(|fault| fault.end = self.step);
    }

    /// Entries are committed for the first time.
    fn commits(&mut self, fresh: std::ops::RangeInclusive<LogIndex>) {
        self.recording.commits.extend(fresh.map(|index| (index, self.step)));
    }

    // ---- operations ----

    /// A client calls.
    fn calls<S: Service>(&mut self, lane: u32, call: &Call, recorded: Option<usize>) {
        let number = self.recording.ops.len() as u32;
        let op = &call.op;
        let what = Call { node: None, ..call.clone() };
        let asked = Asked::of::<S>(op);
        let op = parsed::<S>(op);
        let keys = op.as_ref().map_or_else(Vec::new, S::subjects).join(" ");
        let (what, keys) = (self.text(&what.to_string()), self.text(&keys));
        let (call, at) = (self.step, self.hand(lane));
        self.recording.ops.push(Operation { lane: at, call, what, keys, ..Operation::default() });
        self.asked.push(asked);
        self.open[lane as usize] = Some(number);
        self.answered[lane as usize] = 0;
        self.recorded.extend(recorded.map(|recorded| (recorded, number)));
    }

    /// A node's answer speaks of the log up to here.
    fn hears(&mut self, lane: u32, index: LogIndex) {
        self.answered[lane as usize] = index;
    }

    /// A client's operation has ended.
    fn returns(&mut self, lane: u32, outcome: &history::Outcome) {
        let Some(number) = self.open[lane as usize].take() else { return };
        let answer = self.text(&failure::answer(outcome));
        let op = &mut self.recording.ops[number as usize];
        (op.ret, op.answer) = (self.step, answer);
        op.outcome = match outcome {
            history::Outcome::Ok(_) => Answered::Ok,
            history::Outcome::Fail => Answered::Refused,
            history::Outcome::Info => Answered::Unknown,
        };
        // Where a write took effect is not for its answer to say.
        if op.outcome == Answered::Ok && self.asked[number as usize] != Asked::Write {
            op.index = self.answered[lane as usize];
        }
    }

    // ---- the end ----

    /// All events are over.
    fn over(&mut self) {
        self.over = true;
    }

    /// What fails the run next is this message.
    fn accuse(&mut self, mail: MessageId) {
        self.accused = mail;
    }

    /// The run has failed, because of this node or of whom the present event happens to.
    fn blame(&mut self, node: Option<NodeId>, proof: &[usize]) {
        // Faults that end, and the end of all faults, happen to nobody, but start nodes. More may
        // have happened to the one that was started last.
        let marks = self.recording.marks.iter().rev().take_while(|mark| mark.step == self.step);
        let started =
            marks.filter(|mark| mark.kind == MarkKind::Start).map(|mark| mark.lane).next();
        let present = started.or(self.recording.steps.last().map(|step| step.lane));
        let present = present.filter(|lane| {
            !self.over && self.recording.lanes[usize::from(*lane)].kind == LaneKind::Node
        });
        self.recording.blamed = node.map(|id| self.node(id)).or(present);
        self.recording.lie = std::mem::take(&mut self.accused);
        self.proof = proof.to_vec();
        self.late = self.over;
    }

    fn text(&mut self, text: &str) -> u32 {
        self.recording.strings.number(text)
    }
}

impl<S: Service> Simulation<'_, S> {
    /// The recording of a run that is over.
    pub(in crate::simulation) fn take_recording(&mut self, failed: bool) -> Option<Recording> {
        let mut recorder = *self.observers.take_recorder()?;
        self.place_operations(&mut recorder);
        for recorded in &recorder.proof {
            if let Some(op) = recorder.recorded.get(recorded) {
                recorder.recording.ops[*op as usize].proof = true;
            }
        }
        let mut recording = recorder.recording;
        recording.entries.sort_unstable_by_key(|entry| (entry.index, entry.term));
        if failed {
            recording.past = past::find(&recording, recorder.late);
        }
        Some(recording)
    }
}

/// Terms in a row, each with how often it comes.
fn runs(terms: impl IntoIterator<Item = u64>) -> Vec<TermRun> {
    let mut runs: Vec<TermRun> = Vec::new();
    for term in terms {
        match runs.last_mut() {
            Some(run) if run.term == term => run.count += 1,
            _ => runs.push(TermRun { count: 1, term }),
        }
    }
    runs
}
