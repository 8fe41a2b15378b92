//! What the write-ahead log should hold, in plain words: for all that judges a recovery.

use stormkv::types::{Entry, HardState, SnapshotId};
use stormkv::wal::Recovered;

/// What the log should hold: an independent, plain account of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub hard_state: HardState,
    pub snapshot: Option<SnapshotId>,
    pub entries: Vec<Entry>,
}

impl Model {
    pub fn of(recovered: &Recovered) -> Self {
        Model {
            hard_state: recovered.hard_state,
            snapshot: recovered.snapshot,
            entries: recovered.entries.clone(),
        }
    }

    pub fn base(&self) -> u64 {
        self.snapshot.map_or(0, |id| id.index)
    }

    pub fn last(&self) -> u64 {
        self.base() + self.entries.len() as u64
    }

    /// The last entry, or the snapshot.
    #[allow(dead_code, reason = "not everybody who judges a recovery asks")]
    pub fn end(&self) -> SnapshotId {
        let last =
            self.entries.last().map(|last| SnapshotId { index: last.index, term: last.term });
        last.or(self.snapshot).unwrap_or_default()
    }

    pub fn append(&mut self, state: HardState, snapshot: Option<SnapshotId>, entries: &[Entry]) {
        self.hard_state = state;
        if let Some(id) = snapshot {
            match self.entries.iter().position(|e| (e.index, e.term) == (id.index, id.term)) {
                Some(at) => self.entries.drain(..=at).for_each(drop),
                None => self.entries.clear(),
            }
            self.snapshot = snapshot;
        }
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(entries);
        }
    }
}
