//! Commands, queries and their responses in the words of a plan, for the reader of a trace.
//!
//! Bytes that cannot be decoded are shown as they are: a reader of a failure sees what is there.

use bytes::Bytes;
use stormkv::kv::{Command, Guard, Query, Response, TxnOp};

/// What a query asks for: `scan k1* after k2 limit 3`.
pub fn query(bytes: &[u8]) -> String {
    match Query::decode(bytes) {
        Ok(Query::Get { key }) => format!("get {}", text(&key)),
        Ok(Query::Scan { prefix, after, limit }) => {
            let after = after.map_or_else(String::new, |key| format!(" after {}", text(&key)));
            let limit = if limit > 0 { format!(" limit {limit}") } else { String::new() };
            format!("scan {}*{after}{limit}", text(&prefix))
        }
        Err(_) => format!("query {:?}", Bytes::copy_from_slice(bytes)),
    }
}

/// What a command does: `cas k1 - v3`.
pub fn command(bytes: &[u8]) -> String {
    let Ok(command) = Command::decode(bytes) else {
        return format!("command {:?}", Bytes::copy_from_slice(bytes));
    };
    match command {
        Command::Put { key, value } => format!("put {} {}", text(&key), text(&value)),
        Command::Delete { key } => format!("delete {}", text(&key)),
        Command::Cas { key, expected, new } => {
            format!("cas {} {} {}", text(&key), optional(&expected), optional(&new))
        }
        Command::Txn { compares, then, otherwise } => {
            let conditions = compares
                .iter()
                .map(|c| format!("{}={}", text(&c.key), optional(&c.expected)))
                .collect::<Vec<_>>();
            let condition = match conditions.is_empty() {
                true => String::new(),
                false => format!(" if {}", conditions.join(" ")),
            };
            let otherwise = match otherwise.is_empty() {
                true => String::new(),
                false => format!(" else {}", steps(&otherwise)),
            };
            format!("txn{condition} then {}{otherwise}", steps(&then))
        }
        Command::Guarded { key, guard, value } => {
            let guard = match guard {
                Guard::Absent => "absent".to_owned(),
                Guard::Present => "present".to_owned(),
                Guard::Revision(revision) => format!("at {revision}"),
            };
            format!("guarded {} {guard} {}", text(&key), optional(&value))
        }
    }
}

fn steps(steps: &[TxnOp]) -> String {
    let step = |step: &TxnOp| match step {
        TxnOp::Get { key } => format!("get {}", text(key)),
        TxnOp::Put { key, value } => format!("put {} {}", text(key), text(value)),
        TxnOp::Delete { key } => format!("delete {}", text(key)),
    };
    steps.iter().map(step).collect::<Vec<_>>().join("; ")
}

/// What the state machine answers: `written at 9`.
pub fn response(bytes: &[u8]) -> String {
    let Ok(response) = Response::decode(bytes) else {
        return format!("{:?}", Bytes::copy_from_slice(bytes));
    };
    match response {
        Response::Written { revision } => format!("written at {revision}"),
        Response::Deleted { existed: true } => "deleted".to_owned(),
        Response::Deleted { existed: false } => "there was nothing to delete".to_owned(),
        Response::Swapped { swapped, current } => {
            let what = if swapped { "swapped" } else { "not swapped" };
            format!("{what}, it was {}", optional(&current))
        }
        Response::Value(value) => optional(&value.map(|found| found.value)),
        Response::Entries { entries, more } => {
            let pairs = entries.iter().map(|e| format!("{}={}", text(&e.key), text(&e.value)));
            let more = if more { ", .." } else { "" };
            format!("[{}{more}]", pairs.collect::<Vec<_>>().join(", "))
        }
        Response::Committed { succeeded, results } => {
            let what = if succeeded { "then" } else { "else" };
            let read = results.iter().map(optional).collect::<Vec<_>>().join(", ");
            format!("{what} [{read}]")
        }
        Response::Conflict { revision: Some(revision) } => format!("refused, it is at {revision}"),
        Response::Conflict { revision: None } => "refused, it is absent".to_owned(),
        other @ Response::Invalid { .. } => format!("{other:?}"),
    }
}

/// As [`response`], with the revisions of what was found: `v3@9`.
pub fn exact_response(bytes: &[u8]) -> String {
    match Response::decode(bytes) {
        Ok(Response::Value(Some(found))) => format!("{}@{}", text(&found.value), found.revision),
        Ok(Response::Entries { entries, more }) => {
            let pairs = entries
                .iter()
                .map(|e| format!("{}={}@{}", text(&e.key), text(&e.value), e.revision));
            let more = if more { ", .." } else { "" };
            format!("[{}{more}]", pairs.collect::<Vec<_>>().join(", "))
        }
        _ => response(bytes),
    }
}

/// A value, or `-` for none, as in a plan.
fn optional(value: &Option<Bytes>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), |value| text(value))
}

/// Bytes as text. A long one is padded, and its beginning is enough.
fn text(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}*{}", &text[..end], bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_described_as_a_plan_writes_them() {
        let key = Bytes::from_static(b"k1");
        let put = Command::Put { key: key.clone(), value: vec![b'v'; 100].into() }.encode();
        assert_eq!(command(&put), format!("put k1 {}*100", "v".repeat(24)));
        let cas = Command::Cas { key: key.clone(), expected: None, new: Some(key.clone()) };
        assert_eq!(command(&cas.encode()), "cas k1 - k1");
        let then = vec![TxnOp::Get { key: key.clone() }, TxnOp::Delete { key }];
        let txn = Command::Txn { compares: Vec::new(), then, otherwise: Vec::new() };
        assert_eq!(command(&txn.encode()), "txn then get k1; delete k1");
        assert_eq!(command(&[255]), r#"command b"\xff""#);
        let swapped = Response::Swapped { swapped: false, current: None }.encode();
        assert_eq!(response(&swapped), "not swapped, it was -");
    }
}
