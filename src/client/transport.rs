//! One attempt: one HTTP request to one endpoint, and whether it can have had an effect.
//!
//! A request that never left (the connection could not be made) is told from one that was lost on
//! the way, because only the second can have had an effect. When in doubt, it was lost.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::mismatch;

/// The longest answer that is read, except for a backup: a page of a scan with 1 MiB of keys and
/// values, each byte of it escaped, fits.
const MAX_ANSWER: usize = 16 << 20;

/// How long a connection is kept for the next request. Shorter than what a node grants.
const KEEP: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

/// A request as it is sent to whichever endpoint, as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Outgoing {
    pub fn new(method: Method, path: impl Into<String>) -> Outgoing {
        Outgoing { method, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub fn body(mut self, body: Bytes) -> Outgoing {
        self.body = body;
        self
    }

    pub fn json(mut self, body: &serde_json::Value) -> Outgoing {
        self.body = body.to_string().into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Outgoing {
        self.headers.push((name, value));
        self
    }
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    /// The revision in the header `ETag`.
    pub revision: Option<u64>,
    pub body: Bytes,
}

/// What became of one attempt.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    Answered(Answer),
    /// No byte of the request was sent.
    NotSent(String),
    /// It was sent, perhaps in part, and no whole answer came.
    Lost(String),
    /// No byte of it was understood, and it will be the same next time: the two ends disagree about
    /// TLS, or one does not accept the other's certificate.
    Mismatched(String),
}

/// The connections to all endpoints.
#[derive(Clone)]
pub(super) struct Transport {
    pool: Pool<Connector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Transport {
    pub fn new(
        tls: &rustls::ClientConfig,
        authorization: Option<HeaderValue>,
        connect_timeout: Duration,
    ) -> Transport {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // One limit for the address, the connection and the handshake together.
        let connector = connector.map_future(move |connecting| async move {
            match timeout(connect_timeout, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("no connection within {connect_timeout:?}").into()),
            }
        });
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP)
            .build(BoxCloneSyncService::new(connector));
        Transport { pool, authorization }
    }

    /// One attempt at an endpoint (`http://host:port`), which takes at most `limit`.
    pub async fn attempt(&self, endpoint: &str, outgoing: &Outgoing, limit: Duration) -> Attempt {
        self.attempt_unless_silent(endpoint, outgoing, limit, limit).await
    }

    /// The same; the head of the answer must come within `silence`.
    pub async fn attempt_unless_silent(
        &self,
        endpoint: &str,
        outgoing: &Outgoing,
        silence: Duration,
        limit: Duration,
    ) -> Attempt {
        match timeout(limit, self.exchange(endpoint, outgoing, silence)).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::Lost(format!("{endpoint} did not answer within {limit:?}")),
        }
    }

    async fn exchange(&self, endpoint: &str, outgoing: &Outgoing, silence: Duration) -> Attempt {
        let response = match timeout(silence, self.open(endpoint, outgoing)).await {
            Ok(Ok(response)) => response,
            Ok(Err(attempt)) => return attempt,
            Err(_) => {
                return Attempt::Lost(format!("{endpoint} did not answer within {silence:?}"));
            }
        };
        let (parts, body) = response.into_parts();
        let revision = parts.headers.get(ETAG).and_then(|etag| revision(etag.as_bytes()));
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                Attempt::Answered(Answer { status: parts.status, revision, body })
            }
            Err(error) => Attempt::Lost(format!("the answer of {endpoint} broke off: {error}")),
        }
    }

    fn request(
        &self,
        endpoint: &str,
        outgoing: &Outgoing,
    ) -> Result<Request<Full<Bytes>>, Attempt> {
        let mut request = Request::builder()
            .method(outgoing.method.clone())
            .uri(format!("{endpoint}{}", outgoing.path));
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .body(Full::new(outgoing.body.clone()))
            .map_err(|error| Attempt::NotSent(format!("{endpoint} is no address: {error}")))
    }

    /// Sends a request and waits for the head of the answer only.
    ///
    /// # Errors
    /// [`Attempt::NotSent`], [`Attempt::Lost`] or [`Attempt::Mismatched`].
    pub async fn open(
        &self,
        endpoint: &str,
        outgoing: &Outgoing,
    ) -> Result<Response<Incoming>, Attempt> {
        let mut opened = 0;
        let error = loop {
            let request = self.request(endpoint, outgoing)?;
            opened += 1;
            match self.pool.request(request).await {
                Ok(response) => return Ok(response),
                // Nothing was sent, because a new connection has ended first. In TLS 1.3 a node
                // refuses a client after the client's last word, so the alert that says why and the
                // request race for the connection. Another one most likely has the alert.
                Err(error) if mismatch::is_canceled(&error) && opened < CONNECTIONS => {}
                Err(error) => break error,
            }
        };
        let reason = format!("{endpoint}: {}", causes(&error));
        if let Some(remedy) = mismatch::explain(&error) {
            return Err(Attempt::Mismatched(format!("{reason}: {remedy}")));
        }
        if error.is_connect() {
            return Err(Attempt::NotSent(reason));
        }
        // What came back was no HTTP, so nothing behind that port has understood the request.
        if mismatch::is_no_http(&error) && mismatch::speaks_tls(endpoint).await {
            let remedy = "this port speaks TLS: write https:// instead of http://";
            return Err(Attempt::Mismatched(format!("{endpoint}: {remedy}")));
        }
        Err(Attempt::Lost(reason))
    }
}

/// The connections that one attempt opens at most.
const CONNECTIONS: u32 = 4;

/// An error and what it stems from, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The revision in an `ETag`: a decimal number in quotes.
fn revision(etag: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(etag).ok()?;
    text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// A key or prefix as part of a path or a query. Dots and slashes are encoded, too, so that nothing
/// on the way tidies up what looks like `/../`.
pub(super) fn percent_encoded(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    text
}
