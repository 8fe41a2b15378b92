//! What the log emits, operation by operation, and how it takes damage in particular places. Random
//! histories and crashes are in `tests/wal_recovery.rs`.

mod damage;
mod vouched;

use std::slice;

use super::*;
use crate::error::Error;
use crate::memory::MemDisk;
use crate::types::{EntryKind, NodeId};

const CONFIG: WalConfig = WalConfig { segment_bytes: 1024 };

/// A disk with a log on it.
#[derive(Default)]
struct Files(MemDisk);

impl Clone for Files {
    fn clone(&self) -> Files {
        Files(self.0.image())
    }
}

impl Files {
    /// Carries out what the log wants. It never writes where a segment has no room.
    fn run(&mut self, ops: &[DiskOp]) {
        for op in ops {
            if let DiskOp::Write { file, offset, data } = op {
                let end = offset + data.len() as u64;
                assert!(end <= self.content(*file).len() as u64, "{file} grows");
            }
            self.0.run(slice::from_ref(op)).unwrap();
        }
    }

    fn recover(&mut self) -> Result<Recovered, Error> {
        Wal::recover(&mut self.0, CONFIG)
    }

    /// Recovers and carries out what that asks for.
    fn open(&mut self) -> Recovered {
        let mut recovered = self.recover().unwrap();
        self.run(&recovered.ops);
        recovered.wal.synced(recovered.wal.position());
        recovered
    }

    fn segments(&self) -> Vec<u64> {
        let number = |file| match file {
            FileName::Segment(number) => Some(number),
            _ => None,
        };
        self.0.files().filter_map(number).collect()
    }

    fn content(&self, file: FileName) -> &[u8] {
        self.0.content(file).unwrap()
    }

    fn content_mut(&mut self, file: FileName) -> &mut Vec<u8> {
        self.0.content_mut(file).unwrap()
    }

    fn flip(&mut self, segment: u64, offset: u64) {
        self.content_mut(FileName::Segment(segment))[offset as usize] ^= 1;
    }
}

fn hard(term: u64, commit: u64) -> HardState {
    HardState { term, vote: NodeId(1), commit }
}

/// A new term in which nobody was voted for.
fn fresh(term: u64, commit: u64) -> HardState {
    HardState { vote: NodeId(0), ..hard(term, commit) }
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let data = Bytes::from(vec![index as u8; bytes]);
    Entry { index, term, kind: EntryKind::Normal, data }
}

fn marker(index: u64, term: u64) -> Option<SnapshotId> {
    Some(SnapshotId { index, term })
}

/// Appends one record, carries it out and reports it synced.
fn append(
    files: &mut Files,
    wal: &mut Wal,
    state: HardState,
    snapshot: Option<SnapshotId>,
    entries: &[Entry],
) -> Vec<DiskOp> {
    let mut ops = Vec::new();
    wal.append(state, snapshot, entries, &mut ops);
    files.run(&ops);
    wal.synced(wal.position());
    ops
}

#[test]
fn a_new_log_makes_its_segment_durable_before_use() {
    let recovered = Files::default().recover().unwrap();
    let file = FileName::Segment(1);
    let [create, DiskOp::Write { offset: 0, data, .. }, sync, DiskOp::SyncDir] = &recovered.ops[..]
    else {
        panic!("{:?}", recovered.ops);
    };
    assert_eq!(*create, DiskOp::Create { file, len: 1024 });
    assert_eq!(*sync, DiskOp::Sync { file });
    let records: Vec<Record> = decode_records(data).map(Result::unwrap).collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].kind, RecordKind::Header);
    assert_eq!(records[0].synced, WalPosition::default());
    assert_eq!(recovered.hard_state, HardState::default());
    assert_eq!((recovered.snapshot, recovered.torn), (None, None));
}

#[test]
fn an_append_is_one_write_and_one_sync() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let begin = wal.position();
    let mut ops = Vec::new();
    let entries = [entry(1, 1, 5), entry(2, 1, 0)];
    wal.append(hard(1, 0), None, &entries, &mut ops);
    let [DiskOp::Write { file, offset, data }, sync] = &ops[..] else { panic!("{ops:?}") };
    assert_eq!(*sync, DiskOp::Sync { file: *file });
    assert_eq!(*offset, begin.offset());
    assert_eq!(wal.position().offset(), offset + data.len() as u64);

    let records: Vec<Record> = decode_records(data).map(Result::unwrap).collect();
    let expected = Record {
        kind: RecordKind::Append,
        position: begin,
        synced: begin,
        hard_state: hard(1, 0),
        snapshot: None,
        last_index: 2,
        floor: None,
        entries: entries.to_vec(),
    };
    assert_eq!(records, [expected]);
}

#[test]
fn appends_into_the_same_operations_share_a_sync() {
    let mut wal = Files::default().open().wal;
    let mut ops = Vec::new();
    wal.append(hard(1, 0), None, &[entry(1, 1, 5)], &mut ops);
    wal.append(hard(1, 0), None, &[entry(2, 1, 5)], &mut ops);
    let syncs = ops.iter().filter(|op| matches!(op, DiskOp::Sync { .. })).count();
    assert_eq!((ops.len(), syncs), (3, 1));
    assert!(matches!(ops[2], DiskOp::Sync { .. }));
}

#[test]
fn a_record_vouches_only_for_what_was_reported() {
    let mut wal = Files::default().open().wal;
    let begin = wal.position();
    let mut ops = Vec::new();
    wal.append(hard(1, 0), None, &[entry(1, 1, 5)], &mut ops);
    let first = wal.position();
    wal.append(hard(1, 0), None, &[entry(2, 1, 5)], &mut ops);
    wal.synced(first);
    wal.append(hard(1, 0), None, &[entry(3, 1, 5)], &mut ops);
    let watermarks: Vec<WalPosition> = ops
        .iter()
        .filter_map(|op| match op {
            DiskOp::Write { data, .. } => Some(decode_records(data).next().unwrap().unwrap()),
            _ => None,
        })
        .map(|record| record.synced)
        .collect();
    assert_eq!(watermarks, [begin, begin, first]);
}

/// After a failed fsync the cache may show as clean what never reached the disk; a second sync
/// would succeed and prove nothing.
#[test]
fn what_nothing_vouches_for_is_written_again_before_it_is_built_on() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 5)]);
    let vouched = wal.position();
    wal.synced(vouched);
    let last = append(&mut files, &mut wal, hard(1, 1), None, &[entry(2, 1, 5)]);
    let DiskOp::Write { data: unvouched, .. } = &last[0] else { panic!("{last:?}") };
    let ops = files.open().ops;
    let file = FileName::Segment(1);
    let again = DiskOp::Write { file, offset: vouched.offset(), data: unvouched.clone() };
    assert_eq!(ops[..2], [again, DiskOp::Sync { file }]);
}

#[test]
fn a_full_segment_is_followed_by_one_that_says_where_it_ends() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 700)]);
    let end = wal.position();
    let ops = append(&mut files, &mut wal, hard(2, 1), None, &[entry(2, 2, 700)]);
    let file = FileName::Segment(2);
    let [create, DiskOp::Write { data, .. }, rest @ ..] = &ops[..] else { panic!("{ops:?}") };
    assert_eq!(*create, DiskOp::Create { file, len: 1024 });
    assert_eq!(rest[..2], [DiskOp::Sync { file }, DiskOp::SyncDir]);
    assert!(matches!(rest[2..], [DiskOp::Write { .. }, DiskOp::Sync { .. }]));
    let header = decode_records(data).next().unwrap().unwrap();
    assert_eq!((header.synced, header.hard_state, header.last_index), (end, hard(1, 0), 1));
    assert_eq!(wal.segments(), 2);

    let recovered = files.recover().unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 700), entry(2, 2, 700)]);
    assert_eq!(recovered.hard_state, hard(2, 1));
}

#[test]
fn a_huge_record_gets_a_segment_of_its_size() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let huge = entry(1, 1, 5000);
    let ops = append(&mut files, &mut wal, hard(1, 0), None, std::slice::from_ref(&huge));
    let DiskOp::Create { len, .. } = ops[0] else { panic!("{ops:?}") };
    assert!(len > 5000 && len < 5300);
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(2, 1, 10)]);
    assert_eq!(files.segments(), [1, 2, 3]);
    assert_eq!(files.recover().unwrap().entries, [huge, entry(2, 1, 10)]);
}

#[test]
fn compaction_waits_for_a_durable_marker_and_keeps_what_follows_it() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    for index in 1..=5 {
        append(&mut files, &mut wal, hard(1, 0), None, &[entry(index, 1, 700)]);
    }
    assert_eq!(wal.segments(), 5);
    let mut ops = Vec::new();
    wal.append(hard(1, 3), marker(3, 1), &[], &mut ops);
    files.run(&ops);
    let mut ops = Vec::new();
    wal.compact(&mut ops);
    assert_eq!(ops, []);
    wal.synced(wal.position());
    wal.compact(&mut ops);
    let removed = [1, 2, 3].map(|n| DiskOp::Remove { file: FileName::Segment(n) });
    assert_eq!(ops, removed);
    assert_eq!(wal.segments(), 2);

    // Any of them may come back, even damaged.
    let mut back = files.clone();
    back.0.remove(FileName::Segment(2));
    back.flip(3, 300);
    files.run(&ops);
    let whole = files.recover().unwrap();
    assert_eq!(whole.snapshot, marker(3, 1));
    assert_eq!(whole.entries, [entry(4, 1, 700), entry(5, 1, 700)]);
    let again = back.open();
    assert_eq!((again.snapshot, again.entries), (whole.snapshot, whole.entries));
    assert_eq!(back.segments(), [4, 5, 6]);
}

#[test]
fn a_marker_on_the_log_keeps_it_and_a_foreign_one_replaces_it() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let log: Vec<Entry> = (1..=4).map(|index| entry(index, 1, 8)).collect();
    append(&mut files, &mut wal, hard(1, 4), None, &log);
    append(&mut files, &mut wal, hard(1, 4), marker(2, 1), &[]);
    assert_eq!(files.recover().unwrap().entries, log[2..]);
    append(&mut files, &mut wal, hard(3, 3), marker(3, 3), &[entry(4, 3, 8)]);
    let recovered = files.recover().unwrap();
    assert_eq!((recovered.snapshot, recovered.entries), (marker(3, 3), vec![entry(4, 3, 8)]));
}

#[test]
fn entries_replace_what_the_log_has_from_their_index_on() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let log: Vec<Entry> = (1..=4).map(|index| entry(index, 1, 300)).collect();
    append(&mut files, &mut wal, hard(1, 0), None, &log[..2]);
    append(&mut files, &mut wal, hard(1, 0), None, &log[2..]);
    append(&mut files, &mut wal, hard(2, 0), None, &[entry(2, 2, 300)]);
    let recovered = files.recover().unwrap();
    assert_eq!(recovered.entries, [log[0].clone(), entry(2, 2, 300)]);
    assert_eq!(recovered.wal.last_index(), 2);
}

#[test]
fn damage_that_a_later_record_vouches_for_is_told_from_a_torn_tail() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let begin = wal.position().offset();
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 20)]);
    let end = wal.position().offset();
    for at in begin..end {
        let mut damaged = files.clone();
        damaged.flip(1, at);
        let recovered = damaged.recover().unwrap();
        let torn = recovered.torn.unwrap();
        assert_eq!((torn.file, torn.offset), (FileName::Segment(1), begin));
        assert_eq!(recovered.entries, []);
    }
    let mut ops = Vec::new();
    assert!(wal.vouch(hard(1, 0), &mut ops));
    files.run(&ops);
    for at in 0..end {
        let mut damaged = files.clone();
        damaged.flip(1, at);
        let recovered = damaged.recover().unwrap();
        let Some(Damage { file, offset, floor, .. }) = recovered.damage else { panic!("{at}") };
        assert_eq!((file, offset), (FileName::Segment(1), if at < begin { 0 } else { begin }));
        assert_eq!(floor, SnapshotId { index: 1, term: 1 });
        assert_eq!((recovered.hard_state, recovered.entries), (fresh(2, 0), vec![]));
    }
}

#[test]
fn vouching_settles() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let mut ops = Vec::new();
    assert!(!wal.vouch(hard(0, 0), &mut ops), "there is nothing yet");
    wal.append(hard(1, 0), None, &[entry(1, 1, 5)], &mut ops);
    assert!(!wal.vouch(hard(1, 0), &mut ops), "not durable yet");
    wal.synced(wal.position());
    assert!(wal.vouch(hard(1, 1), &mut ops), "a new commit index is no promise");
    wal.synced(wal.position());
    assert!(!wal.vouch(hard(1, 1), &mut ops));
}

#[test]
fn a_missing_segment_is_damage() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 700)]);
    append(&mut files, &mut wal, hard(1, 1), None, &[entry(2, 1, 700)]);
    files.0.remove(FileName::Segment(1));
    let Damage { file, reason, floor, .. } = files.recover().unwrap().damage.unwrap();
    assert_eq!((file, floor), (FileName::Segment(1), SnapshotId { index: 2, term: 1 }));
    assert!(reason.contains("missing"), "{reason}");
}

#[test]
fn a_missing_commit_is_damage() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let position = wal.position();
    append(&mut files, &mut wal, hard(1, 1), None, &[entry(1, 1, 5)]);
    // No log of ours does this, so it takes a forgery.
    let head = Head {
        kind: RecordKind::Append,
        position: wal.position(),
        synced: position,
        hard_state: hard(1, 2),
        snapshot: None,
        last_index: 1,
        floor: None,
    };
    let mut data = Vec::new();
    record::encode(&head, &[], &mut data);
    let begin = wal.position().offset() as usize;
    let file = files.content_mut(FileName::Segment(1));
    file[begin..begin + data.len()].copy_from_slice(&data);
    let reason = files.recover().unwrap().damage.unwrap().reason;
    assert!(reason.contains("committed, but missing"), "{reason}");
}

#[test]
fn restarts_do_not_pile_up_segments() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 5)]);
    for term in 2..30 {
        let mut recovered = files.open();
        assert_eq!(recovered.entries, [entry(1, 1, 5)]);
        assert_eq!(recovered.hard_state.term, term - 1);
        append(&mut files, &mut recovered.wal, hard(term, 0), None, &[]);
        assert!(files.segments().len() <= 3, "{:?}", files.segments());
        assert_eq!(recovered.wal.segments(), files.segments().len());
    }
    let mut recovered = files.open();
    let mut ops = Vec::new();
    recovered.wal.compact(&mut ops);
    assert_eq!(ops, [], "the backup of a header nothing vouches for stays");
    append(&mut files, &mut recovered.wal, hard(40, 0), None, &[]);
    recovered.wal.compact(&mut ops);
    files.run(&ops);
    assert_eq!(files.segments().len(), 2, "the backup of a header that is vouched for goes");
    assert_eq!(files.recover().unwrap().hard_state.term, 40);
}

#[test]
fn a_header_nothing_vouches_for_can_be_lost() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(7, 0), None, &[]);
    files.open();
    for at in 0..segment::HEADER_END {
        let mut damaged = files.clone();
        damaged.flip(2, at);
        assert_eq!(damaged.open().hard_state, hard(7, 0));
        assert_eq!(damaged.segments(), [1, 3]);
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut files = Files::default();
    files.open();
    let data = files.content_mut(FileName::Segment(1));
    data[8..12].copy_from_slice(&3u32.to_le_bytes());
    let crc = crc32fast::hash(&data[..12]);
    data[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = files.recover().unwrap_err();
    let file = FileName::Segment(1);
    assert_eq!(error, Error::NewerVersion { file, found: 3, supported: 2 });
}

#[test]
fn records_of_another_place_are_not_taken() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(1, 0), None, &[entry(1, 1, 5)]);
    let used = files.content(FileName::Segment(1)).to_vec();
    files.open();
    // The whole former content of another file, and one record at the wrong offset.
    let mut renamed = files.clone();
    renamed.0.insert(FileName::Segment(3), used.clone());
    // It may be in the place of what was there before.
    let Err(Error::Corrupt { file, .. }) = renamed.recover() else { panic!("recovered") };
    assert_eq!(file, FileName::Segment(3));
    let (begin, len) = (segment::HEADER_END as usize, 112);
    let target = files.content_mut(FileName::Segment(2));
    target[begin..begin + len].copy_from_slice(&used[begin..begin + len]);
    let recovered = files.recover().unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 5)]);
    assert_eq!(recovered.torn.unwrap().file, FileName::Segment(2));
}

#[test]
fn snapshots_are_left_alone() {
    let mut files = Files::default();
    let snapshot = FileName::Snapshot(4, 2);
    files.0.insert(snapshot, vec![1; 10]);
    files.0.insert(FileName::Partial(5, 2), vec![1; 10]);
    files.open();
    files.open();
    let part = FileName::Partial(5, 2);
    assert!(files.0.content(snapshot).is_some() && files.0.content(part).is_some());
}

#[test]
fn a_segment_size_that_is_too_small_is_refused() {
    let config = WalConfig { segment_bytes: 1023 };
    let error = Wal::recover(&mut MemDisk::new(), config).unwrap_err();
    assert!(matches!(error, Error::Config(what) if what.contains("1024")));
}

#[test]
#[should_panic(expected = "leaves a gap")]
fn a_gap_is_a_bug_of_the_caller() {
    let mut wal = Files::default().open().wal;
    wal.append(hard(1, 0), None, &[entry(2, 1, 5)], &mut Vec::new());
}

#[test]
#[should_panic(expected = "beyond the log")]
fn a_commit_beyond_the_log_is_a_bug_of_the_caller() {
    let mut wal = Files::default().open().wal;
    wal.append(hard(1, 2), None, &[entry(1, 1, 5)], &mut Vec::new());
}
