//! What clients of the others see when the leader is killed.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::fleet::Fleet;
use crate::harness::http::{Connection, Request, Response};
use crate::harness::{turn, until};

/// The time of a request, and a margin for a busy machine.
const LIMIT: Duration = Duration::from_secs(8);

/// Sends a request and expects an answer.
fn ask(to: SocketAddr, request: Request) -> Response {
    let began = Instant::now();
    let (method, target) = (request.method, request.target.clone());
    let answer = Connection::new(to, LIMIT).ask(&request);
    let answer = answer.unwrap_or_else(|failure| panic!("{method} {target}: {failure}"));
    println!("{method} {target} at {to}: {} after {:?}", answer.status, began.elapsed());
    answer
}

/// A plain PUT is done, or its answer says exactly why that is not known.
#[track_caller]
fn done_or_doubtful(answer: &Response) {
    let text = answer.text();
    match answer.status {
        204 => {}
        504 => {
            assert_eq!(answer.code(), "outcome_unknown", "{text}");
            assert!(
                text.contains("the leader was lost while the request was on its way"),
                "{text}"
            );
        }
        status => panic!("{status} {text}"),
    }
}

/// The leader is killed, and at once every follower is asked: reads, commands with a key and commands
/// without one. A moment later all of them are just done.
#[test]
fn killed_leader_costs_the_clients_of_followers_only_time() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    for round in 0..4 {
        let leader = fleet.leader();
        let others = fleet.others(leader);
        let ids: Vec<(u64, SocketAddr, u64)> = others
            .iter()
            .map(|id| {
                let opened = fleet.ask(*id, &Request::new("POST", "/v1/sessions"), 201).json();
                (*id, fleet.nodes[id].http, opened["session"].as_u64().expect("a session"))
            })
            .collect();
        fleet.node(leader).kill();
        thread::scope(|scope| {
            for (id, http, session) in ids.iter().copied() {
                scope.spawn(move || {
                    let answer = ask(http, Request::new("GET", "/key"));
                    assert_eq!((answer.status, answer.text().as_str()), (200, "value"));
                });
                scope.spawn(move || {
                    let put = Request::new("PUT", format!("/plain-{round}-{id}")).body("1");
                    done_or_doubtful(&ask(http, put));
                });
                scope.spawn(move || {
                    let body = json!({ "key": format!("once-{round}-{id}"), "expected": null, "new": "1" });
                    let cas = Request::new("POST", "/v1/cas").json(&body);
                    let answer = ask(http, cas.header("idempotency-key", format!("{session}-1")));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(answer.json()["swapped"], true, "{}", answer.text());
                });
            }
        });
        fleet.node(leader).start();
        fleet.converge(&[1, 2, 3]);
    }
}

/// A leader that stands still, or was cut off, answers nothing and breaks no connection. Reads and commands
/// with a key do not wait for it.
#[test]
fn paused_leader_costs_reads_and_commands_with_a_key_only_time() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let leader = fleet.leader();
    let others = fleet.others(leader);
    let opened = fleet.ask(leader, &Request::new("POST", "/v1/sessions"), 201).json();
    let session = opened["session"].as_u64().expect("a session");
    fleet.node(leader).pause();
    thread::scope(|scope| {
        for id in &others {
            let http = fleet.nodes[id].http;
            scope.spawn(move || {
                let answer = ask(http, Request::new("GET", "/key"));
                assert_eq!((answer.status, answer.text().as_str()), (200, "value"));
            });
        }
        let http = fleet.nodes[&others[0]].http;
        scope.spawn(move || {
            let put = Request::new("PUT", "/once").body("1");
            let answer = ask(http, put.header("idempotency-key", format!("{session}-1")));
            assert_eq!(answer.status, 204, "{}", answer.text());
        });
    });
    fleet.node(leader).resume();
    fleet.converge(&[1, 2, 3]);
}

/// The README's "kill one of three", with the leader as the one: whoever types the next command is slower
/// than the loss of a connection, so nothing is in doubt.
#[test]
fn put_after_the_leader_is_known_to_be_gone_is_done() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for round in 0..4 {
        let leader = fleet.leader();
        let others = fleet.others(leader);
        fleet.node(leader).kill();
        // The followers notice that the connection is closed, but not yet that nobody leads.
        let gone = format!("stormkv_peer_connected{{peer=\"{leader}\",lane=\"bulk\"}} 0");
        for id in &others {
            until("the connection to the leader is known to be lost", || {
                let metrics = fleet.nodes[id].get("/metrics")?.text();
                metrics.lines().any(|line| line == gone).then_some(())
            });
        }
        thread::scope(|scope| {
            for id in &others {
                let http = fleet.nodes[id].http;
                scope.spawn(move || {
                    let put = Request::new("PUT", format!("/key-{round}-{id}")).body("1");
                    let answer = ask(http, put);
                    assert_eq!(answer.status, 204, "{}", answer.text());
                });
            }
        });
        fleet.node(leader).start();
        fleet.converge(&[1, 2, 3]);
    }
}
