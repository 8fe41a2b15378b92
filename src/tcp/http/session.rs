//! Sessions: a command with a number in one takes effect once, however often it is sent.

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use serde_json::json;

use super::answer::Answer;
use super::ask::Asker;
use super::error::{ApiError, Code};
use super::json;
use super::params::number;
use crate::types::SessionId;

/// The header with the session and the number of a command: `<session>-<sequence>`.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /v1/sessions`.
pub(super) async fn open(asker: &Asker<'_>) -> Answer {
    let session = asker.open_session().await?;
    let mut response = json::answer(&json!({ "session": session.0 }));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
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
    use hyper::header::HeaderValue;

    use super::*;

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
