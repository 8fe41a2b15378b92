//! A cluster as its users see it: it elects, it serves through every member, it refuses clearly,
//! and it is handed over and stopped without haste.

use std::time::Instant;

use serde_json::json;

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::record::judge;
use crate::harness::{PATIENCE, turn, until};

/// A single node is a cluster of one: raftexample's first example.
#[test]
fn one_node_serves_and_remembers() {
    let _turn = turn();
    let mut fleet = Fleet::found(1);
    fleet.put(1, "my-key", "hello");
    assert_eq!(fleet.get(1, "my-key").as_deref(), Some("hello"));
    assert_eq!(fleet.get(1, "absent"), None);
    fleet.node(1).kill();
    fleet.node(1).start();
    fleet.leader();
    assert_eq!(fleet.get(1, "my-key").as_deref(), Some("hello"));
}

/// Three nodes elect one leader, and each of them serves everything, leader or not.
#[test]
fn three_nodes_elect_and_serve_through_each() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for id in 1..=3 {
        fleet.put(id, &format!("from-{id}"), &format!("value {id}"));
        // At once and anywhere, because an acknowledged write is visible to all.
        for reader in 1..=3 {
            let value = fleet.get(reader, &format!("from-{id}"));
            assert_eq!(value, Some(format!("value {id}")), "written at {id}, read at {reader}");
        }
    }
    let leader = fleet.leader();
    for id in 1..=3 {
        fleet.ask(id, &Request::new("GET", "/ready"), 200);
        fleet.ask(id, &Request::new("GET", "/health"), 200);
        let metrics = fleet.ask(id, &Request::new("GET", "/metrics"), 200);
        assert!(metrics.text().contains("\nstormkv_raft_term "), "{}", metrics.text());
        until("everybody knows the leader", || {
            (fleet.status(id)?["leader"].as_u64()? == leader).then_some(())
        });
        assert_eq!(fleet.members(id), Some(vec![1, 2, 3]));
    }
    // Compare-and-swap by revision: of two writers who saw the same, one wins.
    let seen = fleet.ask(1, &Request::new("GET", "/v1/kv/from-1"), 200);
    let etag = seen.header("etag").expect("a revision").to_owned();
    let write = |value: &str| {
        Request::new("PUT", "/v1/kv/from-1").header("if-match", etag.clone()).body(value)
    };
    fleet.ask(2, &write("first"), 204);
    let refused = fleet.ask(3, &write("second"), 412);
    assert_eq!(refused.code(), "precondition_failed");
    assert_eq!(fleet.get(1, "from-1").as_deref(), Some("first"));
}

/// Without any fault, what concurrent clients see is linearizable, and hardly anything is refused.
#[test]
fn concurrent_clients_agree_on_one_order() {
    let _turn = turn();
    let fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(1));
    load.progress(1500);
    let mut done = load.finish();
    // Not zero: on a busy machine a leader may be deposed without any fault.
    let unanswered = done.counts.info + done.counts.fail;
    assert!(unanswered <= done.counts.ok / 20, "{:?}", done.counts);
    judge(&done.history, fleet.folder(), "calm");
    done.nothing_is_lost();
}

/// An idempotency key makes a retry harmless: it gets the first answer and changes nothing.
#[test]
fn a_repeated_command_takes_effect_once() {
    let _turn = turn();
    let fleet = Fleet::found(3);
    let opened = fleet.ask(1, &Request::new("POST", "/v1/sessions"), 201);
    let session = opened.json()["session"].as_u64().expect("a session");
    let cas = |expected: Option<&str>, new: &str, sequence: u64| {
        let body = json!({ "key": "n", "expected": expected, "new": new });
        let key = format!("{session}-{sequence}");
        Request::new("POST", "/v1/cas").json(&body).header("idempotency-key", key)
    };
    let first = fleet.ask(1, &cas(None, "1", 1), 200);
    assert_eq!(first.json()["swapped"], true);
    fleet.put(2, "n", "changed meanwhile");
    let again = fleet.ask(3, &cas(None, "1", 1), 200);
    assert_eq!(again.json(), first.json(), "the first answer, at another node");
    assert_eq!(fleet.get(1, "n").as_deref(), Some("changed meanwhile"), "and no second effect");
    let next = fleet.ask(2, &cas(Some("changed meanwhile"), "2", 2), 200);
    assert_eq!(next.json()["swapped"], true);
    let late = fleet.ask(1, &cas(None, "1", 1), 409);
    assert_eq!(late.code(), "sequence_out_of_order");
}

/// SIGTERM on the leader: it hands over first, so that nobody waits for an election, and ends with
/// success. Clients that go elsewhere see no gap and lose nothing.
#[test]
fn a_leader_that_is_told_to_stop_hands_over() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(2));
    load.progress(200);
    let leader = fleet.leader();
    let others = fleet.others(leader);
    let began = Instant::now();
    fleet.node(leader).terminate();
    let next = fleet.leader_of(&others);
    println!("node {next} leads {:?} after SIGTERM", began.elapsed());
    let status = fleet.node(leader).exit();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < PATIENCE / 2, "it took {:?}", began.elapsed());
    let log = fleet.node(leader).printed();
    assert!(log.contains("handed over leadership"), "it left without a word:\n{log}");
    load.progress(200);
    fleet.node(leader).start();
    fleet.converge(&[1, 2, 3]);
    let mut done = load.finish();
    judge(&done.history, fleet.folder(), "handover");
    done.nothing_is_lost();
}

/// Whoever has nobody to hand over to ends all the same.
#[test]
fn a_node_without_a_majority_can_be_told_to_stop() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let leader = fleet.leader();
    for other in fleet.others(leader) {
        fleet.node(other).kill();
    }
    fleet.node(leader).terminate();
    let status = fleet.node(leader).exit();
    assert!(status.success(), "{status}");
    fleet.start_all();
    assert_eq!(fleet.get(leader, "key").as_deref(), Some("value"));
}

/// Leadership goes where the operator wants it, from any member.
#[test]
fn leadership_is_transferred() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for id in [2, 3, 1] {
        until("the member that was named leads", || {
            fleet.transfer(id);
            (fleet.leader() == id).then_some(())
        });
        fleet.put(id % 3 + 1, "led-by", &id.to_string());
        assert_eq!(fleet.get(id, "led-by"), Some(id.to_string()));
    }
}
