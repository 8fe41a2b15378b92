//! What becomes of a log that is damaged.
//!
//! Everything that shows that bytes were durable, and are bad now, was written after them: a record
//! or a header with a higher watermark. So the newest record that can be read is newer than the
//! damage, and its hard state is the node's. What it says of the end of the log is the *floor*: how
//! far the log went. (What nothing vouches for looks like a torn tail, here as elsewhere.)
//!
//! Entries are kept as far as the log can be replayed without a gap: up to the damage, if the
//! chain leads there, or none. That is a log that was, once, so raft can go on with it; but later
//! records may have replaced its end, so only what was known to be committed *then* is. A complete
//! snapshot file is the beginning of what is committed, whoever names it, so the newest good one is
//! the base; entries that do not follow on it are dropped.
//!
//! All this is stated by the header of a new segment, with the floor and with a new term, which
//! makes void what the node promised in older ones (see `node/repair.rs`). The damaged segments
//! stay until that header is vouched for and, because nobody may be left to repair the damage, until
//! the log has reached its floor. So a crash finds the same damage again, or the new segment. As
//! long as the floor is not reached every record states it, as it does the hard state.

use std::collections::BTreeSet;

use super::record::Record;
use super::recover::{CheckSnapshot, Directory, Link, Recovered, assemble};
use super::segment::{self, Contents, Flaw};
use super::{Damage, WalConfig, WalPosition};
use crate::bugs::{Bug, planted};
use crate::error::Error;
use crate::types::{EntryKind, HardState, LogIndex, NodeId, SnapshotId, Term};

/// What the records say that can be read.
#[derive(Debug, Default)]
struct Tally {
    /// The newest term.
    term: Term,
    markers: BTreeSet<SnapshotId>,
    /// The last index of the log, as the newest record says, and the term of its entry. If it is
    /// not known, a later one.
    end: SnapshotId,
    /// The floor that the newest record states.
    floor: Option<SnapshotId>,
    /// Where the newest record ends.
    at: WalPosition,
    /// The last index of a change of the membership.
    reconfigured: LogIndex,
}

impl Tally {
    /// Takes in the records of a segment, which come after all before.
    fn take_in(&mut self, link: &Link) {
        let mut begin = 0;
        if let Some(header) = &link.header {
            let end = segment::header_end(header.floor);
            self.note(header, header.synced, WalPosition { segment: link.number, offset: end });
            begin = end as usize;
        }
        for (record, end) in segment::survivors(link.number, &link.data, begin) {
            let end = WalPosition { segment: link.number, offset: end as u64 };
            self.note(&record, record.position, end);
        }
    }

    /// Takes in a record. It follows directly on what ends at `after`.
    fn note(&mut self, record: &Record, after: WalPosition, end: WalPosition) {
        let follows = after == self.at && self.end.index == record.last_index;
        let index = record.last_index;
        if let Some(last) = record.entries.last() {
            self.end = SnapshotId { index, term: last.term };
        } else if let Some(id) = record.snapshot.filter(|id| id.index == index) {
            self.end = id;
        } else if index == 0 {
            self.end = SnapshotId::default();
        } else if !follows {
            // A record that is lost may have replaced the entry; none later than this, though.
            self.end = SnapshotId { index, term: record.hard_state.term };
        }
        let entry_terms = record.entries.iter().map(|entry| entry.term);
        let terms = entry_terms.chain([record.hard_state.term, self.end.term]);
        self.term = terms.fold(self.term, Term::max);
        self.markers.extend(record.snapshot);
        self.floor = record.floor;
        self.at = end;
        let changes = record.entries.iter().filter(|entry| entry.kind == EntryKind::Membership);
        self.reconfigured = changes.fold(self.reconfigured, |last, entry| last.max(entry.index));
    }

    /// What the log must reach to be whole. A record states a floor only if it does not reach it.
    fn floor(&self) -> SnapshotId {
        self.floor.unwrap_or(self.end)
    }
}

/// Makes the best of a damaged log: `chain` (newest first) was read up to the link with the `flaw`,
/// of which as much is left as can be replayed.
pub(super) fn salvage(
    config: WalConfig,
    mut directory: Directory<'_>,
    mut chain: Vec<Link>,
    flaw: Flaw,
    check: &mut CheckSnapshot<'_>,
) -> Result<Recovered, Error> {
    let mut tally = Tally::default();
    chain.iter().rev().for_each(|link| tally.take_in(link));
    let snapshot = choose_snapshot(&mut directory, &tally, check)?;

    let mut ops = chain[0].secure();
    // If it is not the last one that was read, the snapshot is damaged, and the log is not.
    let at = chain.iter().position(|link| link.contents.flaw.is_some()).unwrap_or(0);
    let link = chain.swap_remove(at);
    let (links, commit) = connect(&mut directory, link, snapshot)?;
    let mut log = assemble(&links, snapshot);
    log.spares = directory.segments.iter().copied().filter(|n| !log.older.contains(n)).collect();

    let floor = tally.floor();
    let last = log.last();
    let base = snapshot.unwrap_or_default();
    let term = tally.term.max(floor.term).max(last.term);
    let hard_state = HardState {
        term: term.saturating_add(1),
        vote: NodeId(0),
        commit: commit.min(last.index).max(base.index),
    };
    let mut lacks = (last.rank() < floor.rank()).then_some(floor);
    let mut hard_state = hard_state;
    if planted(Bug::UnreadableHardStateIsDefault) {
        hard_state.term = last.term;
        lacks = None;
    }
    let number = directory.segments.last().expect("there is a damaged one") + 1;
    let wal = log.open(config, hard_state, lacks, number, &mut ops);
    let Flaw { file, offset, reason } = flaw;
    Ok(Recovered {
        wal,
        hard_state,
        snapshot,
        entries: log.entries,
        ops,
        torn: None,
        damage: Some(Damage { file, offset, reason, floor }),
        newly_damaged: true,
        reconfigures: tally.reconfigured > base.index,
    })
}

/// The newest snapshot that can be used, of those that the log names and those that are there.
fn choose_snapshot(
    directory: &mut Directory<'_>,
    tally: &Tally,
    check: &mut CheckSnapshot<'_>,
) -> Result<Option<SnapshotId>, Error> {
    let known: BTreeSet<SnapshotId> = tally.markers.union(&directory.snapshots).copied().collect();
    for id in known.into_iter().rev() {
        if directory.check(id, check)?.is_none() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The links of the log behind `snapshot` that ends as `link` does, newest first, and what is
/// committed of it. None if they do not follow on the snapshot.
fn connect(
    directory: &mut Directory<'_>,
    link: Link,
    snapshot: Option<SnapshotId>,
) -> Result<(Vec<Link>, LogIndex), Error> {
    let mut links = vec![link];
    loop {
        let end = &links[0].contents;
        let commit = end.hard_state.commit;
        let named = end.snapshot;
        let index = |id: Option<SnapshotId>| id.map_or(0, |id| id.index);
        if links[0].header.is_none() || index(snapshot) < index(named) || index(snapshot) > end.last
        {
            return Ok((Vec::new(), 0));
        }
        // The entry of a snapshot that the log does not name must be there, to compare its term.
        let first = index(snapshot) + u64::from(snapshot == named);
        let first = first.max(1);
        if directory.follow(&mut links, first)?.is_some() {
            links.drain(..links.len() - 1);
            continue;
        }
        // The others have dropped what comes before when they were read.
        let Contents { start, entries, .. } = &mut links[0].contents;
        let covered = first.saturating_sub(*start) as usize;
        entries.drain(..covered.min(entries.len()));
        if snapshot == named {
            return Ok((links, commit));
        }
        let oldest = links.iter_mut().rev().find(|link| !link.contents.entries.is_empty());
        let at_snapshot = oldest.map(|link| link.contents.entries.remove(0));
        let is_there = at_snapshot.is_some_and(|entry| {
            Some(SnapshotId { index: entry.index, term: entry.term }) == snapshot
        });
        return Ok(if is_there { (links, commit) } else { (Vec::new(), 0) });
    }
}
