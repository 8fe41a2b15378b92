//! From a request to a response: find the route, check the token, dispatch, count.
//!
//! Requests about one key go straight through. All others are dispatched behind a box, so that the
//! future that every request pays for stays small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, Version};
use tokio::sync::Semaphore;

use super::ask::Asker;
use super::body::{Arrived, Bodies, Body};
use super::error::{ApiError, Code};
use super::key::{Params, parse_key, parse_short_key};
use super::kv::Answer;
use super::origin::Doorman;
use super::routes::{Access, Route};
use super::tokens::Tokens;
use super::watch::Watched;
use super::{ClientUrls, PeerRules, backup, cluster, data, kv};
use crate::tcp::handle::Handle;
use crate::tcp::metrics::{Format, Metrics};

/// What all connections share.
pub(super) struct Service {
    pub handle: Handle,
    /// For one request, see [`Limits::request`](super::Limits::request).
    pub patience: Duration,
    pub bodies: Bodies,
    /// For requests with several values in JSON.
    pub values: Bodies,
    pub tokens: Option<Arc<Tokens>>,
    /// If nothing else keeps web pages out.
    pub doorman: Option<Doorman>,
    pub client_urls: Option<ClientUrls>,
    pub peers: PeerRules,
    pub metrics: Metrics,
    pub backups: Arc<Semaphore>,
    pub ready_patience: Duration,
    pub began: Instant,
    /// No new requests, please.
    pub stopping: AtomicBool,
}

#[allow(clippy::disallowed_methods, reason = "a host knows the time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Demands exactly one `Host`, as HTTP/1.1 does (RFC 9112, 3.2): of two, a proxy in front of this server
/// and the server might believe different ones. HTTP/1.0 has none.
fn check_host(parts: &Parts) -> Result<(), ApiError> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let message = match (hosts.next(), hosts.next()) {
        (Some(_), None) => return Ok(()),
        (None, _) if parts.version < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no `Host` header: send one, as HTTP/1.1 demands",
        (Some(_), Some(_)) => "the request has more than one `Host` header: send exactly one",
    };
    Err(ApiError::new(Code::InvalidHeader, message).and_close())
}

impl Service {
    /// Answers a request. Never fails: an error is an answer too.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Watched>,
    ) -> Response<Body> {
        let began = now();
        let _in_flight = self.metrics.begin();
        let (parts, body) = request.into_parts();
        let (number, answer) = match Route::find(parts.uri.path()) {
            Ok(route) => {
                let asker = Asker { handle: &self.handle, patience: self.patience, began };
                (Some(route.number()), self.answer(route, &parts, body, asker, connection).await)
            }
            Err(error) => (None, Err(error)),
        };
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        if self.stopping.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.answered(number, &parts.method, response.status(), began.elapsed());
        response
    }

    async fn answer(
        &self,
        route: Route<'_>,
        parts: &Parts,
        body: Incoming,
        asker: Asker<'_>,
        connection: &Arc<Watched>,
    ) -> Answer {
        let method = &parts.method;
        check_host(parts)?;
        let access = route.access(method)?;
        if let Some(tokens) = &self.tokens {
            tokens.check(&parts.headers, access)?;
        }
        if let Some(doorman) = &self.doorman
            && access != Access::Open
        {
            doorman.check(&parts.headers)?;
        }
        let reads = method == Method::GET || method == Method::HEAD;
        match route {
            Route::Short(key) if reads => {
                kv::get(&asker, &self.bodies, parse_short_key(key)?, parts.uri.query()).await
            }
            Route::Key(key) if reads => {
                kv::get(&asker, &self.bodies, parse_key(key)?, parts.uri.query()).await
            }
            Route::Short(key) if method == Method::PUT => {
                self.put(asker, parse_short_key(key)?, parts, body).await
            }
            Route::Key(key) if method == Method::PUT => {
                self.put(asker, parse_key(key)?, parts, body).await
            }
            route => Box::pin(self.answer_rest(route, parts, body, asker, connection)).await,
        }
    }

    async fn put(&self, asker: Asker<'_>, key: Bytes, parts: &Parts, body: Incoming) -> Answer {
        Params::parse(parts.uri.query(), &[])?;
        let Arrived { bytes: value, memory: _memory, at } = self.bodies.read(body).await?;
        let asker = Asker { began: at.unwrap_or(asker.began), ..asker };
        kv::put(&asker, key, &parts.headers, value).await
    }

    async fn answer_rest(
        &self,
        route: Route<'_>,
        parts: &Parts,
        body: Incoming,
        asker: Asker<'_>,
        connection: &Arc<Watched>,
    ) -> Answer {
        let (headers, query, peers) = (&parts.headers, parts.uri.query(), self.peers);
        // Those that have parameters look at them themselves.
        let reads_members = matches!(route, Route::Members) && parts.method == Method::GET;
        let forced = match route {
            Route::Scan | Route::Status => false,
            Route::Members if reads_members => false,
            Route::Short(_) | Route::Members | Route::Promote(_) | Route::Demote(_) => {
                Params::parse(query, &["force"])?.force()?
            }
            Route::Member(_) if parts.method == Method::DELETE => {
                Params::parse(query, &["force"])?.force()?
            }
            _ => {
                Params::parse(query, &[])?;
                false
            }
        };
        let bodies = match route {
            Route::Cas | Route::Txn => &self.values,
            _ => &self.bodies,
        };
        let Arrived { bytes: body, memory: _memory, at } = bodies.read(body).await?;
        let asker = &Asker { began: at.unwrap_or(asker.began), ..asker };
        let deletes = parts.method == Method::DELETE;
        match route {
            Route::Short(id) if deletes => cluster::remove_by_path(asker, id, forced).await,
            Route::Short(id) => cluster::add_by_path(asker, id, &body, peers, forced).await,
            Route::Key(key) => kv::delete(asker, parse_key(key)?, headers).await,
            Route::Scan => data::scan(asker, &self.bodies, query).await,
            Route::Cas => data::cas(asker, &self.bodies, headers, &body).await,
            Route::Txn => data::txn(asker, &self.bodies, headers, &body).await,
            Route::Sessions => data::open_session(asker).await,
            Route::Members if reads_members => {
                cluster::members(asker, query, self.client_urls.as_ref()).await
            }
            Route::Members => cluster::add_member(asker, &body, peers, forced).await,
            Route::Member(id) if deletes => cluster::remove_member(asker, id, forced).await,
            Route::Member(id) => cluster::move_member(asker, id, &body, peers).await,
            Route::Promote(id) => cluster::promote(asker, id, forced).await,
            Route::Demote(id) => cluster::demote(asker, id, forced).await,
            Route::Leader => cluster::transfer(asker, &body).await,
            Route::Status => cluster::status(asker, self.began.elapsed(), query),
            Route::Backup => backup::backup(asker, &self.backups, connection).await,
            Route::Health => cluster::health(asker),
            Route::Ready => cluster::ready(asker, self.ready_patience).await,
            Route::Metrics => Ok(self.scrape(headers)),
        }
    }

    fn scrape(&self, headers: &HeaderMap) -> Response<Body> {
        let format = Format::accepted(headers.get(ACCEPT).and_then(|value| value.to_str().ok()));
        let mut response = Response::new(Body::full(self.metrics.encode(format)));
        let content_type = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}
