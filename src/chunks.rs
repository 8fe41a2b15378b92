//! How a persistent map becomes a stream of snapshot chunks, and again a map.
//!
//! The machine and the session table both keep their state in a persistent map: a clone shares all
//! nodes with the original and is O(1), so a snapshot is a clone, and encoding happens while the
//! stream is read. The stream holds no borrow; each chunk looks up where the last one ended.
//!
//! The first chunk is a header: format version, number of entries, digest. The others are runs of
//! postcard-encoded entries in key order. Because the header says what must come out, a chunk that
//! is missing, doubled or foreign is noticed, whoever lost it.

use std::ops::Bound;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use serde::Serialize;

use crate::bugs::{Bug, planted};
use crate::machine::Chunks;

/// A version of a stream that can be read. A stream has a version of its own, which counts up when
/// an older build could no longer read its entries.
pub(crate) struct Format<K, V> {
    /// The first byte of the stream.
    pub version: u8,
    /// Takes an entry off the front of a chunk.
    pub take: Take<K, V>,
}

/// Takes an entry off the front of a chunk, and returns what is behind it.
type Take<K, V> = fn(&[u8]) -> postcard::Result<((K, V), &[u8])>;

/// A chunk grows to at most this many bytes, unless its only entry is larger.
const CHUNK_LEN: usize = 64 * 1024;

/// What the first chunk holds, after the version.
type Header = (u64, u64);

/// Streams `map`, whose entries have the given `digest` altogether, as this version.
pub(crate) fn stream<K, V>(map: &RedBlackTreeMapSync<K, V>, digest: u64, version: u8) -> Chunks
where
    K: Ord + Clone + Serialize + Send + Sync + 'static,
    V: Serialize + Send + Sync + 'static,
{
    let header: Header = (map.size() as u64, digest);
    let header = append(vec![version], &header);
    Box::new(Stream { header: Some(header.into()), map: map.clone(), last: None })
}

struct Stream<K, V> {
    header: Option<Bytes>,
    map: RedBlackTreeMapSync<K, V>,
    /// The last key that was streamed.
    last: Option<K>,
}

impl<K, V> Iterator for Stream<K, V>
where
    K: Ord + Clone + Serialize,
    V: Serialize,
{
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        let start = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut chunk = Vec::with_capacity(CHUNK_LEN);
        let mut last = None;
        for (key, value) in self.map.range::<K, _>((start, Bound::Unbounded)) {
            let full = chunk.len();
            chunk = append(chunk, &(key, value));
            if chunk.len() > CHUNK_LEN && last.is_some() {
                chunk.truncate(full);
                break;
            }
            last = Some(key);
        }
        self.last = Some(last?.clone());
        Some(chunk.into())
    }
}

fn append<T: Serialize>(buffer: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, buffer).expect("a vector has room, and every length is known")
}

/// Rebuilds the map that was streamed, and its digest: the wrapping sum of what `hash` says of
/// each entry. `hash` may also fill in fields of the value that are not streamed. `formats` are the
/// versions that are known, `what` names the stream in errors.
pub(crate) fn read<K, V>(
    what: &str,
    formats: &[Format<K, V>],
    chunks: &mut dyn Iterator<Item = Bytes>,
    hash: impl Fn(&K, &mut V) -> u64,
) -> Result<(RedBlackTreeMapSync<K, V>, u64), String>
where
    K: Ord + Clone,
    V: Clone,
{
    let header = chunks.next().ok_or_else(|| format!("{what}: there is no chunk at all"))?;
    let (take, (entries, expected)) = read_header(what, formats, &header)?;
    let mut map = RedBlackTreeMapSync::new_sync();
    let (mut count, mut digest) = (0u64, 0u64);
    for (number, chunk) in (1u64..).zip(chunks) {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            let ((key, mut value), after) = take(rest)
                .map_err(|error| format!("{what}: chunk {number} cannot be decoded: {error}"))?;
            digest = digest.wrapping_add(hash(&key, &mut value));
            map.insert_mut(key, value);
            count += 1;
            rest = after;
        }
    }
    if planted(Bug::ChunksByPeerOnly) {
        return Ok((map, digest));
    }
    if count != entries {
        return Err(format!(
            "{what}: the header promises {entries} entries, the chunks hold {count}: \
             some are lost, doubled, or belong to another snapshot"
        ));
    }
    // Fewer keys than entries: a key came twice.
    if digest != expected || map.size() as u64 != count {
        return Err(format!(
            "{what}: the entries have digest {digest:016x}, the header says {expected:016x}: \
             some are damaged or belong to another snapshot"
        ));
    }
    Ok((map, digest))
}

fn read_header<K, V>(
    what: &str,
    formats: &[Format<K, V>],
    chunk: &[u8],
) -> Result<(Take<K, V>, Header), String> {
    let Some((&version, rest)) = chunk.split_first() else {
        return Err(format!("{what}: the header is empty"));
    };
    let Some(format) = formats.iter().find(|format| format.version == version) else {
        let newest = formats.iter().map(|format| format.version).max().unwrap_or(0);
        return Err(format!(
            "{what}: the format version is {version}, this build reads {newest}: \
             run the version of stormkv that wrote it"
        ));
    };
    match postcard::take_from_bytes::<Header>(rest) {
        Ok((header, [])) => Ok((format.take, header)),
        _ => Err(format!("{what}: the header cannot be decoded")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Map = RedBlackTreeMapSync<u32, Bytes>;

    const VERSION: u8 = 1;
    const FORMATS: &[Format<u32, Bytes>] =
        &[Format { version: VERSION, take: |bytes| postcard::take_from_bytes(bytes) }];

    fn hash(key: &u32, value: &mut Bytes) -> u64 {
        (u64::from(*key) + 1) << 32 | value.len() as u64
    }

    fn map(sizes: &[usize]) -> (Map, Vec<Bytes>) {
        let mut map = Map::new_sync();
        let mut digest = 0u64;
        for (key, &size) in (0u32..).zip(sizes) {
            let mut value = Bytes::from(vec![key as u8; size]);
            digest = digest.wrapping_add(hash(&key, &mut value));
            map.insert_mut(key, value);
        }
        let chunks = stream(&map, digest, VERSION).collect();
        (map, chunks)
    }

    fn load(chunks: &[Bytes]) -> Result<Map, String> {
        read("test", FORMATS, &mut chunks.iter().cloned(), hash).map(|(map, _)| map)
    }

    #[test]
    fn chunks_are_filled_but_not_beyond_the_limit() {
        let (map, chunks) = map(&[1000; 1000]);
        assert_eq!(chunks.len(), 1 + 1000 / (CHUNK_LEN / 1004) + 1);
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_LEN));
        assert_eq!(load(&chunks), Ok(map));
    }

    #[test]
    fn a_large_entry_has_a_chunk_of_its_own() {
        let (map, chunks) = map(&[10, 10, CHUNK_LEN, 10, 3 * CHUNK_LEN, CHUNK_LEN]);
        let sizes: Vec<usize> = chunks[1..].iter().map(|chunk| chunk.len() / CHUNK_LEN).collect();
        assert_eq!(sizes, [0, 1, 0, 3, 1]);
        assert_eq!(load(&chunks), Ok(map));
    }

    #[test]
    fn an_empty_map_is_a_header() {
        let (map, chunks) = map(&[]);
        assert_eq!(chunks.len(), 1);
        assert_eq!(load(&chunks), Ok(map));
    }

    #[test]
    fn lost_doubled_and_foreign_chunks_are_refused() {
        let (_, chunks) = map(&[40_000; 4]);
        assert_eq!(chunks.len(), 5);
        for lost in 0..chunks.len() {
            let mut some = chunks.clone();
            some.remove(lost);
            let error = load(&some).unwrap_err();
            assert!(
                lost == 0 || error.contains("promises 4 entries, the chunks hold 3"),
                "{error}"
            );
        }
        for doubled in 0..chunks.len() {
            let mut more = chunks.clone();
            more.insert(doubled, chunks[doubled].clone());
            assert!(load(&more).is_err(), "chunk {doubled} is doubled");
        }
        let (_, mut foreign) = map(&[40_000, 40_000, 40_001, 40_000]);
        foreign[0] = chunks[0].clone();
        assert!(load(&foreign).unwrap_err().contains("digest"));
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let mut entry = (5u32, Bytes::from_static(b"value"));
        let digest = hash(&entry.0, &mut entry.1).wrapping_mul(2);
        let header = append(vec![VERSION], &(2u64, digest));
        let twice = append(append(Vec::new(), &entry), &entry);
        assert!(load(&[header.into(), twice.into()]).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let (_, mut chunks) = map(&[1]);
        chunks[0] = [&[VERSION + 1], &chunks[0][1..]].concat().into();
        let error = load(&chunks).unwrap_err();
        assert!(error.contains("version is 2, this build reads 1"), "{error}");
        assert!(load(&[Bytes::new()]).unwrap_err().contains("empty"));
        assert!(load(&[]).unwrap_err().contains("no chunk"));
    }
}
