//! The cluster's time, with which a leader stamps what it proposes.
//!
//! A replica must not read a clock when it applies a command: no two clocks agree, and the replicas' states
//! would part. So the leader reads its clock when it *proposes*, and the reading is part of the entry (Raft
//! thesis, 6.3; LogCabin's cluster clock). It is no time of day. It counts from the foundation of the
//! cluster and is handed on through the log:
//!
//! - A member sets its clock to the stamp of each entry that it appends, and counts its own ticks from
//!   there.
//! - A member that becomes leader goes on from there. Before its first proposal it looks up the last stamp
//!   of its log, so it never stamps less than that.
//!
//! Hence stamps never decrease along a log: by induction each was proposed by a leader whose log held all
//! entries before it. [`Replica::apply`](super::replica::Replica::apply) asserts it.
//!
//! An example: the leader stamps 5,000 ms and is lost. The next leader, which has received that entry, wins
//! after 300 ms and proposes 200 ms later: it stamps 5,500 ms. Had it crashed and started again in
//! between, it would count from its start: what no member counts is lost. Ticks bound the damage
//! that a clock can do. One that jumps ahead by an hour adds two ticks, and one that is set back takes
//! nothing away; one that runs fast makes the time run fast for as long as its member leads.

use std::time::Duration;

use crate::types::micros;

/// See the module.
#[derive(Debug)]
pub(super) struct ClusterClock {
    tick: Duration,
    /// The time at the tick `since`.
    time: Duration,
    since: u64,
}

impl ClusterClock {
    /// A clock that shows `time` at tick 0 of this node.
    pub fn new(tick: Duration, time: Duration) -> Self {
        ClusterClock { tick, time, since: 0 }
    }

    /// The time at a tick of this node, in whole microseconds.
    ///
    /// # Panics
    /// If the tick lies before the one at which the clock was set.
    pub fn at(&self, tick: u64) -> Duration {
        assert!(tick >= self.since, "ticks count upwards");
        let ticks = u32::try_from(tick - self.since).unwrap_or(u32::MAX);
        let time = self.time.saturating_add(self.tick.saturating_mul(ticks));
        // As it is written down, so that a stamp that is read back is the one that was made.
        Duration::from_micros(micros(time))
    }

    /// Sets the clock to the stamp of an entry that was appended to the log. A clock that is ahead is set back:
    /// the leader's time counts, and the drift of a fast member must not add up from one entry to the next.
    pub fn set(&mut self, stamp: Duration, tick: u64) {
        assert!(tick >= self.since, "ticks count upwards");
        (self.time, self.since) = (stamp, tick);
    }

    /// Advances the clock of a new leader to the last stamp of its log.
    pub fn advance_to(&mut self, stamp: Duration, tick: u64) {
        if self.at(tick) < stamp {
            self.set(stamp, tick);
        }
        assert!(self.at(tick) >= stamp, "a leader never stamps less than its log holds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_follower_counts_from_the_last_stamp() {
        let mut clock = ClusterClock::new(TICK, ms(100));
        assert_eq!(clock.at(3), ms(130));
        // Its own clock was fast.
        clock.set(ms(115), 3);
        assert_eq!((clock.at(3), clock.at(5)), (ms(115), ms(135)));
    }

    #[test]
    fn a_leader_is_never_behind_its_log() {
        let mut clock = ClusterClock::new(TICK, ms(100));
        clock.advance_to(ms(500), 2);
        assert_eq!(clock.at(3), ms(510));
        clock.advance_to(ms(400), 4);
        assert_eq!(clock.at(4), ms(520), "what it has counted stays");
    }

    #[test]
    fn no_stamp_and_no_tick_overflows() {
        let mut clock = ClusterClock::new(TICK, Duration::MAX);
        assert_eq!(clock.at(u64::MAX), Duration::from_micros(u64::MAX));
        clock.set(Duration::from_micros(u64::MAX), 7);
        assert_eq!(clock.at(u64::MAX), Duration::from_micros(u64::MAX));
    }
}
