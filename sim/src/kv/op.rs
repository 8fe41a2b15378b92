//! The operations of the key-value service, and their text form in a scenario's `do`.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use stormkv::kv::MAX_SCAN;

use super::KeyValue;
use crate::plan::{self, Call, Grammar, GrammarError, MAX_VALUE_BYTES, Tokens, is_word};
use crate::service::{call, parsed};

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

/// What a transaction asks before it acts: is the key's value this one?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// The value it must have; `None` if it must be absent (written as `-`).
    pub value: Option<Value>,
}

/// One action of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: String,
    },
}

/// An operation on keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// `put k v`: sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// `get k`: reads a key.
    Get {
        /// The key.
        key: String,
    },
    /// `delete k`: removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// `cas k old new`: sets a key to `new` if its value is `old`.
    Cas {
        /// The key.
        key: String,
        /// What it must be; `None` if it must be absent (written as `-`).
        old: Option<Value>,
        /// What it becomes.
        new: Value,
    },
    /// `guarded k seen v`: sets a key (or, with `-` in the place of the value, removes it) if its
    /// revision is as expected: `If-Match` and `If-None-Match` of the HTTP interface.
    Guarded {
        /// The key.
        key: String,
        /// What must hold.
        guard: Guard,
        /// What it becomes; `None` to remove it.
        value: Option<Value>,
    },
    /// `scan prefix`: reads all keys that begin with it; `scan prefix limit 2`: page by page.
    Scan {
        /// The prefix; empty for all keys (written as `*`).
        prefix: String,
        /// The most entries of a page. 0: there is one page, for all of them.
        limit: u32,
    },
    /// `txn if k=v k2=- then put a 1; delete b else get c`: all at once.
    Txn {
        /// All must hold; none always hold.
        conditions: Vec<Condition>,
        /// Done if they hold.
        then: Vec<Step>,
        /// Done if they do not.
        otherwise: Vec<Step>,
    },
}

/// The verbs and their forms.
pub const GRAMMAR: &Grammar = &[
    ("put", "put KEY VALUE [!no-session|!reused] [@N]"),
    ("get", "get KEY [!stale] [@N]"),
    ("delete", "delete KEY [!no-session] [@N]"),
    ("cas", "cas KEY OLD|- NEW [!no-session] [@N]"),
    ("guarded", "guarded KEY absent|present|seen VALUE|- [!no-session] [@N]"),
    ("scan", "scan PREFIX|* [limit COUNT] [!stale] [@N]"),
    ("txn", "txn [if KEY=VALUE|-..] then STEP[; STEP..] [else STEP[; STEP..]] [!no-session] [@N]"),
];

/// The most conditions, and the most steps of one branch, in a transaction.
const MAX_STEPS: usize = 128;

impl Op {
    /// Parses the words of an operation of a plan; `None` for one that is not for the service.
    ///
    /// # Panics
    /// If they are not in the grammar. A plan that was read from a file, or drawn, has no such words.
    pub fn of(op: &plan::Op) -> Option<Op> {
        parsed::<KeyValue>(op)
    }

    /// Returns whether it only reads.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get { .. } | Op::Scan { .. })
    }
}

impl From<Op> for plan::Op {
    fn from(op: Op) -> plan::Op {
        call::<KeyValue>(&op).op
    }
}

impl From<Op> for Call {
    fn from(op: Op) -> Call {
        call::<KeyValue>(&op)
    }
}

/// A condition on the revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It is as this client saw it last: it has that revision or, if the client has seen no value,
    /// is absent.
    Seen,
}

impl Guard {
    const NAMES: [(&'static str, Guard); 3] =
        [("absent", Guard::Absent), ("present", Guard::Present), ("seen", Guard::Seen)];
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Guard::NAMES.iter().find(|(_, guard)| guard == self);
        f.write_str(named.expect("each has a name").0)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Put { key, value } => write!(f, "put {key} {value}"),
            Op::Get { key } => write!(f, "get {key}"),
            Op::Delete { key } => write!(f, "delete {key}"),
            Op::Cas { key, old: Some(old), new } => write!(f, "cas {key} {old} {new}"),
            Op::Cas { key, old: None, new } => write!(f, "cas {key} - {new}"),
            Op::Guarded { key, guard, value: Some(value) } => {
                write!(f, "guarded {key} {guard} {value}")
            }
            Op::Guarded { key, guard, value: None } => write!(f, "guarded {key} {guard} -"),
            Op::Scan { prefix, limit } => {
                let prefix = if prefix.is_empty() { "*" } else { prefix };
                write!(f, "scan {prefix}")?;
                if *limit > 0 { write!(f, " limit {limit}") } else { Ok(()) }
            }
            Op::Txn { conditions, then, otherwise } => {
                f.write_str("txn")?;
                if !conditions.is_empty() {
                    f.write_str(" if")?;
                }
                for Condition { key, value } in conditions {
                    match value {
                        Some(value) => write!(f, " {key}={value}")?,
                        None => write!(f, " {key}=-")?,
                    }
                }
                f.write_str(" then ")?;
                write_steps(f, then)?;
                if !otherwise.is_empty() {
                    f.write_str(" else ")?;
                    write_steps(f, otherwise)?;
                }
                Ok(())
            }
        }
    }
}

fn write_steps(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for (position, step) in steps.iter().enumerate() {
        f.write_str(if position == 0 { "" } else { "; " })?;
        match step {
            Step::Put { key, value } => write!(f, "put {key} {value}")?,
            Step::Delete { key } => write!(f, "delete {key}")?,
            Step::Get { key } => write!(f, "get {key}")?,
        }
    }
    Ok(())
}

impl FromStr for Op {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Op, GrammarError> {
        let mut tokens = Tokens::new(text, "");
        let op = match tokens.verb("operation", GRAMMAR)? {
            "put" => Op::Put { key: parse_key(&mut tokens)?, value: parse_value(&mut tokens)? },
            "get" => Op::Get { key: parse_key(&mut tokens)? },
            "delete" => Op::Delete { key: parse_key(&mut tokens)? },
            "cas" => {
                let key = parse_key(&mut tokens)?;
                let old = if tokens.take_if("-") { None } else { Some(parse_value(&mut tokens)?) };
                Op::Cas { key, old, new: parse_value(&mut tokens)? }
            }
            "guarded" => {
                let (key, guard) = (parse_key(&mut tokens)?, parse_guard(&mut tokens)?);
                let value =
                    if tokens.take_if("-") { None } else { Some(parse_value(&mut tokens)?) };
                Op::Guarded { key, guard, value }
            }
            "scan" => {
                let all = tokens.take_if("*");
                let prefix = if all { String::new() } else { parse_key(&mut tokens)? };
                let pages = tokens.take_if("limit");
                let limit = if pages { tokens.number("a limit", 1, MAX_SCAN)? } else { 0 };
                Op::Scan { prefix, limit }
            }
            verb => {
                assert_eq!(verb, "txn", "a verb of the grammar has no parser");
                parse_txn(&mut tokens)?
            }
        };
        tokens.end()?;
        Ok(op)
    }
}

fn parse_guard(tokens: &mut Tokens<'_>) -> Result<Guard, GrammarError> {
    let word = tokens.need("a guard")?;
    match Guard::NAMES.iter().find(|(name, _)| *name == word) {
        Some((_, guard)) => Ok(*guard),
        None => tokens.fail(format!("`{word}` is no guard")),
    }
}

fn parse_key(tokens: &mut Tokens<'_>) -> Result<String, GrammarError> {
    let word = tokens.need("a key")?;
    if !is_word(word) {
        return tokens.fail(format!("`{word}` is not a key (letters, digits, _ . / : -)"));
    }
    Ok(word.to_string())
}

fn parse_value(tokens: &mut Tokens<'_>) -> Result<Value, GrammarError> {
    let word = tokens.need("a value")?;
    read_value(tokens, word)
}

fn read_value(tokens: &Tokens<'_>, text: &str) -> Result<Value, GrammarError> {
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

fn parse_txn(tokens: &mut Tokens<'_>) -> Result<Op, GrammarError> {
    let mut conditions = Vec::new();
    if tokens.take_if("if") {
        while conditions.is_empty() || tokens.peek().is_some_and(|word| word != "then") {
            let word = tokens.need("a condition")?;
            let Some((key, value)) = word.split_once('=').filter(|(key, _)| is_word(key)) else {
                return tokens.fail(format!("`{word}` is not a condition"));
            };
            let value = if value == "-" { None } else { Some(read_value(tokens, value)?) };
            conditions.push(Condition { key: key.to_string(), value });
        }
    }
    tokens.expect("then")?;
    let then = parse_steps(tokens)?;
    let otherwise = if tokens.take_if("else") { parse_steps(tokens)? } else { Vec::new() };
    if conditions.len().max(then.len()).max(otherwise.len()) > MAX_STEPS {
        return tokens.fail(format!("more than {MAX_STEPS} conditions or steps"));
    }
    Ok(Op::Txn { conditions, then, otherwise })
}

fn parse_steps(tokens: &mut Tokens<'_>) -> Result<Vec<Step>, GrammarError> {
    let mut steps = Vec::new();
    loop {
        steps.push(match tokens.need("a step")? {
            "put" => Step::Put { key: parse_key(tokens)?, value: parse_value(tokens)? },
            "delete" => Step::Delete { key: parse_key(tokens)? },
            "get" => Step::Get { key: parse_key(tokens)? },
            word => return tokens.fail(format!("`{word}` is not a step (put, delete, get)")),
        });
        if !tokens.take_if(";") {
            return Ok(steps);
        }
    }
}
