//! Answers that several routes give.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::error::ApiError;
use crate::types::LogIndex;

/// The answer of a route.
pub(crate) type Answer = Result<Response<Body>, ApiError>;

/// Status 204.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Status 200 with bytes of any kind, and an index of the log as their entity tag.
pub(super) fn octets(bytes: Bytes, index: LogIndex) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    let headers = response.headers_mut();
    headers.insert(ETAG, etag(index));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// An index of the log as an entity tag: `"5"`.
pub(super) fn etag(index: LogIndex) -> HeaderValue {
    // `"` + at most 20 digits + `"`, without a detour through a string.
    let mut text = [b'"'; 22];
    let mut at = text.len() - 1;
    let mut rest = index;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_is_a_quoted_index() {
        for index in [0, 7, 10, 12_345, u64::MAX] {
            assert_eq!(etag(index), format!("\"{index}\"").as_str());
        }
    }
}
