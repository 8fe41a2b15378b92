//! The reference state machine: an ordered map from keys to values, in memory.
//!
//! Keys and values are bytes. Each value remembers its revision: the log index of the command that
//! wrote it, which grows with every write and is the same on all members, so that it can serve as
//! an ETag. The map is persistent (versions of it share their nodes), hence a snapshot costs O(1)
//! while commands go on, and a transaction is run on a copy and takes effect as a whole.
//!
//! Everything here is a function of the commands alone. A command that cannot be decoded or breaks
//! a limit was committed all the same: each member gives it the same answer,
//! [`Response::Invalid`], and changes nothing. For the same reason the limits are constants; a
//! build with other limits must not share a cluster with this one.
//!
//! Left out: expiry of keys, watches, reads of older revisions.

use std::cell::Cell;
use std::ops::Bound;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use crate::bugs::{Bug, planted};
use crate::chunks::{self, Format};
use crate::digest::Digest;
use crate::machine::{Chunks, Context, StateMachine, StateSize};
use crate::types::LogIndex;

mod command;

pub use command::{
    Command, Compare, DecodeError, Guard, KeyValue, MAX_KEY, MAX_RESPONSE, MAX_SCAN, MAX_TXN,
    MAX_VALUE, Query, Response, TxnOp, Versioned,
};

/// Sets hashes of entries apart from other hashes.
const ENTRY_SEED: u64 = 0x6b76_656e_7472_6965;

/// The key-value machine. A clone is O(1).
///
/// ```
/// use stormkv::kv::{Command, Kv, Query, Response};
/// use stormkv::machine::{Context, StateMachine};
/// use std::time::Duration;
///
/// let mut kv = Kv::default();
/// let put = Command::Put { key: "greeting".into(), value: "hello".into() };
/// let response = kv.apply(Context::new(1, Duration::ZERO), &put.encode());
/// assert_eq!(Response::decode(&response), Ok(Response::Written { revision: 1 }));
/// let get = Query::Get { key: "greeting".into() };
/// let Ok(Response::Value(Some(found))) = Response::decode(&kv.query(&get.encode())) else {
///     panic!("the key was set");
/// };
/// assert_eq!(found.value, "hello");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    entries: RedBlackTreeMapSync<Bytes, Slot>,
    /// The wrapping sum of the entries' hashes.
    digest: u64,
    /// Bytes of all keys and values.
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    value: Bytes,
    revision: LogIndex,
    /// Kept, so that an entry can leave the digest without being hashed again.
    #[serde(skip)]
    hash: u64,
}

/// The version of the stream of chunks.
const VERSION: u8 = 1;
const FORMATS: &[Format<Bytes, Slot>] =
    &[Format { version: VERSION, take: |bytes| postcard::take_from_bytes(bytes) }];

/// Bytes of an entry.
fn weight(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn hash_entry(key: &[u8], value: &[u8], revision: LogIndex) -> u64 {
    Digest::new(ENTRY_SEED).bytes(key).bytes(value).u64(revision).finish()
}

impl Default for Kv {
    fn default() -> Kv {
        Kv { entries: RedBlackTreeMapSync::new_sync(), digest: 0, bytes: 0 }
    }
}

impl StateMachine for Kv {
    type Params = ();

    fn new((): &()) -> Kv {
        Kv::default()
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        let response = match Command::decode(command) {
            Ok(command) => match command.check() {
                Ok(()) => self.run(context.index, command),
                Err(reason) => Response::invalid(reason),
            },
            Err(error) => Response::invalid(error),
        };
        response.encode()
    }

    fn query(&self, query: &[u8]) -> Bytes {
        let response = match Query::decode(query) {
            Ok(Query::Get { key }) => Response::Value(
                self.entries
                    .get(&key)
                    .map(|slot| Versioned { value: slot.value.clone(), revision: slot.revision }),
            ),
            Ok(Query::Scan { prefix, after, limit }) => self.scan(&prefix, after.as_deref(), limit),
            Err(error) => Response::invalid(error),
        };
        response.encode()
    }

    fn grows(&self, command: &[u8]) -> bool {
        // One that cannot be decoded changes nothing.
        Command::decode(command).is_ok_and(|command| command.sets_keys())
    }

    fn size(&self) -> StateSize {
        StateSize { entries: self.len() as u64, bytes: self.bytes }
    }

    fn snapshot(&self) -> Chunks {
        chunks::stream(&self.entries, self.digest, VERSION)
    }

    fn restore((): &(), chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Kv, String> {
        let bytes = Cell::new(0);
        let hash = |key: &Bytes, slot: &mut Slot| {
            bytes.set(bytes.get() + weight(key, &slot.value));
            slot.hash = hash_entry(key, &slot.value, slot.revision);
            slot.hash
        };
        let (entries, digest) = chunks::read("the key-value snapshot", FORMATS, chunks, hash)?;
        Ok(Kv { entries, digest, bytes: bytes.get() })
    }

    fn digest(&self) -> u64 {
        self.digest
    }
}

impl Kv {
    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn run(&mut self, index: LogIndex, command: Command) -> Response {
        match command {
            Command::Put { key, value } => {
                self.put(key, value, index);
                Response::Written { revision: index }
            }
            Command::Delete { key } => Response::Deleted { existed: self.delete(&key) },
            Command::Cas { key, expected, new } => {
                let current = self.value(&key).cloned();
                let swapped = current == expected;
                match new {
                    Some(value) if swapped => self.put(key, value, index),
                    None if swapped => {
                        self.delete(&key);
                    }
                    _ => {}
                }
                Response::Swapped { swapped, current }
            }
            Command::Guarded { key, guard, value } => {
                let revision = self.entries.get(&key).map(|slot| slot.revision);
                match value {
                    _ if !guard.holds(revision) => Response::Conflict { revision },
                    Some(value) => {
                        self.put(key, value, index);
                        Response::Written { revision: index }
                    }
                    None => Response::Deleted { existed: self.delete(&key) },
                }
            }
            Command::Txn { compares, then, otherwise } => {
                let succeeded = compares
                    .iter()
                    .all(|compare| self.value(&compare.key) == compare.expected.as_ref());
                self.transact(index, succeeded, if succeeded { then } else { otherwise })
            }
        }
    }

    /// Runs a list of operations on a copy, which becomes the state unless too much is read.
    fn transact(&mut self, index: LogIndex, succeeded: bool, operations: Vec<TxnOp>) -> Response {
        let mut next = self.clone();
        let mut results = Vec::new();
        let mut len = 0;
        for operation in operations {
            match operation {
                TxnOp::Get { key } => {
                    let value = next.value(&key).cloned();
                    len += value.as_ref().map_or(0, Bytes::len);
                    if len > MAX_RESPONSE {
                        return Response::invalid(format!(
                            "the transaction reads more than {MAX_RESPONSE} bytes: split it"
                        ));
                    }
                    results.push(value);
                }
                TxnOp::Put { key, value } => next.put(key, value, index),
                TxnOp::Delete { key } => {
                    next.delete(&key);
                }
            }
        }
        *self = next;
        Response::Committed { succeeded, results }
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Response {
        let limit = if limit == 0 { MAX_SCAN } else { limit.min(MAX_SCAN) } as usize;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = Vec::new();
        let mut len = 0;
        let skipped = usize::from(planted(Bug::PageTokenSkipsAKey) && after.is_some());
        let range = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        for (key, slot) in range.skip(skipped) {
            if !key.starts_with(prefix) {
                break;
            }
            len += key.len() + slot.value.len();
            // The first entry goes through whatever its size, or paging would never get past it.
            if entries.len() == limit || (len > MAX_RESPONSE && !entries.is_empty()) {
                return Response::Entries { entries, more: true };
            }
            let (key, value) = (key.clone(), slot.value.clone());
            entries.push(KeyValue { key, value, revision: slot.revision });
        }
        Response::Entries { entries, more: false }
    }

    fn value(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key).map(|slot| &slot.value)
    }

    fn put(&mut self, key: Bytes, value: Bytes, revision: LogIndex) {
        let hash = hash_entry(&key, &value, revision);
        self.bytes += weight(&key, &value);
        let slot = Slot { value, revision, hash };
        self.digest = self.digest.wrapping_add(hash);
        if let Some(present) = self.entries.get_mut(&key) {
            self.bytes -= weight(&key, &present.value);
            self.digest = self.digest.wrapping_sub(present.hash);
            *present = slot;
        } else {
            self.entries.insert_mut(key, slot);
        }
    }

    /// Forgets the first key, for a bug that lets keys expire.
    pub(crate) fn expire(&mut self) {
        if let Some(key) = self.entries.first().map(|(key, _)| key.clone()) {
            self.delete(&key);
        }
    }

    /// Adds what only `old` has, for a bug that does not clear it.
    pub(crate) fn keep(&mut self, old: &Kv) {
        for (key, slot) in &old.entries {
            if !self.entries.contains_key(key) {
                self.put(key.clone(), slot.value.clone(), slot.revision);
            }
        }
    }

    /// Whether the key was there.
    fn delete(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.entries.get(key) else {
            return false;
        };
        self.bytes -= weight(key, &slot.value);
        self.digest = self.digest.wrapping_sub(slot.hash);
        self.entries.remove_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn apply(kv: &mut Kv, index: LogIndex, command: &Command) -> Response {
        Response::decode(&kv.apply(Context::new(index, Duration::ZERO), &command.encode())).unwrap()
    }

    fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
        Command::Put { key: key.into(), value: value.into() }
    }

    fn cas(expected: Option<&'static str>, new: Option<&'static str>) -> Command {
        Command::Cas {
            key: "k".into(),
            expected: expected.map(Bytes::from),
            new: new.map(Bytes::from),
        }
    }

    fn query(kv: &Kv, query: &Query) -> Response {
        Response::decode(&kv.query(&query.encode())).unwrap()
    }

    fn scan(
        kv: &Kv,
        prefix: &'static str,
        after: Option<&'static str>,
        limit: u32,
    ) -> (String, bool) {
        let after = after.map(Bytes::from);
        match query(kv, &Query::Scan { prefix: prefix.into(), after, limit }) {
            Response::Entries { entries, more } => {
                let keys: Vec<_> =
                    entries.iter().map(|entry| String::from_utf8_lossy(&entry.key)).collect();
                (keys.join(" "), more)
            }
            other => panic!("not a page: {other:?}"),
        }
    }

    #[test]
    fn cas_tells_absent_from_empty() {
        let mut kv = Kv::default();
        let swapped = |swapped, current: Option<&'static str>| Response::Swapped {
            swapped,
            current: current.map(Bytes::from),
        };
        assert_eq!(apply(&mut kv, 1, &cas(Some(""), Some("a"))), swapped(false, None));
        assert_eq!(apply(&mut kv, 2, &cas(None, Some(""))), swapped(true, None));
        assert_eq!(apply(&mut kv, 3, &cas(None, Some("a"))), swapped(false, Some("")));
        assert_eq!(apply(&mut kv, 4, &cas(Some(""), None)), swapped(true, Some("")));
        assert_eq!(apply(&mut kv, 5, &cas(None, None)), swapped(true, None));
        assert_eq!(kv, Kv::default());
    }

    #[test]
    fn a_failed_cas_keeps_the_revision() {
        let mut kv = Kv::default();
        apply(&mut kv, 3, &put("k", "a"));
        let digest = kv.digest();
        apply(&mut kv, 4, &cas(Some("b"), Some("c")));
        apply(&mut kv, 5, &cas(Some("b"), None));
        let found = Some(Versioned { value: "a".into(), revision: 3 });
        assert_eq!(query(&kv, &Query::Get { key: "k".into() }), Response::Value(found));
        assert_eq!(kv.digest(), digest);
        // Writing the same value again is a write.
        apply(&mut kv, 6, &put("k", "a"));
        assert_ne!(kv.digest(), digest);
    }

    #[test]
    fn operations_of_a_transaction_see_those_before() {
        let mut kv = Kv::default();
        let get = || TxnOp::Get { key: "k".into() };
        let set = |value: &'static str| TxnOp::Put { key: "k".into(), value: value.into() };
        let txn = |expected: Option<&'static str>| Command::Txn {
            compares: vec![Compare { key: "k".into(), expected: expected.map(Bytes::from) }],
            then: vec![get(), set("a"), get(), TxnOp::Delete { key: "k".into() }, get(), set("b")],
            otherwise: vec![get()],
        };
        let results = vec![None, Some("a".into()), None];
        assert_eq!(apply(&mut kv, 1, &txn(None)), Response::Committed { succeeded: true, results });
        assert_eq!(
            apply(&mut kv, 2, &txn(None)),
            Response::Committed { succeeded: false, results: vec![Some("b".into())] }
        );
    }

    #[test]
    fn a_guard_looks_at_the_revision() {
        let mut kv = Kv::default();
        let mut guarded = |index, guard, value: Option<&'static str>| {
            let command =
                Command::Guarded { key: "k".into(), guard, value: value.map(Bytes::from) };
            apply(&mut kv, index, &command)
        };
        let conflict = |revision| Response::Conflict { revision };
        assert_eq!(guarded(1, Guard::Present, Some("a")), conflict(None));
        assert_eq!(guarded(2, Guard::Absent, Some("a")), Response::Written { revision: 2 });
        assert_eq!(guarded(3, Guard::Absent, Some("b")), conflict(Some(2)));
        assert_eq!(guarded(4, Guard::Revision(1), Some("b")), conflict(Some(2)));
        assert_eq!(guarded(5, Guard::Revision(2), Some("b")), Response::Written { revision: 5 });
        assert_eq!(guarded(6, Guard::Revision(2), None), conflict(Some(5)));
        assert_eq!(guarded(7, Guard::Present, None), Response::Deleted { existed: true });
        assert_eq!(guarded(8, Guard::Absent, None), Response::Deleted { existed: false });
    }

    #[test]
    fn an_invalid_command_changes_nothing() {
        let mut kv = Kv::default();
        apply(&mut kv, 1, &put("k", vec![0; MAX_RESPONSE / 2 + 1]));
        let before = kv.clone();
        let get = || TxnOp::Get { key: "k".into() };
        let first = TxnOp::Put { key: "other".into(), value: "v".into() };
        let too_much =
            Command::Txn { compares: vec![], then: vec![first, get(), get()], otherwise: vec![] };
        let long_key = put(vec![0; MAX_KEY + 1], "v");
        for (command, part) in [
            (too_much.encode(), "reads more than"),
            (long_key.encode(), "the key has 4097 bytes"),
            (Bytes::from_static(&[9]), "no key-value command"),
        ] {
            match Response::decode(&kv.apply(Context::new(2, Duration::ZERO), &command)) {
                Ok(Response::Invalid { reason }) => assert!(reason.contains(part), "{reason}"),
                other => panic!("{part}: {other:?}"),
            }
            assert_eq!(kv, before);
        }
        assert!(matches!(Response::decode(&kv.query(&[9])), Ok(Response::Invalid { .. })));
    }

    #[test]
    fn a_scan_stays_in_its_prefix() {
        let mut kv = Kv::default();
        for (index, key) in (1..).zip(["a", "b", "ba", "bb", "bbb", "c"]) {
            apply(&mut kv, index, &put(key, ""));
        }
        let page = |keys: &str, more| (keys.to_owned(), more);
        assert_eq!(scan(&kv, "b", None, 0), page("b ba bb bbb", false));
        assert_eq!(scan(&kv, "b", None, 2), page("b ba", true));
        assert_eq!(scan(&kv, "b", Some("ba"), 2), page("bb bbb", false));
        assert_eq!(scan(&kv, "b", Some("b"), 1), page("ba", true));
        assert_eq!(scan(&kv, "b", Some("a"), 1), page("b", true));
        assert_eq!(scan(&kv, "b", Some("c"), 9), page("", false));
        assert_eq!(scan(&kv, "", None, 9), page("a b ba bb bbb c", false));
        assert_eq!(scan(&kv, "x", None, 9), page("", false));
    }

    #[test]
    fn a_page_of_a_scan_is_bounded_in_entries_and_bytes() {
        let mut kv = Kv::default();
        for index in 1..=1001u32 {
            apply(&mut kv, 1, &put(index.to_be_bytes().to_vec(), ""));
        }
        for limit in [0, MAX_SCAN + 1] {
            let all = Query::Scan { prefix: Bytes::new(), after: None, limit };
            let Response::Entries { entries, more } = query(&kv, &all) else { panic!("a page") };
            assert_eq!((entries.len(), more), (1000, true));
        }
        let mut kv = Kv::default();
        apply(&mut kv, 1, &put("a", vec![0; MAX_VALUE]));
        apply(&mut kv, 2, &put("b", vec![0; MAX_VALUE / 2]));
        apply(&mut kv, 3, &put("c", vec![0; MAX_VALUE / 2 - 2]));
        apply(&mut kv, 4, &put("d", ""));
        assert_eq!(scan(&kv, "", None, 9), ("a".into(), true));
        assert_eq!(scan(&kv, "", Some("a"), 9), ("b c".into(), true));
        assert_eq!(scan(&kv, "", Some("c"), 9), ("d".into(), false));
    }
}
