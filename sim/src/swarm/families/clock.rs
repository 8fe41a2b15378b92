//! Families of the clocks: each act is one fault, or one for every node.

use crate::plan::{ClockFault, Fault, Member, Who};

use super::super::dice::Dice;
use super::super::storm::Scene;

/// A rate in millionths: a little off, as real clocks are, or far off, as in virtual machines.
fn rate(dice: &mut Dice) -> u32 {
    let off = match dice.below(4) {
        0 => dice.scaled(100, 10_000),
        1 => 200_000,
        _ => dice.scaled(10_000, 4_000_000),
    };
    if dice.percent(50) { 1_000_000 + off } else { 1_000_000 - off.min(800_000) }
}

/// A step in microseconds, from a moment to an hour.
fn step_us(dice: &mut Dice) -> i64 {
    let us = i64::from(dice.scaled(1, 3_600_000)) * 1000;
    if dice.percent(50) { us } else { -us }
}

pub(in crate::swarm) fn drift(scene: &mut Scene<'_>) {
    let who = scene.who();
    let rate = rate(scene.dice);
    scene.push_lasting(Fault::Clock(who, ClockFault::Drift(rate)));
}

/// No two clocks run at the same speed, for a long time.
pub(in crate::swarm) fn drift_apart(scene: &mut Scene<'_>) {
    let at_us = scene.when();
    let until_us = at_us + scene.dice.time_us(1000, 6000);
    for node in scene.shuffled().into_iter().take(5) {
        let Member::Node(node) = node else { unreachable!("only nodes are shuffled") };
        let rate = rate(scene.dice);
        scene.push(at_us, until_us, Fault::Clock(Who::Node(node), ClockFault::Drift(rate)));
    }
}

pub(in crate::swarm) fn step(scene: &mut Scene<'_>) {
    let who = scene.who();
    let by_us = step_us(scene.dice);
    scene.push_lasting(Fault::Clock(who, ClockFault::Step(by_us)));
}

pub(in crate::swarm) fn jitter(scene: &mut Scene<'_>) {
    let who = scene.who();
    let us = u64::from(scene.dice.scaled(1, 500)) * 1000;
    scene.push_lasting(Fault::Clock(who, ClockFault::Jitter(us)));
}
