//! The replicated log in memory: what raft reads through its `Storage` trait.
//!
//! Raft asks for first and last index several times per message, so nothing here takes a lock or
//! allocates for such questions. The durable twin is the write-ahead log; entries appear here as
//! soon as they are submitted there, and raft itself keeps track of which are durable
//! (asynchronous append).

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::bugs::{Bug, planted};
use crate::types::{LogIndex, NodeId, SnapshotId, Term};

/// Bytes an entry takes in a message beside its data, roughly.
const ENTRY_OVERHEAD: u64 = 16;

fn size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD
}

/// The log, from behind the last compaction to its end.
#[derive(Debug)]
pub(crate) struct Log {
    /// The entry before the first one kept. Its term is needed to match logs.
    base: SnapshotId,
    entries: VecDeque<Entry>,
    /// Bytes of the entries, and of those that the newest durable snapshot does not cover.
    bytes: u64,
    uncovered: u64,
    /// Only read when raft starts.
    initial: RaftState,
    /// The newest durable snapshot and the membership in it.
    snapshot: (SnapshotId, ConfState),
    /// Raft asked for a snapshot that is newer than the one there is.
    wanted: Cell<bool>,
    /// What [`Bug::TermBeyondTail`] still tells; otherwise empty.
    stale_terms: BTreeMap<LogIndex, Term>,
}

impl Log {
    /// A log as recovered: `entries` follow `snapshot` directly.
    pub fn new(
        snapshot: SnapshotId,
        membership: ConfState,
        hard_state: HardState,
        entries: Vec<Entry>,
    ) -> Self {
        if let Some(first) = entries.first() {
            assert_eq!(first.index, snapshot.index + 1, "the log does not follow its snapshot");
        }
        let bytes = entries.iter().map(size).sum();
        Log {
            base: snapshot,
            bytes,
            uncovered: bytes,
            entries: entries.into(),
            initial: RaftState { hard_state, conf_state: membership.clone() },
            snapshot: (snapshot, membership),
            wanted: Cell::new(false),
            stale_terms: BTreeMap::new(),
        }
    }

    /// The index of the first entry kept.
    pub fn first(&self) -> LogIndex {
        self.base.index + 1
    }

    /// The index of the last entry; that of the base if there is none.
    pub fn last(&self) -> LogIndex {
        self.base.index + self.entries.len() as u64
    }

    /// The last entry; the base if there is none.
    pub fn last_id(&self) -> SnapshotId {
        match self.entries.back() {
            Some(entry) => SnapshotId { index: self.last(), term: entry.term },
            None => self.base,
        }
    }

    /// Bytes of the entries kept, roughly.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the entries that the newest durable snapshot does not cover, roughly.
    pub fn uncovered_bytes(&self) -> u64 {
        self.uncovered
    }

    /// Bytes of the entries up to `applied` that the newest durable snapshot does not cover, roughly: what
    /// a snapshot of the present state would cover in addition. Takes time for each entry behind `applied`.
    pub fn coverable_bytes(&self, applied: LogIndex) -> u64 {
        let from = (applied.max(self.base.index) - self.base.index) as usize;
        let unapplied = self.entries.range(from.min(self.entries.len())..).map(size).sum::<u64>();
        self.uncovered.saturating_sub(unapplied)
    }

    /// The newest durable snapshot.
    pub fn snapshot_id(&self) -> SnapshotId {
        self.snapshot.0
    }

    /// The term of the entry at `index`, if it is known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// The entry at `index`, if it is kept.
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Appends `entries`, first cutting off what they replace.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            (self.first()..=self.last() + 1).contains(&first.index),
            "append at {} leaves a gap: the log holds {}..={}",
            first.index,
            self.first(),
            self.last()
        );
        let keep = (first.index - self.first()) as usize;
        if planted(Bug::TermBeyondTail) {
            self.stale_terms.extend(self.entries.range(keep..).map(|cut| (cut.index, cut.term)));
        }
        let cut = self.entries.drain(keep..).map(|entry| size(&entry)).sum::<u64>();
        let added = entries.iter().map(size).sum::<u64>();
        self.bytes = self.bytes - cut + added;
        // What a snapshot covers is committed, and never cut off.
        self.uncovered = self.uncovered - cut + added;
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot of our own state is durable: it can be sent from now on.
    pub fn saved(&mut self, snapshot: SnapshotId, membership: ConfState) {
        assert!(snapshot.index >= self.snapshot.0.index, "snapshots never go back");
        self.snapshot = (snapshot, membership);
        let covered = (snapshot.index.max(self.base.index) - self.base.index) as usize;
        self.uncovered = self.entries.range(covered..).map(size).sum();
        assert!(self.uncovered <= self.bytes, "a part is no more than the whole");
    }

    /// Whether this is the only voter, as far as the newest snapshot knows.
    pub fn snapshot_is_of_one(&self, id: NodeId) -> bool {
        let (_, membership) = &self.snapshot;
        membership.voters == [id.0] && membership.voters_outgoing.is_empty()
    }

    /// Drops the entries up to `index`, which the durable snapshot must cover.
    pub fn compact(&mut self, index: LogIndex) {
        assert!(index <= self.snapshot.0.index, "compaction beyond the durable snapshot");
        if index <= self.base.index {
            return;
        }
        let term = self.term_at(index).expect("compaction within the log");
        let dropped = self.entries.drain(..(index - self.base.index) as usize);
        self.bytes -= dropped.map(|entry| size(&entry)).sum::<u64>();
        self.base = SnapshotId { index, term };
    }

    /// Replaces everything by a snapshot received from a leader.
    pub fn install(&mut self, snapshot: SnapshotId, membership: ConfState) {
        self.entries.clear();
        (self.bytes, self.uncovered) = (0, 0);
        self.base = snapshot;
        self.snapshot = (snapshot, membership);
    }

    /// Whether raft asked for a newer snapshot since the last call.
    pub fn take_wanted(&self) -> bool {
        self.wanted.take()
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "raft asked for entries beyond the log's end");
        let mut budget = max_size.into().unwrap_or(u64::MAX);
        let (from, to) = ((low - self.first()) as usize, (high - self.first()) as usize);
        let mut found = Vec::with_capacity((to - from).min(64));
        for entry in self.entries.range(from..to) {
            let size = size(entry);
            if size > budget && !found.is_empty() {
                break;
            }
            budget = budget.saturating_sub(size);
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if planted(Bug::TermBeyondTail)
            && let Some(term) = self.stale_terms.get(&index)
        {
            return Ok(*term);
        }
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.base.index => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The newest snapshot's name; its bytes are sent in chunks. A receiver that is not part of
    /// the snapshot's membership would ignore it, so it has to wait for a newer one.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let (id, membership) = &self.snapshot;
        let members = [&membership.voters, &membership.learners, &membership.voters_outgoing];
        let usable = id.index > 0
            && id.index >= request_index
            && id.index >= self.base.index
            && members.iter().any(|ids| ids.contains(&to));
        if !usable {
            self.wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = id.index;
        metadata.term = id.term;
        metadata.set_conf_state(membership.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Default::default() }
    }

    fn log() -> Log {
        let base = SnapshotId { index: 10, term: 2 };
        let membership = ConfState { voters: vec![1, 2], ..Default::default() };
        let entries = vec![entry(11, 2), entry(12, 3), entry(13, 3)];
        Log::new(base, membership, HardState::default(), entries)
    }

    #[test]
    fn an_append_cuts_off_what_it_replaces() {
        let mut log = log();
        log.append(&[entry(12, 4)]);
        assert_eq!(log.last(), 12);
        assert_eq!(log.term_at(12), Some(4));
        assert_eq!(log.term_at(13), None);
    }

    #[test]
    #[should_panic(expected = "leaves a gap")]
    fn an_append_beyond_the_end_is_a_bug() {
        log().append(&[entry(15, 4)]);
    }

    #[test]
    fn compaction_keeps_the_term_of_the_last_dropped_entry() {
        let mut log = log();
        log.saved(SnapshotId { index: 12, term: 3 }, ConfState::default());
        log.compact(12);
        assert_eq!((log.first(), log.last()), (13, 13));
        assert_eq!(log.term_at(12), Some(3));
        assert!(matches!(log.term(11), Err(raft::Error::Store(StorageError::Compacted))));
    }

    #[test]
    fn log_coverable_bytes_are_those_of_applied_entries_behind_the_snapshot() {
        let mut log = log();
        let one = log.bytes() / 3;
        assert_eq!(log.coverable_bytes(10), 0);
        assert_eq!(log.coverable_bytes(12), 2 * one);
        assert_eq!(log.coverable_bytes(13), 3 * one);
        log.saved(SnapshotId { index: 12, term: 3 }, ConfState::default());
        assert_eq!(log.coverable_bytes(12), 0);
        assert_eq!(log.coverable_bytes(13), one);
    }

    #[test]
    fn a_size_limit_still_yields_one_entry() {
        let log = log();
        let context = || GetEntriesContext::empty(false);
        assert_eq!(log.entries(11, 14, Some(1), context()).unwrap().len(), 1);
        assert_eq!(log.entries(11, 14, Some(60), context()).unwrap().len(), 2);
        assert_eq!(log.entries(11, 14, None, context()).unwrap().len(), 3);
    }

    #[test]
    fn a_snapshot_without_its_receiver_is_not_offered_but_asked_for() {
        let log = log();
        assert!(log.snapshot(0, 2).is_ok());
        assert!(!log.take_wanted());
        assert!(log.snapshot(0, 3).is_err());
        assert!(log.take_wanted());
        assert!(log.snapshot(11, 2).is_err(), "older than requested");
    }
}
