//! What is told to a client when something does not work: one shape, one list of codes.
//!
//! The code is for programs and never changes its meaning; the message is for people and says what
//! happened, to what, and what to do.

use std::borrow::Cow;

use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::body::Body;
use crate::api::Refusal;

/// Defines the codes once: variant, name on the wire, status, meaning.
macro_rules! codes {
    ($($variant:ident $name:literal $status:ident $meaning:literal;)*) => {
        /// The stable codes of errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The code as it stands in the JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// The status that comes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status),* }
            }
        }
    };
}

codes! {
    InvalidKey "invalid_key" BAD_REQUEST "The key in the path is no key.";
    InvalidQuery "invalid_query" BAD_REQUEST "A parameter behind the `?` is unknown or wrong.";
    InvalidHeader "invalid_header" BAD_REQUEST "A header cannot be understood.";
    InvalidBody "invalid_body" BAD_REQUEST "The body is not the JSON that is wanted.";
    InvalidCommand "invalid_command" BAD_REQUEST "The command breaks a limit of the machine.";
    InvalidNodeId "invalid_node_id" BAD_REQUEST "The path names no member id.";
    InvalidUrl "invalid_url" BAD_REQUEST "No member can be reached at the address.";
    Unauthorized "unauthorized" UNAUTHORIZED "There is no token, or an unknown one.";
    Forbidden "forbidden" FORBIDDEN "The token's role does not allow it, or a web page asks.";
    KeyNotFound "key_not_found" NOT_FOUND "The key is absent.";
    NotFound "not_found" NOT_FOUND "There is no such path.";
    MemberNotFound "member_not_found" NOT_FOUND "There is no such member.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The path has no such method.";
    Timeout "timeout" REQUEST_TIMEOUT "The body did not arrive in time.";
    SequenceOutOfOrder "sequence_out_of_order" CONFLICT "A newer command was applied.";
    ReconfigurationPending "reconfiguration_pending" CONFLICT "Another change is not finished.";
    QuorumAtRisk "quorum_at_risk" CONFLICT "Too few of the voters after the change answer.";
    InvalidMembershipChange "invalid_membership_change" CONFLICT "The change makes no sense.";
    SessionExpired "session_expired" GONE "The session is unknown (any more).";
    IdempotencyKeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY
        "The Idempotency-Key belongs to another command.";
    PreconditionFailed "precondition_failed" PRECONDITION_FAILED "The key has another revision.";
    TooLarge "too_large" PAYLOAD_TOO_LARGE "The body or value is over its limit.";
    Busy "busy" TOO_MANY_REQUESTS "Too much is under way.";
    DiskFull "disk_full" INSUFFICIENT_STORAGE "A member's disk is nearly full.";
    NoLeader "no_leader" SERVICE_UNAVAILABLE "No leader answered in time.";
    LeaderTransferring "leader_transferring" SERVICE_UNAVAILABLE "Leadership is being handed over.";
    Stopping "stopping" SERVICE_UNAVAILABLE "This node has stopped or is about to.";
    TooManyConnections "too_many_connections" SERVICE_UNAVAILABLE "All connections are in use.";
    Superseded "superseded" SERVICE_UNAVAILABLE "New leaders kept replacing the attempt.";
    AnswerNotKept "answer_not_kept" GATEWAY_TIMEOUT "It was applied, but its answer is gone.";
    OutcomeUnknown "outcome_unknown" GATEWAY_TIMEOUT "It may have happened, or may happen still.";
}

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    /// A field beside the code and the message.
    field: Option<(&'static str, Value)>,
    /// The methods that the path has.
    allow: Option<String>,
    /// The connection is of no further use, as an unread body stands in it.
    close: bool,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code, message: message.into(), field: None, allow: None, close: false }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn method(allow: String) -> ApiError {
        let message = format!("this path has no such method: use one of {allow}");
        ApiError { allow: Some(allow), ..ApiError::new(Code::MethodNotAllowed, message) }
    }

    /// The same, with another field in its JSON.
    pub fn and_field(self, name: &'static str, value: Value) -> ApiError {
        ApiError { field: Some((name, value)), ..self }
    }

    /// The same, with a remark behind its message.
    pub fn and_hint(self, hint: &str) -> ApiError {
        ApiError { message: format!("{} ({hint})", self.message).into(), ..self }
    }

    /// The same, and the connection ends with it.
    pub fn and_close(self) -> ApiError {
        ApiError { close: true, ..self }
    }

    /// What a refusal means to a client, after all the attempts that made sense.
    pub fn refused(refusal: Refusal) -> ApiError {
        if let Refusal::DiskFull(id) = refusal {
            let message = format!(
                "the disk of member {id} is nearly full, so nothing was done: delete keys, make room \
                 on that disk, or hand leadership to a member that has room"
            );
            return ApiError::new(Code::DiskFull, message);
        }
        let (code, message) = match refusal {
            Refusal::NotLeader(None) => (
                Code::NoLeader,
                "no leader is known, so nothing was done: is a majority of the members up and \
                 connected? Try again",
            ),
            Refusal::NotLeader(Some(_)) => (
                Code::NoLeader,
                "the leader could not be reached, so nothing was done: try again, or at another \
                 member",
            ),
            Refusal::Busy => {
                (Code::Busy, "too many requests are waiting, so nothing was done: try again later")
            }
            Refusal::Transferring => (
                Code::LeaderTransferring,
                "leadership is being handed over, so nothing was done: try again",
            ),
            Refusal::Superseded => (
                Code::Superseded,
                "a new leader's entry took the place of this one, so nothing was done: try again",
            ),
            Refusal::SessionExpired => (
                Code::SessionExpired,
                "the session is unknown (any more), and earlier attempts of this command may have \
                 had an effect: open a new session with POST /v1/sessions, and read before \
                 repeating the command",
            ),
            Refusal::OutOfOrder => (
                Code::SequenceOutOfOrder,
                "a command with a newer sequence number was applied in this session, so this one \
                 never will be: count upwards, one command at a time",
            ),
            Refusal::NumberReused => (
                Code::IdempotencyKeyReused,
                "another command was sent with this Idempotency-Key, so this one was not applied: \
                 count the sequence number up for each new command",
            ),
            Refusal::ReconfigurationPending => (
                Code::ReconfigurationPending,
                "another membership change is not finished, so nothing was done: try again later",
            ),
            Refusal::InvalidReconfiguration => (
                Code::InvalidMembershipChange,
                "the membership change makes no sense, so nothing was done: see GET /v1/members",
            ),
            Refusal::QuorumAtRisk => (
                Code::QuorumAtRisk,
                "too few of the members that would vote after this change answer the leader, so \
                 nothing was done, as the cluster could stop for ever: start the missing members, or \
                 first remove those that are lost, and try again",
            ),
            Refusal::TooLarge => {
                (Code::TooLarge, "the request is over the node's limit: make it smaller")
            }
            Refusal::DiskFull(_) => unreachable!("it was answered above"),
            Refusal::Stopping => {
                (Code::Stopping, "this node is stopping, so nothing was done: ask another member")
            }
        };
        ApiError::new(code, message)
    }

    /// The answer for a client.
    pub fn into_response(self) -> Response<Body> {
        let mut json = serde_json::json!({ "code": self.code.name(), "message": self.message });
        if let Some((name, value)) = self.field {
            json[name] = value;
        }
        let mut response = Response::new(Body::full(json.to_string()));
        let status = self.code.status();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const CHALLENGE: &str = "Bearer realm=\"stormkv\"";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_names_are_distinct_and_the_table_of_the_api_lists_exactly_them() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        // Rows of the table read `//! | 404 | `a`, `b` | ... |`.
        let essay = include_str!("../http.rs");
        let mut listed = BTreeSet::new();
        for line in essay.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, status, codes, ..] = cells[..] else { continue };
            let Ok(status) = status.parse::<u16>() else { continue };
            if status < 400 {
                continue;
            }
            for name in codes.split(", ").map(|name| name.trim_matches('`')) {
                let code = Code::ALL.iter().find(|code| code.name() == name);
                let code = code.unwrap_or_else(|| panic!("the table lists `{name}`, no such code"));
                assert_eq!(code.status().as_u16(), status, "the status of {name} in the table");
                assert!(listed.insert(code.name()), "{name} is listed twice");
            }
        }
        assert_eq!(listed, names);
    }
}
