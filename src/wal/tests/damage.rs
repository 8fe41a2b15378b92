//! Damage to what was durable: what is left of the log, and that no crash on the way to repair
//! makes a shorter log look healthy.

use super::*;
use crate::env::Disk;

fn end_of(recovered: &Recovered) -> SnapshotId {
    match recovered.entries.last() {
        Some(entry) => SnapshotId { index: entry.index, term: entry.term },
        None => recovered.snapshot.unwrap_or_default(),
    }
}

/// A log of several segments, with a marker, replaced entries and a restart, all of it vouched for
/// but its last, small record; and the entries and commit index after each record.
fn history() -> (Files, Vec<(Vec<Entry>, u64)>) {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let mut log: Vec<Entry> = Vec::new();
    let mut states = vec![(Vec::new(), 0)];
    let mut step = |files: &mut Files, wal: &mut Wal, term, commit, snapshot, new: &[Entry]| {
        append(files, wal, hard(term, commit), snapshot, new);
        if let Some(first) = new.first() {
            log.retain(|entry| entry.index < first.index);
            log.extend_from_slice(new);
        }
        states.push((log.clone(), commit));
    };
    step(&mut files, &mut wal, 1, 0, None, &[entry(1, 1, 300), entry(2, 1, 200)]);
    step(&mut files, &mut wal, 1, 2, None, &[entry(3, 1, 300), entry(4, 1, 50)]);
    step(&mut files, &mut wal, 2, 2, None, &[entry(3, 2, 300)]);
    step(&mut files, &mut wal, 3, 2, marker(2, 1), &[]);
    step(&mut files, &mut wal, 3, 3, None, &[entry(4, 3, 300), entry(5, 3, 300)]);
    wal = files.open().wal;
    wal.synced(wal.position());
    step(&mut files, &mut wal, 4, 4, None, &[]);
    step(&mut files, &mut wal, 5, 4, None, &[entry(5, 5, 40)]);
    step(&mut files, &mut wal, 6, 4, None, &[]);
    (files, states)
}

/// The bytes that something vouches for: of every segment, up to where the last watermark is.
fn vouched(files: &Files) -> Vec<(u64, u64)> {
    let mut end = WalPosition::default();
    for file in files.0.files() {
        let data = files.content(file);
        let written = Bytes::copy_from_slice(data);
        for record in decode_records(&written).map_while(Result::ok) {
            end = end.max(record.synced);
        }
    }
    let mut bytes = Vec::new();
    for number in files.segments() {
        let len = files.content(FileName::Segment(number)).len() as u64;
        let limit = if number < end.segment { len } else { end.offset.min(len) };
        bytes.extend((0..limit).filter(|_| number <= end.segment).map(|at| (number, at)));
    }
    bytes
}

/// The log is the beginning of one that was, behind a base that was committed.
fn assert_once_was(recovered: &Recovered, states: &[(Vec<Entry>, u64)]) {
    let base = recovered.snapshot.map_or(0, |id| id.index);
    let commit = recovered.hard_state.commit;
    let fits = |(log, committed): &(Vec<Entry>, u64)| {
        let behind: Vec<&Entry> = log.iter().filter(|entry| entry.index > base).collect();
        commit <= base.max(*committed)
            && recovered.entries.len() <= behind.len()
            && recovered.entries.iter().zip(behind).all(|(one, other)| one == other)
    };
    assert!(states.iter().any(fits), "{recovered:?}");
}

#[test]
fn a_flipped_bit_is_harmless_or_found_and_never_shortens_a_healthy_log() {
    let (mut files, states) = history();
    let whole = files.recover().unwrap();
    let last = end_of(&whole);
    assert_eq!((last, whole.damage.is_some()), (SnapshotId { index: 5, term: 5 }, false));
    let (mut found, mut kept) = (0, 0);
    for (number, at) in vouched(&files) {
        let mut damaged = files.clone();
        damaged.flip(number, at);
        let recovered = damaged.recover().unwrap();
        let Some(damage) = &recovered.damage else {
            assert_eq!(recovered.entries, whole.entries, "byte {at} of segment {number}");
            assert_eq!(recovered.hard_state, whole.hard_state);
            continue;
        };
        found += 1;
        kept += recovered.entries.len();
        assert_eq!(damage.floor.index, last.index, "byte {at} of segment {number}: {damage:?}");
        assert!((last.term..=6).contains(&damage.floor.term));
        assert_eq!((recovered.hard_state.term, recovered.hard_state.vote.0), (7, 0));
        assert_once_was(&recovered, &states);
        assert_survives_crashes(&damaged, &recovered, last);
    }
    assert!(found > 1000 && kept > 1000, "{found} {kept}");
}

/// Wherever a crash comes between recovery and repair, what is found again is as damaged.
fn assert_survives_crashes(damaged: &Files, first: &Recovered, last: SnapshotId) {
    let floor = first.damage.as_ref().unwrap().floor;
    let is_whole = end_of(first).rank() >= floor.rank();
    for done in 0..=first.ops.len() {
        let mut files = damaged.clone();
        files.run(&first.ops[..done]);
        let again = files.recover().unwrap();
        assert_eq!((&again.entries, again.snapshot), (&first.entries, first.snapshot));
        assert_eq!(again.hard_state, first.hard_state, "after {done} operations");
        match &again.damage {
            Some(damage) => assert!(damage.floor.rank() >= last.rank(), "{damage:?}"),
            None => assert!(is_whole && done > 2, "after {done} operations"),
        }
    }
}

/// A log of two segments in term 2, the first record of which is damaged.
fn damaged() -> Files {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    let at = wal.position().offset();
    append(&mut files, &mut wal, hard(2, 0), None, &[entry(1, 2, 700)]);
    append(&mut files, &mut wal, hard(2, 0), None, &[entry(2, 2, 700)]);
    files.flip(1, at + 100);
    files
}

#[test]
fn a_floor_is_stated_until_it_is_reached_durably() {
    let mut files = damaged();
    let mut recovered = files.open();
    let floor = SnapshotId { index: 2, term: 2 };
    assert_eq!(recovered.wal.floor(), Some(floor));
    assert!(recovered.newly_damaged && recovered.entries.is_empty());
    assert_eq!(files.segments(), [1, 2, 3], "nothing that is left of it goes");

    let wal = &mut recovered.wal;
    append(&mut files, wal, hard(4, 0), None, &[entry(1, 2, 700)]);
    assert_eq!(wal.floor(), Some(floor));
    let before = files.clone();
    let mut ops = Vec::new();
    wal.append(hard(4, 0), None, &[entry(2, 2, 5)], &mut ops);
    assert_eq!(wal.floor(), Some(floor), "it is not durable yet");
    files.run(&ops);
    wal.synced(wal.position());
    assert_eq!(wal.floor(), None);
    ops.clear();
    wal.compact(&mut ops);
    files.run(&ops);
    let again = files.open();
    assert_eq!((again.damage, again.entries.len()), (None, 2));

    // Without the last record it is as before, however often it is started; nothing piles up.
    let mut files = before;
    for _ in 0..5 {
        let mut again = files.open();
        let damage = again.damage.unwrap();
        assert_eq!((damage.floor, again.newly_damaged), (floor, false));
        assert_eq!((again.hard_state, again.entries.len()), (hard(4, 0), 1));
        append(&mut files, &mut again.wal, hard(4, 0), None, &[]);
        assert!(files.segments().len() <= 6, "{:?}", files.segments());
        assert_eq!(again.wal.segments(), files.segments().len());
    }
}

#[test]
fn a_second_damage_keeps_the_floor_of_the_first() {
    let mut files = damaged();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(3, 0), None, &[entry(1, 2, 20)]);
    append(&mut files, &mut wal, hard(3, 0), None, &[]);
    for at in 0..300 {
        let mut again = files.clone();
        again.flip(3, at);
        let recovered = again.recover().unwrap();
        let damage = recovered.damage.expect("it has not reached its floor yet");
        assert_eq!(damage.floor, SnapshotId { index: 2, term: 2 }, "byte {at}");
        // The last record is vouched for by nothing.
        let expected = if recovered.newly_damaged { 4 } else { 3 };
        assert_eq!(recovered.hard_state.term, expected, "byte {at}");
    }
}

#[test]
fn a_log_without_its_snapshot_keeps_nothing_but_its_floor() {
    let (mut files, _) = history();
    let gone = |_: &mut dyn Disk, id: SnapshotId| {
        let file = FileName::Snapshot(id.index, id.term);
        Err(Error::Corrupt { file, offset: 7, reason: "rotten".into() })
    };
    let recovered = Wal::recover_with(&mut files.0, CONFIG, &mut { gone }).unwrap();
    let damage = recovered.damage.unwrap();
    assert_eq!((damage.file, damage.offset), (FileName::Snapshot(2, 1), 7));
    assert_eq!(damage.floor, SnapshotId { index: 5, term: 5 });
    assert_eq!((recovered.snapshot, recovered.entries), (None, vec![]));
    assert_eq!(recovered.hard_state, fresh(7, 0));

    // A newer one that lies on the log keeps what is behind it, though no record names it.
    files.0.insert(FileName::Snapshot(4, 3), Vec::new());
    let only_new = |disk: &mut dyn Disk, id: SnapshotId| {
        if id.index == 4 { Ok(()) } else { gone(disk, id) }
    };
    let recovered = Wal::recover_with(&mut files.0, CONFIG, &mut { only_new }).unwrap();
    assert_eq!((recovered.snapshot, recovered.entries), (marker(4, 3), vec![entry(5, 5, 40)]));
    assert_eq!(recovered.wal.floor(), None, "nothing is missing");
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_refused() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(5, 0), None, &[]);
    let mut wal = files.open().wal;
    append(&mut files, &mut wal, hard(6, 0), None, &[]);
    // The header and the record behind it, as if they had shared a bad sector.
    files.flip(2, 40);
    files.flip(2, segment::HEADER_END + 40);
    let Err(Error::Corrupt { file, .. }) = files.recover() else { panic!("term 6 is forgotten") };
    assert_eq!(file, FileName::Segment(2));
}

#[test]
fn a_log_without_a_floor_is_version_1_apart_from_the_number() {
    let (mut files, _) = history();
    let whole = files.recover().unwrap();
    for number in files.segments() {
        let data = files.content_mut(FileName::Segment(number));
        assert_eq!(data[8..12], 2u32.to_le_bytes());
        data[8..12].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32fast::hash(&data[..12]);
        data[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    let old = files.recover().unwrap();
    assert_eq!((old.hard_state, old.entries), (whole.hard_state, whole.entries));
    assert_eq!(old.damage, None);
}
