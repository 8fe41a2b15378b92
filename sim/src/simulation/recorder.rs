//! Films a run: fills the tables of a [`Recording`] while it goes on, if somebody wants one.
//!
//! Whatever happens in an event is told to the recorder where it happens, through [`Trace::film`], which
//! costs one comparison if there is no recorder. What nodes are is not told but looked at, all of them
//! after each event, so that no change can be missed. The recorder asks no question that changes the
//! answer to another: a run that is filmed is the same run.
//!
//! - `messages.rs` is told of messages,
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

pub(super) use self::messages::stopped;
use self::points::Asked;
use super::client::{Client, Clients};
use super::trace::Trace;
use super::{Event, Simulation, failure};
use crate::disk::{Crash, DiskStats};
use crate::history;
use crate::plan::{Call, Plan};
use crate::service::{Service, parsed};
use crate::view::past;
use crate::view::recording::{
    Answered, DiskVerb, DiskWork, Fate, FaultSpan, Lane, LaneKind, LaneNumber, Mark, MarkKind,
    Operation, Recording, STORM, State, Step, StepKind, StepNumber, TermRun,
};

/// Takes the film, once the run is over.
pub type RecordingSink = Box<dyn FnMut(Recording)>;

/// A row of [`Recording::letters`], plus one; 0 if nobody films.
pub(super) type MessageId = u32;

/// What is known of a node.
#[derive(Default)]
struct Known {
    state: State,
    /// The first entry of its log, and the terms from there on.
    first: LogIndex,
    terms: VecDeque<u64>,
    life: u64,
    membership: Option<Membership>,
    /// It has changed its log in this event, as far as can be told without a look.
    wrote: bool,
}

#[derive(Default)]
pub(super) struct Recorder {
    film: Recording,
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
    fn new<S: Service>(plan: &Plan, clients: &Clients<S>) -> Recorder {
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
        lanes.extend(clients.all.iter().map(|client| lane(LaneKind::Client, client.name())));
        recorder.film.lanes = lanes;
        recorder
    }

    fn node(&self, id: NodeId) -> LaneNumber {
        self.nodes.get(id.0 as usize).copied().unwrap_or(STORM)
    }

    fn hand(&self, lane: u32) -> LaneNumber {
        self.first_client + lane as LaneNumber
    }

    fn begin(&mut self, step: u64, at_ns: u64) {
        self.step = step as StepNumber;
        let kind = StepKind::PutOff;
        self.film.steps.push(Step { at_ns, lane: STORM, kind });
    }

    /// The present event is this one; it may turn out that it cannot happen yet.
    fn event(&mut self, event: &Event, kind: StepKind) {
        let lane = match event {
            Event::Client { client, .. } | Event::Tell { client, .. } => self.hand(*client),
            Event::Restart { client } => {
                let hand = self.hands.iter().position(|number| number == client);
                hand.map_or(STORM, |hand| self.hand(hand as u32))
            }
            event => failure::owner(event).map_or(STORM, |id| self.node(id)),
        };
        if let Some(step) = self.film.steps.last_mut() {
            (step.lane, step.kind) = (lane, kind);
        }
    }

    // ---- nodes and disks ----

    /// A disk has carried out an operation, or failed to.
    pub fn disk(&mut self, id: NodeId, op: &DiskOp, failed: bool) {
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
        self.film.disk.push(DiskWork { step, lane, verb, file, offset, len, failed });
    }

    /// A node has changed its log.
    pub fn wrote(&mut self, id: NodeId) {
        if let Some(known) = self.known.get_mut(id.0 as usize) {
            known.wrote = true;
        }
    }

    /// Something has happened to a node, or to nobody in particular.
    pub fn mark(&mut self, id: Option<NodeId>, kind: MarkKind, text: &str) {
        let lane = id.map_or(STORM, |id| self.node(id));
        let (step, text) = (self.step, self.text(text));
        self.film.marks.push(Mark { step, lane, kind, text });
    }

    /// Whether a node has stopped by itself in this event, and said so.
    fn has_stopped(&self, id: NodeId) -> bool {
        let stop = |mark: &Mark| mark.kind == MarkKind::Stop && mark.lane == self.node(id);
        self.film.marks.last().is_some_and(|mark| mark.step == self.step && stop(mark))
    }

    /// A client's process was replaced.
    pub fn client_restarts(&mut self, lane: u32) {
        let (step, lane, kind) = (self.step, self.hand(lane), MarkKind::ClientRestart);
        self.film.marks.push(Mark { step, lane, kind, text: 0 });
    }

    /// A fault strikes.
    pub fn strikes(&mut self, number: usize, kind: &str, what: &str, victims: &[NodeId]) {
        let victims = victims.iter().map(|id| self.node(*id)).collect();
        let (kind, what) = (self.text(kind), self.text(what));
        let (number, start) = (number as u32, self.step);
        self.film.faults.push(FaultSpan { number, kind, what, start, end: 0, victims });
    }

    /// A fault ends; all do if it has no number.
    pub fn mends(&mut self, number: Option<usize>) {
        let is_it = |fault: &&mut FaultSpan| {
            fault.end == 0 && number.is_none_or(|number| fault.number as usize == number)
        };
        let ended = self.film.faults.iter_mut().filter(is_it);
        ended.for_each(|fault| fault.end = self.step);
    }

    /// Entries are committed for the first time.
    pub fn commits(&mut self, fresh: std::ops::RangeInclusive<LogIndex>) {
        self.film.commits.extend(fresh.map(|index| (index, self.step)));
    }

    // ---- operations ----

    /// A client calls.
    pub fn calls<S: Service>(&mut self, lane: u32, call: &Call, recorded: Option<usize>) {
        let number = self.film.ops.len() as u32;
        let op = &call.op;
        let what = Call { node: None, ..call.clone() };
        let asked = Asked::of::<S>(op);
        let op = parsed::<S>(op);
        let keys = op.as_ref().map_or_else(Vec::new, S::subjects).join(" ");
        let (what, keys) = (self.text(&what.to_string()), self.text(&keys));
        let (call, at) = (self.step, self.hand(lane));
        self.film.ops.push(Operation { lane: at, call, what, keys, ..Operation::default() });
        self.asked.push(asked);
        self.open[lane as usize] = Some(number);
        self.answered[lane as usize] = 0;
        self.recorded.extend(recorded.map(|recorded| (recorded, number)));
    }

    /// A node's answer speaks of the log up to here.
    pub fn hears(&mut self, lane: u32, index: LogIndex) {
        self.answered[lane as usize] = index;
    }

    /// A client's operation has ended.
    pub fn returns(&mut self, lane: u32, outcome: &history::Outcome) {
        let Some(number) = self.open[lane as usize].take() else { return };
        let answer = self.text(&failure::answer(outcome));
        let op = &mut self.film.ops[number as usize];
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
    pub fn over(&mut self) {
        self.over = true;
    }

    /// What fails the run next is this message.
    pub fn accuse(&mut self, mail: MessageId) {
        self.accused = mail;
    }

    /// The run has failed, because of this node or of whom the present event happens to.
    pub fn blame(&mut self, node: Option<NodeId>, proof: &[usize]) {
        // Faults that end, and the end of all faults, happen to nobody, but start nodes. More may
        // have happened to the one that was started last.
        let marks = self.film.marks.iter().rev().take_while(|mark| mark.step == self.step);
        let started =
            marks.filter(|mark| mark.kind == MarkKind::Start).map(|mark| mark.lane).next();
        let present = started.or(self.film.steps.last().map(|step| step.lane));
        let present = present.filter(|lane| {
            !self.over && self.film.lanes[usize::from(*lane)].kind == LaneKind::Node
        });
        self.film.blamed = node.map(|id| self.node(id)).or(present);
        self.film.lie = std::mem::take(&mut self.accused);
        self.proof = proof.to_vec();
        self.late = self.over;
    }

    fn text(&mut self, text: &str) -> u32 {
        self.film.strings.number(text)
    }
}

impl Trace {
    /// Tells the recorder, if there is one.
    pub fn film<T: Default>(&mut self, tell: impl FnOnce(&mut Recorder) -> T) -> T {
        self.recorder.as_mut().map(|recorder| tell(recorder)).unwrap_or_default()
    }
}

impl<S: Service> Simulation<'_, S> {
    pub(super) fn start_filming(&mut self) {
        self.trace.recorder = Some(Box::new(Recorder::new(self.plan, &self.clients)));
    }

    /// An event begins.
    pub(super) fn film_step(&mut self) {
        let (step, now_ns) = (self.step, self.now_ns);
        self.trace.film(|recorder| recorder.begin(step, now_ns));
    }

    /// What the present event is; whether it can happen now is not known yet, or it is by now.
    pub(super) fn film_event(&mut self, event: &Event, happens: bool) {
        let kind = if happens { kind(event) } else { StepKind::PutOff };
        self.trace.film(|recorder| recorder.event(event, kind));
    }

    /// An event is over: looks at everybody.
    pub(super) fn film_all(&mut self) {
        let Some(recorder) = &mut self.trace.recorder else { return };
        for slot in self.slots.iter().flatten() {
            recorder.look(slot, self.safety.durable(slot.id));
        }
        recorder.look_at_links(&self.network);
    }

    /// What waits for a node that goes down is lost with it.
    pub(super) fn film_forgotten(&mut self, id: NodeId) {
        let Some(recorder) = &mut self.trace.recorder else { return };
        let Some(slot) = self.slots.get(id.0 as usize).and_then(Option::as_ref) else { return };
        let waiting = slot.inbox.iter().flat_map(|inbox| inbox.waiting());
        for event in slot.deferred.iter().chain(waiting) {
            recorder.ends(mail(event), Fate::Forgotten, false);
        }
    }

    /// A node goes down; `before` is what its disk had done until then.
    pub(super) fn film_down(&mut self, id: NodeId, crash: Crash, before: DiskStats) {
        let Some(recorder) = &mut self.trace.recorder else { return };
        let Some(slot) = self.slots.get(id.0 as usize).and_then(Option::as_ref) else { return };
        let now = slot.disk.stats();
        let lost = [
            (now.sectors_lost - before.sectors_lost, "unsynced sectors lost"),
            (now.entries_lost - before.entries_lost, "unsynced names lost"),
        ];
        let lost = lost.iter().filter(|(count, _)| *count > 0);
        let lost: Vec<String> = lost.map(|(count, what)| format!("{count} {what}")).collect();
        match crash {
            Crash::Kill if recorder.has_stopped(id) => {}
            Crash::Kill => recorder.mark(Some(id), MarkKind::Kill, ""),
            _ => recorder.mark(Some(id), MarkKind::Crash, &lost.join(", ")),
        }
        let torn = now.sectors_torn - before.sectors_torn;
        if torn > 0 {
            recorder.mark(Some(id), MarkKind::Torn, &format!("{torn} sectors half written"));
        }
    }

    /// The film of a run that is over.
    pub(super) fn take_film(&mut self, failed: bool) -> Option<Recording> {
        let mut recorder = *self.trace.recorder.take()?;
        self.place_operations(&mut recorder);
        for recorded in &recorder.proof {
            if let Some(op) = recorder.recorded.get(recorded) {
                recorder.film.ops[*op as usize].proof = true;
            }
        }
        let mut film = recorder.film;
        film.entries.sort_unstable_by_key(|entry| (entry.index, entry.term));
        if failed {
            film.past = past::find(&film, recorder.late);
        }
        Some(film)
    }
}

/// The message that an event is about, if it is about one.
pub(super) fn mail(event: &Event) -> MessageId {
    match event {
        Event::Deliver { mail, .. }
        | Event::DeliverFrame { mail, .. }
        | Event::DeliverGarbled { mail, .. }
        | Event::Ask { mail, .. }
        | Event::Tell { mail, .. } => *mail,
        _ => 0,
    }
}

/// Whether a client waits for an answer with this token.
pub(super) fn waits<S: Service>(client: &Client<S>, token: u64) -> bool {
    client.current.as_ref().is_some_and(|current| token >= current.first_token)
}

/// What an event is once it happens.
fn kind(event: &Event) -> StepKind {
    match event {
        Event::Tick { .. } => StepKind::Tick,
        Event::Deliver { .. } | Event::DeliverFrame { .. } | Event::DeliverGarbled { .. } => {
            StepKind::Deliver
        }
        Event::Unreachable { .. } => StepKind::Notice,
        Event::Ask { .. } => StepKind::Request,
        Event::Tell { .. } => StepKind::Reply,
        Event::Restart { .. } => StepKind::ClientRestart,
        Event::Client { .. } => StepKind::Client,
        Event::DiskStep { .. } | Event::Worked { .. } => StepKind::Disk,
        Event::Fetched { .. } => StepKind::Read,
        Event::Flush { .. } => StepKind::Flush,
        Event::Complete { .. } => StepKind::Complete,
        Event::Serve { .. } => StepKind::Serve,
        Event::CrashAgain { .. } => StepKind::CrashAgain,
        Event::Fault(_) => StepKind::Fault,
        Event::Mend(_) => StepKind::Mend,
        Event::Start { .. } => StepKind::Start,
        Event::Heal => StepKind::Heal,
        Event::Rest => StepKind::Rest,
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
