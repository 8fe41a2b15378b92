//! Parameters of a request, and bytes in its path and query.
//!
//! Paths are text, so bytes that a path cannot hold are percent-encoded. Decoding is strict: a `%`
//! that starts no escape is refused, because a lenient reader and a strict one would see different
//! bytes. A `+` is a plus.

use std::borrow::Cow;

use super::error::{ApiError, Code};
use crate::api::Consistency;

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

/// A decimal number in its one spelling.
pub(super) fn number(text: &str) -> Option<u64> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
