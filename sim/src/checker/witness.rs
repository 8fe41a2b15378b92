//! The witness-order checker: confirms that the order in which the log applied the writes explains
//! every answer, in O(n log n).
//!
//! The simulator knows more than a history: for every write, where in the log it first took
//! effect. With that order given, nothing has to be searched:
//! - an acknowledged write took effect exactly once, a refused one never, and the answer is what
//!   the reference model says at that place;
//! - no write returned before a write with an earlier place was called;
//! - each read is put into the earliest *gap* between two writes where its answer is right, not
//!   before its floor (the latest write that returned, or gap of a read that returned, before this
//!   read was called), and that gap must lie before every write called after the read returned.
//!   Reads are taken by increasing call, so all that determines a floor is known by then, and the
//!   earliest gap leaves the most freedom to those that follow.
//!
//! Accepting is proof of linearizability. Rejecting proves that the log order, which is what the
//! system claims, is not a valid explanation. Gap `g` is the moment after the first `g` writes.
//! A get looks at the versions of its key between its floor and its limit, a scan at those of its
//! prefix: as many as were written while it ran.

mod explain;

use std::collections::BTreeMap;

use super::model::{self, Store};
use super::why::Why;
use crate::history::{Action, Answer, History, Key, Outcome, Value, describe_answer};

/// One write that took effect: the first time that its command was applied. Retries that were
/// recognised as such are not effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The log index.
    pub index: u64,
    /// The operation, as an index into the history.
    pub op: usize,
}

/// What was checked: proof that the check was not vacuous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes that took effect.
    pub effects: u64,
    /// Acknowledged writes whose answer was compared with the model's.
    pub answers: u64,
    /// Gets placed.
    pub gets: u64,
    /// Scans placed.
    pub scans: u64,
    /// Writes of unknown outcome that took effect.
    pub unknown_effective: u64,
    /// Writes of unknown outcome that did not.
    pub unknown_ineffective: u64,
}

/// Checks a history against the effects of its writes, which must be in log order.
///
/// # Errors
/// The first contradiction, which at most four operations prove.
///
/// # Panics
/// If `applied` is not in ascending order of the log indices, or names an operation that does not
/// exist or only reads.
pub fn check(history: &History, applied: &[Applied]) -> Result<Stats, Why> {
    let mut stats = Stats::default();
    let ranks = rank(history, applied)?;
    check_effects(history, &ranks, &mut stats)?;
    let store = replay(history, applied, &mut stats)?;
    check_real_time(history, applied)?;
    place_reads(&Context { history, applied, ranks: &ranks, store: &store }, &mut stats)?;
    Ok(stats)
}

const NOWHERE: u32 = u32::MAX;

/// For each operation, its place among the effects.
fn rank(history: &History, applied: &[Applied]) -> Result<Vec<u32>, Why> {
    assert!(applied.is_sorted_by(|a, b| a.index < b.index), "effects are given in log order");
    assert!(applied.len() < NOWHERE as usize, "places fit into 32 bits");
    let mut ranks = vec![NOWHERE; history.ops().len()];
    for (place, effect) in applied.iter().enumerate() {
        let action = &history.ops()[effect.op].action;
        assert!(!action.is_read(), "a read has no effect to place in the log");
        let earlier = std::mem::replace(&mut ranks[effect.op], place as u32);
        if earlier != NOWHERE {
            let sentence = format!(
                "{} took effect twice, at log index {} and at {}",
                history.describe(effect.op),
                applied[earlier as usize].index,
                effect.index
            );
            return Err(Why::new(sentence, [effect.op]));
        }
    }
    Ok(ranks)
}

fn check_effects(history: &History, ranks: &[u32], stats: &mut Stats) -> Result<(), Why> {
    for (index, (op, &rank)) in history.ops().iter().zip(ranks).enumerate() {
        if op.action.is_read() {
            continue;
        }
        match (&op.outcome, rank == NOWHERE) {
            (Outcome::Ok(_), true) => {
                let what = history.describe(index);
                let sentence = format!("{what} was acknowledged but never took effect");
                return Err(Why::new(sentence, [index]));
            }
            (Outcome::Fail, false) => {
                let what = history.describe(index);
                let sentence = format!("{what} was refused for certain, yet it took effect");
                return Err(Why::new(sentence, [index]));
            }
            (Outcome::Info, false) => stats.unknown_effective += 1,
            (Outcome::Info, true) => stats.unknown_ineffective += 1,
            (Outcome::Ok(_), false) | (Outcome::Fail, true) => {}
        }
    }
    Ok(())
}

/// A value of a key from one gap until the next version's.
struct Version {
    gap: u32,
    value: Option<Value>,
}

/// The reference state with its whole past: the versions of each key, in ascending order.
#[derive(Default)]
struct Versions {
    keys: BTreeMap<Key, Vec<Version>>,
    /// The gap that starts with the write being replayed.
    gap: u32,
}

impl Store for Versions {
    fn get(&self, key: &Key) -> Option<Value> {
        self.keys.get(key)?.last()?.value.clone()
    }

    fn set(&mut self, key: &Key, value: Option<Value>) {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Vec::new());
        }
        let versions = self.keys.get_mut(key).expect("just inserted");
        match versions.last_mut() {
            Some(last) if last.gap == self.gap => last.value = value,
            _ => versions.push(Version { gap: self.gap, value }),
        }
    }

    fn scan(&self, prefix: &str) -> Vec<(Key, Value)> {
        let found = self.with_prefix(prefix);
        found.filter_map(|(key, v)| Some((key.clone(), v.last()?.value.clone()?))).collect()
    }
}

impl Versions {
    fn with_prefix<'a>(
        &'a self,
        prefix: &str,
    ) -> impl Iterator<Item = (&'a Key, &'a Vec<Version>)> + use<'a> {
        let prefix = Key::from(prefix);
        self.keys.range(prefix.clone()..).take_while(move |(key, _)| key.starts_with(&*prefix))
    }

    fn of(&self, key: &Key) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }
}

/// How many versions have started by a gap.
fn started(versions: &[Version], gap: u32) -> usize {
    versions.partition_point(|version| version.gap <= gap)
}

/// The value at a gap; a key is absent before its first version.
fn value_at(versions: &[Version], gap: u32) -> Option<&Value> {
    match started(versions, gap) {
        0 => None,
        count => versions[count - 1].value.as_ref(),
    }
}

/// Replays the writes on the reference model and compares the answers.
fn replay(history: &History, applied: &[Applied], stats: &mut Stats) -> Result<Versions, Why> {
    let mut store = Versions::default();
    for effect in applied {
        let op = &history.ops()[effect.op];
        store.gap += 1;
        let modelled = model::apply(&mut store, &op.action);
        stats.effects += 1;
        let Outcome::Ok(told) = &op.outcome else { continue };
        stats.answers += 1;
        if !model::agrees(told, &modelled) {
            let sentence = format!(
                "{} took effect at log index {}, where the answer must be{}",
                history.describe(effect.op),
                effect.index,
                match describe_answer(&modelled) {
                    none if none.is_empty() => " empty".to_string(),
                    answer => answer,
                }
            );
            return Err(Why::new(sentence, [effect.op]));
        }
    }
    Ok(store)
}

/// No write returned before a write with an earlier place was called.
fn check_real_time(history: &History, applied: &[Applied]) -> Result<(), Why> {
    let mut latest: Option<(u64, &Applied)> = None;
    for effect in applied {
        let op = &history.ops()[effect.op];
        if let (Some(ret), Some((call, earlier))) = (op.returned(), latest)
            && ret < call
        {
            let sentence = format!(
                "{} returned before {} was called, but took effect after it, at log index {} \
                 instead of before {}",
                history.describe(effect.op),
                history.describe(earlier.op),
                effect.index,
                earlier.index
            );
            return Err(Why::new(sentence, [effect.op, earlier.op]));
        }
        if latest.is_none_or(|(call, _)| call < op.call) {
            latest = Some((op.call, effect));
        }
    }
    Ok(())
}

struct Context<'a> {
    history: &'a History,
    applied: &'a [Applied],
    ranks: &'a [u32],
    store: &'a Versions,
}

/// A bound on the gap of a read, and the operation that sets it.
#[derive(Clone, Copy)]
struct Bound {
    gap: u32,
    by: Option<usize>,
}

fn place_reads(context: &Context<'_>, stats: &mut Stats) -> Result<(), Why> {
    let ops = context.history.ops();
    let limits = limits(context);
    let mut by_return: Vec<(u64, u32)> =
        (0..).zip(ops).filter_map(|(index, op)| Some((op.returned()?, index))).collect();
    by_return.sort_unstable();
    let mut returned = by_return.into_iter().peekable();
    // The gap after each completed operation: behind it for a write, the chosen one for a read.
    let mut gaps: Vec<u32> = context.ranks.iter().map(|rank| rank.wrapping_add(1)).collect();
    let mut floor = Bound { gap: 0, by: None };
    for (index, op) in ops.iter().enumerate() {
        while let Some((_, earlier)) = returned.next_if(|&(ret, _)| ret < op.call) {
            let gap = gaps[earlier as usize];
            if gap > floor.gap {
                floor = Bound { gap, by: Some(earlier as usize) };
            }
        }
        let (Outcome::Ok(answer), true) = (&op.outcome, op.action.is_read()) else { continue };
        let ret = op.ret.expect("an answered operation has ended");
        let next_called = limits.partition_point(|&(call, _)| call <= ret);
        let limit = limits.get(next_called).map_or(
            Bound { gap: context.applied.len() as u32, by: None },
            |&(_, gap)| Bound { gap, by: Some(context.applied[gap as usize].op) },
        );
        let gap = match (&op.action, answer) {
            (Action::Get { key }, Answer::Value(value)) => {
                stats.gets += 1;
                let versions = context.store.of(key);
                gap_of_get(versions, value.as_ref(), floor.gap, limit.gap)
                    .ok_or_else(|| explain::get(context, index, (key, value), floor, limit))?
            }
            (Action::Scan { prefix }, Answer::Pairs(pairs)) => {
                stats.scans += 1;
                gap_of_scan(context.store, prefix, pairs, floor.gap, limit.gap)
                    .ok_or_else(|| explain::scan(context, index, (prefix, pairs), floor, limit))?
            }
            _ => {
                let what = context.history.describe(index);
                let sentence = format!("{what} was answered as if it were another operation");
                return Err(Why::new(sentence, [index]));
            }
        };
        gaps[index] = gap;
    }
    Ok(())
}

/// The writes by call, each with the earliest place of a write called then or later.
fn limits(context: &Context<'_>) -> Vec<(u64, u32)> {
    let ranked = context.history.ops().iter().zip(context.ranks);
    let mut limits: Vec<(u64, u32)> =
        ranked.filter(|(_, rank)| **rank != NOWHERE).map(|(op, &rank)| (op.call, rank)).collect();
    assert!(limits.is_sorted(), "a history is in the order of the calls");
    let mut earliest = NOWHERE;
    for (_, rank) in limits.iter_mut().rev() {
        earliest = earliest.min(*rank);
        *rank = earliest;
    }
    limits
}

/// The earliest gap in `floor..=limit` at which a key has this value.
fn gap_of_get(versions: &[Version], value: Option<&Value>, floor: u32, limit: u32) -> Option<u32> {
    if floor > limit {
        return None;
    }
    if value_at(versions, floor) == value {
        return Some(floor);
    }
    let later = versions[started(versions, floor)..].iter();
    later
        .take_while(|version| version.gap <= limit)
        .find(|version| version.value.as_ref() == value)
        .map(|version| version.gap)
}

/// The earliest gap in `floor..=limit` at which exactly these pairs have this prefix.
fn gap_of_scan(
    store: &Versions,
    prefix: &str,
    pairs: &[(Key, Value)],
    floor: u32,
    limit: u32,
) -> Option<u32> {
    let ascending = pairs.is_sorted_by(|(a, _), (b, _)| a < b);
    if floor > limit || !ascending || pairs.iter().any(|(key, _)| !key.starts_with(prefix)) {
        return None;
    }
    // How many keys differ at the floor, and how that number changes from there on.
    let mut differing: i64 = 0;
    let mut changes: Vec<(u32, i64)> = Vec::new();
    let mut expected = pairs.iter().peekable();
    let mut known = 0;
    for (key, versions) in store.with_prefix(prefix) {
        let pair = expected.find_map_while_less(key);
        known += usize::from(pair.is_some());
        let at_floor = started(versions, floor);
        let mut differs = value_at(versions, floor) != pair;
        differing += i64::from(differs);
        for version in versions[at_floor..].iter().take_while(|version| version.gap <= limit) {
            let now = version.value.as_ref() != pair;
            changes.push((version.gap, i64::from(now) - i64::from(differs)));
            differs = now;
        }
    }
    if known < pairs.len() {
        return None;
    }
    if differing == 0 {
        return Some(floor);
    }
    changes.sort_unstable_by_key(|&(gap, _)| gap);
    for at_once in changes.chunk_by(|a, b| a.0 == b.0) {
        differing += at_once.iter().map(|&(_, change)| change).sum::<i64>();
        if differing == 0 {
            return Some(at_once[0].0);
        }
    }
    None
}

/// Walking two ascending lists of keys side by side.
trait Ascending<'a> {
    fn find_map_while_less(&mut self, key: &Key) -> Option<&'a Value>;
}

impl<'a, I: Iterator<Item = &'a (Key, Value)>> Ascending<'a> for std::iter::Peekable<I> {
    /// The value of this key, if the list has it; smaller keys are passed over.
    fn find_map_while_less(&mut self, key: &Key) -> Option<&'a Value> {
        while self.next_if(|(name, _)| name < key).is_some() {}
        self.next_if(|(name, _)| name == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &[(u32, Option<&str>)]) -> Vec<Version> {
        list.iter().map(|&(gap, value)| Version { gap, value: value.map(Value::text) }).collect()
    }

    #[test]
    fn a_get_takes_the_earliest_gap_within_its_bounds() {
        let v = versions(&[(2, Some("a")), (5, None), (7, Some("a"))]);
        let a = Value::text("a");
        assert_eq!(gap_of_get(&v, Some(&a), 0, 9), Some(2));
        assert_eq!(gap_of_get(&v, Some(&a), 3, 9), Some(3));
        assert_eq!(gap_of_get(&v, Some(&a), 5, 9), Some(7));
        assert_eq!(gap_of_get(&v, Some(&a), 5, 6), None);
        assert_eq!(gap_of_get(&v, None, 0, 9), Some(0));
        assert_eq!(gap_of_get(&v, None, 2, 4), None);
        assert_eq!(gap_of_get(&v, None, 3, 2), None);
    }

    #[test]
    fn a_scan_needs_one_gap_where_all_pairs_match() {
        let mut store = Versions::default();
        store.keys.insert("a".into(), versions(&[(1, Some("1")), (3, Some("2"))]));
        store.keys.insert("b".into(), versions(&[(2, Some("1")), (3, Some("2"))]));
        let pairs = |a: &str, b: &str| {
            vec![(Key::from("a"), Value::text(a)), (Key::from("b"), Value::text(b))]
        };
        assert_eq!(gap_of_scan(&store, "", &pairs("1", "1"), 0, 3), Some(2));
        assert_eq!(gap_of_scan(&store, "", &pairs("2", "2"), 0, 3), Some(3));
        assert_eq!(gap_of_scan(&store, "", &pairs("2", "2"), 0, 2), None);
        assert_eq!(gap_of_scan(&store, "", &pairs("1", "2"), 0, 3), None);
        assert_eq!(gap_of_scan(&store, "b", &pairs("1", "1")[1..], 0, 3), Some(2));
        assert_eq!(gap_of_scan(&store, "c", &[], 1, 3), Some(1));
        let unknown = [(Key::from("z"), Value::text("1"))];
        assert_eq!(gap_of_scan(&store, "z", &unknown, 0, 3), None);
    }
}
