//! A list that is appended to for ever, and forgets its beginning.
//!
//! Facts about the log are kept by index. In a run of days nobody asks any more for those of the
//! first hour, so they are dropped; what is left keeps its index.

use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tail<T> {
    dropped: usize,
    items: VecDeque<T>,
}

impl<T> Tail<T> {
    /// A list whose first item is number `dropped`.
    pub fn behind(dropped: usize, items: impl IntoIterator<Item = T>) -> Self {
        Tail { dropped, items: items.into_iter().collect() }
    }

    /// How many there ever were.
    pub fn len(&self) -> usize {
        self.dropped + self.items.len()
    }

    /// The item at `at`; `None` beyond the end, or if it was dropped.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.items.get(at.checked_sub(self.dropped)?)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.items.get_mut(at.checked_sub(self.dropped)?)
    }

    /// The items that are kept, from number `at` on.
    pub fn since(&self, at: usize) -> impl Iterator<Item = &T> {
        let from = at.saturating_sub(self.dropped).min(self.items.len());
        self.items.range(from..)
    }

    pub fn last(&self) -> Option<&T> {
        self.items.back()
    }

    pub fn push(&mut self, item: T) {
        self.items.push_back(item);
    }

    /// Makes it at least so long.
    pub fn reach(&mut self, len: usize, item: impl FnMut() -> T) {
        let wanted = len.saturating_sub(self.dropped).max(self.items.len());
        self.items.resize_with(wanted, item);
    }

    /// Drops the items before `at`, but never the last one.
    pub fn drop_before(&mut self, at: usize) {
        let count = at.saturating_sub(self.dropped).min(self.items.len().saturating_sub(1));
        self.items.drain(..count);
        self.dropped += count;
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_keeps_its_place() {
        let mut tail = Tail::behind(0, 0..10);
        tail.drop_before(6);
        assert_eq!((tail.get(5), tail.get(6), tail.len(), tail.kept()), (None, Some(&6), 10, 4));
        tail.push(10);
        tail.reach(13, || 0);
        assert_eq!((tail.get(10), tail.get(12), tail.len()), (Some(&10), Some(&0), 13));
        assert_eq!(tail.since(11).collect::<Vec<_>>(), [&0, &0]);
        assert_eq!((tail.since(0).count(), tail.since(14).count()), (7, 0));
        tail.drop_before(4);
        assert_eq!(tail.kept(), 7, "nothing comes back");
        tail.drop_before(100);
        assert_eq!((tail.kept(), tail.last()), (1, Some(&0)), "the last one stays");
    }
}
