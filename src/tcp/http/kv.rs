//! Keys, one at a time: what most requests are about.
//!
//! Nothing here depends on how many keys or members there are, and nothing is boxed.

use bytes::Bytes;
use hyper::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use hyper::{Response, StatusCode};

use super::ask::{Asker, unexpected};
use super::body::{Bodies, Body};
use super::error::{ApiError, Code};
use super::key::Params;
use crate::kv::{self, Command, Guard, MAX_VALUE, Query};
use crate::types::{LogIndex, SessionId};

/// What makes a command take effect once: `<session>-<sequence>`.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) type Answer = Result<Response<Body>, ApiError>;

/// `GET` and `HEAD` of a key; hyper leaves the body of the latter out.
pub(super) async fn get(
    asker: &Asker<'_>,
    bodies: &Bodies,
    key: Bytes,
    query: Option<&str>,
) -> Answer {
    let consistency = Params::parse(query, &["consistency"])?.consistency()?;
    match asker.query(&Query::Get { key }, consistency).await? {
        kv::Response::Value(Some(found)) => {
            let room = bodies.room_to_answer(found.value.len())?;
            let mut response = Response::new(Body::full(room.hold(found.value)));
            let headers = response.headers_mut();
            headers.insert(ETAG, etag(found.revision));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            Ok(response)
        }
        kv::Response::Value(None) => Err(not_found()),
        other => Err(unexpected(&other)),
    }
}

/// `PUT` of a key.
pub(super) async fn put(
    asker: &Asker<'_>,
    key: Bytes,
    headers: &HeaderMap,
    value: Bytes,
) -> Answer {
    checked_value(&value)?;
    let command = match guard(headers)? {
        None => Command::Put { key, value },
        Some(guard) => Command::Guarded { key, guard, value: Some(value) },
    };
    match asker.command(session(headers)?, &command).await? {
        kv::Response::Written { revision } => {
            let mut response = no_content();
            response.headers_mut().insert(ETAG, etag(revision));
            Ok(response)
        }
        kv::Response::Conflict { revision } => Err(ApiError::conflict(revision)),
        other => Err(unexpected(&other)),
    }
}

/// `DELETE` of a key.
pub(super) async fn delete(asker: &Asker<'_>, key: Bytes, headers: &HeaderMap) -> Answer {
    let command = match guard(headers)? {
        None => Command::Delete { key },
        Some(guard) => Command::Guarded { key, guard, value: None },
    };
    match asker.command(session(headers)?, &command).await? {
        kv::Response::Deleted { existed: true } => Ok(no_content()),
        kv::Response::Deleted { existed: false } => Err(not_found()),
        kv::Response::Conflict { revision } => Err(ApiError::conflict(revision)),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn not_found() -> ApiError {
    ApiError::new(Code::KeyNotFound, "the key is absent: create it with PUT")
}

/// A value of permitted length.
pub(super) fn checked_value(value: &[u8]) -> Result<(), ApiError> {
    if value.len() <= MAX_VALUE {
        return Ok(());
    }
    let len = value.len();
    let message = format!("the value has {len} bytes, the limit is {MAX_VALUE}: split it");
    Err(ApiError::new(Code::TooLarge, message))
}

/// A revision as an entity tag.
pub(super) fn etag(revision: LogIndex) -> HeaderValue {
    // `"` + at most 20 digits + `"`, without a detour through a string.
    let mut text = [b'"'; 22];
    let mut at = text.len() - 1;
    let mut rest = revision;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[at - 1..]).expect("digits in quotes")
}

/// What must hold of the key, by `If-Match` or `If-None-Match`.
fn guard(headers: &HeaderMap) -> Result<Option<Guard>, ApiError> {
    let invalid = |message: &'static str| ApiError::new(Code::InvalidHeader, message);
    let one = |name| -> Result<Option<&[u8]>, ApiError> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(HeaderValue::as_bytes)),
            _ => Err(invalid("a condition is there twice: give it once")),
        }
    };
    match (one(IF_MATCH)?, one(IF_NONE_MATCH)?) {
        (None, None) => Ok(None),
        (Some(b"*"), None) => Ok(Some(Guard::Present)),
        (Some(tag), None) => match revision(tag) {
            Some(revision) => Ok(Some(Guard::Revision(revision))),
            None => Err(invalid(
                "If-Match cannot be read: use `*` or one ETag with its quotes, `\"5\"`",
            )),
        },
        (None, Some(b"*")) => Ok(Some(Guard::Absent)),
        (None, Some(_)) => {
            Err(invalid("If-None-Match may only be `*`: use If-Match for a revision"))
        }
        (Some(_), Some(_)) => {
            Err(invalid("If-Match and If-None-Match exclude each other: use one"))
        }
    }
}

fn revision(tag: &[u8]) -> Option<LogIndex> {
    let digits = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    number(std::str::from_utf8(digits).ok()?)
}

/// A decimal number in its one spelling.
pub(super) fn number(text: &str) -> Option<u64> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The session and the number of a command, if it has an idempotency key.
pub(super) fn session(headers: &HeaderMap) -> Result<Option<(SessionId, u64)>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.split_once('-'));
    let parsed = parsed.and_then(|(session, sequence)| Some((number(session)?, number(sequence)?)));
    match parsed {
        Some((session, sequence)) if sequence > 0 && values.next().is_none() => {
            Ok(Some((SessionId(session), sequence)))
        }
        _ => Err(ApiError::new(
            Code::InvalidHeader,
            "the Idempotency-Key is not `<session>-<sequence>`, two decimal numbers: get a session \
             with POST /v1/sessions, and count its commands from 1",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_quoted_revisions() {
        for index in [0, 7, 10, 12_345, u64::MAX] {
            let tag = etag(index);
            assert_eq!(tag, format!("\"{index}\"").as_str());
            assert_eq!(revision(tag.as_bytes()), Some(index));
        }
        for other in ["5", "W/\"5\"", "\"\"", "\"05\"", "\"+5\"", "\"5\", \"6\"", "\"x\""] {
            assert_eq!(revision(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_idempotency_key_is_two_numbers() {
        let parse = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(value));
            session(&headers)
        };
        assert_eq!(parse("12-1"), Ok(Some((SessionId(12), 1))));
        for wrong in ["12", "12-0", "-1", "12-", "12-1-1", "a-1", " 12-1", "99999999999999999999-1"]
        {
            assert_eq!(parse(wrong).unwrap_err().code(), Code::InvalidHeader, "{wrong}");
        }
        assert_eq!(session(&HeaderMap::new()), Ok(None));
    }
}
