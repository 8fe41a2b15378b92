//! Random histories of the write-ahead log on a disk that loses power.
//!
//! The disk keeps what was synced. Of the rest a crash leaves any subset: every 512-byte sector has
//! any of the contents it went through since the last sync, and every operation on the directory is
//! there or not. What recovery makes of that must contain everything whose batch was done, must be
//! the state after some whole number of records, and must survive more crashes on the way.

use std::collections::VecDeque;
use std::slice;

use bytes::Bytes;
use proptest::prelude::*;

use stormkv::env::{DiskOp, FileName};
use stormkv::error::Error;
use stormkv::memory::MemDisk;
use stormkv::types::{Entry, EntryKind, HardState, NodeId, SnapshotId};
use stormkv::wal::{Recovered, Wal, WalConfig, WalPosition, decode_records};

#[path = "fuzz/properties/wal_model.rs"]
mod wal_model;

use wal_model::Model;

const CONFIG: WalConfig = WalConfig { segment_bytes: 1536 };

/// SplitMix64: the choices a crash makes.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below or equal to `max`.
    fn up_to(&mut self, max: usize) -> usize {
        (self.next() % (max as u64 + 1)) as usize
    }
}

/// The power fails. Whatever the disk may have kept, nothing and everything are likely.
fn crash(disk: &mut MemDisk, rng: &mut Rng) {
    disk.crash_with(|most| match rng.up_to(3) {
        0 => 0,
        1 => most,
        _ => rng.up_to(most),
    });
}

/// Carries out what the log asks for. It never uses the name of a file again.
fn run(disk: &mut MemDisk, op: &DiskOp) {
    if let DiskOp::Create { file, .. } = op {
        assert!(disk.content(*file).is_none(), "{file} is used again");
    }
    disk.run(slice::from_ref(op)).expect("nothing fails");
}

#[derive(Clone, Debug)]
enum Action {
    /// Replaces `back` entries at the end by `count` new ones.
    Append {
        back: u8,
        count: u8,
        bytes: u16,
        new_term: bool,
    },
    /// Moves the snapshot marker over this share (of 4) of the log.
    Mark {
        share: u8,
    },
    /// Installs a snapshot from elsewhere.
    Install {
        ahead: u8,
        count: u8,
    },
    /// Cuts a batch from what was emitted.
    Submit,
    /// The disk carries out a batch.
    Run,
    Compact,
    Vouch,
    /// The process dies while the disk is this far in the batch, with or without the machine; and
    /// again, so many times, while it recovers.
    Crash {
        part: u8,
        power: bool,
        again: u8,
    },
}

fn actions(max: usize) -> impl Strategy<Value = Vec<Action>> {
    let append = (0..4u8, 1..5u8, prop_oneof![0..40u16, 0..400u16, 0..2500u16], any::<bool>())
        .prop_map(|(back, count, bytes, new_term)| Action::Append { back, count, bytes, new_term });
    let action = prop_oneof![
        8 => append,
        2 => (0..5u8).prop_map(|share| Action::Mark { share }),
        1 => (1..9u8, 0..3u8).prop_map(|(ahead, count)| Action::Install { ahead, count }),
        5 => Just(Action::Submit),
        5 => Just(Action::Run),
        2 => Just(Action::Compact),
        2 => Just(Action::Vouch),
        2 => (any::<u8>(), any::<bool>(), 0..4u8)
            .prop_map(|(part, power, again)| Action::Crash { part, power, again }),
    ];
    prop::collection::vec(action, 1..max)
}

/// A log, its disk, and the account of what may be found after a crash.
struct World {
    disk: MemDisk,
    wal: Wal,
    rng: Rng,
    /// The state after each record that may be durable; the first certainly is.
    states: VecDeque<Model>,
    pending: Vec<DiskOp>,
    /// Operations, how far the log is then, and how many records are in them and before.
    batches: VecDeque<(Vec<DiskOp>, WalPosition, usize)>,
    /// The number of records so far, and of those that are durable.
    written: usize,
    durable: usize,
    /// The highest watermark on the disk.
    vouched: WalPosition,
    /// All states that ever were.
    past: Vec<Model>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut disk = MemDisk::new();
        let recovered = Wal::recover(&mut disk, CONFIG).unwrap();
        let mut world = World {
            disk,
            wal: recovered.wal,
            rng: Rng(seed),
            states: VecDeque::from([Model::default()]),
            pending: Vec::new(),
            batches: VecDeque::new(),
            written: 0,
            durable: 0,
            vouched: WalPosition::default(),
            past: vec![Model::default()],
        };
        world.run_all(&recovered.ops);
        world.wal.synced(world.wal.position());
        world
    }

    fn run_all(&mut self, ops: &[DiskOp]) {
        for op in ops {
            run(&mut self.disk, op);
            if let DiskOp::Write { data, .. } = op {
                for record in decode_records(data) {
                    self.vouched = self.vouched.max(record.unwrap().synced);
                }
            }
        }
    }

    fn append(&mut self, state: HardState, snapshot: Option<SnapshotId>, entries: &[Entry]) {
        self.wal.append(state, snapshot, entries, &mut self.pending);
        let mut model = self.states.back().unwrap().clone();
        model.append(state, snapshot, entries);
        self.push(model);
    }

    fn push(&mut self, model: Model) {
        assert_eq!(self.wal.last_index(), model.last());
        self.past.push(model.clone());
        self.states.push_back(model);
        self.written += 1;
    }

    /// Whether this is the beginning of a log that was, behind a base that was committed by then.
    fn once_was(&self, found: &Model) -> bool {
        self.past.iter().any(|past| {
            let behind: Vec<&Entry> =
                past.entries.iter().filter(|entry| entry.index > found.base()).collect();
            found.hard_state.commit <= found.base().max(past.hard_state.commit)
                && found.entries.len() <= behind.len()
                && found.entries.iter().zip(behind).all(|(one, other)| one == other)
        })
    }

    fn new_entries(&mut self, first: u64, count: u8, bytes: u16, term: u64) -> Vec<Entry> {
        let data = |rng: &mut Rng| {
            let len = rng.up_to(bytes as usize);
            Bytes::from_iter((0..len).map(|_| rng.next() as u8))
        };
        (first..first + u64::from(count))
            .map(|index| {
                let kind = [EntryKind::Normal, EntryKind::Membership][self.rng.up_to(1)];
                Entry { index, term, kind, data: data(&mut self.rng) }
            })
            .collect()
    }

    fn step(&mut self, action: &Action) {
        let now = self.states.back().unwrap().clone();
        let mut state = now.hard_state;
        match *action {
            Action::Append { back, count, bytes, new_term } => {
                state.term += u64::from(new_term);
                state.vote = NodeId(self.rng.next() % 3);
                let floor = state.commit.max(now.base());
                let first = now.last().saturating_sub(u64::from(back)).max(floor) + 1;
                let entries = self.new_entries(first, count, bytes, state.term);
                let last = entries[entries.len() - 1].index;
                state.commit += self.rng.up_to((last - state.commit) as usize) as u64 / 2;
                self.append(state, None, &entries);
            }
            Action::Mark { share } => {
                let covered = now.entries.len() * usize::from(share) / 4;
                let Some(entry) = covered.checked_sub(1).map(|at| &now.entries[at]) else { return };
                let id = SnapshotId { index: entry.index, term: entry.term };
                state.commit = state.commit.max(id.index);
                self.append(state, Some(id), &[]);
            }
            Action::Install { ahead, count } => {
                state.term += 1;
                let floor = state.commit.max(now.base());
                let id = SnapshotId { index: floor + u64::from(ahead), term: state.term };
                state.commit = id.index;
                let entries = self.new_entries(id.index + 1, count, 60, state.term);
                self.append(state, Some(id), &entries);
            }
            Action::Submit => {
                let ops = std::mem::take(&mut self.pending);
                self.batches.push_back((ops, self.wal.position(), self.written));
            }
            Action::Run => {
                let Some((ops, end, records)) = self.batches.pop_front() else { return };
                self.run_all(&ops);
                self.wal.synced(end);
                self.states.drain(..records - self.durable);
                self.durable = records;
            }
            Action::Compact => self.wal.compact(&mut self.pending),
            Action::Vouch => {
                if self.wal.vouch(state, &mut self.pending) {
                    self.push(now);
                }
            }
            Action::Crash { part, power, again } => self.crash(part, power, again),
        }
    }

    fn crash(&mut self, part: u8, power: bool, again: u8) {
        self.pending.clear();
        let ops = self.batches.pop_front().map_or(Vec::new(), |(ops, ..)| ops);
        self.batches.clear();
        self.run_all(&ops[..ops.len() * usize::from(part) / 255]);
        let mut power = power;
        for left in (0..=again).rev() {
            if power {
                crash(&mut self.disk, &mut self.rng);
            }
            let recovered = Wal::recover(&mut self.disk, CONFIG).unwrap();
            let found = Model::of(&recovered);
            assert!(self.states.contains(&found), "found {found:?}\nexpected {:?}", self.states);
            let all = recovered.ops.len();
            let part = if left == 0 { all } else { self.rng.up_to(all - 1) };
            self.run_all(&recovered.ops[..part]);
            power = self.rng.up_to(2) > 0;
            if left == 0 {
                self.states = VecDeque::from([found]);
                self.wal = recovered.wal;
                self.wal.synced(self.wal.position());
            }
        }
        self.durable = self.written;
        assert_eq!(self.disk.files().count(), self.wal.segments(), "{:?}", self.disk);
    }

    /// Lets the disk finish, and the log vouch for the end.
    fn settle(&mut self) {
        for action in [Action::Submit, Action::Vouch, Action::Submit] {
            self.step(&action);
            while !self.batches.is_empty() {
                self.step(&Action::Run);
            }
        }
        assert_eq!(self.states.len(), 1);
    }
}

/// Flips bits of what a record vouches for. Returns how many.
fn flip_vouched(disk: &mut MemDisk, vouched: WalPosition, flips: &[u64]) -> usize {
    let bits = |disk: &MemDisk, file| match file {
        FileName::Segment(number) if number < vouched.segment() => {
            disk.content(file).map_or(0, <[u8]>::len) * 8
        }
        FileName::Segment(number) if number == vouched.segment() => vouched.offset() as usize * 8,
        _ => 0,
    };
    let files: Vec<FileName> = disk.files().collect();
    let total: usize = files.iter().map(|&file| bits(disk, file)).sum();
    if total == 0 {
        return 0;
    }
    for flip in flips {
        let mut at = (flip % total as u64) as usize;
        for &file in &files {
            let here = bits(disk, file);
            if at < here {
                disk.content_mut(file).expect("just listed")[at / 8] ^= 1 << (at % 8);
                break;
            }
            at -= here;
        }
    }
    flips.len()
}

/// The power fails again and again while a damaged log is being repaired. It is never taken for a
/// whole one before it reaches its floor.
fn repair(disk: &MemDisk, rng: &mut Rng, first: Recovered, last: &Model) {
    let rank = |id: SnapshotId| (id.term, id.index);
    let mut recovered = first;
    let floor = recovered.damage.as_ref().expect("it is damaged").floor;
    let mut disk = disk.image();
    // Whatever is damaged is so durably.
    for file in disk.files().collect::<Vec<_>>() {
        disk.content_mut(file);
    }
    for _ in 0..6 {
        let found = Model::of(&recovered);
        let mut wal = recovered.wal;
        let done = rng.up_to(recovered.ops.len());
        recovered.ops[..done].iter().for_each(|op| run(&mut disk, op));
        if done == recovered.ops.len() {
            wal.synced(wal.position());
            let mut ops = Vec::new();
            let index = found.last() + 1;
            let entry = Entry { index, term: 1, kind: EntryKind::Normal, data: Bytes::new() };
            let entries = if rng.up_to(1) == 0 && rank(found.end()) < (1, index) {
                vec![entry]
            } else {
                Vec::new()
            };
            wal.append(found.hard_state, None, &entries, &mut ops);
            ops[..rng.up_to(ops.len())].iter().for_each(|op| run(&mut disk, op));
        }
        crash(&mut disk, rng);
        recovered = Wal::recover(&mut disk, CONFIG).expect("as damaged as before");
        let whole = rank(Model::of(&recovered).end()) >= rank(last.end());
        match &recovered.damage {
            Some(damage) => assert!(rank(damage.floor) >= rank(last.end()), "{damage:?}"),
            None => assert!(whole, "{floor:?} is forgotten: {:?}", Model::of(&recovered)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_crash_loses_nothing_durable(actions in actions(120), seed in any::<u64>()) {
        let mut world = World::new(seed);
        for action in &actions {
            world.step(action);
        }
        world.crash(128, true, 3);
    }

    #[test]
    fn damage_is_found_or_harmless(
        actions in actions(80),
        seed in any::<u64>(),
        rounds in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..4), 12),
    ) {
        let mut world = World::new(seed);
        for action in &actions {
            world.step(action);
        }
        world.settle();
        for flips in rounds {
            let mut disk = world.disk.image();
            if flip_vouched(&mut disk, world.vouched, &flips) == 0 {
                break;
            }
            match Wal::recover(&mut disk, CONFIG) {
                Ok(recovered) => match &recovered.damage {
                    None => prop_assert_eq!(&Model::of(&recovered), &world.states[0]),
                    Some(damage) => {
                        let (rank, last) = (|id: SnapshotId| (id.term, id.index), &world.states[0]);
                        prop_assert!(rank(damage.floor) >= rank(last.end()), "{:?}", damage);
                        prop_assert!(recovered.hard_state.term > last.hard_state.term);
                        prop_assert_eq!(recovered.hard_state.vote, NodeId(0));
                        prop_assert!(world.once_was(&Model::of(&recovered)));
                        repair(&disk, &mut Rng(seed), recovered, last);
                    }
                },
                Err(error) => prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error),
            }
        }
    }

    #[test]
    fn no_bytes_make_recovery_panic(
        actions in actions(20),
        seed in any::<u64>(),
        noise in prop::collection::vec((any::<u64>(), any::<u64>(), 0..64usize), 0..6),
        strange in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..300)), 0..2),
    ) {
        let mut world = World::new(seed);
        for action in &actions {
            world.step(action);
        }
        let mut disk = world.disk;
        let files: Vec<FileName> = disk.files().collect();
        for (place, value, len) in noise {
            let bytes = disk.content_mut(files[place as usize % files.len()]).expect("just listed");
            let begin = (place >> 8) as usize % bytes.len().max(1);
            let end = (begin + len).min(bytes.len());
            bytes[begin..end].iter_mut().for_each(|byte| *byte = value as u8);
            if value % 7 == 0 {
                bytes.truncate(begin);
            }
        }
        for (number, bytes) in strange {
            disk.insert(FileName::Segment(number), bytes);
        }
        if let Ok(recovered) = Wal::recover(&mut disk, CONFIG) {
            let found = Model::of(&recovered);
            prop_assert!(found.hard_state.commit <= found.last());
            recovered.ops.iter().for_each(|op| run(&mut disk, op));
            let again = Wal::recover(&mut disk, CONFIG).unwrap();
            prop_assert_eq!(found, Model::of(&again));
            prop_assert_eq!(again.damage.is_some(), recovered.wal.floor().is_some());
        }
    }
}
