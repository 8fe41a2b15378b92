//! Loss of power under whole nodes on the production disk layer: real files, the threads of
//! [`Files`](super::disk::Files), the node and its recovery.
//!
//! A story is a chain of lives. In each, the members of a cluster serve clients while every change
//! of their files is recorded, until the power fails at a random moment: of what no sync covered,
//! something random survives. The members start again on what is left, must neither refuse it nor
//! find it damaged, and must have everything that they acknowledged until that moment. Many such
//! moments are tried for each life; the next life begins after one of them.
//!
//! What is acknowledged: writes to clients, open sessions, changes of the membership, and to the
//! rest of the host the identity of a data directory, its cluster and its peers.
//!
//! `STORM_IMAGES` is the number of moments for each test, `STORM_SEED` the first seed. The threads
//! of a disk run freely, so a seed gives the same plan again, but not exactly the same record.
//! The tests at the end forget a sync and expect to be caught: a test of this kind is only trusted
//! if it finds something.

mod cluster;
mod expected;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::tcp::fs::image::{Crash, Image, Record, Survivors};
use crate::tcp::fs::{self, Event, FileId, Recorder, Saboteur};
use crate::tcp::scratch::Scratch;

use cluster::Cluster;
use expected::{Expected, Mark};
use workload::Workload;

/// Crashes of one life, each with an image.
const CRASHES: u32 = 12;

/// What is tried.
#[derive(Clone, Copy)]
struct Story {
    members: u64,
    seed: u64,
    /// Crashes in all lives together.
    images: u32,
    sabotage: Option<Saboteur>,
}

/// What was found wrong, and after how many images.
#[derive(Debug)]
struct Failure {
    images: u32,
    what: String,
}

/// Members at work on files that are recorded.
struct Powered {
    cluster: Cluster,
    recorder: Arc<Recorder>,
    root: PathBuf,
    _scratch: Scratch,
}

/// A life and its record.
struct Life {
    record: Record,
    /// What was expected when it began.
    begun: Expected,
    /// The same after the members were asked, and how many events there were by then.
    verified: Expected,
    verified_at: usize,
    /// What happened later, each after so many events.
    marks: Vec<(usize, Mark)>,
}

impl Life {
    /// What must be there when the power fails after so many events.
    fn expected_after(&self, events: usize) -> Expected {
        if events < self.verified_at {
            // What is open may be decided otherwise the next time.
            return self.begun.clone();
        }
        let mut expected = self.verified.clone();
        let there = self.marks.iter().take_while(|(position, _)| *position <= events);
        there.for_each(|(_, mark)| expected.note(mark));
        expected
    }

    /// Draws when the power fails, and what survives.
    fn crash(&self, draws: &mut StdRng) -> Crash {
        // Most telling is the moment right after an acknowledgement.
        let events = match draws.gen_bool(0.5) {
            true => self.marks[draws.gen_range(0..self.marks.len())].0,
            false => draws.gen_range(0..=self.record.events().len()),
        };
        let chance = |draws: &mut StdRng| [0, 10, 50, 90, 100][draws.gen_range(0..5)];
        let survivors = match draws.gen_range(0..20) {
            0..=5 => Survivors::Nothing,
            6 => Survivors::Everything,
            7..=9 => Survivors::Before(events.saturating_sub(draws.gen_range(0..50))),
            _ => Survivors::Some { names: chance(draws), sectors: chance(draws) },
        };
        Crash { events, survivors, seed: draws.r#gen() }
    }
}

impl Story {
    /// Runs it to its end. Returns the number of images.
    fn run(self) -> Result<u32, Failure> {
        let mut images = 0;
        let mut draws = StdRng::seed_from_u64(self.seed);
        let (mut image, mut expected) = (Image::default(), Expected::default());
        let mut number = 0;
        while images < self.images {
            let failed = |images, what| {
                let Story { seed, members, .. } = self;
                let what = format!("seed {seed}, {members} members, life {number}: {what}");
                Failure { images, what }
            };
            let life = self.live(&image, number, expected, &mut draws);
            let life = life.map_err(|what| failed(images, what))?;
            (image, expected) = (Image::default(), Expected::default());
            for _ in 0..CRASHES.min(self.images - images) {
                images += 1;
                let crash = life.crash(&mut draws);
                (image, expected) =
                    (Image::after(&life.record, crash), life.expected_after(crash.events));
                self.start(&image, number + 1, None, &mut expected.clone())
                    .map_err(|what| failed(images, describe(&what, &life.record, crash)))?;
            }
            number += 1;
        }
        Ok(images)
    }

    /// Starts the members on an image, and makes sure that what is expected is there. Syncs take
    /// times that are drawn from the seed `pauses`, if there is one.
    fn start(
        self,
        image: &Image,
        life: u64,
        pauses: Option<u64>,
        expected: &mut Expected,
    ) -> Result<Powered, String> {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).map_err(of_the_test)?;
        let root = fs::canonicalize(scratch.path()).map_err(of_the_test)?;
        image.write(&root).map_err(of_the_test)?;
        let recorder = Recorder::start(&root, pauses, self.sabotage);
        let recorder = recorder.map_err(of_the_test)?;
        let mut cluster = Cluster::start(&root, self.members, life)?;
        expected.verify(&mut cluster)?;
        Ok(Powered { cluster, recorder, root, _scratch: scratch })
    }

    /// Starts the members on an image, and lets clients work for a while.
    fn live(
        self,
        image: &Image,
        number: u64,
        begun: Expected,
        draws: &mut StdRng,
    ) -> Result<Life, String> {
        let mut verified = begun.clone();
        let powered = self.start(image, number, Some(draws.r#gen()), &mut verified)?;
        let Powered { mut cluster, recorder, root, _scratch } = powered;
        let verified_at = recorder.position();
        let marks = Workload::new(&mut cluster, &recorder, &verified, draws).run()?;
        drop(cluster);
        let record = Record::of(&recorder);
        let survivors = Survivors::Everything;
        let end = Crash { events: record.events().len(), survivors, seed: 0 };
        let real = Image::read(&root).map_err(of_the_test)?;
        match Image::after(&record, end).difference(&real) {
            None => Ok(Life { record, begun, verified, verified_at, marks }),
            Some(path) => Err(format!("{} was changed without a record", path.display())),
        }
    }
}

fn of_the_test(error: std::io::Error) -> String {
    format!("the test itself failed: {error}")
}

/// A failure, and what the disk did last.
fn describe(what: &str, record: &Record, crash: Crash) -> String {
    let last = record.events()[..crash.events].iter().enumerate().rev().take(40);
    let mut lines: Vec<String> = last
        .map(|(number, event)| match event {
            Event::Write { file, offset, data } => {
                format!("  {number} Write {file:?} offset {offset}, {} bytes", data.len())
            }
            event => format!("  {number} {event:?}"),
        })
        .collect();
    lines.reverse();
    format!("{what}\nafter {crash:?}, at the end of\n{}", lines.join("\n"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Tells one story after the other, until there were enough images.
#[track_caller]
fn survives(members: u64, images: u32) {
    let images = number("STORM_IMAGES").map_or(images, |images| images as u32);
    let mut seed = number("STORM_SEED").unwrap_or(1);
    let mut done = 0;
    while done < images {
        let images = (images - done).min(4 * CRASHES);
        match (Story { members, seed, images, sabotage: None }).run() {
            Ok(images) => done += images,
            Err(Failure { images, what }) => panic!("image {}: {what}", done + images),
        }
        seed += 1;
    }
    println!("{done} images of {members} members, seeds up to {}", seed - 1);
}

#[test]
fn single_member_survives_loss_of_power() {
    survives(1, 192);
}

#[test]
fn three_members_survive_loss_of_power() {
    survives(3, 48);
}

/// That forgotten syncs are noticed within so many images.
#[track_caller]
fn notices(sabotage: Saboteur, images: u32) {
    let caught =
        (1..).map(|seed| Story { members: 1, seed, images: 4 * CRASHES, sabotage: Some(sabotage) });
    let mut tried = 0;
    for story in caught {
        match story.run() {
            Ok(images) => tried += images,
            Err(Failure { images, what }) => {
                println!(
                    "noticed after {} images: {}",
                    tried + images,
                    what.lines().next().unwrap_or_default()
                );
                return;
            }
        }
        assert!(tried < images, "not noticed in {tried} images");
    }
}

fn is_of(path: &str, name: &str) -> bool {
    path.rsplit('/').next().is_some_and(|last| last.starts_with(name))
}

#[test]
fn forgotten_directory_sync_is_noticed() {
    notices(|path, _, _| is_of(path, "data"), 200);
}

#[test]
fn forgotten_log_sync_is_noticed() {
    notices(|path, _, _| is_of(path, "wal-"), 200);
}

#[test]
fn forgotten_snapshot_sync_is_noticed() {
    notices(|path, _, _| is_of(path, "snap-"), 400);
}

#[test]
fn forgotten_identity_sync_is_noticed() {
    notices(|path, _, _| is_of(path, "identity.toml"), 400);
}

#[test]
fn forgotten_peers_sync_is_noticed() {
    notices(|path, _, _| is_of(path, "peers.toml"), 400);
}

/// The directory is not synced between the name of a new snapshot and the removal of segments.
fn renames_of_snapshots(path: &str, directory: FileId, events: &[Event]) -> bool {
    let unsynced = events
        .iter()
        .rev()
        .take_while(|event| !matches!(event, Event::SyncEnds { file, .. } if *file == directory));
    let is_snapshot =
        |event: &Event| matches!(event, Event::Rename { to, .. } if to.starts_with("snap-"));
    is_of(path, "data") && unsynced.into_iter().any(is_snapshot)
}

#[test]
fn forgotten_sync_of_a_snapshots_name_is_noticed() {
    notices(renames_of_snapshots, 400);
}
