//! Files as earlier releases wrote them, made from files of the present one.
//!
//! This knows the formats from their documentation in `stormkv::wal` and `stormkv::snapshot`, and
//! shares no code with them: it stands in for the old program that wrote the files.

use bytes::{BufMut, Bytes, BytesMut};
use stormkv::env::FileName;

/// A preamble of a segment: magic, version, CRC of both.
const PREAMBLE: usize = 16;
/// A record without entries in version 1. A header that is longer has what version 1 cannot say.
const RECORD: u32 = 96;
/// Magic and version of a snapshot.
const PREFIX: usize = 12;
/// Length, CRC and kind of a frame of a snapshot.
const FRAME: usize = 9;
/// Kinds of frames that hold the session table: of version 3, and before it.
const SESSIONS: u8 = 5;
const FORMER_SESSIONS: u8 = 2;
/// What stands before a response that was kept.
const KEPT: u8 = 0;

/// The same content in the oldest format that can hold it; `None` if that is what it is already, or
/// if this is no whole file. Damage is none the less for it: what is damaged stays as it is.
pub(crate) fn older(file: FileName, bytes: &Bytes) -> Option<Bytes> {
    match file {
        FileName::Segment(_) => older_segment(bytes),
        FileName::Snapshot(..) => older_snapshot(bytes),
        FileName::Partial(..) => None,
    }
}

/// A segment with another version in its preamble, and the checksum that belongs to it.
pub(crate) fn with_version(segment: &Bytes, version: u32) -> Bytes {
    let mut out = BytesMut::from(&segment[..8]);
    out.put_u32_le(version);
    out.put_u32_le(crc32fast::hash(&out));
    out.extend_from_slice(&segment[PREAMBLE..]);
    out.freeze()
}

fn older_segment(bytes: &Bytes) -> Option<Bytes> {
    let is_whole =
        bytes.starts_with(b"stormwal") && word(bytes, 12)? == crc32fast::hash(&bytes[..12]);
    let is_newer = word(bytes, 8)? == 2;
    (is_whole && is_newer && word(bytes, PREAMBLE)? == RECORD).then(|| with_version(bytes, 1))
}

/// Version 3 has the session table in frames of another kind than version 1, see [`older_sessions`].
/// Versions 2, 4 and 5 have more in the head, see [`older_head`]. The checksums of all frames build on
/// each other.
fn older_snapshot(bytes: &Bytes) -> Option<Bytes> {
    if !bytes.starts_with(b"stormsnp") || word(bytes, 8)? != 5 {
        return None;
    }
    let mut is_header = true;
    let mut out = BytesMut::from(&b"stormsnp"[..]);
    out.put_u32_le(1);
    let (mut at, mut crc, mut newer_crc) = (PREFIX, 0, 0);
    while at < bytes.len() {
        let end = at.checked_add(FRAME)?.checked_add(word(bytes, at)? as usize)?;
        let (mut kind, mut data) = (*bytes.get(at + 8)?, bytes.get(at + FRAME..end)?);
        newer_crc = chained(newer_crc, kind, data);
        if word(bytes, at + 4)? != newer_crc {
            return None;
        }
        if at == PREFIX {
            data = older_head(data)?;
        }
        let sessions;
        if kind == SESSIONS {
            sessions = older_sessions(data, std::mem::take(&mut is_header))?;
            (kind, data) = (FORMER_SESSIONS, &sessions);
        }
        crc = chained(crc, kind, data);
        out.put_u32_le(u32::try_from(data.len()).ok()?);
        out.put_u32_le(crc);
        out.put_u8(kind);
        out.extend_from_slice(data);
        at = end;
    }
    Some(out.freeze())
}

/// The part of a head that version 1 has, too. Behind it are the addresses of the members and the
/// promises of votes, both lists, and the cluster's time. `None` if one of them is not empty or the time is
/// not 0: version 1 cannot say that, and a cluster whose members forget the time would stamp it anew.
fn older_head(head: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    let ids = |at: &mut usize| {
        let count = number(head, at)?;
        (0..count).try_for_each(|_| number(head, at).map(drop))
    };
    // Index and term.
    number(head, &mut at)?;
    number(head, &mut at)?;
    // Voters and learners, now and next.
    for _ in 0..4 {
        ids(&mut at)?;
    }
    // Whether a joint configuration ends by itself, and the removed members.
    at += 1;
    ids(&mut at)?;
    (head.get(at..)? == [0, 0, 0]).then(|| &head[..at])
}

/// A chunk of the session table as version 1 of that wrote it: there is nothing before a response
/// that says whether it was kept, because all were, and no hash of the command behind it. `None` if a
/// response was not kept, which it cannot say.
fn older_sessions(chunk: &[u8], is_header: bool) -> Option<Vec<u8>> {
    if is_header {
        let (&3, rest) = chunk.split_first()? else { return None };
        return Some([&[1], rest].concat());
    }
    let (mut out, mut at) = (Vec::with_capacity(chunk.len()), 0);
    while at < chunk.len() {
        let entry = at;
        // Id, last use and number.
        for _ in 0..3 {
            number(chunk, &mut at)?;
        }
        out.extend_from_slice(&chunk[entry..at]);
        if *chunk.get(at)? != KEPT {
            return None;
        }
        at += 1;
        let response = at;
        let len = number(chunk, &mut at)?;
        at = at.checked_add(usize::try_from(len).ok()?)?;
        out.extend_from_slice(chunk.get(response..at)?);
        let has_command = *chunk.get(at)? == 1;
        at += 1;
        if has_command {
            number(chunk, &mut at)?;
        }
    }
    Some(out)
}

/// The number at `at`, seven bits a byte, the lowest first; `at` is behind it then.
fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The checksum of a frame that follows on one with the checksum `crc`.
fn chained(crc: u32, kind: u8, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(&[kind]);
    hasher.update(data);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entry 5 of term 2, and one voter.
    const HEAD: &[u8] = b"\x05\x02\x01\x01\0\0\0\0\0";

    /// A snapshot of a session with a response of three bytes.
    fn snapshot() -> Bytes {
        with_sessions(b"\x07\x81\x01\x05\x00\x03abc\x01\x09")
    }

    fn with_sessions(entries: &[u8]) -> Bytes {
        let mut out = BytesMut::from(&b"stormsnp"[..]);
        out.put_u32_le(5);
        let mut crc = 0;
        let head = [HEAD, &[0, 0, 0]].concat();
        let frames = [(1, &head[..]), (5, &b"\x03\x01\x09"[..]), (5, entries), (3, b"state")];
        for (kind, data) in frames {
            crc = chained(crc, kind, data);
            out.put_u32_le(data.len() as u32);
            out.put_u32_le(crc);
            out.put_u8(kind);
            out.extend_from_slice(data);
        }
        out.freeze()
    }

    #[test]
    fn older_snapshot_has_no_addresses_promises_and_time() {
        let older = older_snapshot(&snapshot()).unwrap();
        // One byte for each of these, one that says that the response was kept, and the hash of the command.
        assert_eq!(older.len(), snapshot().len() - 6);
        assert_eq!(older_snapshot(&older), None, "it is what it is already");
    }

    #[test]
    fn older_head_without_addresses_promises_and_time() {
        assert_eq!(older_head(&[HEAD, &[0, 0, 0]].concat()), Some(HEAD));
        let address = [HEAD, b"\x01\x01\x01a\0\0"].concat();
        let promise = [HEAD, b"\0\x01\x01\x04\0\0\0"].concat();
        let time = [HEAD, b"\0\0\x01"].concat();
        for head in [HEAD, &HEAD[..5], &address, &promise, &time] {
            assert_eq!(older_head(head), None, "{head:?}");
        }
    }

    #[test]
    fn older_sessions_kept_every_response() {
        for command in [&b"\0"[..], b"\x01\x81\x02"] {
            let newer = [&b"\x07\x81\x01\x05\x00\x03abc"[..], command].concat();
            let older = older_sessions(&newer, false).unwrap();
            assert_eq!(older, b"\x07\x81\x01\x05\x03abc");
        }
        assert_eq!(older_sessions(b"\x03\x01\x09", true).unwrap(), b"\x01\x01\x09");
        let not_kept = with_sessions(b"\x07\x08\x05\x01\x80\x20\x09\0");
        assert_eq!(older_snapshot(&not_kept), None, "the older format cannot say that");
    }

    #[test]
    fn damage_does_not_go_away() {
        let whole = snapshot();
        for at in PREFIX..whole.len() {
            let mut rotten = BytesMut::from(&whole[..]);
            rotten[at] ^= 1;
            assert_eq!(older_snapshot(&rotten.freeze()), None, "byte {at}");
        }
    }
}
