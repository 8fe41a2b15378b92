//! Faults strike and end.
//!
//! `link.rs` has what happens to links, `disk.rs` to disks, `damage.rs` to disks in silence,
//! `clock.rs` to clocks, `process.rs` to processes; `custom.rs` has the faults of a service. That a node crashes or stands still is here.

mod clock;
mod custom;
mod damage;
mod disk;
mod link;
mod process;

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use super::Simulation;
use super::node::SimNode;
use super::observe::Observation;
use super::stall::list;
use crate::clock::TRUE_RATE;
use crate::disk::Crash;
use crate::outcome::Skipped;
use crate::plan::{DiskFault, Fault, Who};
use crate::service::Service;

/// What a fault has hit, for its end.
#[derive(Default)]
pub(super) struct Victims {
    nodes: Vec<NodeId>,
    /// The parts of a fault of the service, each with its nodes, if it has begun.
    parts: Option<Vec<(Fault, Vec<NodeId>)>>,
}

impl Victims {
    pub(super) fn include(&self, id: NodeId) -> bool {
        self.nodes.contains(&id)
    }
}

/// Why a fault that waited for its moment is skipped in the end.
const NO_MOMENT: &str = "its moment did not come";

impl<S: Service> Simulation<'_, S> {
    fn find(&mut self, who: Who) -> Option<NodeId> {
        match who {
            Who::Node(id) => Some(id),
            Who::Same => self.last_leader_hit,
            Who::Leader => {
                let leader = self.cluster.leader();
                if leader.is_some() {
                    self.last_leader_hit = leader;
                }
                leader
            }
        }
        .filter(|id| self.cluster.get_mut(*id).is_some_and(|slot| !slot.is_gone()))
    }

    pub(super) fn strike(&mut self, at: usize) {
        let row = &self.plan.faults[at];
        self.observers.see(&Observation::FaultDue(at, &row.fault));
        if self.healed_ns.is_some() {
            return self.skip(at, "all faults had ended");
        }
        self.availability.disturb();
        let mut victims = Victims::default();
        let injected = self.inject(at, &row.fault, &mut victims);
        if injected == Ok(true) {
            self.observers.see(&Observation::FaultBegun(at, &row.fault, &victims.nodes));
        }
        self.victims.insert(at, victims);
        match injected {
            Ok(true) => {
                let kind = row.fault.kind();
                let custom = S::FAULTS.iter().map(|fault| fault.name());
                debug_assert!(
                    Fault::kinds().chain(custom).any(|known| known == kind),
                    "not listed"
                );
                self.count(kind);
            }
            Ok(false) => {}
            Err(why) => self.skip(at, why),
        }
    }

    /// Begins a fault, and notes what it hits. True if it hit something or waits for its moment, false if it
    /// is counted when it hits something.
    ///
    /// # Errors
    /// The reason why it hits nothing.
    fn inject(
        &mut self,
        at: usize,
        fault: &Fault,
        victims: &mut Victims,
    ) -> Result<bool, &'static str> {
        let nothing = "there is nothing to hit";
        let who = match fault {
            Fault::CrashAll | Fault::KillAll => {
                let power_loss = *fault == Fault::CrashAll;
                let crash = if power_loss { Crash::PowerLoss } else { Crash::Kill };
                victims.nodes = self.cluster.ids();
                for id in &victims.nodes {
                    self.crash(*id, crash, at as u32);
                }
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
        let was_up = self.cluster.is_up(id);
        victims.nodes.push(id);
        if let Fault::Service(_, custom) = fault {
            return self.strike_custom(at, custom, id, victims).then_some(true).ok_or(nothing);
        }
        match (self.strike_node(at, fault, id), fault) {
            (true, _) => Ok(true),
            (false, Fault::Disk(_, DiskFault::StaleRead(_))) => Ok(false),
            (false, _) if was_up => Err(nothing),
            (false, _) => Err("its node is not running"),
        }
    }

    /// A fault has hit nothing.
    fn skip(&mut self, fault: usize, why: &'static str) {
        self.observers.see(&Observation::FaultSkipped(fault, why));
        self.observers.coverage.skip(Skipped { fault, at_ns: self.kernel.now_ns(), why });
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

    fn strike_node(&mut self, at: usize, what: &Fault, id: NodeId) -> bool {
        let fault = at as u32;
        self.observers.see(&Observation::FaultHits(at, what, id));
        match what {
            Fault::Crash(_) => self.crash_if_up(id, Crash::PowerLoss, fault),
            Fault::Kill(_) => self.crash_if_up(id, Crash::Kill, fault),
            Fault::Link(fault) => self.strike_link(at, fault, Some(id)),
            Fault::Clock(_, kind) => {
                let Some(slot) = self.cluster.get_mut(id) else { return false };
                clock::inject(*kind, fault, slot, &self.kernel);
                self.set_timer(id);
                true
            }
            Fault::Process(_, kind) => self.strike_process(id, *kind, fault),
            Fault::Disk(_, fault) => self.strike_disk(id, *fault, at),
            other => {
                let Some(slot) = self.cluster.get_mut(id).filter(|slot| slot.is_up()) else {
                    return false;
                };
                match other {
                    Fault::CrashAtOutput(_, count) => {
                        slot.faults.arm_crash_at_effect(*count, fault)
                    }
                    Fault::CrashAtDisk(_, count) => slot.faults.arm_crash_at_disk_op(*count, fault),
                    Fault::Pause(_) => slot.faults.pause(),
                    other => unreachable!("{other} does not hit one node"),
                }
                true
            }
        }
    }

    fn crash_if_up(&mut self, id: NodeId, crash: Crash, fault: u32) -> bool {
        let up = self.cluster.is_up(id);
        self.crash(id, crash, fault);
        up
    }

    pub(super) fn mend(&mut self, at: usize) {
        let fault = &self.plan.faults[at].fault;
        self.observers.see(&Observation::FaultOver(at, fault));
        if self.healed_ns.is_some() {
            return;
        }
        self.availability.disturb();
        self.observers.see(&Observation::FaultCleared(at));
        self.network.mend(at as u32);
        let Victims { nodes, parts } = self.victims.remove(&at).unwrap_or_default();
        if let (Fault::Service(_, custom), Some(parts)) = (fault, parts) {
            return self.mend_custom(at, custom, nodes[0], parts);
        }
        for id in nodes {
            self.mend_node(at, fault, id);
        }
    }

    fn mend_node(&mut self, at: usize, fault: &Fault, id: NodeId) {
        let number = at as u32;
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let armed = slot.armed().into_iter().find(|armed| *armed == number);
        self.give_up(armed, NO_MOMENT);
        let slot = self.cluster.get_mut(id).expect("it is there");
        slot.faults.disarm(number);
        slot.disk.disarm(number);
        match fault {
            Fault::Disk(_, fault) => self.mend_disk(id, *fault, at),
            Fault::Pause(_) => self.resume(id),
            Fault::Clock(_, fault) => {
                clock::clear(*fault, slot, self.kernel.now_ns());
                self.set_timer(id);
            }
            Fault::Process(_, fault) => self.mend_process(id, *fault, number),
            Fault::Link(_) | Fault::Service(..) => {}
            _ => self.start(id),
        }
    }

    /// A paused node goes on: what happened meanwhile happens now.
    pub(super) fn resume(&mut self, id: NodeId) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        for event in slot.faults.resume() {
            self.kernel.after(0, event);
        }
    }

    /// All faults end: every node of the core that belongs to the cluster runs, every link between
    /// them works. The others are lost.
    pub(super) fn heal(&mut self) {
        self.availability.disturb();
        let now_ns = self.kernel.now_ns();
        self.core = self.choose_core();
        let core = match &self.core {
            None => "all is healed".to_owned(),
            Some(core) => format!("the core {} is healed", list(core.clone())),
        };
        self.observers.see(&Observation::Heals(&core));
        // What waits on nodes that were lost before belongs to another plan.
        let present = self.cluster.iter().filter(|slot| slot.faults.lost().is_none());
        let armed: BTreeSet<u32> = present.flat_map(SimNode::armed).collect();
        self.give_up(armed, NO_MOMENT);
        let stays = |slot: &&SimNode<S>| !slot.faults.is_retired() && !self.is_core(slot.id);
        let outside: Vec<NodeId> = self.cluster.iter().filter(stays).map(|slot| slot.id).collect();
        let present: Vec<_> = outside.iter().map(|id| self.present_loss(*id)).collect();
        self.begin_recovery();
        self.observers.see(&Observation::Healed(&core));
        self.network.calm();
        for at in 0..self.plan.faults.len() {
            self.network.mend(at as u32);
        }
        for (id, present) in outside.into_iter().zip(present) {
            self.lose(id, present);
        }
        for slot in self.cluster.iter_mut() {
            slot.disk.set_size(None);
        }
        for id in self.cluster.ids() {
            let Some(slot) = self.cluster.get_mut(id).filter(|slot| slot.faults.lost().is_none())
            else {
                continue;
            };
            slot.faults.heal();
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
