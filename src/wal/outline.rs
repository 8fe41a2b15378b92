//! What the writing end must know about the log's entries: their terms, and which segment holds
//! them.
//!
//! Terms decide whether a snapshot marker lies on the log or replaces it; segments decide what may
//! be removed. Both hardly change from one entry to the next, so runs of equal entries are kept,
//! not entries.

use std::collections::VecDeque;

use crate::types::{Entry, LogIndex, SnapshotId, Term};

/// Entries from `first` up to the next run, all of one term and in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: LogIndex,
    term: Term,
    segment: u64,
}

/// The entries behind the snapshot marker, without their data.
#[derive(Debug, Default)]
pub(super) struct Outline {
    snapshot: Option<SnapshotId>,
    last: LogIndex,
    /// Ascending in `first` and in `segment`, because an entry is written after all before it.
    /// Empty if no entries follow the marker; otherwise the first run holds the first of them.
    runs: VecDeque<Run>,
}

impl Outline {
    /// A log that holds no entries behind `snapshot`.
    pub(super) fn new(snapshot: Option<SnapshotId>) -> Self {
        Outline { snapshot, last: snapshot.map_or(0, |id| id.index), runs: VecDeque::new() }
    }

    pub(super) fn snapshot(&self) -> Option<SnapshotId> {
        self.snapshot
    }

    pub(super) fn last(&self) -> LogIndex {
        self.last
    }

    /// The last entry, or the snapshot marker if none follows it; zeros if there is neither.
    pub(super) fn last_id(&self) -> SnapshotId {
        SnapshotId { index: self.last, term: self.term_at(self.last).unwrap_or(0) }
    }

    /// The oldest segment that holds an entry; `active` if there are no entries.
    pub(super) fn floor(&self, active: u64) -> u64 {
        self.runs.front().map_or(active, |run| run.segment)
    }

    /// Sets the snapshot marker. True if the log has that entry and keeps what follows it; false
    /// if the marker has replaced the whole log.
    pub(super) fn mark(&mut self, id: SnapshotId) -> bool {
        assert!(id.index > 0, "a snapshot has an index");
        let held = self.term_at(id.index) == Some(id.term);
        if let Some(old) = self.snapshot {
            assert!(id.index >= old.index, "the snapshot marker went back to {id:?} from {old:?}");
            assert!(id.index > old.index || held, "the snapshot {old:?} changed its term: {id:?}");
        }
        self.snapshot = Some(id);
        if !held {
            self.last = id.index;
        }
        if self.last == id.index {
            self.runs.clear();
        }
        while self.runs.get(1).is_some_and(|run| run.first <= id.index + 1) {
            self.runs.pop_front();
        }
        held
    }

    /// Appends entries that are written to `segment`, after cutting off what they replace.
    pub(super) fn append(&mut self, entries: &[Entry], segment: u64) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let base = self.snapshot.map_or(0, |id| id.index);
        assert!(first > base, "entry {first} is part of the snapshot at {base}");
        assert!(first <= self.last + 1, "entry {first} leaves a gap after {}", self.last);
        while self.runs.back().is_some_and(|run| run.first >= first) {
            self.runs.pop_back();
        }
        self.last = first - 1;
        for entry in entries {
            assert_eq!(entry.index, self.last + 1, "entries must be contiguous");
            self.last = entry.index;
            let run = Run { first: entry.index, term: entry.term, segment };
            if self.runs.back().map(|back| (back.term, back.segment)) != Some((run.term, segment)) {
                self.runs.push_back(run);
            }
        }
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        if let Some(id) = self.snapshot
            && id.index == index
        {
            return Some(id.term);
        }
        if index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        // The first run may begin before the marker; what lies there is gone.
        self.snapshot.is_none_or(|id| index > id.index).then_some(run.term)
    }
}
