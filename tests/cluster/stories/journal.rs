//! What a node writes to its log: an operator can follow a cluster by it, and a healthy one does not
//! cry wolf.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::nodes::PROGRAM;
use crate::harness::{turn, until};

/// Lines of a node's log.
fn lines(fleet: &Fleet, id: u64) -> Vec<Json> {
    let printed = fleet.nodes[&id].printed();
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a line that has this message and for which `is_it` holds.
#[track_caller]
fn line(fleet: &Fleet, id: u64, message: &str, is_it: impl Fn(&Json) -> bool) -> Json {
    until(&format!("node {id} logs `{message}`"), || {
        lines(fleet, id).into_iter().find(|line| line["message"] == message && is_it(line))
    })
}

/// Fails if a node has logged a warning or an error.
#[track_caller]
fn no_warning(fleet: &Fleet) {
    for id in fleet.ids() {
        for line in lines(fleet, id) {
            let level = line["level"].as_str().unwrap_or_default();
            assert!(matches!(level, "INFO" | "DEBUG"), "node {id}: {line}");
        }
    }
}

#[test]
fn an_operator_can_follow_leaders_members_and_snapshots() {
    let _turn = turn();
    let extra = ["--log", "json", "--snapshot-every", "100", "--keep-entries", "10"];
    let mut fleet = Fleet::found_with(3, &extra);
    fleet.put(1, "key", "value");
    no_warning(&fleet);
    for id in 1..=3 {
        let start = line(&fleet, id, "listening", |_| true);
        assert_eq!(start["version"], env!("CARGO_PKG_VERSION"), "{start}");
        assert_eq!(start["clients"], fleet.nodes[&id].http.to_string(), "{start}");
        assert_eq!(start["peers"], fleet.nodes[&id].peers.to_string(), "{start}");
        let elected = line(&fleet, id, "leader elected", |_| true);
        assert!(elected["term"].as_u64().is_some_and(|term| term > 0), "{elected}");
    }

    let first = fleet.leader();
    let next = fleet.others(first)[0];
    fleet.transfer(next);
    let lost = line(&fleet, first, "leader lost", |line| line["leader"] == format!("n{first}"));
    let reason = format!("leadership was handed over to n{next}");
    assert_eq!(lost["reason"], reason, "{lost}");
    line(&fleet, next, "leader elected", |line| line["this_node"] == true);
    no_warning(&fleet);

    // Enough for a snapshot, which a new member then needs.
    for number in 0..250 {
        fleet.put(1, &format!("key-{number}"), &"x".repeat(100));
    }
    let leader = fleet.leader();
    // Each member takes its first one at a place of its own, perhaps with few keys.
    let has_keys = |line: &Json| line["bytes"].as_u64().is_some_and(|bytes| bytes > 5_000);
    let taken = line(&fleet, leader, "snapshot taken", has_keys);
    assert!(taken["seconds"].as_f64().is_some_and(|time| time < 30.0), "{taken}");

    fleet.newcomer(4).start();
    let url = fleet.nodes[&4].url.clone();
    fleet.change(leader, &Request::new("POST", "/4").body(url.clone()));
    let added = |line: &Json| line["change"].as_str().is_some_and(|change| change.contains("n4"));
    let change = line(&fleet, leader, "membership changed", added);
    let words = change["change"].as_str().unwrap_or_default();
    assert!(words.contains("n4 added as") && words.contains(&url), "{change}");
    let sent = line(&fleet, leader, "snapshot sent", |line| line["to"] == "n4");
    let installed = line(&fleet, 4, "snapshot installed", |_| true);
    assert_eq!(installed["index"], sent["index"]);
    assert_eq!(installed["bytes"], sent["bytes"]);
    let votes = |line: &Json| {
        line["change"].as_str().is_some_and(|change| change.contains("n4 is now voter"))
    };
    line(&fleet, leader, "membership changed", votes);
    no_warning(&fleet);

    // What a stranger sends is worth one line, not a thousand.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(fleet.nodes[&leader].peers).expect("a connection");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n                                    ");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let message = "closed a connection to the port for peers";
    line(&fleet, leader, message, |_| true);
    let count = lines(&fleet, leader).iter().filter(|line| line["message"] == message).count();
    assert!(count <= 2, "{count} lines");

    fleet.node(leader).kill();
    let others = fleet.others(leader);
    let new = fleet.leader_of(&others);
    let lost = line(&fleet, new, "leader lost", |line| line["leader"] == format!("n{leader}"));
    assert!(lost["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{lost}");
    let response = fleet.ask(new, &Request::new("GET", "/metrics"), 200).text();
    for name in ["stormkv_keys 251", "stormkv_snapshot_duration_seconds_count{operation=\"save\"}"]
    {
        assert!(response.contains(name), "{name} is not in:\n{response}");
    }
}

/// Whoever read the log has gone: a node has more important things to do than to complain.
#[test]
fn a_node_outlives_the_reader_of_its_log() {
    let _turn = turn();
    let fleet = Fleet::prepare(1, &["--log-level", "debug"]);
    let arguments = fleet.nodes[&1].arguments.clone();
    let mut process = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A pipe without a reader: each further line is an error.
    drop(process.stderr.take());
    until("it serves", || {
        fleet.nodes[&1]
            .ask(&Request::new("PUT", "/key").body("value"))
            .ok()
            .filter(|answer| answer.status == 204)
    });
    // Lines of debug are written all the while.
    for _ in 0..20 {
        fleet.put(1, "key", "again");
    }
    assert!(matches!(process.try_wait(), Ok(None)), "it still runs");
    let _ = process.kill();
    let _ = process.wait();
}
