//! Small text files that people can read, with a version and a checksum, because they decide
//! whether a node may vote and whose votes it counts.

use serde::Deserialize;

/// The format version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 1;

const CHECKSUM: &str = "checksum = ";

/// Why a file says nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A newer version wrote it, with this format version.
    Newer(u32),
    /// It is not as it was written.
    Damaged(String),
}

/// It is damaged in this way.
pub(super) fn damaged(reason: impl Into<String>) -> Unreadable {
    Unreadable::Damaged(reason.into())
}

/// What all versions have.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// A file of these lines, which are TOML and say the version, and of their checksum.
pub(super) fn seal(text: &str) -> String {
    let checksum = crc32fast::hash(text.as_bytes());
    format!("{text}{CHECKSUM}\"{checksum:08x}\"\n")
}

/// The fields of a sealed file, if it is as it was written.
pub(super) fn unseal<'de, Fields: Deserialize<'de>>(
    bytes: &'de [u8],
) -> Result<Fields, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let not_toml = |error: toml::de::Error| damaged(error.message());
    let AnyVersion { version } = toml::from_str(text).map_err(not_toml)?;
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    let at = text.rfind(CHECKSUM).ok_or_else(|| damaged("it has no checksum"))?;
    let checksum = crc32fast::hash(&bytes[..at]);
    if text[at..] != format!("{CHECKSUM}\"{checksum:08x}\"\n") {
        return Err(damaged("its checksum is wrong"));
    }
    toml::from_str(text).map_err(not_toml)
}

/// That `decode` refuses each cut and each flipped bit of a good file.
#[cfg(test)]
#[track_caller]
pub(super) fn notices_all_damage<T>(good: &str, decode: impl Fn(&[u8]) -> Result<T, Unreadable>) {
    let good = good.as_bytes();
    assert!(decode(good).is_ok());
    for at in 0..good.len() {
        assert!(decode(&good[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
    }
}
