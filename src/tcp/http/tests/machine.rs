//! The routes of a machine that is no key-value store.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;

use super::node::{always, real_with, scripted};
use super::{HttpOptions, Server};
use crate::api::{Consistency, Refusal, Reply, Request};
use crate::session::MAX_KEPT_RESPONSE;
use crate::tcp::handle::Handle;
use crate::tcp::http::{Limits, MachineRoutes, Tokens};
use crate::tcp::scratch::Scratch;
use crate::tcp::testing::Register;

async fn serve(handle: Handle, options: HttpOptions) -> Server {
    Server::with::<MachineRoutes>(handle, options).await
}

/// A server of a real node.
async fn server() -> Server {
    serve(real_with::<Register>(), HttpOptions::default()).await
}

#[tokio::test]
async fn command_and_query_carry_the_bytes_of_the_machine() {
    let server = server().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let first = server.ask("POST", "/v1/command", &bytes).await;
    assert_eq!((first.status, first.body.len()), (200, 0), "the value before is empty");
    assert_eq!(first.header("content-type"), "application/octet-stream");
    let index = |tag: &str| tag.trim_matches('"').parse::<u64>().expect("an index in quotes");
    let second = server.ask("POST", "/v1/command", "two").await;
    assert_eq!((second.status, &second.body), (200, &bytes));
    assert!(index(second.header("etag")) > index(first.header("etag")));
    for path in ["/v1/query", "/v1/query?consistency=stale", "/v1/query?consistency=linearizable"] {
        let answer = server.ask("POST", path, "what is it?").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"two"[..]), "{path}");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert!(index(answer.header("etag")) >= index(second.header("etag")), "{path}");
    }
    // No bytes at all are a command, too.
    assert_eq!(server.ask("POST", "/v1/command", "").await.body, b"two");
    assert_eq!(server.ask("POST", "/v1/query", "").await.body, b"");
}

#[tokio::test]
async fn query_names_its_consistency() {
    let (handle, _views) = scripted(|request| {
        let Request::Query { query, consistency } = request else { panic!("{request:?}") };
        let response = match consistency {
            Consistency::Linearizable => query,
            Consistency::Stale => Bytes::from_static(b"stale"),
        };
        Some(Reply::Value { index: 7, response })
    });
    let server = serve(handle, HttpOptions::default()).await;
    let fresh = server.ask("POST", "/v1/query", "fresh").await;
    assert_eq!((&fresh.body[..], fresh.header("etag")), (&b"fresh"[..], "\"7\""));
    assert_eq!(server.ask("POST", "/v1/query?consistency=stale", "fresh").await.body, b"stale");
}

#[tokio::test]
async fn command_with_a_key_is_applied_once() {
    let server = server().await;
    let session = server.ask("POST", "/v1/sessions", "").await.json()["session"].as_u64().unwrap();
    let keys: Vec<String> = (1..=3).map(|number| format!("{session}-{number}")).collect();
    let command = async |number: usize, body: &str| {
        let key = [("idempotency-key", keys[number - 1].as_str())];
        server.ask_with("POST", "/v1/command", &key, body).await
    };
    let long = "x".repeat(MAX_KEPT_RESPONSE + 1);
    assert_eq!(command(1, "one").await.body, b"");
    assert_eq!(server.ask("POST", "/v1/command", "between").await.body, b"one");
    let again = command(1, "one").await;
    assert_eq!((again.status, again.body.len()), (200, 0), "the first answer");
    assert_eq!(server.ask("POST", "/v1/query", "").await.body, b"between");
    command(1, "another").await.is_error(422, "idempotency_key_reused");

    assert_eq!(command(2, &long).await.body, b"between");
    assert_eq!(command(3, "three").await.body, long.as_bytes());
    command(3, "three").await.is_error(504, "answer_not_kept");
    command(2, &long).await.is_error(409, "sequence_out_of_order");
    assert_eq!(server.ask("POST", "/v1/query", "").await.body, b"three");
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let server = server().await;
    for (method, path, status, code) in [
        ("GET", "/v1/command", 405, "method_not_allowed"),
        ("PUT", "/v1/command", 405, "method_not_allowed"),
        ("GET", "/v1/query", 405, "method_not_allowed"),
        ("DELETE", "/v1/query", 405, "method_not_allowed"),
        ("POST", "/v1/command?consistency=stale", 400, "invalid_query"),
        ("POST", "/v1/query?consistency=eventual", 400, "invalid_query"),
        ("POST", "/v1/query?consistency=stale&consistency=stale", 400, "invalid_query"),
        ("POST", "/v1/query?stale", 400, "invalid_query"),
        ("POST", "/v1/query?consistency=%zz", 400, "invalid_query"),
        ("POST", "/v1/commands", 404, "not_found"),
        ("POST", "/v1/command/", 404, "not_found"),
        // Those of the key-value store.
        ("GET", "/k", 404, "not_found"),
        ("PUT", "/v1/kv/k", 404, "not_found"),
        ("GET", "/v1/kv", 404, "not_found"),
        ("POST", "/v1/txn", 404, "not_found"),
        ("POST", "/4", 404, "not_found"),
    ] {
        server.ask(method, path, "x").await.is_error(status, code);
    }
    let answer = server.ask("GET", "/v1/command", "").await;
    assert_eq!(answer.header("allow"), "POST");
    // A session without a number, and other things that are no pair of numbers.
    for key in ["12", "12-", "-1", "12-0", "12-1-1", "a-1", ""] {
        let key = [("idempotency-key", key)];
        let answer = server.ask_with("POST", "/v1/command", &key, "x").await;
        answer.is_error(400, "invalid_header");
    }
    let two = [("idempotency-key", "12-1"), ("idempotency-key", "12-2")];
    server.ask_with("POST", "/v1/command", &two, "x").await.is_error(400, "invalid_header");
    let unknown = [("idempotency-key", "12-1")];
    server.ask_with("POST", "/v1/command", &unknown, "x").await.is_error(410, "session_expired");
    assert_eq!(server.ask("POST", "/v1/query", "").await.body, b"", "none of them was applied");
}

#[tokio::test]
async fn body_over_a_limit_is_too_large() {
    let limits = Limits { body: 3 << 20, ..Limits::default() };
    let options = HttpOptions { limits, ..HttpOptions::default() };
    let server = serve(real_with::<Register>(), options).await;
    for path in ["/v1/command", "/v1/query"] {
        // The node's own limit is 2 MiB. The connection goes on, as the body was read.
        let mut client = server.connect().await;
        client.ask("POST", path, &[], vec![b'x'; (2 << 20) + 1]).await.is_error(413, "too_large");
        assert_eq!(client.ask("POST", path, &[], vec![b'x'; 2 << 20]).await.status, 200);
        // Only announced, and never sent.
        let mut client = server.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 3145729\r\n\r\n");
        client.send(head).await;
        let answer = client.answer(true).await;
        answer.is_error(413, "too_large");
        assert_eq!(answer.header("connection"), "close");
    }
}

#[tokio::test]
async fn routes_of_every_node_are_there() {
    let server = server().await;
    server.ask("POST", "/v1/command", "x").await;
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("GET", "/v1/status", 200),
        ("GET", "/v1/members", 200),
        ("GET", "/v1/backup", 200),
        ("POST", "/v1/sessions", 201),
        ("PUT", "/v1/members/1", 400),
        ("DELETE", "/v1/members/9", 404),
        ("POST", "/v1/members/9/promote", 404),
    ] {
        assert_eq!(server.ask(method, path, "").await.status, status, "{method} {path}");
    }
    let leads = server.ask("POST", "/v1/leader", r#"{"id":1}"#).await;
    assert_eq!(leads.status, 200);
    let status = server.ask("GET", "/v1/status", "").await.json();
    assert_eq!(status["keys"], 0, "a machine that does not count");
    let metrics = server.ask("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let line = r#"stormkv_http_requests_total{route="/v1/command",method="POST",status="200"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    assert!(!metrics.contains("/v1/kv"), "{metrics}");
}

#[tokio::test]
async fn refusals_and_open_outcomes_are_those_of_every_command() {
    for (reply, command, query) in [
        (Reply::Refused(Refusal::NotLeader(None)), (503, "no_leader"), (503, "no_leader")),
        (Reply::Refused(Refusal::Busy), (429, "busy"), (429, "busy")),
        (Reply::LeaderLost, (504, "outcome_unknown"), (503, "no_leader")),
        (Reply::Unknown, (504, "outcome_unknown"), (503, "no_leader")),
        // An answer to another question.
        (Reply::Transferring, (504, "outcome_unknown"), (504, "outcome_unknown")),
    ] {
        let (handle, _views) = always(reply.clone());
        let mut options = HttpOptions::default();
        options.limits.request /= 20;
        let server = serve(handle, options).await;
        for (path, (status, code)) in [("/v1/command", command), ("/v1/query", query)] {
            server.ask("POST", path, "x").await.is_error(status, code);
        }
    }
}

#[tokio::test]
async fn large_answer_without_memory_is_refused() {
    let response = Bytes::from(vec![b'x'; 100 << 10]);
    let (handle, _views) = scripted(move |request| {
        let response = response.clone();
        Some(match request {
            Request::Query { .. } => Reply::Value { index: 7, response },
            _ => Reply::Applied { index: 7, response },
        })
    });
    let limits = Limits { bodies: 50 << 10, ..Limits::default() };
    let server = serve(handle, HttpOptions { limits, ..HttpOptions::default() }).await;
    server.ask("POST", "/v1/query", "").await.is_error(429, "busy");
    // It was applied, and the client must not take it for refused.
    server.ask("POST", "/v1/command", "").await.is_error(504, "answer_not_kept");
}

#[tokio::test]
async fn routes_of_the_machine_are_for_clients() {
    let file = Scratch::new();
    std::fs::write(file.path(), "client c\nadmin a\nmetrics m\n").unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
    let tokens = Some(Arc::new(Tokens::load(file.path()).unwrap()));
    let options = HttpOptions { tokens, ..HttpOptions::default() };
    let guarded = serve(real_with::<Register>(), options).await;
    let open = server().await;
    for path in ["/v1/command", "/v1/query"] {
        guarded.ask("POST", path, "x").await.is_error(401, "unauthorized");
        for (token, status) in [("c", 200), ("a", 200), ("m", 403), ("x", 401)] {
            let value = format!("Bearer {token}");
            let header = [("authorization", value.as_str())];
            let answer = guarded.ask_with("POST", path, &header, "x").await;
            assert_eq!(answer.status, status, "{path} with `{token}`");
        }
        let page = [("origin", "http://evil.example")];
        open.ask_with("POST", path, &page, "x").await.is_error(403, "forbidden");
    }
}
