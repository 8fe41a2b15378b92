//! Faults strike and end.
//!
//! `link.rs` has what happens to links, `disk.rs` to disks, `damage.rs` to disks in silence,
//! `clock.rs` to clocks, `process.rs` to processes; that a node crashes or stands still is here.

mod clock;
mod damage;
mod disk;
mod link;
mod process;

use std::collections::BTreeSet;

use stormkv::node::Role;
use stormkv::types::NodeId;

use super::Simulation;
use super::node::SimNode;
use super::stall::list;
use crate::clock::TRUE_RATE;
use crate::disk::Crash;
use crate::outcome::Skipped;
use crate::plan::{DiskFault, Fault, Who};
use crate::service::Service;
use crate::view::recording::MarkKind;

/// Why a fault that waited for its moment is skipped in the end.
const NO_MOMENT: &str = "its moment did not come";

impl<S: Service> Simulation<'_, S> {
    pub(super) fn leads(&self, id: NodeId) -> bool {
        self.roles.get(id.0 as usize).is_some_and(|(role, _)| *role == Role::Leader)
    }

    /// Whoever leads in the newest term, right now.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leaders = self.roles.iter().enumerate().filter(|(_, (role, _))| *role == Role::Leader);
        leaders.max_by_key(|(_, (_, term))| *term).map(|(id, _)| NodeId(id as u64))
    }

    fn find(&mut self, who: Who) -> Option<NodeId> {
        match who {
            Who::Node(id) => Some(id),
            Who::Same => self.last_leader_hit,
            Who::Leader => {
                let leader = self.leader();
                if leader.is_some() {
                    self.last_leader_hit = leader;
                }
                leader
            }
        }
        .filter(|id| self.slot(*id).is_some_and(|slot| !slot.is_gone()))
    }

    pub(super) fn strike(&mut self, at: usize) {
        let row = &self.plan.faults[at];
        self.trace.mix(9 ^ (at as u64) << 8);
        self.trace.line(self.now_ns, || format!("fault {at}: {}", row.fault));
        if self.healed_ns.is_some() {
            return self.skip(at, "all faults had ended");
        }
        self.availability.disturb();
        match self.inject(at) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => return self.skip(at, why),
        }
        let victim = row.fault.who().and(self.victims.get(&at)).and_then(|ids| ids.first());
        self.trace.strikes(at, self.now_ns, || match (row.fault.who(), victim) {
            (Some(Who::Leader | Who::Same), Some(id)) => format!("{} ({id})", row.fault),
            _ => row.fault.to_string(),
        });
        let victims = self.victims.get(&at).map_or(&[][..], Vec::as_slice);
        let (kind, what) = (row.fault.kind(), &row.fault);
        self.trace.film(|recorder| recorder.strikes(at, kind, &what.to_string(), victims));
        debug_assert!(Fault::kinds().any(|kind| kind == row.fault.kind()), "it is not listed");
        self.count(row.fault.kind());
    }

    /// Begins a fault. True if it hit something or waits for its moment, false if it is counted when
    /// it hits something.
    ///
    /// # Errors
    /// The reason why it hits nothing.
    fn inject(&mut self, at: usize) -> Result<bool, &'static str> {
        let plan = self.plan;
        let nothing = "there is nothing to hit";
        let who = match &plan.faults[at].fault {
            Fault::CrashAll | Fault::KillAll => {
                let power_loss = plan.faults[at].fault == Fault::CrashAll;
                let crash = if power_loss { Crash::PowerLoss } else { Crash::Kill };
                let ids = self.ids();
                for id in &ids {
                    self.crash(*id, crash, at as u32);
                }
                self.victims.insert(at, ids);
                return Ok(true);
            }
            fault => match (fault.who(), fault) {
                (Some(who), _) => who,
                (None, Fault::Link(fault)) => {
                    return self.strike_link(at, fault, None).then_some(true).ok_or(nothing);
                }
                (None, fault) => unreachable!("{fault} hits one node"),
            },
        };
        let id = self.find(who).ok_or(match who {
            Who::Leader => "there is no leader",
            Who::Same => "no `leader` before it has hit a node that is still there",
            Who::Node(_) => "its node is not part of the cluster",
        })?;
        let was_up = self.slot(id).is_some_and(|slot| slot.is_up());
        self.victims.insert(at, vec![id]);
        match (self.strike_node(at, id), &plan.faults[at].fault) {
            (true, _) => Ok(true),
            (false, Fault::Disk(_, DiskFault::StaleRead(_))) => Ok(false),
            (false, _) if was_up => Err(nothing),
            (false, _) => Err("its node is not running"),
        }
    }

    /// A fault has hit nothing.
    fn skip(&mut self, fault: usize, why: &'static str) {
        self.trace.line(self.now_ns, || format!("fault {fault} is skipped: {why}"));
        self.skipped.push(Skipped { fault, at_ns: self.now_ns, why });
    }

    /// Faults that wait for their moment on a node are given up.
    pub(super) fn give_up(&mut self, armed: impl IntoIterator<Item = u32>, why: &'static str) {
        for fault in armed {
            let fault = fault as usize;
            // A crash loop arms itself again with each start.
            if !matches!(self.plan.faults[fault].fault, Fault::Process(..)) {
                self.skip(fault, why);
            }
        }
    }

    fn strike_node(&mut self, at: usize, id: NodeId) -> bool {
        let plan = self.plan;
        let fault = at as u32;
        self.trace.note(self.now_ns, id, || format!("fault {at}: {}", plan.faults[at].fault));
        match &plan.faults[at].fault {
            Fault::Crash(_) => self.crash_if_up(id, Crash::PowerLoss, fault),
            Fault::Kill(_) => self.crash_if_up(id, Crash::Kill, fault),
            Fault::Link(fault) => self.strike_link(at, fault, Some(id)),
            Fault::Clock(_, kind) => self.strike_clock(id, *kind, fault),
            Fault::Process(_, kind) => self.strike_process(id, *kind, fault),
            Fault::Disk(_, fault) => self.strike_disk(id, *fault, at),
            other => {
                let Some(slot) = self.slot(id).filter(|slot| slot.is_up()) else { return false };
                match other {
                    Fault::CrashAtOutput(_, count) => slot.fuse = Some((*count, fault)),
                    Fault::CrashAtDisk(_, count) => slot.disk_fuse = Some((*count, fault)),
                    Fault::Pause(_) => slot.paused = true,
                    other => unreachable!("{other} does not hit one node"),
                }
                true
            }
        }
    }

    fn crash_if_up(&mut self, id: NodeId, crash: Crash, fault: u32) -> bool {
        let up = self.slot(id).is_some_and(|slot| slot.is_up());
        self.crash(id, crash, fault);
        up
    }

    pub(super) fn mend(&mut self, at: usize) {
        let fault = &self.plan.faults[at].fault;
        self.trace.mix(10 ^ (at as u64) << 8);
        self.trace.line(self.now_ns, || format!("fault {at} ends: {fault}"));
        if self.healed_ns.is_some() {
            return;
        }
        self.availability.disturb();
        self.trace.mends(Some(at), self.now_ns);
        self.trace.film(|recorder| recorder.mends(Some(at)));
        self.network.mend(at as u32);
        for id in self.victims.remove(&at).unwrap_or_default() {
            let number = at as u32;
            let Some(slot) = self.slot(id) else { continue };
            let armed = slot.armed().into_iter().find(|armed| *armed == number);
            self.give_up(armed, NO_MOMENT);
            let slot = self.slot(id).expect("it is there");
            slot.fuse = slot.fuse.filter(|(_, fault)| *fault != number);
            slot.disk_fuse = slot.disk_fuse.filter(|(_, fault)| *fault != number);
            slot.name_fuse = slot.name_fuse.filter(|(_, fault)| *fault != number);
            slot.disk.disarm(number);
            match fault {
                Fault::Disk(_, fault) => self.mend_disk(id, *fault, at),
                Fault::Pause(_) => self.resume(id),
                Fault::Clock(_, fault) => self.mend_clock(id, *fault),
                Fault::Process(_, fault) => self.mend_process(id, *fault, number),
                Fault::Link(_) => {}
                _ => self.start(id),
            }
        }
    }

    /// A paused node goes on: what happened meanwhile happens now.
    pub(super) fn resume(&mut self, id: NodeId) {
        let Some(slot) = self.slot(id) else { return };
        slot.paused = false;
        for event in std::mem::take(&mut slot.deferred) {
            self.schedule.push(self.now_ns, event);
        }
    }

    /// All faults end: every node of the core that belongs to the cluster runs, every link between
    /// them works. The others are lost.
    pub(super) fn heal(&mut self) {
        self.trace.mix(11);
        self.availability.disturb();
        let now_ns = self.now_ns;
        self.core = self.choose_core();
        let core = match &self.core {
            None => "all is healed".to_owned(),
            Some(core) => format!("the core {} is healed", list(core.clone())),
        };
        self.trace.line(now_ns, || core.clone());
        // What waits on nodes that were lost before belongs to another plan.
        let present = self.slots.iter().flatten().filter(|slot| slot.lost.is_none());
        let armed: BTreeSet<u32> = present.flat_map(SimNode::armed).collect();
        self.give_up(armed, NO_MOMENT);
        let stays = |slot: &&SimNode<S>| !slot.retired && !self.is_core(slot.id);
        let outside: Vec<NodeId> =
            self.slots.iter().flatten().filter(stays).map(|slot| slot.id).collect();
        let present: Vec<_> = outside.iter().map(|id| self.present_loss(*id)).collect();
        self.begin_recovery();
        self.trace.mends(None, now_ns);
        self.trace.film(|recorder| {
            recorder.mends(None);
            recorder.mark(None, MarkKind::Healed, &core);
        });
        self.network.calm();
        for at in 0..self.plan.faults.len() {
            self.network.mend(at as u32);
        }
        for (id, present) in outside.into_iter().zip(present) {
            self.lose(id, present);
        }
        for slot in self.slots.iter_mut().flatten() {
            slot.disk.set_size(None);
        }
        for id in self.ids() {
            let Some(slot) = self.slot(id).filter(|slot| slot.lost.is_none()) else { continue };
            (slot.fuse, slot.disk_fuse, slot.slowness) = (None, None, 1);
            (slot.crash_loop, slot.jitter) = (None, None);
            (slot.name_fuse, slot.stale) = (None, None);
            slot.disk.disarm_all();
            slot.clock.set_rate(now_ns, TRUE_RATE);
            self.set_timer(id);
            self.speed_up(id);
            self.end_stall(id);
            self.resume(id);
            self.start(id);
        }
    }
}
