//! Keys, one at a time: what most requests are about.
//!
//! Nothing here depends on how many keys or members there are, and nothing is boxed.

use bytes::Bytes;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::super::answer::{Answer, etag, no_content, octets};
use super::super::ask::{Asker, unexpected};
use super::super::body::Bodies;
use super::super::error::{ApiError, Code};
use super::super::params::{Params, number};
use super::super::session::session;
use super::{command, query as ask};
use crate::kv::{Command, Guard, MAX_VALUE, Query, Response};
use crate::types::LogIndex;

/// `GET` and `HEAD` of a key; hyper leaves the body of the latter out.
pub(super) async fn get(
    asker: &Asker<'_>,
    bodies: &Bodies,
    key: Bytes,
    query: Option<&str>,
) -> Answer {
    let consistency = Params::parse(query, &["consistency"])?.consistency()?;
    match ask(asker, &Query::Get { key }, consistency).await? {
        Response::Value(Some(found)) => {
            let room = bodies.room_to_answer(found.value.len())?;
            Ok(octets(room.hold(found.value), found.revision))
        }
        Response::Value(None) => Err(not_found()),
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
    let wanted = match guard(headers)? {
        None => Command::Put { key, value },
        Some(guard) => Command::Guarded { key, guard, value: Some(value) },
    };
    match command(asker, session(headers)?, &wanted).await? {
        Response::Written { revision } => {
            let mut response = no_content();
            response.headers_mut().insert(ETAG, etag(revision));
            Ok(response)
        }
        Response::Conflict { revision } => Err(conflict(revision)),
        other => Err(unexpected(&other)),
    }
}

/// `DELETE` of a key.
pub(super) async fn delete(asker: &Asker<'_>, key: Bytes, headers: &HeaderMap) -> Answer {
    let wanted = match guard(headers)? {
        None => Command::Delete { key },
        Some(guard) => Command::Guarded { key, guard, value: None },
    };
    match command(asker, session(headers)?, &wanted).await? {
        Response::Deleted { existed: true } => Ok(no_content()),
        Response::Deleted { existed: false } => Err(not_found()),
        Response::Conflict { revision } => Err(conflict(revision)),
        other => Err(unexpected(&other)),
    }
}

fn not_found() -> ApiError {
    ApiError::new(Code::KeyNotFound, "the key is absent: create it with PUT")
}

/// A guard that did not hold.
fn conflict(revision: Option<LogIndex>) -> ApiError {
    let message = match revision {
        Some(revision) => format!(
            "the key has revision {revision}, so the condition does not hold and nothing was \
             changed: read it again and decide anew"
        ),
        None => "the key is absent, so the condition does not hold and nothing was changed: \
                 create it with If-None-Match: *"
            .to_owned(),
    };
    ApiError::new(Code::PreconditionFailed, message).and_field("revision", revision.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_is_read_from_its_tag() {
        for index in [0, 7, u64::MAX] {
            assert_eq!(revision(etag(index).as_bytes()), Some(index));
        }
        for other in ["5", "W/\"5\"", "\"\"", "\"05\"", "\"+5\"", "\"5\", \"6\"", "\"x\""] {
            assert_eq!(revision(other.as_bytes()), None, "{other}");
        }
    }
}
