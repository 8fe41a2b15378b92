//! The clock of one node: what it shows is a function of the simulation's time.
//!
//! It shows `base + (now - since) * rate`, and each change of the rate, each step, begins a new
//! piece of that line. Rates are whole millionths, so that the way to local time and back is exact
//! integer arithmetic, the same on every machine.
//!
//! No two clocks show the same time: each begins at a value of its own, up to a day apart. A node
//! that compared its clock with another one's would be found out in every run.

use crate::rng::{Purpose, Stream};

/// The rate of a correct clock, in local nanoseconds per million of simulated time.
pub(crate) const TRUE_RATE: u32 = 1_000_000;

/// What every clock shows at the beginning, at least: a day, so that it can be set back by hours.
const DAY_NS: u64 = 86_400_000_000_000;

/// A clock that may run fast or slow, and may be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalClock {
    /// When it was touched last, in the simulation's time.
    since_ns: u64,
    /// What it showed then.
    base_ns: u64,
    rate: u32,
}

impl LocalClock {
    /// The clock of this node: it runs well, but shows a time of its own.
    pub fn new(seed: u64, node: u64) -> Self {
        let offset = Stream::new(seed, Purpose::ClockOffset, [node]).below(DAY_NS);
        LocalClock { since_ns: 0, base_ns: DAY_NS + offset, rate: TRUE_RATE }
    }

    /// Local time in ns at this simulated time, which is not before the last change.
    pub fn at(&self, now_ns: u64) -> u64 {
        let passed = now_ns - self.since_ns;
        if self.rate == TRUE_RATE {
            return self.base_ns + passed;
        }
        let local = u128::from(passed) * u128::from(self.rate) / u128::from(TRUE_RATE);
        self.base_ns + u64::try_from(local).expect("a run is short")
    }

    /// How much of the simulation's time passes until it has moved on by `local_ns`, at least.
    pub fn takes(&self, local_ns: u64) -> u64 {
        if self.rate == TRUE_RATE {
            return local_ns;
        }
        let world = u128::from(local_ns) * u128::from(TRUE_RATE);
        u64::try_from(world.div_ceil(u128::from(self.rate))).expect("a tick is short")
    }

    /// Its present rate; [`TRUE_RATE`] is right.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// From now on it runs at this rate, [`TRUE_RATE`] being right.
    pub fn set_rate(&mut self, now_ns: u64, rate: u32) {
        assert!(rate > 0, "a clock that stands still is a pause");
        *self = LocalClock { since_ns: now_ns, base_ns: self.at(now_ns), rate };
    }

    /// It jumps by so much. It never shows less than zero.
    pub fn step(&mut self, now_ns: u64, by_ns: i64) {
        let base_ns = self.at(now_ns).saturating_add_signed(by_ns);
        *self = LocalClock { since_ns: now_ns, base_ns, rate: self.rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn clocks_of_different_nodes_show_different_times_at_the_same_speed() {
        let (one, two) = (LocalClock::new(1, 1), LocalClock::new(1, 2));
        assert_ne!(one.at(0), two.at(0));
        assert_eq!(one.at(SECOND) - one.at(0), SECOND);
        assert!(one.at(0) >= DAY_NS && one.at(0) < 2 * DAY_NS);
    }

    #[test]
    fn a_fast_clock_gains_and_keeps_what_it_gained() {
        let mut clock = LocalClock::new(1, 1);
        let start = clock.at(0);
        clock.set_rate(SECOND, 1_200_000);
        assert_eq!(clock.at(SECOND) - start, SECOND);
        assert_eq!(clock.at(6 * SECOND) - start, 7 * SECOND);
        assert_eq!(clock.takes(6 * SECOND), 5 * SECOND);
        clock.set_rate(6 * SECOND, TRUE_RATE);
        assert_eq!(clock.at(7 * SECOND) - start, 8 * SECOND);
    }

    #[test]
    fn a_step_moves_the_clock_and_not_its_speed() {
        let mut clock = LocalClock::new(1, 1);
        let start = clock.at(0);
        clock.step(SECOND, -3_600_000_000_000);
        assert_eq!(clock.at(2 * SECOND) + 3600 * SECOND - start, 2 * SECOND);
        clock.step(2 * SECOND, i64::MIN);
        assert_eq!(clock.at(2 * SECOND), 0);
    }

    proptest! {
        /// A timer set for a moment of the local clock is never early, and late by no more than one
        /// nanosecond of the simulation's or one of the clock's own.
        #[test]
        fn timers_are_never_early(
            changes in prop::collection::vec((0..SECOND, 1u32..10_000_000, -5_000_000_000i64..5_000_000_000), 0..10),
            wait in 0u64..100 * SECOND,
        ) {
            let mut clock = LocalClock::new(7, 3);
            let mut now = 0;
            for (passed, rate, step) in changes {
                now += passed;
                clock.set_rate(now, rate);
                clock.step(now, step);
                let before = clock.at(now);
                let due = now + clock.takes(wait);
                prop_assert!(clock.at(due) - before >= wait);
                if clock.takes(wait) > 1 {
                    prop_assert!(clock.at(due - 1) - before <= wait);
                }
            }
        }
    }
}
