//! Reading the log after a crash, and the operations that make it safe to go on.
//!
//! The newest segment with a good header says how things stand and names the segment before it;
//! from there the chain is followed backwards until every entry behind the snapshot marker is
//! found. Nothing is changed before all of it is read. What becomes of a log that is damaged is in
//! `salvage.rs`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::outline::Outline;
use super::record::{Record, RecordKind};
use super::salvage;
use super::segment::{self, Contents, Flaw, corrupt};
use super::{Damage, Lost, MIN_SEGMENT_BYTES, Wal, WalConfig, WalPosition};
use crate::env::{Disk, DiskOp, FileName};
use crate::error::Error;
use crate::types::{Entry, HardState, LogIndex, SnapshotId};

/// What the log held when the node started.
#[derive(Debug)]
pub struct Recovered {
    /// The log, ready for appending.
    pub wal: Wal,
    /// The newest hard state; of a damaged log, a new term without a vote.
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
    /// What the log has lost and not got back since, if anything.
    pub damage: Option<Damage>,
    /// The damage was found only now, and nothing was changed because of it so far.
    pub newly_damaged: bool,
    /// A newly damaged log still shows changes of the membership behind the snapshot.
    pub reconfigures: bool,
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

/// Says whether the snapshot file of this name can be used: it is there, and all of it is good.
pub type CheckSnapshot<'a> = dyn FnMut(&mut dyn Disk, SnapshotId) -> Result<(), Error> + 'a;

/// A segment of the chain.
pub(super) struct Link {
    pub(super) number: u64,
    /// `None` if it is damaged.
    pub(super) header: Option<Record>,
    /// The whole segment, up to where it is known to end.
    pub(super) data: Bytes,
    pub(super) contents: Contents,
}

/// The directory of a log.
pub(super) struct Directory<'a> {
    pub(super) disk: &'a mut dyn Disk,
    pub(super) segments: BTreeSet<u64>,
    /// The names of complete snapshots.
    pub(super) snapshots: BTreeSet<SnapshotId>,
}

impl Wal {
    /// Reads the directory; an empty one is a new log. Changes nothing by itself: the operations
    /// that have to come first are in the result. Takes it for granted that the snapshots are good.
    ///
    /// # Errors
    /// As [`recover_with`](Self::recover_with).
    pub fn recover(disk: &mut dyn Disk, config: WalConfig) -> Result<Recovered, Error> {
        Wal::recover_with(disk, config, &mut |_, _| Ok(()))
    }

    /// Reads the directory, as [`recover`](Self::recover), with somebody who knows about snapshots.
    /// `check` is asked about the one that the log goes on from, and about others if that one is
    /// damaged; the last one that it approves of is the one that is used, if any is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if durable bytes are damaged and not even a hard state can be read behind
    /// them, [`Error::NewerVersion`] if a newer version wrote them, [`Error::Disk`] if they cannot
    /// be read, [`Error::Config`] if the segment size is too small.
    pub fn recover_with(
        disk: &mut dyn Disk,
        config: WalConfig,
        check: &mut CheckSnapshot<'_>,
    ) -> Result<Recovered, Error> {
        if config.segment_bytes < MIN_SEGMENT_BYTES {
            return Err(Error::Config(format!(
                "segment_bytes is {}, but must be at least {MIN_SEGMENT_BYTES}",
                config.segment_bytes
            )));
        }
        let mut directory = Directory::list(disk)?;
        let Some(&newest) = directory.segments.last() else {
            return Ok(begin(config, &[], 1));
        };
        if newest > u64::MAX / 2 {
            return Err(corrupt(newest, 0, "no segment can have a number this large"));
        }
        let Some(link) = directory.newest_link()? else {
            // A first start that did not get far.
            let void: Vec<u64> = directory.segments.into_iter().collect();
            return Ok(begin(config, &void, newest + 1));
        };
        let mut chain = vec![link];
        match directory.find_flaw(&mut chain, check)? {
            Some(flaw) => salvage::salvage(config, directory, chain, flaw, check),
            None => go_on(config, chain, directory, newest + 1),
        }
    }
}

impl<'a> Directory<'a> {
    fn list(disk: &'a mut dyn Disk) -> Result<Self, Error> {
        let (mut segments, mut snapshots) = (BTreeSet::new(), BTreeSet::new());
        for file in disk.list()? {
            match file {
                FileName::Segment(number) => {
                    segments.insert(number);
                }
                FileName::Snapshot(index, term) => {
                    snapshots.insert(SnapshotId { index, term });
                }
                FileName::Partial(..) => {}
            }
        }
        Ok(Directory { disk, segments, snapshots })
    }

    /// Finds the newest segment that holds anything. Ones without a good header were being created
    /// when a crash came, so they cannot hold records; if one does, its header was good once.
    fn newest_link(&mut self) -> Result<Option<Link>, Error> {
        for &number in self.segments.iter().rev() {
            let data = self.disk.load(FileName::Segment(number))?;
            if let Some(header) = segment::decode_header(number, &data)? {
                let contents = segment::replay(number, &data, &header, None);
                return Ok(Some(Link { number, header: Some(header), data, contents }));
            }
            let survivor = segment::survivors(number, &data, 0)
                .find(|(record, _)| record.kind != RecordKind::Header);
            if let Some((record, _)) = survivor {
                let at = record.position.offset;
                let reason = format!("the header is damaged, though a record follows at {at}");
                let contents = Contents::nothing(Flaw::new(number, 0, reason));
                return Ok(Some(Link { number, header: None, data, contents }));
            }
            // Whatever it said about terms and votes, nobody knows.
            if segment::was_written_to(&data) {
                return Err(corrupt(number, 0, "no record can be read, though there were some"));
            }
        }
        Ok(None)
    }

    /// Follows the chain, which begins as its newest link, as far as it is needed and good. Says
    /// what is wrong with its last link, or with the snapshot.
    fn find_flaw(
        &mut self,
        chain: &mut Vec<Link>,
        check: &mut CheckSnapshot<'_>,
    ) -> Result<Option<Flaw>, Error> {
        let Link { number, contents, .. } = &mut chain[0];
        let (snapshot, commit) = (contents.snapshot, contents.hard_state.commit);
        if let Some(flaw) = &contents.flaw {
            return Ok(Some(flaw.clone()));
        }
        if commit > contents.last {
            let next = contents.last + 1;
            let reason =
                format!("entries up to {commit} are committed, but missing from {next} on");
            let flaw = Flaw::new(*number, contents.end, reason);
            *contents = Contents::nothing(flaw.clone());
            return Ok(Some(flaw));
        }
        let unusable = snapshot.map(|id| self.check(id, check)).transpose()?.flatten();
        let flaw = self.follow(chain, snapshot.map_or(1, |id| id.index + 1))?;
        Ok(unusable.or(flaw))
    }

    /// Says what is wrong with a snapshot, if it cannot be used.
    pub(super) fn check(
        &mut self,
        id: SnapshotId,
        check: &mut CheckSnapshot<'_>,
    ) -> Result<Option<Flaw>, Error> {
        match check(self.disk, id) {
            Ok(()) => Ok(None),
            Err(Error::Corrupt { file, offset, reason }) => Ok(Some(Flaw { file, offset, reason })),
            Err(other) => Err(other),
        }
    }

    /// Follows the chain backwards from its last link until all entries from `first` on are there.
    /// Each link keeps only the entries that are still part of the log. Says what is wrong with the
    /// last link, if something is.
    pub(super) fn follow(
        &mut self,
        chain: &mut Vec<Link>,
        first: LogIndex,
    ) -> Result<Option<Flaw>, Error> {
        let mut have = chain[chain.len() - 1].contents.start;
        while have > first {
            let mut link = self.previous(&chain[chain.len() - 1], first..have)?;
            let contents = &mut link.contents;
            let flaw = contents.flaw.clone();
            if flaw.is_none() {
                contents.entries.truncate(have.saturating_sub(contents.start) as usize);
                let covered = first.saturating_sub(contents.start) as usize;
                contents.entries.drain(..covered.min(contents.entries.len()));
                have = have.min(contents.start);
            }
            chain.push(link);
            if flaw.is_some() {
                return Ok(flaw);
            }
        }
        Ok(None)
    }

    /// Reads the segment before `next`, because it or an older one has the entries `needed`.
    fn previous(&mut self, next: &Link, needed: std::ops::Range<LogIndex>) -> Result<Link, Error> {
        let header = next.header.as_ref().expect("the chain goes on behind good headers only");
        let WalPosition { segment: number, offset: end } = header.synced;
        let needed = format!("the entries {} to {}", needed.start, needed.end - 1);
        let nothing = |number, header, data, offset, reason: String| {
            let contents = Contents::nothing(Flaw::new(number, offset, reason));
            Ok(Link { number, header, data, contents })
        };
        if number == 0 {
            let at = segment::PREAMBLE as u64;
            let reason = format!("{needed} are missing before this segment");
            return nothing(next.number, None, Bytes::new(), at, reason);
        }
        if !self.segments.contains(&number) {
            let reason = format!("the file is missing, and {needed} with it");
            return nothing(number, None, Bytes::new(), 0, reason);
        }
        let mut data: Bytes = self.disk.load(FileName::Segment(number))?;
        let decoded = segment::decode_header(number, &data)?;
        data.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        let Some(own) = decoded else {
            let reason = format!("the header is damaged before {needed}");
            return nothing(number, None, data, 0, reason);
        };
        let contents = segment::replay(number, &data, &own, Some(end));
        let index = |id: Option<SnapshotId>| id.map_or(0, |id| id.index);
        if contents.flaw.is_none()
            && (contents.last != header.last_index
                || contents.hard_state.term > header.hard_state.term
                || index(contents.snapshot) > index(header.snapshot))
        {
            let reason = format!("what follows in {} does not fit", FileName::Segment(next.number));
            return nothing(number, Some(own), data, end, reason);
        }
        Ok(Link { number, header: Some(own), data, contents })
    }

    /// The segments that the log goes on without, because it states anew what they say: those that
    /// it can do without at once, and those that are still needed as long as it is damaged.
    fn unused(&mut self, used: &[u64], damaged: bool) -> Result<(Vec<u64>, Vec<u64>), Error> {
        let unused: Vec<u64> =
            self.segments.iter().copied().filter(|number| !used.contains(number)).collect();
        if !damaged {
            return Ok((unused, Vec::new()));
        }
        let (mut void, mut left) = (Vec::new(), Vec::new());
        for number in unused {
            let data = self.disk.load(FileName::Segment(number))?;
            let header = segment::decode_header(number, &data)?;
            // Otherwise each start of a damaged member would leave one behind.
            let is_later = header.is_some_and(|header| header.floor.is_some());
            if is_later { void.push(number) } else { left.push(number) }
        }
        Ok((void, left))
    }
}

/// A new log, whose first segment is `number`. `void` are segments that never came to be.
fn begin(config: WalConfig, void: &[u64], number: u64) -> Recovered {
    let mut ops = Vec::new();
    remove(void, &mut ops);
    let mut wal = Wal::new(config, HardState::default(), Outline::new(None));
    wal.open_segment(number, WalPosition::default(), 0, &mut ops);
    Recovered {
        wal,
        hard_state: HardState::default(),
        snapshot: None,
        entries: Vec::new(),
        ops,
        torn: None,
        damage: None,
        newly_damaged: false,
        reconfigures: false,
    }
}

/// Goes on after the end of a good `chain` (newest first) with the new segment `number`.
fn go_on(
    config: WalConfig,
    chain: Vec<Link>,
    mut directory: Directory<'_>,
    number: u64,
) -> Result<Recovered, Error> {
    let Contents { hard_state, snapshot, torn, floor, .. } = chain[0].contents;
    let newest = chain[0].number;
    let mut log = assemble(&chain, snapshot);
    let last = log.last();
    let floor = floor.filter(|floor| last.rank() < floor.rank());
    let damage = floor.map(|floor| Damage {
        file: FileName::Segment(newest),
        offset: segment::PREAMBLE as u64,
        reason: "it says that damage was found at an earlier start".to_owned(),
        floor,
    });
    let mut ops = chain[0].secure();
    let used: Vec<u64> = chain.iter().map(|link| link.number).collect();
    let (void, left) = directory.unused(&used, damage.is_some())?;
    remove(&void, &mut ops);
    log.spares.extend(left);
    let wal = log.open(config, hard_state, floor, number, &mut ops);
    Ok(Recovered {
        wal,
        hard_state,
        snapshot,
        entries: log.entries,
        ops,
        torn,
        damage,
        newly_damaged: false,
        reconfigures: false,
    })
}

/// A log, put together from its links.
pub(super) struct Assembled {
    outline: Outline,
    pub(super) entries: Vec<Entry>,
    /// Where the entries end.
    previous: WalPosition,
    /// The segments that hold the entries, oldest first, and those that only back up the new one.
    pub(super) older: Vec<u64>,
    pub(super) spares: Vec<u64>,
}

/// Puts a log behind `snapshot` together from its links, newest first.
pub(super) fn assemble(chain: &[Link], snapshot: Option<SnapshotId>) -> Assembled {
    // Newer segments without entries are not linked to, or restarts would pile them up.
    let tail = chain.iter().position(|link| !link.contents.entries.is_empty());
    let spares = tail.unwrap_or(chain.len());
    let previous = tail.map_or(WalPosition::default(), |at| {
        let end = chain[at].contents.end;
        WalPosition { segment: chain[at].number, offset: end }
    });
    let mut outline = Outline::new(snapshot);
    let mut entries = Vec::new();
    for Link { number, contents, .. } in chain.iter().rev() {
        outline.append(&contents.entries, *number);
        // Copied, so that a few entries do not keep a whole segment in memory.
        entries.extend(contents.entries.iter().map(|entry| {
            let data = Bytes::copy_from_slice(&entry.data);
            Entry { data, ..*entry }
        }));
    }
    let numbers = |links: &[Link]| links.iter().map(|link| link.number).collect();
    let mut older: Vec<u64> = numbers(&chain[spares..]);
    older.reverse();
    Assembled { outline, entries, previous, older, spares: numbers(&chain[..spares]) }
}

impl Link {
    /// The operations that must come before anything is built on this, the newest one. What was read may have been in a cache only, names too.
    /// Make it durable before building on it, and before removing what it stands for. A sync alone
    /// would not do: after one that failed the cache may show as clean what never reached the disk
    /// (ATC'20), so write it again.
    pub(super) fn secure(&self) -> Vec<DiskOp> {
        let (file, contents) = (FileName::Segment(self.number), &self.contents);
        let mut ops = Vec::new();
        if self.header.is_some() && contents.synced < contents.end {
            let data = self.data.slice(contents.synced as usize..contents.end as usize);
            ops.push(DiskOp::Write { file, offset: contents.synced, data });
        }
        ops.extend([DiskOp::Sync { file }, DiskOp::SyncDir]);
        ops
    }
}

impl Assembled {
    /// The last entry, or the snapshot.
    pub(super) fn last(&self) -> SnapshotId {
        self.outline.last_id()
    }

    /// The log, with the new segment `number`. It must reach the `floor` yet.
    pub(super) fn open(
        &mut self,
        config: WalConfig,
        hard_state: HardState,
        floor: Option<SnapshotId>,
        number: u64,
        ops: &mut Vec<DiskOp>,
    ) -> Wal {
        let mut wal = Wal::new(config, hard_state, std::mem::take(&mut self.outline));
        wal.lost = floor.map(|floor| Lost { floor, regained: None });
        wal.open_segment(number, self.previous, 0, ops);
        wal.spares = std::mem::take(&mut self.spares);
        wal.spares_for = wal.position;
        wal.older = std::mem::take(&mut self.older).into();
        wal
    }
}

/// Removes segments for good, so that their numbers may be used again.
fn remove(numbers: &[u64], ops: &mut Vec<DiskOp>) {
    if numbers.is_empty() {
        return;
    }
    ops.extend(numbers.iter().map(|&n| DiskOp::Remove { file: FileName::Segment(n) }));
    ops.push(DiskOp::SyncDir);
}
