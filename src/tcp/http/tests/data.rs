//! Keys, conditions, scans, transactions and sessions, at a real node.

use serde_json::json;

use super::node::real;
use super::{HttpOptions, Server};

async fn server() -> Server {
    Server::new(real(), HttpOptions::default()).await
}

#[tokio::test]
async fn raftexamples_paths_work_as_curl_uses_them() {
    let server = server().await;
    server.ask("GET", "/my-key", "").await.is_error(404, "key_not_found");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let put = server.ask_with("PUT", "/my-key", &form, "hello").await;
    assert_eq!((put.status, put.body.len()), (204, 0));
    let got = server.ask("GET", "/my-key", "").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"hello"[..]));
    assert_eq!(got.header("etag"), put.header("etag"));
    assert!(put.header("etag").starts_with('"'));
    let stale = server.ask("GET", "/my-key?consistency=stale", "").await;
    assert_eq!(stale.body, b"hello");
    // Both spellings name the same key.
    assert_eq!(server.ask("GET", "/v1/kv/my-key", "").await.body, b"hello");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = server().await;
    server.ask("PUT", "/v1/kv/k", "hello").await;
    for path in ["/k", "/v1/kv/k"] {
        let mut client = server.connect().await;
        let head = client.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.header("content-length")), (200, "5"));
        assert!(!head.header("etag").is_empty());
        // If a body had come after all, it would stand before the next answer.
        assert_eq!(client.ask("GET", path, &[], "").await.body, b"hello");
    }
    assert_eq!(server.ask("HEAD", "/absent", "").await.status, 404);
}

#[tokio::test]
async fn keys_and_values_are_any_bytes() {
    let server = server().await;
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(server.ask("PUT", "/v1/kv/%ff%00%2f+", &value).await.status, 204);
    assert_eq!(server.ask("GET", "/%FF%00/%2B", "").await.body, value);
    assert_eq!(server.ask("PUT", "/v1/kv/a%20b/c", "").await.status, 204);
    let empty = server.ask("GET", "/v1/kv/a%20b/c", "").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    let reserved = server.ask("PUT", "/v1/kv/health", "mine").await;
    assert_eq!(reserved.status, 204);
    assert_eq!(server.ask("GET", "/v1/kv/health", "").await.body, b"mine");
    let page = server.ask("GET", "/v1/kv?prefix=%ff", "").await.json();
    assert_eq!(page["entries"][0]["key_base64"], "/wAvKw==");
}

#[tokio::test]
async fn deleting_a_key() {
    let server = server().await;
    server.ask("PUT", "/v1/kv/k", "v").await;
    assert_eq!(server.ask("DELETE", "/v1/kv/k", "").await.status, 204);
    server.ask("DELETE", "/v1/kv/k", "").await.is_error(404, "key_not_found");
}

#[tokio::test]
async fn of_two_writers_with_one_revision_one_wins() {
    let server = server().await;
    let absent = [("if-none-match", "*")];
    let first = server.ask_with("PUT", "/v1/kv/k", &absent, "1").await;
    assert_eq!(first.status, 204);
    let again = server.ask_with("PUT", "/v1/kv/k", &absent, "2").await;
    again.is_error(412, "precondition_failed");
    let revision: u64 = first.header("etag").trim_matches('"').parse().unwrap();
    assert_eq!(again.json()["revision"], revision);

    let guarded = [("if-match", first.header("etag"))];
    let (one, other) = tokio::join!(
        server.ask_with("PUT", "/v1/kv/k", &guarded, "one"),
        server.ask_with("PUT", "/v1/kv/k", &guarded, "other"),
    );
    let (won, lost, value) =
        if one.status == 204 { (one, other, "one") } else { (other, one, "other") };
    assert_eq!(won.status, 204);
    lost.is_error(412, "precondition_failed");
    assert_eq!(server.ask("GET", "/k", "").await.body, value.as_bytes());

    let stale = server.ask_with("DELETE", "/v1/kv/k", &guarded, "").await;
    stale.is_error(412, "precondition_failed");
    let present = [("if-match", "*")];
    assert_eq!(server.ask_with("DELETE", "/v1/kv/k", &present, "").await.status, 204);
    let gone = server.ask_with("DELETE", "/v1/kv/k", &present, "").await;
    gone.is_error(412, "precondition_failed");
    assert_eq!(gone.json()["revision"], json!(null));
}

#[tokio::test]
async fn a_scan_comes_in_pages() {
    let server = server().await;
    for number in 0..7 {
        server.ask("PUT", &format!("/v1/kv/p%26/{number}"), format!("v{number}")).await;
    }
    server.ask("PUT", "/v1/kv/q", "not in the prefix").await;
    let (mut after, mut values) = (String::new(), Vec::new());
    loop {
        let path = format!("/v1/kv?prefix=p%26&limit=3{after}");
        let page = server.ask("GET", &path, "").await.json();
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 3 && entries[0]["revision"].is_u64());
        values.extend(entries.iter().map(|entry| entry["value"].as_str().unwrap().to_owned()));
        if page["more"] == false {
            assert!(page.get("next").is_none());
            break;
        }
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
    assert_eq!(values, ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]);
    let all = server.ask("GET", "/v1/kv?consistency=stale", "").await.json();
    assert_eq!(all["entries"].as_array().unwrap().len(), 8);
    for query in ["limit=0", "limit=1001", "limit=x", "limits=1", "consistency=no", "prefix=%"] {
        server.ask("GET", &format!("/v1/kv?{query}"), "").await.is_error(400, "invalid_query");
    }
}

#[tokio::test]
async fn compare_and_swap() {
    let server = server().await;
    let cas = |body| server.ask("POST", "/v1/cas", body);
    let made = cas(r#"{"key":"k","expected":null,"new_base64":"/w=="}"#).await;
    assert_eq!((made.status, made.json()), (200, json!({"swapped": true, "current": null})));
    let missed = cas(r#"{"key":"k","expected":"a","new":"b"}"#).await.json();
    assert_eq!(missed, json!({"swapped": false, "current_base64": "/w=="}));
    let removed = cas(r#"{"key":"k","expected_base64":"/w==","new":null}"#).await.json();
    assert_eq!(removed["swapped"], true);
    cas(r#"{"key":"k","new":"b"}"#).await.is_error(400, "invalid_body");
    cas(r#"{"key":"","expected":null,"new":"b"}"#).await.is_error(400, "invalid_key");
    let broken = cas("{\n  \"key\": k}").await;
    broken.is_error(400, "invalid_body");
    assert!(broken.json()["message"].as_str().unwrap().contains("line 2 column 10"));
}

#[tokio::test]
async fn a_transaction_runs_one_of_two_lists() {
    let server = server().await;
    let body = json!({
        "compare": [{"key": "k", "value": null}],
        "then": [
            {"get": "k"}, {"put": {"key": "k", "value_base64": "/w=="}}, {"get": "k"},
            {"put": {"key": "k", "value": "v"}}, {"get": {"base64": "aw=="}},
        ],
        "else": [{"delete": "k"}, {"get": "k"}],
    });
    let first = server.ask("POST", "/v1/txn", body.to_string()).await;
    let results = json!([null, {"base64": "/w=="}, "v"]);
    assert_eq!((first.status, first.json()), (200, json!({"succeeded": true, "results": results})));
    let second = server.ask("POST", "/v1/txn", body.to_string()).await.json();
    assert_eq!(second, json!({"succeeded": false, "results": [null]}));
    for (body, code) in [
        (json!({"then": [{"take": "k"}]}), "invalid_body"),
        (json!({"when": []}), "invalid_body"),
        (json!({"then": [{"put": {"key": "k", "value": null}}]}), "invalid_body"),
        (json!({"then": vec![json!({"get": "k"}); 129]}), "invalid_command"),
    ] {
        server.ask("POST", "/v1/txn", body.to_string()).await.is_error(400, code);
    }
}

#[tokio::test]
async fn a_repeated_command_gets_the_first_answer() {
    let server = server().await;
    let opened = server.ask("POST", "/v1/sessions", "").await;
    assert_eq!(opened.status, 201);
    let session = opened.json()["session"].as_u64().unwrap();
    let (one, two) = (format!("{session}-1"), format!("{session}-2"));
    let one = [("idempotency-key", one.as_str())];
    let two = [("idempotency-key", two.as_str())];
    let first = server.ask_with("PUT", "/k", &one, "1").await;
    assert_eq!(first.status, 204);
    server.ask("PUT", "/k", "between").await;
    let again = server.ask_with("PUT", "/k", &one, "1").await;
    assert_eq!((again.status, again.header("etag")), (204, first.header("etag")));
    assert_eq!(server.ask("GET", "/k", "").await.body, b"between");

    assert_eq!(server.ask_with("DELETE", "/v1/kv/k", &two, "").await.status, 204);
    assert_eq!(server.ask_with("DELETE", "/v1/kv/k", &two, "").await.status, 204);
    let late = server.ask_with("PUT", "/k", &one, "1").await;
    late.is_error(409, "sequence_out_of_order");
    // The nodes of the tests remember two sessions.
    for _ in 0..2 {
        server.ask("POST", "/v1/sessions", "").await;
    }
    let gone = server.ask_with("PUT", "/k", &two, "2").await;
    gone.is_error(410, "session_expired");
}
