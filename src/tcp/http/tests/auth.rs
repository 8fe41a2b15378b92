//! Who may do what, over the wire.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use super::node::{always, nothing};
use super::{HttpOptions, PATIENCE, Server};
use crate::tcp::http::Tokens;
use crate::tcp::scratch::Scratch;

/// A server whose file of tokens says this.
async fn server(file: &Scratch, text: &str) -> Server {
    write(file, text);
    let tokens = Some(Arc::new(Tokens::load(file.path()).unwrap()));
    let (handle, views) = always(nothing());
    // For as long as the test lasts.
    std::mem::forget(views);
    Server::new(handle, HttpOptions { tokens, ..HttpOptions::default() }).await
}

/// Replaces the file at once, as a careful administrator does.
fn write(file: &Scratch, text: &str) {
    let fresh = Scratch::new();
    std::fs::write(fresh.path(), text).unwrap();
    std::fs::set_permissions(fresh.path(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(fresh.path(), file.path()).unwrap();
}

async fn status(server: &Server, token: &str) -> u16 {
    let value = format!("Bearer {token}");
    server.ask_with("GET", "/k", &[("authorization", &value)], "").await.status
}

#[tokio::test]
async fn each_role_has_its_paths() {
    let file = Scratch::new();
    let server = server(&file, "client c\nadmin a\nmetrics m\n").await;
    // What a request is refused with, by its token; `-` passes the check.
    let rows = [
        ("GET", "/k", "401", "-", "-", "403"),
        ("HEAD", "/k", "401", "-", "-", "403"),
        ("PUT", "/k", "401", "-", "-", "403"),
        ("POST", "/4", "401", "403", "-", "403"),
        ("DELETE", "/4", "401", "403", "-", "403"),
        ("GET", "/v1/kv/k", "401", "-", "-", "403"),
        ("PUT", "/v1/kv/k", "401", "-", "-", "403"),
        ("DELETE", "/v1/kv/k", "401", "-", "-", "403"),
        ("GET", "/v1/kv", "401", "-", "-", "403"),
        ("POST", "/v1/cas", "401", "-", "-", "403"),
        ("POST", "/v1/txn", "401", "-", "-", "403"),
        ("POST", "/v1/sessions", "401", "-", "-", "403"),
        ("GET", "/v1/members", "401", "-", "-", "403"),
        ("POST", "/v1/members", "401", "403", "-", "403"),
        ("PUT", "/v1/members/1", "401", "403", "-", "403"),
        ("DELETE", "/v1/members/1", "401", "403", "-", "403"),
        ("POST", "/v1/members/1/promote", "401", "403", "-", "403"),
        ("POST", "/v1/leader", "401", "403", "-", "403"),
        ("GET", "/v1/status", "401", "-", "-", "403"),
        ("GET", "/v1/backup", "401", "403", "skip", "403"),
        ("GET", "/metrics", "401", "403", "-", "-"),
        ("GET", "/health", "-", "-", "-", "-"),
        ("GET", "/ready", "-", "-", "-", "-"),
    ];
    for (method, path, none, client, admin, metrics) in rows {
        for (token, wanted) in [("", none), ("c", client), ("a", admin), ("m", metrics)] {
            if wanted == "skip" {
                continue;
            }
            let value = format!("Bearer {token}");
            let header = [("authorization", value.as_str())];
            let headers = if token.is_empty() { &[][..] } else { &header[..] };
            let answer = server.ask_with(method, path, headers, "").await;
            let refused = matches!(answer.status, 401 | 403);
            let got = if refused { answer.status.to_string() } else { "-".to_owned() };
            assert_eq!(got, wanted, "{method} {path} with `{token}`");
            if method != "HEAD" && answer.status == 401 {
                answer.is_error(401, "unauthorized");
                assert!(answer.header("www-authenticate").starts_with("Bearer"));
            }
            if method != "HEAD" && answer.status == 403 {
                answer.is_error(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_token_is_no_token() {
    let file = Scratch::new();
    let server = server(&file, "client c\n").await;
    for value in ["Bearer x", "Bearer", "Basic c", "Bearer cc"] {
        let answer = server.ask_with("GET", "/k", &[("authorization", value)], "").await;
        answer.is_error(401, "unauthorized");
    }
}

#[tokio::test]
async fn tokens_change_while_the_server_runs() {
    let file = Scratch::new();
    let server = server(&file, "client old\n").await;
    let mut kept = server.connect().await;
    let old = [("authorization", "Bearer old")];
    assert_eq!(kept.ask("GET", "/k", &old, "").await.status, 404);
    assert_eq!(status(&server, "fresh").await, 401);
    write(&file, "client fresh\n");
    let began = tokio::time::Instant::now();
    while status(&server, "fresh").await == 401 {
        assert!(began.elapsed() < PATIENCE, "never read again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The old one is worth nothing any more, on connections that exist, too.
    assert_eq!(kept.ask("GET", "/k", &old, "").await.status, 401);
}
