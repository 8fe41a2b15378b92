//! Clients that want too much, too slowly, or are web pages.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;

use super::node::{always, nothing, real, scripted};
use super::{HttpOptions, PATIENCE, Server};
use crate::api::{Refusal, Reply, Request};
use crate::kv::Response;
use crate::tcp::http::Tokens;

#[tokio::test]
async fn what_a_web_page_sends_is_refused() {
    let (handle, _views) = always(nothing());
    let options = HttpOptions { hosts: vec!["db.example".to_owned()], ..HttpOptions::default() };
    let server = Server::new(handle, options).await;
    let page = [("origin", "http://evil.example")];
    for (method, path) in
        [("POST", "/v1/txn"), ("POST", "/v1/members"), ("POST", "/4"), ("PUT", "/k")]
    {
        server.ask_with(method, path, &page, "{}").await.is_error(403, "forbidden");
    }
    for (host, status) in [
        ("evil.example:12380", 403),
        ("db.example:12380", 404),
        ("127.0.0.1:12380", 404),
        ("[::1]", 404),
    ] {
        let mut client = server.connect().await;
        client.send(format!("GET /k HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer(true).await.status, status, "{host}");
    }
    let mut old = server.connect().await;
    old.send("GET /k HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer(true).await.status, 404);
    // There is nothing to learn or to do there, and probes have names of their own.
    let mut probe = server.connect().await;
    probe.send("GET /health HTTP/1.1\r\nhost: pod-7\r\n\r\n").await;
    assert_eq!(probe.answer(true).await.status, 200);
}

#[tokio::test]
async fn request_names_exactly_one_host() {
    let (handle, _views) = always(nothing());
    let server = Server::new(handle, HttpOptions::default()).await;
    for (path, hosts) in [
        ("/k", "host: x\r\nhost: evil.example\r\n"),
        ("/k", "host: x\r\nhost: x\r\n"),
        ("/health", ""),
    ] {
        let mut client = server.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\n{hosts}\r\n")).await;
        client.answer(true).await.is_error(400, "invalid_header");
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn who_has_a_token_or_a_certificate_is_no_web_page() {
    let dir = std::env::temp_dir().join(format!("stormkv-origin-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("tokens");
    std::fs::write(&file, "client 0123456789abcdef0123456789abcdef\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let tokens = Some(Arc::new(Tokens::load(&file).unwrap()));
    std::fs::remove_dir_all(&dir).unwrap();
    let page = ("origin", "http://console.example");
    let bearer = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");
    let (handle, _views) = always(nothing());
    let server = Server::new(handle, HttpOptions { tokens, ..HttpOptions::default() }).await;
    assert_eq!(server.ask_with("GET", "/k", &[page, bearer], "").await.status, 404);
    server.ask_with("GET", "/k", &[page], "").await.is_error(401, "unauthorized");
    let (handle, _views) = always(nothing());
    let options = HttpOptions { client_certificates: true, ..HttpOptions::default() };
    let server = Server::new(handle, options).await;
    assert_eq!(server.ask_with("GET", "/k", &[page], "").await.status, 404);
}

#[tokio::test]
async fn large_answers_that_nobody_takes_have_a_limit_together() {
    // A megabyte of these is six megabytes of JSON, and there is room for one such page.
    let server = Server::limited(real(), |limits| limits.bodies = 10 << 20).await;
    assert_eq!(server.ask("PUT", "/k", vec![1; 1_000_000]).await.status, 204);
    assert_eq!(server.ask("GET", "/v1/kv", "").await.json()["entries"][0]["key"], "k");
    let mut hog = server.connect().await;
    hog.send("GET /v1/kv HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20)).await;
    let refused = async {
        loop {
            let answer = server.ask("GET", "/v1/kv", "").await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("there is a limit");
    refused.is_error(429, "busy");
    // A command is not refused after it was carried out.
    let read = json!({"then": [{"get": "k"}, {"put": {"key": "done", "value": "1"}}]});
    let unknown = server.ask("POST", "/v1/txn", read.to_string()).await;
    unknown.is_error(504, "answer_not_kept");
    assert_eq!(server.ask("GET", "/done", "").await.body, b"1");
    drop(hog);
    let room = async { while server.ask("GET", "/v1/kv", "").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, room).await.expect("what it held is free again");
}

#[tokio::test]
async fn a_backup_must_be_taken_at_a_minimum_rate() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| {
        limits.sending = Duration::from_millis(300);
        limits.rate = u64::MAX;
    })
    .await;
    let mut client = server.connect().await;
    // It has no end, and is taken all the time, but at no such rate.
    client.send("GET /v1/backup HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut piece = vec![0; 65536];
    let taken =
        async { while client.stream.read(&mut piece).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(PATIENCE, taken).await.expect("it is cut off");
    // At a rate that it keeps, it goes on.
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| {
        limits.sending = Duration::from_millis(100);
        limits.rate = 1;
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET /v1/backup HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert!(client.stream.read(&mut piece).await.unwrap() > 0, "cut off");
    }
}

const SESSION: [(&str, &str); 1] = [("idempotency-key", "1-1")];

fn written() -> Reply {
    Reply::Applied { index: 5, response: Response::Written { revision: 5 }.encode() }
}

#[tokio::test]
async fn the_last_attempt_ends_with_the_time_of_the_request() {
    // Refused first, and then never answered.
    let mut first = Some(Reply::Refused(Refusal::Transferring));
    let (handle, _views) = scripted(move |_| first.take());
    let server = Server::limited(handle, |limits| limits.request /= 10).await;
    let put = server.ask_with("PUT", "/k", &SESSION, "v");
    let answer = tokio::time::timeout(PATIENCE, put).await.expect("it is answered in time");
    answer.is_error(504, "outcome_unknown");
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the node takes its time")]
async fn the_first_attempt_takes_its_part_of_the_time() {
    let (sender, attempts) = std::sync::mpsc::channel::<Request>();
    let (handle, _views) = scripted(move |request| {
        std::thread::sleep(Duration::from_secs(1));
        sender.send(request).unwrap();
        Some(Reply::Unknown)
    });
    let server = Server::limited(handle, |limits| limits.request /= 10).await;
    let answer = server.ask_with("PUT", "/k", &SESSION, "v").await;
    answer.is_error(504, "outcome_unknown");
    assert_eq!(attempts.try_iter().count(), 1);
}

#[tokio::test]
async fn a_slow_body_takes_no_part_of_the_time() {
    let mut first = Some(Reply::Refused(Refusal::Transferring));
    let (handle, _views) = scripted(move |_| Some(first.take().unwrap_or_else(written)));
    let server = Server::limited(handle, |limits| limits.request /= 10).await;
    let mut client = server.connect().await;
    client.send("PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send("2").await;
    assert_eq!(client.answer(true).await.status, 204);
}
