//! Families of the network: each act is one fault, or a few of the same kind.

use crate::plan::{LinkFault, Member, Path, Who};

use super::super::storm::Scene;

pub(in crate::swarm) fn partition(scene: &mut Scene<'_>) {
    let (left, mut right) = scene.halves();
    let mut groups = vec![left];
    if right.len() > 1 && scene.dice.percent(20) {
        groups.push(right.split_off(1));
    }
    groups.push(right);
    scene.push_lasting(LinkFault::Partition(groups));
}

pub(in crate::swarm) fn isolate(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(LinkFault::Isolate(who));
}

pub(in crate::swarm) fn one_way(scene: &mut Scene<'_>) {
    let (from, to) = scene.halves();
    scene.push_lasting(LinkFault::OneWay { from, to });
}

pub(in crate::swarm) fn bridge(scene: &mut Scene<'_>) {
    let mut left = scene.shuffled();
    let Some(Member::Node(node)) = left.pop() else { unreachable!("three nodes are needed") };
    let right = left.split_off(left.len() / 2);
    scene.push_lasting(LinkFault::Bridge { node, left, right });
}

pub(in crate::swarm) fn clog(scene: &mut Scene<'_>) {
    for _ in 0..scene.dice.between(1, 3) {
        let ends = scene.shuffled();
        scene.push_lasting(LinkFault::Clog { from: ends[0], to: ends[1] });
    }
}

pub(in crate::swarm) fn weather(scene: &mut Scene<'_>) {
    weather_on(scene, Path::All);
}

/// Some links have worse weather than others.
pub(in crate::swarm) fn local_weather(scene: &mut Scene<'_>) {
    let path = path(scene);
    weather_on(scene, path);
}

fn weather_on(scene: &mut Scene<'_>, path: Path) {
    let mut share = |most| match scene.dice.percent(40) {
        true => 0.0,
        false => f64::from(scene.dice.between(1, most)) / 100.0,
    };
    let (drop, duplicate) = (share(50), share(30));
    let mut delay_us = u64::from(scene.dice.scaled(1, 100)) * 1000;
    if drop + duplicate > 0.0 && scene.dice.percent(50) {
        delay_us = 0;
    }
    scene.push_lasting(LinkFault::Weather { path, drop, duplicate, delay_us });
}

pub(in crate::swarm) fn lonely_clients(scene: &mut Scene<'_>) {
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
        scene.push_lasting(LinkFault::Partition(vec![clients, vec![Member::Node(node)]]));
        return;
    }
    let (from, to) = if scene.dice.percent(50) { (clients, others) } else { (others, clients) };
    scene.push_lasting(LinkFault::OneWay { from, to });
}

/// From one node or to it, between two nodes, or between halves; seldom all links.
fn path(scene: &mut Scene<'_>) -> Path {
    match scene.dice.below(8) {
        0..=1 => Path::From(scene.who()),
        2..=3 => Path::To(scene.who()),
        4..=5 => {
            let ends = scene.shuffled();
            Path::Between { from: vec![ends[0]], to: vec![ends[1]] }
        }
        6 => {
            let (from, to) = scene.halves();
            Path::Between { from, to }
        }
        _ => Path::All,
    }
}

pub(in crate::swarm) fn ring(scene: &mut Scene<'_>) {
    let nodes = scene.shuffled().into_iter().filter_map(|member| match member {
        Member::Node(node) => Some(node),
        Member::Client(_) => None,
    });
    let fault = LinkFault::Ring(nodes.collect());
    scene.push_lasting(fault);
}

pub(in crate::swarm) fn lag(scene: &mut Scene<'_>) {
    let (path, delay_us) = (path(scene), scene.dice.scaled_us(2, 500));
    scene.push_lasting(LinkFault::Lag { path, delay_us });
}

pub(in crate::swarm) fn throttle(scene: &mut Scene<'_>) {
    let path = path(scene);
    let (kib_per_s, queue_us) = (scene.dice.scaled(1, 64), scene.dice.scaled_us(5, 500));
    scene.push_lasting(LinkFault::Throttle { path, kib_per_s, queue_us });
}

pub(in crate::swarm) fn garble(scene: &mut Scene<'_>) {
    let path = path(scene);
    let share = f64::from(scene.dice.scaled(1, 100)) / 200.0;
    scene.push_lasting(LinkFault::Garble { path, share });
}

pub(in crate::swarm) fn reset(scene: &mut Scene<'_>) {
    for _ in 0..scene.dice.between(1, 3) {
        let at_us = scene.when();
        let fault = match scene.dice.below(5) {
            0..=2 => LinkFault::ResetNode(scene.who()),
            3 => {
                let ends = scene.shuffled();
                LinkFault::Reset { left: vec![ends[0]], right: vec![ends[1]] }
            }
            _ => {
                let (left, right) = scene.halves();
                LinkFault::Reset { left, right }
            }
        };
        scene.push_instant(at_us, fault);
    }
}

/// The leader's messages come later than the elections that their lateness causes; the answers of
/// the others do not.
pub(in crate::swarm) fn late_leader(scene: &mut Scene<'_>) {
    let at_us = scene.when();
    let until_us = at_us + 2 * scene.new_leader_us();
    let delay_us = scene.cast.election_us * u64::from(scene.dice.between(5, 15)) / 10_000 * 1000;
    let path = match scene.dice.percent(75) {
        true => Path::From(Who::Leader),
        false => Path::To(Who::Leader),
    };
    scene.push(at_us, until_us, LinkFault::Lag { path, delay_us });
}
