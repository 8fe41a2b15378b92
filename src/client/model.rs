//! What is said and answered, and how it looks as JSON.
//!
//! Keys and values are bytes. Where they are text they stand in JSON as they are; else as base64
//! in a field whose name ends in `_base64` (in a list, as an object with the field `base64`), so
//! that a person can read what can be read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::Error;
use crate::kv::{Compare, KeyValue, TxnOp};
use crate::tcp::http::json::{element, set, weight};
use crate::types::{LogIndex, Term};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where the other members reach it.
    #[serde(default)]
    pub url: String,
    /// Where clients reach it, if the node that was asked has heard that from it.
    #[serde(default)]
    pub client_url: Option<String>,
    /// `voter`, `learner`, or `outgoing` for a voter that is about to leave.
    pub role: String,
    /// True if it is a learner that becomes a voter as soon as it has caught up.
    #[serde(default)]
    pub becomes_voter: bool,
    /// Whether it leads, as far as the node that was asked knows.
    #[serde(default)]
    pub leader: bool,
}

/// Who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The members, by id.
    pub members: Vec<Member>,
    /// Ids that were removed and can never be used again.
    #[serde(default)]
    pub removed: Vec<u64>,
}

/// A position in the log and the term of its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The position.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
}

/// What a leader knows of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProgress {
    /// Which member.
    pub id: u64,
    /// Up to where its log is known to agree with the leader's.
    pub matched: LogIndex,
    /// What is sent to it next.
    pub next: LogIndex,
    /// Whether it is being sent a snapshot.
    #[serde(default)]
    pub in_snapshot: bool,
}

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// Its cluster, 16 hexadecimal digits; none before it has joined.
    pub cluster: Option<String>,
    /// Its version of stormkv.
    pub version: String,
    /// `leader`, `follower`, `candidate`, `learner` and the like.
    pub role: String,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<u64>,
    /// What it knows to be committed.
    pub commit: LogIndex,
    /// What its state machine holds.
    pub applied: Position,
    /// The first entry of its log.
    pub first: LogIndex,
    /// The last entry of its log.
    pub last: Position,
    /// Its newest snapshot.
    pub snapshot: Option<Position>,
    /// Requests that wait in it.
    pub pending: u64,
    /// Keys that its state holds.
    pub keys: u64,
    /// Bytes of these keys and their values.
    pub state_bytes: u64,
    /// Bytes of the entries of its log in memory.
    pub log_bytes: u64,
    /// Files of its log.
    pub segments: u64,
    /// True if its disk is nearly full, so that it refuses commands that may grow the state.
    pub disk_full: bool,
    /// Bytes that are free on its disk; none if it does not know.
    pub disk_free_bytes: Option<u64>,
    /// If it leads: what it knows of the members.
    pub members: Option<Vec<MemberProgress>>,
    /// How long it has been running, in seconds.
    pub uptime_s: f64,
}

impl Status {
    /// Whether this node says that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.id != 0 && self.leader == Some(self.id)
    }
}

/// A cluster as its endpoints show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Overview {
    /// Each endpoint, in the order in which they were given, and what it says about its node; then the
    /// members that answer at none of them and are known to serve clients elsewhere.
    pub endpoints: Vec<(String, Result<Status, Error>)>,
    /// The members, as the most advanced of these nodes knows them; empty if none answered.
    pub members: Vec<Member>,
}

/// What a compare-and-swap found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the key was as expected, and hence is changed.
    pub swapped: bool,
    /// The value that was there before; `None` if the key was absent.
    pub current: Option<Bytes>,
}

/// What became of a change that was tied to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// It was made.
    Done {
        /// The key's new revision; `None` if the key is absent now.
        revision: Option<LogIndex>,
    },
    /// The guard did not hold, and nothing was changed.
    Conflict {
        /// The key's revision; `None` if it is absent.
        revision: Option<LogIndex>,
    },
}

/// What is to be done as one step: if all of `compare` holds `then`, else `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold for `then` to run.
    pub compare: Vec<Compare>,
    /// Runs if all compares hold.
    pub then: Vec<TxnOp>,
    /// Runs if one does not.
    pub otherwise: Vec<TxnOp>,
}

/// What a transaction found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether all compares held: `then` ran if so, `otherwise` if not.
    pub succeeded: bool,
    /// What the gets of the list that ran have read, in their order.
    pub results: Vec<Option<Bytes>>,
}

/// What [`set`] has written.
///
/// # Errors
/// If there is neither field, or not what it should be.
fn get(object: &Value, field: &str) -> Result<Option<Bytes>, String> {
    if let Some(encoded) = object.get(format!("{field}_base64")) {
        return decoded(encoded).map(Some);
    }
    match object.get(field) {
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        _ => Err(format!("the field {field} is missing, or is no text")),
    }
}

fn decoded(encoded: &Value) -> Result<Bytes, String> {
    let text = encoded.as_str().ok_or("base64 stands in a text")?;
    let bytes = STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))?;
    Ok(bytes.into())
}

fn parsed(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))
}

/// As [`set`], but a text that is longer with its escapes than in base64 stands in base64: so a value
/// of the largest size never makes a request too large.
fn set_compact(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) if weight(bytes) > 64 + bytes.len().div_ceil(3) * 4 => {
            object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into());
        }
        _ => set(object, name, bytes),
    }
}

pub(super) fn cas_body(key: &[u8], expected: Option<&[u8]>, new: Option<&[u8]>) -> Value {
    let mut object = Map::new();
    set(&mut object, "key", Some(key));
    set_compact(&mut object, "expected", expected);
    set_compact(&mut object, "new", new);
    object.into()
}

pub(super) fn swap(body: &[u8]) -> Result<Swap, String> {
    let answer = parsed(body)?;
    let swapped = answer["swapped"].as_bool().ok_or("the field swapped is missing")?;
    Ok(Swap { swapped, current: get(&answer, "current")? })
}

pub(super) fn txn_body(txn: &Txn) -> Value {
    let compare = |compare: &Compare| {
        let mut object = Map::new();
        set(&mut object, "key", Some(&compare.key));
        set_compact(&mut object, "value", compare.expected.as_deref());
        Value::Object(object)
    };
    let operation = |operation: &TxnOp| {
        let mut object = Map::new();
        match operation {
            TxnOp::Get { key } => drop(object.insert("get".to_owned(), element(Some(key)))),
            TxnOp::Delete { key } => drop(object.insert("delete".to_owned(), element(Some(key)))),
            TxnOp::Put { key, value } => {
                let mut put = Map::new();
                set(&mut put, "key", Some(key));
                set_compact(&mut put, "value", Some(value));
                object.insert("put".to_owned(), put.into());
            }
        }
        Value::Object(object)
    };
    json!({
        "compare": txn.compare.iter().map(compare).collect::<Vec<_>>(),
        "then": txn.then.iter().map(operation).collect::<Vec<_>>(),
        "else": txn.otherwise.iter().map(operation).collect::<Vec<_>>(),
    })
}

pub(super) fn txn_result(body: &[u8]) -> Result<TxnResult, String> {
    let answer = parsed(body)?;
    let succeeded = answer["succeeded"].as_bool().ok_or("the field succeeded is missing")?;
    let results = answer["results"].as_array().ok_or("the field results is missing")?;
    let result = |result: &Value| match result {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        other => decoded(&other["base64"]).map(Some),
    };
    Ok(TxnResult { succeeded, results: results.iter().map(result).collect::<Result<_, _>>()? })
}

/// A page of a scan: its entries, and whether there are more.
pub(super) fn page(body: &[u8]) -> Result<(Vec<KeyValue>, bool), String> {
    let answer = parsed(body)?;
    let entries = answer["entries"].as_array().ok_or("the field entries is missing")?;
    let entry = |entry: &Value| {
        let missing = |field: &str| format!("an entry has no {field}");
        Ok::<_, String>(KeyValue {
            key: get(entry, "key")?.ok_or_else(|| missing("key"))?,
            value: get(entry, "value")?.ok_or_else(|| missing("value"))?,
            revision: entry["revision"].as_u64().ok_or_else(|| missing("revision"))?,
        })
    };
    let more = answer["more"].as_bool().unwrap_or(false);
    Ok((entries.iter().map(entry).collect::<Result<_, _>>()?, more))
}

/// The revision that a node names with code `precondition_failed`.
pub(super) fn conflict(body: &[u8]) -> Result<Guarded, String> {
    Ok(Guarded::Conflict { revision: parsed(body)?["revision"].as_u64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_stand_in_base64() {
        let body = cas_body(b"k", Some(&[0xff, 0]), None);
        assert_eq!(body, json!({"key": "k", "expected_base64": "/wA=", "new": null}));
        let escaped = cas_body(b"k", Some(&[1; 60]), Some(b"plain"));
        assert_eq!(escaped["expected_base64"], STANDARD.encode([1; 60]));
        assert_eq!(escaped["new"], "plain");
        assert_eq!(get(&body, "key"), Ok(Some("k".into())));
        assert_eq!(get(&body, "expected"), Ok(Some(vec![0xff, 0].into())));
        assert_eq!(get(&body, "new"), Ok(None));
        assert!(get(&body, "old").unwrap_err().contains("old"));
        assert!(get(&json!({"x_base64": "?"}), "x").unwrap_err().contains("base64"));
    }

    #[test]
    fn a_transaction_reads_as_it_is_documented() {
        let txn = Txn {
            compare: vec![Compare { key: "a".into(), expected: None }],
            then: vec![
                TxnOp::Put { key: "a".into(), value: vec![0xff].into() },
                TxnOp::Get { key: "b".into() },
            ],
            otherwise: vec![TxnOp::Delete { key: vec![0xff].into() }],
        };
        let expected = json!({
            "compare": [{"key": "a", "value": null}],
            "then": [{"put": {"key": "a", "value_base64": "/w=="}}, {"get": "b"}],
            "else": [{"delete": {"base64": "/w=="}}],
        });
        assert_eq!(txn_body(&txn), expected);
        let body = br#"{"succeeded":true,"results":["x",null,{"base64":"/w=="}]}"#;
        let results = vec![Some("x".into()), None, Some(vec![0xff].into())];
        assert_eq!(txn_result(body), Ok(TxnResult { succeeded: true, results }));
        assert!(txn_result(br#"{"succeeded":true,"results":[7]}"#).is_err());
        assert!(txn_result(b"<html>").is_err());
    }
}
