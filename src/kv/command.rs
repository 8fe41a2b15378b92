//! What is said to the key-value machine and what it answers, and how that is encoded.
//!
//! The encoding is postcard. Commands live on in logs and responses in session tables, so it may
//! only grow: new variants go to the end of an enum, and a struct's fields stay as they are.
//! Decoding is strict: bytes that are left over are an error.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::LogIndex;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 4 * 1024;

/// The longest value, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// The most compares and operations in one transaction, both branches counted.
pub const MAX_TXN: usize = 128;

/// The most entries in one page of a scan.
pub const MAX_SCAN: u32 = 1000;

/// The most bytes of keys and values in one answer: a scan's page ends before it grows beyond this
/// (it has at least one entry), and a transaction that reads more is invalid.
pub const MAX_RESPONSE: usize = 1024 * 1024;

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sets a key. Answered with [`Response::Written`].
    Put {
        /// Which key; at most [`MAX_KEY`] bytes, as everywhere.
        key: Bytes,
        /// Its new value; at most [`MAX_VALUE`] bytes, as everywhere.
        value: Bytes,
    },
    /// Removes a key. Answered with [`Response::Deleted`].
    Delete {
        /// Which key.
        key: Bytes,
    },
    /// Changes a key if it is as expected. Answered with [`Response::Swapped`].
    Cas {
        /// Which key.
        key: Bytes,
        /// The value it must have; `None` if it must be absent.
        expected: Option<Bytes>,
        /// The value to set; `None` to remove the key.
        new: Option<Bytes>,
    },
    /// Runs one of two lists of operations, as one step. Answered with [`Response::Committed`].
    Txn {
        /// What must hold, all of it, for `then` to run.
        compares: Vec<Compare>,
        /// Runs if all compares hold; each operation sees the effect of those before it.
        then: Vec<TxnOp>,
        /// Runs if one does not.
        otherwise: Vec<TxnOp>,
    },
    /// Changes a key if its revision is as expected. Answered as a put or a delete would be, or
    /// with [`Response::Conflict`].
    Guarded {
        /// Which key.
        key: Bytes,
        /// What must hold.
        guard: Guard,
        /// The value to set; `None` to remove the key.
        value: Option<Bytes>,
    },
}

/// A condition on the revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The key is absent.
    Absent,
    /// The key is there, whatever its revision.
    Present,
    /// The key is there and has this revision.
    Revision(LogIndex),
}

impl Guard {
    /// Whether it holds for a key with this revision; `None` if the key is absent.
    #[must_use]
    pub fn holds(self, revision: Option<LogIndex>) -> bool {
        match self {
            Guard::Absent => revision.is_none(),
            Guard::Present => revision.is_some(),
            Guard::Revision(expected) => revision == Some(expected),
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which key.
    pub key: Bytes,
    /// The value it must have; `None` if it must be absent.
    pub expected: Option<Bytes>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOp {
    /// Reads a key.
    Get {
        /// Which key.
        key: Bytes,
    },
    /// Sets a key.
    Put {
        /// Which key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; nothing happens if it is absent.
    Delete {
        /// Which key.
        key: Bytes,
    },
}

/// A question about the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Reads a key. Answered with [`Response::Value`].
    Get {
        /// Which key.
        key: Bytes,
    },
    /// Reads the keys that start with a prefix, in order, a page at a time. Answered with
    /// [`Response::Entries`].
    Scan {
        /// What the keys start with; empty for all keys.
        prefix: Bytes,
        /// Only keys after this one: for the next page, the last key of the page before.
        after: Option<Bytes>,
        /// The most entries wanted. 0 and everything above [`MAX_SCAN`] mean [`MAX_SCAN`].
        limit: u32,
    },
}

/// The answer to a [`Command`] or a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The key was set.
    Written {
        /// The log index of this write, which is now the key's revision.
        revision: LogIndex,
    },
    /// The key is absent now.
    Deleted {
        /// Whether it was there before.
        existed: bool,
    },
    /// The compare-and-swap was judged.
    Swapped {
        /// Whether the key was as expected, and hence is changed.
        swapped: bool,
        /// The value that was seen, before any change.
        current: Option<Bytes>,
    },
    /// The transaction ran.
    Committed {
        /// Whether all compares held: `then` ran if so, `otherwise` if not.
        succeeded: bool,
        /// What the gets of the list that ran have read, in their order.
        results: Vec<Option<Bytes>>,
    },
    /// What the key holds; `None` if it is absent.
    Value(Option<Versioned>),
    /// One page of a scan.
    Entries {
        /// The entries, by key.
        entries: Vec<KeyValue>,
        /// Whether there are more after the last of them.
        more: bool,
    },
    /// The command or query had no effect, as it cannot be decoded or breaks a limit.
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The guard did not hold, and nothing was changed.
    Conflict {
        /// The key's revision; `None` if it is absent.
        revision: Option<LogIndex>,
    },
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The log index of the command that wrote it.
    pub revision: LogIndex,
}

/// A key, its value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The log index of the command that wrote it.
    pub revision: LogIndex,
}

/// The bytes are not what they should be. Says nothing about where: the text ends up in responses,
/// which must be the same on replicas that were built with different versions of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    what: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "these bytes are no key-value {}: encode it with the same version of stormkv",
            self.what
        )
    }
}

impl std::error::Error for DecodeError {}

fn encode<T: Serialize>(message: &T) -> Bytes {
    postcard::to_stdvec(message).expect("a vector has room, and every length is known").into()
}

fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(DecodeError { what }),
    }
}

impl Command {
    /// Returns whether it may set a key. Others, deletes above all, never make the state larger.
    #[must_use]
    pub fn sets_keys(&self) -> bool {
        match self {
            Command::Put { .. } => true,
            Command::Delete { .. } => false,
            Command::Cas { new, .. } => new.is_some(),
            Command::Guarded { value, .. } => value.is_some(),
            Command::Txn { then, otherwise, .. } => {
                then.iter().chain(otherwise).any(|op| matches!(op, TxnOp::Put { .. }))
            }
        }
    }

    /// The command as bytes, for the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a command.
    ///
    /// # Errors
    /// If the bytes are not exactly one command.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        decode("command", bytes)
    }

    /// Whether the command keeps to the limits that are known before it runs. A client that checks
    /// first saves a round trip; the machine checks in any case.
    ///
    /// # Errors
    /// Names the limit that is broken.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Command::Put { key, value } => check(key, Some(value)),
            Command::Delete { key } => check(key, None),
            Command::Guarded { key, value, .. } => check(key, value.as_ref()),
            // An `expected` that is too long can match nothing, and is not stored.
            Command::Cas { key, new, .. } => check(key, new.as_ref()),
            Command::Txn { compares, then, otherwise } => {
                let count = compares.len() + then.len() + otherwise.len();
                if count > MAX_TXN {
                    return Err(format!(
                        "the transaction has {count} compares and operations, \
                         the limit is {MAX_TXN}: split it"
                    ));
                }
                compares.iter().try_for_each(|compare| check(&compare.key, None))?;
                then.iter().chain(otherwise).try_for_each(|operation| match operation {
                    TxnOp::Get { key } | TxnOp::Delete { key } => check(key, None),
                    TxnOp::Put { key, value } => check(key, Some(value)),
                })
            }
        }
    }
}

fn check(key: &Bytes, value: Option<&Bytes>) -> Result<(), String> {
    let within = |what, bytes: &Bytes, limit| match bytes.len() {
        len if len > limit => {
            Err(format!("the {what} has {len} bytes, the limit is {limit}: use a shorter one"))
        }
        _ => Ok(()),
    };
    within("key", key, MAX_KEY)?;
    value.map_or(Ok(()), |value| within("value", value, MAX_VALUE))
}

impl Query {
    /// The query as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a query.
    ///
    /// # Errors
    /// If the bytes are not exactly one query.
    pub fn decode(bytes: &[u8]) -> Result<Query, DecodeError> {
        decode("query", bytes)
    }
}

impl Response {
    /// The response as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads a response.
    ///
    /// # Errors
    /// If the bytes are not exactly one response.
    pub fn decode(bytes: &[u8]) -> Result<Response, DecodeError> {
        decode("response", bytes)
    }

    pub(super) fn invalid(reason: impl fmt::Display) -> Response {
        Response::Invalid { reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_is_strict() {
        let command = Command::Put { key: "k".into(), value: "v".into() };
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(command));
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        let error = Command::decode(&longer).unwrap_err();
        assert!(error.to_string().starts_with("these bytes are no key-value command"));
    }

    #[test]
    fn the_encoding_is_pinned() {
        // Logs and session tables on disk hold these bytes.
        let key = || Bytes::from_static(b"k");
        let txn = Command::Txn {
            compares: vec![Compare { key: key(), expected: None }],
            then: vec![TxnOp::Put { key: key(), value: "v".into() }, TxnOp::Get { key: key() }],
            otherwise: vec![TxnOp::Delete { key: key() }],
        };
        assert_eq!(&txn.encode()[..], b"\x03\x01\x01k\x00\x02\x01\x01k\x01v\x00\x01k\x01\x02\x01k");
        let cas = Command::Cas { key: key(), expected: Some("a".into()), new: None };
        assert_eq!(&cas.encode()[..], b"\x02\x01k\x01\x01a\x00");
        assert_eq!(&Command::Delete { key: key() }.encode()[..], b"\x01\x01k");
        let guard = Guard::Revision(300);
        let guarded = Command::Guarded { key: key(), guard, value: Some("v".into()) };
        assert_eq!(&guarded.encode()[..], b"\x04\x01k\x02\xac\x02\x01\x01v");
        let scan = Query::Scan { prefix: key(), after: None, limit: 300 };
        assert_eq!(&scan.encode()[..], b"\x01\x01k\x00\xac\x02");
        assert_eq!(&Response::Written { revision: 5 }.encode()[..], b"\x00\x05");
        assert_eq!(&Response::Value(None).encode()[..], b"\x04\x00");
        assert_eq!(&Response::invalid("x").encode()[..], b"\x06\x01x");
        assert_eq!(&Response::Conflict { revision: Some(5) }.encode()[..], b"\x07\x01\x05");
    }

    #[test]
    fn the_limits_are_inclusive() {
        let put =
            |key, value| Command::Put { key: vec![0; key].into(), value: vec![0; value].into() };
        assert_eq!(put(MAX_KEY, MAX_VALUE).check(), Ok(()));
        assert!(put(MAX_KEY + 1, 0).check().unwrap_err().contains("key has 4097 bytes"));
        assert!(put(0, MAX_VALUE + 1).check().unwrap_err().contains("value has 1048577 bytes"));
        let txn = |count: usize| {
            let get = TxnOp::Get { key: Bytes::new() };
            let compare = Compare { key: Bytes::new(), expected: None };
            Command::Txn {
                compares: vec![compare; 1],
                then: vec![get.clone(); count - 2],
                otherwise: vec![get; 1],
            }
        };
        assert_eq!(txn(MAX_TXN).check(), Ok(()));
        assert!(txn(MAX_TXN + 1).check().unwrap_err().contains("129 compares and operations"));
    }
}
