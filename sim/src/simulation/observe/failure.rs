//! What a report about a failure needs of its run: collected only when a run is made for that report.
//!
//! A line belongs to the node that the event happens to, never to whatever its text mentions: a
//! message to its receiver when it arrives, a vote that is granted to its sender, too. Ticks,
//! heartbeats and the like keep a cluster alive and explain nothing; they are left out. What
//! clients ask and hear belongs to their operations, and what a disk does is only shown of the node
//! that the violation is about.

use std::collections::{BTreeMap, VecDeque};

use stormkv::node::{Role, Status};
use stormkv::types::NodeId;

use super::super::Simulation;
use super::super::client::Current;
use super::super::event::Weight;
use super::super::node::SimNode;
use super::{Observation, Stamp, text};
use crate::caught::caught;
use crate::history::{Answer, Outcome, describe_answer};
use crate::plan::Who;
use crate::recording::Fate;
use crate::service::{Describe, Service};

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
pub(in crate::simulation) struct FailureRecorder {
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

impl FailureRecorder {
    /// Takes in an observation, with the line that a trace has of it.
    pub fn observe(
        &mut self,
        now: Stamp,
        describe: Describe,
        observation: &Observation<'_>,
        line: Option<&str>,
    ) {
        self.follow(observation);
        if let Some(line) = line {
            self.record(now, line);
        }
        if let Some((id, text)) = text::note(describe, observation) {
            self.push(id, Weight::Full, now.step, now.at_ns, text);
        }
        match observation {
            Observation::Called { row, recorded: Some(recorded), .. } => {
                self.rows.insert(*recorded, *row);
            }
            Observation::RequestArrives { recorded, .. }
            | Observation::ReplyArrives { recorded, .. } => {
                self.attempt(now, *recorded, line.unwrap_or_default().to_owned());
            }
            Observation::StaleAnswer { node, index, recorded } => {
                self.attempt(now, *recorded, format!("{node} is about to answer as of {index}"));
            }
            Observation::Left(id, status) => drop(self.left.insert(*id, State::from(**status))),
            Observation::Returned { lane, row, since_ns, outcome } => {
                let (lane, row, since_ns, at_ns) = (*lane, *row, *since_ns, now.at_ns);
                let ended = Ended { row, lane, since_ns, at_ns, outcome: (*outcome).clone() };
                keep(&mut self.ended, OPERATIONS, ended);
            }
            Observation::FaultBegun(at, fault, victims) => {
                let what = match (fault.who(), victims.first()) {
                    (Some(Who::Leader | Who::Same), Some(id)) => format!("{fault} ({id})"),
                    _ => fault.to_string(),
                };
                let struck = Struck { at_ns: now.at_ns, end_ns: None, what };
                keep(&mut self.faults, FAULTS, (*at, struck));
            }
            Observation::FaultCleared(at) => self.cleared(now, |number| number == *at),
            Observation::Healed(_) => self.cleared(now, |_| true),
            Observation::Violated(node, proof) => self.blame(*node, proof),
            _ => {}
        }
    }

    /// Follows the node that the lines to come belong to.
    fn follow(&mut self, observation: &Observation<'_>) {
        let (node, weight) = match observation {
            Observation::Due(event) => (event.concerns(), event.weight()),
            Observation::Taken(id, event) => (Some(*id), event.weight()),
            Observation::Paused(_) | Observation::Busy(_) | Observation::Aside => {
                (None, Weight::None)
            }
            // That says nothing that its receiver's state does not say.
            Observation::LostOnArrival { fate: Fate::Down, .. } => (None, Weight::None),
            Observation::Arrives { ends: (_, to), message, damaged: false } => {
                (Some(*to), Weight::of(message))
            }
            Observation::StartDue { node, starts } => {
                (Some(*node), if *starts { Weight::Full } else { Weight::None })
            }
            Observation::Down(id) | Observation::Lost(id, _) => (Some(*id), Weight::Full),
            _ => return,
        };
        (self.present, self.weight, self.hushed) = (node, weight, None);
    }

    fn record(&mut self, now: Stamp, text: &str) {
        let Some(id) = self.present else { return };
        let Stamp { step, at_ns } = now;
        let text = text.to_owned();
        match self.weight {
            Weight::None => self.hushed = Some(Line { step, at_ns, text, times: 1 }),
            weight => self.push(id, weight, step, at_ns, text),
        }
    }

    /// What a client asked or heard of an operation.
    fn attempt(&mut self, now: Stamp, op: Option<usize>, text: String) {
        let Some(op) = op else { return };
        let line = Line { step: now.step, at_ns: now.at_ns, text, times: 1 };
        keep(self.attempts.entry(op).or_default(), ATTEMPTS, line);
    }

    /// These faults are over.
    fn cleared(&mut self, now: Stamp, which: impl Fn(usize) -> bool) {
        let open = self.faults.iter_mut().filter(|(_, struck)| struck.end_ns.is_none());
        let over = open.filter(|(number, _)| which(*number));
        over.for_each(|(_, struck)| struck.end_ns = Some(now.at_ns));
    }

    /// The run has failed because of a node, or else because of the one that the present event
    /// concerns; these operations prove it.
    fn blame(&mut self, node: Option<NodeId>, proof: &[usize]) {
        self.about = node.or(self.present);
        if let (Some(id), Some(line)) = (self.present, self.hushed.take()) {
            let lines = self.lines.entry(id).or_default().of(Weight::Full);
            let at = lines.iter().position(|other| other.step >= line.step);
            lines.insert(at.unwrap_or(lines.len()), line);
        }
        self.proof = proof.to_vec();
        self.late = self.about.is_none() && !proof.is_empty();
    }
}

impl<S: Service> Simulation<'_, S> {
    /// What was recorded, of a run that is over.
    pub(in crate::simulation) fn take_record(&mut self) -> Option<FailureReport> {
        let mut recorder = *self.observers.take_failure()?;
        let (choice, operations) = self.chosen(&recorder);
        let about = recorder.about;
        let faults = recorder.faults.drain(..).map(|(_, struck)| struck).collect();
        let mut nodes: Vec<NodeRecord> = self
            .cluster
            .iter()
            .map(|slot| {
                let id = slot.id;
                let lines = recorder.lines.remove(&id).filter(|_| !recorder.late);
                let lines = lines.unwrap_or_default().last(about == Some(id));
                let state = slot.state().or_else(|| recorder.left.get(&id).copied());
                NodeRecord { id, condition: slot.condition(), state, lines }
            })
            .collect();
        let gone = |id: NodeId| self.cluster.get(id).is_some_and(SimNode::is_gone);
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
            client: self.clients.all[ended.lane as usize].name().to_owned(),
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
            client: self.clients.all[lane as usize].name().to_owned(),
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
        match (&self.stopped, self.faults.lost()) {
            (_, Some(loss)) => loss.describe().trim_start_matches("is ").to_owned(),
            (_, None) if self.faults.is_retired() => "left the cluster".to_owned(),
            (_, None) if self.faults.is_wiped() => "its disk is gone".to_owned(),
            (Some(reason), None) if !self.is_up() => format!("stopped by itself ({reason})"),
            (_, None) if !self.is_up() && self.incarnation == 0 => "never started".to_owned(),
            (_, None) if !self.is_up() => "down".to_owned(),
            (_, None) if self.faults.is_paused() => "paused".to_owned(),
            (_, None) if self.faults.disk_hangs() => "up, its disk hangs".to_owned(),
            (_, None) if repairs(self) => "up, damaged".to_owned(),
            (_, None) => "up".to_owned(),
        }
    }
}
