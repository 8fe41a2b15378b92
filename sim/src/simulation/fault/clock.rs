//! Faults of a node's clock, and the timer that hangs on it.

use std::time::Duration;

use stormkv::types::NodeId;

use super::super::node::SimNode;
use super::super::{Event, EventKind, Simulation};
use crate::clock::TRUE_RATE;
use crate::kernel::Kernel;
use crate::plan::ClockFault;
use crate::rng::Purpose;
use crate::service::Service;

/// Begins the fault with this number. The clock belongs to the machine: it is hit even if the node is
/// down. The timer of the node has to be set anew.
pub(super) fn inject<S: Service>(
    fault: ClockFault,
    number: u32,
    node: &mut SimNode<S>,
    kernel: &Kernel<Event>,
) {
    let now_ns = kernel.now_ns();
    match fault {
        ClockFault::Drift(rate) => node.clock.set_rate(now_ns, rate),
        ClockFault::Step(by_us) => node.clock.step(now_ns, by_us * 1000),
        ClockFault::Jitter(us) => {
            let draws = kernel.stream(Purpose::Jitter, [u64::from(number), node.id.0]);
            node.faults.delay_timers(us * 1000, draws);
        }
    }
}

/// Ends it. The timer of the node has to be set anew.
pub(super) fn clear<S: Service>(fault: ClockFault, node: &mut SimNode<S>, now_ns: u64) {
    match fault {
        ClockFault::Drift(_) => node.clock.set_rate(now_ns, TRUE_RATE),
        ClockFault::Step(by_us) => node.clock.step(now_ns, -by_us * 1000),
        ClockFault::Jitter(_) => node.faults.end_timer_delay(),
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Sets the timer of a node anew, by its own clock. Voids the one that was set before.
    pub(in crate::simulation) fn set_timer(&mut self, id: NodeId) {
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let Some(driver) = &slot.driver else { return };
        let due_in = driver.due_in(Duration::from_nanos(slot.clock.at(now_ns)));
        let takes_ns = slot.clock.takes(due_in.as_nanos() as u64).max(1);
        let late_ns = slot.faults.draw_lateness_ns();
        slot.timer += 1;
        let event = Event::incarnation(id, slot.incarnation, EventKind::Tick { timer: slot.timer });
        self.kernel.at(now_ns + takes_ns + late_ns, event);
    }
}
