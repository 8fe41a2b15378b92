//! A value in the text form of a scenario: `word`, or `word*4096` for one that is padded.

use std::fmt;

use bytes::Bytes;

use super::check::MAX_VALUE_BYTES;
use super::grammar::{GrammarError, Tokens};

/// A value to write or to compare with: a word, possibly padded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    word: String,
    padded_to: Option<u32>,
}

impl Value {
    /// A value that is just this word.
    ///
    /// # Panics
    /// If it is not a word: letters, digits and `_ . / : -`, at least one, and not `-` alone.
    pub fn new(word: impl Into<String>) -> Value {
        let word = word.into();
        assert!(is_word(&word), "`{word}` is not a word");
        Value { word, padded_to: None }
    }

    /// This word, filled up with dots to `len` bytes; written as `word*len`.
    ///
    /// # Panics
    /// If it is not a word, or if `len` is below its length or above [`MAX_VALUE_BYTES`].
    pub fn padded(word: impl Into<String>, len: u32) -> Value {
        let value = Value { padded_to: Some(len), ..Value::new(word) };
        assert!(value.pads(), "{value} has an impossible length");
        value
    }

    /// The value itself.
    pub fn bytes(&self) -> Bytes {
        let mut bytes = self.word.clone().into_bytes();
        if let Some(len) = self.padded_to {
            bytes.resize(len as usize, b'.');
        }
        bytes.into()
    }

    fn pads(&self) -> bool {
        self.padded_to
            .is_none_or(|len| len as usize >= self.word.len() && u64::from(len) <= MAX_VALUE_BYTES)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.padded_to {
            Some(len) => write!(f, "{}*{len}", self.word),
            None => f.write_str(&self.word),
        }
    }
}

/// Words have no signs that mean something in the grammar.
pub(super) fn is_word(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte);
    !word.is_empty() && word != "-" && word.bytes().all(allowed)
}

pub(super) fn parse_value(tokens: &mut Tokens<'_>) -> Result<Value, GrammarError> {
    let word = tokens.need("a value")?;
    read_value(tokens, word)
}

pub(super) fn read_value(tokens: &Tokens<'_>, text: &str) -> Result<Value, GrammarError> {
    let (word, padded_to) = match text.split_once('*') {
        None => (text, None),
        Some((word, len)) => match len.parse() {
            Ok(len) => (word, Some(len)),
            Err(_) => return tokens.fail(format!("`{text}` has no length after its `*`")),
        },
    };
    if !is_word(word) {
        return tokens.fail(format!("`{text}` is not a value (letters, digits, _ . / : -)"));
    }
    let value = Value { word: word.to_string(), padded_to };
    if !value.pads() {
        let least = value.word.len();
        return tokens
            .fail(format!("`{text}` has an impossible length ({least} to {MAX_VALUE_BYTES})"));
    }
    Ok(value)
}
