//! A client of the key-value service: its requests, what it remembers of their answers, and what they
//! mean for the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use stormkv::kv::{self, Command, Compare, Query, Response, TxnOp};
use stormkv::types::LogIndex;

use super::{Guard, Op, Step, Value};
use crate::history::{self, Action, Answer, Outcome};
use crate::service::{self, Reach, Request};

/// The revisions that a client saw last; `None` for a key that was absent.
#[derive(Debug, Default)]
pub struct Memory {
    seen: BTreeMap<String, Option<LogIndex>>,
}

impl service::Client for Memory {
    type Op = Op;
    type Pending = Pending;

    fn begin(&self, op: Op) -> Pending {
        let guard = match &op {
            Op::Guarded { guard: Guard::Absent, .. } => Some(kv::Guard::Absent),
            Op::Guarded { guard: Guard::Present, .. } => Some(kv::Guard::Present),
            Op::Guarded { guard: Guard::Seen, key, .. } => {
                let seen = self.seen.get(key).copied().flatten();
                Some(seen.map_or(kv::Guard::Absent, kv::Guard::Revision))
            }
            _ => None,
        };
        Pending { op, guard, after: None, paged_at: None }
    }

    /// Remembers the revisions in an answer.
    fn learn(&mut self, pending: &Pending, response: &[u8], reach: Reach<'_>) {
        let Ok(response) = Response::decode(response) else { return };
        let is_conflict = matches!(response, Response::Conflict { .. });
        match (&pending.op, response) {
            (Op::Put { key, .. } | Op::Guarded { key, .. }, Response::Written { revision }) => {
                self.seen.insert(key.clone(), Some(revision));
            }
            (Op::Delete { key } | Op::Guarded { key, .. }, Response::Deleted { .. }) => {
                self.seen.insert(key.clone(), None);
            }
            (Op::Guarded { key, .. }, Response::Conflict { revision }) => {
                self.seen.insert(key.clone(), revision);
                reach("guard-refused");
            }
            (Op::Cas { .. }, Response::Swapped { swapped: false, .. }) => reach("cas-refused"),
            (Op::Get { key }, Response::Value(found)) => {
                self.seen.insert(key.clone(), found.map(|found| found.revision));
            }
            (Op::Scan { .. }, Response::Entries { entries, .. }) => {
                let key = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
                self.seen.extend(entries.iter().map(|e| (key(&e.key), Some(e.revision))));
            }
            _ => {}
        }
        if matches!(pending.guard, Some(kv::Guard::Revision(_))) && !is_conflict {
            reach("written-at-revision");
        }
    }
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Pending {
    op: Op,
    /// The guard of a guarded write. It is the same for all attempts, or they were not the same command.
    guard: Option<kv::Guard>,
    /// The last key of the page before, for a scan in pages, and the index of that page.
    after: Option<Bytes>,
    paged_at: Option<LogIndex>,
}

impl service::Pending for Pending {
    type Op = Op;

    fn op(&self) -> &Op {
        &self.op
    }

    fn request(&self) -> Request {
        let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
        match &self.op {
            Op::Get { key: k } => Request::Query(Query::Get { key: key(k) }.encode()),
            Op::Scan { prefix, limit } => {
                let (prefix, after) = (key(prefix), self.after.clone());
                Request::Query(Query::Scan { prefix, after, limit: *limit }.encode())
            }
            Op::Put { key: k, value } => {
                Request::Command(Command::Put { key: key(k), value: value.bytes() }.encode())
            }
            Op::Delete { key: k } => Request::Command(Command::Delete { key: key(k) }.encode()),
            Op::Cas { key: k, old, new } => {
                let expected = old.as_ref().map(Value::bytes);
                let new = Some(new.bytes());
                Request::Command(Command::Cas { key: key(k), expected, new }.encode())
            }
            Op::Guarded { key: k, value, .. } => {
                let guard = self.guard.expect("it was chosen when the operation began");
                let value = value.as_ref().map(Value::bytes);
                Request::Command(Command::Guarded { key: key(k), guard, value }.encode())
            }
            Op::Txn { conditions, then, otherwise } => {
                let compares = conditions
                    .iter()
                    .map(|c| Compare {
                        key: key(&c.key),
                        expected: c.value.as_ref().map(Value::bytes),
                    })
                    .collect();
                let steps = |steps: &[Step]| steps.iter().map(txn_op).collect();
                let (then, otherwise) = (steps(then), steps(otherwise));
                Request::Command(Command::Txn { compares, then, otherwise }.encode())
            }
        }
    }

    /// Turns the page of a scan in pages.
    fn go_on(&mut self, index: LogIndex, response: &[u8], reach: Reach<'_>) -> bool {
        let Op::Scan { limit: 1.., .. } = self.op else { return false };
        let Ok(Response::Entries { entries, more }) = Response::decode(response) else {
            return false;
        };
        if self.paged_at.is_some_and(|before| before < index) {
            reach("page-turned-during-changes");
        }
        if more {
            // The page was judged: it has a last key.
            self.after = entries.last().map(|last| last.key.clone());
            self.paged_at = Some(index);
            reach("page-turned");
        }
        more
    }

    fn outcome(&self, response: &[u8]) -> Result<Outcome, String> {
        outcome(&self.op, response)
    }
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

/// Returns an operation as part of a history; `None` for scans in pages, each of which is a read: they are
/// judged one by one, by the index that each answer names.
///
/// A guarded write is written down as a write without a guard, and as one that had no effect where its
/// guard did not hold: a history has no revisions.
#[must_use]
pub fn action(op: &Op) -> Option<Action> {
    let key = |key: &str| -> history::Key { Arc::from(key) };
    Some(match op {
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
        Op::Scan { limit: 1.., .. } => return None,
    })
}

fn outcome(op: &Op, response: &[u8]) -> Result<Outcome, String> {
    let decoded = Response::decode(response).map_err(|error| error.to_string())?;
    let answer = match (op, decoded) {
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
        (_, other) => return Err(format!("it was answered with {other:?}")),
    };
    Ok(Outcome::Ok(answer))
}
