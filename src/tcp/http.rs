//! The REST API: the interface of a cluster for its users.
//!
//! Every member serves everything: what only the leader can do is passed on to it. A node has the
//! routes of every node, and those of its service: the key-value store
//! ([`Server::start`](super::Server::start)), or any other machine
//! ([`Server::start_with`](super::Server::start_with)).
//!
//! Every node:
//!
//! | method | path | body, parameters, headers | answer |
//! |---|---|---|---|
//! | POST | `/v1/sessions` | | 201 `{"session"}` |
//! | GET | `/v1/members` | `consistency` | 200 `{"members":[{"id","url","client_url","role","becomes_voter","leader"}],"removed"}` |
//! | POST | `/v1/members` | `{"id","url","learner"}`, `force` | 200 `{"index"}` |
//! | PUT | `/v1/members/{id}` | `{"url"}` | 200 `{"index"}` |
//! | DELETE | `/v1/members/{id}` | `force` | 200 `{"index"}` |
//! | POST | `/v1/members/{id}/promote` | `force` | 200 `{"index"}`; it votes once it has caught up |
//! | POST | `/v1/members/{id}/demote` | `force` | 200 `{"index"}`; it is a learner |
//! | POST | `/v1/leader` | `{"id"}` | 200 `{"leader"}` once it leads |
//! | GET | `/v1/status` | | 200 term, role, indices |
//! | GET | `/v1/backup` | | 200 a snapshot file, streamed |
//! | GET, HEAD | `/health` | | 200 if this node runs |
//! | GET, HEAD | `/ready` | | 200 if it can serve a linearizable read |
//! | GET | `/metrics` | | 200 text 0.0.4 or, if `Accept` says so, OpenMetrics; see [`metrics`](super::metrics) |
//!
//! A machine of your own:
//!
//! | method | path | body, parameters, headers | answer |
//! |---|---|---|---|
//! | POST | `/v1/command` | the command; `Idempotency-Key` | 200 the machine's response, `ETag: "<index>"` |
//! | POST | `/v1/query` | the query; `consistency` | 200 the machine's response, `ETag: "<index>"` |
//!
//! Bodies are the bytes that [`StateMachine`](crate::machine::StateMachine) is given and returns, and
//! may be empty; the `Content-Type` of an answer is `application/octet-stream`. A command is committed
//! and applied when it is answered. The index of a command is its place in the log, or for a repetition
//! some place behind it; the index of a query is the last entry that its answer reflects. A response is
//! status 200 whatever it says: a refusal of the machine is in its own bytes. A command or
//! query has at most [`max_command_bytes`](crate::config::Config::max_command_bytes) (2 MiB and 5 KiB).
//! The key-value store does not have these two: the bytes of its commands are a format of its log, not of
//! its API, and its own routes refuse what the machine would take (the empty key).
//!
//! The key-value store. Its short paths are raftexample's, so that its README works as it stands. A
//! key is any bytes but none, percent-encoded; `+` is a plus:
//!
//! | method | path | body, parameters, headers | answer |
//! |---|---|---|---|
//! | GET, HEAD | `/{key}` | `consistency` | 200 value, `ETag: "<revision>"` |
//! | PUT | `/{key}` | value | 204, `ETag`; it is committed and applied |
//! | POST | `/{id}` | `http://host:port` | 204; the member is added, and votes once it has caught up |
//! | DELETE | `/{id}` | `force` | 204; the member is removed |
//! | GET, HEAD | `/v1/kv/{key}` | `consistency` | 200 value, `ETag` |
//! | PUT | `/v1/kv/{key}` | value; `If-Match`, `If-None-Match: *` | 204, `ETag` |
//! | DELETE | `/v1/kv/{key}` | `If-Match`, `If-None-Match: *` | 204 |
//! | GET | `/v1/kv?prefix=` | `prefix`, `after`, `limit`, `consistency` | 200 `{"entries":[{"key","value","revision"}],"more","next"}` |
//! | POST | `/v1/cas` | `{"key","expected","new"}` | 200 `{"swapped","current"}` |
//! | POST | `/v1/txn` | `{"compare":[{"key","value"}],"then":[{"get":k},{"put":{"key","value"}},{"delete":k}],"else":[..]}` | 200 `{"succeeded","results"}` |
//!
//! - A new voter is a learner until it has caught up: its `role` is `learner` and `becomes_voter` is
//!   true. It need not run when it is added. Removing or demoting it cancels its promotion.
//! - `force=true` makes a change of the members even if no quorum of the voters after it answers
//!   (`quorum_at_risk`): the cluster may stop for ever. Two members never have the same URL.
//! - `client_url` is where clients reach the member, as it has told the node that is asked; null if it
//!   has not yet.
//! - `consistency` is `linearizable`, unless it is `stale`: whatever this member has applied.
//! - A field that holds bytes which are not UTF-8 stands under its name with `_base64` behind it; in
//!   a list it is `{"base64":".."}`. Requests may use these, too. `next` is percent-encoded, ready
//!   to be the next page's `after`.
//! - A command (`/v1/command`, PUT and DELETE of a key, cas, txn) takes effect once, however often it is
//!   sent, with `Idempotency-Key: <session>-<sequence>`: the sequence counts from 1, one command at a
//!   time, and a repetition gets the first answer, or `answer_not_kept` if that was longer than 1 KiB.
//!   Another command with the same key is refused: `idempotency_key_reused`.
//! - A refused attempt had no effect, so the server repeats it by itself until 5 s are over. It also
//!   repeats an attempt whose outcome is unknown, if that is a read or has an `Idempotency-Key`. So the
//!   loss of a leader shows as a delay, except for a command without a key that was on its way to it:
//!   that is `outcome_unknown` at once, and the message says that the leader was lost.
//! - Without tokens and client certificates, requests of web pages are refused, see `origin.rs`.
//!
//! An error is `{"code","message"}`, and says what happened, to what, and what to do:
//!
//! | status | codes | |
//! |---|---|---|
//! | 400 | `invalid_key`, `invalid_query`, `invalid_header`, `invalid_body`, `invalid_command`, `invalid_node_id`, `invalid_url` | mend the request |
//! | 401 | `unauthorized` | send a valid token |
//! | 403 | `forbidden` | use a token with the role that is named; without tokens, no web page |
//! | 404 | `key_not_found`, `not_found`, `member_not_found` | |
//! | 405 | `method_not_allowed` | see `Allow` |
//! | 408 | `timeout` | send the body faster |
//! | 409 | `sequence_out_of_order`, `reconfiguration_pending`, `invalid_membership_change` | nothing was done |
//! | 409 | `quorum_at_risk` | nothing was done; start the missing members, or remove the lost ones first |
//! | 410 | `session_expired` | earlier attempts may have had an effect |
//! | 412 | `precondition_failed` | `revision` is the present one, or null |
//! | 413 | `too_large` | |
//! | 422 | `idempotency_key_reused` | this command was not applied; count the sequence number up |
//! | 429 | `busy` | nothing was done; try again later |
//! | 503 | `no_leader`, `leader_transferring`, `stopping`, `superseded` | nothing was done; try again |
//! | 503 | `too_many_connections` | nothing was done; close connections that are not used, or try again later |
//! | 504 | `outcome_unknown` | it may have been applied, or may be yet |
//! | 504 | `answer_not_kept` | it was applied, once; its answer was too large to be kept: read |
//! | 507 | `disk_full` | nothing was done; delete keys, or make room on the disk of the member that is named |
//!
//! Connections are limited. When all are in use, a new one takes the place of one that has had no request
//! under way for a second. If there is none, a new connection gets one answer: `/health`, `/ready`,
//! `/v1/status` and `/metrics` as ever, anything else `too_many_connections`. No address keeps more
//! than half of all connections at rest.
//!
//! What is not HTTP at all, or has a head beyond the limit, is answered by hyper with a bare 400 or
//! 431.
//!
//! Paths overlap (in the key-value store any path that is not reserved is a key, and may be no UTF-8),
//! so they are matched by functions, see `routes.rs`, rather than by a router that must know each
//! exception; and requests to the service, which are nearly all, pay for no layers.
//!
//! Left out: HTTP/2, watches, several keys in one URL, content codings, CORS.

mod accept;
mod answer;
mod ask;
mod backup;
mod body;
mod cluster;
mod error;
pub(crate) mod json;
mod kv;
mod machine;
mod origin;
mod params;
mod routes;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub(crate) use self::cluster::role;
pub use self::error::Code;
pub(crate) use self::kv::KvRoutes;
pub use self::kv::{KeyError, parse_key};
pub(crate) use self::machine::MachineRoutes;
pub use self::params::{percent_decode, percent_encode};
pub(crate) use self::routes::Routes;
pub use self::tokens::{Role, Tokens};

use self::accept::Server;
use self::body::Bodies;
use self::origin::Doorman;
use self::routes::entries;
use self::service::{Service, now};
use super::handle::Handle;
use super::metrics::Metrics;
use crate::types::NodeId;

/// Backups at the same time: each holds on to a version of the whole state.
const MAX_BACKUPS: usize = 2;

/// Gives the present TLS configuration; asked for each connection, so that certificates can change.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// Says where clients reach a member, if that is known.
pub type ClientUrls = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// Adds the metrics of another part of the host.
pub type Register = Box<dyn FnOnce(&mut Registry) + Send>;

/// What bounds the work that clients can cause.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time. When all are in use, a new one displaces one that has had no
    /// request under way for a second; if there is none, it is a surplus connection.
    pub connections: usize,
    /// Surplus connections at the same time, beside the others. They get one answer each, and only
    /// about the state of the node (`/health`, `/ready`, `/v1/status`, `/metrics`); everything else
    /// is answered 503. More wait.
    pub surplus: usize,
    /// For all of a surplus connection.
    pub surplus_time: Duration,
    /// Connections of one address that rest between two requests; of more, those that have rested
    /// longest are closed. 0 stands for half of `connections`.
    pub idle_per_address: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a body in JSON with two values of the largest size: in base64, or as text whose
    /// characters are all escaped.
    pub values: usize,
    /// Bytes that all bodies of more than 64 KiB together may have, those of requests until they are
    /// dealt with, and those of responses until they are sent.
    pub bodies: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head to its last, or from connecting to the first head.
    pub header: Duration,
    /// For a body.
    pub body_time: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For a client that takes no byte of its answer; and for the whole answer, beside the time
    /// that its bytes take at `rate`.
    pub sending: Duration,
    /// Bytes per second at which a client takes a long answer, at least.
    pub rate: u64,
    /// For one request with all its attempts. The first attempt is not cut off, but lasts up to the
    /// node's [`request_ticks`](crate::config::Config::request_ticks).
    pub request: Duration,
    /// For the read that `/ready` makes.
    pub ready: Duration,
    /// For requests in flight at shutdown.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,
            surplus: 32,
            surplus_time: Duration::from_secs(5),
            idle_per_address: 0,
            head: 32 << 10,
            body: 3 << 19,
            values: 16 << 20,
            bodies: 256 << 20,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            sending: Duration::from_secs(30),
            rate: 256 << 10,
            request: Duration::from_secs(5),
            ready: Duration::from_secs(2),
            grace: Duration::from_secs(10),
        }
    }
}

/// How to serve.
#[derive(Default)]
pub struct HttpOptions {
    /// Speak TLS.
    pub tls: Option<TlsSource>,
    /// Demand tokens. Without, everybody may do everything, but for web pages.
    pub tokens: Option<Arc<Tokens>>,
    /// Only clients with a certificate get through `tls`, so web pages are no danger.
    pub client_certificates: bool,
    /// Names by which clients may call this server, besides IP addresses and `localhost`. Only
    /// matters without tokens and client certificates: see `origin.rs`.
    pub hosts: Vec<String>,
    /// Where clients reach the members.
    pub client_urls: Option<ClientUrls>,
    /// What addresses of members must look like.
    pub peers: PeerRules,
    /// The limits.
    pub limits: Limits,
    /// Metrics of other parts, for `/metrics`.
    pub register: Vec<Register>,
}

/// How the members of the cluster talk to each other. No member gets an address that the others
/// would never dial. By default it is plaintext within this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRules {
    /// They use TLS.
    pub tls: bool,
    /// They may use plaintext between machines.
    pub allow_plaintext: bool,
}

/// Serves the API of the key-value store until `shutdown` is ready; then accepts no more, lets the requests in flight
/// finish, for a bounded time, and returns.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    options: HttpOptions,
    shutdown: impl Future<Output = ()>,
) {
    serve_routes::<KvRoutes>(listener, handle, options, shutdown).await;
}

/// The same with the API of another service.
pub(crate) async fn serve_routes<R: Routes>(
    listener: TcpListener,
    handle: Handle,
    mut options: HttpOptions,
    shutdown: impl Future<Output = ()>,
) {
    server::<R>(handle, &mut options).run(listener, shutdown).await;
}

fn server<R: Routes>(handle: Handle, options: &mut HttpOptions) -> Server<R> {
    let templates = entries::<R>().map(|entry| entry.template).collect();
    let mut metrics = Metrics::new(handle.clone(), templates);
    for register in options.register.drain(..) {
        register(metrics.registry());
    }
    let limits = &options.limits;
    let is_open = options.tokens.is_none() && !options.client_certificates;
    let service = Service {
        routes: R::new(limits),
        handle,
        patience: limits.request,
        doorman: is_open.then(|| Doorman::new(options.hosts.clone())),
        client_urls: options.client_urls.clone(),
        peers: options.peers,
        bodies: Bodies::new(limits.body, limits.body_time, limits.bodies),
        tokens: options.tokens.clone(),
        metrics,
        backups: Arc::new(Semaphore::new(MAX_BACKUPS)),
        ready_patience: limits.ready,
        began: now(),
        stopping: AtomicBool::new(false),
    };
    Server::new(Arc::new(service), options)
}
