//! Faults of a node's clock, and the timer that hangs on it.

use std::time::Duration;

use stormkv::types::NodeId;

use super::super::{Event, EventKind, Simulation};
use crate::clock::TRUE_RATE;
use crate::plan::ClockFault;
use crate::rng::Purpose;
use crate::service::Service;

impl<S: Service> Simulation<'_, S> {
    /// Begins the fault with this number. The clock belongs to the machine: it is hit even if the
    /// node is down.
    pub(super) fn strike_clock(&mut self, id: NodeId, fault: ClockFault, number: u32) -> bool {
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id) else { return false };
        match fault {
            ClockFault::Drift(rate) => slot.clock.set_rate(now_ns, rate),
            ClockFault::Step(by_us) => slot.clock.step(now_ns, by_us * 1000),
            ClockFault::Jitter(us) => {
                let draws = self.kernel.stream(Purpose::Jitter, [u64::from(number), id.0]);
                slot.faults.delay_timers(us * 1000, draws);
            }
        }
        self.set_timer(id);
        true
    }

    /// Ends it.
    pub(super) fn mend_clock(&mut self, id: NodeId, fault: ClockFault) {
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id) else { return };
        match fault {
            ClockFault::Drift(_) => slot.clock.set_rate(now_ns, TRUE_RATE),
            ClockFault::Step(by_us) => slot.clock.step(now_ns, -by_us * 1000),
            ClockFault::Jitter(_) => slot.faults.end_timer_delay(),
        }
        self.set_timer(id);
    }

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
