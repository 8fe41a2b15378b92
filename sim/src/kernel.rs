//! The kernel of a simulation: virtual time, the queue of events, and the seed that keys its chances.
//!
//! Time moves only when an event is taken out of the queue. A run of several plans, one after the
//! other, goes on in the same time: each plan begins at an epoch, and its own times count from there.

use crate::rng::{self, Purpose, Stream};
use crate::schedule::Schedule;

/// Virtual time and what happens in it. See the module.
pub(crate) struct Kernel<E> {
    seed: u64,
    /// The time at which the present plan began, in ns.
    epoch_ns: u64,
    step: u64,
    queue: Schedule<E>,
}

impl<E> Kernel<E> {
    pub fn new(seed: u64) -> Self {
        Kernel { seed, epoch_ns: 0, step: 0, queue: Schedule::new() }
    }

    /// Goes on with a plan of this seed, whose time begins now.
    pub fn begin_epoch(&mut self, seed: u64) {
        (self.seed, self.epoch_ns) = (seed, self.now_ns());
    }

    /// From now on, chance decides as in the fork with this salt; see [`rng::fork`].
    pub fn fork(&mut self, salt: u64) {
        self.seed = rng::fork(self.seed, salt);
    }

    /// The seed that keys random streams: the plan's, or that of a fork.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The random stream for this purpose and what it is about.
    pub fn stream<const N: usize>(&self, purpose: Purpose, parts: [u64; N]) -> Stream {
        Stream::new(self.seed, purpose, parts)
    }

    /// Simulated time in ns: that of the present event.
    pub fn now_ns(&self) -> u64 {
        self.queue.now()
    }

    /// The number of the present event; 0 before the first.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The simulated time of a moment of the present plan, in ns.
    pub fn plan_time_ns(&self, at_us: u64) -> u64 {
        self.epoch_ns + at_us * 1000
    }

    /// The present time as the plan counts it, in us.
    pub fn plan_now_us(&self) -> u64 {
        (self.now_ns() - self.epoch_ns) / 1000
    }

    /// Schedules an event.
    ///
    /// # Panics
    /// If its time is over.
    pub fn at(&mut self, at_ns: u64, event: E) {
        self.queue.push(at_ns, event);
    }

    /// Schedules an event at a moment of the present plan.
    pub fn at_plan_time(&mut self, at_us: u64, event: E) {
        self.at(self.plan_time_ns(at_us), event);
    }

    /// Schedules an event `ns` nanoseconds from now.
    pub fn after(&mut self, ns: u64, event: E) {
        self.queue.push(self.queue.now() + ns, event);
    }

    /// The time of the next event in ns, if there is one.
    #[cfg(test)]
    pub fn next_at_ns(&self) -> Option<u64> {
        self.queue.next_at()
    }

    /// Takes the next event out, which moves time there. `None` if there is none.
    pub fn next(&mut self) -> Option<E> {
        let (_, event) = self.queue.pop()?;
        self.step += 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_counts_the_time_of_each_plan_from_its_epoch() {
        let mut kernel = Kernel::new(1);
        kernel.at(5_000, "first");
        assert_eq!((kernel.next(), kernel.now_ns(), kernel.step()), (Some("first"), 5_000, 1));
        assert_eq!((kernel.plan_now_us(), kernel.plan_time_ns(7)), (5, 7_000));
        kernel.begin_epoch(2);
        kernel.after(2_000, "second");
        assert_eq!(kernel.next(), Some("second"));
        assert_eq!((kernel.plan_now_us(), kernel.plan_time_ns(7), kernel.seed()), (2, 12_000, 2));
        assert_eq!((kernel.next(), kernel.step()), (None, 2));
    }
}
