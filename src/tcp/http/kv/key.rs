//! Keys in paths.
//!
//! Keys are bytes and paths are text, so a key is percent-encoded where a path cannot hold it.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::error::{ApiError, Code};
use super::super::params::{percent_decode, percent_encode};
use crate::kv::MAX_KEY;

/// Paths that mean something else; keys with these names are reached below `/v1/kv/`.
const RESERVED: &[&str] = &["health", "ready", "metrics"];

/// Why a piece of a path is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is nothing there.
    Empty,
    /// The key has so many bytes, more than [`MAX_KEY`].
    TooLong(usize),
    /// There is a `%` without two hexadecimal digits behind it, at this offset.
    BadEscape(usize),
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyError::Empty => write!(
                f,
                "the key is empty: name one, as in /v1/kv/my-key, or list keys with \
                 /v1/kv?prefix="
            ),
            KeyError::TooLong(len) => {
                write!(f, "the key has {len} bytes, the limit is {MAX_KEY}: use a shorter one")
            }
            KeyError::BadEscape(at) => write!(
                f,
                "the `%` at byte {at} has no two hexadecimal digits behind it: write a percent \
                 sign as %25"
            ),
        }
    }
}

impl std::error::Error for KeyError {}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> ApiError {
        ApiError::new(Code::InvalidKey, error.to_string())
    }
}

/// The key that a path names: `encoded` is all of the path behind `/` or `/v1/kv/`, and the key is
/// any bytes, up to [`MAX_KEY`] of them.
///
/// # Errors
/// See [`KeyError`].
pub fn parse_key(encoded: &str) -> Result<Bytes, KeyError> {
    let key = match percent_decode(encoded).map_err(KeyError::BadEscape)? {
        Cow::Borrowed(key) => checked_key(key)?.to_vec(),
        Cow::Owned(key) => {
            checked_key(&key)?;
            key
        }
    };
    Ok(key.into())
}

/// A key of permitted length, wherever it comes from.
pub(super) fn checked_key(key: &[u8]) -> Result<&[u8], KeyError> {
    match key.len() {
        0 => Err(KeyError::Empty),
        len if len > MAX_KEY => Err(KeyError::TooLong(len)),
        _ => Ok(key),
    }
}

/// The key of one of raftexample's paths, which leave less room than `/v1/kv/`.
pub(super) fn parse_short_key(encoded: &str) -> Result<Bytes, ApiError> {
    let key = parse_key(encoded)?;
    if RESERVED.iter().any(|name| key == name.as_bytes()) || key.starts_with(b"v1/") {
        let message =
            format!("this path is reserved: the key is at /v1/kv/{}", percent_encode(&key));
        return Err(ApiError::new(Code::InvalidKey, message));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_what_the_path_says() {
        assert_eq!(parse_key("my-key"), Ok(Bytes::from("my-key")));
        assert_eq!(parse_key("a//b/%2e+%C3%A4"), Ok(Bytes::from("a//b/.+ä")));
        assert_eq!(parse_key("%00%ff"), Ok(Bytes::from(vec![0, 255])));
        assert_eq!(parse_key(""), Err(KeyError::Empty));
        for (bad, at) in [("%", 0), ("ab%4", 2), ("%zz", 0), ("%41%+1", 3), ("%4ä", 0)] {
            assert_eq!(parse_key(bad), Err(KeyError::BadEscape(at)), "{bad}");
        }
        assert_eq!(parse_key(&"k".repeat(MAX_KEY)).map(|key| key.len()), Ok(MAX_KEY));
        assert_eq!(parse_key(&"%6b".repeat(MAX_KEY + 1)), Err(KeyError::TooLong(MAX_KEY + 1)));
    }

    #[test]
    fn a_reserved_name_is_no_short_key_in_any_spelling() {
        for name in ["%68ealth", "ready", "metric%73", "%76%31/x", "v1%2fkv"] {
            let error = parse_short_key(name).unwrap_err();
            assert!(error.message().contains("reserved: the key is at /v1/kv/"), "{name}");
        }
        assert!(parse_short_key("v1").is_ok());
        assert!(parse_short_key("health/").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(key in prop::collection::vec(any::<u8>(), 1..100)) {
            let encoded = percent_encode(&key);
            prop_assert_eq!(parse_key(&encoded), Ok(Bytes::from(key)));
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in "[%0-9a-f/ä]{0,40}") {
            match parse_key(&text) {
                // Encoding again may spell it differently, but it stays the same key.
                Ok(key) => prop_assert_eq!(parse_key(&percent_encode(&key)), Ok(key)),
                Err(KeyError::BadEscape(at)) => prop_assert_eq!(text.as_bytes()[at], b'%'),
                Err(KeyError::Empty) => prop_assert!(text.is_empty()),
                Err(KeyError::TooLong(_)) => prop_assert!(false, "40 characters are not too long"),
            }
        }
    }
}
