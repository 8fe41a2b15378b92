//! Processes die and stand still.

use std::time::Instant;

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::{Connection, Request};
use crate::harness::record::judge;
use crate::harness::{PATIENCE, turn, until};

/// kill -9 of the leader, three times, under load. Who was told that a write is done finds it.
#[test]
fn killed_leaders_lose_nothing() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(3));
    for _ in 0..3 {
        load.progress(150);
        let leader = fleet.leader();
        let others = fleet.others(leader);
        let began = Instant::now();
        fleet.node(leader).kill();
        let next = fleet.leader_of(&others);
        println!("node {next} leads {:?} after kill -9 of node {leader}", began.elapsed());
        load.progress(150);
        fleet.node(leader).start();
        fleet.converge(&[1, 2, 3]);
    }
    let mut done = load.finish();
    println!("{:?}", done.counts);
    judge(&done.history, fleet.folder(), "killed-leaders");
    done.nothing_is_lost();
}

/// A leader is stopped (SIGSTOP), deposed, and goes on as if nothing had happened. A read that was
/// asked of it after another leader's write must not be answered with the old value.
#[test]
fn a_leader_that_slept_gives_no_stale_answer() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for round in 0..3 {
        let leader = fleet.leader();
        let others = fleet.others(leader);
        fleet.put(leader, "seen", &format!("old {round}"));
        // Its connection is open and has been used: nothing is left to do but to answer.
        let mut waiting = Connection::new(fleet.node(leader).http, PATIENCE);
        waiting.ask(&Request::new("GET", "/seen")).expect("it serves");
        fleet.node(leader).pause();
        let next = fleet.leader_of(&others);
        fleet.put(next, "seen", &format!("new {round}"));
        // Sent while it sleeps, so that it is the first thing it finds when it wakes.
        waiting.send(&Request::new("GET", "/seen")).expect("the system takes it");
        fleet.node(leader).resume();
        let answer = waiting.receive().expect("an answer");
        if answer.status == 200 {
            assert_eq!(answer.text(), format!("new {round}"), "a stale read in round {round}");
        } else {
            assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
        }
        assert_eq!(fleet.get(leader, "seen"), Some(format!("new {round}")));
        until("the old leader follows", || {
            (fleet.status(leader)?["role"] == "follower").then_some(())
        });
    }
}

/// A sleeping leader under load: writes that it took before it slept are there or not, but never
/// both, and the history has an order.
#[test]
fn sleepers_under_load_keep_the_order() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(4));
    for _ in 0..2 {
        load.progress(150);
        let leader = fleet.leader();
        let others = fleet.others(leader);
        fleet.node(leader).pause();
        fleet.leader_of(&others);
        load.progress(150);
        fleet.node(leader).resume();
    }
    fleet.converge(&[1, 2, 3]);
    let mut done = load.finish();
    println!("{:?}", done.counts);
    judge(&done.history, fleet.folder(), "sleepers");
    done.nothing_is_lost();
}

/// All processes die at once and start again: what was acknowledged was on their disks.
#[test]
fn everybody_is_restarted_at_once() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let load = Load::start(&addresses, &Options::new(5));
    for _ in 0..3 {
        load.progress(150);
        fleet.kill_all();
        fleet.start_all();
    }
    load.progress(150);
    let mut done = load.finish();
    fleet.converge(&[1, 2, 3]);
    println!("{:?}", done.counts);
    judge(&done.history, fleet.folder(), "all-restarted");
    done.nothing_is_lost();
}

/// Killed and started again and again while it catches up: a torn end of its log is no news to it.
#[test]
fn a_follower_that_keeps_dying_catches_up() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let leader = fleet.leader();
    let follower = fleet.others(leader)[0];
    for round in 0..6 {
        fleet.node(follower).kill();
        for number in 0..40 {
            fleet.put(leader, &format!("key-{round}-{number}"), &"x".repeat(2000));
        }
        fleet.node(follower).start();
    }
    fleet.converge(&[1, 2, 3]);
    let stale = format!("/v1/kv/key-{}-{}?consistency=stale", 5, 39);
    let own = fleet.node(follower).get(&stale).expect("it serves");
    assert_eq!((own.status, own.body.len()), (200, 2000), "its own copy");
}
