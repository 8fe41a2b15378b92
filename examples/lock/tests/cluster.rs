//! The lock service as a real cluster: three processes on this machine, one of which is killed.
//!
//! `cargo test -p lock --features node --test cluster`

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::thread::sleep;
use std::time::Duration;

use processes::Cluster;

#[path = "../../processes/mod.rs"]
mod processes;

/// A lease that outlives an election on a busy machine, and one that is soon over, in milliseconds.
const LONG_MS: u64 = 600_000;
const SHORT_MS: u64 = 300;

/// The word behind the prefix `before` of an answer.
fn word<'a>(answer: &'a str, before: &str) -> &'a str {
    let rest = answer.strip_prefix(before).unwrap_or_else(|| panic!("`{before}` in `{answer}`"));
    rest.split(' ').next().expect("a word")
}

#[test]
fn lease_outlives_the_leader_that_granted_it() {
    let (program, scratch) = (env!("CARGO_BIN_EXE_lock-node"), env!("CARGO_TARGET_TMPDIR"));
    let longest = ["--longest-lease-ms", &LONG_MS.to_string()];
    let mut cluster = Cluster::start(program, &longest, scratch, "lock-cluster");
    let opened = cluster.ask("/v1/sessions", "", "", 201);
    let session = opened.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let mut number = 0;
    // With a number in the session, because an attempt that is repeated must not find its own lease.
    let mut command = |cluster: &Cluster, words: &str| {
        number += 1;
        let key = format!("idempotency-key: {session}-{number}\r\n");
        cluster.ask("/v1/command", &key, words, 200)
    };

    // The longest lease is a parameter of the machine, and the time of a cluster begins with it.
    let long = command(&cluster, &format!("acquire 0 {}", 100 * LONG_MS));
    let until: u64 = long.rsplit(' ').next().and_then(|ms| ms.parse().ok()).expect("a time");
    assert!((LONG_MS..2 * LONG_MS).contains(&until), "{long}");
    let long = word(&long, "granted ").to_owned();
    let short = command(&cluster, &format!("acquire 1 {SHORT_MS}"));
    let short: u64 = word(&short, "granted ").parse().expect("a token");

    let leader = cluster.kill_leader();
    let held = command(&cluster, "acquire 0 1000");
    word(&held, "held until ");
    // The next leader counts on from the stamps of the one that is gone.
    sleep(Duration::from_millis(SHORT_MS));
    let next = processes::eventually("the lease expires", || {
        let answer = command(&cluster, &format!("acquire 1 {LONG_MS}"));
        answer.starts_with("granted ").then_some(answer)
    });
    let next: u64 = word(&next, "granted ").parse().expect("a token");
    assert!(next > short, "tokens grow: {short}, then {next}");
    assert_eq!(command(&cluster, &format!("renew 1 {short} 1000")), "lost");

    cluster.restart(leader);
    for node in cluster.running() {
        assert_eq!(word(&node.query("holder 0"), ""), long, "node {}", node.id);
        assert_eq!(word(&node.query("holder 1"), ""), next.to_string(), "node {}", node.id);
    }
    assert_eq!(command(&cluster, &format!("release 0 {long}")), "released");
    assert_eq!(cluster.nodes[leader].query("holder 0"), "free");
}
