//! Keys and parameters, out of the path and the query of a request.
//!
//! Keys are bytes and paths are text, so a key is percent-encoded where a path cannot hold it.
//! Decoding is strict: a `%` that is no escape is refused, because the reader who lets it through
//! and the one who does not would see different keys. A `+` is a plus.

use std::borrow::Cow;

use bytes::Bytes;

use super::error::{ApiError, Code};
use crate::api::Consistency;
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

/// Undoes percent-encoding.
///
/// # Errors
/// The offset of the first `%` that does not begin an escape.
pub fn percent_decode(encoded: &str) -> Result<Cow<'_, [u8]>, usize> {
    let bytes = encoded.as_bytes();
    let Some(first) = bytes.iter().position(|byte| *byte == b'%') else {
        return Ok(Cow::Borrowed(bytes));
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digit = |offset: usize| {
                bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16))
            };
            let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(at) };
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    Ok(Cow::Owned(decoded))
}

/// Percent-encodes all but the characters that stand for themselves everywhere in a URL, and `/`.
#[must_use]
pub fn percent_encode(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(*byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to memory cannot fail"),
        }
    }
    encoded
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

/// The parameters behind the `?`, each at most once. `known` are those that the path has.
pub(super) struct Params<'a> {
    pairs: Vec<(&'a str, Cow<'a, [u8]>)>,
}

impl<'a> Params<'a> {
    pub fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Params<'a>, ApiError> {
        let invalid = |message| Err(ApiError::new(Code::InvalidQuery, message));
        let mut pairs: Vec<(&str, Cow<'_, [u8]>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = match known {
                    [] => "there are none here".to_owned(),
                    known => format!("known ones are {}", known.join(", ")),
                };
                return invalid(format!("the parameter `{name}` is unknown: {known}"));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return invalid(format!("the parameter `{name}` is there twice: give it once"));
            }
            match percent_decode(value) {
                Ok(value) => pairs.push((name, value)),
                Err(at) => {
                    return invalid(format!(
                        "the value of `{name}` has a `%` at byte {at} without two hexadecimal \
                         digits behind it: write a percent sign as %25"
                    ));
                }
            }
        }
        Ok(Params { pairs })
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| &value[..])
    }

    /// `force`: false unless it is `true`.
    pub fn force(&self) -> Result<bool, ApiError> {
        match self.get("force") {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                let message = format!("force is `{other}`: it may be true or false");
                Err(ApiError::new(Code::InvalidQuery, message))
            }
        }
    }

    /// `consistency`, linearizable unless said otherwise.
    pub fn consistency(&self) -> Result<Consistency, ApiError> {
        match self.get("consistency") {
            None | Some(b"linearizable") => Ok(Consistency::Linearizable),
            Some(b"stale") => Ok(Consistency::Stale),
            Some(other) => {
                let message = format!(
                    "consistency is `{}`: it may be linearizable or stale",
                    String::from_utf8_lossy(other)
                );
                Err(ApiError::new(Code::InvalidQuery, message))
            }
        }
    }
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

    #[test]
    fn parameters_are_known_ones_and_stand_once() {
        let known = ["limit", "after"];
        let params = Params::parse(Some("after=%ff&limit="), &known).ok().unwrap();
        assert_eq!((params.get("after"), params.get("limit")), (Some(&[255][..]), Some(&[][..])));
        for (query, part) in [
            ("limi=1", "`limi` is unknown: known ones are limit, after"),
            ("limit=1&limit=1", "there twice"),
            ("after=%f", "`%` at byte 0"),
        ] {
            let error = Params::parse(Some(query), &known).err().unwrap();
            assert!(error.message().contains(part), "{query}: {}", error.message());
            assert_eq!(error.code(), Code::InvalidQuery);
        }
        let error = Params::parse(Some("x"), &[]).err().unwrap();
        assert!(error.message().contains("there are none here"));
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
