//! Faults of a node's disk; `damage.rs` has those that nobody hears of.

use stormkv::env::{DiskOp, DiskQueue};
use stormkv::types::NodeId;

use super::super::node::SimNode;
use super::super::observe::Observation;
use super::super::{Event, Simulation};
use crate::disk::{Crash, FaultKind};
use crate::kernel::Kernel;
use crate::plan::DiskFault;
use crate::rng::Purpose;
use crate::service::Service;

/// A power loss that takes names waits for one of the next so many disk operations at which there
/// are some to take.
const NAME_STEPS: u64 = 8;

/// Begins the fault with this number on a node that is up. Silent damage is not injected here.
pub(super) fn inject<S: Service>(
    fault: DiskFault,
    number: u32,
    node: &mut SimNode<S>,
    kernel: &Kernel<Event>,
) {
    match fault {
        DiskFault::Sync => node.disk.fail_next(FaultKind::SyncFails, number),
        DiskFault::Write => node.disk.fail_next(FaultKind::WriteFails, number),
        DiskFault::Read => node.disk.fail_next(FaultKind::ReadFails, number),
        DiskFault::Space => node.disk.fail_next(FaultKind::NoSpace, number),
        DiskFault::Aimed(aim) => node.disk.fail_at(aim, number),
        DiskFault::ShortWrite => node.disk.fail_next(FaultKind::ShortWrite, number),
        DiskFault::Slow(factor) => node.faults.slow_disk(factor.into()),
        DiskFault::Stall => node.faults.hang_disk(),
        DiskFault::LoseEntry => {
            let draws = kernel.stream(Purpose::DiskFault, [node.id.0, number.into()]);
            let steps = 1 + draws.at(0).below(NAME_STEPS) as u32;
            node.faults.arm_name_loss(steps, number);
        }
        DiskFault::Rot(..) | DiskFault::Misdirect(_) | DiskFault::StaleRead(_) => {
            unreachable!("{fault:?} is silent")
        }
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Begins the fault with this number. Returns whether it did anything.
    pub(super) fn strike_disk(&mut self, id: NodeId, fault: DiskFault, at: usize) -> bool {
        if fault.is_silent() && !matches!(fault, DiskFault::StaleRead(_)) {
            return self.strike_silently(id, fault, at);
        }
        let Some(slot) = self.cluster.get_mut(id) else { return false };
        if let DiskFault::StaleRead(_) = fault {
            // Counted when it strikes.
            slot.faults.arm_stale_read(fault, at);
            return false;
        }
        if !slot.is_up() {
            return false;
        }
        inject(fault, at as u32, slot, &self.kernel);
        true
    }

    /// Ends it. What it has armed is disarmed already.
    pub(super) fn mend_disk(&mut self, id: NodeId, fault: DiskFault, at: usize) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        match fault {
            DiskFault::Slow(_) => slot.faults.slow_disk(1),
            DiskFault::Stall => self.end_stall(id),
            DiskFault::StaleRead(_) => slot.faults.disarm_stale_read(at),
            fault if fault.stops() => self.start(id),
            _ => {}
        }
    }

    /// A disk that hung goes on: what waited for it happens now.
    pub(super) fn end_stall(&mut self, id: NodeId) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        for event in slot.faults.release_disk() {
            self.kernel.after(0, event);
        }
    }

    /// Carries out an event, unless it needs a disk that hangs: then it waits.
    #[inline]
    pub(in crate::simulation) fn dispatch_to_disk(&mut self, event: Event) {
        let hangs =
            |id: &NodeId| self.cluster.get(*id).is_some_and(|slot| slot.faults.disk_hangs());
        match event.needs_disk().filter(hangs) {
            Some(id) => self.wait_for_disk(id, event),
            None => self.dispatch(event),
        }
    }

    fn wait_for_disk(&mut self, id: NodeId, event: Event) {
        let slot = self.cluster.get_mut(id).expect("its disk hangs");
        slot.faults.hold(event);
        self.reach("disk-stalled");
        self.observers.see(&Observation::DiskHangs(id));
    }

    /// Whether the power goes before this operation, and takes names with it.
    pub(in crate::simulation) fn loses_names(&mut self, id: NodeId, queue: DiskQueue) -> bool {
        let Some(slot) = self.cluster.get_mut(id) else { return false };
        if !slot.faults.awaits_name_loss() {
            return false;
        }
        let next = slot.batches[queue as usize].as_ref().and_then(|batch| batch.ops.front());
        // Otherwise the change has been made but is not durable.
        let changes = matches!(next, Some(DiskOp::Create { .. } | DiskOp::Rename { .. }));
        if changes || !slot.disk.has_pending_names() {
            return false;
        }
        let Some(fault) = slot.faults.lose_names() else { return false };
        self.reach("names-lost");
        self.observers.see(&Observation::NamesLost(id));
        self.crash(id, Crash::LosesEntries, fault);
        true
    }
}
