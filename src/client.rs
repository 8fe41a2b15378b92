//! A client of a cluster: finds the leader, retries safely, and says plainly what is not known.
//!
//! ```no_run
//! use stormkv::api::Consistency;
//! use stormkv::client::{Client, ErrorKind};
//!
//! # async fn example() -> Result<(), stormkv::client::Error> {
//! let client = Client::builder([
//!     "http://127.0.0.1:12380",
//!     "http://127.0.0.1:22380",
//!     "http://127.0.0.1:32380",
//! ])
//! .build()?;
//!
//! client.put("greeting", "hello").await?;
//! let found = client.get("greeting", Consistency::Linearizable).await?;
//! assert_eq!(found.expect("it was just put").value, "hello");
//!
//! match client.put("greeting", "good day").await {
//!     Ok(revision) => println!("written with revision {revision}"),
//!     Err(error) if error.kind() == ErrorKind::Unknown => println!("look first: {error}"),
//!     Err(error) => println!("certainly not written: {error}"),
//! }
//!
//! let mut scan = client.scan("greet");
//! while let Some(entry) = scan.next().await? {
//!     println!("{:?} = {:?}", entry.key, entry.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//! - A command (put, delete, compare-and-swap, transaction) that returned `Ok` was committed and
//!   applied, and took effect exactly once, at one point in time between call and return.
//! - A command that was [`Refused`](ErrorKind::Refused) or [`Invalid`](ErrorKind::Invalid) had no
//!   effect and never will.
//! - A command whose outcome is [`Unknown`](ErrorKind::Unknown) took effect once, or will, or
//!   never does. It may take effect *after* the error was returned, so a read that does not see
//!   it yet proves nothing about later.
//! - A command whose error is of the kind [`Applied`](ErrorKind::Applied) took effect exactly once,
//!   like one that returned `Ok`. Its answer was lost on the way and is too large for the cluster to
//!   keep, which happens to compare-and-swaps and transactions that read more than 1 KiB.
//! - A linearizable `get` sees every command that had returned `Ok` before it was called, whichever
//!   client sent it. A stale one may see any older state, and two in a row may go back in time.
//! - A scan is linearizable page by page, but not as a whole: between pages things change. What
//!   must be seen as of one moment belongs into one page or a transaction.
//!
//! Dropping the future of a command leaves its outcome unknown.
//!
//! # How
//! Refused attempts are repeated with growing pauses until the deadline. An attempt without an
//! answer is repeated only if that is safe: reads are, and so are commands, because each carries
//! the number of a session, by which the cluster recognises a second copy. If the cluster has
//! forgotten the session in between (it keeps a bounded number of them), the outcome is unknown.
//! Membership changes and transfers of leadership have no session: they are repeated only while
//! they are refused.
//!
//! Left out: batching, and a cache of what was read.

mod builder;
mod endpoints;
mod engine;
mod error;
mod mismatch;
mod model;
mod scan;
mod sessions;
fn force_parameter(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}

#[cfg(test)]
mod tests;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::Consistency;
use crate::kv::{Guard, MAX_KEY, MAX_TXN, MAX_VALUE, Versioned};
use crate::types::LogIndex;

pub use builder::Builder;
pub use error::{BAD_ANSWER, Error, ErrorKind, TLS_MISMATCH, UNAVAILABLE};
pub use model::{
    Guarded, Member, MemberProgress, Members, Overview, Position, Status, Swap, Txn, TxnResult,
};
pub use scan::Scan;

use engine::{Engine, Repeat, complaint};
use transport::{Answer, Attempt, Outgoing, percent_encoded};

/// Bytes of an error that are read.
const MAX_COMPLAINT: usize = 64 << 10;

/// A client of one cluster. Clones share connections and sessions.
#[derive(Clone)]
pub struct Client {
    engine: Arc<Engine>,
}

impl Client {
    fn new(engine: Engine) -> Client {
        Client { engine: Arc::new(engine) }
    }

    /// The settings of a client that talks to these endpoints, each `http://host:port` or
    /// `https://host:port`. They need not be all members, nor does the leader have to be among
    /// them.
    pub fn builder(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(endpoints.into_iter().map(Into::into).collect())
    }

    /// Reads a key; `None` if it is absent.
    ///
    /// # Errors
    /// Never of the kind [`Unknown`](ErrorKind::Unknown), as for all that only reads.
    pub async fn get(
        &self,
        key: impl AsRef<[u8]>,
        consistency: Consistency,
    ) -> Result<Option<Versioned>, Error> {
        let (query, repeat) = freshness(consistency);
        let path = format!("{}?consistency={query}", key_path(key.as_ref())?);
        let answer = self.engine.send(Outgoing::new(Method::GET, path), repeat).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let revision = needed(answer.revision, "an ETag", repeat)?;
        Ok(Some(Versioned { value: answer.body, revision }))
    }

    /// Sets a key. Returns its new revision.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<LogIndex, Error> {
        let outgoing = Outgoing::new(Method::PUT, key_path(key.as_ref())?);
        let outgoing = outgoing.body(checked_value(value.into())?);
        let answer = self.engine.send(outgoing, Repeat::Command).await?;
        needed(answer.revision, "an ETag", Repeat::Command)
    }

    /// Removes a key. Returns whether it was there.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let outgoing = Outgoing::new(Method::DELETE, key_path(key.as_ref())?);
        let answer = self.engine.send(outgoing, Repeat::Command).await?;
        Ok(answer.status != StatusCode::NOT_FOUND)
    }

    /// Sets a key to `new` (`None` removes it) if it has the value `expected` (`None`: is absent).
    ///
    /// # Errors
    /// See [`ErrorKind`]. That the value is another one is no error.
    pub async fn cas(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<Swap, Error> {
        let key = checked_key(key.as_ref())?;
        let new = new.map(checked_value).transpose()?;
        let body = model::cas_body(key, expected.as_deref(), new.as_deref());
        let outgoing = Outgoing::new(Method::POST, "/v1/cas").json(&body);
        self.send(outgoing, Repeat::Command, model::swap).await
    }

    /// Sets a key if the guard holds.
    ///
    /// # Errors
    /// See [`ErrorKind`]. That the guard does not hold is no error.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        guard: Guard,
        value: impl Into<Bytes>,
    ) -> Result<Guarded, Error> {
        let outgoing = Outgoing::new(Method::PUT, key_path(key.as_ref())?);
        let outgoing = guarded(outgoing.body(checked_value(value.into())?), guard);
        let answer = self.engine.send(outgoing, Repeat::Command).await?;
        if answer.status == StatusCode::PRECONDITION_FAILED {
            return understood(&answer, Repeat::Command, model::conflict);
        }
        let revision = needed(answer.revision, "an ETag", Repeat::Command)?;
        Ok(Guarded::Done { revision: Some(revision) })
    }

    /// Removes a key if the guard holds.
    ///
    /// # Errors
    /// See [`ErrorKind`]. That the guard does not hold is no error.
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, guard: Guard) -> Result<Guarded, Error> {
        let outgoing = guarded(Outgoing::new(Method::DELETE, key_path(key.as_ref())?), guard);
        let answer = self.engine.send(outgoing, Repeat::Command).await?;
        if answer.status == StatusCode::PRECONDITION_FAILED {
            return understood(&answer, Repeat::Command, model::conflict);
        }
        Ok(Guarded::Done { revision: None })
    }

    /// Reads the keys that start with `prefix` (empty: all keys), in order.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.clone(), prefix.as_ref())
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// See [`ErrorKind`]. That a compare does not hold is no error.
    pub async fn txn(&self, txn: &Txn) -> Result<TxnResult, Error> {
        let parts = txn.compare.len() + txn.then.len() + txn.otherwise.len();
        if parts > MAX_TXN {
            let message = format!("a transaction of {parts} parts: at most {MAX_TXN} are allowed");
            return Err(Error::invalid("invalid_transaction", message));
        }
        let outgoing = Outgoing::new(Method::POST, "/v1/txn").json(&model::txn_body(txn));
        self.send(outgoing, Repeat::Command, model::txn_result).await
    }

    /// Who belongs to the cluster.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn members(&self) -> Result<Members, Error> {
        let outgoing = Outgoing::new(Method::GET, "/v1/members");
        self.send(outgoing, Repeat::Read, from_json).await
    }

    /// Adds a member, which the others reach at `url`. A learner receives the log and does not
    /// vote.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn add_member(&self, id: u64, url: &str, learner: bool) -> Result<(), Error> {
        let body = json!({ "id": id, "url": url, "learner": learner });
        self.change(Outgoing::new(Method::POST, "/v1/members").json(&body)).await
    }

    /// Removes a member for ever: its id is never accepted again. `force`: even if no quorum of the voters
    /// that stay answers, which may stop the cluster for ever.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn remove_member(&self, id: u64, force: bool) -> Result<(), Error> {
        let target = format!("/v1/members/{id}{}", force_parameter(force));
        self.change(Outgoing::new(Method::DELETE, target)).await
    }

    /// Makes a learner a voter. `force` as in [`remove_member`](Self::remove_member).
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn promote_member(&self, id: u64, force: bool) -> Result<(), Error> {
        let target = format!("/v1/members/{id}/promote{}", force_parameter(force));
        self.change(Outgoing::new(Method::POST, target)).await
    }

    /// Makes a voter a learner. `force` as in [`remove_member`](Self::remove_member).
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn demote_member(&self, id: u64, force: bool) -> Result<(), Error> {
        let target = format!("/v1/members/{id}/demote{}", force_parameter(force));
        self.change(Outgoing::new(Method::POST, target)).await
    }

    /// Changes where the others reach a member.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn move_member(&self, id: u64, url: &str) -> Result<(), Error> {
        let outgoing = Outgoing::new(Method::PUT, format!("/v1/members/{id}"));
        self.change(outgoing.json(&json!({ "url": url }))).await
    }

    /// Hands leadership to a member. Returns once it leads.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn transfer(&self, id: u64) -> Result<(), Error> {
        let body = json!({ "id": id });
        self.change(Outgoing::new(Method::POST, "/v1/leader").json(&body)).await
    }

    async fn change(&self, outgoing: Outgoing) -> Result<(), Error> {
        self.engine.send(outgoing, Repeat::Never).await.map(|_| ())
    }

    /// What each endpoint says about its node, in the order of the endpoints.
    pub async fn status(&self) -> Vec<(String, Result<Status, Error>)> {
        self.statuses(self.engine.endpoints.all().to_vec()).await
    }

    /// What the nodes at these addresses say about themselves, in the same order.
    async fn statuses(&self, addresses: Vec<String>) -> Vec<(String, Result<Status, Error>)> {
        let mut questions = JoinSet::new();
        for (number, address) in addresses.into_iter().enumerate() {
            let engine = self.engine.clone();
            questions.spawn(async move {
                let outgoing = Outgoing::new(Method::GET, "/v1/status");
                let status = engine.ask_at(&address, outgoing).await;
                let status = status.and_then(|answer| understood(&answer, Repeat::Read, from_json));
                (number, address, status)
            });
        }
        let mut answers = questions.join_all().await;
        answers.sort_by_key(|&(number, _, _)| number);
        answers.into_iter().map(|(_, address, status)| (address, status)).collect()
    }

    /// Returns what the endpoints say about their nodes, the members as the most advanced of these
    /// nodes knows them, and what those say that are at none of the endpoints. Waits for three seconds
    /// at most, whatever the nodes do.
    ///
    /// A member that says where it serves clients is asked there only if that is secured as the
    /// endpoints are: a token must not leave a machine in the clear because a node says so.
    pub async fn overview(&self) -> Overview {
        let mut endpoints = self.status().await;
        let known = endpoints.iter().enumerate();
        let known = known.filter_map(|(number, (_, status))| Some((number, status.as_ref().ok()?)));
        let best = known.max_by_key(|(_, status)| status.applied.index);
        let Some((number, _)) = best else { return Overview { endpoints, members: Vec::new() } };
        let outgoing = Outgoing::new(Method::GET, "/v1/members?consistency=stale");
        let answer = self.engine.send_to(number, outgoing).await;
        let read =
            answer.and_then(|answer| understood(&answer, Repeat::Read, from_json::<Members>));
        let members = read.map(|members| members.members).unwrap_or_default();

        let is_tls = endpoints.iter().all(|(endpoint, _)| endpoint.starts_with("https:"));
        let seen = |member: &Member| {
            let is_it = |status: &Status| status.id == member.id;
            endpoints.iter().any(|(endpoint, status)| {
                status.as_ref().is_ok_and(is_it) || member.client_url.as_ref() == Some(endpoint)
            })
        };
        let elsewhere = members.iter().filter(|member| !seen(member));
        let urls = elsewhere.filter_map(|member| member.client_url.clone());
        let urls = urls.filter(|url| !is_tls || url.starts_with("https:"));
        endpoints.append(&mut self.statuses(urls.collect()).await);
        Overview { endpoints, members }
    }

    /// Writes a snapshot of the whole state, which holds all that was acknowledged before this
    /// call. Returns its length in bytes. Tries once: what was written before an error is no
    /// backup.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn backup(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Error> {
        let refused = |code, message: String| Error::new(ErrorKind::Refused, code, message);
        let endpoint = &self.engine.endpoints.all()[self.engine.endpoints.best(None).await];
        let outgoing = Outgoing::new(Method::GET, "/v1/backup");
        let opening = self.engine.transport.open(endpoint, &outgoing);
        let response = match timeout(self.engine.deadline, opening).await {
            Ok(Ok(response)) => response,
            Ok(Err(Attempt::NotSent(reason) | Attempt::Lost(reason))) => {
                return Err(refused(UNAVAILABLE, reason));
            }
            Ok(Err(Attempt::Mismatched(reason))) => return Err(refused(TLS_MISMATCH, reason)),
            Ok(Err(Attempt::Answered(_))) | Err(_) => {
                return Err(refused(UNAVAILABLE, format!("{endpoint} did not begin a backup")));
            }
        };
        if !response.status().is_success() {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_COMPLAINT).collect().await;
            let why = body.ok().and_then(|body| complaint(&body.to_bytes()));
            let why = why.unwrap_or_else(|| "it did not say why".to_owned());
            let message = format!("{endpoint} answered {status} to a backup: {why}");
            return Err(refused("backup_refused", message));
        }
        let mut body = response.into_body();
        let mut written = 0;
        loop {
            let Ok(frame) = timeout(self.engine.deadline, body.frame()).await else {
                return Err(refused(UNAVAILABLE, format!("{endpoint} fell silent in a backup")));
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                refused(UNAVAILABLE, format!("the backup from {endpoint} broke off: {error}"))
            })?;
            if let Ok(data) = frame.into_data() {
                written += data.len() as u64;
                let done = writer.write_all(&data).await;
                done.map_err(|error| refused("write_failed", error.to_string()))?;
            }
        }
        let done = writer.flush().await;
        done.map_err(|error| refused("write_failed", error.to_string()))?;
        Ok(written)
    }

    /// Asks all endpoints who leads; `None` if none of them does.
    pub async fn find_leader(&self) -> Option<String> {
        let found = self.engine.endpoints.find_leader(None).await;
        found.map(|number| self.engine.endpoints.all()[number].clone())
    }

    /// How connections to `https` endpoints are secured, for who makes connections of his own.
    #[must_use]
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        self.engine.tls.clone()
    }

    async fn send<T>(
        &self,
        outgoing: Outgoing,
        repeat: Repeat,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Error> {
        let answer = self.engine.send(outgoing, repeat).await?;
        understood(&answer, repeat, read)
    }
}

/// What an answer says. If that is nothing, then what is known about the request's effect.
fn understood<T>(
    answer: &Answer,
    repeat: Repeat,
    read: fn(&[u8]) -> Result<T, String>,
) -> Result<T, Error> {
    read(&answer.body).map_err(|reason| {
        Error::new(effect(repeat), BAD_ANSWER, format!("the answer makes no sense: {reason}"))
    })
}

fn needed<T>(found: Option<T>, what: &str, repeat: Repeat) -> Result<T, Error> {
    found.ok_or_else(|| {
        Error::new(effect(repeat), BAD_ANSWER, format!("the answer makes no sense without {what}"))
    })
}

/// What is known about the effect of a request after an answer that makes no sense.
fn effect(repeat: Repeat) -> ErrorKind {
    match repeat {
        Repeat::Read | Repeat::ReadAnywhere => ErrorKind::Refused,
        Repeat::Command | Repeat::Never => ErrorKind::Unknown,
    }
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn freshness(consistency: Consistency) -> (&'static str, Repeat) {
    match consistency {
        Consistency::Linearizable => ("linearizable", Repeat::Read),
        Consistency::Stale => ("stale", Repeat::ReadAnywhere),
    }
}

fn guarded(outgoing: Outgoing, guard: Guard) -> Outgoing {
    let any = HeaderValue::from_static("*");
    match guard {
        Guard::Absent => outgoing.header(IF_NONE_MATCH, any),
        Guard::Present => outgoing.header(IF_MATCH, any),
        Guard::Revision(revision) => {
            let etag = HeaderValue::try_from(format!("\"{revision}\""));
            outgoing.header(IF_MATCH, etag.expect("digits and quotes may stand in a header"))
        }
    }
}

fn key_path(key: &[u8]) -> Result<String, Error> {
    Ok(format!("/v1/kv/{}", percent_encoded(checked_key(key)?)))
}

fn checked_key(key: &[u8]) -> Result<&[u8], Error> {
    if key.is_empty() || key.len() > MAX_KEY {
        let message = format!("a key of {} bytes: it must have 1 to {MAX_KEY}", key.len());
        return Err(Error::invalid("invalid_key", message));
    }
    Ok(key)
}

fn checked_value(value: Bytes) -> Result<Bytes, Error> {
    if value.len() > MAX_VALUE {
        let message = format!("a value of {} bytes: at most {MAX_VALUE} are allowed", value.len());
        return Err(Error::invalid("too_large", message));
    }
    Ok(value)
}
