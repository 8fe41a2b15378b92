//! Requests about more than one key, or with a condition on values: scans, compare-and-swap,
//! transactions.

use bytes::Bytes;
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::answer::Answer;
use super::super::ask::{Asker, unexpected};
use super::super::body::Bodies;
use super::super::error::{ApiError, Code};
use super::super::json::{self, Fields, Names, Text};
use super::super::params::{Params, number, percent_encode};
use super::super::session::session;
use super::key::checked_key;
use super::keys::checked_value;
use super::{command, query as ask};
use crate::kv::{Command, Compare, KeyValue, MAX_SCAN, Query, Response, TxnOp};

/// What an answer has besides its fields that are weighed.
const FRAME: usize = 128;

/// `GET /v1/kv`: one page of the keys with a prefix.
pub(super) async fn scan(asker: &Asker<'_>, bodies: &Bodies, query: Option<&str>) -> Answer {
    let params = Params::parse(query, &["prefix", "after", "limit", "consistency"])?;
    let bytes = |name| params.get(name).map(Bytes::copy_from_slice);
    let query = Query::Scan {
        prefix: bytes("prefix").unwrap_or_default(),
        after: bytes("after"),
        limit: params.get("limit").map_or(Ok(MAX_SCAN), limit)?,
    };
    match ask(asker, &query, params.consistency()?).await? {
        Response::Entries { entries, more } => {
            let weight = |entry: &KeyValue| json::weight(&entry.key) + json::weight(&entry.value);
            // The key of the last entry comes again, percent-encoded.
            let again = entries.last().map_or(0, |last| 3 * last.key.len());
            let most = FRAME + again + entries.iter().map(weight).sum::<usize>();
            let room = bodies.room_to_answer(most)?;
            let next = entries.last().filter(|_| more).map(|last| percent_encode(&last.key));
            let entries: Vec<Value> = entries
                .iter()
                .map(|entry| {
                    let mut object = Map::new();
                    json::set(&mut object, "key", Some(&entry.key));
                    json::set(&mut object, "value", Some(&entry.value));
                    object.insert("revision".to_owned(), entry.revision.into());
                    Value::Object(object)
                })
                .collect();
            let mut page = json!({ "entries": entries, "more": more });
            if let Some(next) = next {
                page["next"] = next.into();
            }
            Ok(json::large_answer(&page, most, room))
        }
        other => Err(unexpected(&other)),
    }
}

fn limit(text: &[u8]) -> Result<u32, ApiError> {
    let limit = std::str::from_utf8(text).ok().and_then(number);
    limit
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|n| (1..=MAX_SCAN).contains(n))
        .ok_or_else(|| {
            let message = format!("the limit is out of range: use a number from 1 to {MAX_SCAN}");
            ApiError::new(Code::InvalidQuery, message)
        })
}

struct CasFields;

impl Names for CasFields {
    const NAMES: &'static [&'static str] = &["key", "expected", "new"];
}

/// `POST /v1/cas`.
pub(super) async fn cas(
    asker: &Asker<'_>,
    bodies: &Bodies,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer {
    let session = session(headers)?;
    let fields: Fields<CasFields> = json::parse(body)?;
    let Ok([name, expected, new]) = <[Option<Bytes>; 3]>::try_from(fields.0) else {
        return Err(null_key());
    };
    let key = key(name)?;
    new.iter().try_for_each(|value| checked_value(value))?;
    match command(asker, session, &Command::Cas { key, expected, new }).await? {
        Response::Swapped { swapped, current } => {
            let most = FRAME + current.as_deref().map_or(0, json::weight);
            let room = bodies.room_after_command(most)?;
            let mut object = Map::new();
            object.insert("swapped".to_owned(), swapped.into());
            json::set(&mut object, "current", current.as_deref());
            Ok(json::large_answer(&Value::Object(object), most, room))
        }
        other => Err(unexpected(&other)),
    }
}

fn null_key() -> ApiError {
    ApiError::new(Code::InvalidBody, "the key is null: name one")
}

/// A key out of a body.
fn key(key: Option<Bytes>) -> Result<Bytes, ApiError> {
    let key = key.ok_or_else(null_key)?;
    checked_key(&key)?;
    Ok(key)
}

struct KeyAndValue;

impl Names for KeyAndValue {
    const NAMES: &'static [&'static str] = &["key", "value"];
}

impl Fields<KeyAndValue> {
    fn take(mut self) -> Result<(Bytes, Option<Bytes>), ApiError> {
        let value = self.0.pop().flatten();
        Ok((key(self.0.pop().flatten())?, value))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Txn {
    #[serde(default)]
    compare: Vec<Fields<KeyAndValue>>,
    #[serde(default)]
    then: Vec<Operation>,
    #[serde(default, rename = "else")]
    otherwise: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Get(Text),
    Put(Fields<KeyAndValue>),
    Delete(Text),
}

impl Operation {
    fn checked(self) -> Result<TxnOp, ApiError> {
        Ok(match self {
            Operation::Get(name) => TxnOp::Get { key: key(Some(name.0))? },
            Operation::Delete(name) => TxnOp::Delete { key: key(Some(name.0))? },
            Operation::Put(fields) => {
                let (key, value) = fields.take()?;
                let value = value.ok_or_else(|| {
                    ApiError::new(Code::InvalidBody, "a put has the value null: use delete instead")
                })?;
                checked_value(&value)?;
                TxnOp::Put { key, value }
            }
        })
    }
}

fn operations(list: Vec<Operation>) -> Result<Vec<TxnOp>, ApiError> {
    list.into_iter().map(Operation::checked).collect()
}

/// `POST /v1/txn`.
pub(super) async fn txn(
    asker: &Asker<'_>,
    bodies: &Bodies,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer {
    let session = session(headers)?;
    let txn: Txn = json::parse(body)?;
    let compares = txn.compare.into_iter().map(|fields| {
        let (key, expected) = fields.take()?;
        Ok(Compare { key, expected })
    });
    let txn = Command::Txn {
        compares: compares.collect::<Result<_, ApiError>>()?,
        then: operations(txn.then)?,
        otherwise: operations(txn.otherwise)?,
    };
    // Saves the round trip; the machine would say the same.
    txn.check().map_err(|reason| ApiError::new(Code::InvalidCommand, reason))?;
    match command(asker, session, &txn).await? {
        Response::Committed { succeeded, results } => {
            let weight = |value: &Option<Bytes>| json::weight(value.as_deref().unwrap_or_default());
            let most = FRAME + results.iter().map(weight).sum::<usize>();
            let room = bodies.room_after_command(most)?;
            let results: Vec<Value> =
                results.iter().map(|value| json::element(value.as_deref())).collect();
            let answer = json!({ "succeeded": succeeded, "results": results });
            Ok(json::large_answer(&answer, most, room))
        }
        other => Err(unexpected(&other)),
    }
}
