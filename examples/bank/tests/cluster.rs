//! The ledger as a real cluster: three processes on this machine, one of which is killed.
//!
//! `cargo test -p bank --features node --test cluster`

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::time::Duration;

use bank::{ACCOUNTS, Accounts};
use processes::Cluster;
use stormkv::machine::{Context, StateMachine};

#[path = "../../processes/mod.rs"]
mod processes;

/// Transfers before the leader is killed, and afterwards.
const TRANSFERS: u64 = 20;

/// Checks each balance and the total at each member that runs.
fn compare(cluster: &Cluster, ledger: &Accounts) {
    let queries = (0..ACCOUNTS).map(|account| format!("balance {account}"));
    for query in queries.chain(["total".to_owned()]) {
        let wanted = ledger.query(query.as_bytes());
        for node in cluster.running() {
            assert_eq!(node.query(&query).as_bytes(), wanted, "{query} at node {}", node.id);
        }
    }
}

#[test]
fn killed_leader_loses_no_transfer_and_no_money() {
    let (program, scratch) = (env!("CARGO_BIN_EXE_bank-node"), env!("CARGO_TARGET_TMPDIR"));
    let mut cluster = Cluster::start(program, &[], scratch, "bank-cluster");
    let opened = cluster.ask("/v1/sessions", "", "", 201);
    let session = opened.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();

    // The same transfers on a ledger that is not replicated. A transfer is repeated until it is
    // answered, and has a number in the session: so it takes effect once.
    let mut ledger = Accounts::new(&());
    let mut transfer = |cluster: &Cluster, number: u64| {
        let (from, to) = (number as usize % ACCOUNTS, (3 * number as usize + 1) % ACCOUNTS);
        // Some are more than there is.
        let words = format!("transfer {from} {to} {}", 17 * number % 150);
        let key = format!("idempotency-key: {session}-{number}\r\n");
        let answer = cluster.ask("/v1/command", &key, &words, 200);
        assert_eq!(
            answer.as_bytes(),
            ledger.apply(Context::new(number, Duration::ZERO), words.as_bytes()),
            "{words}"
        );
    };
    (1..=TRANSFERS).for_each(|number| transfer(&cluster, number));

    let leader = cluster.kill_leader();
    (TRANSFERS + 1..=2 * TRANSFERS).for_each(|number| transfer(&cluster, number));
    compare(&cluster, &ledger);

    cluster.restart(leader);
    compare(&cluster, &ledger);
    assert_eq!(cluster.nodes[leader].query("total"), "800");
    // A refusal of the ledger is an answer of the ledger, and words that it does not know, too.
    let refused = cluster.ask("/v1/command", "", "transfer 1 2 1000", 200);
    assert!(refused.starts_with("refused: "), "{refused}");
    let unknown = cluster.nodes[leader].query("sum");
    assert!(unknown.starts_with("`sum` is not an operation"), "{unknown}");
}
