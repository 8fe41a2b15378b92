//! The queue of future events, and with it simulated time.
//!
//! Events come out by time, and those of the same time in the order in which they went in, so the
//! order never depends on how the queue works inside. Time moves only when an event is taken out.
//!
//! The heap orders small keys and leaves the events themselves in a slab: sifting moves 16 bytes
//! instead of a whole event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits of a key that number the slab's slot; the bits between them and the time number the event.
const SLOT_BITS: u32 = 24;
const MAX_QUEUED: usize = 1 << SLOT_BITS;
const MAX_SEQUENCE: u64 = 1 << (64 - SLOT_BITS);

/// Future events, ordered by (time, order of insertion).
#[derive(Debug)]
pub struct Schedule<E> {
    /// (time, sequence, slot), from the highest bits to the lowest.
    heap: BinaryHeap<Reverse<u128>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
    now_ns: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Schedule<E> {
    /// An empty schedule at time 0.
    pub fn new() -> Self {
        Schedule {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            now_ns: 0,
        }
    }

    /// Schedules `event` at `at_ns`, behind everything already scheduled for that time.
    ///
    /// # Panics
    /// If `at_ns` is in the past, or if more than 2^24 events are queued or 2^40 ever were.
    pub fn push(&mut self, at_ns: u64, event: E) {
        assert!(at_ns >= self.now_ns, "event at {at_ns} ns, but it is {} ns already", self.now_ns);
        assert!(self.sequence < MAX_SEQUENCE, "too many events in one run");
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                assert!(self.slots.len() < MAX_QUEUED, "{MAX_QUEUED} events are queued already");
                self.slots.push(Some(event));
                (self.slots.len() - 1) as u32
            }
        };
        let low = self.sequence << SLOT_BITS | u64::from(slot);
        self.heap.push(Reverse(u128::from(at_ns) << 64 | u128::from(low)));
        self.sequence += 1;
    }

    /// Takes out the next event and its time in ns, and moves [`now`](Self::now) there.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse(key) = self.heap.pop()?;
        let slot = key as u32 & (MAX_QUEUED as u32 - 1);
        let event = self.slots[slot as usize].take().expect("each queued key owns its slot");
        self.free.push(slot);
        self.now_ns = (key >> 64) as u64;
        Some((self.now_ns, event))
    }

    /// The time of the next event, in ns.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (key >> 64) as u64)
    }

    /// The time of the event taken out last, in ns; 0 at the beginning.
    pub fn now(&self) -> u64 {
        self.now_ns
    }

    /// How many events are scheduled.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_of_one_time_keep_their_order() {
        let mut schedule = Schedule::new();
        for name in ["a", "b", "c"] {
            schedule.push(5, name);
        }
        schedule.push(4, "first");
        assert_eq!(schedule.next_at(), Some(4));
        assert_eq!(schedule.pop(), Some((4, "first")));
        schedule.push(5, "d");
        let rest: Vec<_> = std::iter::from_fn(|| schedule.pop()).collect();
        assert_eq!(rest, [(5, "a"), (5, "b"), (5, "c"), (5, "d")]);
        assert!(schedule.is_empty());
        assert_eq!(schedule.now(), 5);
    }

    #[test]
    #[should_panic(expected = "it is 10 ns already")]
    fn the_past_is_closed() {
        let mut schedule = Schedule::new();
        schedule.push(10, ());
        schedule.pop();
        schedule.push(9, ());
    }

    #[test]
    fn the_last_nanosecond_is_open() {
        let mut schedule = Schedule::new();
        schedule.push(u64::MAX, 1);
        schedule.push(0, 0);
        assert_eq!(schedule.pop(), Some((0, 0)));
        assert_eq!(schedule.pop(), Some((u64::MAX, 1)));
    }

    proptest! {
        /// `Some(delay)` pushes an event, `None` pops one. The model sorts all it holds.
        #[test]
        fn order_equals_that_of_a_sorted_list(steps in prop::collection::vec(
            prop::option::weighted(0.6, 0u64..20), 0..300,
        )) {
            let mut schedule = Schedule::new();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(delay) = step {
                    let at = schedule.now() + delay;
                    schedule.push(at, number);
                    model.push((at, number));
                } else {
                    model.sort_unstable();
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(schedule.pop(), expected);
                }
                prop_assert_eq!(schedule.len(), model.len());
            }
            model.sort_unstable();
            let rest: Vec<_> = std::iter::from_fn(|| schedule.pop()).collect();
            prop_assert_eq!(rest, model);
        }
    }
}
