//! Takes what meets a condition out of a collection.
//!
//! `VecDeque::pop_front_if` (Rust 1.93) and `BTreeMap::extract_if` (1.91) do the same, and take the
//! place of this module once `rust-version` is there.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeBounds;

/// Removes the first element and returns it, if it meets the condition.
pub(crate) fn pop_front_if<T>(
    queue: &mut VecDeque<T>,
    condition: impl FnOnce(&mut T) -> bool,
) -> Option<T> {
    if condition(queue.front_mut()?) { queue.pop_front() } else { None }
}

/// Removes the entries of a range that meet the condition, and returns them in the order of keys.
/// O(n) in the range, and O(log n) for each that is removed.
pub(crate) fn extract_if<K: Ord + Copy, V>(
    map: &mut BTreeMap<K, V>,
    range: impl RangeBounds<K>,
    mut condition: impl FnMut(&K, &mut V) -> bool,
) -> Vec<(K, V)> {
    let entries = map.range_mut(range);
    let keys: Vec<K> =
        entries.filter_map(|(key, value)| condition(key, value).then_some(*key)).collect();
    keys.into_iter().filter_map(|key| map.remove_entry(&key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pop_front_if_looks_at_the_first_only() {
        let mut queue = VecDeque::from([1, 2, 3]);
        assert_eq!(pop_front_if(&mut queue, |first| *first == 2), None);
        assert_eq!(pop_front_if(&mut queue, |first| *first == 1), Some(1));
        assert_eq!(queue, [2, 3]);
        assert_eq!(pop_front_if(&mut VecDeque::<u8>::new(), |_| true), None);
    }

    #[test]
    fn extract_if_keeps_the_others() {
        let mut map: BTreeMap<u8, char> = (1..).zip("abcde".chars()).collect();
        let taken = extract_if(&mut map, 2.., |key, value| key % 2 == 1 && *value != 'e');
        assert_eq!(taken, [(3, 'c')]);
        assert_eq!(map.into_values().collect::<String>(), "abde");
    }
}
