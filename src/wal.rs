//! The write-ahead log: what a node must not forget, as bytes on a disk that may lose power.
//!
//! Like the node itself it does no IO. [`Wal::append`] turns a record into [`DiskOp`]s, the node
//! submits them, and [`Wal::synced`] hears when they are durable. Only [`Wal::recover`] reads, at
//! start. The disk must carry out operations in order and stop at the first that fails; a host that
//! merges syncs may drop one only if the next operations are more writes to the same file and a
//! sync of it.
//!
//! # Torn tail or corruption
//! A crash may leave any part of the last, unsynced writes behind. Such a torn tail is cut off.
//! Bytes that were synced and are bad now are another matter: cutting them off would forget what
//! this node has promised. To tell the two apart each record carries a *watermark*: the position
//! below which everything was durable when the record was written. Bad bytes below the highest
//! watermark that can be found, in front of the damage or behind it, are corruption, never cut off
//! as if they had not been: recovery says what is lost ([`Damage`]), and the log remembers durably
//! how far it went until it gets there again. Bad bytes above it are a torn tail. The last record has nothing behind it that vouches
//! for it, so an idle node writes one more, small record: [`Wal::vouch`].
//!
//! # Segments
//! The log is a chain of files. Each opens with a header that restates the hard state and the
//! snapshot marker, and that names the segment before it and where that one ends; bytes behind that
//! end are void for ever. A segment is never written again after a restart: recovery starts a new
//! one, so a torn tail stays what it is. Each segment is replayed on its own, and recovery walks the
//! chain backwards only until it has every entry behind the snapshot marker. So segments that were
//! removed, and come back because the removal was not durable, are never looked at.
//!
//! Recovery always leaves the segment it found last in place, though the new header restates all of
//! it: as long as no record vouches for that header, the old segment is its only copy.
//!
//! # Format, version 2
//! Version 1 knew no floors; apart from that and from the number it is the same, and still read.
//! Integers are little-endian, and records begin at multiples of 8. A segment is a preamble (which
//! stays the same in all versions), a record of kind 1, other records, and zeros.
//!
//! | preamble | bytes | |
//! |---|---|---|
//! | 0 | 8 | `stormwal` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32 of the 12 bytes before |
//!
//! | record | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the whole record, a multiple of 8 |
//! | 4 | 4 | CRC-32 of the record without these 4 bytes |
//! | 8 | 16 | its own position: segment, offset |
//! | 24 | 16 | watermark: segment, offset; in a header also where the previous segment ends, segment 0 if there is none |
//! | 40 | 24 | hard state: term, vote, commit |
//! | 64 | 16 | snapshot marker: index, term; index 0 if there is none |
//! | 80 | 8 | last index of the log after this record |
//! | 88 | 4 | number of entries, the last of which has that index |
//! | 92 | 1 | kind: 1 header, 2 append, 3 append after an installed snapshot |
//! | 93 | 1 | 1 if there is a floor: the log is damaged, and does not reach that far again yet |
//! | 94 | 2 | zero |
//! | 96 | 16 | floor: index, term; only if there is one |
//! | | | per entry: term (8), kind (1: 0 normal, 1 membership), length (4), data |
//! | | 0 to 7 | zero, up to the multiple of 8 |

use std::collections::VecDeque;

use bytes::Bytes;

use crate::bugs::{Bug, planted};
use crate::env::{DiskOp, FileName};
use crate::types::{Entry, HardState, LogIndex, NodeId, SnapshotId};

mod outline;
mod record;
mod recover;
mod salvage;
mod segment;
#[cfg(test)]
mod tests;
mod vouched;

pub use record::{Record, RecordKind, decode_records};
pub use recover::{CheckSnapshot, Recovered, TornTail};
pub use vouched::{Vouched, vouched};

use outline::Outline;
use record::Head;

/// The smallest `segment_bytes`, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 1024;

/// Settings of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Size of a segment file in bytes, at least [`MIN_SEGMENT_BYTES`]. A record that is larger
    /// gets a segment of its own.
    pub segment_bytes: u64,
}

/// What was once durable and cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: FileName,
    /// Where in it the damage begins, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
    /// The last entry that the log held, or one behind it: whoever holds it, or one of a later
    /// term, holds all that this log can ever have acknowledged and that counts.
    pub floor: SnapshotId,
}

/// A place in the log: a segment, and a byte offset in it. Ordered as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalPosition {
    segment: u64,
    offset: u64,
}

impl WalPosition {
    /// The number of the segment; 0 only in the position before the log.
    pub fn segment(self) -> u64 {
        self.segment
    }

    /// The offset in the segment, in bytes.
    pub fn offset(self) -> u64 {
        self.offset
    }
}

/// The writing end of the log.
#[derive(Debug)]
pub struct Wal {
    config: WalConfig,
    /// The end of what was appended.
    position: WalPosition,
    /// Size of the file that `position` is in.
    segment_len: u64,
    hard_state: HardState,
    outline: Outline,
    /// Everything below is durable by the time the next record reaches the disk.
    synced: WalPosition,
    /// The highest watermark in a record.
    vouched: WalPosition,
    /// The end of the last record that says something new.
    news: WalPosition,
    /// Segments before the one that is written, oldest first.
    older: VecDeque<u64>,
    /// Segments that only back up a header nothing vouches for yet, and the end of that header.
    spares: Vec<u64>,
    spares_for: WalPosition,
    /// Snapshot markers that are not durable yet: where the record ends, and the oldest segment
    /// that is still needed once it is durable.
    markers: VecDeque<(WalPosition, u64)>,
    /// Segments below are not needed.
    needed_from: u64,
    lost: Option<Lost>,
}

/// What the log has lost and not got back.
#[derive(Clone, Copy, Debug)]
struct Lost {
    floor: SnapshotId,
    /// The end of the record with which the log reaches the floor.
    regained: Option<WalPosition>,
}

impl Wal {
    /// A log that has no segment to write to yet; `open_segment` must follow.
    fn new(config: WalConfig, hard_state: HardState, outline: Outline) -> Self {
        Wal {
            config,
            position: WalPosition::default(),
            segment_len: 0,
            hard_state,
            outline,
            synced: WalPosition::default(),
            vouched: WalPosition::default(),
            news: WalPosition::default(),
            older: VecDeque::new(),
            spares: Vec::new(),
            spares_for: WalPosition::default(),
            markers: VecDeque::new(),
            needed_from: 0,
            lost: None,
        }
    }

    /// Appends one record, of which a crash leaves all or nothing, and the sync that makes it
    /// durable. A sync of the same segment at the end of `ops` is left to the new one.
    ///
    /// `snapshot` comes before `entries`: if the log has the entry it names, the log keeps what
    /// follows that entry; otherwise a snapshot was installed, and the whole log is dropped. The
    /// snapshot itself must be durable before. Entries replace what the log has from their first
    /// index on.
    ///
    /// # Panics
    /// If the term or the marker would go backwards, if the entries leave a gap or reach into the
    /// snapshot, or if the commit index is beyond the log: a bug in the caller.
    pub fn append(
        &mut self,
        hard_state: HardState,
        snapshot: Option<SnapshotId>,
        entries: &[Entry],
        ops: &mut Vec<DiskOp>,
    ) {
        self.write(hard_state, snapshot, entries, ops);
        self.news = self.position;
    }

    /// The next segments have this size in bytes, at least [`MIN_SEGMENT_BYTES`].
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        assert!(bytes >= MIN_SEGMENT_BYTES, "a segment of {bytes} bytes");
        self.config.segment_bytes = bytes;
    }

    /// The end of what was appended so far.
    pub fn position(&self) -> WalPosition {
        self.position
    }

    /// Takes note that everything below `up_to` is durable. Later records vouch for it.
    ///
    /// # Panics
    /// If `up_to` is beyond [`position`](Self::position).
    pub fn synced(&mut self, up_to: WalPosition) {
        assert!(up_to <= self.position, "{up_to:?} synced, but only {:?} written", self.position);
        self.synced = self.synced.max(up_to);
        let regained = self.lost.and_then(|lost| lost.regained);
        // Not the watermark, which is ahead of the disk as soon as a later segment is begun.
        if regained.is_some_and(|end| end <= up_to) {
            self.lost = None;
        }
    }

    /// Removes segments that are not needed, because the newest durable snapshot marker covers all
    /// their entries. The removals may come undone in a crash, which is harmless.
    pub fn compact(&mut self, ops: &mut Vec<DiskOp>) {
        while let Some(&(end, floor)) = self.markers.front()
            && end <= self.synced
        {
            self.needed_from = floor;
            self.markers.pop_front();
        }
        while let Some(&number) = self.older.front()
            && number < self.needed_from
        {
            ops.push(DiskOp::Remove { file: FileName::Segment(number) });
            self.older.pop_front();
        }
        // As long as nobody has given back what is damaged, it is all that is left of it.
        if self.synced > self.spares_for && self.lost.is_none() {
            let spares = self.spares.drain(..).map(FileName::Segment);
            ops.extend(spares.map(|file| DiskOp::Remove { file }));
        }
    }

    /// Appends a small record that vouches for the last one, if that is durable and nothing else
    /// does. To be called when the node is idle. Returns whether there was something to do; a
    /// record that only vouches needs none in its turn, so this settles.
    pub fn vouch(&mut self, hard_state: HardState, ops: &mut Vec<DiskOp>) -> bool {
        if self.news > self.synced || self.news <= self.vouched {
            return false;
        }
        // A commit index is only a hint, but a term or a vote is a promise.
        let promise = (hard_state.term, hard_state.vote);
        let news = promise != (self.hard_state.term, self.hard_state.vote);
        self.write(hard_state, None, &[], ops);
        if news {
            self.news = self.position;
        }
        true
    }

    /// The floor that the log has not reached durably yet; see [`Damage::floor`].
    pub fn floor(&self) -> Option<SnapshotId> {
        self.lost.map(|lost| lost.floor)
    }

    /// How many segment files there are.
    pub fn segments(&self) -> usize {
        self.older.len() + self.spares.len() + 1
    }

    /// The last index of the log, that of the snapshot marker if no entries follow it.
    pub fn last_index(&self) -> LogIndex {
        self.outline.last()
    }

    fn write(
        &mut self,
        hard_state: HardState,
        snapshot: Option<SnapshotId>,
        entries: &[Entry],
        ops: &mut Vec<DiskOp>,
    ) {
        assert!(hard_state.term >= self.hard_state.term, "the term went backwards");
        let longest = record::encoded_len(entries, self.stated_floor().is_some()) as u64;
        // Before anything changes: the header of a new segment restates what was so far.
        if self.position.offset + longest > self.segment_len {
            self.rotate(longest, ops);
        }
        let mut kind = RecordKind::Append;
        if let Some(id) = snapshot
            && !self.outline.mark(id)
        {
            kind = RecordKind::Install;
        }
        self.outline.append(entries, self.position.segment);
        assert!(hard_state.commit <= self.outline.last(), "the commit index is beyond the log");
        self.hard_state = hard_state;
        let last = self.outline.last_id();
        let floor = self.stated_floor().filter(|floor| last.rank() < floor.rank());

        let head = Head {
            kind,
            position: self.position,
            synced: self.synced,
            hard_state,
            snapshot,
            last_index: self.outline.last(),
            floor,
        };
        let mut data = Vec::with_capacity(longest as usize);
        record::encode(&head, entries, &mut data);
        let len = data.len() as u64;
        assert!(len <= longest);

        let file = FileName::Segment(self.position.segment);
        if ops.last() == Some(&DiskOp::Sync { file }) {
            ops.pop();
        }
        ops.push(DiskOp::Write { file, offset: self.position.offset, data: Bytes::from(data) });
        ops.push(DiskOp::Sync { file });
        self.position.offset += len;
        self.vouched = self.synced;
        if let Some(lost) = &mut self.lost
            && lost.regained.is_none()
            && floor.is_none()
        {
            lost.regained = Some(self.position);
        }
        if snapshot.is_some() {
            self.markers.push_back((self.position, self.outline.floor(self.position.segment)));
        }
    }

    /// The floor that the next record has to state, if it does not reach it.
    fn stated_floor(&self) -> Option<SnapshotId> {
        self.lost.filter(|lost| lost.regained.is_none()).map(|lost| lost.floor)
    }

    /// Starts the next segment, with room for a record of `len` bytes at least.
    fn rotate(&mut self, len: u64, ops: &mut Vec<DiskOp>) {
        let full = self.position;
        self.older.push_back(full.segment);
        self.open_segment(full.segment + 1, full, len, ops);
    }

    /// Starts the segment `number`, which follows on `previous`. Everything up to there must be
    /// durable once the operations before are done. The segment's name and header are made durable
    /// before any record is written to it: so a segment with a record has a header.
    fn open_segment(
        &mut self,
        number: u64,
        previous: WalPosition,
        len: u64,
        ops: &mut Vec<DiskOp>,
    ) {
        let mut head = Head {
            kind: RecordKind::Header,
            position: WalPosition { segment: number, offset: segment::PREAMBLE as u64 },
            synced: previous,
            hard_state: self.hard_state,
            snapshot: self.outline.snapshot(),
            last_index: self.outline.last(),
            floor: self.stated_floor(),
        };
        if planted(Bug::RemovalDropsHardState) {
            let term = self.outline.last_id().term;
            head.hard_state = HardState { term, vote: NodeId(0), ..head.hard_state };
        }
        let file = FileName::Segment(number);
        let end = segment::header_end(head.floor);
        self.segment_len = self.config.segment_bytes.max(end + len);
        ops.extend([
            DiskOp::Create { file, len: self.segment_len },
            DiskOp::Write { file, offset: 0, data: segment::encode_header(&head) },
            DiskOp::Sync { file },
        ]);
        if !planted(Bug::SegmentDirNotSynced) {
            ops.push(DiskOp::SyncDir);
        }
        self.position = WalPosition { segment: number, offset: end };
        // True whenever a later record can be read: the sync above comes before its write.
        self.synced = self.position;
        self.vouched = previous;
    }
}
