//! Tests of the simulated disk.

use super::*;
use proptest::prelude::*;

const A: FileName = FileName::Segment(1);
const B: FileName = FileName::Segment(2);
const C: FileName = FileName::Snapshot(7, 2);

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, 1)
}

fn run(disk: &mut SimDisk, ops: &[DiskOp]) {
    for op in ops {
        disk.execute(op).unwrap_or_else(|error| panic!("{op:?}: {error}"));
    }
}

fn create(file: FileName, len: u64) -> DiskOp {
    DiskOp::Create { file, len }
}

fn write(file: FileName, offset: u64, data: &[u8]) -> DiskOp {
    DiskOp::Write { file, offset, data: Bytes::copy_from_slice(data) }
}

fn sync(file: FileName) -> DiskOp {
    DiskOp::Sync { file }
}

/// A disk with a durable file of this content.
fn with_file(seed: u64, content: &[u8]) -> SimDisk {
    let mut disk = disk(seed);
    run(&mut disk, &[create(A, 0), write(A, 0, content), sync(A), DiskOp::SyncDir]);
    disk
}

#[test]
fn the_process_sees_its_writes_at_once() {
    let mut disk = disk(1);
    run(&mut disk, &[create(A, 4), write(A, 2, b"xyz"), write(A, 7, b"!"), create(B, 1)]);
    assert_eq!(disk.load(A).unwrap(), &b"\0\0xyz\0\0!"[..]);
    assert_eq!(disk.read(A, 3, 2).unwrap(), &b"yz"[..]);
    assert_eq!(disk.read(A, 6, 99).unwrap(), &b"\0!"[..]);
    assert_eq!(disk.read(A, 99, 1).unwrap(), &b""[..]);
    assert_eq!(disk.list(), [A, B]);
    assert_eq!(disk.bytes_used(), 9);
    run(&mut disk, &[create(A, 2), DiskOp::Remove { file: B }, DiskOp::Remove { file: B }]);
    assert_eq!(disk.load(A).unwrap(), &b"\0\0"[..]);
    assert_eq!(disk.list(), [A]);
}

#[test]
fn a_killed_process_loses_nothing() {
    let mut disk = disk(1);
    run(&mut disk, &[create(A, 0), write(A, 0, b"unsynced")]);
    disk.crash(Crash::Kill, 1);
    assert_eq!(disk.load(A).unwrap(), &b"unsynced"[..]);
    assert_eq!(disk.stats().sectors_lost, 0);
}

#[test]
fn what_does_not_exist_is_an_error_that_names_it() {
    let mut disk = disk(1);
    for op in [write(A, 0, b"x"), sync(A), DiskOp::Rename { from: A, to: B }] {
        let error = disk.execute(&op).unwrap_err();
        assert_eq!((error.file, error.reason.as_str()), (Some(A), NO_SUCH_FILE));
        assert!(!is_fault(&error), "{error}");
    }
    assert_eq!(disk.load(A).unwrap_err().file, Some(A));
    run(&mut disk, &[create(A, 0)]);
    for op in [write(A, u64::MAX, b"x"), write(A, MAX_FILE, b"x"), create(B, MAX_FILE + 1)] {
        assert_eq!(disk.execute(&op).unwrap_err().reason, "file too large");
    }
}

#[test]
fn synced_bytes_survive_every_power_loss() {
    let content: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
    for seed in 0..200 {
        let mut disk = with_file(seed, &content);
        // The appended bytes share a sector with synced ones.
        run(&mut disk, &[write(A, 3000, &[255; 2000])]);
        disk.crash(Crash::PowerLoss, 1);
        let after = disk.load(A).unwrap();
        assert_eq!(after[..3000], content[..], "seed {seed}");
    }
}

#[test]
fn a_power_loss_leaves_none_all_some_and_parts_of_the_unsynced_sectors() {
    let (mut none, mut all, mut some, mut torn, mut gaps) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let mut disk = with_file(seed, &[1; 10 * SECTOR]);
        run(&mut disk, &[write(A, 0, &[2; 10 * SECTOR])]);
        disk.crash(Crash::PowerLoss, 1);
        let after = disk.load(A).unwrap();
        assert_eq!(after.len(), 10 * SECTOR);
        let whole = |byte: u8| after.chunks(SECTOR).map(move |s| s.iter().all(|&b| b == byte));
        let (old, new) = (whole(1).filter(|&x| x).count(), whole(2).filter(|&x| x).count());
        let mixed = 10 - old - new;
        assert!(mixed <= 1, "seed {seed}: {mixed} sectors are torn");
        let stats = *disk.stats();
        assert_eq!(stats.sectors_lost as usize + stats.sectors_torn as usize + new, 10);
        none += u32::from(old == 10);
        all += u32::from(new == 10);
        some += u32::from(old > 0 && new > 0);
        torn += mixed;
        let kept: Vec<bool> = whole(2).collect();
        gaps += u32::from(!kept[0] && kept.contains(&true));
    }
    let counts = [none, all, some, torn as u32, gaps];
    assert!(counts.iter().all(|&n| n >= 30), "{counts:?} of 400");
}

#[test]
fn the_size_of_an_unsynced_file_lies_between_old_and_new() {
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let mut disk = with_file(seed, &[1; 700]);
        run(&mut disk, &[write(A, 700, &[2; 2000])]);
        disk.crash(Crash::PowerLoss, 1);
        let after = disk.load(A).unwrap();
        assert!((700..=2700).contains(&after.len()));
        sizes.insert(after.len());
    }
    assert!(sizes.contains(&700) && sizes.contains(&2700), "{sizes:?}");
    assert!(sizes.contains(&1536), "a size in between: {sizes:?}");
}

#[test]
fn the_kernel_may_write_back_an_older_version() {
    let mut seen = [0; 4];
    for seed in 0..300 {
        let mut disk = with_file(seed, b"0");
        run(&mut disk, &[write(A, 0, b"1"), write(A, 0, b"2"), write(A, 0, b"3")]);
        disk.crash(Crash::PowerLoss, 1);
        // A torn sector of one changing byte may hold garbage.
        if let Some(count) = seen.get_mut(usize::from(disk.load(A).unwrap()[0].wrapping_sub(b'0')))
        {
            *count += 1;
        }
    }
    assert!(seen.iter().all(|&n| n > 10), "{seen:?}");
}

#[test]
fn an_unsynced_name_may_vanish_and_a_synced_one_does_not() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let mut disk = with_file(seed, b"a");
        run(&mut disk, &[create(B, 0), write(B, 0, b"content"), sync(B)]);
        disk.crash(Crash::PowerLoss, 1);
        assert_eq!(disk.load(A).unwrap(), &b"a"[..]);
        if disk.list().contains(&B) {
            assert_eq!(disk.load(B).unwrap(), &b"content"[..], "synced content has its name");
            kept += 1;
        } else {
            assert_eq!(disk.stats().entries_lost, 1);
            lost += 1;
        }
    }
    assert!(kept > 20 && lost > 20, "{kept} kept, {lost} lost");
}

#[test]
fn an_unsynced_removal_may_be_undone() {
    let (mut back, mut gone) = (0, 0);
    for seed in 0..100 {
        let mut disk = with_file(seed, b"a");
        run(&mut disk, &[DiskOp::Remove { file: A }]);
        assert!(disk.list().is_empty());
        disk.crash(Crash::PowerLoss, 1);
        if disk.list().is_empty() {
            gone += 1;
        } else {
            assert_eq!(disk.load(A).unwrap(), &b"a"[..]);
            back += 1;
        }
    }
    assert!(back > 20 && gone > 20, "{back} are back, {gone} are gone");
}

#[test]
fn a_rename_is_atomic_and_moves_the_content() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..200 {
        let mut disk = with_file(seed, b"old");
        let new = [create(B, 0), write(B, 0, b"new"), sync(B), DiskOp::SyncDir];
        run(&mut disk, &new);
        run(&mut disk, &[DiskOp::Rename { from: B, to: A }]);
        assert_eq!(disk.list(), [A]);
        disk.crash(Crash::PowerLoss, 1);
        if disk.list() == [A] {
            assert_eq!(disk.load(A).unwrap(), &b"new"[..]);
            after += 1;
        } else {
            assert_eq!(disk.list(), [A, B]);
            assert_eq!(disk.load(A).unwrap(), &b"old"[..]);
            assert_eq!(disk.load(B).unwrap(), &b"new"[..]);
            before += 1;
        }
    }
    assert!(before > 40 && after > 40, "{before} before, {after} after");
}

#[test]
fn a_file_renamed_before_its_sync_may_come_back_empty() {
    let empty = (0..100).any(|seed| {
        let mut disk = disk(seed);
        let rename = DiskOp::Rename { from: B, to: C };
        run(&mut disk, &[create(B, 0), write(B, 0, b"new"), rename, DiskOp::SyncDir]);
        disk.crash(Crash::PowerLoss, 1);
        assert_eq!(disk.list(), [C], "the name is durable");
        disk.load(C).unwrap().is_empty()
    });
    assert!(empty);
}

#[test]
fn no_file_ever_has_two_names() {
    let names = [A, B, C];
    for seed in 0..200 {
        let mut disk = with_file(seed, b"a");
        let there = DiskOp::Rename { from: A, to: B };
        run(&mut disk, &[there, DiskOp::Rename { from: B, to: C }]);
        disk.crash(Crash::PowerLoss, 1);
        assert_eq!(disk.list().len(), 1, "seed {seed}: {:?}", disk.list());
        assert!(names.contains(&disk.list()[0]));
        assert_eq!(disk.load(disk.list()[0]).unwrap(), &b"a"[..]);
    }
}

#[test]
fn a_failed_sync_drops_the_data_and_the_next_one_proves_nothing() {
    let (mut shows_new, mut shows_old, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let mut disk = with_file(seed, &[1; 3 * SECTOR]);
        run(&mut disk, &[write(A, 0, &[2; 3 * SECTOR])]);
        disk.fail_next(FaultKind::SyncFails, 9);
        let error = disk.execute(&sync(A)).unwrap_err();
        assert_eq!((error.operation, error.file), ("fsync", Some(A)));
        run(&mut disk, &[sync(A)]);
        let seen = disk.load(A).unwrap();
        disk.crash(Crash::PowerLoss, 1);
        let durable = disk.load(A).unwrap();
        assert_eq!(disk.stats().sectors_lost, 0, "nothing was dirty any more");
        assert_eq!(disk.stats().failed_syncs, 1);
        lost += u32::from(durable != [2u8; 3 * SECTOR][..]);
        shows_new += u32::from(seen == [2u8; 3 * SECTOR][..] && durable != seen);
        shows_old += u32::from(seen == durable && seen == [1u8; 3 * SECTOR][..]);
    }
    assert!(lost > 100, "lost in {lost} of 200 cases");
    assert!(shows_new > 40 && shows_old > 20, "{shows_new} show new bytes, {shows_old} old ones");
}

#[test]
fn a_write_after_a_failed_sync_is_durable_again() {
    for seed in 0..50 {
        let mut disk = with_file(seed, &[1; SECTOR]);
        run(&mut disk, &[write(A, 0, &[2; 8 * SECTOR])]);
        disk.fail_next(FaultKind::SyncFails, 9);
        disk.execute(&sync(A)).unwrap_err();
        run(&mut disk, &[write(A, 0, &[3; 4 * SECTOR]), sync(A)]);
        disk.crash(Crash::PowerLoss, 1);
        assert_eq!(disk.load(A).unwrap()[..4 * SECTOR], [3; 4 * SECTOR]);
    }
}

#[test]
fn names_stay_pending_after_a_failed_directory_sync() {
    let survives = |seed, again: bool| {
        let mut disk = disk(seed);
        run(&mut disk, &[create(A, 0)]);
        disk.fail_next(FaultKind::SyncFails, 9);
        assert_eq!(disk.execute(&DiskOp::SyncDir).unwrap_err().file, None);
        assert_eq!(disk.list(), [A]);
        if again {
            run(&mut disk, &[DiskOp::SyncDir]);
        }
        disk.crash(Crash::PowerLoss, 1);
        disk.list() == [A]
    };
    let kept = (0..100).filter(|&seed| survives(seed, false)).count();
    assert!((20..80).contains(&kept), "kept {kept} of 100 without another sync");
    assert!((0..100).all(|seed| survives(seed, true)), "a later sync covers them");
}

#[test]
fn failed_writes_write_a_part_and_fail_once() {
    for kind in [FaultKind::WriteFails, FaultKind::NoSpace] {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = with_file(seed, b"");
            disk.fail_next(kind, 1);
            let error = disk.execute(&write(A, 0, &[7; 10])).unwrap_err();
            assert_eq!(error.reason.contains("space"), kind == FaultKind::NoSpace);
            assert!(is_fault(&error), "{error}");
            let after = disk.load(A).unwrap();
            assert!(after.iter().all(|&b| b == 7));
            lengths.insert(after.len());
            run(&mut disk, &[write(A, 0, &[7; 10])]);
            disk.fail_next(kind, 2);
            disk.execute(&create(B, 100)).unwrap_err();
            assert!(disk.bytes_used() <= 110);
            run(&mut disk, &[create(B, 100)]);
            assert_eq!((disk.stats().failed_writes, disk.bytes_used()), (2, 110));
        }
        assert_eq!(lengths.len(), 11, "{lengths:?}");
    }
}

#[test]
fn failed_reads_fail_once() {
    let mut disk = with_file(1, b"abc");
    disk.fail_next(FaultKind::ReadFails, 1);
    let error = disk.load(A).unwrap_err();
    assert_eq!(error.reason, IO_ERROR);
    assert!(is_fault(&error));
    assert_eq!(disk.load(A).unwrap(), &b"abc"[..]);
    assert_eq!(disk.stats().failed_reads, 1);
}

#[test]
fn a_short_write_writes_a_part_and_fails() {
    for seed in 0..50 {
        let mut disk = with_file(seed, &[1; 100]);
        disk.fail_next(FaultKind::ShortWrite, 1);
        assert!(disk.execute(&write(A, 0, b"x")).is_ok(), "a byte cannot be written in part");
        let error = disk.execute(&write(A, 0, &[2; 100])).unwrap_err();
        assert_eq!(error.reason, SHORT_WRITE);
        assert!(is_fault(&error));
        let after = disk.load(A).unwrap();
        let written = after.iter().filter(|&&byte| byte == 2).count();
        assert!((1..100).contains(&written), "seed {seed}: {written} bytes");
        assert!(after[..written].iter().all(|&byte| byte == 2));
        assert_eq!(disk.execute(&write(A, 0, &[3; 100])), Ok(()));
        assert_eq!((disk.stats().short_writes, disk.stats().failed_writes), (1, 0));
    }
}

#[test]
fn decay_hits_durable_bytes_and_stays() {
    let mut disk = with_file(1, b"abc");
    assert!(!disk.is_damaged());
    assert!(disk.decay(A, 1, b"c"));
    assert_eq!(disk.load(A).unwrap(), &b"acc"[..]);
    disk.crash(Crash::PowerLoss, 1);
    assert_eq!(disk.load(A).unwrap(), &b"acc"[..]);
    assert_eq!(disk.durable().collect::<Vec<_>>(), [(A, &b"acc"[..])]);
    assert!(!disk.decay(A, 3, b"x") && !disk.decay(B, 0, b"x"), "nothing is durable there");
    assert!(!disk.decay(A, 0, b"ac"), "nothing changes");
    assert_eq!(disk.stats().bytes_decayed, 1);
}

#[test]
fn damage_is_gone_with_its_file_but_not_before_that_is_durable() {
    let mut disk = with_file(1, b"abc");
    disk.decay(A, 0, b"x");
    run(&mut disk, &[DiskOp::Remove { file: A }]);
    assert!(disk.is_damaged(), "a power loss may bring it back");
    run(&mut disk, &[DiskOp::SyncDir]);
    assert!(!disk.is_damaged());

    let mut disk = with_file(1, b"abc");
    disk.decay(A, 0, b"x");
    run(&mut disk, &[DiskOp::Rename { from: A, to: B }, DiskOp::SyncDir]);
    assert!(disk.is_damaged(), "the content goes along with the name");
    run(&mut disk, &[create(B, 3)]);
    assert!(!disk.is_damaged(), "nothing is left of it");
}

#[test]
fn a_stale_read_returns_what_was_there_before_once() {
    let mut disk = with_file(1, b"abcdef");
    disk.stale_next(A, 2..4, 7);
    disk.stale_next(A, 5..99, 8);
    disk.disarm(8);
    assert_eq!(disk.load(A).unwrap(), &b"ab\0\0ef"[..]);
    assert_eq!(disk.load(A).unwrap(), &b"abcdef"[..]);
    assert_eq!(disk.stats().stale_reads, 1);
    assert!(!disk.is_damaged(), "what is durable is as it was");
}

#[test]
fn names_that_are_not_synced_are_lost_for_sure_if_the_crash_says_so() {
    for seed in 0..50 {
        let mut disk = with_file(seed, b"abc");
        run(&mut disk, &[create(B, 4), write(B, 0, b"data"), sync(B)]);
        run(&mut disk, &[DiskOp::Rename { from: A, to: C }]);
        assert!(disk.has_pending_names());
        disk.crash(Crash::LosesEntries, 1);
        assert_eq!(disk.list(), [A], "seed {seed}");
        assert_eq!(disk.load(A).unwrap(), &b"abc"[..]);
        assert_eq!(disk.stats().entries_lost, 2);
        assert!(!disk.has_pending_names());
    }
}

#[test]
fn a_crash_draws_from_its_own_fault_only() {
    let after = |earlier: bool| {
        let mut disk = with_file(3, &[1; 20 * SECTOR]);
        if earlier {
            run(&mut disk, &[write(A, 0, &[9; SECTOR])]);
            disk.crash(Crash::PowerLoss, 4);
            disk.fail_next(FaultKind::SyncFails, 5);
            disk.execute(&sync(A)).unwrap_err();
        }
        run(&mut disk, &[write(A, 0, &[1; 20 * SECTOR]), sync(A), write(A, 0, &[2; 20 * SECTOR])]);
        disk.crash(Crash::PowerLoss, 6);
        disk.load(A).unwrap()
    };
    assert_eq!(after(true), after(false));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize),
    Refill(u64),
    Sync,
    FailSync,
    PowerLoss,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..4000, 0usize..1500).prop_map(|(offset, len)| Step::Write(offset, len)),
        1 => (0u64..5000).prop_map(Step::Refill),
        2 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        2 => Just(Step::PowerLoss),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// The model keeps, for each byte, every value that may be on the disk: the one synced last and
    /// all seen since. After a power loss a byte must hold one of them; the exceptions (garbage)
    /// must lie in one sector and among the bytes that were changing.
    #[test]
    fn a_power_loss_invents_nothing(seed in any::<u64>(), steps in steps()) {
        let mut disk = with_file(seed, b"");
        let mut possible: Vec<Vec<u8>> = Vec::new();
        let mut sizes = vec![0];
        let mut value = 0u8;
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Write(offset, len) => {
                    value = value.wrapping_add(1);
                    run(&mut disk, &[write(A, offset, &vec![value; len])]);
                }
                Step::Refill(len) => run(&mut disk, &[create(A, len)]),
                Step::Sync => run(&mut disk, &[sync(A)]),
                Step::FailSync => {
                    disk.fail_next(FaultKind::SyncFails, number);
                    disk.execute(&sync(A)).unwrap_err();
                }
                Step::PowerLoss => {
                    disk.crash(Crash::PowerLoss, number);
                    let after = disk.load(A).unwrap();
                    prop_assert!(after.len() <= *sizes.iter().max().unwrap());
                    prop_assert!(after.len() >= *sizes.iter().min().unwrap());
                    let garbage: std::collections::BTreeSet<usize> = (0..after.len())
                        .filter(|&i| !possible[i].contains(&after[i]))
                        .inspect(|&i| assert!(possible[i].len() > 1, "synced byte {i} is damaged"))
                        .map(|i| i / SECTOR)
                        .collect();
                    prop_assert!(garbage.len() <= 1, "garbage in sectors {:?}", garbage);
                }
            }
            let seen = disk.load(A).unwrap();
            if matches!(step, Step::PowerLoss) || matches!(step, Step::Sync) && !stray(&disk) {
                possible.clear();
                sizes.clear();
            }
            // Beyond its end, a file reads as zeros once it grows.
            possible.resize(possible.len().max(seen.len()), vec![0]);
            sizes.push(seen.len());
            for (i, values) in possible.iter_mut().enumerate() {
                let byte = seen.get(i).copied().unwrap_or(0);
                if !values.contains(&byte) {
                    values.push(byte);
                }
            }
        }
    }
}

/// Whether a failed sync left something behind that a later one did not make durable.
fn stray(disk: &SimDisk) -> bool {
    let mut copy = disk.clone();
    copy.crash(Crash::PowerLoss, u32::MAX);
    copy.load(A).unwrap() != disk.clone().load(A).unwrap()
}
