//! Reads histories line by line. Values are taken from the text as it is written, so that no number is
//! rounded on its way into a [`Value`].

use std::borrow::Cow;
use std::io::BufRead;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::history::{Action, Answer, History, Key, Model, Op, Outcome, Txn, TxnOp, Value};

/// Reads a history. `name` is the file's name for error messages. `warn` gets one line about what
/// is odd but changes no verdict: times that run backwards.
///
/// # Errors
/// One line that says where the first mistake is and how to mend it.
pub fn read(
    mut input: impl BufRead,
    name: &str,
    model: Model,
    warn: &mut dyn FnMut(String),
) -> Result<History, String> {
    let mut history = History::new(model);
    history.lines = true;
    let mut open = FxHashMap::default();
    let mut times = Times::default();
    let mut line = String::new();
    for number in 1.. {
        let located = |message: String| format!("{name}:{number}: {message}");
        line.clear();
        let bytes = input
            .read_line(&mut line)
            .map_err(|error| located(format!("cannot be read: {error}")))?;
        if bytes == 0 {
            break;
        }
        history.events = number;
        if !line.trim().is_empty() {
            let time = read_event(&mut history, &mut open, &line, number).map_err(located)?;
            times.note(number, time);
        }
    }
    if let Some(warning) = times.warning(name) {
        warn(warning);
    }
    Ok(history)
}

/// Whether `time` only ever grows. It need not: the order of the lines is what is checked. But lines
/// that were merged in the wrong order are checked for something that never happened.
#[derive(Default)]
struct Times {
    /// Time and line of the last event that has a time.
    last: Option<(u64, u64)>,
    /// Line and time of the first that is earlier than one before it, with time and line of that one.
    first_reversal: Option<((u64, u64), (u64, u64))>,
    reversals: u64,
}

impl Times {
    fn note(&mut self, line: u64, time: Option<u64>) {
        let Some(time) = time else { return };
        if let Some(last) = self.last.filter(|(before, _)| *before > time) {
            self.reversals += 1;
            self.first_reversal.get_or_insert(((time, line), last));
        }
        self.last = Some((time, line));
    }

    fn warning(&self, name: &str) -> Option<String> {
        let ((time, line), (before, line_before)) = self.first_reversal?;
        let more = match self.reversals - 1 {
            0 => String::new(),
            1 => ", and so does 1 later line".to_owned(),
            more => format!(", and so do {more} later lines"),
        };
        Some(format!(
            "{name}:{line}: \"time\" runs backwards, from {before} in line {line_before} to {time}{more}; \
             the lines are taken in the order of the file: sort them by the time at which each event \
             happened if that is another one"
        ))
    }
}

/// The fields of a line. A value is kept as it is written: no number is rounded on the way.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    process: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    f: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    swapped: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    time: Option<&'a RawValue>,
}

/// A field that is there, `null` included: serde takes `null` for none otherwise.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

/// Reads one line; returns its time.
fn read_event(
    history: &mut History,
    open: &mut FxHashMap<u64, usize>,
    line: &str,
    number: u64,
) -> Result<Option<u64>, String> {
    let event: Event<'_> = match object(line.trim_ascii_start()) {
        Some(event) => event.map_err(|error| match error.is_data() {
            true => format!("{error}; write each field once"),
            false => format!("not valid JSON ({error}); write one object a line"),
        })?,
        None => match serde_json::from_str::<&RawValue>(line) {
            Ok(_) => {
                return Err(
                    "not a JSON object; write {\"process\":..,\"type\":..,\"f\":..}".to_string()
                );
            }
            Err(error) => {
                return Err(format!("not valid JSON ({error}); write one object a line"));
            }
        },
    };
    let process = event
        .process
        .and_then(whole)
        .ok_or("\"process\" is missing or not a whole number >= 0; number the clients")?;
    let time = match event.time.filter(|time| !is_null(time)) {
        None => None,
        Some(time) => Some(whole(time).ok_or("\"time\" is not a whole number of nanoseconds")?),
    };
    let kind = text(event.r#type).ok_or("\"type\" is missing; use invoke, ok, fail or info")?;
    if kind == "invoke" {
        if let Some(&op) = open.get(&process) {
            return Err(format!(
                "process {process} invokes while its operation of line {} is under way; end that \
                 with ok, fail or info first, or use another process number",
                history.ops[op].call
            ));
        }
        let action = read_action(&event, history.model)?;
        open.insert(process, history.ops.len());
        history.ops.push(Op {
            process,
            call: number,
            ret: None,
            call_ns: time,
            ret_ns: None,
            action,
            outcome: Outcome::Info,
        });
        return Ok(time);
    }
    if !matches!(&*kind, "ok" | "fail" | "info") {
        return Err(format!("unknown type {kind:?}; use invoke, ok, fail or info"));
    }
    let op = open.remove(&process).ok_or_else(|| {
        format!("{kind} of process {process} without an invoke; add the invoke before it")
    })?;
    let model = history.model;
    let op = &mut history.ops[op];
    agrees_with_call(&event, op, model)?;
    op.outcome = match &*kind {
        "ok" => Outcome::Ok(read_answer(&event, &op.action)?),
        "fail" => Outcome::Fail,
        _ => Outcome::Info,
    };
    op.ret = Some(number);
    op.ret_ns = time;
    Ok(time)
}

fn agrees_with_call(event: &Event<'_>, op: &Op, model: Model) -> Result<(), String> {
    let name = op.action.name(model);
    if let Some(f) = event.f
        && text(Some(f)).as_deref() != Some(name)
    {
        return Err(format!("\"f\" is {f}, but line {} invoked {name:?}", op.call));
    }
    let key = match &op.action {
        Action::Get { key }
        | Action::Put { key, .. }
        | Action::Append { key, .. }
        | Action::Cas { key, .. }
        | Action::Delete { key }
        | Action::Scan { prefix: key } => key,
        Action::Txn(_) | Action::Other { .. } => return Ok(()),
    };
    match event.key {
        Some(found) if model == Model::Kv && text(Some(found)).as_deref() != Some(key) => {
            Err(format!("\"key\" is {found}, but line {} invoked {key:?}", op.call))
        }
        _ => Ok(()),
    }
}

fn read_action(event: &Event<'_>, model: Model) -> Result<Action, String> {
    let names = match model {
        Model::Kv => "get, put, append, cas, delete, scan or txn",
        Model::Register => "read, write or cas",
    };
    let f = text(event.f).ok_or_else(|| format!("\"f\" is missing; use {names}"))?;
    let key = || match model {
        Model::Register => Ok(Key::from("")),
        Model::Kv => {
            text(event.key).map(Key::from).ok_or_else(|| format!("{f} needs \"key\", a string"))
        }
    };
    let value = || {
        let value = event.value.map(value_of).transpose()?.flatten();
        value.ok_or_else(|| {
            format!("{f} needs \"value\" at invoke, not null (null stands for absence)")
        })
    };
    Ok(match (&*f, model) {
        ("get", Model::Kv) | ("read", Model::Register) => Action::Get { key: key()? },
        ("put", Model::Kv) | ("write", Model::Register) => {
            Action::Put { key: key()?, value: value()? }
        }
        ("append", Model::Kv) => {
            let value = value()?;
            if !value.is_text() {
                return Err(format!("append needs a string as \"value\", not {value}"));
            }
            Action::Append { key: key()?, value }
        }
        ("cas", _) => {
            let [expected, new] = event
                .value
                .and_then(|value| serde_json::from_str::<[&RawValue; 2]>(value.get()).ok())
                .ok_or("cas needs \"value\":[expected,new] at invoke")?;
            let new = value_of(new)?
                .ok_or("cas cannot write null, which stands for absence; use delete")?;
            Action::Cas { key: key()?, expected: value_of(expected)?, new }
        }
        ("delete", Model::Kv) => Action::Delete { key: key()? },
        ("scan", Model::Kv) => Action::Scan { prefix: key()? },
        ("txn", Model::Kv) => Action::Txn(Box::new(read_txn(event.value)?)),
        _ => return Err(format!("unknown f {f:?} for this model; use {names}")),
    })
}

/// A transaction at its invoke.
#[derive(Deserialize)]
struct TxnFields<'a> {
    #[serde(borrow, default)]
    r#if: Vec<(String, &'a RawValue)>,
    #[serde(borrow, default)]
    then: Vec<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    r#else: Vec<Vec<&'a RawValue>>,
}

fn read_txn(value: Option<&RawValue>) -> Result<Txn, String> {
    const SHAPE: &str = "txn needs \"value\":{\"if\":[[key,value],..],\"then\":[..],\"else\":[..]} \
                         with the operations [\"get\",key], [\"put\",key,value], [\"delete\",key]";
    let fields: TxnFields<'_> = value.and_then(|value| object(value.get())?.ok()).ok_or(SHAPE)?;
    let mut txn = Txn::default();
    for (key, expected) in fields.r#if {
        txn.conditions.push((key.into(), value_of(expected)?));
    }
    for (ops, branch) in [(fields.then, &mut txn.then), (fields.r#else, &mut txn.otherwise)] {
        for op in ops {
            branch.push(read_txn_op(&op)?.ok_or(SHAPE)?);
        }
    }
    Ok(txn)
}

/// `None` if it has another shape.
fn read_txn_op(op: &[&RawValue]) -> Result<Option<TxnOp>, String> {
    let word = |nth: usize| text(op.get(nth).copied());
    let (Some(verb), Some(key)) = (word(0), word(1)) else { return Ok(None) };
    let key = Key::from(key);
    Ok(match (&*verb, op.len()) {
        ("get", 2) => Some(TxnOp::Get(key)),
        ("put", 3) => value_of(op[2])?.map(|value| TxnOp::Put(key, value)),
        ("delete", 2) => Some(TxnOp::Delete(key)),
        _ => None,
    })
}

fn read_answer(event: &Event<'_>, action: &Action) -> Result<Answer, String> {
    let value = event.value;
    Ok(match action {
        Action::Get { .. } => Answer::Value(value_of(
            value.ok_or("ok of a read needs \"value\", null if the key is absent")?,
        )?),
        Action::Put { .. } | Action::Append { .. } => Answer::Done,
        Action::Cas { .. } if event.swapped.is_some_and(is_null) => Answer::Unsaid,
        Action::Cas { .. } => Answer::Swapped(
            event
                .swapped
                .and_then(flag)
                .ok_or("ok of cas needs \"swapped\":true, false, or null if it was not said")?,
        ),
        Action::Delete { .. } => Answer::Deleted(match value.filter(|value| !is_null(value)) {
            None => None,
            Some(existed) => {
                Some(flag(existed).ok_or("ok of delete has \"value\":true, false or nothing")?)
            }
        }),
        Action::Scan { .. } => Answer::Pairs(read_pairs(value)?),
        Action::Txn(txn) => read_txn_answer(value, txn)?,
        Action::Other { .. } => Answer::Unsaid,
    })
}

fn read_pairs(value: Option<&RawValue>) -> Result<Vec<(Key, Value)>, String> {
    const SHAPE: &str = "ok of scan needs \"value\":[[key,value],..], no nulls";
    let pairs: Vec<(String, &RawValue)> =
        value.and_then(|value| serde_json::from_str(value.get()).ok()).ok_or(SHAPE)?;
    let pair = |(key, value): (String, &RawValue)| Ok((key.into(), value_of(value)?.ok_or(SHAPE)?));
    pairs.into_iter().map(pair).collect()
}

/// A transaction at its ok.
#[derive(Deserialize)]
struct TxnAnswer<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    succeeded: Option<&'a RawValue>,
    #[serde(borrow, default)]
    results: Option<Vec<&'a RawValue>>,
}

fn read_txn_answer(value: Option<&RawValue>, txn: &Txn) -> Result<Answer, String> {
    const SHAPE: &str = "ok of txn needs \"value\":{\"succeeded\":bool,\"results\":[..]}, \
                         \"succeeded\":null if it was not said";
    let answer: TxnAnswer<'_> = value.and_then(|value| object(value.get())?.ok()).ok_or(SHAPE)?;
    if answer.succeeded.is_some_and(is_null) {
        return Ok(Answer::Unsaid);
    }
    let succeeded = answer.succeeded.and_then(flag).ok_or(SHAPE)?;
    let Some(results) = answer.results else {
        return Ok(Answer::Txn { succeeded, results: None });
    };
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    if branch.len() != results.len() {
        return Err(format!(
            "the transaction took a branch of {} operations but has {} results; give one for each",
            branch.len(),
            results.len()
        ));
    }
    let answer = |(op, result): (&TxnOp, &RawValue)| match op {
        TxnOp::Get(_) => value_of(result).map(Answer::Value),
        TxnOp::Put(..) => Ok(Answer::Done),
        TxnOp::Delete(_) if is_null(result) => Ok(Answer::Deleted(None)),
        TxnOp::Delete(_) => {
            let existed = flag(result).ok_or("the result of a delete is true, false or null")?;
            Ok(Answer::Deleted(Some(existed)))
        }
    };
    let results = branch.iter().zip(results).map(answer).collect::<Result<Vec<_>, String>>()?;
    Ok(Answer::Txn { succeeded, results: Some(results) })
}

/// The fields of an object; `None` if the text is none. (serde would take an array for one, too.)
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<serde_json::Result<T>> {
    json.starts_with('{').then(|| serde_json::from_str(json))
}

fn value_of(json: &RawValue) -> Result<Option<Value>, String> {
    Value::from_text(json.get())
}

fn is_null(json: &RawValue) -> bool {
    json.get() == "null"
}

fn flag(json: &RawValue) -> Option<bool> {
    json.get().parse().ok()
}

fn whole(json: &RawValue) -> Option<u64> {
    json.get().parse().ok()
}

/// The text of a JSON string.
fn text(json: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = json?.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}
