//! Silent damage: what it hits, whether the atlas allows it, and when it is over.
//!
//! Where it hits is drawn from a stream of the fault and the node, among all that is vouched for at
//! that moment, so that it can be told from a torn tail.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use stormkv::env::FileName;
use stormkv::error::Error;
use stormkv::types::{EntryKind, NodeId};
use stormkv::wal::{Vouched, vouched};

use super::super::life::START_AGAIN_NS;
use super::super::node::SimNode;
use super::super::observe::Observation;
use super::super::{Event, Simulation};
use crate::disk::{Crash, SECTOR, SimDisk};
use crate::plan::{DiskFault, DiskPart, Rot};
use crate::rng::{Purpose, Stream};
use crate::service::Service;

/// The last so many records of a log are as likely to be hit as all the others together.
const NEWEST: usize = 4;

/// Bytes of one file that a fault may change.
struct Target {
    file: FileName,
    bytes: Range<u64>,
    /// A record that says nothing but a term or a vote.
    promise: bool,
}

impl<S: Service> Simulation<'_, S> {
    /// Damages the disk of a node, if the atlas allows it. Returns whether anything was damaged.
    pub(super) fn strike_silently(&mut self, id: NodeId, fault: DiskFault, at: usize) -> bool {
        let kind = self.plan.faults[at].fault.kind();
        let mut draws = self.kernel.stream(Purpose::DiskRot, [id.0, at as u64]);
        let Some(slot) = self.cluster.get_mut(id) else { return false };
        let targets = targets(&slot.disk, fault.part());
        let Some(target) = choose(&targets, &mut draws) else {
            self.count("damage-found-nothing");
            return false;
        };
        let (file, bytes, promise) = (target.file, target.bytes.clone(), target.promise);
        let Some(within) = self.may_damage(id) else { return false };
        let slot = self.cluster.get_mut(id).expect("just used");
        let hit = match fault {
            DiskFault::Rot(_, rot) => slot.rot(&targets, file, bytes, rot, &mut draws),
            DiskFault::Misdirect(_) => slot.misdirect(&targets, file, bytes, &mut draws),
            DiskFault::StaleRead(_) => slot.read_stale(&targets, file, bytes, at as u32),
            other => unreachable!("{other:?} is not silent"),
        };
        if !hit {
            return false;
        }
        if promise {
            self.reach("damage-in-hard-state-record");
        }
        if self.repair_goes_on() {
            self.reach("second-damage-during-repair");
        }
        self.observers.see(&Observation::Damaged { node: id, file, fault: kind });
        self.atlas.damaged(id, kind, within);
        self.safety.damaged(id);
        true
    }

    /// Whether a member has noticed damage and is not whole yet. Who was removed needs nobody any
    /// more, even if it never learns of that.
    pub(in crate::simulation) fn repair_goes_on(&self) -> bool {
        self.atlas.is_repairing(|id| self.cluster.membership().has_left(id))
    }

    /// A stale read waits for the next start, and strikes only then; see the fault.
    pub(in crate::simulation) fn strike_at_start(&mut self, id: NodeId) {
        let Some((fault, at)) =
            self.cluster.get_mut(id).and_then(|slot| slot.faults.take_stale_read())
        else {
            return;
        };
        if self.healed_ns.is_none() && self.strike_silently(id, fault, at) {
            self.count("stale-read");
        }
    }

    /// Whether the atlas allows damage to `id`: within what a quorum can repair, or, if the plan
    /// says so, beyond it. `None` if not.
    fn may_damage(&mut self, id: NodeId) -> Option<bool> {
        let slots = || self.cluster.iter();
        let memberships = slots().filter_map(SimNode::membership);
        let gone = |peer: NodeId| slots().any(|slot| slot.id == peer && slot.is_gone());
        let within = self.atlas.allows(id, memberships, gone) && !self.is_reconfiguring();
        if within || self.plan.end.beyond_quorum {
            return Some(within);
        }
        self.count("forbidden-by-atlas");
        None
    }

    /// Whether a change of the membership is on its way: the operator waits for one, or somebody
    /// has one in its log that it has not applied.
    fn is_reconfiguring(&self) -> bool {
        self.has_change_open() || self.cluster.iter().any(|slot| slot.is_reconfiguring())
    }

    /// Looks whether the damage of a member is noticed, or over. To be called after each event.
    pub(in crate::simulation) fn watch_damage(&mut self, id: NodeId) {
        let Some(mark) = self.atlas.mark(id) else { return };
        let slot = self.cluster.get(id).expect("it was damaged");
        let Some(driver) = &slot.driver else { return };
        if driver.node().damage().is_some() || (mark.cached && driver.is_writing()) {
            return;
        }
        if !mark.fresh || !slot.disk.is_damaged() {
            self.end_damage(id);
        } else if std::mem::take(&mut mark.noticed) {
            // Whole again, but there is more that it has not looked at.
            let in_snapshot = mark.in_snapshot;
            self.reach_refilled(in_snapshot);
        }
    }

    /// Whether a node says that it is damaged.
    pub(in crate::simulation) fn is_repairing(&self, id: NodeId) -> bool {
        let slot = self.cluster.get(id);
        let driver = slot.and_then(|slot| slot.driver.as_ref());
        driver.is_some_and(|driver| driver.node().damage().is_some())
    }

    /// A member has just read its disk.
    pub(in crate::simulation) fn note_recovery(&mut self, id: NodeId) {
        let Some(mark) = self.atlas.mark(id) else { return };
        let slot = self.cluster.get(id).expect("it has started");
        let Some(driver) = &slot.driver else { return };
        mark.fresh = false;
        // What it has regained may only be cached: `watch_damage` waits until it is durable.
        mark.cached = driver.node().damage().is_none();
        let Some(damage) = driver.node().damage() else { return };
        mark.noticed = true;
        mark.in_snapshot = matches!(damage.file, FileName::Snapshot(..));
        let kinds =
            [("misdirect", "misdirected-write-noticed"), ("stale-read", "stale-read-noticed")];
        let noticed: Vec<_> = kinds.into_iter().filter(|(k, _)| mark.kinds.contains(k)).collect();
        for (_, waypoint) in noticed {
            self.reach(waypoint);
        }
    }

    /// A damaged member that nobody has repaired in time stops, and is started again: who could
    /// repair it may be back by then.
    pub(in crate::simulation) fn gives_up(&mut self, id: NodeId, error: &Error) {
        self.reach("damaged-member-gave-up");
        self.observers.see(&Observation::GaveUp(id, error));
        if let Some(mark) = self.atlas.mark(id) {
            mark.stopped = true;
        }
        self.take_down(id, Crash::Kill, u32::MAX, false);
        self.kernel.after(START_AGAIN_NS, Event::start(id));
    }

    fn end_damage(&mut self, id: NodeId) {
        let Some(mark) = self.atlas.whole(id) else { return };
        if mark.noticed {
            self.reach_refilled(mark.in_snapshot);
        }
        self.observers.see(&Observation::Whole(id));
    }

    fn reach_refilled(&mut self, in_snapshot: bool) {
        self.reach(match in_snapshot {
            true => "corrupt-snapshot-refilled",
            false => "corrupt-entry-refilled",
        });
    }

    pub(in crate::simulation) fn count(&mut self, what: &'static str) {
        self.observers.coverage.count(what);
    }
}

impl<S: Service> SimNode<S> {
    /// Returns whether this node has a change of the membership in its log that it has not applied, or knows
    /// of one that waits for its new voters. Of a node that is down, the last known answer counts.
    fn is_reconfiguring(&self) -> bool {
        let Some(driver) = &self.driver else { return self.last_seen.was_reconfiguring };
        let node = driver.node();
        let status = node.status();
        node.membership().is_joint()
            || !node.membership().promises().is_empty()
            || (status.applied.index + 1..=status.last.index).any(|index| {
                node.entry(index).is_some_and(|entry| entry.kind == EntryKind::Membership)
            })
    }

    /// Notes what it knows of the membership, because it goes down.
    pub(in crate::simulation) fn remember_membership(&mut self) {
        self.last_seen.was_reconfiguring = self.is_reconfiguring();
        if let Some(driver) = &self.driver {
            self.last_seen.membership = Some(driver.node().membership().clone());
        }
    }

    fn rot(
        &mut self,
        targets: &[Target],
        file: FileName,
        bytes: Range<u64>,
        rot: Rot,
        draws: &mut Stream,
    ) -> bool {
        let content = content(&self.disk, file);
        let Rot::Bits(bits) = rot else {
            let at = bytes.start + draws.below(bytes.end - bytes.start);
            let mut changed = false;
            for hit in clip(targets, file, sector(at)) {
                let len = (hit.end - hit.start) as usize;
                let garbage = |_| draws.next_u64() as u8;
                let new = match rot {
                    Rot::Zeros => vec![0; len],
                    _ => (0..len).map(garbage).collect(),
                };
                changed |= self.disk.decay(file, hit.start, &new);
            }
            return changed;
        };
        let mut damaged = content[bytes.start as usize..bytes.end as usize].to_vec();
        let first = draws.below(damaged.len() as u64 * 8);
        for bit in (first..damaged.len() as u64 * 8).take(bits as usize) {
            damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        self.disk.decay(file, bytes.start, &damaged)
    }

    /// A record has never reached its place, which reads as zeros, as before it was written; it
    /// stands where another one should be.
    fn misdirect(
        &mut self,
        targets: &[Target],
        file: FileName,
        bytes: Range<u64>,
        draws: &mut Stream,
    ) -> bool {
        let record = match file {
            FileName::Segment(_) => Some((file, bytes.clone())),
            // The snapshot is the place that was overwritten.
            _ => choose(&self::targets(&self.disk, DiskPart::Log), draws)
                .map(|target| (target.file, target.bytes.clone())),
        };
        let Some((source, written)) = record else { return false };
        let moved =
            content(&self.disk, source)[written.start as usize..written.end as usize].to_vec();
        let place = match file {
            FileName::Segment(_) => choose(targets, draws).map(|t| (t.file, t.bytes.start)),
            _ => Some((file, bytes.start + draws.below(bytes.end - bytes.start))),
        };
        let Some((there, offset)) = place else { return false };
        let mut changed = self.disk.decay(source, written.start, &vec![0; moved.len()]);
        let behind = offset + moved.len() as u64;
        for hit in clip(targets, there, offset..behind) {
            let part = &moved[(hit.start - offset) as usize..(hit.end - offset) as usize];
            changed |= (there, offset) != (source, written.start)
                && self.disk.decay(there, hit.start, part);
        }
        changed
    }

    fn read_stale(
        &mut self,
        targets: &[Target],
        file: FileName,
        bytes: Range<u64>,
        fault: u32,
    ) -> bool {
        // The sectors as they were before this was written: all behind it was written later.
        let until = sector(bytes.start).end.max(bytes.end);
        for hit in clip(targets, file, bytes.start..until) {
            self.disk.stale_next(file, hit, fault);
        }
        true
    }
}

/// What of a disk may be damaged.
fn targets(disk: &SimDisk, part: DiskPart) -> Vec<Target> {
    if part == DiskPart::Snapshot {
        // The newest that is complete; an older one may be on its way out.
        let newest =
            disk.durable().filter(|(name, _)| matches!(name, FileName::Snapshot(..))).last();
        return newest
            .map(|(file, content)| (file, 0..content.len() as u64))
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(file, bytes)| Target { file, bytes, promise: false })
            .into_iter()
            .collect();
    }
    let segments: BTreeMap<u64, Bytes> = disk
        .durable()
        .filter_map(|(name, content)| match name {
            FileName::Segment(number) => Some((number, Bytes::copy_from_slice(content))),
            FileName::Snapshot(..) | FileName::Partial(..) => None,
        })
        .collect();
    let target = |Vouched { segment, bytes, record }| Target {
        file: FileName::Segment(segment),
        promise: bytes.start > 0 && record.entries.is_empty() && record.snapshot.is_none(),
        bytes,
    };
    vouched(&segments).into_iter().map(target).collect()
}

/// One of them, often one of the newest.
fn choose<'t>(targets: &'t [Target], draws: &mut Stream) -> Option<&'t Target> {
    let newest = targets.len().saturating_sub(NEWEST);
    let from = if draws.chance(0.5) { newest } else { 0 };
    let among = &targets[from..];
    if among.is_empty() {
        return None;
    }
    among.get(draws.below(among.len() as u64) as usize)
}

/// The parts of these bytes that may be damaged: the rest is not vouched for, or vouches.
fn clip(targets: &[Target], file: FileName, bytes: Range<u64>) -> Vec<Range<u64>> {
    let here = targets.iter().filter(|target| target.file == file);
    let overlap = here.map(|t| t.bytes.start.max(bytes.start)..t.bytes.end.min(bytes.end));
    overlap.filter(|overlap| overlap.start < overlap.end).collect()
}

fn sector(at: u64) -> Range<u64> {
    let size = SECTOR as u64;
    let start = at / size * size;
    start..start + size
}

fn content(disk: &SimDisk, file: FileName) -> Vec<u8> {
    let mut files = disk.durable();
    files.find(|(name, _)| *name == file).map(|(_, bytes)| bytes.to_vec()).unwrap_or_default()
}
