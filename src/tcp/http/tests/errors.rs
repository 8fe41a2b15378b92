//! Every code of an error, and what the server does about refusals by itself.

use std::collections::BTreeMap;

use super::node::{always, nothing, real, scripted};
use super::{HttpOptions, Server};
use crate::api::{Refusal, Reply, Request};
use crate::kv::{MAX_KEY, MAX_VALUE, Response};
use crate::types::NodeId;

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let server = Server::new(real(), HttpOptions::default()).await;
    let long = format!("/{}", "k".repeat(MAX_KEY + 1));
    for (method, path, status, code) in [
        ("GET", "/", 400, "invalid_key"),
        ("GET", "/v1/kv/", 400, "invalid_key"),
        ("GET", "/%zz", 400, "invalid_key"),
        ("PUT", "/%68ealth", 400, "invalid_key"),
        ("GET", &long, 400, "invalid_key"),
        ("GET", "/k?consistency=eventual", 400, "invalid_query"),
        ("GET", "/k?fresh=1", 400, "invalid_query"),
        ("PUT", "/k?prefix=1", 400, "invalid_query"),
        ("POST", "/v1/sessions?x=1", 400, "invalid_query"),
        ("GET", "/v1/status?x=1", 400, "invalid_query"),
        ("DELETE", "/0", 400, "invalid_node_id"),
        ("GET", "/v1/statuss", 404, "not_found"),
        ("PATCH", "/k", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
    ] {
        server.ask(method, path, "").await.is_error(status, code);
    }
    let answer = server.ask("PUT", "/v1/members", "").await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, POST");
    for (name, value) in [
        ("if-match", "5"),
        ("if-match", "W/\"5\""),
        ("if-none-match", "\"5\""),
        ("idempotency-key", "12"),
        ("idempotency-key", "12-0"),
    ] {
        server.ask_with("PUT", "/k", &[(name, value)], "v").await.is_error(400, "invalid_header");
    }
    let both = [("if-match", "*"), ("if-none-match", "*")];
    server.ask_with("PUT", "/k", &both, "v").await.is_error(400, "invalid_header");
    server
        .ask("POST", "/v1/members", r#"{"id":0,"url":"http://h:1"}"#)
        .await
        .is_error(400, "invalid_node_id");
    server.ask("PUT", "/k", vec![b'v'; MAX_VALUE + 1]).await.is_error(413, "too_large");
    assert_eq!(server.ask("PUT", "/k", vec![b'v'; MAX_VALUE]).await.status, 204);
    assert_eq!(server.ask("GET", "/k", "").await.body.len(), MAX_VALUE);
}

/// Whoever writes JSON may escape each character of two values, and a server must take it.
#[tokio::test]
async fn a_swap_of_the_largest_values_may_be_all_escapes() {
    let swapped = Response::Swapped { swapped: true, current: None };
    let reply = Reply::Applied { index: 9, response: swapped.encode() };
    let (handle, _views) = always(reply);
    let server = Server::new(handle, HttpOptions::default()).await;
    let value = "\\u0001".repeat(MAX_VALUE);
    let body = format!(r#"{{"key":"k","expected":"{value}","new":"{value}"}}"#);
    assert_eq!(server.ask("POST", "/v1/cas", &body).await.status, 200);
}

/// A refusal that passes, of a server with little patience.
#[tokio::test]
async fn a_refusal_that_stays_becomes_an_error() {
    for (refusal, status, code) in [
        (Refusal::NotLeader(None), 503, "no_leader"),
        (Refusal::NotLeader(Some(NodeId(2))), 503, "no_leader"),
        (Refusal::Transferring, 503, "leader_transferring"),
        (Refusal::Superseded, 503, "superseded"),
        (Refusal::Stopping, 503, "stopping"),
        (Refusal::DiskFull(NodeId(2)), 507, "disk_full"),
        (Refusal::Busy, 429, "busy"),
        (Refusal::TooLarge, 413, "too_large"),
        (Refusal::ReconfigurationPending, 409, "reconfiguration_pending"),
        (Refusal::QuorumAtRisk, 409, "quorum_at_risk"),
        (Refusal::InvalidReconfiguration, 409, "invalid_membership_change"),
        (Refusal::SessionExpired, 410, "session_expired"),
        (Refusal::OutOfOrder, 409, "sequence_out_of_order"),
        (Refusal::NumberReused, 422, "idempotency_key_reused"),
    ] {
        let (handle, _views) = always(Reply::Refused(refusal));
        let server = Server::limited(handle, |limits| limits.request /= 20).await;
        server.ask("PUT", "/k", "v").await.is_error(status, code);
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_not_seen() {
    let mut left = 3;
    let (handle, _views) = scripted(move |request| {
        assert!(matches!(request, Request::Command { .. }));
        left -= 1;
        let response = Response::Written { revision: 5 }.encode();
        Some(match left {
            2 => Reply::Refused(Refusal::NotLeader(None)),
            1 => Reply::Refused(Refusal::Superseded),
            _ => Reply::Applied { index: 5, response },
        })
    });
    let server = Server::new(handle, HttpOptions::default()).await;
    let answer = server.ask("PUT", "/k", "v").await;
    assert_eq!((answer.status, answer.header("etag")), (204, "\"5\""));
}

/// The node leaves its first answer open; what a second one would be.
fn unknown_first(then: Reply) -> (crate::tcp::handle::Handle, impl Drop) {
    let mut first = true;
    let (handle, views) = scripted(move |_| {
        let reply = if first { Reply::Unknown } else { then.clone() };
        first = false;
        Some(reply)
    });
    struct Keep(#[allow(dead_code, reason = "kept alive")] Box<dyn std::any::Any>);
    impl Drop for Keep {
        fn drop(&mut self) {}
    }
    (handle, Keep(Box::new(views)))
}

#[tokio::test]
async fn an_unknown_outcome_is_only_repeated_if_that_is_safe() {
    let written = Reply::Applied { index: 5, response: Response::Written { revision: 5 }.encode() };
    let (handle, _views) = unknown_first(written.clone());
    let server = Server::new(handle, HttpOptions::default()).await;
    server.ask("PUT", "/k", "v").await.is_error(504, "outcome_unknown");

    let (handle, _views) = unknown_first(written);
    let server = Server::new(handle, HttpOptions::default()).await;
    let key = [("idempotency-key", "3-1")];
    assert_eq!(server.ask_with("PUT", "/k", &key, "v").await.status, 204);

    let (handle, _views) = unknown_first(nothing());
    let server = Server::new(handle, HttpOptions::default()).await;
    server.ask("GET", "/k", "").await.is_error(404, "key_not_found");

    // A refusal says nothing about the attempt before it.
    let (handle, _views) = unknown_first(Reply::Refused(Refusal::NotLeader(None)));
    let server = Server::limited(handle, |limits| limits.request /= 20).await;
    server.ask_with("PUT", "/k", &key, "v").await.is_error(504, "outcome_unknown");

    // The session may have been evicted after the first attempt was applied.
    for refusal in [Refusal::SessionExpired, Refusal::OutOfOrder] {
        let (handle, _views) = unknown_first(Reply::Refused(refusal));
        let server = Server::new(handle, HttpOptions::default()).await;
        server.ask_with("PUT", "/k", &key, "v").await.is_error(504, "outcome_unknown");
    }

    // A plain command that was on its way to a leader that is lost: its fate is open, and the time is
    // not the reason.
    let (handle, _views) = always(Reply::LeaderLost);
    let server = Server::new(handle, HttpOptions::default()).await;
    let answer = server.ask("PUT", "/k", "v").await;
    answer.is_error(504, "outcome_unknown");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("the leader was lost while the request was on its way; it may"));

    let (handle, _views) = unknown_first(Reply::Reconfigured { index: 5 });
    let server = Server::new(handle, HttpOptions::default()).await;
    server.ask("POST", "/4", "http://127.0.0.1:42379").await.is_error(504, "outcome_unknown");
}

#[tokio::test]
async fn command_with_a_key_does_not_wait_for_a_former_leader() {
    let mut first = true;
    let (handle, views) = scripted(move |_| {
        let response = Response::Written { revision: 5 }.encode();
        (!std::mem::replace(&mut first, false)).then_some(Reply::Applied { index: 5, response })
    });
    let server = Server::new(handle, HttpOptions::default()).await;
    let key = [("idempotency-key", "3-1")];
    let put = server.ask_with("PUT", "/k", &key, "v");
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let mut view = super::node::view();
        view.status.leader = Some(NodeId(2));
        views.send_replace(view.into());
        std::future::pending::<()>().await
    };
    let put = tokio::time::timeout(super::PATIENCE, put);
    let answer = tokio::select! { answer = put => answer, () = change => unreachable!() };
    assert_eq!(answer.expect("the attempt is repeated").status, 204);
}

#[tokio::test]
async fn answer_that_was_not_kept_says_that_the_command_was_applied() {
    let (handle, _views) = unknown_first(Reply::NotKept { index: 5, bytes: 70_000 });
    let server = Server::new(handle, HttpOptions::default()).await;
    let key = [("idempotency-key", "3-1")];
    let body = r#"{"key":"k","expected":"a","new":"b"}"#;
    let answer = server.ask_with("POST", "/v1/cas", &key, body).await;
    answer.is_error(504, "answer_not_kept");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("applied once") && text.contains("70000 bytes"), "{text}");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_no_success() {
    let (handle, _views) = always(Reply::Transferring);
    let server = Server::new(handle, HttpOptions::default()).await;
    server.ask("PUT", "/k", "v").await.is_error(504, "outcome_unknown");
    let response = Response::Invalid { reason: "the key is odd: use another".to_owned() }.encode();
    let (handle, _views) = always(Reply::Applied { index: 5, response });
    let server = Server::new(handle, HttpOptions::default()).await;
    server.ask("PUT", "/k", "v").await.is_error(400, "invalid_command");
}

#[test]
fn every_code_is_tested() {
    // The tests name each code, so a new one must be tested, too.
    let tests = [
        include_str!("auth.rs"),
        include_str!("connections.rs"),
        include_str!("data.rs"),
        include_str!("errors.rs"),
        include_str!("members.rs"),
    ];
    let found: BTreeMap<&str, usize> = super::super::Code::ALL
        .iter()
        .map(|code| {
            let quoted = format!("\"{}\"", code.name());
            (code.name(), tests.iter().map(|test| test.matches(&quoted).count()).sum())
        })
        .collect();
    assert!(found.values().all(|count| *count > 0), "{found:?}");
}
