//! The JSON-lines form of a history: one event a line, in real-time order.
//!
//! ```json
//! {"process":3,"type":"invoke","f":"put","key":"x","value":"1","time":1200}
//! {"process":3,"type":"ok","f":"put","key":"x","value":"1","time":3400}
//! ```
//!
//! `type` is invoke, ok, fail or info; `time` (nanoseconds) is optional and only informative. By
//! action, `value` means:
//! - get, read: at ok, the value read; `null` if absent or initial.
//! - put, write, append: at invoke, the value. Append takes a string.
//! - cas: at invoke `[expected,new]`, expected `null` demands absence; ok has `"swapped":bool`,
//!   or `null` if it took effect and the system did not say how.
//! - delete: at ok, optionally, whether the key existed.
//! - scan: `key` is the prefix; at ok `[[key,value],..]`, ascending.
//! - txn (no key): at invoke `{"if":[[key,value|null],..],"then":[op,..],"else":[op,..]}` with the
//!   operations `["get",key]`, `["put",key,value]`, `["delete",key]`; at ok
//!   `{"succeeded":bool,"results":[..]}`, one result for each operation of the branch taken: the
//!   value read, `null` for a put, and for a delete whether the key existed, or `null`. Without
//!   `results` these are not checked; with `"succeeded":null`, nothing that it found is.
//!
//! `f` and `key` may be left out of the event that ends an operation. Errors name the file, the
//! line and the remedy.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde_json::{Map, Value as Json};

use super::{Action, Answer, History, Key, Model, Op, Outcome, Txn, TxnOp, Value};

/// Reads a history. `name` is the file's name for error messages.
///
/// # Errors
/// One line that says where the first mistake is and how to mend it.
pub fn read(input: impl BufRead, name: &str, model: Model) -> Result<History, String> {
    let mut history = History::new(model);
    history.lines = true;
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, line) in (1..).zip(input.lines()) {
        let located = |message: String| format!("{name}:{number}: {message}");
        let line = line.map_err(|error| located(format!("cannot be read: {error}")))?;
        history.events = number;
        if !line.trim().is_empty() {
            read_event(&mut history, &mut open, &line, number).map_err(located)?;
        }
    }
    Ok(history)
}

fn read_event(
    history: &mut History,
    open: &mut BTreeMap<u64, usize>,
    line: &str,
    number: u64,
) -> Result<(), String> {
    let json: Json = serde_json::from_str(line)
        .map_err(|error| format!("not valid JSON ({error}); write one object a line"))?;
    let Json::Object(event) = json else {
        return Err("not a JSON object; write {\"process\":..,\"type\":..,\"f\":..}".to_string());
    };
    let process = event
        .get("process")
        .and_then(Json::as_u64)
        .ok_or("\"process\" is missing or not a whole number >= 0; number the clients")?;
    let time = match event.get("time") {
        None | Some(Json::Null) => None,
        Some(time) => Some(time.as_u64().ok_or("\"time\" is not a whole number of nanoseconds")?),
    };
    let kind = text(&event, "type").ok_or("\"type\" is missing; use invoke, ok, fail or info")?;
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
        return Ok(());
    }
    if !matches!(kind, "ok" | "fail" | "info") {
        return Err(format!("unknown type {kind:?}; use invoke, ok, fail or info"));
    }
    let op = open.remove(&process).ok_or_else(|| {
        format!("{kind} of process {process} without an invoke; add the invoke before it")
    })?;
    let model = history.model;
    let op = &mut history.ops[op];
    agrees_with_call(&event, op, model)?;
    op.outcome = match kind {
        "ok" => Outcome::Ok(read_answer(&event, &op.action)?),
        "fail" => Outcome::Fail,
        _ => Outcome::Info,
    };
    op.ret = Some(number);
    op.ret_ns = time;
    Ok(())
}

fn agrees_with_call(event: &Map<String, Json>, op: &Op, model: Model) -> Result<(), String> {
    let name = op.action.name(model);
    if let Some(f) = event.get("f")
        && f.as_str() != Some(name)
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
        Action::Txn(_) => return Ok(()),
    };
    match event.get("key") {
        Some(found) if model == Model::Kv && found.as_str() != Some(key) => {
            Err(format!("\"key\" is {found}, but line {} invoked {key:?}", op.call))
        }
        _ => Ok(()),
    }
}

fn read_action(event: &Map<String, Json>, model: Model) -> Result<Action, String> {
    let names = match model {
        Model::Kv => "get, put, append, cas, delete, scan or txn",
        Model::Register => "read, write or cas",
    };
    let f = text(event, "f").ok_or_else(|| format!("\"f\" is missing; use {names}"))?;
    let key = || match model {
        Model::Register => Ok(Key::from("")),
        Model::Kv => {
            text(event, "key").map(Key::from).ok_or_else(|| format!("{f} needs \"key\", a string"))
        }
    };
    let value = || {
        event.get("value").and_then(Value::from_json).ok_or_else(|| {
            format!("{f} needs \"value\" at invoke, not null (null stands for absence)")
        })
    };
    Ok(match (f, model) {
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
            let Some([expected, new]) = list(event.get("value")) else {
                return Err("cas needs \"value\":[expected,new] at invoke".to_string());
            };
            let new = Value::from_json(new)
                .ok_or("cas cannot write null, which stands for absence; use delete")?;
            Action::Cas { key: key()?, expected: Value::from_json(expected), new }
        }
        ("delete", Model::Kv) => Action::Delete { key: key()? },
        ("scan", Model::Kv) => Action::Scan { prefix: key()? },
        ("txn", Model::Kv) => Action::Txn(Box::new(read_txn(event.get("value"))?)),
        _ => return Err(format!("unknown f {f:?} for this model; use {names}")),
    })
}

fn read_txn(value: Option<&Json>) -> Result<Txn, String> {
    const SHAPE: &str = "txn needs \"value\":{\"if\":[[key,value],..],\"then\":[..],\"else\":[..]} \
                         with the operations [\"get\",key], [\"put\",key,value], [\"delete\",key]";
    let value = value.and_then(Json::as_object).ok_or(SHAPE)?;
    let part = |name: &str| match value.get(name) {
        None => Some([].as_slice()),
        Some(part) => part.as_array().map(Vec::as_slice),
    };
    let mut txn = Txn::default();
    for condition in part("if").ok_or(SHAPE)? {
        let [Json::String(key), expected] = list(Some(condition)).ok_or(SHAPE)? else {
            return Err(SHAPE.to_string());
        };
        txn.conditions.push((key.as_str().into(), Value::from_json(expected)));
    }
    for (name, branch) in [("then", &mut txn.then), ("else", &mut txn.otherwise)] {
        for op in part(name).ok_or(SHAPE)? {
            branch.push(read_txn_op(op).ok_or(SHAPE)?);
        }
    }
    Ok(txn)
}

fn read_txn_op(op: &Json) -> Option<TxnOp> {
    let op = op.as_array()?;
    let key = Key::from(op.get(1)?.as_str()?);
    match (op.first()?.as_str()?, op.len()) {
        ("get", 2) => Some(TxnOp::Get(key)),
        ("put", 3) => Some(TxnOp::Put(key, Value::from_json(&op[2])?)),
        ("delete", 2) => Some(TxnOp::Delete(key)),
        _ => None,
    }
}

fn read_answer(event: &Map<String, Json>, action: &Action) -> Result<Answer, String> {
    let value = event.get("value");
    Ok(match action {
        Action::Get { .. } => Answer::Value(Value::from_json(
            value.ok_or("ok of a read needs \"value\", null if the key is absent")?,
        )),
        Action::Put { .. } | Action::Append { .. } => Answer::Done,
        Action::Cas { .. } if event.get("swapped").is_some_and(Json::is_null) => Answer::Unsaid,
        Action::Cas { .. } => Answer::Swapped(
            event
                .get("swapped")
                .and_then(Json::as_bool)
                .ok_or("ok of cas needs \"swapped\":true, false, or null if it was not said")?,
        ),
        Action::Delete { .. } => Answer::Deleted(match value {
            None | Some(Json::Null) => None,
            Some(existed) => {
                Some(existed.as_bool().ok_or("ok of delete has \"value\":true, false or nothing")?)
            }
        }),
        Action::Scan { .. } => {
            let pairs = value.and_then(Json::as_array);
            let pairs = pairs.and_then(|pairs| pairs.iter().map(read_pair).collect());
            Answer::Pairs(pairs.ok_or("ok of scan needs \"value\":[[key,value],..], no nulls")?)
        }
        Action::Txn(txn) => read_txn_answer(value, txn)?,
    })
}

fn read_pair(pair: &Json) -> Option<(Key, Value)> {
    match list(Some(pair))? {
        [Json::String(key), value] => Some((key.as_str().into(), Value::from_json(value)?)),
        _ => None,
    }
}

fn read_txn_answer(value: Option<&Json>, txn: &Txn) -> Result<Answer, String> {
    const SHAPE: &str = "ok of txn needs \"value\":{\"succeeded\":bool,\"results\":[..]}, \
                         \"succeeded\":null if it was not said";
    if value.and_then(|value| value.get("succeeded")).is_some_and(Json::is_null) {
        return Ok(Answer::Unsaid);
    }
    let succeeded =
        value.and_then(|value| value.get("succeeded")).and_then(Json::as_bool).ok_or(SHAPE)?;
    let results = match value.and_then(|value| value.get("results")) {
        None | Some(Json::Null) => return Ok(Answer::Txn { succeeded, results: None }),
        Some(results) => results.as_array().ok_or(SHAPE)?,
    };
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    if branch.len() != results.len() {
        return Err(format!(
            "the transaction took a branch of {} operations but has {} results; give one for each",
            branch.len(),
            results.len()
        ));
    }
    let answer = |(op, result): (&TxnOp, &Json)| match op {
        TxnOp::Get(_) => Ok(Answer::Value(Value::from_json(result))),
        TxnOp::Put(..) => Ok(Answer::Done),
        TxnOp::Delete(_) if result.is_null() => Ok(Answer::Deleted(None)),
        TxnOp::Delete(_) => {
            let existed = result.as_bool().ok_or("the result of a delete is true, false or null");
            existed.map(|existed| Answer::Deleted(Some(existed)))
        }
    };
    let results = branch.iter().zip(results).map(answer).collect::<Result<Vec<_>, _>>()?;
    Ok(Answer::Txn { succeeded, results: Some(results) })
}

fn text<'a>(event: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    event.get(name).and_then(Json::as_str)
}

fn list<const N: usize>(value: Option<&Json>) -> Option<&[Json; N]> {
    value?.as_array()?.as_slice().try_into().ok()
}

/// Writes a history, one event a line, so that [`read()`] restores it (with line numbers as
/// positions).
///
/// # Errors
/// If the output cannot be written.
pub fn write(history: &History, mut output: impl Write) -> std::io::Result<()> {
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(2 * history.ops.len());
    for (index, op) in history.ops.iter().enumerate() {
        events.push((op.call, index, true));
        events.extend(op.ret.map(|ret| (ret, index, false)));
    }
    events.sort_unstable();
    for (_, index, is_call) in events {
        let op = &history.ops[index];
        let (kind, rest, time) = if is_call {
            ("invoke", invoke_fields(&op.action, history.model), op.call_ns)
        } else {
            let kind = match op.outcome {
                Outcome::Ok(_) => "ok",
                Outcome::Fail => "fail",
                Outcome::Info => "info",
            };
            (kind, end_fields(op, history.model), op.ret_ns)
        };
        let f = op.action.name(history.model);
        let time = time.map(|time| format!(",\"time\":{time}")).unwrap_or_default();
        let process = op.process;
        writeln!(
            output,
            "{{\"process\":{process},\"type\":\"{kind}\",\"f\":\"{f}\"{rest}{time}}}"
        )?;
    }
    Ok(())
}

fn key_field(key: &str, model: Model) -> String {
    match model {
        Model::Kv => format!(",\"key\":{}", Json::from(key)),
        Model::Register => String::new(),
    }
}

fn invoke_fields(action: &Action, model: Model) -> String {
    match action {
        Action::Get { key } | Action::Delete { key } | Action::Scan { prefix: key } => {
            key_field(key, model)
        }
        Action::Put { key, value } | Action::Append { key, value } => {
            format!("{},\"value\":{}", key_field(key, model), value.as_json())
        }
        Action::Cas { key, expected, new } => {
            let (key, expected) = (key_field(key, model), json(expected));
            format!("{key},\"value\":[{expected},{}]", new.as_json())
        }
        Action::Txn(txn) => {
            let conditions =
                txn.conditions.iter().map(|(key, v)| format!("[{},{}]", quoted(key), json(v)));
            format!(
                ",\"value\":{{\"if\":{},\"then\":{},\"else\":{}}}",
                array(conditions),
                array(txn.then.iter().map(txn_op)),
                array(txn.otherwise.iter().map(txn_op))
            )
        }
    }
}

fn end_fields(op: &Op, model: Model) -> String {
    let Outcome::Ok(answer) = &op.outcome else { return invoke_fields(&op.action, model) };
    let answer = match answer {
        Answer::Done => return invoke_fields(&op.action, model),
        Answer::Swapped(swapped) => {
            return format!("{},\"swapped\":{swapped}", invoke_fields(&op.action, model));
        }
        Answer::Unsaid if matches!(op.action, Action::Cas { .. }) => {
            return format!("{},\"swapped\":null", invoke_fields(&op.action, model));
        }
        Answer::Deleted(None) => String::new(),
        other => format!(",\"value\":{}", answer_json(other)),
    };
    // A transaction's invoke fields are its value, which the answer replaces.
    match &op.action {
        Action::Txn(_) => answer,
        action => invoke_fields(action, model) + &answer,
    }
}

fn answer_json(answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::Deleted(None) => "null".to_string(),
        Answer::Value(value) => json(value).to_string(),
        Answer::Swapped(flag) | Answer::Deleted(Some(flag)) => flag.to_string(),
        Answer::Pairs(pairs) => {
            array(pairs.iter().map(|(key, value)| format!("[{},{}]", quoted(key), value.as_json())))
        }
        Answer::Unsaid => "{\"succeeded\":null}".to_string(),
        Answer::Txn { succeeded, results: None } => format!("{{\"succeeded\":{succeeded}}}"),
        Answer::Txn { succeeded, results: Some(results) } => format!(
            "{{\"succeeded\":{succeeded},\"results\":{}}}",
            array(results.iter().map(answer_json))
        ),
    }
}

fn txn_op(op: &TxnOp) -> String {
    match op {
        TxnOp::Get(key) => format!("[\"get\",{}]", quoted(key)),
        TxnOp::Put(key, value) => format!("[\"put\",{},{}]", quoted(key), value.as_json()),
        TxnOp::Delete(key) => format!("[\"delete\",{}]", quoted(key)),
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn quoted(key: &str) -> String {
    Json::from(key).to_string()
}

fn json(value: &Option<Value>) -> &str {
    value.as_ref().map_or("null", Value::as_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<History, String> {
        read(text.as_bytes(), "h.jsonl", Model::Kv)
    }

    #[test]
    fn every_action_survives_a_round_trip() {
        let text = r#"{"process":0,"type":"invoke","f":"put","key":"x","value":{"b":1,"a":[2]}}
{"process":1,"type":"invoke","f":"get","key":"x"}
{"process":0,"type":"ok","f":"put","key":"x","value":{"b":1,"a":[2]},"time":7}
{"process":1,"type":"ok","value":null}
{"process":0,"type":"invoke","f":"cas","key":"x","value":[null,"n"]}
{"process":0,"type":"ok","f":"cas","key":"x","value":[null,"n"],"swapped":false}
{"process":0,"type":"invoke","f":"delete","key":"x"}
{"process":0,"type":"ok","f":"delete","key":"x","value":true}
{"process":0,"type":"invoke","f":"append","key":"x","value":"\"t"}
{"process":0,"type":"info","f":"append","key":"x"}
{"process":0,"type":"invoke","f":"scan","key":""}
{"process":0,"type":"ok","f":"scan","key":"","value":[["x","1"]]}
{"process":0,"type":"invoke","f":"txn","value":{"if":[["x",null]],"then":[["put","x",1]],"else":[["get","x"],["delete","y"]]}}
{"process":0,"type":"ok","f":"txn","value":{"succeeded":false,"results":["1",null]}}
{"process":0,"type":"invoke","f":"delete","key":"x"}
{"process":0,"type":"fail","f":"delete","key":"x"}
{"process":0,"type":"invoke","f":"cas","key":"x","value":["n","m"]}
{"process":0,"type":"ok","f":"cas","key":"x","value":["n","m"],"swapped":null}
{"process":0,"type":"invoke","f":"txn","value":{"then":[["get","x"]]}}
{"process":0,"type":"ok","f":"txn","value":{"succeeded":null}}
{"process":0,"type":"invoke","f":"get","key":"x"}
"#;
        let history = parse(text).expect("valid");
        assert_eq!(history.ops().len(), 11);
        let unsaid = &Outcome::Ok(Answer::Unsaid);
        assert_eq!([&history.ops()[8].outcome, &history.ops()[9].outcome], [unsaid, unsaid]);
        assert_eq!((history.ops()[1].call, history.ops()[1].ret), (2, Some(4)));
        assert_eq!(history.ops()[4].outcome, Outcome::Info);
        assert_eq!(history.ops()[7].outcome, Outcome::Fail);
        let mut written = Vec::new();
        write(&history, &mut written).expect("memory");
        let again = read(written.as_slice(), "again", Model::Kv).expect("own output");
        assert_eq!(again, history);
    }

    #[test]
    fn register_lines_have_no_key() {
        let text = "{\"process\":1,\"type\":\"invoke\",\"f\":\"write\",\"value\":3}\n\
                    {\"process\":1,\"type\":\"ok\",\"f\":\"write\",\"value\":3}\n";
        let history = read(text.as_bytes(), "r", Model::Register).expect("valid");
        assert!(matches!(&history.ops()[0].action, Action::Put { key, .. } if key.is_empty()));
        let mut written = Vec::new();
        write(&history, &mut written).expect("memory");
        assert_eq!(String::from_utf8(written).expect("text"), text);
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        let invoke = r#"{"process":1,"type":"invoke","f":"get","key":"x"}"#;
        let cases = [
            (format!("{invoke}\n{{"), "h.jsonl:2: not valid JSON"),
            ("[1]".into(), "h.jsonl:1: not a JSON object"),
            (r#"{"type":"ok"}"#.into(), "\"process\" is missing"),
            (r#"{"process":1,"type":"done"}"#.into(), "unknown type \"done\"; use invoke"),
            (r#"{"process":1,"type":"ok"}"#.into(), "ok of process 1 without an invoke"),
            (format!("{invoke}\n\n{invoke}"), "h.jsonl:3: process 1 invokes while its operation"),
            (format!("{invoke}\n{}", r#"{"process":1,"type":"ok"}"#), "h.jsonl:2: ok of a read"),
            (
                format!("{invoke}\n{}", r#"{"process":1,"type":"ok","key":"y","value":1}"#),
                "\"key\" is \"y\", but line 1 invoked \"x\"",
            ),
            (r#"{"process":1,"type":"invoke","f":"put","key":"x"}"#.into(), "put needs \"value\""),
            (r#"{"process":1,"type":"invoke","f":"get"}"#.into(), "get needs \"key\""),
            (r#"{"process":1,"type":"invoke","f":"read"}"#.into(), "unknown f \"read\""),
            (
                r#"{"process":1,"type":"invoke","f":"cas","key":"x","value":[1]}"#.into(),
                "cas needs \"value\":[expected,new]",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"append","key":"x","value":1}"#.into(),
                "append needs a string",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"txn","value":{"then":[["incr","x"]]}}"#.into(),
                "txn needs \"value\"",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text);
            assert!(error.starts_with("h.jsonl:"), "{error}");
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
            assert!(!error.contains('\n'));
        }
    }
}
