//! The requests that wait for an entry of the log.
//!
//! An entry is named by its index *and* term. Several requests may wait for one: a retry joins the
//! attempt before it. Each has its own deadline, and each counts against
//! [`max_pending`](crate::config::Config::max_pending).

use std::collections::BTreeMap;

use super::Origin;
use crate::take;
use crate::types::{LogIndex, Term};

/// A request that is answered when an entry is applied.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The entry's term.
    pub term: Term,
    pub origin: Origin,
    /// In ticks.
    pub deadline: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By index, in the order in which they came.
    waiters: BTreeMap<(LogIndex, u64), Waiter>,
    /// How many there ever were.
    count: u64,
}

/// All waiters of one index.
fn at(index: LogIndex) -> std::ops::RangeInclusive<(LogIndex, u64)> {
    (index, 0)..=(index, u64::MAX)
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Adds a request that waits for the entry at `index`. Returns those that waited for an entry of
    /// another term there: it is gone from this log, but another member may still have it and lead
    /// one day.
    #[must_use]
    pub fn add(&mut self, index: LogIndex, waiter: Waiter) -> Vec<Origin> {
        let displaced =
            take::extract_if(&mut self.waiters, at(index), |_, old| old.term != waiter.term);
        let displaced = displaced.into_iter().map(|(_, old)| old.origin).collect();
        self.count += 1;
        self.waiters.insert((index, self.count), waiter);
        displaced
    }

    /// Takes the first request that waits for an entry at `index`.
    pub fn pop(&mut self, index: LogIndex) -> Option<Waiter> {
        let (key, _) = self.waiters.range(at(index)).next()?;
        self.waiters.remove(&{ *key })
    }

    /// Takes those that wait for an entry up to `index`.
    pub fn take_through(&mut self, index: LogIndex) -> Vec<Origin> {
        let taken = take::extract_if(&mut self.waiters, ..=(index, u64::MAX), |_, _| true);
        taken.into_iter().map(|(_, waiter)| waiter.origin).collect()
    }

    /// Takes those whose time is up.
    pub fn take_late(&mut self, now: u64) -> Vec<Origin> {
        let late = take::extract_if(&mut self.waiters, .., |_, waiter| waiter.deadline <= now);
        late.into_iter().map(|(_, waiter)| waiter.origin).collect()
    }

    /// Lets those at `index` wait for ever.
    pub fn forget_deadlines(&mut self, index: LogIndex) {
        self.waiters.range_mut(at(index)).for_each(|(_, waiter)| waiter.deadline = u64::MAX);
    }

    /// Whether any waits for ever.
    pub fn has_endless(&self) -> bool {
        self.waiters.values().any(|waiter| waiter.deadline == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RequestId;

    fn waiter(term: Term, id: u64, deadline: u64) -> Waiter {
        Waiter { term, origin: Origin::Client(RequestId(id)), deadline }
    }

    fn origins(ids: &[u64]) -> Vec<Origin> {
        ids.iter().map(|id| Origin::Client(RequestId(*id))).collect()
    }

    #[test]
    fn those_of_one_entry_are_taken_in_the_order_in_which_they_came() {
        let mut waiting = Waiting::default();
        for (index, id) in [(5, 1), (6, 2), (5, 3)] {
            assert_eq!(waiting.add(index, waiter(1, id, 9)), []);
        }
        assert_eq!(waiting.len(), 3);
        let popped: Vec<_> = std::iter::from_fn(|| waiting.pop(5)).map(|w| w.origin).collect();
        assert_eq!(popped, origins(&[1, 3]));
        assert_eq!(waiting.take_through(6), origins(&[2]));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn an_entry_of_another_term_displaces_all_at_its_index() {
        let mut waiting = Waiting::default();
        for (index, id) in [(5, 1), (5, 2), (6, 3)] {
            assert_eq!(waiting.add(index, waiter(1, id, 9)), []);
        }
        assert_eq!(waiting.add(5, waiter(2, 4, 9)), origins(&[1, 2]));
        assert_eq!(waiting.len(), 2);
    }

    #[test]
    fn each_has_a_deadline_of_its_own() {
        let mut waiting = Waiting::default();
        for (id, deadline) in [(1, 10), (2, 12), (3, 11)] {
            assert_eq!(waiting.add(5, waiter(1, id, deadline)), []);
        }
        assert_eq!(waiting.take_late(11), origins(&[1, 3]));
        waiting.forget_deadlines(5);
        assert!(waiting.has_endless());
        assert_eq!(waiting.take_late(1 << 40), []);
    }
}
