//! Who is who: clusters that come from one backup, nodes that start before they are added, and commands
//! with the same number.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::operations::done;
use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::{turn, until};

/// A cluster of one node that begins with the backup.
fn restored(backup: &Path) -> Fleet {
    let mut fleet = Fleet::prepare(1, &[]);
    let file = backup.display().to_string();
    let mut arguments = vec!["restore", file.as_str()];
    arguments.extend(fleet.nodes[&1].arguments.iter().map(String::as_str));
    done(&arguments);
    fleet.start_all();
    fleet.leader();
    fleet
}

fn cluster(fleet: &Fleet) -> Value {
    fleet.status(1).expect("it runs")["cluster"].clone()
}

fn session(fleet: &Fleet) -> u64 {
    let opened = fleet.ask(1, &Request::new("POST", "/v1/sessions"), 201).json();
    opened["session"].as_u64().expect("a session")
}

/// What a client knows of one restored cluster is not taken for knowledge of another one, although both
/// come from one backup and have done the same since.
#[test]
fn two_restores_of_one_backup_are_two_clusters() {
    let _turn = turn();
    let fleet = Fleet::found(1);
    fleet.put(1, "before", "the backup");
    let file = fleet.folder().join("backup");
    let url = format!("http://{}", fleet.nodes[&1].http);
    done(&["backup", "--endpoints", &url, "-o", &file.display().to_string()]);

    let (one, two) = (restored(&file), restored(&file));
    assert_ne!(cluster(&one), cluster(&two));
    assert_ne!(cluster(&one), cluster(&fleet));

    let put = |key: &str| Request::new("PUT", format!("/v1/kv/{key}"));
    let etag = one.ask(1, &put("k").body("of one"), 204).header("etag").map(str::to_owned);
    let etag = etag.expect("a revision");
    two.ask(1, &put("k").body("of two"), 204);
    let stale = put("k").body("over").header("if-match", etag.clone());
    assert_eq!(two.ask(1, &stale, 412).code(), "precondition_failed");
    one.ask(1, &stale, 204);

    let key = format!("{}-1", session(&one));
    one.ask(1, &put("once").body("1").header("idempotency-key", key.clone()), 204);
    session(&two);
    let again = two.ask(1, &put("once").body("1").header("idempotency-key", key), 410);
    assert_eq!(again.code(), "session_expired");
    assert_eq!(two.get(1, "once"), None);
}

/// A node that was started before it was added, and once more with an empty directory, has not spent its id:
/// it waits, says for what, and is a member as soon as it is added.
#[test]
fn a_node_may_start_before_it_is_added() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let url = fleet.newcomer(4).url.clone();
    for trial in 0..2 {
        fleet.node(4).start();
        let reminder = "is not a member of the cluster yet";
        until("it says that it waits", || {
            let log = fleet.node(4).printed();
            (log.matches(reminder).count() > trial).then_some(())
        });
        let ready = fleet.node(4).get("/ready").expect("an answer");
        assert_eq!((ready.status, ready.code()), (503, "no_leader".to_owned()));
        assert!(ready.text().contains("not a member"), "{}", ready.text());
        if trial == 0 {
            fleet.node(4).kill();
            fs::remove_dir_all(&fleet.node(4).data).expect("its first directory");
        }
    }
    fleet.change(1, &Request::new("POST", "/4").body(url));
    assert_eq!(fleet.get(4, "key").as_deref(), Some("value"));
    until("all count four", || {
        (1..=4).all(|id| fleet.members(id) == Some(vec![1, 2, 3, 4])).then_some(())
    });
}

/// Of two commands with the same number one is applied, and the other one is never taken for it.
#[test]
fn a_reused_idempotency_key_is_refused() {
    let _turn = turn();
    let fleet = Fleet::found(3);
    let key = format!("{}-1", session(&fleet));
    let put = |value: &str| {
        Request::new("PUT", "/v1/kv/k").body(value).header("idempotency-key", key.clone())
    };
    fleet.ask(1, &put("first"), 204);
    for id in [1, 2, 3] {
        let refused = fleet.ask(id, &put("second"), 422);
        assert_eq!(refused.code(), "idempotency_key_reused");
        fleet.ask(id, &put("first"), 204);
        let cas = Request::new("POST", "/v1/cas")
            .json(&json!({ "key": "k", "expected": "first", "new": "third" }))
            .header("idempotency-key", key.clone());
        assert_eq!(fleet.ask(id, &cas, 422).code(), "idempotency_key_reused");
        assert_eq!(fleet.get(id, "k").as_deref(), Some("first"));
    }
}
