//! The plain families: each act is one fault (or, for links, a few of the same kind).

use crate::plan::{DiskFault, Fault, Member};

use super::storm::Scene;

pub(super) fn crash(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Crash(who));
}

/// Crashes between two steps of the work that one input causes.
pub(super) fn crash_at_step(scene: &mut Scene<'_>) {
    let who = scene.who();
    let fault = if scene.dice.percent(50) {
        Fault::CrashAtOutput(who, scene.dice.below(6))
    } else {
        Fault::CrashAtDisk(who, scene.dice.scaled(1, 12))
    };
    scene.push_lasting(fault);
}

pub(super) fn crash_all(scene: &mut Scene<'_>) {
    let at_us = scene.when();
    let until_us = at_us + scene.dice.scaled_us(5, 500);
    scene.push(at_us, until_us, Fault::CrashAll);
}

pub(super) fn kill(scene: &mut Scene<'_>) {
    let who = scene.who();
    let fault = if scene.dice.percent(15) { Fault::KillAll } else { Fault::Kill(who) };
    scene.push_lasting(fault);
}

pub(super) fn pause(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Pause(who));
}

pub(super) fn partition(scene: &mut Scene<'_>) {
    let (left, mut right) = scene.halves();
    let mut groups = vec![left];
    if right.len() > 1 && scene.dice.percent(20) {
        groups.push(right.split_off(1));
    }
    groups.push(right);
    scene.push_lasting(Fault::Partition(groups));
}

pub(super) fn isolate(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Isolate(who));
}

pub(super) fn one_way(scene: &mut Scene<'_>) {
    let (from, to) = scene.halves();
    scene.push_lasting(Fault::OneWay { from, to });
}

pub(super) fn bridge(scene: &mut Scene<'_>) {
    let mut left = scene.shuffled();
    let Some(Member::Node(node)) = left.pop() else { unreachable!("three nodes are needed") };
    let right = left.split_off(left.len() / 2);
    scene.push_lasting(Fault::Bridge { node, left, right });
}

/// Links stall one by one and are released in another order.
pub(super) fn clog(scene: &mut Scene<'_>) {
    for _ in 0..scene.dice.between(1, 3) {
        let ends = scene.shuffled();
        scene.push_lasting(Fault::Clog { from: ends[0], to: ends[1] });
    }
}

pub(super) fn weather(scene: &mut Scene<'_>) {
    let mut share = |most| match scene.dice.percent(40) {
        true => 0.0,
        false => f64::from(scene.dice.between(1, most)) / 100.0,
    };
    let (drop, duplicate) = (share(50), share(30));
    let mut delay_us = u64::from(scene.dice.scaled(1, 100)) * 1000;
    if drop + duplicate > 0.0 && scene.dice.percent(50) {
        delay_us = 0;
    }
    scene.push_lasting(Fault::Weather { drop, duplicate, delay_us });
}

pub(super) fn fsync_failure(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::FsyncFail(who));
}

pub(super) fn disk_error(scene: &mut Scene<'_>) {
    let who = scene.who();
    let what = scene.dice.pick(&[DiskFault::Write, DiskFault::Read, DiskFault::Space]);
    scene.push_lasting(Fault::DiskError(who, what));
}

pub(super) fn slow_disk(scene: &mut Scene<'_>) {
    let (who, factor) = (scene.who(), scene.dice.scaled(2, 100));
    scene.push_lasting(Fault::SlowDisk(who, factor));
}

/// Some clients' requests, or the answers to them, pass only at one node.
pub(super) fn lonely_clients(scene: &mut Scene<'_>) {
    let node = scene.node();
    let others: Vec<Member> = scene
        .cast
        .nodes
        .iter()
        .filter(|other| **other != node)
        .copied()
        .map(Member::Node)
        .collect();
    let count = scene.dice.between(1, scene.cast.clients);
    let clients: Vec<Member> = (1..=count).map(Member::Client).collect();
    if others.is_empty() {
        // With one node, they reach none.
        scene.push_lasting(Fault::Partition(vec![clients, vec![Member::Node(node)]]));
        return;
    }
    let (from, to) = if scene.dice.percent(50) { (clients, others) } else { (others, clients) };
    scene.push_lasting(Fault::OneWay { from, to });
}
