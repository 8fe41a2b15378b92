//! Faults strike and end.

use stormkv::node::Role;
use stormkv::types::NodeId;

use super::{Event, World, endpoint};
use crate::disk::{Crash, FaultKind};
use crate::network::{Endpoint, Rule, Side};
use crate::plan::{DiskFault, Fault, Member, Who};

impl World<'_> {
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
        .filter(|id| self.slot(*id).is_some_and(|slot| !slot.retired))
    }

    pub(super) fn strike(&mut self, at: usize) {
        let plan = self.plan;
        let row = &plan.faults[at];
        self.trace.mix(9 ^ (at as u64) << 8);
        self.trace.line(self.now_ns, || format!("fault {at}: {}", row.fault));
        if self.healed_ns.is_some() {
            return;
        }
        let struck = match &row.fault {
            Fault::CrashAll | Fault::KillAll => {
                let ids = self.ids();
                let crash =
                    if row.fault == Fault::CrashAll { Crash::PowerLoss } else { Crash::Kill };
                for id in &ids {
                    self.crash(*id, crash, at as u32);
                }
                self.victims.insert(at, ids);
                true
            }
            fault => match fault.who() {
                Some(who) => match self.find(who) {
                    Some(id) => {
                        self.victims.insert(at, vec![id]);
                        self.strike_node(at, id)
                    }
                    None => false,
                },
                None => self.strike_links(at),
            },
        };
        if struck {
            *self.faults.entry(row.fault.kind()).or_default() += 1;
        }
    }

    fn strike_node(&mut self, at: usize, id: NodeId) -> bool {
        let plan = self.plan;
        let fault = at as u32;
        match &plan.faults[at].fault {
            Fault::Crash(_) => self.crash_if_up(id, Crash::PowerLoss, fault),
            Fault::Kill(_) => self.crash_if_up(id, Crash::Kill, fault),
            Fault::Isolate(_) => {
                self.network.cut(fault, Rule::Isolate(vec![Endpoint::Node(id.0)]));
                true
            }
            other => {
                let Some(slot) = self.slot(id).filter(|slot| slot.is_up()) else { return false };
                match other {
                    Fault::CrashAtOutput(_, count) => slot.fuse = Some((*count, fault)),
                    Fault::CrashAtDisk(_, count) => slot.disk_fuse = Some((*count, fault)),
                    Fault::Pause(_) => slot.paused = true,
                    Fault::FsyncFail(_) => slot.disk.fail_next(FaultKind::SyncFails, fault),
                    Fault::DiskError(_, kind) => {
                        let kind = match kind {
                            DiskFault::Write => FaultKind::WriteFails,
                            DiskFault::Read => FaultKind::ReadFails,
                            DiskFault::Space => FaultKind::NoSpace,
                        };
                        slot.disk.fail_next(kind, fault);
                    }
                    Fault::SlowDisk(_, factor) => slot.slowness = u64::from(*factor),
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

    fn strike_links(&mut self, at: usize) -> bool {
        let plan = self.plan;
        let ends = |members: &[Member]| members.iter().map(endpoint).collect::<Vec<_>>();
        let rule = match &plan.faults[at].fault {
            Fault::Partition(groups) => {
                Rule::Groups(groups.iter().map(|group| ends(group)).collect())
            }
            Fault::OneWay { from, to } => {
                Rule::OneWay { from: Side::Only(ends(from)), to: Side::Only(ends(to)) }
            }
            Fault::Bridge { node, left, right } => Rule::Bridge {
                bridge: Endpoint::Node(node.0),
                groups: vec![ends(left), ends(right)],
            },
            Fault::Clog { from, to } => Rule::Clog {
                from: Side::Only(vec![endpoint(from)]),
                to: Side::Only(vec![endpoint(to)]),
                until_ns: plan.faults[at].until_us.unwrap_or(plan.heal_at_us()) * 1000,
            },
            Fault::Weather { drop, duplicate, delay_us } => Rule::Weather {
                from: Side::Everybody,
                to: Side::Everybody,
                drop: *drop,
                duplicate: *duplicate,
                extra_mean_ns: delay_us * 1000,
            },
            other => unreachable!("{other} hits nodes"),
        };
        self.network.cut(at as u32, rule);
        true
    }

    pub(super) fn mend(&mut self, at: usize) {
        let fault = &self.plan.faults[at].fault;
        self.trace.mix(10 ^ (at as u64) << 8);
        self.trace.line(self.now_ns, || format!("fault {at} ends: {fault}"));
        self.network.mend(at as u32);
        for id in self.victims.remove(&at).unwrap_or_default() {
            let Some(slot) = self.slot(id) else { continue };
            let number = at as u32;
            slot.fuse = slot.fuse.filter(|(_, fault)| *fault != number);
            slot.disk_fuse = slot.disk_fuse.filter(|(_, fault)| *fault != number);
            slot.disk.disarm(number);
            if matches!(fault, Fault::SlowDisk(..)) {
                slot.slowness = 1;
            }
            if matches!(fault, Fault::Pause(_)) {
                self.resume(id);
            }
            let starts =
                !matches!(fault, Fault::SlowDisk(..) | Fault::Pause(_) | Fault::Isolate(_));
            if starts {
                self.start(id);
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

    /// All faults end: every node that belongs to the cluster runs, every link works.
    pub(super) fn heal(&mut self) {
        self.trace.mix(11);
        self.trace.line(self.now_ns, || "all is healed".to_owned());
        self.healed_ns = Some(self.now_ns);
        self.network.calm();
        for at in 0..self.plan.faults.len() {
            self.network.mend(at as u32);
        }
        for id in self.ids() {
            let Some(slot) = self.slot(id) else { continue };
            (slot.fuse, slot.disk_fuse, slot.slowness) = (None, None, 1);
            slot.disk.disarm_all();
            self.resume(id);
            self.start(id);
        }
        self.schedule.push(self.now_ns + 1, Event::Rest);
    }
}
