//! What a page about a failure needs of its run: collected only when a run is made for that page,
//! and free of charge otherwise.
//!
//! A line belongs to the node that the event happens to, never to whatever its text mentions: a
//! message to its receiver when it arrives, a vote that is granted to its sender, too. Ticks,
//! heartbeats and the like keep a cluster alive and explain nothing; they are left out. What
//! clients ask and hear belongs to their operations, and what a disk does is only told of the node
//! that the violation is about. What the recorder alone is told ([`Trace::note`]) is no part of a
//! trace.

use std::collections::{BTreeMap, VecDeque};

use stormkv::node::{Role, Status};
use stormkv::types::NodeId;
use stormkv::wire::{Kind, Message};

use super::client::Current;
use super::node::SimNode;
use super::trace::Trace;
use super::{Event, Simulation};
use crate::caught::caught;
use crate::history::{Answer, Outcome, describe_answer};
use crate::service::Service;

/// How many lines of each node are kept, and how many of its disk.
const LINES: usize = 6;
/// How many lines of each operation are kept.
const ATTEMPTS: usize = 4;
/// How many operations that have ended are kept, and how many are told in all.
const OPERATIONS: usize = 8;
/// How many operations are told that were open.
const OPEN: usize = 5;
/// How many faults are kept.
const FAULTS: usize = 4;

/// Takes what was recorded of a run that failed.
pub type Record = Box<dyn FnMut(FailureReport)>;

/// What was recorded of a run that failed: all that a page about it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureReport {
    /// What the operations below are.
    pub choice: Choice,
    /// Operations, in the order of their calls.
    pub operations: Vec<Operation>,
    /// The last faults that struck, in order.
    pub faults: Vec<Struck>,
    /// All nodes that there ever were: first the one that the violation is about, then those that
    /// may still take part, by their numbers.
    pub nodes: Vec<NodeRecord>,
}

/// Which operations were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// They prove the violation.
    Proof,
    /// They were under way, or had just ended.
    Around {
        /// How many were under way.
        open: usize,
        /// How many of these are told.
        told: usize,
    },
}

impl Default for Choice {
    fn default() -> Choice {
        Choice::Around { open: 0, told: 0 }
    }
}

/// One operation of a client, or of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it began.
    pub call_ns: u64,
    /// When it ended; `None` if it had not.
    pub return_ns: Option<u64>,
    /// Whose it is, as traces call it.
    pub client: String,
    /// What it asks for, as a plan says it.
    pub what: String,
    /// How it ended, or how far it had come.
    pub answer: String,
    /// What its client asked and heard last, if it is part of a proof.
    pub attempts: Vec<Line>,
}

/// A fault that struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// When.
    pub at_ns: u64,
    /// When it ended, if it had.
    pub end_ns: Option<u64>,
    /// What it was, as a plan says it.
    pub what: String,
}

/// One node in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Who.
    pub id: NodeId,
    /// Whether it was up, and if not why, in a few words.
    pub condition: String,
    /// Its state, or the last one before it went down; `None` if it never was up.
    pub state: Option<State>,
    /// What happened to it last, in order; nothing if the violation was found when all was over.
    pub lines: Vec<Line>,
}

/// The state of a node, as far as a line has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its part in the term.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Index and term of the last entry of its log.
    pub last: (u64, u64),
    /// What it knows to be committed.
    pub commit: u64,
    /// What it has applied.
    pub applied: u64,
}

impl From<Status> for State {
    fn from(status: Status) -> State {
        State {
            role: status.role,
            term: status.hard_state.term,
            last: (status.last.index, status.last.term),
            commit: status.hard_state.commit,
            applied: status.applied.index,
        }
    }
}

/// Something that happened to a node, or to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the event.
    pub step: u64,
    /// When.
    pub at_ns: u64,
    /// What.
    pub text: String,
    /// How often of late; time and number are those of the last time.
    pub times: u32,
}

/// An operation that has ended.
struct Ended {
    row: usize,
    lane: u32,
    since_ns: u64,
    at_ns: u64,
    outcome: Outcome,
}

/// How much an event explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing by itself.
    #[default]
    Mere,
    /// Something, if it happens to the disk of the node that the violation is about.
    Disk,
    /// Something.
    Full,
}

/// The last lines of a node.
#[derive(Default)]
struct Lines {
    full: VecDeque<Line>,
    disk: VecDeque<Line>,
}

impl Lines {
    fn of(&mut self, weight: Weight) -> &mut VecDeque<Line> {
        if weight == Weight::Disk { &mut self.disk } else { &mut self.full }
    }

    /// The last lines, those of the disk too if it `is_blamed`.
    fn last(self, is_blamed: bool) -> Vec<Line> {
        let disk = self.disk.into_iter().filter(|_| is_blamed);
        let mut lines: Vec<Line> = self.full.into_iter().chain(disk).collect();
        lines.sort_by_key(|line| line.step);
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}

/// Collects while a run goes on.
#[derive(Default)]
pub(super) struct FailureRecorder {
    /// Whom the present event happens to.
    present: Option<NodeId>,
    weight: Weight,
    /// The line of a mere event: if it breaks something it is told after all.
    hushed: Option<Line>,
    lines: BTreeMap<NodeId, Lines>,
    /// What clients asked and heard, by operation.
    attempts: BTreeMap<usize, VecDeque<Line>>,
    /// The last states of those that went down.
    left: BTreeMap<NodeId, State>,
    ended: VecDeque<Ended>,
    /// The row of the plan of each operation in the history.
    rows: BTreeMap<usize, usize>,
    faults: VecDeque<(usize, Struck)>,
    /// Whom the violation is about, and the operations that prove it.
    about: Option<NodeId>,
    proof: Vec<usize>,
    /// It was found when all was over.
    late: bool,
}

impl FailureRecorder {
    fn push(&mut self, id: NodeId, weight: Weight, step: u64, at_ns: u64, text: String) {
        let lines = self.lines.entry(id).or_default().of(weight);
        let earlier = lines.iter().position(|line| line.text == text);
        let earlier = earlier.and_then(|at| lines.remove(at));
        let times = earlier.map_or(1, |line| line.times + 1);
        keep(lines, LINES, Line { step, at_ns, text, times });
    }
}

fn keep<T>(queue: &mut VecDeque<T>, most: usize, item: T) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

impl Trace {
    /// What follows happens to this node, or to none.
    pub fn turn_to(&mut self, node: Option<NodeId>, weight: Weight) {
        if let Some(recorder) = &mut self.failure {
            (recorder.present, recorder.weight, recorder.hushed) = (node, weight, None);
        }
    }

    /// A line of the trace.
    pub(super) fn record(&mut self, at_ns: u64, text: &str) {
        let Some(recorder) = &mut self.failure else { return };
        let Some(id) = recorder.present else { return };
        let text = text.to_owned();
        match recorder.weight {
            Weight::Mere => {
                recorder.hushed = Some(Line { step: self.step, at_ns, text, times: 1 });
            }
            weight => recorder.push(id, weight, self.step, at_ns, text),
        }
    }

    /// What the recorder should know of a node, and no line of the trace tells.
    pub fn note(&mut self, at_ns: u64, id: NodeId, text: impl FnOnce() -> String) {
        if let Some(recorder) = &mut self.failure {
            recorder.push(id, Weight::Full, self.step, at_ns, text());
        }
    }

    /// What a client asked or heard of an operation.
    pub fn attempt(&mut self, op: Option<usize>, at_ns: u64, text: impl FnOnce() -> String) {
        if let (Some(recorder), Some(op)) = (&mut self.failure, op) {
            let line = Line { step: self.step, at_ns, text: text(), times: 1 };
            keep(recorder.attempts.entry(op).or_default(), ATTEMPTS, line);
        }
    }

    /// A node goes down.
    pub fn leaves(&mut self, id: NodeId, status: Status) {
        if let Some(recorder) = &mut self.failure {
            recorder.left.insert(id, status.into());
        }
    }

    /// An operation in the history is from this row of the plan.
    pub fn begins(&mut self, recorded: Option<usize>, row: usize) {
        if let (Some(recorder), Some(recorded)) = (&mut self.failure, recorded) {
            recorder.rows.insert(recorded, row);
        }
    }

    /// An operation has ended.
    pub fn ends<S: Service>(
        &mut self,
        lane: u32,
        current: &Current<S>,
        at_ns: u64,
        outcome: &Outcome,
    ) {
        if let Some(recorder) = &mut self.failure {
            let (row, since_ns) = (current.row, current.since_ns);
            let ended = Ended { row, lane, since_ns, at_ns, outcome: outcome.clone() };
            keep(&mut recorder.ended, OPERATIONS, ended);
        }
    }

    /// A fault strikes.
    pub fn strikes(&mut self, number: usize, at_ns: u64, what: impl FnOnce() -> String) {
        if let Some(recorder) = &mut self.failure {
            let struck = Struck { at_ns, end_ns: None, what: what() };
            keep(&mut recorder.faults, FAULTS, (number, struck));
        }
    }

    /// A fault ends; all do if it has no number.
    pub fn mends(&mut self, number: Option<usize>, at_ns: u64) {
        if let Some(recorder) = &mut self.failure {
            let ended = recorder.faults.iter_mut().filter(|(at, struck)| {
                number.is_none_or(|number| number == *at) && struck.end_ns.is_none()
            });
            ended.for_each(|(_, struck)| struck.end_ns = Some(at_ns));
        }
    }

    /// The run has failed because of a node, or else because of whom the present event happens to;
    /// these operations prove it.
    pub fn blame(&mut self, node: Option<NodeId>, proof: &[usize]) {
        if let Some(recorder) = &mut self.failure {
            recorder.about = node.or(recorder.present);
            if let (Some(id), Some(line)) = (recorder.present, recorder.hushed.take()) {
                let lines = recorder.lines.entry(id).or_default().of(Weight::Full);
                let at = lines.iter().position(|other| other.step >= line.step);
                lines.insert(at.unwrap_or(lines.len()), line);
            }
            recorder.proof = proof.to_vec();
            recorder.late = recorder.about.is_none() && !proof.is_empty();
        }
    }
}

/// Whom an event happens to, whether or not it is up.
pub(super) fn owner(event: &Event) -> Option<NodeId> {
    match event {
        Event::Start { node } | Event::CrashAgain { node, .. } | Event::Tell { node, .. } => {
            Some(*node)
        }
        event => super::event::target(event),
    }
}

/// How much an event explains.
pub(super) fn weight(event: &Event) -> Weight {
    match event {
        Event::Tick { .. }
        | Event::Flush { .. }
        | Event::Serve { .. }
        | Event::Complete { .. }
        | Event::Ask { .. }
        | Event::Tell { .. } => Weight::Mere,
        Event::DiskStep { .. } | Event::Fetched { .. } | Event::Worked { .. } => Weight::Disk,
        _ => Weight::Full,
    }
}

/// How much a message explains: one that only says that its sender is alive nothing.
pub(super) fn weight_of(message: &Message) -> Weight {
    match message.kind() {
        Kind::Heartbeat | Kind::HeartbeatResp => Weight::Mere,
        _ => Weight::Full,
    }
}

impl<S: Service> Simulation<'_, S> {
    /// What was recorded, of a run that is over.
    pub(super) fn take_record(&mut self) -> Option<FailureReport> {
        let mut recorder = *self.trace.failure.take()?;
        let (choice, operations) = self.chosen(&recorder);
        let about = recorder.about;
        let faults = recorder.faults.drain(..).map(|(_, struck)| struck).collect();
        let mut nodes: Vec<NodeRecord> = self
            .slots
            .iter()
            .flatten()
            .map(|slot| {
                let id = slot.id;
                let lines = recorder.lines.remove(&id).filter(|_| !recorder.late);
                let lines = lines.unwrap_or_default().last(about == Some(id));
                let state = slot.state().or_else(|| recorder.left.get(&id).copied());
                NodeRecord { id, condition: slot.condition(), state, lines }
            })
            .collect();
        let gone = |id: NodeId| self.slots[id.0 as usize].as_ref().is_some_and(SimNode::is_gone);
        nodes.sort_by_key(|node| (about != Some(node.id), gone(node.id), node.id));
        Some(FailureReport { choice, operations, faults, nodes })
    }

    /// The operations to tell of.
    fn chosen(&self, recorder: &FailureRecorder) -> (Choice, Vec<Operation>) {
        if !recorder.proof.is_empty() {
            let proof = recorder.proof.iter().filter_map(|&op| self.proving(recorder, op));
            return (Choice::Proof, proof.take(OPERATIONS).collect());
        }
        let mut open: Vec<(u32, &Current<S>)> = (0..)
            .zip(&self.clients.all)
            .filter_map(|(lane, client)| Some((lane, client.current.as_ref()?)))
            .collect();
        open.sort_by_key(|(lane, current)| (current.since_ns, *lane));
        let told = open.len().min(OPEN);
        let choice = Choice::Around { open: open.len(), told };
        let open = open[..told].iter().map(|(lane, current)| self.under_way(*lane, current));
        let ended = recorder.ended.iter().rev().take(OPERATIONS - told);
        let ended = ended.map(|ended| Operation {
            call_ns: ended.since_ns,
            return_ns: Some(ended.at_ns),
            client: self.clients.all[ended.lane as usize].name(),
            what: self.plan.ops[ended.row].call.op.to_string(),
            answer: answer(&ended.outcome),
            attempts: Vec::new(),
        });
        let mut operations: Vec<Operation> = open.chain(ended).collect();
        operations.sort_by_key(|operation| operation.call_ns);
        (choice, operations)
    }

    /// An operation that has not ended.
    fn under_way(&self, lane: u32, current: &Current<S>) -> Operation {
        let answer = match (current.attempts, current.target) {
            (0, _) => "open".to_owned(),
            (1, node) => format!("open, asks {node}"),
            (attempts, node) => format!("open, asks {node}, attempt {attempts}"),
        };
        Operation {
            call_ns: current.since_ns,
            return_ns: None,
            client: self.clients.all[lane as usize].name(),
            what: self.plan.ops[current.row].call.op.to_string(),
            answer,
            attempts: Vec::new(),
        }
    }

    /// An operation that is part of a proof, with its place in the log if it has one.
    fn proving(&self, recorder: &FailureRecorder, op: usize) -> Option<Operation> {
        let history = &self.clients.history;
        let recorded = history.ops().get(op)?;
        let owner = &self.clients.owner;
        let mut effects = self.safety.effects().iter();
        let effect =
            effects.find(|(_, session, number)| owner.get(&(*session, *number)) == Some(&op));
        let mut answer = match recorded.ret {
            Some(_) => answer(&recorded.outcome),
            None => "open".to_owned(),
        };
        if let Some((index, ..)) = effect {
            answer += &format!(", entry {index}");
        }
        Some(Operation {
            call_ns: recorded.call_ns.unwrap_or_default(),
            return_ns: recorded.ret_ns,
            client: history.client(recorded),
            what: match recorder.rows.get(&op) {
                Some(row) => self.plan.ops[*row].call.op.to_string(),
                None => history.phrase(recorded),
            },
            answer,
            attempts: recorder
                .attempts
                .get(&op)
                .map(|lines| lines.iter().cloned().collect())
                .unwrap_or_default(),
        })
    }
}

/// How an operation ended.
pub(super) fn answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(Answer::Done | Answer::Deleted(None)) => "ok".to_owned(),
        Outcome::Ok(Answer::Unsaid) => "ok, its answer was not kept".to_owned(),
        Outcome::Ok(answer) => describe_answer(answer).trim_start_matches(" -> ").to_owned(),
        Outcome::Fail => "refused".to_owned(),
        Outcome::Info => "unknown".to_owned(),
    }
}

impl<S: Service> SimNode<S> {
    /// The state of a node that is up. One that has panicked may not be able to tell it.
    fn state(&self) -> Option<State> {
        let driver = self.driver.as_ref()?;
        caught(|| State::from(driver.node().status())).ok()
    }

    /// Whether it is up, and if not why.
    fn condition(&self) -> String {
        let repairs = |slot: &SimNode<S>| {
            let driver = slot.driver.as_ref();
            driver.is_some_and(|driver| {
                caught(|| driver.node().damage().is_some()).unwrap_or_default()
            })
        };
        match (&self.stopped, self.lost) {
            (_, Some(loss)) => loss.describe().trim_start_matches("is ").to_owned(),
            (_, None) if self.retired => "left the cluster".to_owned(),
            (_, None) if self.wiped => "its disk is gone".to_owned(),
            (Some(reason), None) if !self.is_up() => format!("stopped by itself ({reason})"),
            (_, None) if !self.is_up() && self.life == 0 => "never started".to_owned(),
            (_, None) if !self.is_up() => "down".to_owned(),
            (_, None) if self.paused => "paused".to_owned(),
            (_, None) if self.stalled => "up, its disk hangs".to_owned(),
            (_, None) if repairs(self) => "up, damaged".to_owned(),
            (_, None) => "up".to_owned(),
        }
    }
}
