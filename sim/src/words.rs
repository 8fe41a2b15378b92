//! Requests and replies in words, for the reader of a trace. The service describes what is its own.

use bytes::Bytes;
use stormkv::api::{Consistency, Refusal, Reply, Request};
use stormkv::node::Proposal;
use stormkv::types::EntryKind;

use crate::service::{Describe, Shown};

/// What a client asks a node for: `put k1 v7 (s6 #1)`.
pub fn request(describe: Describe, request: &Request) -> String {
    match request {
        Request::OpenSession => "open a session".to_owned(),
        Request::Command { session, command: bytes } => {
            let number = session
                .map_or_else(String::new, |(session, nr)| format!(" (s{} #{nr})", session.0));
            describe(Shown::Command(bytes)) + &number
        }
        Request::Query { query: bytes, consistency } => {
            let stale = if *consistency == Consistency::Stale { " (stale)" } else { "" };
            describe(Shown::Query(bytes)) + stale
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

/// What an entry of the log says: `put k1 v7`.
pub fn entry(describe: Describe, kind: EntryKind, data: &Bytes) -> String {
    match (kind, Proposal::decode(data)) {
        (EntryKind::Normal, _) if data.is_empty() => "empty, of a new leader".to_owned(),
        (EntryKind::Normal, Some(Proposal::OpenSession)) => "opens a session".to_owned(),
        (EntryKind::Normal, Some(Proposal::Command(_, bytes))) => describe(Shown::Command(bytes)),
        (EntryKind::Normal, None) => "not a proposal".to_owned(),
        _ => "a change of the membership".to_owned(),
    }
}

/// What a node answers: `applied at 9: written`.
pub fn reply(describe: Describe, reply: &Reply) -> String {
    match reply {
        Reply::SessionOpened(session) => format!("session s{} is open", session.0),
        Reply::Applied { index, response: bytes } => {
            format!("applied at {index}: {}", describe(Shown::Response(bytes)))
        }
        Reply::Value { index, response: bytes } => {
            format!("as of {index}: {}", describe(Shown::Response(bytes)))
        }
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

#[cfg(test)]
mod tests {
    use stormkv::types::{NodeId, SessionId};

    use super::*;

    #[test]
    fn requests_and_replies_are_described() {
        let describe: Describe = |shown| match shown {
            Shown::Command(_) => "put k1 v".to_owned(),
            other => other.to_string(),
        };
        let session = Some((SessionId(6), 1));
        let put = Request::Command { session, command: Bytes::from_static(b"..") };
        assert_eq!(request(describe, &put), "put k1 v (s6 #1)");
        assert_eq!(request(describe, &Request::Transfer(NodeId(2))), "transfer to n2");
        let applied = Reply::Applied { index: 9, response: Bytes::from_static(b"v") };
        assert_eq!(reply(describe, &applied), r#"applied at 9: b"v""#);
        let refused = Reply::Refused(Refusal::NotLeader(Some(NodeId(2))));
        assert_eq!(reply(describe, &refused), "refused: not the leader, n2 is");
        assert_eq!(reply(describe, &Reply::Refused(Refusal::Busy)), "refused: Busy");
    }
}
