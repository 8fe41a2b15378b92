//! Families of the processes: each act is one fault.

use crate::plan::{Again, Fault, ProcessFault};

use super::super::storm::Scene;

pub(in crate::swarm) fn crash(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Crash(who));
}

pub(in crate::swarm) fn crash_at_step(scene: &mut Scene<'_>) {
    let who = scene.who();
    let fault = if scene.dice.percent(50) {
        Fault::CrashAtOutput(who, scene.dice.scaled(1, 60) - 1)
    } else {
        Fault::CrashAtDisk(who, scene.dice.scaled(1, 12))
    };
    scene.push_lasting(fault);
}

pub(in crate::swarm) fn crash_all(scene: &mut Scene<'_>) {
    let at_us = scene.when();
    let until_us = at_us + scene.dice.scaled_us(5, 500);
    scene.push(at_us, until_us, Fault::CrashAll);
}

pub(in crate::swarm) fn kill(scene: &mut Scene<'_>) {
    let who = scene.who();
    let fault = if scene.dice.percent(15) { Fault::KillAll } else { Fault::Kill(who) };
    scene.push_lasting(fault);
}

pub(in crate::swarm) fn pause(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Pause(who));
}

/// A pause of seconds, as of a virtual machine that is moved or of a disk that hangs.
pub(in crate::swarm) fn stop_the_world(scene: &mut Scene<'_>) {
    let (who, at_us) = (scene.who(), scene.when());
    let until_us = at_us + scene.dice.time_us(1000, 6000);
    scene.push(at_us, until_us, Fault::Pause(who));
}

pub(in crate::swarm) fn slow(scene: &mut Scene<'_>) {
    let who = scene.who();
    let us = u64::from(scene.dice.scaled(1, 500)) * 100;
    scene.push_lasting(Fault::Process(who, ProcessFault::Slow(us)));
}

pub(in crate::swarm) fn slow_apply(scene: &mut Scene<'_>) {
    let who = scene.who();
    let us = u64::from(scene.dice.scaled(1, 200)) * 500;
    scene.push_lasting(Fault::Process(who, ProcessFault::SlowApply(us)));
}

/// Half of the loops go down while they recover.
pub(in crate::swarm) fn crash_loop(scene: &mut Scene<'_>) {
    let (who, at_us) = (scene.who(), scene.when());
    let again = match scene.dice.percent(50) {
        true => Again::After(scene.dice.scaled_us(1, 500)),
        false => Again::AtDisk(scene.dice.scaled(1, 24)),
    };
    let until_us = at_us + scene.dice.time_us(100, 2000);
    scene.push(at_us, until_us, Fault::Process(who, ProcessFault::CrashLoop(again)));
}
