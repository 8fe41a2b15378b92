//! The clients: each does its operations one after the other, through sessions, repeats what is
//! not answered at another node, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use stormkv::api::{Consistency, Reconfigure, Refusal, Reply, Request};
use stormkv::types::{LogIndex, NodeId, SessionId};

use super::goodput::Goodput;
use super::requests::Requests;
use crate::checker::witness;
use crate::history::{Action, History, Model};
use crate::network::Endpoint;
use crate::plan::{Call, Manner, Op, OpRow, Part, Plan};
use crate::rng::{Purpose, Stream};
use crate::service::{self, Pending, Service, parsed};

/// One clean run in so many is also judged without the help of the log's order.
pub(super) const BLACK_BOX_SAMPLE: u64 = 8;

/// An operation of the service that is under way.
pub(super) type PendingOf<S> = <<S as Service>::Client as service::Client>::Pending;

/// An operation that is under way.
pub(super) struct Current<S: Service> {
    pub row: usize,
    /// Its number in the history; the operator's are not part of it.
    pub recorded: Option<usize>,
    pub since_ns: u64,
    /// The tokens of its attempts so far: from here to the client's newest.
    pub first_token: u64,
    pub attempts: u32,
    /// How many attempts asked for the operation itself, and how many of these were refused
    /// before they were put into a log.
    pub sent: u32,
    pub refused: u32,
    /// An attempt went unanswered: it may have had an effect, or may have one still.
    pub ambiguous: bool,
    /// The attempt under way opens the session that the operation needs.
    pub opening: bool,
    /// Waits before the next attempt, instead of for an answer.
    pub pausing: bool,
    /// Where to go next.
    pub target: NodeId,
    /// What was committed when a read was sent last, and when it was sent first.
    pub floor: LogIndex,
    pub first_floor: LogIndex,
    /// It removes the node that led when it began.
    pub removes_leader: bool,
    /// The operation of the service; `None` for one of the operator.
    pub pending: Option<PendingOf<S>>,
    /// The member that an operation on "the leader" is about, as soon as there was one.
    pub aim: Option<NodeId>,
    /// The member that is moved does not vote.
    pub learns: bool,
}

impl<S: Service> Current<S> {
    /// Returns whether it is a command, which goes through the log.
    pub fn is_command(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !S::is_read(pending.op()))
    }

    /// Returns whether it is a command that has a number in a session.
    pub fn uses_session(&self, manner: Manner) -> bool {
        self.is_command() && manner != Manner::NoSession
    }
}

/// One of the hands of a client: what it does, one thing at a time. Most clients have one.
pub(super) struct Client<S: Service> {
    /// Whose hand it is.
    pub number: u32,
    name: String,
    pub rows: VecDeque<usize>,
    pub session: Option<SessionId>,
    /// The number of the newest command in the session.
    pub command: u64,
    /// The newest command that is known to be applied: its session, its number and its row.
    pub applied: Option<(SessionId, u64, usize)>,
    /// What it remembers of answers.
    pub memory: S::Client,
    pub current: Option<Current<S>>,
    pub token: u64,
    /// The process in the history: a new one after each operation of unknown outcome.
    pub process: u64,
    pub choices: Stream,
}

/// A command without a session: nothing in the log says whose it is but what it does.
pub(super) struct Loose {
    /// Its number in the history.
    pub recorded: usize,
    pub command: Bytes,
    /// Where it was applied, as far as its client knows.
    pub index: Option<LogIndex>,
}

/// All clients, and what they were told.
pub(super) struct Clients<S: Service> {
    /// By lane: the first hands of all clients in the order of their numbers, then the others.
    pub all: Vec<Client<S>>,
    pub history: History,
    /// The requests, in a run that the service's own search judges.
    pub requests: Option<Requests>,
    /// Which recorded operation a command belongs to.
    pub owner: FxHashMap<(SessionId, u64), usize>,
    /// The commands without a session, in the order of their calls.
    pub loose: Vec<Loose>,
    /// The state from which a node answered a client last: its incarnation, and the index.
    pub shown: BTreeMap<(u32, NodeId), (u64, LogIndex)>,
    /// For each command that was refused: how many attempts were made, and how many refused.
    pub refused: BTreeMap<(SessionId, u64), (u32, u32)>,
    /// In a window of a long run: the recorded operation that writes what there was before.
    pub before: Option<witness::Applied>,
    pub acknowledged: u64,
    pub goodput: Goodput,
    /// Who was replaced by whom.
    pub replaced: Vec<(NodeId, NodeId)>,
    /// When an operation began or ended last.
    pub progress_ns: u64,
    /// Requests for changes of the membership that went unanswered: copies of them may still be on
    /// their way.
    pub doubtful_changes: Vec<Reconfigure>,
    /// The operator has asked for a change without regard to what is lost.
    pub was_imprudent: bool,
    /// The changes that a leader was asked to make whatever it thinks of them.
    pub forced: Vec<Reconfigure>,
}

/// Gives each client its rows, to its hands in turn.
fn deal<S: Service>(clients: &mut [Client<S>], plan: &Plan) {
    let count = clients.iter().map(|client| client.number).max().unwrap_or(0);
    let mut lanes = vec![Vec::new(); count as usize + 1];
    for (lane, client) in clients.iter().enumerate() {
        lanes[client.number as usize].push(lane);
    }
    for (at, row) in plan.ops.iter().enumerate() {
        if row.call.op != Op::Restart {
            let turns = &mut lanes[row.client as usize];
            clients[turns[0]].rows.push_back(at);
            turns.rotate_left(1);
        }
    }
}

impl<S: Service> Clients<S> {
    /// Gives the clients, who have done all that they had to do, the rows of another plan.
    pub fn deal(&mut self, plan: &Plan) {
        // They name rows of the plan before.
        self.all.iter_mut().for_each(|client| client.applied = None);
        deal(&mut self.all, plan);
    }

    /// The recorded operation's command without a session was acknowledged at `index`.
    pub fn applied_loose(&mut self, recorded: Option<usize>, index: LogIndex) -> &Loose {
        let loose = self.loose.iter_mut().rfind(|loose| Some(loose.recorded) == recorded);
        let loose = loose.expect("it was sent");
        loose.index = Some(index);
        loose
    }

    pub fn new(plan: &Plan) -> Self {
        let count =
            plan.ops.iter().map(|row| row.client).max().unwrap_or(0).max(plan.clients.count);
        let hands = |number| match number {
            0 => plan.clients.operators,
            _ => plan.clients.in_flight,
        };
        let most = hands(0).max(hands(1));
        let places = (0..most).flat_map(|hand| (0..=count).map(move |number| (number, hand)));
        let mut all: Vec<Client<S>> = (0..)
            .zip(places.filter(|(number, hand)| *hand < hands(*number)))
            .map(|(lane, (number, hand))| Client {
                number,

                name: name(number, hand),
                rows: VecDeque::new(),
                session: None,
                command: 0,
                applied: None,
                memory: S::Client::default(),
                current: None,
                token: lane << 40,
                process: lane,
                choices: Stream::new(plan.seed, Purpose::Client, [lane]),
            })
            .collect();
        deal(&mut all, plan);
        // A new process of a client has a number that is greater by the number of lanes.
        let names = all.iter().map(|client| client.name.clone()).collect();
        Clients {
            all,
            history: History::new(Model::Kv).called(names),
            requests: (S::SEARCH.is_some() && plan.seed.is_multiple_of(BLACK_BOX_SAMPLE))
                .then(Requests::default),
            owner: FxHashMap::default(),
            loose: Vec::new(),
            shown: BTreeMap::new(),
            refused: BTreeMap::new(),
            before: None,
            acknowledged: 0,
            goodput: Goodput::default(),
            replaced: Vec::new(),
            progress_ns: 0,
            doubtful_changes: Vec::new(),
            was_imprudent: false,
            forced: Vec::new(),
        }
    }

    /// Whether some client waits for the answer to a command, which goes through the log.
    pub fn have_commands_open(&self, plan: &Plan) -> bool {
        let open = |current: &Current<S>| {
            let op = &plan.ops[current.row].call.op;
            current.sent > 0 && !op.is_admin()
        };
        self.all.iter().filter_map(|client| client.current.as_ref()).any(open)
    }
}

impl<S: Service> Client<S> {
    /// Returns whether the number of its newest applied command is there to be used again for `op`.
    pub fn can_reuse_for(&self, op: &Op, plan: &Plan) -> bool {
        self.applied.is_some_and(|(session, _, row)| {
            self.session == Some(session) && plan.ops[row].call.op != *op
        })
    }

    /// Its name in traces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it waits for an answer with this token.
    pub fn waits_for(&self, token: u64) -> bool {
        self.current.as_ref().is_some_and(|current| token >= current.first_token)
    }

    /// The operation in the history that an attempt belongs to, if it is the present one.
    pub fn recorded(&self, token: u64) -> Option<usize> {
        let current = self.current.as_ref()?;
        (token >= current.first_token).then_some(current.recorded)?
    }

    /// Where its messages come from.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Client(u64::from(self.number))
    }

    /// The next request for the current operation. Opens a session first where one is needed.
    pub fn request(
        &mut self,
        row: &OpRow,
        owner: &mut FxHashMap<(SessionId, u64), usize>,
        loose: &mut Vec<Loose>,
    ) -> Request {
        let current = self.current.as_mut().expect("an operation is under way");
        current.opening = false;
        match request(&row.call, current) {
            Asked::Whole(request) => request,
            Asked::Command(command) if !current.uses_session(row.call.manner) => {
                current.sent += 1;
                if let (1, Some(recorded)) = (current.sent, current.recorded) {
                    loose.push(Loose { recorded, command: command.clone(), index: None });
                }
                Request::Command { session: None, command }
            }
            Asked::Command(command) => match self.session {
                None => {
                    current.opening = true;
                    Request::OpenSession
                }
                Some(session) => {
                    current.sent += 1;
                    let number = match row.call.manner {
                        Manner::Reused => self.applied.expect("it was seen at the beginning").1,
                        _ => self.command + 1,
                    };
                    if let Some(recorded) = current.recorded {
                        owner.insert((session, number), recorded);
                    }
                    Request::Command { session: Some((session, number)), command }
                }
            },
        }
    }
}

/// How traces call a worker of a client.
fn name(number: u32, hand: u32) -> String {
    match hand {
        0 => format!("c{number}"),
        hand => format!("c{number}.{}", hand + 1),
    }
}

pub(super) enum Asked {
    Whole(Request),
    Command(Bytes),
}

impl Asked {
    /// The change of the membership that it asks for, if it is one.
    pub fn change(self) -> Option<Reconfigure> {
        match self {
            Asked::Whole(Request::Reconfigure(change) | Request::ForceReconfigure(change)) => {
                Some(change)
            }
            _ => None,
        }
    }
}

/// What an operation asks for.
pub(super) fn request<S: Service>(call: &Call, current: &Current<S>) -> Asked {
    if let Some(pending) = &current.pending {
        return match (pending.request(), call.manner) {
            (service::Request::Command(command), _) => Asked::Command(command),
            (service::Request::Query(query), manner) => {
                let consistency = match manner {
                    Manner::Stale => Consistency::Stale,
                    _ => Consistency::Linearizable,
                };
                Asked::Whole(Request::Query { query, consistency })
            }
        };
    }
    let aim = current.aim;
    let reconfigure = |change| {
        Asked::Whole(match call.manner {
            Manner::Forced => Request::ForceReconfigure(change),
            _ => Request::Reconfigure(change),
        })
    };
    let change = |voters: &[NodeId], learners: &[NodeId], removed: &[NodeId]| {
        reconfigure(Reconfigure {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            removed: removed.to_vec(),
            ..Reconfigure::default()
        })
    };
    match &call.op {
        Op::Add(id) | Op::Promote(id) => change(&[*id], &[], &[]),
        Op::Learner(id) => change(&[], &[*id], &[]),
        Op::Remove(id) => change(&[], &[], &[*id]),
        Op::Replace { old, new } => change(&[*new], &[], &[*old]),
        Op::Transfer(id) => Asked::Whole(Request::Transfer(*id)),
        Op::Change(parts) => reconfigure(several(parts)),
        Op::Move { node, address } => {
            // A member keeps its role, which must be named.
            let roles = if current.learns { (vec![], vec![*node]) } else { (vec![*node], vec![]) };
            reconfigure(Reconfigure {
                voters: roles.0,
                learners: roles.1,
                addresses: BTreeMap::from([(*node, address.clone())]),
                ..Reconfigure::default()
            })
        }
        Op::RemoveLeader => change(&[], &[], aim.as_slice()),
        Op::ReplaceLeader(new) => change(&[*new], &[], aim.as_slice()),
        Op::Service(_) | Op::Restart => unreachable!("it asks nothing of the membership"),
    }
}

fn several(parts: &[Part]) -> Reconfigure {
    let mut change = Reconfigure::default();
    for part in parts {
        match *part {
            Part::Voter(id) | Part::Promote(id) => change.voters.push(id),
            Part::Learner(id) | Part::Demote(id) => change.learners.push(id),
            Part::Remove(id) => change.removed.push(id),
        }
    }
    change
}

/// What the history says of a call; `None` for those that it knows nothing of: the operator's, stale
/// reads, and what the service leaves out. Their answers are judged one by one, by the index that each
/// names. Puts with a reused number are never applied.
#[must_use]
pub fn action<S: Service>(call: &Call) -> Option<Action> {
    recorded_action::<S>(call.manner, &parsed::<S>(&call.op)?)
}

/// The same, for an operation of the service that is asked for in this manner.
pub(super) fn recorded_action<S: Service>(manner: Manner, op: &S::Op) -> Option<Action> {
    if matches!(manner, Manner::Stale | Manner::Reused) {
        return None;
    }
    S::action(op)
}

/// What to do about a reply.
pub(super) enum Next {
    /// The operation is over, with this response; where it was applied or read.
    Answered { index: LogIndex, response: Bytes, read: bool },
    /// The operation took effect, but its response of so many bytes was not kept.
    NotKept { index: LogIndex, bytes: u64 },
    /// The operator's operation is over: its change was made at this index, if it was one.
    Accepted(Option<LogIndex>),
    /// The session is open: now the operation itself.
    Opened(SessionId),
    /// The attempt had no effect and will have none: try again later, there if a place is given.
    Retry(Option<NodeId>),
    /// The session is gone: a new one is needed.
    SessionLost,
    /// The attempt may have had an effect: try again at once.
    Doubt,
    /// The attempt had no effect, and others will have none until there is room on a disk.
    NoRoom,
    /// The attempt had no effect, and others will have none until more members answer the leader.
    AtRisk,
    /// The attempt had no effect: its number is another command's.
    NumberReused,
    /// The operator's change makes no sense any more: an earlier attempt did it.
    Pointless,
}

pub(super) fn judge(reply: Reply) -> Next {
    match reply {
        Reply::SessionOpened(session) => Next::Opened(session),
        Reply::Applied { index, response } => Next::Answered { index, response, read: false },
        Reply::Value { index, response } => Next::Answered { index, response, read: true },
        Reply::Reconfigured { index } => Next::Accepted(Some(index)),
        Reply::Transferring => Next::Accepted(None),
        Reply::NotKept { index, bytes } => Next::NotKept { index, bytes },
        Reply::Unknown | Reply::LeaderLost => Next::Doubt,
        Reply::Refused(Refusal::NotLeader(hint)) => Next::Retry(hint),
        Reply::Refused(Refusal::SessionExpired | Refusal::OutOfOrder) => Next::SessionLost,
        Reply::Refused(Refusal::InvalidReconfiguration) => Next::Pointless,
        Reply::Refused(Refusal::DiskFull(_)) => Next::NoRoom,
        Reply::Refused(Refusal::QuorumAtRisk) => Next::AtRisk,
        Reply::Refused(Refusal::NumberReused) => Next::NumberReused,
        Reply::Refused(_) => Next::Retry(None),
    }
}
