//! Writes histories so that [`read`](super::read()) restores them.

use std::io::Write;

use crate::history::{Action, Answer, History, Model, Op, Outcome, TxnOp, Value};

/// Writes a history, one event a line, so that [`read`](super::read()) restores it (with line numbers as
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
        Model::Kv => format!(",\"key\":{}", quoted(key)),
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
        Action::Other { words } => format!(",\"value\":{}", quoted(words)),
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
        Answer::Unsaid if matches!(op.action, Action::Other { .. }) => {
            return invoke_fields(&op.action, model);
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
    serde_json::to_string(key).expect("a string has a JSON text")
}

fn json(value: &Option<Value>) -> &str {
    value.as_ref().map_or("null", Value::as_json)
}
