//! Families of silent damage: a disk that lies does no harm before somebody reads it, so each of them
//! lets nodes start again on what was damaged.

use stormkv::types::NodeId;

use crate::plan::{DiskFault, DiskPart, Fault, FaultRow, LinkFault, Member, Plan, Rot, Who};

use super::super::dice::{Dice, Purpose};
use super::super::storm::Scene;

fn part(dice: &mut Dice) -> DiskPart {
    if dice.percent(25) { DiskPart::Snapshot } else { DiskPart::Log }
}

fn rot(dice: &mut Dice, part: DiskPart) -> DiskFault {
    let rot = match dice.below(4) {
        0 => Rot::Zeros,
        1 => Rot::Garbage,
        _ => Rot::Bits(dice.scaled(1, 64)),
    };
    DiskFault::Rot(part, rot)
}

fn rot_any(dice: &mut Dice) -> DiskFault {
    let part = part(dice);
    rot(dice, part)
}

fn down(dice: &mut Dice, who: Who) -> Fault {
    if dice.percent(30) { Fault::Kill(who) } else { Fault::Crash(who) }
}

/// A node's disk rots, while it runs or while it is down; it comes back.
pub(in crate::swarm) fn rot_and_restart(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let at_us = scene.when();
    let fault = rot_any(scene.dice);
    if scene.dice.percent(50) {
        scene.push_instant(at_us, Fault::Disk(who, fault));
        let crash_us = at_us + scene.dice.scaled_us(1, 300);
        let until_us = crash_us + scene.dice.scaled_us(5, 300);
        let crash = down(scene.dice, again);
        scene.push(crash_us, until_us, crash);
    } else {
        let until_us = at_us + scene.dice.scaled_us(20, 500);
        let crash = down(scene.dice, who);
        scene.push(at_us, until_us, crash);
        scene.push_instant(at_us + (until_us - at_us) / 2, Fault::Disk(again, fault));
    }
}

/// Some disks rot, then every node is started again in turn.
pub(in crate::swarm) fn rot_and_rolling_restart(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    let nodes = scene.shuffled();
    for node in rotten(scene, &nodes) {
        let fault = rot_any(scene.dice);
        scene.push_instant(at_us, Fault::Disk(Who::Node(node), fault));
        at_us += scene.dice.scaled_us(1, 100);
    }
    let gap_ms = scene.dice.scaled(20, 600);
    let mut nodes = nodes;
    scene.dice.shuffle(&mut nodes);
    for node in nodes {
        let Member::Node(node) = node else { unreachable!("only nodes are shuffled") };
        let until_us = at_us + scene.dice.scaled_us(5, 300);
        let crash = down(scene.dice, Who::Node(node));
        scene.push(at_us, until_us, crash);
        at_us += scene.dice.time_us(1, gap_ms);
    }
}

/// Some disks rot, then the power goes for all.
pub(in crate::swarm) fn rot_and_crash_all(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    let nodes = scene.shuffled();
    for node in rotten(scene, &nodes) {
        let fault = rot_any(scene.dice);
        scene.push_instant(at_us, Fault::Disk(Who::Node(node), fault));
        at_us += scene.dice.scaled_us(1, 100);
    }
    let until_us = at_us + scene.dice.scaled_us(5, 300);
    let fault = if scene.dice.percent(50) { Fault::CrashAll } else { Fault::KillAll };
    scene.push(at_us, until_us, fault);
    if scene.dice.percent(30) {
        // Those that are damaged come back first, and have to wait for the others.
        let at_us = until_us + scene.dice.scaled_us(1, 100);
        let until_us = at_us + scene.new_leader_us();
        if let Some(Member::Node(node)) = nodes.last() {
            scene.push(at_us, until_us, LinkFault::Isolate(Who::Node(*node)));
        }
    }
}

/// Whose disks rot: a minority, as the atlas will have it anyway.
fn rotten(scene: &mut Scene<'_>, nodes: &[Member]) -> Vec<NodeId> {
    let most = ((nodes.len() - 1) / 2).max(1) as u32;
    let count = scene.dice.between(1, most) as usize;
    let node = |member: &Member| match member {
        Member::Node(node) => *node,
        Member::Client(_) => unreachable!("only nodes are shuffled"),
    };
    nodes.iter().take(count).map(node).collect()
}

/// A follower is away until only a snapshot can help it; that of the leader rots meanwhile.
pub(in crate::swarm) fn rotten_snapshot_is_needed(scene: &mut Scene<'_>) {
    let node = Who::Node(scene.node());
    let at_us = scene.when();
    let back_us = at_us + scene.dice.time_us(500, 2500);
    let away = match scene.dice.percent(50) {
        true => Fault::Crash(node),
        false => LinkFault::Isolate(node).into(),
    };
    scene.push(at_us, back_us, away);
    let rot_us = back_us - scene.dice.scaled_us(1, 200).min(back_us - at_us);
    let fault = rot(scene.dice, DiskPart::Snapshot);
    scene.push_instant(rot_us, Fault::Disk(Who::Leader, fault));
}

/// A record that was acknowledged stands in another one's place.
pub(in crate::swarm) fn misdirected_and_crash(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let at_us = scene.when();
    let fault = DiskFault::Misdirect(part(scene.dice));
    scene.push_instant(at_us, Fault::Disk(who, fault));
    let crash_us = at_us + scene.dice.scaled_us(1, 300);
    let until_us = crash_us + scene.dice.scaled_us(5, 300);
    let crash = down(scene.dice, again);
    scene.push(crash_us, until_us, crash);
}

/// A node that starts reads what was there before.
pub(in crate::swarm) fn stale_read(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let at_us = scene.when();
    let crash_us = at_us + scene.dice.scaled_us(1, 100);
    let until_us = crash_us + scene.dice.scaled_us(5, 300);
    let fault = DiskFault::StaleRead(part(scene.dice));
    scene.push(at_us, until_us + 100_000, Fault::Disk(who, fault));
    let crash = down(scene.dice, again);
    scene.push(crash_us, until_us, crash);
}

/// While a damaged node is repaired it goes down again, or more is damaged, there or elsewhere.
pub(in crate::swarm) fn damage_during_repair(scene: &mut Scene<'_>) {
    let node = Who::Node(scene.node());
    let mut at_us = scene.when();
    let fault = rot_any(scene.dice);
    scene.push_instant(at_us, Fault::Disk(node, fault));
    at_us += scene.dice.scaled_us(1, 50);
    for _ in 0..scene.dice.between(1, 3) {
        let until_us = at_us + scene.dice.scaled_us(5, 100);
        let crash = match scene.dice.below(3) {
            0 => Fault::CrashAtDisk(node, scene.dice.scaled(1, 12)),
            _ => down(scene.dice, node),
        };
        at_us = scene.push(at_us, until_us, crash) + scene.dice.scaled_us(0, 60);
        if scene.dice.percent(60) {
            let who = if scene.dice.percent(50) { node } else { Who::Node(scene.node()) };
            let fault = rot_any(scene.dice);
            scene.push_instant(at_us, Fault::Disk(who, fault));
            at_us += scene.dice.scaled_us(1, 30);
        }
    }
}

/// Adds damage to more members than a quorum can spare, often to all, and lets them all start again.
pub(in crate::swarm) fn beyond_quorum(seed: u64, nodes: u64, plan: &mut Plan) {
    let dice = &mut Dice::new(seed, Purpose::BeyondQuorum);
    let horizon_ms = (plan.heal_at_us() / 1000).clamp(1000, 10_000) as u32;
    let mut at_us = dice.time_us(500, horizon_ms);
    let mut members: Vec<u64> = (1..=nodes).collect();
    dice.shuffle(&mut members);
    let most = members.len() as u32;
    let count = if dice.percent(40) { most } else { dice.between(most / 2 + 1, most) };
    let mut push = |at_us, until_us, fault| plan.faults.push(FaultRow { at_us, until_us, fault });
    for &node in &members[..count as usize] {
        for _ in 0..dice.between(1, 2) {
            let fault = match dice.below(5) {
                0 => DiskFault::Misdirect(part(dice)),
                _ => rot_any(dice),
            };
            push(at_us, None, Fault::Disk(Who::Node(NodeId(node)), fault));
        }
        at_us += dice.scaled_us(1, 50);
    }
    let until_us = at_us + dice.scaled_us(5, 300);
    push(at_us, Some(until_us), Fault::CrashAll);
    plan.faults.sort_by_key(|row| row.at_us);
}
