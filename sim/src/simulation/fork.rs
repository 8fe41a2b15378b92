//! A fork of a run: the same run up to some event, which then goes on as chance might have had it.
//!
//! The plan stays: which faults strike when, what clients ask and when. What is drawn from then on
//! is drawn from other streams: what becomes of messages, how long disks take and what they lose,
//! when nodes campaign, whom clients ask, where damage hits, who is healed in the end. What was
//! drawn before stays too, even if it has not happened yet, such as when a message on its way
//! arrives. Only a wait for a leader has no such moment: its length is asked for at each tick.
//!
//! Two forks with the same salt that part from the run at different events go on by the same draws.
//! So they differ in what happened between the two events, and not by mere chance.

use super::Simulation;
use super::node::SimNode;
use crate::service::Service;

/// Where a run parts from the one that its plan describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// After this event; 0 is the beginning.
    pub after: u64,
    /// Another one for each way to go on.
    pub salt: u64,
}

impl<S: Service> Simulation<'_, S> {
    /// From now on, chance decides as in the fork with this salt. Whoever draws must be told of it
    /// here, or draw from a stream that is keyed with the simulation's seed at that moment.
    pub(super) fn fork(&mut self, salt: u64) {
        self.kernel.fork(salt);
        self.network.fork(salt);
        let seed = self.kernel.seed();
        for slot in self.cluster.iter_mut() {
            slot.fork(seed, salt);
        }
        for client in &mut self.clients.all {
            client.choices.fork(salt);
        }
    }
}

impl<S: Service> SimNode<S> {
    fn fork(&mut self, seed: u64, salt: u64) {
        self.disk.fork(salt);
        self.device.fork(salt);
        self.faults.fork(salt);
        if let Some(driver) = &mut self.driver {
            driver.reseed(seed);
        }
    }
}
