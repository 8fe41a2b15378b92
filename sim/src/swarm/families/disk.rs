//! Families of the disks: each act is one fault.

use crate::plan::{DiskAim, DiskFault, DiskOperation, Fault, FileKind, Who};

use super::super::storm::Scene;

pub(in crate::swarm) fn fsync_failure(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Disk(who, DiskFault::Sync));
}

pub(in crate::swarm) fn disk_error(scene: &mut Scene<'_>) {
    let who = scene.who();
    let what = scene.dice.pick(&[DiskFault::Write, DiskFault::Read, DiskFault::Space]);
    scene.push_lasting(Fault::Disk(who, what));
}

/// An operation on a kind of file that fails, at random or where mistakes are likely: what publishes a
/// snapshot, what goes when it is there, and what comes second in a batch.
pub(in crate::swarm) fn aimed_error(scene: &mut Scene<'_>) {
    use DiskOperation::{Create, Read, Remove, Rename, Sync, Write};
    use FileKind::{Directory, Log, Partial, Snapshot};
    let (operation, files) = scene.dice.pick(&[
        (Sync, Directory),
        (Sync, Directory),
        (Sync, Log),
        (Sync, Partial),
        (Write, Log),
        (Write, Partial),
        (Create, Log),
        (Create, Partial),
        (Rename, Snapshot),
        (Remove, Log),
        (Remove, Snapshot),
        (Remove, Partial),
        (Read, Snapshot),
        (Read, Partial),
        (Read, Log),
    ]);
    let number = if scene.dice.percent(60) { 1 } else { scene.dice.scaled(2, 16) };
    let who = scene.who();
    scene.push_lasting(Fault::Disk(who, DiskFault::Aimed(DiskAim { operation, files, number })));
}

pub(in crate::swarm) fn slow_disk(scene: &mut Scene<'_>) {
    let (who, factor) = (scene.who(), scene.dice.scaled(2, 100));
    scene.push_lasting(Fault::Disk(who, DiskFault::Slow(factor)));
}

pub(in crate::swarm) fn short_write(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Disk(who, DiskFault::ShortWrite));
}

/// Disks hang, often that of the leader; sometimes one more member is gone meanwhile.
pub(in crate::swarm) fn stalled_disk(scene: &mut Scene<'_>) {
    let who = if scene.dice.percent(50) { Who::Leader } else { scene.who() };
    let at_us = scene.when();
    let until_us = at_us + scene.span_us();
    scene.push(at_us, until_us, Fault::Disk(who, DiskFault::Stall));
    if scene.dice.percent(40) {
        let fault = Fault::Crash(Who::Node(scene.node()));
        let at_us = at_us + scene.dice.scaled_us(1, 200);
        scene.push(at_us, until_us.max(at_us + 100), fault);
    }
}

pub(in crate::swarm) fn lost_entry(scene: &mut Scene<'_>) {
    let who = scene.who();
    scene.push_lasting(Fault::Disk(who, DiskFault::LoseEntry));
}
