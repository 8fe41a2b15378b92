//! The reference of the key-value machine.
//!
//! It is written anew, with plain maps, so that it shares no bug with the machine.

use bytes::Bytes;
use stormkv::kv::{Command, Kv, Query, Response, TxnOp};
use stormkv::machine::{Context, StateMachine};
use stormkv::types::LogIndex;

use super::past::Past;
use crate::service;

/// The keys, with all values that they have had.
pub struct Model {
    past: Past,
}

impl Model {
    /// The keys and values after the newest command, in the order of the keys.
    pub fn contents(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.past.present().map(|(key, value, _)| (key, value))
    }
}

impl service::Model for Model {
    type Machine = Kv;

    fn new((): &()) -> Model {
        Model { past: Past::default() }
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        let index = context.index;
        let Ok(command) = Command::decode(command) else { return Bytes::new() };
        let response = match command {
            Command::Put { key, value } => {
                self.past.set(index, key, Some(value));
                Response::Written { revision: index }
            }
            Command::Delete { key } => {
                Response::Deleted { existed: self.past.set(index, key, None) }
            }
            Command::Cas { key, expected, new } => {
                let current = self.past.get(&key).map(|(value, _)| value.clone());
                let swapped = current == expected;
                if swapped {
                    self.past.set(index, key, new);
                }
                Response::Swapped { swapped, current }
            }
            Command::Guarded { key, guard, value } => {
                let revision = self.past.get(&key).map(|(_, revision)| revision);
                match value {
                    _ if !guard.holds(revision) => Response::Conflict { revision },
                    Some(value) => {
                        self.past.set(index, key, Some(value));
                        Response::Written { revision: index }
                    }
                    None => Response::Deleted { existed: self.past.set(index, key, None) },
                }
            }
            Command::Txn { compares, then, otherwise } => {
                let value = |key: &Bytes| self.past.get(key).map(|(value, _)| value.clone());
                let succeeded = compares.iter().all(|c| value(&c.key) == c.expected);
                let mut results = Vec::new();
                for op in if succeeded { then } else { otherwise } {
                    match op {
                        TxnOp::Get { key } => {
                            results.push(self.past.get(&key).map(|(value, _)| value.clone()));
                        }
                        TxnOp::Put { key, value } => {
                            self.past.set(index, key, Some(value));
                        }
                        TxnOp::Delete { key } => {
                            self.past.set(index, key, None);
                        }
                    }
                }
                Response::Committed { succeeded, results }
            }
        };
        response.encode()
    }

    fn query(&self, index: LogIndex, query: &[u8]) -> Option<Bytes> {
        let query = Query::decode(query).ok()?;
        Some(self.past.answer(&query, index).encode())
    }

    /// True if a guard did not hold.
    fn is_refusal(response: &[u8]) -> bool {
        matches!(Response::decode(response), Ok(Response::Conflict { .. }))
    }

    fn compare(&self, kv: &Kv) -> Result<(), String> {
        let mut after: Option<Bytes> = None;
        let mut expected = self.past.present();
        loop {
            let query = Query::Scan { prefix: Bytes::new(), after: after.clone(), limit: 0 };
            let Ok(Response::Entries { entries, more }) =
                Response::decode(&kv.query(&query.encode()))
            else {
                return Err("cannot list its keys".to_owned());
            };
            for found in &entries {
                let model = expected.next();
                let same = model == Some((&found.key, &found.value, found.revision));
                if !same {
                    let message = format!(
                        "holds key {:?} of revision {}, where the committed log makes it {}: it is no \
                         copy of what was committed",
                        found.key,
                        found.revision,
                        model.map_or("end".to_owned(), |(key, _, revision)| format!(
                            "{key:?} of revision {revision}"
                        ))
                    );
                    return Err(message);
                }
            }
            match entries.last() {
                Some(last) if more => after = Some(last.key.clone()),
                _ => break,
            }
        }
        match expected.next() {
            Some((key, ..)) => {
                Err(format!("has lost key {key:?}, which the committed log has set"))
            }
            None => Ok(()),
        }
    }

    fn forget(&mut self) {
        self.past.forget();
    }

    fn remembered(&self) -> usize {
        self.past.remembered()
    }
}
