//! The write-ahead log on a damaged disk: recovery finds a state that once was, or says what is
//! damaged, and keeps the beginning of a log that once was.
//!
//! A log is written through [`Wal`] itself, then damaged. What a record vouches for must survive
//! damage behind it; damage in front may only lead to an error or damage that names the place, or to
//! a state that was written once. (A log whose end was cut off cleanly looks like a younger one. Only
//! something outside of it could tell.) A checksum that fits the damage is beyond what any disk
//! does; it must do no more harm than to be believed.

use bytes::Bytes;

use stormkv::env::{DiskOp, FileName};
use stormkv::error::Error;
use stormkv::memory::MemDisk;
use stormkv::types::{Entry, EntryKind, HardState, NodeId, SnapshotId};
use stormkv::wal::{Recovered, Wal, WalConfig, WalPosition, decode_records};

use super::input::Input;
use super::wal_model::Model;

const CONFIG: WalConfig = WalConfig { segment_bytes: 1024 };
const SECTOR: usize = 512;
/// Bounds the work of one input.
const MAX_STEPS: usize = 64;
const MAX_DAMAGES: usize = 8;

/// Segment and offset.
type Place = (u64, u64);

fn place(position: WalPosition) -> Place {
    (position.segment(), position.offset())
}

/// A log that is being written, and all that it ever was.
struct History {
    disk: MemDisk,
    wal: Wal,
    now: Model,
    /// The state after each record, and where the record ends.
    states: Vec<(Place, Model)>,
    /// The highest watermark on the disk.
    vouched: Place,
}

impl History {
    fn new() -> Self {
        let mut disk = MemDisk::new();
        let recovered = Wal::recover(&mut disk, CONFIG).expect("an empty disk is a new log");
        let mut history = History {
            disk,
            wal: recovered.wal,
            now: Model::default(),
            states: vec![((0, 0), Model::default())],
            vouched: (0, 0),
        };
        history.run(&recovered.ops);
        history.wal.synced(history.wal.position());
        history
    }

    fn run(&mut self, ops: &[DiskOp]) {
        self.disk.run(ops).expect("nothing fails");
        for op in ops {
            let DiskOp::Write { data, .. } = op else { continue };
            for record in decode_records(data) {
                let record = record.expect("what is written can be read");
                self.vouched = self.vouched.max(place(record.synced));
            }
        }
    }

    fn append(&mut self, state: HardState, snapshot: Option<SnapshotId>, entries: &[Entry]) {
        let mut ops = Vec::new();
        self.wal.append(state, snapshot, entries, &mut ops);
        self.run(&ops);
        self.now.append(state, snapshot, entries);
        self.states.push((place(self.wal.position()), self.now.clone()));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let mut state = self.now.hard_state;
        let floor = state.commit.max(self.now.base());
        match input.byte() % 8 {
            0..=2 => {
                let back = u64::from(input.byte() % 4);
                state.term += u64::from(input.byte() % 2);
                state.vote = NodeId(u64::from(input.byte() % 3));
                let first = self.now.last().saturating_sub(back).max(floor) + 1;
                let entries = entries(input, first, state.term);
                let last = first - 1 + entries.len() as u64;
                state.commit += input.up_to((last - state.commit) as usize) as u64;
                self.append(state, None, &entries);
            }
            3 => {
                let covered = input.up_to(self.now.entries.len());
                let Some(at) = covered.checked_sub(1) else { return };
                let entry = &self.now.entries[at];
                let id = SnapshotId { index: entry.index, term: entry.term };
                state.commit = state.commit.max(id.index);
                self.append(state, Some(id), &[]);
            }
            4 => {
                state.term += 1;
                let ahead = u64::from(input.byte() % 8) + 1;
                let id = SnapshotId { index: floor + ahead, term: state.term };
                state.commit = id.index;
                let entries = entries(input, id.index + 1, state.term);
                self.append(state, Some(id), &entries);
            }
            5 => self.wal.synced(self.wal.position()),
            6 => {
                let mut ops = Vec::new();
                self.wal.compact(&mut ops);
                if self.wal.vouch(state, &mut ops) {
                    self.states.push((place(self.wal.position()), self.now.clone()));
                }
                self.run(&ops);
            }
            _ => {
                let recovered = Wal::recover(&mut self.disk, CONFIG).expect("nothing is damaged");
                assert_eq!(Model::of(&recovered), self.now);
                self.run(&recovered.ops);
                self.wal = recovered.wal;
                self.wal.synced(self.wal.position());
                // What was recovered stays where it was until the new segment is vouched for.
                self.vouched = self.vouched.max((self.wal.position().segment(), 0));
            }
        }
    }
}

fn entries(input: &mut Input<'_>, first: u64, term: u64) -> Vec<Entry> {
    let count = u64::from(input.byte() % 4);
    let len = if input.byte().is_multiple_of(8) { input.up_to(1500) } else { input.up_to(40) };
    let fill = input.byte();
    let kind = if fill & 1 == 0 { EntryKind::Normal } else { EntryKind::Membership };
    let data = Bytes::from(vec![fill; len]);
    (first..first + count).map(|index| Entry { index, term, kind, data: data.clone() }).collect()
}

/// Where the disk was changed, and whether checksums were mended.
#[derive(Default)]
struct Damage {
    /// The first changed byte of all.
    first: Option<Place>,
    forged: bool,
}

impl Damage {
    fn at(&mut self, file: FileName, offset: usize) {
        let FileName::Segment(segment) = file else { unreachable!("there are only segments") };
        let here = (segment, offset as u64);
        self.first = Some(self.first.map_or(here, |first| first.min(here)));
    }

    fn strike(&mut self, disk: &mut MemDisk, input: &mut Input<'_>) {
        let files: Vec<FileName> = disk.files().collect();
        let Some(&file) = files.get(usize::from(input.byte()) % files.len().max(1)) else { return };
        let len = disk.content(file).expect("just listed").len();
        let place = input.up_to(len.saturating_sub(1));
        let bytes = disk.content_mut(file).expect("just listed");
        match input.byte() % 8 {
            0 if place < len => {
                bytes[place] ^= 1 << (input.byte() % 8);
                self.at(file, place);
            }
            1 => {
                let end = len.min(place + usize::from(input.byte()));
                bytes[place.min(end)..end].fill(input.byte());
                self.at(file, place);
            }
            2 => {
                bytes.truncate(place);
                self.at(file, place);
            }
            3 => {
                disk.remove(file);
                self.at(file, 0);
            }
            4 => {
                // A sector lands in another's place, and the other way round.
                let other = files[usize::from(input.byte()) % files.len()];
                let (from, to) = (place / SECTOR * SECTOR, input.up_to(4) * SECTOR);
                swap_sectors(disk, (file, from), (other, to));
                self.at(file, from);
                self.at(other, to);
            }
            5 => {
                // Bytes of an older use show behind the end.
                bytes.extend_from_slice(&vec![input.byte(); input.up_to(300)]);
                self.at(file, len);
            }
            6 => {
                self.forged = true;
                forge(bytes, place, input);
            }
            _ => {
                self.forged = true;
                // No log gets to the numbers for which there is no next one.
                let number = input.near(&[1, 2, 3, 4, 5, 6, 7, 8]) >> 2;
                let copy = bytes.clone();
                disk.insert(FileName::Segment(number), copy);
            }
        }
    }
}

fn swap_sectors(disk: &mut MemDisk, one: (FileName, usize), other: (FileName, usize)) {
    let read = |disk: &MemDisk, (file, at): (FileName, usize)| {
        disk.content(file)?.get(at..at + SECTOR).map(<[u8]>::to_vec)
    };
    if let (Some(first), Some(second)) = (read(disk, one), read(disk, other)) {
        for ((file, at), bytes) in [(one, second), (other, first)] {
            disk.content_mut(file).expect("just read")[at..at + SECTOR].copy_from_slice(&bytes);
        }
    }
}

/// Changes the record that `place` is in, or the segment's preamble, and mends the checksum.
fn forge(bytes: &mut [u8], place: usize, input: &mut Input<'_>) {
    const PREAMBLE: usize = 16;
    let mut at = PREAMBLE;
    let len = loop {
        let Some(word) = bytes.get(at..at + 4) else { return };
        let len = u32::from_le_bytes(word.try_into().expect("4 bytes")) as usize;
        if len < 96 || at + len > bytes.len() {
            return;
        }
        if place < at + len {
            break len;
        }
        at += len;
    };
    if place < PREAMBLE {
        bytes[place] = input.byte();
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..PREAMBLE].copy_from_slice(&crc.to_le_bytes());
        return;
    }
    let field = at + 8 + input.up_to((len - 16) / 8) * 8;
    if field + 8 <= at + len {
        let value = u64::from_le_bytes(bytes[field..field + 8].try_into().expect("8 bytes"));
        let value = if input.flag() { value ^ input.u64() } else { input.near(&[value, 0]) };
        bytes[field..field + 8].copy_from_slice(&value.to_le_bytes());
    }
    if input.byte().is_multiple_of(4) {
        bytes[at] ^= input.byte() & 0xf8;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[at..at + 4]);
    hasher.update(&bytes[at + 8..at + len]);
    let crc = hasher.finalize();
    bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Writes a log, damages it, and recovers what is left.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut history = History::new();
    for _ in 0..usize::from(input.byte()) % MAX_STEPS {
        history.step(&mut input);
    }
    let mut damage = Damage::default();
    for _ in 0..usize::from(input.byte()) % (MAX_DAMAGES + 1) {
        damage.strike(&mut history.disk, &mut input);
    }
    let History { mut disk, states, vouched, .. } = history;

    match Wal::recover(&mut disk, CONFIG) {
        Ok(recovered) => {
            let found = Model::of(&recovered);
            assert!(found.hard_state.commit <= found.last(), "committed, but lost");
            let must = match damage.first {
                _ if damage.forged => None,
                None => Some(&states[states.len() - 1..]),
                Some(first) if first >= vouched => {
                    let kept = states.iter().rposition(|(end, _)| *end <= vouched);
                    Some(&states[kept.expect("the first ends at 0")..])
                }
                Some(_) => Some(&states[..]),
            };
            if let Some(lost) = &recovered.damage {
                let harmless = damage.first.is_none_or(|first| first >= vouched);
                assert!(!harmless || damage.forged, "nothing durable was damaged: {lost:?}");
                let newest = &found.hard_state;
                assert!(recovered.newly_damaged && newest.vote == NodeId(0), "{newest:?}");
                assert!(damage.forged || states.iter().any(|(_, state)| is_part(&found, state)));
            } else if let Some(must) = must {
                let is_one = must.iter().any(|(_, state)| *state == found);
                assert!(is_one, "found {found:?}\nexpected one of {must:#?}");
            }
            check_goes_on(&mut disk, recovered, &found);
        }
        Err(error) => {
            // A header that nothing vouches for, with noise behind it, may have had records.
            let noisy = error.to_string().contains("no record can be read");
            let harmless = damage.first.is_none_or(|first| first >= vouched) && !damage.forged;
            assert!(!harmless || noisy, "nothing durable was damaged, but: {error}");
            let named = matches!(error, Error::Corrupt { .. } | Error::NewerVersion { .. });
            assert!(named, "no place is named: {error}");
        }
    }
}

/// Whether what was found is the beginning of this log, behind a base that was committed by then.
fn is_part(found: &Model, log: &Model) -> bool {
    let behind: Vec<&Entry> = log.entries.iter().filter(|e| e.index > found.base()).collect();
    found.hard_state.commit <= found.base().max(log.hard_state.commit)
        && found.entries.len() <= behind.len()
        && found.entries.iter().zip(behind).all(|(one, other)| one == other)
}

/// What was recovered can be recovered again, and be written to.
fn check_goes_on(disk: &mut MemDisk, recovered: Recovered, found: &Model) {
    disk.run(&recovered.ops).expect("nothing fails");
    let again = Wal::recover(disk, CONFIG).expect("the same again");
    assert_eq!(Model::of(&again), *found);
    let floor = recovered.wal.floor();
    assert_eq!(again.damage.map(|damage| damage.floor), floor, "what is missing is remembered");

    let mut wal = recovered.wal;
    assert_eq!(disk.files().count(), wal.segments(), "no file is forgotten");
    wal.synced(wal.position());
    let mut state = found.hard_state;
    state.term = state.term.saturating_add(1);
    let index = found.last() + 1;
    let data = Bytes::from_static(b"goes on");
    let entry = Entry { index, term: state.term, kind: EntryKind::Normal, data };
    let mut ops = Vec::new();
    if index < u64::MAX {
        wal.append(state, None, std::slice::from_ref(&entry), &mut ops);
        disk.run(&ops).expect("nothing fails");
        let mut longer = found.clone();
        longer.append(state, None, &[entry]);
        let recovered = Wal::recover(disk, CONFIG).expect("it goes on");
        assert_eq!(Model::of(&recovered), longer);
    }
}
