//! The network between the nodes breaks, in part and in one direction only.

use std::time::{Duration, Instant};

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::{Connection, Request};
use crate::harness::net::State;
use crate::harness::record::judge;
use crate::harness::{turn, until};

/// The leader is cut off with a minority. The others go on; it serves no linearizable read and no
/// write meanwhile, but a stale read by name; when the cut heals it follows and has what they have.
#[test]
fn a_minority_does_not_answer_and_a_majority_goes_on() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let leader = fleet.leader();
    let others = fleet.others(leader);
    fleet.put(leader, "key", "before");
    fleet.network.split(&[leader], &others, State::Silent);
    let next = fleet.leader_of(&others);
    fleet.put(next, "key", "after");
    let alone = fleet.node(leader);
    let ask = |request: &Request| {
        let mut connection = Connection::new(alone.http, Duration::from_secs(12));
        connection.ask(request).expect("it says that it cannot")
    };
    let read = ask(&Request::new("GET", "/key"));
    assert!(matches!(read.status, 503 | 504), "{} {}", read.status, read.text());
    let write = ask(&Request::new("PUT", "/key").body("lost"));
    assert!(matches!(write.status, 503 | 504), "{} {}", write.status, write.text());
    let stale = ask(&Request::new("GET", "/key?consistency=stale"));
    assert_eq!((stale.status, stale.text().as_str()), (200, "before"));
    assert_eq!(ask(&Request::new("GET", "/ready")).status, 503, "not ready alone");
    assert_eq!(ask(&Request::new("GET", "/health")).status, 200, "but healthy");
    fleet.network.heal();
    assert_eq!(fleet.get(leader, "key").as_deref(), Some("after"));
    fleet.converge(&[1, 2, 3]);
}

/// The leader's words are lost, but it hears everybody: it must step down by itself, as nobody
/// answers it, and not disturb the one that is elected instead.
#[test]
fn a_leader_that_nobody_hears_steps_down() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let leader = fleet.leader();
    let others = fleet.others(leader);
    fleet.network.block(&[leader], &others, State::Silent);
    let next = fleet.leader_of(&others);
    until("the old leader knows", || (fleet.status(leader)?["role"] != "leader").then_some(()));
    fleet.put(next, "key", "value");
    fleet.network.heal();
    assert_eq!(fleet.get(leader, "key").as_deref(), Some("value"));
    fleet.converge(&[1, 2, 3]);
}

/// Two nodes cannot reach each other, and the third reaches both. There is a leader to be had, and
/// whoever is cut off from it must not depose it again and again (PreVote).
#[test]
fn a_bridge_between_two_who_cannot_talk_is_enough() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let leader = fleet.leader();
    let others = fleet.others(leader);
    let (bridge, far) = (others[0], others[1]);
    fleet.put(leader, "key", "1");
    fleet.network.split(&[leader], &[far], State::Silent);
    // The leader keeps its majority with the bridge, so writes go on, through the bridge too.
    let term = |fleet: &Fleet| fleet.status(bridge).and_then(|status| status["term"].as_u64());
    fleet.put(bridge, "key", "2");
    let before = until("the bridge serves", || term(&fleet));
    // Long enough for the one that is cut off to call ten elections.
    let (began, mut last) = (Instant::now(), 2);
    while began.elapsed() < Duration::from_secs(4) {
        last += 1;
        fleet.put(bridge, "key", &last.to_string());
    }
    let after = until("the bridge serves", || term(&fleet));
    assert!(after <= before + 3, "terms rise without end: {before}, then {after}");
    fleet.network.heal();
    assert_eq!(fleet.get(far, "key"), Some(last.to_string()));
    fleet.converge(&[1, 2, 3]);
}

/// Cuts, silences and slow links under load, each kind of partition once.
#[test]
fn broken_links_under_load_keep_the_order() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(6));
    load.progress(100);
    for state in [State::Silent, State::Refused, State::Slow(Duration::from_millis(30))] {
        let leader = fleet.leader();
        let others = fleet.others(leader);
        fleet.network.split(&[leader], &others, state);
        load.progress(150);
        fleet.network.heal();
        load.progress(50);
        let leader = fleet.leader();
        let other = fleet.others(leader)[0];
        fleet.network.block(&[other], &[leader], state);
        load.progress(150);
        fleet.network.heal();
        for (from, to) in [(1, 2), (2, 3), (3, 1), (2, 1), (3, 2), (1, 3)] {
            fleet.network.cut((from, to));
            load.progress(20);
        }
    }
    fleet.converge(&[1, 2, 3]);
    let mut done = load.finish();
    println!("{:?}", done.counts);
    judge(&done.history, fleet.folder(), "broken-links");
    done.nothing_is_lost();
    let carried = fleet.network.carried();
    assert_eq!(carried.keys().filter(|(from, _)| *from > 0).count(), 6, "all cross: {carried:?}");
}
