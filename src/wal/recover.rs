//! Reading the log after a crash, and the operations that make it safe to go on.
//!
//! The newest segment with a good header says how things stand and names the segment before it;
//! from there the chain is followed backwards until every entry behind the snapshot marker is
//! found. Nothing is changed before all of it is known to be good.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::outline::Outline;
use super::record::{Record, RecordKind};
use super::segment::{self, Contents, corrupt};
use super::{MIN_SEGMENT_BYTES, Wal, WalConfig, WalPosition};
use crate::env::{Disk, DiskOp, FileName};
use crate::error::Error;
use crate::types::{Entry, HardState, LogIndex, SnapshotId};

/// What the log held when the node started.
#[derive(Debug)]
pub struct Recovered {
    /// The log, ready for appending.
    pub wal: Wal,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The newest snapshot marker; the snapshot itself is a file of its own.
    pub snapshot: Option<SnapshotId>,
    /// The entries behind the snapshot marker, contiguous.
    pub entries: Vec<Entry>,
    /// Must be submitted first, as the first batch. Only when it is done may the node act on what
    /// was recovered: until then it may be no more than the content of a cache.
    pub ops: Vec<DiskOp>,
    /// The torn tail that was cut off, if there was one.
    pub torn: Option<TornTail>,
}

/// Bytes at the end of the log that never became durable as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment they are in.
    pub file: FileName,
    /// Where they begin, in bytes.
    pub offset: u64,
    /// How many bytes there are, up to the last that is not zero.
    pub bytes: u64,
}

/// A segment of the chain.
struct Link {
    number: u64,
    header: Record,
    contents: Contents,
    /// The valid bytes that nothing vouches for.
    unvouched: Bytes,
}

impl Wal {
    /// Reads the directory; an empty one is a new log. Changes nothing by itself: the operations
    /// that have to come first are in the result.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if durable bytes are damaged or missing, [`Error::NewerVersion`] if a
    /// newer version wrote them, [`Error::Disk`] if they cannot be read, [`Error::Config`] if the
    /// segment size is too small.
    pub fn recover(disk: &mut dyn Disk, config: WalConfig) -> Result<Recovered, Error> {
        if config.segment_bytes < MIN_SEGMENT_BYTES {
            return Err(Error::Config(format!(
                "segment_bytes is {}, but must be at least {MIN_SEGMENT_BYTES}",
                config.segment_bytes
            )));
        }
        let files = disk.list()?;
        let found: BTreeSet<u64> = files
            .into_iter()
            .filter_map(|file| match file {
                FileName::Segment(number) => Some(number),
                FileName::Snapshot(..) | FileName::Partial(..) => None,
            })
            .collect();
        let Some(&newest) = found.last() else {
            return Ok(begin(config, &[], 1));
        };
        if newest > u64::MAX / 2 {
            return Err(corrupt(newest, 0, "no segment can have a number this large"));
        }
        match newest_link(disk, &found)? {
            Some(link) => {
                let chain = follow(disk, &found, link)?;
                Ok(go_on(config, chain, &found, newest + 1))
            }
            // A first start that did not get far.
            None => {
                let void: Vec<u64> = found.into_iter().collect();
                Ok(begin(config, &void, newest + 1))
            }
        }
    }
}

/// Finds the newest segment with a good header. Ones without it were being created when a crash
/// came, so they cannot hold records; if one does, its header was good once.
fn newest_link(disk: &mut dyn Disk, found: &BTreeSet<u64>) -> Result<Option<Link>, Error> {
    for &number in found.iter().rev() {
        let data = disk.load(FileName::Segment(number))?;
        if let Some(header) = segment::decode_header(number, &data)? {
            let contents = segment::replay(number, &data, &header, None)?;
            let unvouched = data.slice(contents.synced as usize..contents.end as usize);
            return Ok(Some(Link { number, header, contents, unvouched }));
        }
        let mut records = segment::survivors(number, &data, 0);
        if let Some(record) = records.find(|record| record.kind != RecordKind::Header) {
            let at = record.position.offset;
            let reason = format!("the header is damaged, though a record follows at {at}");
            return Err(corrupt(number, 0, reason));
        }
    }
    Ok(None)
}

/// Follows the chain backwards from its newest link until all entries behind the snapshot marker
/// are there. Each link keeps only the entries that are still part of the log. Newest first.
fn follow(disk: &mut dyn Disk, found: &BTreeSet<u64>, newest: Link) -> Result<Vec<Link>, Error> {
    let Contents { hard_state, snapshot, last, end, start, .. } = newest.contents;
    if hard_state.commit > last {
        let reason = format!("entries up to {} are committed, but missing", hard_state.commit);
        return Err(corrupt(newest.number, end, format!("{reason} from {} on", last + 1)));
    }
    let first = snapshot.map_or(1, |id| id.index + 1);
    let mut have: LogIndex = start;
    let mut chain = vec![newest];
    while have > first {
        let mut link = previous(disk, found, &chain[chain.len() - 1], first..have)?;
        let contents = &mut link.contents;
        contents.entries.truncate(have.saturating_sub(contents.start) as usize);
        let covered = (first.saturating_sub(contents.start) as usize).min(contents.entries.len());
        contents.entries.drain(..covered);
        have = have.min(contents.start);
        chain.push(link);
    }
    Ok(chain)
}

/// Reads the segment before `next`, because it or an older one has the entries `needed`.
fn previous(
    disk: &mut dyn Disk,
    found: &BTreeSet<u64>,
    next: &Link,
    needed: std::ops::Range<LogIndex>,
) -> Result<Link, Error> {
    let WalPosition { segment: number, offset: end } = next.header.synced;
    let needed = format!("the entries {} to {}", needed.start, needed.end - 1);
    if number == 0 {
        let at = segment::PREAMBLE as u64;
        return Err(corrupt(next.number, at, format!("{needed} are missing before this segment")));
    }
    if !found.contains(&number) {
        return Err(corrupt(number, 0, format!("the file is missing, and {needed} with it")));
    }
    let data: Bytes = disk.load(FileName::Segment(number))?;
    let Some(header) = segment::decode_header(number, &data)? else {
        return Err(corrupt(number, 0, format!("the header is damaged before {needed}")));
    };
    let contents = segment::replay(number, &data, &header, Some(end))?;
    let index = |id: Option<SnapshotId>| id.map_or(0, |id| id.index);
    if contents.last != next.header.last_index
        || contents.hard_state.term > next.header.hard_state.term
        || index(contents.snapshot) > index(next.header.snapshot)
    {
        let reason = format!("what follows in {} does not fit", FileName::Segment(next.number));
        return Err(corrupt(number, end, reason));
    }
    Ok(Link { number, header, contents, unvouched: Bytes::new() })
}

/// A new log, whose first segment is `number`. `void` are segments that never came to be.
fn begin(config: WalConfig, void: &[u64], number: u64) -> Recovered {
    let mut ops = Vec::new();
    remove(void, &mut ops);
    let mut wal = Wal::new(config, HardState::default(), Outline::new(None));
    wal.open_segment(number, WalPosition::default(), 0, &mut ops);
    let hard_state = HardState::default();
    Recovered { wal, hard_state, snapshot: None, entries: Vec::new(), ops, torn: None }
}

/// Goes on after the end of `chain` (newest first) with the new segment `number`.
fn go_on(config: WalConfig, chain: Vec<Link>, found: &BTreeSet<u64>, number: u64) -> Recovered {
    let Contents { hard_state, snapshot, torn, synced, .. } = chain[0].contents;
    let unvouched = chain[0].unvouched.clone();
    // Newer segments without entries are not linked to, or restarts would pile them up.
    let tail = chain.iter().position(|link| !link.contents.entries.is_empty());
    let spares = tail.unwrap_or(chain.len());
    let previous = tail.map_or(WalPosition::default(), |at| {
        let end = chain[at].contents.end;
        WalPosition { segment: chain[at].number, offset: end }
    });
    let numbers: Vec<u64> = chain.iter().map(|link| link.number).collect();

    let mut outline = Outline::new(snapshot);
    let mut entries = Vec::new();
    for Link { number, contents, .. } in chain.into_iter().rev() {
        outline.append(&contents.entries, number);
        // Copied, so that a few entries do not keep a whole segment in memory.
        entries.extend(contents.entries.into_iter().map(|mut entry| {
            entry.data = Bytes::copy_from_slice(&entry.data);
            entry
        }));
    }

    // What was read may have been in a cache only, names too. Make it durable before building on
    // it, and before removing what it stands for. A sync alone would not do: after one that failed
    // the cache may show as clean what never reached the disk (ATC'20), so write it again.
    let file = FileName::Segment(numbers[0]);
    let mut ops = Vec::new();
    if !unvouched.is_empty() {
        ops.push(DiskOp::Write { file, offset: synced, data: unvouched });
    }
    ops.extend([DiskOp::Sync { file }, DiskOp::SyncDir]);
    let unused: Vec<u64> = found.iter().copied().filter(|n| !numbers.contains(n)).collect();
    remove(&unused, &mut ops);
    let mut wal = Wal::new(config, hard_state, outline);
    wal.open_segment(number, previous, 0, &mut ops);
    wal.spares = numbers[..spares].to_vec();
    wal.spares_for = wal.position;
    wal.older = numbers[spares..].iter().rev().copied().collect();
    Recovered { wal, hard_state, snapshot, entries, ops, torn }
}

/// Removes segments for good, so that their numbers may be used again.
fn remove(numbers: &[u64], ops: &mut Vec<DiskOp>) {
    if numbers.is_empty() {
        return;
    }
    ops.extend(numbers.iter().map(|&n| DiskOp::Remove { file: FileName::Segment(n) }));
    ops.push(DiskOp::SyncDir);
}
