//! Real files in a temporary directory: each operation, what a failure stops, and the life of a
//! spare segment.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::*;
use crate::tcp::directory::{Expected, REMOVED};
use crate::tcp::scratch::Scratch;
use crate::types::NodeId;

const SEGMENT: u64 = 3 << 20;
const WAL: FileName = FileName::Segment(1);
const PART: FileName = FileName::Partial(5, 2);
const SNAP: FileName = FileName::Snapshot(5, 2);
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    files: Files,
    done: Receiver<Completion>,
    next: u64,
}

impl Bench {
    fn open(path: &Path) -> Bench {
        let expected = Expected { node: NodeId(1), cluster: None };
        let directory = Arc::new(Directory::open(path, expected).expect("it can be opened"));
        let (sender, done) = mpsc::channel();
        let report = move |completion| drop(sender.send(completion));
        let files = Files::start(directory, SEGMENT, report).expect("there are threads");
        Bench { files, done, next: 0 }
    }

    fn submit(&mut self, ops: Vec<DiskOp>) -> Result<(), DiskError> {
        self.next += 1;
        self.files.submit(DiskQueue::Log, Ticket(self.next), ops);
        match self.done.recv_timeout(PATIENCE).expect("a completion") {
            Completion::Done(DiskQueue::Log, ticket, result) if ticket == Ticket(self.next) => {
                result
            }
            other => panic!("{other:?} instead of the batch {}", self.next),
        }
    }

    fn run(&mut self, ops: Vec<DiskOp>) {
        self.submit(ops).expect("nothing fails");
    }

    fn fetch(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        self.files.fetch(Ticket(77), file, offset, len);
        match self.done.recv_timeout(PATIENCE).expect("a completion") {
            Completion::Fetched(Ticket(77), result) => result,
            other => panic!("{other:?} instead of the read"),
        }
    }

    fn load(&mut self, file: FileName) -> Bytes {
        self.files.load(file).expect("it can be read")
    }

    fn list(&mut self) -> Vec<FileName> {
        let mut files = self.files.list().expect("it can be listed");
        files.sort_unstable();
        files
    }
}

fn create(file: FileName, len: u64) -> DiskOp {
    DiskOp::Create { file, len }
}

fn write(file: FileName, offset: u64, data: &'static [u8]) -> DiskOp {
    DiskOp::Write { file, offset, data: Bytes::from_static(data) }
}

#[test]
fn each_operation_does_what_it_says() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    bench.run(vec![
        create(PART, 4),
        write(PART, 2, b"cd"),
        write(PART, 4, b"ef"),
        write(PART, 0, b"ab"),
        DiskOp::Sync { file: PART },
        DiskOp::SyncDir,
    ]);
    assert_eq!(bench.load(PART), "abcdef");
    bench.run(vec![create(SNAP, 0), DiskOp::Rename { from: PART, to: SNAP }]);
    assert_eq!((bench.list(), bench.load(SNAP)), (vec![SNAP], Bytes::from_static(b"abcdef")));
    bench.run(vec![write(SNAP, 8, b"ij")]);
    assert_eq!(bench.load(SNAP), &b"abcdef\0\0ij"[..]);
    bench.run(vec![create(SNAP, 3)]);
    assert_eq!(bench.load(SNAP), &[0; 3][..]);
    bench.run(vec![DiskOp::Remove { file: SNAP }, DiskOp::Remove { file: SNAP }]);
    assert_eq!(bench.list(), []);
    let stats = bench.files.stats();
    assert_eq!((stats.bytes_written(), stats.syncs()), (8, 2));
}

#[test]
fn reads_end_with_the_file() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    bench.run(vec![create(SNAP, 0), write(SNAP, 0, b"snapshot")]);
    assert_eq!(bench.fetch(SNAP, 0, 4).expect("it is there"), "snap");
    assert_eq!(bench.fetch(SNAP, 4, u32::MAX).expect("it is there"), "shot");
    assert_eq!(bench.fetch(SNAP, 99, 1).expect("it is there"), "");
    let error = bench.fetch(PART, 0, 1).expect_err("it is not there");
    assert_eq!((error.operation, error.file), ("read", Some(PART)));
}

#[test]
fn more_files_than_are_held_open_are_all_written() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    let files: Vec<FileName> = (1..=40).map(|index| FileName::Snapshot(index, 1)).collect();
    bench.run(files.iter().map(|&file| create(file, 0)).collect());
    bench.run(files.iter().map(|&file| write(file, 0, b"x")).collect());
    bench.run(files.iter().map(|&file| DiskOp::Sync { file }).collect());
    assert!(files.iter().all(|&file| bench.load(file) == "x"));
}

#[test]
fn after_a_failure_nothing_is_done_ever() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    let batch = vec![create(PART, 1), write(SNAP, 0, b"x"), create(SNAP, 1)];
    let error = bench.submit(batch).expect_err("there is no such file");
    assert_eq!((error.operation, error.file), ("write", Some(SNAP)));
    assert!(error.reason.contains("something else than stormkv removed it"), "{error}");
    assert_eq!(bench.list(), [PART], "what came before was done, what comes after is not");
    assert_eq!(bench.submit(vec![create(SNAP, 1)]), Err(error));
    assert_eq!(bench.list(), [PART]);
}

#[test]
fn a_device_without_space_says_what_to_do() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: this system has no /dev/full");
        return;
    }
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    let link = scratch.path().join(PART.to_string());
    std::os::unix::fs::symlink("/dev/full", link).expect("it can be linked");
    let error = bench.submit(vec![write(PART, 0, b"x")]).expect_err("it is full");
    assert!(error.reason.contains("free some space and start the node again"), "{error}");
}

#[test]
fn dropping_it_finishes_what_was_submitted() {
    let scratch = Scratch::new();
    let Bench { mut files, done, .. } = Bench::open(scratch.path());
    files.submit(DiskQueue::Log, Ticket(1), vec![create(WAL, SEGMENT), write(WAL, 0, b"a")]);
    files.submit(DiskQueue::Log, Ticket(2), vec![write(WAL, 1, b"b"), DiskOp::Sync { file: WAL }]);
    drop(files);
    let told: Vec<Completion> = done.iter().collect();
    assert!(
        matches!(
            told[..],
            [
                Completion::Done(DiskQueue::Log, Ticket(1), Ok(())),
                Completion::Done(DiskQueue::Log, Ticket(2), Ok(()))
            ]
        ),
        "{told:?}"
    );
    assert_eq!(Bench::open(scratch.path()).load(WAL)[..3], *b"ab\0");
}

#[test]
fn the_first_segment_begins_the_nodes_life() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    bench.run(vec![create(PART, 0)]);
    assert!(!bench.files.directory.begun());
    bench.run(vec![create(WAL, SEGMENT), DiskOp::SyncDir]);
    assert!(bench.files.directory.begun());
}

#[test]
fn a_segment_is_recycled_and_never_shows_old_bytes() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    for number in 1..=6 {
        let file = FileName::Segment(number);
        bench.run(vec![create(file, SEGMENT), DiskOp::SyncDir]);
        let content = bench.load(file);
        assert_eq!(content.len() as u64, SEGMENT);
        assert!(content.iter().all(|byte| *byte == 0), "segment {number} has old bytes");
        bench.run(vec![
            write(file, 0, &[0xee; 100_000]),
            write(file, SEGMENT - 100_000, &[0xee; 100_000]),
            DiskOp::Sync { file },
        ]);
        if number > 1 {
            bench.run(vec![DiskOp::Remove { file: FileName::Segment(number - 1) }]);
            assert_eq!(bench.list(), [file]);
        }
    }
}

/// The names of removed segments that still have a file.
fn removed(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("it can be listed");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(REMOVED)).collect()
}

#[allow(clippy::disallowed_methods, reason = "the host has real time")]
fn wait_until_deleted(path: &Path) {
    let begun = now();
    while !removed(path).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "left: {:?}", removed(path));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn removed_segments_lose_their_names_at_once_and_are_deleted_later() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    let files: Vec<FileName> = (1..=4).map(FileName::Segment).collect();
    bench.run(files.iter().map(|&file| create(file, SEGMENT)).collect());
    bench.run(files.iter().map(|&file| DiskOp::Remove { file }).collect());
    assert_eq!(bench.list(), []);
    // Under a name that is used again there is the new file only.
    bench.run(vec![create(WAL, 5000), write(WAL, 0, b"new")]);
    wait_until_deleted(scratch.path());
    assert_eq!((bench.list(), &bench.load(WAL)[..4]), (vec![WAL], &b"new\0"[..]));
}

#[test]
fn removed_segments_of_an_earlier_life_are_deleted() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    let files: Vec<FileName> = (1..=4).map(FileName::Segment).collect();
    bench.run(files.iter().map(|&file| create(file, SEGMENT)).collect());
    // A directory without any segment would be refused.
    bench.run(files[..3].iter().map(|&file| DiskOp::Remove { file }).collect());
    drop(bench);
    let mut bench = Bench::open(scratch.path());
    assert_eq!(bench.list(), [FileName::Segment(4)]);
    wait_until_deleted(scratch.path());
}

#[test]
fn a_spare_with_something_in_it_is_not_used_as_it_is() {
    let scratch = Scratch::new();
    drop(Bench::open(scratch.path()));
    for (name, byte) in [("spare", 7), ("spare-filling.tmp", 8), ("spare-retired.tmp", 9)] {
        let old = vec![byte; SEGMENT as usize];
        fs::write(scratch.path().join(name), old).expect("it can be written");
    }
    let mut bench = Bench::open(scratch.path());
    let both = [FileName::Segment(1), FileName::Segment(2), FileName::Segment(3)];
    bench.run(both.map(|file| create(file, SEGMENT)).into());
    for file in both {
        let content = bench.load(file);
        assert_eq!(content.len() as u64, SEGMENT);
        assert!(content.iter().all(|byte| *byte == 0), "{file} has old bytes");
    }
}

#[test]
fn a_segment_of_another_length_is_made_on_the_spot() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(scratch.path());
    for (number, len) in [(1, SEGMENT + 8), (2, 5000), (3, 0)] {
        let file = FileName::Segment(number);
        bench.run(vec![create(file, len), DiskOp::Remove { file: FileName::Segment(number - 1) }]);
        assert_eq!(bench.load(file).len() as u64, len);
        assert_eq!(bench.list(), [file]);
    }
}

#[test]
fn a_spare_that_cannot_be_made_is_only_a_warning() {
    let scratch = Scratch::new();
    drop(Bench::open(scratch.path()));
    let _ = fs::remove_file(scratch.path().join("spare-filling.tmp"));
    // Not even root can open a directory for writing.
    fs::create_dir(scratch.path().join("spare-filling.tmp")).expect("nobody uses the name");
    let _ = fs::remove_file(scratch.path().join("spare"));
    let mut bench = Bench::open(scratch.path());
    bench.run(vec![create(WAL, SEGMENT)]);
    assert_eq!(bench.load(WAL).len() as u64, SEGMENT);
}
