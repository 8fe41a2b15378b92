//! Requests, commands and their answers in the words of a plan, for whoever reads a trace.
//!
//! What cannot be decoded is told as its bytes: a reader of a failure sees what is there.

use bytes::Bytes;
use stormkv::api::{Consistency, Refusal, Reply, Request};
use stormkv::kv::{Command, Guard, Query, Response, TxnOp};
use stormkv::node::Proposal;
use stormkv::types::EntryKind;

use crate::plan::{Op, Step};

/// What a client asks a node for: `put k1 v7 (s6 #1)`.
pub fn request(request: &Request) -> String {
    match request {
        Request::OpenSession => "open a session".to_owned(),
        Request::Command { session, command: bytes } => {
            let number = session
                .map_or_else(String::new, |(session, nr)| format!(" (s{} #{nr})", session.0));
            command(bytes) + &number
        }
        Request::Query { query: bytes, consistency } => {
            let stale = if *consistency == Consistency::Stale { " (stale)" } else { "" };
            query(bytes) + stale
        }
        Request::Reconfigure(change) | Request::ForceReconfigure(change) => {
            let ids = |verb: &str, ids: &[stormkv::types::NodeId]| -> Vec<String> {
                ids.iter().map(|id| format!("{verb} {id}")).collect()
            };
            let addresses = change.addresses.iter().map(|(id, at)| format!("{id} is at {at}"));
            let parts = [
                ids("voter", &change.voters),
                ids("learner", &change.learners),
                ids("remove", &change.removed),
                addresses.collect(),
            ];
            let forced = matches!(request, Request::ForceReconfigure(_));
            parts.concat().join(", ") + if forced { " (forced)" } else { "" }
        }
        Request::Transfer(id) => format!("transfer to {id}"),
    }
}

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

/// What an entry of the log says: `put k1 v7`.
pub fn entry(kind: EntryKind, data: &Bytes) -> String {
    match (kind, Proposal::decode(data)) {
        (EntryKind::Normal, _) if data.is_empty() => "empty, of a new leader".to_owned(),
        (EntryKind::Normal, Some(Proposal::OpenSession)) => "opens a session".to_owned(),
        (EntryKind::Normal, Some(Proposal::Command(_, bytes))) => command(bytes),
        (EntryKind::Normal, None) => "not a proposal".to_owned(),
        _ => "a change of the membership".to_owned(),
    }
}

/// The keys that an operation is about, each once; a prefix ends in `*`.
pub fn keys(op: &Op) -> Vec<String> {
    let mut keys = match op {
        Op::Put { key, .. }
        | Op::Get { key }
        | Op::Delete { key }
        | Op::Cas { key, .. }
        | Op::Guarded { key, .. } => vec![key.clone()],
        Op::Scan { prefix, .. } => vec![format!("{prefix}*")],
        Op::Txn { conditions, then, otherwise } => {
            let of = |step: &Step| match step {
                Step::Put { key, .. } | Step::Delete { key } | Step::Get { key } => key.clone(),
            };
            let asked = conditions.iter().map(|condition| condition.key.clone());
            asked.chain(then.iter().chain(otherwise).map(of)).collect()
        }
        _ => Vec::new(),
    };
    keys.sort_unstable();
    keys.dedup();
    keys
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

/// What a node answers: `applied at 9: written`.
pub fn reply(reply: &Reply) -> String {
    match reply {
        Reply::SessionOpened(session) => format!("session s{} is open", session.0),
        Reply::Applied { index, response: bytes } => {
            format!("applied at {index}: {}", response(bytes))
        }
        Reply::Value { index, response: bytes } => format!("as of {index}: {}", response(bytes)),
        Reply::Reconfigured { index } => format!("the membership is changed at {index}"),
        Reply::Transferring => "the transfer has begun".to_owned(),
        Reply::Refused(Refusal::NotLeader(None)) => "refused: not the leader".to_owned(),
        Reply::Refused(Refusal::NotLeader(Some(id))) => {
            format!("refused: not the leader, {id} is")
        }
        Reply::Refused(reason) => format!("refused: {reason:?}"),
        Reply::Unknown => "outcome unknown".to_owned(),
        Reply::LeaderLost => "outcome unknown: the leader was lost".to_owned(),
        Reply::NotKept { index, bytes } => {
            format!("applied at {index}: the answer of {bytes} bytes was not kept")
        }
    }
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
    use stormkv::types::{NodeId, SessionId};

    use super::*;

    #[test]
    fn requests_are_told_as_a_plan_tells_them() {
        let key = Bytes::from_static(b"k1");
        let put = Command::Put { key: key.clone(), value: vec![b'v'; 100].into() }.encode();
        let put = Request::Command { session: Some((SessionId(6), 1)), command: put };
        assert_eq!(request(&put), format!("put k1 {}*100 (s6 #1)", "v".repeat(24)));
        let cas = Command::Cas { key: key.clone(), expected: None, new: Some(key.clone()) };
        assert_eq!(command(&cas.encode()), "cas k1 - k1");
        let then = vec![TxnOp::Get { key: key.clone() }, TxnOp::Delete { key }];
        let txn = Command::Txn { compares: Vec::new(), then, otherwise: Vec::new() };
        assert_eq!(command(&txn.encode()), "txn then get k1; delete k1");
        assert_eq!(command(&[255]), r#"command b"\xff""#);
        assert_eq!(request(&Request::Transfer(NodeId(2))), "transfer to n2");
    }

    #[test]
    fn answers_are_told_in_words() {
        let response = Response::Swapped { swapped: false, current: None }.encode();
        let told = reply(&Reply::Applied { index: 9, response });
        assert_eq!(told, "applied at 9: not swapped, it was -");
        let told = reply(&Reply::Refused(Refusal::NotLeader(Some(NodeId(2)))));
        assert_eq!(told, "refused: not the leader, n2 is");
        assert_eq!(reply(&Reply::Refused(Refusal::Busy)), "refused: Busy");
    }
}
