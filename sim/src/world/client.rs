//! The clients: each does its operations one after the other, through sessions, repeats what is
//! not answered at another node, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use stormkv::api::{Consistency, Reconfigure, Refusal, Reply, Request};
use stormkv::kv::{Command, Compare, Guard, Query, Response, TxnOp};
use stormkv::types::{LogIndex, NodeId, SessionId};

use super::goodput::Goodput;
use crate::checker::witness;
use crate::history::{self, Action, Answer, History, Model, Outcome};
use crate::network::Endpoint;
use crate::plan::{Call, Manner, Op, OpRow, Part, Plan, Step, Value};
use crate::rng::{Purpose, Stream};

/// An operation that is under way.
pub(super) struct Current {
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
    /// What the plan leaves open of its request.
    pub given: Given,
}

/// What the plan leaves open of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// Whom an operation on "the leader" is about, as soon as there was one.
    pub aim: Option<NodeId>,
    /// What a guarded write goes by. It is the same for all attempts, or they were not the same
    /// command.
    pub guard: Option<Guard>,
    /// The last key of the page before, for a scan in pages, and the index of that page.
    pub after: Option<Bytes>,
    pub paged_at: Option<LogIndex>,
    /// The member that is moved does not vote.
    pub learns: bool,
}

/// One of the hands of a client: what it does, one thing at a time. Most clients have one.
pub(super) struct Client {
    /// Whose hand it is.
    pub number: u32,
    /// Which one, from 0.
    pub hand: u32,
    pub rows: VecDeque<usize>,
    pub session: Option<SessionId>,
    /// The number of the newest command in the session.
    pub command: u64,
    /// The newest command that is known to be applied: its session, its number and its row.
    pub applied: Option<(SessionId, u64, usize)>,
    /// The revisions that it saw last; `None` for a key that was absent.
    pub seen: BTreeMap<String, Option<LogIndex>>,
    pub current: Option<Current>,
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
pub(super) struct Clients {
    /// By lane: the first hands of all clients in the order of their numbers, then the others.
    pub all: Vec<Client>,
    pub history: History,
    /// Which recorded operation a command belongs to.
    pub owner: FxHashMap<(SessionId, u64), usize>,
    /// The commands without a session, in the order of their calls.
    pub loose: Vec<Loose>,
    /// The state from which a node answered a client last: its life, and the index.
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
fn deal(clients: &mut [Client], plan: &Plan) {
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

impl Clients {
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
        let mut all: Vec<Client> = (0..)
            .zip(places.filter(|(number, hand)| *hand < hands(*number)))
            .map(|(lane, (number, hand))| Client {
                number,
                hand,
                rows: VecDeque::new(),
                session: None,
                command: 0,
                applied: None,
                seen: BTreeMap::new(),
                current: None,
                token: lane << 40,
                process: lane,
                choices: Stream::new(plan.seed, Purpose::Client, [lane]),
            })
            .collect();
        deal(&mut all, plan);
        // A new process of a client has a number that is greater by the number of lanes.
        let names = all.iter().map(Client::name).collect();
        Clients {
            all,
            history: History::new(Model::Kv).called(names),
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
        let open = |current: &Current| {
            let op = &plan.ops[current.row].call.op;
            current.sent > 0 && !op.is_admin()
        };
        self.all.iter().filter_map(|client| client.current.as_ref()).any(open)
    }
}

impl Client {
    /// Returns whether the number of its newest applied command is there to be used again for `op`.
    pub fn can_reuse_for(&self, op: &Op, plan: &Plan) -> bool {
        self.applied.is_some_and(|(session, _, row)| {
            self.session == Some(session) && plan.ops[row].call.op != *op
        })
    }

    /// How traces call it.
    pub fn name(&self) -> String {
        match self.hand {
            0 => format!("c{}", self.number),
            hand => format!("c{}.{}", self.number, hand + 1),
        }
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
        match request(&row.call, &current.given) {
            Asked::Whole(request) => request,
            Asked::Command(command) if !row.call.uses_session() => {
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
pub(super) fn request(call: &Call, given: &Given) -> Asked {
    let aim = given.aim;
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
    let query = |query: Query| {
        let consistency = match call.manner {
            Manner::Stale => Consistency::Stale,
            _ => Consistency::Linearizable,
        };
        Asked::Whole(Request::Query { query: query.encode(), consistency })
    };
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    match &call.op {
        Op::Get { key: k } => query(Query::Get { key: key(k) }),
        Op::Scan { prefix, limit } => {
            let (prefix, after) = (key(prefix), given.after.clone());
            query(Query::Scan { prefix, after, limit: *limit })
        }
        Op::Put { key: k, value } => {
            Asked::Command(Command::Put { key: key(k), value: value.bytes() }.encode())
        }
        Op::Delete { key: k } => Asked::Command(Command::Delete { key: key(k) }.encode()),
        Op::Cas { key: k, old, new } => {
            let expected = old.as_ref().map(Value::bytes);
            let new = Some(new.bytes());
            Asked::Command(Command::Cas { key: key(k), expected, new }.encode())
        }
        Op::Guarded { key: k, value, .. } => {
            let guard = given.guard.expect("it was chosen when the operation began");
            let value = value.as_ref().map(Value::bytes);
            Asked::Command(Command::Guarded { key: key(k), guard, value }.encode())
        }
        Op::Txn { conditions, then, otherwise } => {
            let compares = conditions
                .iter()
                .map(|c| Compare { key: key(&c.key), expected: c.value.as_ref().map(Value::bytes) })
                .collect();
            let steps = |steps: &[Step]| steps.iter().map(txn_op).collect();
            let (then, otherwise) = (steps(then), steps(otherwise));
            Asked::Command(Command::Txn { compares, then, otherwise }.encode())
        }
        Op::Add(id) | Op::Promote(id) => change(&[*id], &[], &[]),
        Op::Learner(id) => change(&[], &[*id], &[]),
        Op::Remove(id) => change(&[], &[], &[*id]),
        Op::Replace { old, new } => change(&[*new], &[], &[*old]),
        Op::Transfer(id) => Asked::Whole(Request::Transfer(*id)),
        Op::Change(parts) => reconfigure(several(parts)),
        Op::Move { node, address } => {
            // A member keeps its role, which must be named.
            let roles = if given.learns { (vec![], vec![*node]) } else { (vec![*node], vec![]) };
            reconfigure(Reconfigure {
                voters: roles.0,
                learners: roles.1,
                addresses: BTreeMap::from([(*node, address.clone())]),
                ..Reconfigure::default()
            })
        }
        Op::RemoveLeader => change(&[], &[], aim.as_slice()),
        Op::ReplaceLeader(new) => change(&[*new], &[], aim.as_slice()),
        Op::Restart => unreachable!("it asks nothing of the cluster"),
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

fn txn_op(step: &Step) -> TxnOp {
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    match step {
        Step::Put { key: k, value } => TxnOp::Put { key: key(k), value: value.bytes() },
        Step::Delete { key: k } => TxnOp::Delete { key: key(k) },
        Step::Get { key: k } => TxnOp::Get { key: key(k) },
    }
}

fn text(value: &Value) -> history::Value {
    bytes_text(&value.bytes())
}

fn bytes_text(bytes: &[u8]) -> history::Value {
    // Nearly all values are UTF-8, and this is several times as fast for them.
    match std::str::from_utf8(bytes) {
        Ok(text) => history::Value::text(text),
        Err(_) => history::Value::text(&String::from_utf8_lossy(bytes)),
    }
}

/// What the history says of an operation; `None` for those that it knows nothing of: the operator's,
/// stale reads, and scans in pages, each of which is a read. Their answers are judged one by one, by
/// the index that each names. Puts with a reused number are never applied.
///
/// A guarded write is told as a write without a guard, and as one that had no effect where its guard
/// did not hold: a history has no revisions.
#[must_use]
pub fn action(call: &Call) -> Option<Action> {
    let key = |key: &str| -> history::Key { Arc::from(key) };
    if matches!(call.manner, Manner::Stale | Manner::Reused) {
        return None;
    }
    Some(match &call.op {
        Op::Get { key: k } => Action::Get { key: key(k) },
        Op::Scan { prefix, limit: 0 } => Action::Scan { prefix: key(prefix) },
        Op::Guarded { key: k, value: Some(value), .. } => {
            Action::Put { key: key(k), value: text(value) }
        }
        Op::Guarded { key: k, value: None, .. } => Action::Delete { key: key(k) },
        Op::Put { key: k, value } => Action::Put { key: key(k), value: text(value) },
        Op::Delete { key: k } => Action::Delete { key: key(k) },
        Op::Cas { key: k, old, new } => {
            Action::Cas { key: key(k), expected: old.as_ref().map(text), new: text(new) }
        }
        Op::Txn { conditions, then, otherwise } => {
            let steps = |steps: &[Step]| {
                steps
                    .iter()
                    .map(|step| match step {
                        Step::Put { key: k, value } => history::TxnOp::Put(key(k), text(value)),
                        Step::Delete { key: k } => history::TxnOp::Delete(key(k)),
                        Step::Get { key: k } => history::TxnOp::Get(key(k)),
                    })
                    .collect()
            };
            Action::Txn(Box::new(history::Txn {
                conditions: conditions
                    .iter()
                    .map(|c| (key(&c.key), c.value.as_ref().map(text)))
                    .collect(),
                then: steps(then),
                otherwise: steps(otherwise),
            }))
        }
        _ => return None,
    })
}

/// What a reply tells the client; `Err` with the response if it makes no sense.
pub(super) fn outcome(op: &Op, response: &[u8]) -> Result<Outcome, String> {
    let told = Response::decode(response).map_err(|error| error.to_string())?;
    let answer = match (op, told) {
        (Op::Put { .. } | Op::Guarded { value: Some(_), .. }, Response::Written { .. }) => {
            Answer::Done
        }
        (Op::Delete { .. } | Op::Guarded { value: None, .. }, Response::Deleted { existed }) => {
            Answer::Deleted(Some(existed))
        }
        (Op::Guarded { .. }, Response::Conflict { .. }) => return Ok(Outcome::Fail),
        (Op::Cas { .. }, Response::Swapped { swapped, .. }) => Answer::Swapped(swapped),
        (Op::Get { .. }, Response::Value(value)) => {
            Answer::Value(value.map(|found| bytes_text(&found.value)))
        }
        // The last page, for a scan in pages.
        (Op::Scan { .. }, Response::Entries { entries, more: false }) => Answer::Pairs(
            entries
                .iter()
                .map(|e| (Arc::from(&*String::from_utf8_lossy(&e.key)), bytes_text(&e.value)))
                .collect(),
        ),
        (Op::Txn { then, otherwise, .. }, Response::Committed { succeeded, results }) => {
            let mut read = results.into_iter();
            let steps = if succeeded { then } else { otherwise };
            let results = steps
                .iter()
                .map(|step| match step {
                    Step::Get { .. } => {
                        let value = read.next().ok_or("a transaction's answer is too short")?;
                        Ok(Answer::Value(value.as_deref().map(bytes_text)))
                    }
                    Step::Put { .. } => Ok(Answer::Done),
                    Step::Delete { .. } => Ok(Answer::Deleted(None)),
                })
                .collect::<Result<_, String>>()?;
            Answer::Txn { succeeded, results: Some(results) }
        }
        (_, told) => return Err(format!("it was answered with {told:?}")),
    };
    Ok(Outcome::Ok(answer))
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
