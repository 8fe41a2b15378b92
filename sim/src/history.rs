//! What clients did and what they were told: the only evidence a linearizability checker needs.
//!
//! A [`History`] is a list of operations, each with the moment it was called, the moment it was
//! answered, and the answer. Moments are *positions* in one total order of events (the line number
//! of a file, or a counter in the simulator), because real-time order is all that linearizability
//! asks for; nanoseconds are kept beside them for people. Three outcomes are told apart: `Ok` (the
//! answer is binding), `Fail` (it certainly had no effect) and `Info` (unknown: it may take effect
//! at any later moment, or never).
//!
//! The register model is the key-value model with a single key, the empty one; only the names of
//! the actions differ. Reading and writing the JSON-lines format is in [`jsonl`].

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

mod canonical;
pub mod jsonl;

/// A key. Cheap to clone.
pub type Key = Arc<str>;

/// A value that is present, as canonical JSON text: two values are equal exactly if their texts are.
/// Numbers are compared by value, without rounding. Absence is `Option::None`, JSON's `null`. Cheap
/// to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Arc<str>);

impl Value {
    /// The JSON string that holds `text`.
    pub fn text(text: &str) -> Value {
        // Few values need an escape, and most are long: this loop has no branch, so it is quick.
        let escapes = |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\');
        if !text.bytes().fold(false, escapes) {
            return Value(["\"", text, "\""].concat().into());
        }
        Value(serde_json::to_string(text).expect("a string has a JSON text").into())
    }

    /// Any JSON value; `None` for `null`, which means absence. A number has whatever precision
    /// `json` has kept of it.
    ///
    /// # Panics
    /// If arrays and objects are nested deeper than a JSON parser accepts.
    pub fn from_json(json: &serde_json::Value) -> Option<Value> {
        Value::from_text(&json.to_string()).expect("a value that was parsed has a canonical text")
    }

    /// The value of a valid JSON text, with all digits of its numbers; `None` for `null`.
    ///
    /// # Errors
    /// What of it is beyond the limits of [`canonical`], and the remedy.
    pub(crate) fn from_text(json: &str) -> Result<Option<Value>, String> {
        if json == "null" { Ok(None) } else { Ok(Some(Value(canonical::canonical(json)?.into()))) }
    }

    /// The canonical JSON text, quotes included for a string.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// True if the value is a JSON string.
    pub fn is_text(&self) -> bool {
        self.0.starts_with('"')
    }

    /// The value after `suffix` is appended to `base`; an absent base is the empty string. A value
    /// that is not a string counts as the string of its JSON text.
    pub fn append(base: Option<&Value>, suffix: &Value) -> Value {
        let Some(base) = base else { return suffix.as_text().into_owned() };
        // Escapes are per character, so joining two escaped strings yields the escaped join.
        let mut joined = String::from(&*base.stem());
        joined.push_str(&suffix.as_text().0[1..]);
        Value(joined.into())
    }

    /// What every result of an append to this value starts with, as JSON text without the closing
    /// quote.
    pub(crate) fn stem(&self) -> Cow<'_, str> {
        match self.as_text() {
            Cow::Borrowed(text) => Cow::Borrowed(&text.0[..text.0.len() - 1]),
            Cow::Owned(text) => Cow::Owned(text.0[..text.0.len() - 1].to_string()),
        }
    }

    fn as_text(&self) -> Cow<'_, Value> {
        if self.is_text() { Cow::Borrowed(self) } else { Cow::Owned(Value::text(&self.0)) }
    }
}

impl fmt::Display for Value {
    /// JSON text, shortened in the middle if it is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        let count = self.0.chars().count();
        if count <= 2 * SHOWN + 16 {
            return f.write_str(&self.0);
        }
        let head: String = self.0.chars().take(SHOWN).collect();
        let tail: String = self.0.chars().skip(count - SHOWN).collect();
        write!(f, "{head}..({count} characters)..{tail}")
    }
}

/// What the operations mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A map: get, put, append, cas, delete, scan, txn.
    Kv,
    /// One register without a key: read, write, cas.
    Register,
}

/// One operation inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Reads a key; sees what earlier operations of the same transaction wrote.
    Get(Key),
    /// Writes a key.
    Put(Key, Value),
    /// Removes a key.
    Delete(Key),
}

/// A small transaction: if every condition holds, `then` is executed, else `otherwise`; atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Keys and the values they must have; `None` demands absence.
    pub conditions: Vec<(Key, Option<Value>)>,
    /// Executed in order if all conditions hold.
    pub then: Vec<TxnOp>,
    /// Executed in order if a condition does not hold.
    pub otherwise: Vec<TxnOp>,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads a key (the register's `read`).
    Get {
        /// The key.
        key: Key,
    },
    /// Writes a key (the register's `write`).
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
    },
    /// Appends text to a key; an absent key starts from the empty string.
    Append {
        /// The key.
        key: Key,
        /// The text to append.
        value: Value,
    },
    /// Writes `new` if the key has the value `expected`.
    Cas {
        /// The key.
        key: Key,
        /// The value the key must have; `None` demands absence.
        expected: Option<Value>,
        /// The value it gets then.
        new: Value,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Reads all keys that start with a prefix, at one moment.
    Scan {
        /// The prefix; the empty one matches every key.
        prefix: Key,
    },
    /// A transaction over several keys.
    Txn(Box<Txn>),
    /// A change that a history knows by its words only: no model here says what it does, but it takes
    /// effect at one moment between its call and its return.
    Other {
        /// The words.
        words: Arc<str>,
    },
}

impl Action {
    /// True if the action never changes anything, whatever its answer.
    pub fn is_read(&self) -> bool {
        matches!(self, Action::Get { .. } | Action::Scan { .. })
    }

    /// The name in the JSON-lines format.
    pub fn name(&self, model: Model) -> &'static str {
        match (self, model) {
            (Action::Get { .. }, Model::Kv) => "get",
            (Action::Get { .. }, Model::Register) => "read",
            (Action::Put { .. }, Model::Kv) => "put",
            (Action::Put { .. }, Model::Register) => "write",
            (Action::Append { .. }, _) => "append",
            (Action::Cas { .. }, _) => "cas",
            (Action::Delete { .. }, _) => "delete",
            (Action::Scan { .. }, _) => "scan",
            (Action::Txn(_), _) => "txn",
            (Action::Other { .. }, _) => "other",
        }
    }
}

/// What the system answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; there is nothing to say (put, append).
    Done,
    /// The value read; `None` if absent (get).
    Value(Option<Value>),
    /// Whether the value was as expected and got replaced (cas).
    Swapped(bool),
    /// Whether the key existed; `None` if the system did not say, then it is not checked (delete).
    Deleted(Option<bool>),
    /// The keys found and their values, in ascending order of the keys (scan).
    Pairs(Vec<(Key, Value)>),
    /// What a transaction did.
    Txn {
        /// Whether all conditions held.
        succeeded: bool,
        /// One answer for each operation of the branch taken: `Value`, `Done` or `Deleted`.
        /// `None` if the system did not say, then they are not checked.
        results: Option<Vec<Answer>>,
    },
    /// It took effect; what it found is not known (cas, txn). Nothing is checked but its time.
    Unsaid,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect between call and return, with this answer.
    Ok(Answer),
    /// It had no effect and never will.
    Fail,
    /// Unknown: it may have taken effect, may do so at any later time, or never.
    Info,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The client. It has at most one operation under way.
    pub process: u64,
    /// Position of the call in the order of all events.
    pub call: u64,
    /// Position of the event that ended it (answer, refusal, or the client giving up).
    pub ret: Option<u64>,
    /// Time of the call in nanoseconds, for people.
    pub call_ns: Option<u64>,
    /// Time of the end in nanoseconds, for people.
    pub ret_ns: Option<u64>,
    /// What was asked for.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
}

impl Op {
    /// The position after which the operation cannot take effect any more: its return if it was
    /// answered, `None` while its effect may still come.
    pub fn returned(&self) -> Option<u64> {
        if matches!(self.outcome, Outcome::Ok(_)) { self.ret } else { None }
    }
}

/// Operations in the order of their calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    model: Model,
    ops: Vec<Op>,
    events: u64,
    /// Positions are line numbers of a file, so explanations name lines instead of times.
    lines: bool,
    /// What the clients are called, see [`called`](History::called).
    names: Arc<[String]>,
}

impl History {
    /// An empty history, to be recorded with [`invoke`](Self::invoke) and
    /// [`complete`](Self::complete).
    pub fn new(model: Model) -> History {
        History { model, ops: Vec::new(), events: 0, lines: false, names: Arc::default() }
    }

    /// An empty history whose process `p` is called by the name at `p` modulo the number of names:
    /// whoever numbers processes so gives a client a new one without a new name.
    pub fn called(self, names: Arc<[String]>) -> History {
        History { names, ..self }
    }

    /// What the clients are called; empty if they have no names.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Records a call; the result names the operation to [`complete`](Self::complete).
    pub fn invoke(&mut self, process: u64, action: Action, at_ns: u64) -> usize {
        self.events += 1;
        let call = self.events;
        let outcome = Outcome::Info;
        let call_ns = Some(at_ns);
        self.ops.push(Op { process, call, ret: None, call_ns, ret_ns: None, action, outcome });
        self.ops.len() - 1
    }

    /// Records the end of an operation. An operation that never ends counts as `Info`.
    ///
    /// # Panics
    /// If the operation has ended before.
    pub fn complete(&mut self, op: usize, outcome: Outcome, at_ns: u64) {
        self.events += 1;
        let op = &mut self.ops[op];
        assert!(op.ret.is_none(), "an operation of process {} ended twice", op.process);
        op.ret = Some(self.events);
        op.ret_ns = Some(at_ns);
        op.outcome = outcome;
    }

    /// What the operations mean.
    pub fn model(&self) -> Model {
        self.model
    }

    /// The operations in the order of their calls.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The operations, for tests and tools that damage a history on purpose. The order of the
    /// calls must stay as it is.
    pub fn ops_mut(&mut self) -> &mut [Op] {
        &mut self.ops
    }

    /// An operation in words: what, by whom, when. For example `put x "1" by process 3 (lines 4
    /// to 9)`.
    pub fn describe(&self, op: usize) -> String {
        let op = &self.ops[op];
        let answer = match &op.outcome {
            Outcome::Ok(answer) => describe_answer(answer),
            Outcome::Fail => ", which failed,".to_string(),
            Outcome::Info => ", whose outcome is unknown,".to_string(),
        };
        let (what, who) = (self.phrase(op), self.client(op));
        format!("{what}{answer} by {who} ({})", describe_span(op, self.lines))
    }

    /// An operation in few words: what and by whom, for example `put x "1" by process 3`.
    pub fn name(&self, op: usize) -> String {
        let op = &self.ops[op];
        format!("{} by {}", self.phrase(op), self.client(op))
    }

    /// Whose operation it is: `process 3`, or the client's name if it has one.
    pub fn client(&self, op: &Op) -> String {
        match self.names.len() as u64 {
            0 => format!("process {}", op.process),
            count => self.names[(op.process % count) as usize].clone(),
        }
    }

    /// What an operation asks for, for example `put x "1"`.
    pub fn phrase(&self, op: &Op) -> String {
        let name = op.action.name(self.model);
        let object = match &op.action {
            Action::Get { key } | Action::Delete { key } => key.to_string(),
            Action::Put { key, value } | Action::Append { key, value } => format!("{key} {value}"),
            Action::Cas { key, expected, new } => format!("{key} {} to {new}", show(expected)),
            Action::Scan { prefix } => format!("{prefix:?}"),
            Action::Other { words } => words.to_string(),
            Action::Txn(txn) => format!(
                "on {} conditions and {} operations",
                txn.conditions.len(),
                txn.then.len() + txn.otherwise.len()
            ),
        };
        format!("{name} {}", object.trim_start()).trim_end().to_owned()
    }
}

/// An optional value as JSON: `null` for absence.
pub(crate) fn show(value: &Option<Value>) -> String {
    value.as_ref().map_or_else(|| "null".to_string(), Value::to_string)
}

/// An answer in words that follow the operation's name.
pub(crate) fn describe_answer(answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::Deleted(None) => String::new(),
        Answer::Unsaid => ", whose answer was not kept,".to_string(),
        Answer::Value(value) => format!(" -> {}", show(value)),
        Answer::Swapped(swapped) => format!(" -> swapped={swapped}"),
        Answer::Deleted(Some(existed)) => format!(" -> existed={existed}"),
        Answer::Pairs(pairs) => {
            const SHOWN: usize = 8;
            let shown: Vec<String> =
                pairs.iter().take(SHOWN).map(|(key, value)| format!("{key}={value}")).collect();
            let more = if pairs.len() > SHOWN { ", .." } else { "" };
            format!(" -> [{}{more}]", shown.join(", "))
        }
        Answer::Txn { succeeded, results } => {
            let results: Vec<String> = results
                .iter()
                .flatten()
                .map(|result| match result {
                    Answer::Value(value) => show(value),
                    Answer::Deleted(Some(existed)) => existed.to_string(),
                    _ => "null".to_string(),
                })
                .collect();
            format!(" -> succeeded={succeeded} [{}]", results.join(", "))
        }
    }
}

fn describe_span(op: &Op, lines: bool) -> String {
    let answered = matches!(op.outcome, Outcome::Ok(_));
    match (op.call_ns, op.ret_ns, op.ret) {
        _ if lines && !answered => format!("line {}", op.call),
        (_, _, Some(ret)) if lines => format!("lines {} to {ret}", op.call),
        (Some(call), Some(ret), _) if answered => format!("{} to {}", ms(call), ms(ret)),
        (Some(call), _, _) => format!("called at {}", ms(call)),
        (None, _, _) => format!("event {}", op.call),
    }
}

fn ms(ns: u64) -> String {
    format!("{}.{:06} ms", ns / 1_000_000, ns % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_a_json_library_makes_of_it() {
        for text in
            ["", "plain", "é ü", "a\"b", "back\\slash", "line\n", "\u{1f}", "\u{7f}", "\u{2028}"]
        {
            assert_eq!(Value::text(text).as_json(), serde_json::json!(text).to_string());
        }
    }

    #[test]
    fn append_joins_escaped_text() {
        let base = Value::text("a\"\n");
        let joined = Value::append(Some(&base), &Value::text("é\\"));
        assert_eq!(joined, Value::text("a\"\né\\"));
        assert!(joined.as_json().starts_with(&*base.stem()));
        assert_eq!(Value::append(None, &Value::text("x")), Value::text("x"));
    }

    #[test]
    fn append_to_a_number_continues_its_text() {
        let five = Value::from_json(&serde_json::json!(5)).expect("present");
        assert_eq!(Value::append(Some(&five), &Value::text("a")), Value::text("5a"));
    }

    #[test]
    fn describe_names_action_process_and_time() {
        let mut history = History::new(Model::Kv);
        let op = history.invoke(3, Action::Get { key: "x".into() }, 1_500_000);
        history.complete(op, Outcome::Ok(Answer::Value(None)), 2_000_001);
        assert_eq!(history.describe(op), "get x -> null by process 3 (1.500000 ms to 2.000001 ms)");
    }

    #[test]
    fn clients_may_have_names() {
        let names = ["c0", "c1"].map(str::to_owned);
        let mut history = History::new(Model::Kv).called(names.into());
        let op = history.invoke(5, Action::Get { key: "x".into() }, 1_500_000);
        let told = "get x, whose outcome is unknown, by c1 (called at 1.500000 ms)";
        assert_eq!(history.describe(op), told);
    }
}
