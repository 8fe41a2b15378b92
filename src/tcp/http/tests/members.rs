//! The cluster and its operation: members, leader, status, health, metrics, backup.

use std::sync::Arc;

use serde_json::json;

use super::node::{always, disk_full, founded_by, nothing, real, scripted, view};
use super::{HttpOptions, Server};
use crate::api::{Reconfigure, Refusal, Reply, Request};
use crate::kv::Response;
use crate::tcp::handle::View;
use crate::types::NodeId;

#[tokio::test]
async fn a_real_node_tells_who_it_is() {
    let url = |id: NodeId| Some(format!("http://127.0.0.1:{}", 12379 + id.0));
    let options = HttpOptions { client_urls: Some(Arc::new(url)), ..HttpOptions::default() };
    let server = Server::new(real(), options).await;
    let ready = server.ask("GET", "/ready", "").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
    assert_eq!(server.ask("GET", "/health", "").await.json(), json!({"health": "ok"}));
    let members = server.ask("GET", "/v1/members", "").await.json();
    let me = json!({
        "id": 1,
        "url": "http://127.0.0.1:12379",
        "client_url": "http://127.0.0.1:12380",
        "role": "voter",
        "becomes_voter": false,
        "leader": true
    });
    assert_eq!(members, json!({"members": [me], "removed": []}));
    let status = server.ask("GET", "/v1/status", "").await.json();
    assert_eq!(
        (&status["id"], &status["role"], &status["leader"]),
        (&json!(1), &json!("leader"), &json!(1))
    );
    assert_eq!(status["members"][0]["id"], 1);
    assert!(status["term"].as_u64() >= Some(1) && status["applied"]["index"].is_u64());
    server.ask("DELETE", "/1", "").await.is_error(409, "invalid_membership_change");
    server.ask("DELETE", "/v1/members/7", "").await.is_error(404, "member_not_found");
    // A learner needs no vote of its own, so the only voter can add it.
    let learner = r#"{"id":4,"url":"http://127.0.0.1:42379","learner":true}"#;
    assert!(server.ask("POST", "/v1/members", learner).await.json()["index"].is_u64());
    let moved = server.ask("PUT", "/v1/members/4", r#"{"url":"http://127.0.0.1:5/"}"#).await;
    assert_eq!(moved.status, 200);
    let members = server.ask("GET", "/v1/members", "").await.json();
    let four = &members["members"][1];
    assert_eq!((&four["url"], &four["role"]), (&json!("http://127.0.0.1:5"), &json!("learner")));
    assert_eq!((&four["becomes_voter"], &four["leader"]), (&json!(false), &json!(false)));
    server
        .ask("POST", "/v1/leader", r#"{"id":4}"#)
        .await
        .is_error(409, "invalid_membership_change");
    assert_eq!(server.ask("DELETE", "/4", "").await.status, 204);
    let members = server.ask("GET", "/v1/members?consistency=linearizable", "").await.json();
    assert_eq!(members["removed"], json!([4]));
    let again = server.ask("POST", "/4", "http://127.0.0.1:42379").await;
    again.is_error(409, "invalid_membership_change");
    assert!(again.json()["message"].as_str().unwrap().contains("never used again"));
}

/// The new member does not run: its cluster of one goes on without it.
#[tokio::test]
async fn promised_voter_moves_and_is_demoted() {
    let server = Server::new(real(), HttpOptions::default()).await;
    let four = async || server.ask("GET", "/v1/members", "").await.json()["members"][1].clone();
    for _ in 0..2 {
        let add = server.ask("POST", "/4", "http://127.0.0.1:42379").await;
        assert_eq!(add.status, 204, "a repetition does no harm");
        assert_eq!(four().await["role"], "learner");
        assert_eq!(four().await["becomes_voter"], true);
    }
    let learner = r#"{"id":4,"url":"http://127.0.0.1:42379","learner":true}"#;
    let refused = server.ask("POST", "/v1/members", learner).await;
    refused.is_error(409, "invalid_membership_change");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("POST /v1/members/4/demote"), "{message}");
    let moved = server.ask("PUT", "/v1/members/4", r#"{"url":"http://127.0.0.1:5"}"#).await;
    assert_eq!(moved.status, 200);
    assert_eq!(four().await["url"], "http://127.0.0.1:5");
    assert_eq!(four().await["becomes_voter"], true);
    assert_eq!(server.ask("POST", "/v1/members/4/demote", "").await.status, 200);
    assert_eq!(four().await["becomes_voter"], false);
    assert_eq!(server.ask("POST", "/v1/members/4/promote", "").await.status, 200);
    assert_eq!(four().await["becomes_voter"], true);
    assert_eq!(server.ask("DELETE", "/4", "").await.status, 204);
    assert_eq!(server.ask("PUT", "/a-key", "value").await.status, 204);
}

#[tokio::test]
async fn membership_requests_become_changes() {
    let (sender, changes) = std::sync::mpsc::channel();
    let (handle, _views) = scripted(move |request| match request {
        Request::Reconfigure(change) => {
            sender.send(change).unwrap();
            Some(Reply::Reconfigured { index: 12 })
        }
        _ => Some(nothing()),
    });
    let server = Server::new(handle, HttpOptions::default()).await;
    let four = || [(NodeId(4), "http://127.0.0.1:42379".to_owned())].into();
    let add = server.ask("POST", "/4", "http://127.0.0.1:42379").await;
    assert_eq!(add.status, 204);
    let voter = Reconfigure { voters: vec![NodeId(4)], addresses: four(), ..Default::default() };
    assert_eq!(changes.recv().unwrap(), voter);
    let body = r#"{"id":4,"url":"http://127.0.0.1:42379"}"#;
    let add = server.ask("POST", "/v1/members", body).await;
    assert_eq!((add.status, add.json()), (200, json!({"index": 12})));
    assert_eq!(changes.recv().unwrap(), voter);
    assert_eq!(server.ask("DELETE", "/3", "").await.status, 204);
    let removed = Reconfigure { removed: vec![NodeId(3)], ..Default::default() };
    assert_eq!(changes.recv().unwrap(), removed);
    assert_eq!(server.ask("DELETE", "/v1/members/3", "").await.status, 200);
    assert_eq!(changes.recv().unwrap(), removed);
    assert_eq!(server.ask("POST", "/v1/members/3/promote", "").await.status, 200);
    let promoted = Reconfigure { voters: vec![NodeId(3)], ..Default::default() };
    assert_eq!(changes.recv().unwrap(), promoted);
    server.ask("POST", "/v1/members/9/promote", "").await.is_error(404, "member_not_found");
    server
        .ask("PUT", "/v1/members/9", r#"{"url":"http://[::1]:1"}"#)
        .await
        .is_error(404, "member_not_found");
    server.ask("POST", "/4", "127.0.0.1:42379").await.is_error(400, "invalid_url");
    server.ask("POST", "/four", "http://127.0.0.1:42379").await.is_error(400, "invalid_node_id");
    server.ask("DELETE", "/my-key", "").await.is_error(400, "invalid_node_id");
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn no_role_changes_on_the_side() {
    let server = Server::new(real(), HttpOptions::default()).await;
    let add = |body: &'static str| server.ask("POST", "/v1/members", body);
    let demotion = add(r#"{"id":1,"url":"http://127.0.0.1:12379","learner":true}"#).await;
    demotion.is_error(409, "invalid_membership_change");
    let message = demotion.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("POST /v1/members/1/demote"), "{message}");
    let last = server.ask("POST", "/v1/members/1/demote", "").await;
    last.is_error(409, "invalid_membership_change");
    assert!(last.json()["message"].as_str().unwrap().contains("last voter"));
    let learner = r#"{"id":4,"url":"http://127.0.0.1:42379","learner":true}"#;
    assert_eq!(add(learner).await.status, 200);
    assert_eq!(add(learner).await.status, 200, "it is one, and stays one");
    assert_eq!(server.ask("POST", "/v1/members/4/demote", "").await.status, 200);
    let promotion = server.ask("POST", "/4", "http://127.0.0.1:42379").await;
    promotion.is_error(409, "invalid_membership_change");
    let message = promotion.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("POST /v1/members/4/promote"), "{message}");
    // A voter moves as a voter.
    let moved = server.ask("PUT", "/v1/members/1", r#"{"url":"http://127.0.0.1:5"}"#).await;
    assert_eq!(moved.status, 200);
    let members = server.ask("GET", "/v1/members", "").await.json();
    assert_eq!(members["members"][0]["role"], "voter");
    assert_eq!(members["members"][0]["url"], "http://127.0.0.1:5");
    assert_eq!(members["members"][1]["role"], "learner");
    // Nobody would dial these.
    for url in ["https://a!b:80", "https://127.0.0.1:80", "http://db.example:80"] {
        server.ask("POST", "/5", url).await.is_error(400, "invalid_url");
        let body = json!({"id": 5, "url": url}).to_string();
        server.ask("POST", "/v1/members", body).await.is_error(400, "invalid_url");
        let body = json!({"url": url}).to_string();
        server.ask("PUT", "/v1/members/4", body).await.is_error(400, "invalid_url");
    }
}

#[tokio::test]
async fn a_member_that_is_promoted_while_it_moves_is_moved_as_a_voter() {
    let (sender, changes) = std::sync::mpsc::channel();
    let (give, given) = std::sync::mpsc::channel::<tokio::sync::watch::Sender<Arc<View>>>();
    let mut views = None;
    let (handle, own) = scripted(move |request| match request {
        Request::Reconfigure(change) => {
            let is_first = views.is_none();
            let views = views.get_or_insert_with(|| given.recv().unwrap());
            sender.send(change).unwrap();
            if is_first {
                views.send_replace(Arc::new(View {
                    membership: Arc::new(founded_by(&[1, 2, 3, 4])),
                    ..view()
                }));
                return Some(Reply::Refused(Refusal::InvalidReconfiguration));
            }
            Some(Reply::Reconfigured { index: 12 })
        }
        _ => Some(nothing()),
    });
    let mut config = crate::config::Config::new(NodeId(1), [1, 2, 3].map(NodeId).into());
    config.founding_learners = vec![NodeId(4)];
    let membership = Arc::new(crate::node::Membership::founded_by(&config));
    own.send_replace(Arc::new(View { membership, ..view() }));
    give.send(own).unwrap();
    let server = Server::new(handle, HttpOptions::default()).await;
    let moved = server.ask("PUT", "/v1/members/4", r#"{"url":"http://127.0.0.1:5"}"#).await;
    assert_eq!(moved.status, 200);
    let addresses: std::collections::BTreeMap<_, _> =
        [(NodeId(4), "http://127.0.0.1:5".to_owned())].into();
    let four = vec![NodeId(4)];
    let learner =
        Reconfigure { learners: four.clone(), addresses: addresses.clone(), ..Default::default() };
    let voter = Reconfigure { voters: four, addresses, ..Default::default() };
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), [learner, voter]);
}

#[tokio::test]
async fn a_transfer_waits_until_the_other_one_leads() {
    let (sender, asked) = std::sync::mpsc::channel();
    let (handle, views) = scripted(move |request| {
        sender.send(request).unwrap();
        Some(Reply::Transferring)
    });
    let server = Server::new(handle, HttpOptions::default()).await;
    let transfer = server.ask("POST", "/v1/leader", r#"{"id":2}"#);
    let shown = async {
        // Only once it was asked for, and once it was, only after a while.
        let first = tokio::task::spawn_blocking(move || asked.recv().unwrap()).await.unwrap();
        assert_eq!(first, Request::Transfer(NodeId(2)));
        let mut next = view();
        next.status.leader = Some(NodeId(2));
        views.send_replace(Arc::new(next));
    };
    let (answer, ()) = tokio::join!(transfer, shown);
    assert_eq!((answer.status, answer.json()), (200, json!({"leader": 2})));
    server.ask("POST", "/v1/leader", r#"{"id":7}"#).await.is_error(404, "member_not_found");
}

#[tokio::test]
async fn a_transfer_that_does_not_happen_is_an_unknown_outcome() {
    let (handle, _views) = always(Reply::Transferring);
    let server = Server::limited(handle, |limits| limits.request /= 10).await;
    let answer = server.ask("POST", "/v1/leader", r#"{"id":2}"#).await;
    answer.is_error(504, "outcome_unknown");
}

#[tokio::test]
async fn a_stopped_node_is_neither_healthy_nor_ready() {
    let (handle, views) = always(Reply::Refused(Refusal::Stopping));
    let server = Server::new(handle, HttpOptions::default()).await;
    assert_eq!(server.ask("GET", "/health", "").await.status, 200);
    views.send_replace(Arc::new(View { stopped: Some(disk_full()), ..view() }));
    for path in ["/health", "/ready"] {
        let answer = server.ask("GET", path, "").await;
        answer.is_error(503, "stopping");
        assert!(answer.json()["message"].as_str().unwrap().contains("no space left on device"));
    }
    drop(views);
    server.ask("GET", "/health", "").await.is_error(503, "stopping");
}

#[tokio::test]
async fn a_node_that_cannot_read_is_not_ready() {
    let (handle, _views) = scripted(|_| None);
    let server = Server::limited(handle, |limits| limits.ready /= 10).await;
    server.ask("GET", "/ready", "").await.is_error(503, "no_leader");
    assert_eq!(server.ask("GET", "/health", "").await.status, 200);
}

#[tokio::test]
async fn a_backup_is_streamed_and_comes_after_a_barrier() {
    let server = Server::new(real(), HttpOptions::default()).await;
    for number in 0..40 {
        server.ask("PUT", &format!("/k{number}"), vec![b'x'; 100_000]).await;
    }
    let backup = server.ask("GET", "/v1/backup", "").await;
    assert_eq!((backup.status, backup.header("transfer-encoding")), (200, "chunked"));
    assert!(backup.body.len() > 4_000_000);
    server.ask("DELETE", "/v1/backup", "").await.is_error(405, "method_not_allowed");
}

#[tokio::test]
async fn an_abandoned_backup_ends_and_surplus_ones_are_refused() {
    // The backup of this node never ends, so it is not collected anywhere.
    let (handle, _views) = always(nothing());
    let server = Server::new(handle, HttpOptions::default()).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send("GET /v1/backup HTTP/1.1\r\nhost: x\r\n\r\n").await;
        while client.buffer.len() < 1_000_000 {
            assert!(client.more().await);
        }
        readers.push(client);
    }
    server.ask("GET", "/v1/backup", "").await.is_error(429, "busy");
    readers.clear();
    // Their threads notice that nobody listens.
    let mut client = server.connect().await;
    loop {
        client.send("GET /v1/backup HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let head = loop {
            let text = String::from_utf8_lossy(&client.buffer).into_owned();
            if text.contains("\r\n\r\n") {
                break text;
            }
            assert!(client.more().await);
        };
        if head.starts_with("HTTP/1.1 200") {
            return;
        }
        client = server.connect().await;
    }
}

#[tokio::test]
async fn metrics_show_what_the_table_lists() {
    let (handle, views) =
        always(Reply::Value { index: 9, response: Response::Value(None).encode() });
    let mut options = HttpOptions::default();
    options.register.push(Box::new(|registry| {
        let extra = prometheus_client::metrics::gauge::Gauge::<i64>::default();
        registry.register("disk_extra", "Of another part", extra);
    }));
    let mut shown = view();
    shown.size = crate::machine::StateSize { entries: 7, bytes: 70 };
    shown.membership = Arc::new(founded_by(&[1, 2]));
    shown.progress.push(crate::node::Progress {
        id: NodeId(2),
        matched: 4,
        next: 5,
        in_snapshot: true,
        recent_active: true,
    });
    views.send_replace(Arc::new(shown));
    let server = Server::new(handle, options).await;
    server.ask("GET", "/absent", "").await;
    server.ask("BREW", "/v1/coffee", "").await;
    let answer = server.ask("GET", "/metrics", "").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("# TYPE stormkv_http_requests_total counter"), "{text}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let answer = server.ask_with("GET", "/metrics", &accept, "").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "stormkv_http_requests_total{route=\"/{key}\",method=\"GET\",status=\"404\"} 1",
        "stormkv_http_requests_total{route=\"none\",method=\"other\",status=\"404\"} 1",
        "stormkv_raft_member_lag_entries{member=\"2\"} 5",
        "stormkv_raft_member_in_snapshot{member=\"2\"} 1",
        "stormkv_raft_role{role=\"leader\"} 1",
        "stormkv_raft_term 2",
        "stormkv_keys 7",
        "stormkv_state_bytes 70",
        "stormkv_http_requests_in_flight 1",
        "stormkv_disk_extra 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // The table in `metrics.rs` and the text name the same metrics.
    let names = |text: &str, start: &str, end: char| -> std::collections::BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        let name = |line: &str| line.split(end).next().unwrap().to_owned();
        lines
            .map(|line| name(line).trim_end_matches("_total").trim_end_matches("_info").to_owned())
            .collect()
    };
    let mut shown = names(&text, "# TYPE stormkv_", ' ');
    assert!(shown.remove("disk_extra"));
    assert_eq!(shown, names(include_str!("../../metrics.rs"), "//! | `stormkv_", '`'));
}
