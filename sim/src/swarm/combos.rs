//! The families that tell a story: several faults in a sequence that has broken real systems.
//!
//! A bug in replication rarely needs many faults, but it needs the right ones in the right order,
//! within milliseconds of each other; independent draws almost never produce that.

use stormkv::types::NodeId;

use crate::plan::{
    Call, DiskFault, Fault, FaultRow, LinkFault, Member, Op, OpRow, Path, ProcessFault, Who,
};

use super::dice::{Dice, Purpose};
use super::storm::Scene;

/// A leader is cut off with pending writes, another one is elected, the link heals, and the old
/// leader crashes while its log is being overwritten.
pub(super) fn deposed_leader(scene: &mut Scene<'_>) {
    let at_us = scene.when();
    let heal_us = at_us + scene.new_leader_us();
    scene.push(at_us, heal_us, LinkFault::Isolate(Who::Leader));
    let crash_us = heal_us + scene.dice.scaled_us(0, 100);
    let back_us = crash_us + scene.dice.scaled_us(5, 300);
    let fault = match scene.dice.below(4) {
        0 => Fault::CrashAtDisk(Who::Same, scene.dice.between(1, 6)),
        1 => Fault::CrashAtOutput(Who::Same, scene.dice.below(4)),
        _ => Fault::Crash(Who::Same),
    };
    let back_us = scene.push(crash_us, back_us, fault);
    if scene.dice.percent(50) {
        // The new leader goes too, so that the old one's log matters.
        let at_us = back_us + scene.dice.scaled_us(0, 200);
        let until_us = at_us + scene.new_leader_us();
        scene.push(at_us, until_us, Fault::Crash(Who::Leader));
    }
}

/// A node crashes again while it recovers.
pub(super) fn double_crash(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let mut at_us = scene.when();
    let mut fault = Fault::Crash(who);
    for _ in 0..scene.dice.between(2, 3) {
        let until_us = at_us + scene.dice.scaled_us(0, 80);
        at_us = scene.push(at_us, until_us, fault) + scene.dice.scaled_us(0, 60);
        fault = match scene.dice.percent(50) {
            true => Fault::Crash(again),
            false => Fault::CrashAtDisk(again, scene.dice.between(1, 8)),
        };
    }
}

/// A follower is away until only a snapshot can help it, then crashes while it installs one.
pub(super) fn snapshot_under_fire(scene: &mut Scene<'_>) {
    let node = Who::Node(scene.node());
    let at_us = scene.when();
    let back_us = at_us + scene.dice.time_us(500, 2500);
    let away = match scene.dice.below(3) {
        0 => Fault::Crash(node),
        1 => Fault::Pause(node),
        _ => LinkFault::Isolate(node).into(),
    };
    scene.push(at_us, back_us, away);
    if scene.dice.percent(30) {
        // Its disk takes longer than an election: what happens meanwhile finds it half installed.
        let factor = scene.dice.scaled(100, 5000);
        let until_us = back_us + 2 * scene.new_leader_us();
        scene.push(back_us, until_us, Fault::Disk(node, DiskFault::Slow(factor)));
    }
    let mut at_us = back_us + scene.dice.scaled_us(0, 150);
    for _ in 0..scene.dice.between(1, 3) {
        let until_us = at_us + scene.dice.scaled_us(1, 200);
        let fault = match scene.dice.below(3) {
            0 => Fault::Crash(node),
            1 => Fault::Kill(node),
            _ => Fault::CrashAtDisk(node, scene.dice.scaled(1, 16)),
        };
        at_us = scene.push(at_us, until_us, fault) + scene.dice.scaled_us(0, 100);
    }
}

/// A node is cut off and comes back, again and again.
pub(super) fn flapping_link(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let mut at_us = scene.when();
    for act in 0..scene.dice.between(3, 5) {
        let until_us = at_us + scene.dice.scaled_us(20, 400);
        scene.push(at_us, until_us, LinkFault::Isolate(if act == 0 { who } else { again }));
        at_us = until_us + scene.dice.scaled_us(5, 300);
    }
}

/// Every node crashes in turn, as in a careless upgrade.
pub(super) fn rolling_crash(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    let gap_ms = scene.dice.scaled(5, 600);
    for node in scene.shuffled() {
        let Member::Node(node) = node else { unreachable!("only nodes are shuffled") };
        let until_us = at_us + scene.dice.scaled_us(5, 300);
        scene.push(at_us, until_us, Fault::Crash(Who::Node(node)));
        at_us += scene.dice.time_us(1, gap_ms);
    }
}

/// Each new leader is taken out soon after its election.
pub(super) fn leader_chase(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    for _ in 0..scene.dice.between(2, 4) {
        let until_us = at_us + scene.new_leader_us();
        let fault = match scene.dice.below(6) {
            0 => Fault::Pause(Who::Leader),
            1 | 2 => LinkFault::Isolate(Who::Leader).into(),
            3 => Fault::CrashAtOutput(Who::Leader, scene.dice.below(5)),
            _ => Fault::Crash(Who::Leader),
        };
        scene.push(at_us, until_us, fault);
        at_us += scene.cast.election_us + scene.dice.time_us(50, 500);
    }
}

/// More than half of the nodes die within milliseconds, under load.
pub(super) fn majority_dies(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    let nodes = scene.shuffled();
    let kill = scene.dice.percent(30);
    for node in &nodes[..nodes.len() / 2 + 1] {
        let Member::Node(node) = *node else { unreachable!("only nodes are shuffled") };
        let until_us = at_us + scene.dice.scaled_us(20, 1500);
        let fault = if kill { Fault::Kill } else { Fault::Crash };
        scene.push(at_us, until_us, fault(Who::Node(node)));
        at_us += scene.dice.scaled_us(0, 20);
    }
}

/// A disk is slow, so that much is written and little is synced, when the power goes; soon after,
/// it goes for everyone.
pub(super) fn unsynced_loss(scene: &mut Scene<'_>) {
    let who = scene.who();
    let again = if who == Who::Leader { Who::Same } else { who };
    let at_us = scene.when();
    let crash_us = at_us + scene.dice.scaled_us(5, 300);
    let until_us = crash_us + scene.dice.scaled_us(5, 200);
    let factor = scene.dice.scaled(10, 200);
    scene.push(at_us, until_us, Fault::Disk(who, DiskFault::Slow(factor)));
    scene.push(crash_us, until_us, Fault::Crash(again));
    if scene.dice.percent(40) {
        let at_us = until_us + scene.dice.scaled_us(0, 100);
        let until_us = at_us + scene.dice.scaled_us(1, 100);
        scene.push(at_us, until_us, Fault::CrashAll);
    }
}

/// Links into one node clog one after the other and are released in another order, so that old
/// messages arrive after newer ones.
pub(super) fn swizzle_clog(scene: &mut Scene<'_>) {
    let mut links = scene.shuffled();
    let Some(to) = links.pop() else { unreachable!("three nodes are needed") };
    let mut at_us = scene.when();
    let released_us = at_us + scene.new_leader_us();
    for from in links.into_iter().take(4) {
        let until_us = released_us + scene.dice.scaled_us(1, 300);
        let (from, to) = if scene.dice.percent(70) { (from, to) } else { (to, from) };
        scene.push(at_us, until_us, LinkFault::Clog { from, to });
        at_us += scene.dice.scaled_us(0, 100);
        if at_us >= released_us {
            break;
        }
    }
}

/// Everyone crashes under load, and the node that was cut off before has a say in what follows.
pub(super) fn stale_majority(scene: &mut Scene<'_>) {
    let node = scene.node();
    let at_us = scene.when();
    let crash_us = at_us + scene.dice.time_us(100, 800);
    let heal_us = crash_us + scene.dice.scaled_us(1, 50);
    scene.push(at_us, heal_us, LinkFault::Isolate(Who::Node(node)));
    scene.push(crash_us, heal_us, Fault::CrashAll);
    let last_us = heal_us + scene.dice.scaled_us(0, 30);
    let until_us = last_us + scene.new_leader_us();
    let (_, mut away) = scene.halves();
    away.retain(|member| *member != Member::Node(node));
    if let Some(Member::Node(other)) = away.first() {
        scene.push(last_us, until_us, LinkFault::Isolate(Who::Node(*other)));
    }
}

/// A follower is away until only a snapshot can help it, and what carries the snapshot breaks, is
/// slow, or damages it.
pub(super) fn broken_transfer(scene: &mut Scene<'_>) {
    let node = scene.node();
    let at_us = scene.when();
    let back_us = at_us + scene.dice.time_us(500, 2500);
    scene.push(at_us, back_us, LinkFault::Isolate(Who::Node(node)));
    let path = Path::To(Who::Node(node));
    let until_us = back_us + 2 * scene.new_leader_us();
    match scene.dice.below(3) {
        0 => {
            let (kib_per_s, queue_us) = (scene.dice.scaled(4, 64), scene.dice.scaled_us(20, 500));
            scene.push(back_us, until_us, LinkFault::Throttle { path, kib_per_s, queue_us });
        }
        1 => {
            let share = f64::from(scene.dice.scaled(2, 60)) / 100.0;
            scene.push(back_us, until_us, LinkFault::Garble { path, share });
        }
        _ => {}
    }
    let mut at_us = back_us;
    for _ in 0..scene.dice.between(1, 3) {
        at_us += scene.dice.scaled_us(1, 200);
        match scene.dice.below(3) {
            0 => scene.push_instant(at_us, LinkFault::ResetNode(Who::Leader)),
            _ => scene.push_instant(at_us, LinkFault::ResetNode(Who::Node(node))),
        }
    }
}

/// Bytes are damaged everywhere while clients are busy.
pub(super) fn damage_under_load(scene: &mut Scene<'_>) {
    let at_us = match scene.cast.marks.len() as u32 {
        0 => scene.when(),
        marks => scene.cast.marks[scene.dice.below(marks) as usize],
    };
    let until_us = at_us + scene.span_us();
    let share = f64::from(scene.dice.scaled(1, 40)) / 100.0;
    scene.push(at_us, until_us, LinkFault::Garble { path: Path::All, share });
}

/// In a ring every node finds a quorum, and none finds everybody: one leader after the other goes.
pub(super) fn ring_of_leaders(scene: &mut Scene<'_>) {
    let nodes = scene.shuffled().into_iter().filter_map(|member| match member {
        Member::Node(node) => Some(node),
        Member::Client(_) => None,
    });
    let ring = nodes.collect();
    let mut at_us = scene.when();
    let until_us = at_us + 5 * scene.new_leader_us();
    scene.push(at_us, until_us, LinkFault::Ring(ring));
    for _ in 0..scene.dice.between(1, 3) {
        at_us += scene.new_leader_us() / 2;
        let back_us = at_us + scene.new_leader_us();
        let fault = match scene.dice.below(3) {
            0 => Fault::Crash(Who::Leader),
            1 => Fault::Pause(Who::Leader),
            _ => LinkFault::Isolate(Who::Leader).into(),
        };
        scene.push(at_us, back_us, fault);
    }
}

/// What the others send to a node comes late, each message by its own span, some of it twice; then
/// they neither hear that node any more nor send it anything new. If it was the leader, it goes on
/// hearing from before, while another one leads.
pub(super) fn late_mail(scene: &mut Scene<'_>) {
    let election_us = scene.cast.election_us;
    let elections_us = |tenths: u32| election_us * u64::from(tenths) / 10_000 * 1000;
    let mut from = scene.shuffled();
    let to = vec![from.pop().expect("three nodes are needed")];
    from.sort_unstable();
    let path = Path::Between { from: from.clone(), to: to.clone() };
    let at_us = scene.when();
    let cut_us = at_us + elections_us(scene.dice.between(15, 50));
    let until_us = cut_us + scene.new_leader_us();
    let duplicate = f64::from(scene.dice.between(0, 40)) / 100.0;
    let delay_us = elections_us(scene.dice.between(8, 40));
    let late = LinkFault::Weather { path: path.clone(), drop: 0.0, duplicate, delay_us };
    scene.push(at_us, cut_us, late);
    // Unlike a cut, this spares what is under way.
    let silent = LinkFault::Weather { path, drop: 1.0, duplicate: 0.0, delay_us: 0 };
    scene.push(cut_us, until_us, silent);
    scene.push(cut_us, until_us, LinkFault::OneWay { from: to, to: from });
}

/// A leader is cut off with commands that few others have. On links that are slow by now another one is
/// elected, and is cut off before its first entry arrives; then one that has the commands may lead.
pub(super) fn displaced_proposal(scene: &mut Scene<'_>) {
    let election_us = scene.cast.election_us;
    let percent_us = |percent: u32| election_us * u64::from(percent) / 100_000 * 1000;
    let at_us = match scene.cast.marks.len() as u32 {
        0 => scene.when(),
        marks => scene.cast.marks[scene.dice.below(marks) as usize] + scene.dice.scaled_us(1, 300),
    };
    let again_us = at_us + percent_us(scene.dice.between(60, 200));
    let until_us = again_us + scene.new_leader_us();
    let lag = LinkFault::Lag { path: Path::All, delay_us: percent_us(scene.dice.between(10, 40)) };
    scene.push(at_us, again_us, lag);
    scene.push(at_us, again_us, LinkFault::Isolate(Who::Leader));
    scene.push(again_us, until_us, LinkFault::Isolate(Who::Leader));
}

/// Nodes in turn are stopped, and started again by the present release on the files of an earlier
/// one: all of them, or some.
pub(super) fn rolling_upgrade(scene: &mut Scene<'_>) {
    let mut at_us = scene.when();
    let gap_ms = scene.dice.scaled(5, 1000);
    let mut nodes = scene.shuffled();
    if scene.dice.percent(40) {
        nodes.truncate(scene.dice.between(1, nodes.len() as u32) as usize);
    }
    for node in nodes {
        let Member::Node(node) = node else { unreachable!("only nodes are shuffled") };
        let until_us = at_us + scene.dice.scaled_us(5, 300);
        let fault = Fault::Process(Who::Node(node), ProcessFault::OldFormat);
        scene.push(at_us, until_us, fault);
        at_us += scene.dice.time_us(1, gap_ms);
    }
}

/// A member loses its disk for ever, sometimes right after a partition. The operator replaces it:
/// see [`replacements`].
pub(super) fn wiped_member(scene: &mut Scene<'_>) {
    let node = Who::Node(scene.node());
    let at_us = scene.when();
    let wipe_us = at_us + scene.new_leader_us();
    if scene.dice.percent(30) {
        scene.push(at_us, wipe_us, LinkFault::Isolate(node));
    }
    scene.push(wipe_us, wipe_us + 1, Fault::Process(node, ProcessFault::Wipe));
}

/// The operator's answer to each wiped disk: a new member instead, sooner or later. `next` is the
/// first id that is free.
pub(super) fn replacements(seed: u64, faults: &[FaultRow], mut next: u64) -> Vec<OpRow> {
    let dice = &mut Dice::new(seed, Purpose::Replacement);
    let mut rows: Vec<OpRow> = Vec::new();
    for row in faults {
        let Fault::Process(Who::Node(old), ProcessFault::Wipe) = row.fault else { continue };
        let at_us = row.at_us + dice.scaled_us(10, 2000);
        let call = Call::from(Op::Replace { old, new: NodeId(next) });
        rows.push(OpRow { at_us, client: 0, call });
        next += 1;
    }
    rows
}
