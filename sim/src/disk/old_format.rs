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

/// Version 2 has the addresses of the members at the end of the head, a map; simulated members have
/// none, so that is one zero byte. The checksums of all frames build on each other.
fn older_snapshot(bytes: &Bytes) -> Option<Bytes> {
    if !bytes.starts_with(b"stormsnp") || word(bytes, 8)? != 2 {
        return None;
    }
    let mut out = BytesMut::from(&b"stormsnp"[..]);
    out.put_u32_le(1);
    let (mut at, mut crc, mut newer_crc) = (PREFIX, 0, 0);
    while at < bytes.len() {
        let end = at.checked_add(FRAME)?.checked_add(word(bytes, at)? as usize)?;
        let (kind, mut data) = (*bytes.get(at + 8)?, bytes.get(at + FRAME..end)?);
        newer_crc = chained(newer_crc, kind, data);
        if word(bytes, at + 4)? != newer_crc {
            return None;
        }
        if at == PREFIX {
            data = data.strip_suffix(&[0])?;
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

    /// A snapshot of two frames.
    fn snapshot() -> Bytes {
        let mut out = BytesMut::from(&b"stormsnp"[..]);
        out.put_u32_le(2);
        let mut crc = 0;
        for (kind, data) in [(1, &b"head\0"[..]), (2, &b"state"[..])] {
            crc = chained(crc, kind, data);
            out.put_u32_le(data.len() as u32);
            out.put_u32_le(crc);
            out.put_u8(kind);
            out.extend_from_slice(data);
        }
        out.freeze()
    }

    #[test]
    fn an_older_snapshot_has_no_addresses() {
        let older = older_snapshot(&snapshot()).unwrap();
        assert_eq!(older.len(), snapshot().len() - 1);
        assert_eq!(older_snapshot(&older), None, "it is what it is already");
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
