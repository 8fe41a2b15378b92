//! One record of the log as bytes. The layout is in the documentation of the parent module.
//!
//! A record says where it belongs (segment and offset, under the checksum), so bytes of a former
//! use of a file, or written to the wrong place, are never taken for it, and a reader that has lost
//! its way can find the next record by looking for one that knows where it is.

use bytes::{BufMut, Bytes};

use super::WalPosition;
use super::segment::{PREAMBLE, is_preamble};
use crate::bugs::{Bug, planted};
use crate::types::{Entry, EntryKind, HardState, LogIndex, NodeId, SnapshotId};

/// Bytes of a record before its floor and its entries.
pub(super) const FIXED: usize = 96;
/// Bytes of a floor.
pub(super) const FLOOR: usize = 16;
/// Where a record says whether it has a floor.
const FLAGS: usize = 93;
/// Bytes of an entry before its data.
const ENTRY: usize = 13;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;

/// What a record does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Opens a segment and restates what is so already; changes nothing.
    Header = 1,
    /// Moves the snapshot marker, if there is one, keeping the log behind it; then cuts off what
    /// the entries replace, and appends them.
    Append = 2,
    /// Drops the whole log in favour of the snapshot, then appends the entries.
    Install = 3,
}

/// One record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it does to the log.
    pub kind: RecordKind,
    /// Where it begins.
    pub position: WalPosition,
    /// The watermark: everything below was durable when this was written.
    pub synced: WalPosition,
    /// The hard state from here on.
    pub hard_state: HardState,
    /// The snapshot marker, if the record sets (or, in a header, restates) one.
    pub snapshot: Option<SnapshotId>,
    /// The last index of the log after this record.
    pub last_index: LogIndex,
    /// What the log must reach to be whole again; see [`Damage::floor`](super::Damage::floor).
    pub floor: Option<SnapshotId>,
    /// Contiguous entries, the last of which has `last_index`.
    pub entries: Vec<Entry>,
}

/// A record that is about to be written, without its entries.
pub(super) struct Head {
    pub(super) kind: RecordKind,
    pub(super) position: WalPosition,
    pub(super) synced: WalPosition,
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) last_index: LogIndex,
    pub(super) floor: Option<SnapshotId>,
}

/// How many bytes a record with these entries takes, with a floor or without.
pub(super) fn encoded_len(entries: &[Entry], floor: bool) -> usize {
    let entries: usize = entries.iter().map(|entry| ENTRY + entry.data.len()).sum();
    (FIXED + usize::from(floor) * FLOOR + entries).next_multiple_of(ALIGN)
}

/// Appends the record to `out`.
pub(super) fn encode(head: &Head, entries: &[Entry], out: &mut Vec<u8>) {
    let begin = out.len();
    let len = encoded_len(entries, head.floor.is_some());
    let snapshot = head.snapshot.unwrap_or_default();
    out.put_u32_le(u32::try_from(len).expect("a record is smaller than 4 GiB"));
    out.put_u32_le(0);
    for number in [
        head.position.segment,
        head.position.offset,
        head.synced.segment,
        head.synced.offset,
        head.hard_state.term,
        head.hard_state.vote.0,
        head.hard_state.commit,
        snapshot.index,
        snapshot.term,
        head.last_index,
    ] {
        out.put_u64_le(number);
    }
    out.put_u32_le(u32::try_from(entries.len()).expect("a record has fewer than 2^32 entries"));
    out.put_slice(&[head.kind as u8, u8::from(head.floor.is_some()), 0, 0]);
    if let Some(floor) = head.floor {
        out.put_u64_le(floor.index);
        out.put_u64_le(floor.term);
    }
    for entry in entries {
        out.put_u64_le(entry.term);
        out.put_u8(match entry.kind {
            EntryKind::Normal => 0,
            EntryKind::Membership => 1,
        });
        out.put_u32_le(u32::try_from(entry.data.len()).expect("bounded by the record's length"));
        out.put_slice(&entry.data);
    }
    out.resize(begin + len, 0);
    let crc = checksum(&out[begin..]);
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("8 bytes"))
}

fn position_at(data: &[u8], at: usize) -> WalPosition {
    WalPosition { segment: u64_at(data, at), offset: u64_at(data, at + 8) }
}

/// Whether what begins at `at` claims to be the record of that place. Says nothing else about it.
pub(super) fn claims_place(data: &[u8], at: usize, segment: u64) -> bool {
    data.len() - at >= FIXED
        && position_at(data, at + 8) == WalPosition { segment, offset: at as u64 }
}

/// Decodes the record at the beginning of `data`, which may be longer, and returns it with its
/// length. `Err` says what is wrong with it.
pub(super) fn decode(data: &Bytes) -> Result<(Record, usize), &'static str> {
    if data.len() < FIXED {
        return Err("the record is cut short");
    }
    let len = u32_at(data, 0) as usize;
    if len < FIXED || !len.is_multiple_of(ALIGN) || len > data.len() {
        return Err("the record's length is impossible");
    }
    let data = data.slice(..len);
    if u32_at(&data, 4) != checksum(&data) && !planted(Bug::ChecksumIgnored) {
        return Err("the checksum of the record is wrong");
    }
    let kind = match data[92] {
        1 => RecordKind::Header,
        2 => RecordKind::Append,
        3 => RecordKind::Install,
        _ => return Err("the kind of the record is unknown"),
    };
    let floor = match data[FLAGS..FIXED] {
        [0, 0, 0] => None,
        [1, 0, 0] if len >= FIXED + FLOOR => {
            Some(SnapshotId { index: u64_at(&data, FIXED), term: u64_at(&data, FIXED + 8) })
        }
        _ => return Err("the record has parts that are unknown"),
    };
    let id = SnapshotId { index: u64_at(&data, 64), term: u64_at(&data, 72) };
    let mut record = Record {
        kind,
        position: position_at(&data, 8),
        synced: position_at(&data, 24),
        hard_state: HardState {
            term: u64_at(&data, 40),
            vote: NodeId(u64_at(&data, 48)),
            commit: u64_at(&data, 56),
        },
        snapshot: (id.index > 0).then_some(id),
        last_index: u64_at(&data, 80),
        floor,
        entries: Vec::new(),
    };
    let begin = FIXED + if floor.is_some() { FLOOR } else { 0 };
    record.entries = decode_entries(&data, begin, u32_at(&data, 88), record.last_index)?;
    check(&record)?;
    Ok((record, len))
}

/// Decodes `count` entries of a record that begin at `begin`, the last with the index `last`.
fn decode_entries(
    data: &Bytes,
    begin: usize,
    count: u32,
    last: LogIndex,
) -> Result<Vec<Entry>, &'static str> {
    let count = count as usize;
    if count > (data.len() - begin) / ENTRY {
        return Err("the record has no room for its entries");
    }
    // Beyond this the index after the last would overflow; no log gets there.
    if last == LogIndex::MAX || last < count as u64 {
        return Err("the indexes of the record's entries are impossible");
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = begin;
    for left in (0..count as u64).rev() {
        if data.len() - at < ENTRY {
            return Err("an entry is cut short");
        }
        let len = u32_at(data, at + 9) as usize;
        let kind = match data[at + 8] {
            0 => EntryKind::Normal,
            1 => EntryKind::Membership,
            _ => return Err("the kind of an entry is unknown"),
        };
        if len > data.len() - at - ENTRY {
            return Err("an entry is cut short");
        }
        let (term, begin) = (u64_at(data, at), at + ENTRY);
        at = begin + len;
        entries.push(Entry { index: last - left, term, kind, data: data.slice(begin..at) });
    }
    if data.len() - at >= ALIGN || data[at..].iter().any(|&byte| byte != 0) {
        return Err("the record is longer than its entries");
    }
    Ok(entries)
}

/// What must hold within any one record.
fn check(record: &Record) -> Result<(), &'static str> {
    if record.synced > record.position {
        return Err("the record vouches for more than was written");
    }
    if record.snapshot.is_some_and(|id| id.index > record.last_index) {
        return Err("the snapshot marker is beyond the log");
    }
    match record.kind {
        RecordKind::Header if !record.entries.is_empty() => Err("the header has entries"),
        RecordKind::Header if record.synced.segment == record.position.segment => {
            Err("the header names its own segment as the one before")
        }
        RecordKind::Install if record.snapshot.is_none() => {
            Err("the installed snapshot is missing")
        }
        _ => Ok(()),
    }
}

/// Decodes the records in the data of one [`DiskOp::Write`](crate::env::DiskOp::Write) that the log
/// emitted: for checkers that watch what reaches the disk. Ends after the first error.
///
/// # Errors
/// Each item is a record, or says what is wrong with the bytes.
pub fn decode_records(data: &[u8]) -> impl Iterator<Item = Result<Record, &'static str>> {
    let begin = if is_preamble(data) { PREAMBLE } else { 0 };
    let mut rest = Bytes::copy_from_slice(&data[begin..]);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let decoded = decode(&rest);
        let read = decoded.as_ref().map_or(rest.len(), |(_, len)| *len);
        rest = rest.slice(read..);
        Some(decoded.map(|(record, _)| record))
    })
}
