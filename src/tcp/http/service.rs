//! From a request to a response: find the route, check the token, dispatch, count.
//!
//! Requests to the service go straight through. All others are dispatched behind a box, so that the
//! future that every request pays for stays small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, Version};
use tokio::sync::Semaphore;

use super::answer::Answer;
use super::ask::Asker;
use super::body::{Arrived, Bodies, Body};
use super::error::{ApiError, Code};
use super::origin::Doorman;
use super::params::Params;
use super::routes::{Access, Call, NodeRoute, Route, Routes};
use super::tokens::Tokens;
use super::watch::Watched;
use super::{ClientUrls, PeerRules, backup, cluster, session};
use crate::tcp::handle::Handle;
use crate::tcp::metrics::{Format, Metrics};

/// What all connections share.
pub(super) struct Service<R> {
    pub routes: R,
    pub handle: Handle,
    /// For one request, see [`Limits::request`](super::Limits::request).
    pub patience: Duration,
    pub bodies: Bodies,
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

impl<R: Routes> Service<R> {
    /// Answers a request. Never fails: an error is an answer too.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Watched>,
    ) -> Response<Body> {
        let began = now();
        let _in_flight = self.metrics.begin();
        let (parts, body) = request.into_parts();
        let (number, answer) = match Route::<R>::find(parts.uri.path()) {
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

    async fn answer<'a>(
        &'a self,
        route: Route<'a, R>,
        parts: &'a Parts,
        body: Incoming,
        asker: Asker<'a>,
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
        let call = Call {
            asker,
            method,
            headers: &parts.headers,
            query: parts.uri.query(),
            body,
            bodies: &self.bodies,
            peers: self.peers,
        };
        match route {
            Route::Service(route) => self.routes.answer(route, call).await,
            Route::Node(route) => Box::pin(self.answer_node(route, call, connection)).await,
        }
    }

    async fn answer_node(
        &self,
        route: NodeRoute<'_>,
        call: Call<'_>,
        connection: &Arc<Watched>,
    ) -> Answer {
        let Call { asker, method, headers, query, body, bodies, peers } = call;
        // Those that have other parameters read them themselves.
        let reads_members = matches!(route, NodeRoute::Members) && method == Method::GET;
        let deletes = method == Method::DELETE;
        let forced = match route {
            NodeRoute::Members if reads_members => false,
            NodeRoute::Members | NodeRoute::Promote(_) | NodeRoute::Demote(_) => {
                Params::parse(query, &["force"])?.force()?
            }
            NodeRoute::Member(_) if deletes => Params::parse(query, &["force"])?.force()?,
            _ => {
                Params::parse(query, &[])?;
                false
            }
        };
        let Arrived { bytes: body, memory: _memory, at } = bodies.read(body).await?;
        let asker = &asker.since(at);
        match route {
            NodeRoute::Sessions => session::open(asker).await,
            NodeRoute::Members if reads_members => {
                cluster::members(asker, query, self.client_urls.as_ref()).await
            }
            NodeRoute::Members => cluster::add_member(asker, &body, peers, forced).await,
            NodeRoute::Member(id) if deletes => cluster::remove_member(asker, id, forced).await,
            NodeRoute::Member(id) => cluster::move_member(asker, id, &body, peers).await,
            NodeRoute::Promote(id) => cluster::promote(asker, id, forced).await,
            NodeRoute::Demote(id) => cluster::demote(asker, id, forced).await,
            NodeRoute::Leader => cluster::transfer(asker, &body).await,
            NodeRoute::Status => Ok(cluster::status(asker, self.began.elapsed())),
            NodeRoute::Backup => backup::backup(asker, &self.backups, connection).await,
            NodeRoute::Health => cluster::health(asker),
            NodeRoute::Ready => cluster::ready(asker, self.ready_patience).await,
            NodeRoute::Metrics => Ok(self.scrape(headers)),
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
