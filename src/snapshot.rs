//! The snapshot file: the whole replicated state at one index, as a stream of checked frames.
//!
//! | part | bytes |
//! |---|---|
//! | magic | `stormsnp` |
//! | version | 4, little endian |
//! | frames | each: length (4), CRC-32 (4), kind (1), data (length) |
//!
//! Kinds: 1 head (which snapshot, the membership as of it), 3 a chunk of the state machine, 4 the
//! end, 5 a chunk of the session table (2 in versions 1 and 2). The CRC of a frame covers kind and data and continues
//! the CRC of the frame before, so a frame that is missing, repeated or out of place is noticed.
//! A file without its end frame is incomplete. The same bytes go over the wire.
//!
//! No CRC covers the version. So that damage to it can be told from a newer version, all versions
//! are made of such frames, and no two of them read the same frames: a new one changes the head or
//! the kinds. An unknown version is damage if the frames are, or if they are whole as those of a
//! known version.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bugs::{Bug, planted};
use crate::env::FileName;
use crate::error::Error;
use crate::machine::Chunks;
use crate::node::Membership;
use crate::types::{self, SnapshotId};

const MAGIC: &[u8; 8] = b"stormsnp";
/// Version 2 has the addresses of the members behind the membership in the head; a version 1 head
/// ends before them. Version 3 has the session table in frames of another kind, because it keeps
/// only the hash of a large response. Version 4 has the promises of votes behind the addresses, and version 5
/// the cluster's time behind these. All are still read.
const VERSION: u32 = 5;
const PREFIX: usize = 12;
/// Indexes and terms above this are not believed, so that there is always a next one.
const MAX_POSITION: u64 = 1 << 62;
const FRAME: usize = 9;

const HEAD: u8 = 1;
/// Chunks of the session table until version 2.
const FORMER_SESSIONS: u8 = 2;
const MACHINE: u8 = 3;
const END: u8 = 4;
const SESSIONS: u8 = 5;

/// The kind of the frames that hold the session table.
fn sessions_kind(version: u32) -> u8 {
    if version < 3 { FORMER_SESSIONS } else { SESSIONS }
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry it contains.
    pub id: SnapshotId,
    /// The membership as of that entry.
    pub membership: Membership,
    /// The cluster's time as of that entry, in whole microseconds.
    pub time: Duration,
}

impl Head {
    fn encode(&self) -> Bytes {
        let membership = &self.membership;
        let micros = types::micros(self.time);
        let parts = (self.id, membership, membership.addresses(), membership.promises(), micros);
        postcard::to_stdvec(&parts).expect("writing to memory cannot fail").into()
    }

    fn decode(version: u32, data: &[u8]) -> Result<Self, postcard::Error> {
        let ((id, mut membership), rest) =
            postcard::take_from_bytes::<(SnapshotId, Membership)>(data)?;
        let rest = if version == 1 {
            rest
        } else {
            let (addresses, rest) = postcard::take_from_bytes::<BTreeMap<_, _>>(rest)?;
            membership.learn_addresses(addresses);
            rest
        };
        let rest = if version < 4 {
            rest
        } else {
            let (promises, rest) = postcard::take_from_bytes(rest)?;
            membership = membership.with_promises(promises);
            rest
        };
        let (micros, rest) = if version < 5 { (0, rest) } else { postcard::take_from_bytes(rest)? };
        let time = Duration::from_micros(micros);
        if rest.is_empty() {
            Ok(Head { id, membership, time })
        } else {
            Err(postcard::Error::SerdeDeCustom)
        }
    }
}

impl Head {
    /// What must hold for any snapshot that a log can go on behind; raft panics if it does not.
    fn check(&self) -> Result<(), &'static str> {
        let SnapshotId { index, term } = self.id;
        if index == 0 || term == 0 {
            return Err("it is the state before the first entry: take it of a member that has one");
        }
        if index.max(term) > MAX_POSITION {
            return Err("its index and term are beyond all reason");
        }
        if !self.membership.is_sound() {
            return Err("its membership is impossible");
        }
        Ok(())
    }
}

/// Writes a snapshot piece by piece: an iterator over the bytes of the file.
pub(crate) struct Writer {
    head: Option<Bytes>,
    sessions: Chunks,
    machine: Chunks,
    crc: u32,
    ended: bool,
}

impl Writer {
    pub fn new(head: &Head, sessions: Chunks, machine: Chunks) -> Self {
        Writer { head: Some(head.encode()), sessions, machine, crc: 0, ended: false }
    }

    /// The same under another head, before anything was written.
    pub fn with_head(self, head: &Head) -> Self {
        Writer { head: Some(head.encode()), ..self }
    }

    fn frame(&mut self, kind: u8, data: &[u8], out: &mut BytesMut) {
        self.crc = frame_crc(self.crc, kind, data);
        out.put_u32_le(u32::try_from(data.len()).expect("chunks are far below 4 GiB"));
        out.put_u32_le(self.crc);
        out.put_u8(kind);
        out.extend_from_slice(data);
    }
}

impl Iterator for Writer {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if let Some(head) = self.head.take() {
            out.extend_from_slice(MAGIC);
            out.put_u32_le(VERSION);
            self.frame(HEAD, &head, &mut out);
        } else if let Some(chunk) = self.sessions.next() {
            self.frame(SESSIONS, &chunk, &mut out);
        } else if let Some(chunk) = self.machine.next() {
            self.frame(MACHINE, &chunk, &mut out);
        } else if !self.ended {
            self.ended = true;
            self.frame(END, &[], &mut out);
        } else {
            return None;
        }
        Some(out.freeze())
    }
}

fn frame_crc(previous: u32, kind: u8, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(previous);
    hasher.update(&[kind]);
    hasher.update(data);
    hasher.finalize()
}

/// A snapshot file, checked and taken apart.
#[derive(Debug)]
pub(crate) struct Contents {
    pub head: Head,
    pub sessions: Vec<Bytes>,
    pub machine: Vec<Bytes>,
}

/// Checks every byte of a snapshot file, and says of which state it is. `file` names it in errors.
///
/// # Errors
/// When it is damaged, incomplete, or of a newer version.
pub fn check(file: FileName, bytes: &Bytes) -> Result<SnapshotId, Error> {
    Ok(read(file, bytes)?.head.id)
}

/// The head of a snapshot file that may be damaged behind it, if the head itself is good.
pub(crate) fn legible_head(bytes: &Bytes) -> Option<Head> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let end = (PREFIX + FRAME).checked_add(word(PREFIX)? as usize)?;
    let data = bytes.get(PREFIX + FRAME..end)?;
    let is_good = bytes.get(..8) == Some(MAGIC)
        && bytes[PREFIX + 8] == HEAD
        && word(PREFIX + 4) == Some(frame_crc(0, HEAD, data));
    // The version may be what is damaged. No head can be read as one of another layout.
    let decode = |version| Head::decode(version, data).ok();
    let head = (1..=VERSION).rev().find_map(decode).filter(|_| is_good)?;
    head.check().ok().map(|()| head)
}

/// Takes a snapshot file apart, checking every byte of it.
pub(crate) fn read(file: FileName, bytes: &Bytes) -> Result<Contents, Error> {
    let corrupt = |offset, reason: &str| Error::Corrupt { file, offset, reason: reason.to_owned() };
    if bytes.get(..8) != Some(MAGIC) {
        return Err(corrupt(0, "this is no snapshot"));
    }
    let Some(version) = bytes.get(8..PREFIX) else {
        return Err(corrupt(8, "the file is too short"));
    };
    let version = u32::from_le_bytes(version.try_into().expect("four bytes"));
    if version == 0 {
        return Err(corrupt(8, "version 0 was never used"));
    }
    if version <= VERSION {
        return read_frames(file, bytes, version);
    }
    let (mut at, mut crc) = (PREFIX, 0);
    while at < bytes.len() {
        Frame { end: at, crc, .. } = frame(file, bytes, at, crc)?;
    }
    if (1..=VERSION).any(|known| read_frames(file, bytes, known).is_ok()) {
        return Err(corrupt(8, "it says that it is of a newer version, but it is not"));
    }
    Err(Error::NewerVersion { file, found: version, supported: VERSION })
}

struct Frame {
    kind: u8,
    data: Bytes,
    /// Where the next one begins.
    end: usize,
    crc: u32,
}

/// The frame at `at`, which comes after one with the CRC `previous`.
fn frame(file: FileName, bytes: &Bytes, at: usize, previous: u32) -> Result<Frame, Error> {
    let corrupt =
        |reason: &str| Error::Corrupt { file, offset: at as u64, reason: reason.to_owned() };
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let (Some(length), Some(expected)) = (word(at), word(at + 4)) else {
        return Err(corrupt("the file ends before its last frame"));
    };
    let end = (at + FRAME).saturating_add(length as usize);
    let (Some(&kind), Some(data)) = (bytes.get(at + 8), bytes.get(at + FRAME..end)) else {
        return Err(corrupt("the file ends within a frame"));
    };
    let crc = frame_crc(previous, kind, data);
    if crc != expected && !planted(Bug::ChunksByPeerOnly) {
        return Err(corrupt("the checksum does not match"));
    }
    Ok(Frame { kind, data: bytes.slice(at + FRAME..end), end, crc })
}

/// Takes apart what follows on the version.
fn read_frames(file: FileName, bytes: &Bytes, version: u32) -> Result<Contents, Error> {
    let corrupt = |offset: usize, reason: &str| Error::Corrupt {
        file,
        offset: offset as u64,
        reason: reason.to_owned(),
    };
    let mut contents = None;
    let (mut at, mut crc) = (PREFIX, 0);
    loop {
        let Frame { kind, data, end, crc: next } = frame(file, bytes, at, crc)?;
        match (kind, &mut contents) {
            (HEAD, None) => {
                let head = Head::decode(version, &data)
                    .map_err(|error| corrupt(at, &format!("unreadable head: {error}")))?;
                head.check().map_err(|reason| corrupt(at, reason))?;
                contents = Some(Contents { head, sessions: Vec::new(), machine: Vec::new() });
            }
            (kind, Some(contents)) if kind == sessions_kind(version) => {
                contents.sessions.push(data)
            }
            (MACHINE, Some(contents)) => contents.machine.push(data),
            (END, Some(_)) if end != bytes.len() => {
                return Err(corrupt(end, "there are bytes behind the last frame"));
            }
            (END, Some(_)) => return Ok(contents.expect("matched above")),
            _ => return Err(corrupt(at, "a frame is out of place")),
        }
        (at, crc) = (end, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reconfigure;
    use crate::config::Config;
    use crate::node::Change;
    use crate::types::NodeId;

    const FILE: FileName = FileName::Snapshot(5, 2);
    const TIME: Duration = Duration::from_millis(1500);

    fn alone() -> Membership {
        Membership::founded_by(&Config::new(NodeId(1), vec![NodeId(1)]))
    }

    fn sample() -> Bytes {
        let head = Head { id: SnapshotId { index: 5, term: 2 }, membership: alone(), time: TIME };
        let sessions: Chunks = Box::new([Bytes::from_static(b"session")].into_iter());
        let machine: Chunks =
            Box::new([Bytes::from_static(b"one"), Bytes::from_static(b"two")].into_iter());
        Writer::new(&head, sessions, machine).flatten().collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let contents = read(FILE, &sample()).unwrap();
        assert_eq!(contents.head.id, SnapshotId { index: 5, term: 2 });
        assert_eq!(contents.sessions, [Bytes::from_static(b"session")]);
        assert_eq!(contents.machine, [Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_goes_unnoticed() {
        let whole = sample();
        for at in 0..whole.len() {
            assert!(read(FILE, &whole.slice(..at)).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(read(FILE, &damaged.into()).is_err(), "bit {bit} of byte {at}");
            }
        }
        let longer: Bytes = [&whole[..], &[0]].concat().into();
        assert!(read(FILE, &longer).is_err());
    }

    #[test]
    fn the_addresses_are_part_of_the_head() {
        let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
        config.addresses.insert(NodeId(1), "http://one".to_owned());
        let membership = Membership::founded_by(&config);
        let head = Head { id: SnapshotId { index: 5, term: 2 }, membership, time: TIME };
        let none = || -> Chunks { Box::new(std::iter::empty()) };
        let bytes = Writer::new(&head, none(), none()).flatten().collect();
        assert_eq!(read(FILE, &bytes).unwrap().head, head);
    }

    /// What a version writes that has these frames.
    fn written_by(version: u32, frames: &[(u8, &[u8])]) -> Bytes {
        let mut bytes = Vec::new();
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(version);
        let mut crc = 0;
        for &(kind, data) in frames {
            crc = frame_crc(crc, kind, data);
            bytes.put_u32_le(data.len() as u32);
            bytes.put_u32_le(crc);
            bytes.put_u8(kind);
            bytes.put_slice(data);
        }
        bytes.into()
    }

    /// The bytes of `sample` as version 1 wrote them: it knew no addresses.
    #[test]
    fn version_1_is_still_read() {
        let head = postcard::to_stdvec(&(SnapshotId { index: 5, term: 2 }, alone())).unwrap();
        let frames: &[(u8, &[u8])] =
            &[(HEAD, &head), (FORMER_SESSIONS, b"session"), (MACHINE, b"one"), (END, b"")];
        let contents = read(FILE, &written_by(1, frames)).unwrap();
        assert_eq!(contents.head.id, SnapshotId { index: 5, term: 2 });
        assert_eq!(contents.sessions, [Bytes::from_static(b"session")]);
        assert_eq!(contents.machine, [Bytes::from_static(b"one")]);
    }

    /// A head ends where the next version goes on, and versions 2 and 3 differ in the kind of the session
    /// frames, so that none is read as another.
    #[test]
    fn versions_2_to_4_are_still_read() {
        let id = SnapshotId { index: 5, term: 2 };
        let former =
            postcard::to_stdvec(&(id, alone(), BTreeMap::<NodeId, String>::new())).unwrap();
        let membership = alone();
        let promising =
            postcard::to_stdvec(&(id, &membership, membership.addresses(), membership.promises()))
                .unwrap();
        let head = |time| Head { id, membership: alone(), time };
        let layouts = [
            (2, former.clone(), FORMER_SESSIONS, Duration::ZERO),
            (3, former, SESSIONS, Duration::ZERO),
            (4, promising, SESSIONS, Duration::ZERO),
            (5, head(TIME).encode().to_vec(), SESSIONS, TIME),
        ];
        for (version, bytes, kind, time) in &layouts {
            for other in 1..=VERSION {
                let frames: &[(u8, &[u8])] = &[(HEAD, bytes), (*kind, b"session"), (END, b"")];
                let found = read(FILE, &written_by(other, frames));
                if other == *version {
                    let contents = found.unwrap();
                    assert_eq!((contents.head, contents.sessions.len()), (head(*time), 1));
                } else {
                    assert!(matches!(found, Err(Error::Corrupt { .. })), "{version} as {other}");
                }
            }
        }
    }

    #[test]
    fn the_promises_are_part_of_the_head() {
        let state =
            raft::eraftpb::ConfState { voters: vec![1], learners: vec![2], ..Default::default() };
        let change = Reconfigure { voters: vec![NodeId(2)], ..Reconfigure::default() };
        let membership = alone().changed(&state, &Change::promising(&change, &alone()));
        assert_eq!(membership.promises().len(), 1);
        let head = Head { id: SnapshotId { index: 5, term: 2 }, membership, time: TIME };
        let none = || -> Chunks { Box::new(std::iter::empty()) };
        let bytes: Bytes = Writer::new(&head, none(), none()).flatten().collect();
        assert_eq!(read(FILE, &bytes).unwrap().head, head);
        assert_eq!(legible_head(&bytes), Some(head));
    }

    /// The version is under no CRC, but the rest of the file shows that it is wrong.
    #[test]
    fn a_damaged_version_is_told_from_a_newer_one() {
        for bit in 0..32 {
            let mut bytes = sample().to_vec();
            bytes[8 + bit / 8] ^= 1 << (bit % 8);
            let bytes = Bytes::from(bytes);
            let error = read(FILE, &bytes).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "bit {bit}: {error}");
            assert_eq!(legible_head(&bytes).unwrap().membership, alone(), "bit {bit}");
        }
    }

    /// A run of bytes is hit that begins in the version, or the version and another place.
    #[test]
    fn a_damaged_version_is_damage_even_if_it_is_not_alone() {
        for other in PREFIX..sample().len() {
            let mut bytes = sample().to_vec();
            bytes[9] ^= 0xff;
            bytes[other] ^= 0xff;
            let error = read(FILE, &bytes.into()).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{other}: {error}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let head =
            Head { id: SnapshotId { index: 5, term: 2 }, membership: alone(), time: TIME }.encode();
        let longer = [&head[..], &[0]].concat();
        let another_kind: &[(u8, &[u8])] = &[(HEAD, &head), (SESSIONS + 1, b"new"), (END, b"")];
        let another_head: &[(u8, &[u8])] = &[(HEAD, &longer), (MACHINE, b"one"), (END, b"")];
        for frames in [another_kind, another_head] {
            let error = read(FILE, &written_by(9, frames)).unwrap_err();
            assert_eq!(error, Error::NewerVersion { file: FILE, found: 9, supported: VERSION });
        }
    }

    #[test]
    fn what_no_log_can_go_on_behind_is_refused() {
        let (far, early) = (u64::MAX, Membership::default());
        for (index, term, membership, part) in [
            (0, 0, alone(), "before the first entry"),
            (far, 2, alone(), "beyond all reason"),
            (5, far, alone(), "beyond all reason"),
            (5, 2, early, "membership is impossible"),
        ] {
            let head = Head { id: SnapshotId { index, term }, membership, time: TIME };
            let none = || -> Chunks { Box::new(std::iter::empty()) };
            let bytes = Writer::new(&head, none(), none()).flatten().collect();
            let error = read(FILE, &bytes).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
