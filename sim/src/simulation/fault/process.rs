//! Faults of a node's process: slow ones, crash loops, lost disks, upgrades.

use stormkv::node::Membership;
use stormkv::types::NodeId;

use super::super::node::SimNode;
use super::super::observe::Observation;
use super::super::{Event, EventKind, Simulation};
use crate::disk::{Crash, older};
use crate::plan::{Again, Op, ProcessFault};
use crate::service::Service;

/// How soon a node in a crash loop is started again.
const RESTART_NS: u64 = 10_000_000;

impl<S: Service> Simulation<'_, S> {
    /// Begins the fault with this number. Says whether there was something to hit.
    pub(super) fn strike_process(&mut self, id: NodeId, fault: ProcessFault, number: u32) -> bool {
        let Some(slot) = self.cluster.get_mut(id) else { return false };
        let up = slot.is_up();
        match fault {
            ProcessFault::Slow(us) => self.slow_down(id, us * 1000, 0),
            ProcessFault::SlowApply(us) => self.slow_down(id, 0, us * 1000),
            ProcessFault::CrashLoop(again) => {
                slot.faults.enter_crash_loop(again, number);
                self.crash(id, Crash::PowerLoss, number);
                return up;
            }
            ProcessFault::Wipe => return self.wipe(id, number),
            ProcessFault::OldFormat => {
                self.crash(id, Crash::Kill, number);
                self.age_files(id);
            }
        }
        true
    }

    /// Ends it.
    pub(super) fn mend_process(&mut self, id: NodeId, fault: ProcessFault, number: u32) {
        match fault {
            ProcessFault::Slow(_) | ProcessFault::SlowApply(_) => self.speed_up(id),
            ProcessFault::CrashLoop(_) => {
                let Some(slot) = self.cluster.get_mut(id) else { return };
                slot.faults.leave_crash_loop(number);
                self.start(id);
            }
            ProcessFault::OldFormat => self.start(id),
            ProcessFault::Wipe => {}
        }
    }

    // ---- crash loops ----

    /// A node has gone down: one in a crash loop is started again soon.
    pub(in crate::simulation) fn start_in_loop(&mut self, id: NodeId) {
        if self.cluster.get(id).is_some_and(|slot| slot.faults.crash_loop().is_some()) {
            self.kernel.after(RESTART_NS, Event::start(id));
        }
    }

    /// A node has been started: one in a crash loop does not live for long.
    pub(in crate::simulation) fn crash_in_loop(&mut self, id: NodeId) {
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id) else { return };
        match slot.faults.crash_loop() {
            Some((Again::After(us), _)) => {
                let event = Event::incarnation(id, slot.incarnation, EventKind::CrashAgain);
                self.kernel.at(now_ns + us * 1000, event);
            }
            Some((Again::AtDisk(count), fault)) => slot.faults.arm_crash_at_disk_op(count, fault),
            None => return,
        }
        self.reach("started-in-a-crash-loop");
    }

    pub(in crate::simulation) fn crash_again(&mut self, id: NodeId) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        if let Some((_, fault)) = slot.faults.crash_loop() {
            self.crash(id, Crash::PowerLoss, fault);
        }
    }

    // ---- lost disks ----

    /// Takes a node and its disk away for ever, if the others can do without it. A wiped member
    /// never starts again: in production its peers know it by its old data directory and refuse
    /// the new one, see `tcp::identity`.
    fn wipe(&mut self, id: NodeId, number: u32) -> bool {
        if !self.may_lose(id) {
            self.observers.see(&Observation::CannotBeSpared(id));
            return false;
        }
        self.crash(id, Crash::PowerLoss, number);
        let slot = self.cluster.get_mut(id).expect("it is a member");
        slot.faults.wipe();
        slot.disk.wipe();
        self.atlas.whole(id);
        if self.plan.bug.as_deref() == Some("wiped-disk-rejoins") {
            self.begin_anew(id);
            self.kernel.after(RESTART_NS, Event::start(id));
        }
        true
    }

    /// A node that should be gone for ever may start again, with an empty disk. No operator and no
    /// host of ours would let it; two of the bugs that can be planted do.
    pub(in crate::simulation) fn begin_anew(&mut self, id: NodeId) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        if slot.is_gone() && slot.faults.lost().is_none() {
            slot.faults.revive();
            slot.disk.wipe();
        }
    }

    /// Whether the members whose disks are intact are a quorum without this one: of every
    /// membership that any node goes by, or that may come of a change under way.
    pub(in crate::simulation) fn may_lose(&self, id: NodeId) -> bool {
        if self.has_change_open() {
            return false;
        }
        let mut is_member = false;
        for membership in self.memberships() {
            is_member |= membership.contains(id);
            let intact = |peer| peer != id && self.is_intact(peer);
            let changes = membership.is_joint() || !membership.promises().is_empty();
            if changes || !membership.is_quorum(intact) {
                return false;
            }
        }
        is_member
    }

    pub(in crate::simulation) fn is_wiped(&self, id: NodeId) -> bool {
        let slot = self.cluster.get(id);
        slot.is_some_and(|slot| slot.faults.is_wiped())
    }

    /// Every membership that a node goes by, or will when it is started again.
    fn memberships(&self) -> impl Iterator<Item = &Membership> {
        let slots = self.cluster.iter().filter(|slot| !slot.is_gone());
        slots.filter_map(SimNode::membership).filter(|membership| !membership.voters().is_empty())
    }

    /// The operator counts the disks: as long as a wiped member has not been replaced or removed,
    /// nothing else about the membership is changed, or what is left might not be a quorum. It also
    /// knows whom it has added.
    pub(in crate::simulation) fn is_prudent(&self, op: &Op) -> bool {
        match op {
            Op::Remove(id) | Op::Replace { old: id, .. } if self.is_wiped(*id) => true,
            Op::Transfer(_) => true,
            op if op.is_admin() => {
                let has_wiped = |membership: &Membership| {
                    membership.voters().iter().any(|id| self.is_wiped(*id))
                };
                // Promoting a node that was never added would make a voter of nobody.
                let new = op.new_nodes();
                let is_there = |id: &NodeId| new.contains(id) || self.cluster.get(*id).is_some();
                op.nodes().iter().all(is_there) && !self.memberships().any(has_wiped)
            }
            _ => true,
        }
    }

    /// At rest: which wiped members were replaced, and have a successor that knows all.
    pub(in crate::simulation) fn count_replaced(&mut self) {
        let replaced = self.clients.replaced.iter().filter(|(old, new)| {
            let mut now = self.memberships();
            self.is_wiped(*old) && now.any(|membership| membership.voters().contains(new))
        });
        for _ in 0..replaced.count() {
            self.reach("wiped-member-replaced");
        }
    }

    // ---- upgrades ----

    /// The files of a node become what an earlier release would have left.
    fn age_files(&mut self, id: NodeId) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        for file in slot.disk.list() {
            if let Some(bytes) = slot.disk.look(file)
                && let Some(bytes) = older(file, &bytes)
            {
                slot.disk.rewrite(file, &bytes);
                slot.disk_state.is_old = true;
            }
        }
    }
}
