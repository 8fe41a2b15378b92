//! One segment file: its header, and what is left of the log in it after a crash.
//!
//! A segment is replayed on its own, from what its header restates. Entries it does not hold itself
//! are in older segments, or not needed any more.

use bytes::{BufMut, Bytes};

use super::record::{self, ALIGN, FIXED, FLOOR, Head, Record, RecordKind};
use super::recover::TornTail;
use crate::bugs::{Bug, planted};
use crate::env::FileName;
use crate::error::Error;
use crate::types::{Entry, HardState, LogIndex, SnapshotId};

const MAGIC: [u8; 8] = *b"stormwal";
/// The format version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 2;
/// Bytes before the first record.
pub(super) const PREAMBLE: usize = 16;
/// Where the record after the header begins, at the earliest and at the latest.
pub(super) const HEADER_END: u64 = (PREAMBLE + FIXED) as u64;
const HEADER_ENDS_BY: u64 = HEADER_END + FLOOR as u64;

/// Where the record after a header with this floor begins.
pub(super) fn header_end(floor: Option<SnapshotId>) -> u64 {
    if floor.is_some() { HEADER_ENDS_BY } else { HEADER_END }
}

/// Damage to what was durable.
#[derive(Clone, Debug)]
pub(super) struct Flaw {
    pub(super) file: FileName,
    pub(super) offset: u64,
    pub(super) reason: String,
}

impl Flaw {
    pub(super) fn new(segment: u64, offset: u64, reason: impl Into<String>) -> Flaw {
        Flaw { file: FileName::Segment(segment), offset, reason: reason.into() }
    }
}

/// What a segment comes to.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Where the valid part ends.
    pub(super) end: u64,
    /// Up to where the segment itself says that it was durable, at least.
    pub(super) synced: u64,
    /// What was cut off there.
    pub(super) torn: Option<TornTail>,
    /// Why the valid part ends there, if it should not.
    pub(super) flaw: Option<Flaw>,
    /// The floor that the last record states.
    pub(super) floor: Option<SnapshotId>,
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotId>,
    /// The log from here on is in `entries`; below, it is as older segments have it.
    pub(super) start: LogIndex,
    /// The last index of the log.
    pub(super) last: LogIndex,
    pub(super) entries: Vec<Entry>,
}

/// The damage at `offset` of a segment, as an error.
pub(super) fn corrupt(segment: u64, offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { file: FileName::Segment(segment), offset, reason: reason.into() }
}

/// The first bytes of a segment.
pub(super) fn encode_header(head: &Head) -> Bytes {
    let mut data = Vec::with_capacity(HEADER_ENDS_BY as usize);
    data.put_slice(&MAGIC);
    data.put_u32_le(VERSION);
    data.put_u32_le(crc32fast::hash(&data));
    record::encode(head, &[], &mut data);
    Bytes::from(data)
}

/// Whether `data` begins as a segment does, of any version.
pub(super) fn is_preamble(data: &[u8]) -> bool {
    data.len() >= PREAMBLE
        && data[..8] == MAGIC
        && data[12..PREAMBLE] == crc32fast::hash(&data[..12]).to_le_bytes()
}

/// Reads the header of the segment `number`; `None` if it is damaged or was never written.
pub(super) fn decode_header(number: u64, data: &Bytes) -> Result<Option<Record>, Error> {
    if !is_preamble(data) {
        return Ok(None);
    }
    let found = u32::from_le_bytes(data[8..12].try_into().expect("4 bytes"));
    if found > VERSION {
        let file = FileName::Segment(number);
        return Err(Error::NewerVersion { file, found, supported: VERSION });
    }
    if found == 0 || !record::claims_place(data, PREAMBLE, number) {
        return Ok(None);
    }
    let record = record::decode(&data.slice(PREAMBLE..)).ok().map(|(record, _)| record);
    Ok(record.filter(|record| record.kind == RecordKind::Header))
}

/// Whether something was written behind the header, wherever that ends. It was durable by then.
pub(super) fn was_written_to(data: &[u8]) -> bool {
    data.iter().skip(HEADER_ENDS_BY as usize).any(|&byte| byte != 0)
}

/// The valid records from `from` on, wherever they are, and where each ends: for a reader that met
/// a bad one.
pub(super) fn survivors(
    number: u64,
    data: &Bytes,
    from: usize,
) -> impl Iterator<Item = (Record, usize)> {
    let mut at = from.next_multiple_of(ALIGN);
    std::iter::from_fn(move || {
        while at + FIXED <= data.len() {
            // Looking at the place first keeps this linear: few bytes claim to be at home there.
            let found = record::claims_place(data, at, number)
                .then(|| record::decode(&data.slice(at..)).ok())
                .flatten();
            let Some((record, len)) = found else {
                at += ALIGN;
                continue;
            };
            at += len;
            return Some((record, at));
        }
        None
    })
}

/// Replays the segment `number` behind its `header`. A segment that has a successor is valid up to
/// `end`, which the successor's header says; the last one has no known end, so its tail may be torn.
pub(super) fn replay(number: u64, data: &Bytes, header: &Record, end: Option<u64>) -> Contents {
    let begin = header_end(header.floor);
    let limit = end.map_or(data.len(), |end| (end.max(begin) as usize).min(data.len()));
    let mut contents = Contents {
        end: begin,
        synced: 0,
        torn: None,
        flaw: None,
        floor: header.floor,
        hard_state: header.hard_state,
        snapshot: header.snapshot,
        start: header.last_index + 1,
        last: header.last_index,
        entries: Vec::new(),
    };
    let mut at = begin as usize;
    let bad = loop {
        if at == limit {
            let cut_short = end.is_some_and(|end| end != at as u64);
            break cut_short.then_some("the file is too short");
        }
        if !record::claims_place(data, at, number) {
            break Some("no record where one should be");
        }
        match record::decode(&data.slice(at..limit)) {
            Ok((record, len)) => {
                let synced = record.synced;
                if let Err(reason) = contents.apply(record) {
                    // It may have been taken in by half.
                    return Contents::nothing(Flaw::new(number, at as u64, reason));
                }
                if synced.segment == number {
                    contents.synced = contents.synced.max(synced.offset);
                }
                at += len;
            }
            Err(reason) => break Some(reason),
        }
    };
    contents.end = at as u64;
    if let Some(reason) = bad {
        let torn = match end {
            Some(_) => Err(Flaw::new(number, at as u64, reason)),
            None => torn_tail(number, data, at, reason),
        };
        match torn {
            Ok(torn) => contents.torn = torn,
            Err(flaw) => contents.flaw = Some(flaw),
        }
    }
    contents
}

/// The place of the last byte that is not zero. Most of a new segment is zeros, so whole blocks of them
/// are compared at once.
fn last_written(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 1024] = [0; 1024];
    let mut rest = bytes;
    while let Some((before, block)) = rest.split_last_chunk()
        && *block == ZEROS
    {
        rest = before;
    }
    rest.iter().rposition(|&byte| byte != 0)
}

/// Decides what the bytes from `at` on are, where no valid record is: nothing, a torn tail, or
/// damage to what was durable.
fn torn_tail(number: u64, data: &Bytes, at: usize, reason: &str) -> Result<Option<TornTail>, Flaw> {
    let Some(bytes) = last_written(&data[at..]) else { return Ok(None) };
    let file = FileName::Segment(number);
    let torn = TornTail { file, offset: at as u64, bytes: bytes as u64 + 1 };
    // No record before the bad place can vouch for anything behind itself.
    for (record, _) in survivors(number, data, at) {
        if planted(Bug::CorruptionIsTornTail) {
            break;
        }
        if record.synced.segment == number && record.synced.offset > torn.offset {
            let voucher = record.position.offset;
            let reason = format!("{reason}, though the record at {voucher} vouches for it");
            return Err(Flaw::new(number, torn.offset, reason));
        }
    }
    Ok(Some(torn))
}

impl Contents {
    /// What is left of a segment that cannot be replayed.
    pub(super) fn nothing(flaw: Flaw) -> Contents {
        Contents { end: flaw.offset, flaw: Some(flaw), start: 1, ..Contents::default() }
    }

    /// Takes in the next record. `Err` says what rule it breaks; no crash can make it do so.
    fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        if record.hard_state.term < self.hard_state.term {
            return Err("the term goes backwards");
        }
        self.hard_state = record.hard_state;
        self.floor = record.floor;
        if let Some(id) = record.snapshot
            && self.snapshot.is_some_and(|old| old.index > id.index)
        {
            return Err("the snapshot marker goes backwards");
        }
        match (record.kind, record.snapshot) {
            (RecordKind::Header, _) => return Err("a header is not at the beginning"),
            (RecordKind::Install, Some(id)) => {
                self.entries.clear();
                self.start = id.index + 1;
                self.last = id.index;
            }
            (_, Some(id)) => self.keep_after(id)?,
            (_, None) => {}
        }
        self.snapshot = record.snapshot.or(self.snapshot);
        self.extend(record.entries)?;
        if self.last != record.last_index {
            return Err("the log does not end where the record says");
        }
        Ok(())
    }

    /// Drops entries up to a snapshot marker that lies on the log.
    fn keep_after(&mut self, id: SnapshotId) -> Result<(), &'static str> {
        if id.index > self.last {
            return Err("the snapshot marker is beyond the log");
        }
        if id.index >= self.start {
            let covered = (id.index - self.start) as usize;
            if self.entries[covered].term != id.term {
                return Err("the snapshot marker has another term than its entry");
            }
            self.entries.drain(..=covered);
            self.start = id.index + 1;
        }
        Ok(())
    }

    fn extend(&mut self, entries: Vec<Entry>) -> Result<(), &'static str> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        if first > self.last + 1 {
            return Err("the entries leave a gap");
        }
        if self.snapshot.is_some_and(|id| first <= id.index) {
            return Err("the entries reach into the snapshot");
        }
        let keep = (first.saturating_sub(self.start) as usize).min(self.entries.len());
        let replaced = self.entries.split_off(keep);
        self.start = self.start.min(first);
        self.last = first - 1 + entries.len() as u64;
        let count = entries.len();
        self.entries.extend(entries);
        if planted(Bug::ConflictNotTruncated) {
            self.entries.extend(replaced.into_iter().skip(count));
        }
        Ok(())
    }
}
