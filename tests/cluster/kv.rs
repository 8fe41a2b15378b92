//! What an operation of a history is in HTTP, and what an answer means for the history.
//!
//! The three outcomes must never be confused. `Ok` is what the node says was done. `Refused` is
//! said by a node that certainly did nothing, or by a connection that was never made. Everything
//! else leaves a command open for ever. (A read without an answer constrains nothing.) What no
//! correct node says at all is `Wrong`, and fails the test.

use serde_json::{Value as Json, json};
use stormkv_sim::history::{Action, Answer, Txn, TxnOp, Value};

use super::http::{Failure, Request, Response, encode};

/// What came of one attempt.
#[derive(Debug)]
pub enum Told {
    /// It was done.
    Done(Answer),
    /// This attempt had no effect and never will.
    Refused,
    /// It may have had an effect, or may have one still.
    Unknown,
    /// The session is gone; whether an earlier attempt was applied is not known.
    SessionLost,
    /// No correct node answers like that.
    Wrong(String),
}

/// Codes of attempts that certainly had no effect.
const REFUSALS: &[(u16, &str)] = &[
    (429, "busy"),
    (507, "disk_full"),
    (503, "no_leader"),
    (503, "leader_transferring"),
    (503, "stopping"),
    (503, "superseded"),
    (503, "too_many_connections"),
];

/// The text of a value.
pub fn text(value: &Value) -> String {
    let json: Json = serde_json::from_str(value.as_json()).expect("canonical JSON");
    json.as_str().expect("these tests write texts only").to_owned()
}

fn optional(value: Option<&Value>) -> Json {
    value.map_or(Json::Null, |value| Json::from(text(value)))
}

/// The request for an action; with an idempotency key if it should take effect once.
pub fn request(action: &Action, once: Option<(u64, u64)>) -> Request {
    let path = |key: &str| format!("/v1/kv/{}", encode(key));
    let request = match action {
        Action::Get { key } => Request::new("GET", path(key)),
        Action::Put { key, value } => Request::new("PUT", path(key)).body(text(value)),
        Action::Delete { key } => Request::new("DELETE", path(key)),
        Action::Scan { prefix } => {
            Request::new("GET", format!("/v1/kv?prefix={}&limit=1000", encode(prefix)))
        }
        // What may only be created has a header of its own.
        Action::Cas { key, expected: None, new } => {
            Request::new("PUT", path(key)).header("if-none-match", "*").body(text(new))
        }
        Action::Cas { key, expected, new } => Request::new("POST", "/v1/cas").json(
            &json!({ "key": &**key, "expected": optional(expected.as_ref()), "new": text(new) }),
        ),
        Action::Txn(txn) => Request::new("POST", "/v1/txn").json(&txn_body(txn)),
        Action::Append { .. } | Action::Other { .. } => panic!("stormkv has no such operation"),
    };
    match once {
        Some((session, sequence)) if !action.is_read() => {
            request.header("idempotency-key", format!("{session}-{sequence}"))
        }
        _ => request,
    }
}

fn txn_body(txn: &Txn) -> Json {
    let steps = |steps: &[TxnOp]| -> Vec<Json> {
        let step = |step: &TxnOp| match step {
            TxnOp::Get(key) => json!({ "get": &**key }),
            TxnOp::Put(key, value) => json!({ "put": { "key": &**key, "value": text(value) } }),
            TxnOp::Delete(key) => json!({ "delete": &**key }),
        };
        steps.iter().map(step).collect()
    };
    let compare = |(key, value): &(_, Option<Value>)| {
        let key: &stormkv_sim::history::Key = key;
        json!({ "key": &**key, "value": optional(value.as_ref()) })
    };
    let compares: Vec<Json> = txn.conditions.iter().map(compare).collect();
    json!({ "compare": compares, "then": steps(&txn.then), "else": steps(&txn.otherwise) })
}

/// What an attempt tells about the action.
pub fn judge(action: &Action, told: Result<Response, Failure>) -> Told {
    let response = match told {
        Ok(response) => response,
        Err(Failure::NotSent(_)) => return Told::Refused,
        Err(Failure::Lost(_)) => return Told::Unknown,
    };
    match answer(action, &response) {
        Some(Ok(answer)) => return Told::Done(answer),
        Some(Err(why)) => return Told::Wrong(format!("{action:?}: {why}: {}", response.text())),
        None => {}
    }
    let code = response.code();
    match (response.status, code.as_str()) {
        (504, "outcome_unknown") | (408, _) => Told::Unknown,
        (410, "session_expired") => Told::SessionLost,
        (status, code) if REFUSALS.contains(&(status, code)) => Told::Refused,
        (status, _) => Told::Wrong(format!("{action:?}: {status} {}", response.text())),
    }
}

/// The answer, if this is one; an error if it makes no sense.
fn answer(action: &Action, response: &Response) -> Option<Result<Answer, String>> {
    let json = response.json();
    Some(match (action, response.status) {
        (Action::Get { .. }, 200) => Ok(Answer::Value(Some(Value::text(&response.text())))),
        (Action::Get { .. }, 404) if response.code() == "key_not_found" => Ok(Answer::Value(None)),
        (Action::Put { .. }, 204) => Ok(Answer::Done),
        (Action::Delete { .. }, 204) => Ok(Answer::Deleted(Some(true))),
        (Action::Delete { .. }, 404) if response.code() == "key_not_found" => {
            Ok(Answer::Deleted(Some(false)))
        }
        (Action::Cas { expected: None, .. }, 204) => Ok(Answer::Swapped(true)),
        (Action::Cas { expected: None, .. }, 412) => Ok(Answer::Swapped(false)),
        (Action::Cas { expected: Some(expected), .. }, 200) => {
            let current = Value::from_json(&json["current"]);
            match json["swapped"].as_bool() {
                None => Err("no `swapped`".to_owned()),
                Some(swapped) if swapped != (current.as_ref() == Some(expected)) => {
                    Err("`swapped` and `current` contradict each other".to_owned())
                }
                Some(swapped) => Ok(Answer::Swapped(swapped)),
            }
        }
        (Action::Scan { .. }, 200) => pairs(&json).ok_or_else(|| "no page".to_owned()),
        (Action::Txn(txn), 200) => committed(txn, &json).ok_or_else(|| "no results".to_owned()),
        _ => return None,
    })
}

fn pairs(json: &Json) -> Option<Answer> {
    if json["more"].as_bool()? {
        return None;
    }
    let pair = |entry: &Json| {
        entry["revision"].as_u64()?;
        Some((entry["key"].as_str()?.into(), Value::text(entry["value"].as_str()?)))
    };
    json["entries"].as_array()?.iter().map(pair).collect::<Option<_>>().map(Answer::Pairs)
}

/// A transaction's answer names what its gets have read, in their order.
fn committed(txn: &Txn, json: &Json) -> Option<Answer> {
    let succeeded = json["succeeded"].as_bool()?;
    let mut read = json["results"].as_array()?.iter();
    let steps = if succeeded { &txn.then } else { &txn.otherwise };
    let mut results = Vec::new();
    for step in steps {
        results.push(match step {
            TxnOp::Get(_) => Answer::Value(Value::from_json(read.next()?)),
            TxnOp::Put(..) => Answer::Done,
            TxnOp::Delete(_) => Answer::Deleted(None),
        });
    }
    read.next().is_none().then_some(Answer::Txn { succeeded, results: Some(results) })
}
