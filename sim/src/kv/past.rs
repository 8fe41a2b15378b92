//! The reference state with its past: what each key held as of every index of the log.
//!
//! A query is answered from the state at one index, which others may have left behind long ago. So
//! the versions of each key are kept, and an answer is computed anew as of the index that it names:
//! a binary search per key. The paging rules are written out here a second time, from the
//! documentation of the machine, so that a wrong page is not repeated by its judge.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use stormkv::kv::{KeyValue, MAX_RESPONSE, MAX_SCAN, Query, Response, Versioned};
use stormkv::types::LogIndex;

/// What a key holds from one index on; `None` once it is deleted.
struct Version {
    index: LogIndex,
    value: Option<Bytes>,
}

/// See the module. A present key's revision is the index of its version.
#[derive(Default)]
pub(super) struct Past {
    keys: BTreeMap<Bytes, Vec<Version>>,
}

impl Past {
    /// The value of a key as of the newest index, and its revision.
    pub fn get(&self, key: &Bytes) -> Option<(&Bytes, LogIndex)> {
        let newest = self.keys.get(key)?.last()?;
        Some((newest.value.as_ref()?, newest.index))
    }

    /// Sets a key, or removes it. Returns whether it was there.
    pub fn set(&mut self, index: LogIndex, key: Bytes, value: Option<Bytes>) -> bool {
        let versions = self.keys.entry(key).or_default();
        let newest = versions.last_mut();
        assert!(newest.as_ref().is_none_or(|newest| newest.index <= index), "the log has an order");
        let existed = newest.as_ref().is_some_and(|newest| newest.value.is_some());
        match newest {
            Some(newest) if newest.index == index => newest.value = value,
            _ if value.is_none() && !existed => {}
            _ => versions.push(Version { index, value }),
        }
        existed
    }

    /// The keys that are there as of the newest index, with value and revision.
    pub fn present(&self) -> impl Iterator<Item = (&Bytes, &Bytes, LogIndex)> {
        self.keys.iter().filter_map(|(key, versions)| {
            let newest = versions.last()?;
            Some((key, newest.value.as_ref()?, newest.index))
        })
    }

    /// The answer to a query as of `index`.
    pub fn answer(&self, query: &Query, index: LogIndex) -> Response {
        match query {
            Query::Get { key } => {
                let found = self.keys.get(key).and_then(|versions| at(versions, index));
                Response::Value(found.map(|(value, revision)| {
                    let value = value.clone();
                    Versioned { value, revision }
                }))
            }
            Query::Scan { prefix, after, limit } => {
                self.page(prefix, after.as_ref(), *limit, index)
            }
        }
    }

    /// One page of a scan: as many entries as asked for, as are allowed, and as there is room for,
    /// but one in any case.
    fn page(&self, prefix: &Bytes, after: Option<&Bytes>, limit: u32, index: LogIndex) -> Response {
        let most = if limit == 0 { MAX_SCAN } else { limit.min(MAX_SCAN) } as usize;
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = Vec::new();
        let mut room = MAX_RESPONSE;
        let keys = self.keys.range::<Bytes, _>((begin, Bound::Unbounded));
        for (key, versions) in keys.take_while(|(key, _)| key.starts_with(prefix)) {
            let Some((value, revision)) = at(versions, index) else { continue };
            let bytes = key.len() + value.len();
            if entries.len() == most || (bytes > room && !entries.is_empty()) {
                return Response::Entries { entries, more: true };
            }
            room = room.saturating_sub(bytes);
            entries.push(KeyValue { key: key.clone(), value: value.clone(), revision });
        }
        Response::Entries { entries, more: false }
    }

    /// Forgets all but the newest versions.
    pub fn forget(&mut self) {
        self.keys.retain(|_, versions| {
            versions.drain(..versions.len().saturating_sub(1));
            // A key that was only ever deleted has none.
            versions.last().is_some_and(|newest| newest.value.is_some())
        });
    }

    /// How many versions are remembered beside the newest ones.
    pub fn remembered(&self) -> usize {
        self.keys.values().map(|versions| versions.len().saturating_sub(1)).sum()
    }
}

/// Value and revision at an index, if the key was there.
fn at(versions: &[Version], index: LogIndex) -> Option<(&Bytes, LogIndex)> {
    let started = versions.partition_point(|version| version.index <= index);
    let version = &versions[started.checked_sub(1)?];
    Some((version.value.as_ref()?, version.index))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stormkv::kv::{Command, Kv};
    use stormkv::machine::{Context, StateMachine};

    use super::*;

    fn query(prefix: &'static str, after: Option<&'static str>, limit: u32) -> Query {
        Query::Scan { prefix: prefix.into(), after: after.map(Bytes::from), limit }
    }

    #[test]
    fn answers_are_those_of_the_machine_at_every_index() {
        let (mut past, mut kv) = (Past::default(), Kv::default());
        let mut states = vec![kv.clone()];
        for index in 1..=60u64 {
            let key = Bytes::from(format!("k{}", index * 7 % 11));
            let big = if index % 5 == 0 { MAX_RESPONSE / 2 } else { 3 };
            let value = (index % 4 != 0).then(|| Bytes::from(vec![b'v'; big]));
            let command = match value.clone() {
                Some(value) => Command::Put { key: key.clone(), value },
                None => Command::Delete { key: key.clone() },
            };
            kv.apply(Context::new(index, Duration::ZERO), &command.encode());
            past.set(index, key, value);
            states.push(kv.clone());
        }
        let mut pages = 0;
        for (index, kv) in (0..).zip(&states) {
            let keys = (0..11).map(|key| Query::Get { key: format!("k{key}").into() });
            let scans = [
                query("", None, 0),
                query("k1", None, 0),
                query("k", Some("k3"), 2),
                query("k2", Some("k1"), 1),
                query("k", Some("k9"), 5),
            ];
            for query in keys.chain(scans) {
                let told = Response::decode(&kv.query(&query.encode())).expect("a response");
                pages += u32::from(matches!(&told, Response::Entries { more: true, .. }));
                assert_eq!(past.answer(&query, index), told, "{query:?} at {index}");
            }
        }
        assert!(pages > 50, "{pages}");
    }

    #[test]
    fn only_the_newest_versions_are_remembered_after_forgetting() {
        let mut past = Past::default();
        assert!(!past.set(1, "a".into(), Some("1".into())));
        assert!(past.set(2, "a".into(), None));
        assert!(!past.set(3, "b".into(), Some("1".into())));
        assert!(past.set(3, "b".into(), Some("2".into())), "one index changes a key twice");
        assert_eq!(past.remembered(), 1);
        past.forget();
        assert_eq!(past.remembered(), 0);
        assert_eq!(past.present().count(), 1);
        assert_eq!(past.get(&"b".into()), Some((&"2".into(), 3)));
    }
}
