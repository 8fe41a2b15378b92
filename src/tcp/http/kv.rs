//! The routes of the key-value store, beside those that every node has.
//!
//! `/{key}` is raftexample's: any path that is not reserved is a key, and with POST and DELETE a
//! member's id. Requests about one key, which are nearly all, go straight through; the others are
//! dispatched behind a box, so that the future that every request pays for stays small.

mod data;
mod key;
mod keys;

use bytes::Bytes;
use hyper::Method;

pub use self::key::{KeyError, parse_key};

use self::key::parse_short_key;
use super::Limits;
use super::answer::{Answer, no_content};
use super::ask::Asker;
use super::body::Arrived;
use super::cluster;
use super::error::{ApiError, Code};
use super::params::Params;
use super::routes::Access::{Admin, Client};
use super::routes::{Call, DELETE, Entry, GET, HEAD, POST, PUT, Routes};
use crate::api::Consistency;
use crate::kv::{Command, Query, Response};
use crate::types::{NodeId, SessionId};

/// A path of the key-value store, with its variable part as it came, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// `/{key}`, or with POST and DELETE `/{id}`: what raftexample has.
    Short(&'p str),
    Key(&'p str),
    Scan,
    Cas,
    Txn,
}

/// The API of the key-value store.
pub(crate) struct KvRoutes {
    /// Limit of a body with several values in JSON, in bytes.
    max_values: usize,
}

impl Routes for KvRoutes {
    type Route<'p> = Route<'p>;

    const ENTRIES: &'static [Entry] = &[
        Entry {
            template: "/{key}",
            methods: &[
                (GET, Client),
                (HEAD, Client),
                (PUT, Client),
                (POST, Admin),
                (DELETE, Admin),
            ],
        },
        Entry {
            template: "/v1/kv/{key}",
            methods: &[(GET, Client), (HEAD, Client), (PUT, Client), (DELETE, Client)],
        },
        Entry { template: "/v1/kv", methods: &[(GET, Client)] },
        Entry { template: "/v1/cas", methods: &[(POST, Client)] },
        Entry { template: "/v1/txn", methods: &[(POST, Client)] },
    ];

    fn new(limits: &Limits) -> KvRoutes {
        KvRoutes { max_values: limits.values }
    }

    fn find(path: &str) -> Option<Route<'_>> {
        // Only `*` (OPTIONS) and the empty path (CONNECT) do not begin with a slash.
        let rest = path.strip_prefix('/')?;
        let Some(versioned) = rest.strip_prefix("v1/") else { return Some(Route::Short(rest)) };
        match versioned {
            "kv" => Some(Route::Scan),
            "cas" => Some(Route::Cas),
            "txn" => Some(Route::Txn),
            _ => versioned.strip_prefix("kv/").map(Route::Key),
        }
    }

    fn number(route: Route<'_>) -> usize {
        match route {
            Route::Short(_) => 0,
            Route::Key(_) => 1,
            Route::Scan => 2,
            Route::Cas => 3,
            Route::Txn => 4,
        }
    }

    async fn answer<'a>(&'a self, route: Route<'a>, call: Call<'a>) -> Answer {
        match route {
            Route::Short(key) if call.reads() => {
                keys::get(&call.asker, call.bodies, parse_short_key(key)?, call.query).await
            }
            Route::Key(key) if call.reads() => {
                keys::get(&call.asker, call.bodies, parse_key(key)?, call.query).await
            }
            Route::Short(key) if call.method == Method::PUT => {
                put(call, parse_short_key(key)?).await
            }
            Route::Key(key) if call.method == Method::PUT => put(call, parse_key(key)?).await,
            route => Box::pin(self.answer_rest(route, call)).await,
        }
    }
}

impl KvRoutes {
    async fn answer_rest(&self, route: Route<'_>, call: Call<'_>) -> Answer {
        let Call { asker, method, headers, query, body, bodies, peers } = call;
        let forced = match route {
            // A scan has parameters of other names, and reads them itself.
            Route::Scan => false,
            Route::Short(_) => Params::parse(query, &["force"])?.force()?,
            Route::Key(_) | Route::Cas | Route::Txn => {
                Params::parse(query, &[])?;
                false
            }
        };
        let read = match route {
            Route::Cas | Route::Txn => bodies.of_size(self.max_values).read(body).await,
            _ => bodies.read(body).await,
        };
        let Arrived { bytes: body, memory: _memory, at } = read?;
        let asker = &asker.since(at);
        match route {
            Route::Short(id) if method == Method::DELETE => {
                cluster::remove(asker, member_id(id)?, forced).await?;
                Ok(no_content())
            }
            Route::Short(id) => {
                cluster::add_voter(asker, member_id(id)?, &body, peers, forced).await?;
                Ok(no_content())
            }
            Route::Key(key) => keys::delete(asker, parse_key(key)?, headers).await,
            Route::Scan => data::scan(asker, bodies, query).await,
            Route::Cas => data::cas(asker, bodies, headers, &body).await,
            Route::Txn => data::txn(asker, bodies, headers, &body).await,
        }
    }
}

async fn put(call: Call<'_>, key: Bytes) -> Answer {
    Params::parse(call.query, &[])?;
    let Arrived { bytes: value, memory: _memory, at } = call.bodies.read(call.body).await?;
    keys::put(&call.asker.since(at), key, call.headers, value).await
}

/// A member's id in one of raftexample's paths, where a key may have been meant.
fn member_id(text: &str) -> Result<NodeId, ApiError> {
    cluster::node_id(text).map_err(|error| {
        error.and_hint("keys are deleted with DELETE /v1/kv/<key>, and set with PUT")
    })
}

/// Asks the node's machine.
async fn query(
    asker: &Asker<'_>,
    query: &Query,
    consistency: Consistency,
) -> Result<Response, ApiError> {
    let (response, _) = asker.query(query.encode(), consistency).await?;
    decoded(&response)
}

/// Has a command applied.
async fn command(
    asker: &Asker<'_>,
    session: Option<(SessionId, u64)>,
    command: &Command,
) -> Result<Response, ApiError> {
    let (response, _) = asker.command(session, command.encode()).await?;
    decoded(&response)
}

fn decoded(response: &[u8]) -> Result<Response, ApiError> {
    match Response::decode(response) {
        Ok(Response::Invalid { reason }) => Err(ApiError::new(Code::InvalidCommand, reason)),
        Ok(response) => Ok(response),
        Err(error) => {
            let message =
                format!("the node's answer cannot be read, what it did is unknown: {error}");
            Err(ApiError::new(Code::OutcomeUnknown, message))
        }
    }
}
