//! Asking the node, again if need be.
//!
//! A refused attempt certainly had no effect, so it is repeated after a pause until it succeeds or
//! the client's time is up. An attempt whose outcome is unknown may only be repeated if once or
//! twice makes no difference: a query, or a command with its number in a session.
//!
//! The time is counted from before the first attempt, which lasts as long as the node lets it; all
//! others end with the client's time. What is cut off then may still happen.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{timeout, timeout_at};

use super::error::{ApiError, Code};
use crate::api::{Consistency, Reconfigure, Refusal, Reply, Request};
use crate::tcp::handle::Handle;
use crate::types::{LogIndex, NodeId, SessionId};

/// The pauses between attempts grow from the first to the last. What a new leader brings comes soon.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(200);
/// After so long at most a busy cluster is asked again: it is busy with what it has, and all who ask
/// again in vain are more to do for it.
const LAST_BUSY_PAUSE: Duration = Duration::from_secs(1);

/// For an answer before it matters whether another leads by now.
const LEADER_PATIENCE: Duration = Duration::from_millis(500);

/// The node, and how long to bother it for one request.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub handle: &'a Handle,
    pub patience: Duration,
    /// Since when all of the request is there. Known already, so it costs no look at the clock.
    pub began: Instant,
}

#[allow(clippy::disallowed_methods, reason = "a host knows the time")]
fn now() -> Instant {
    Instant::now()
}

/// The pause after the one before.
fn next_pause(pause: Duration, reply: &Reply) -> Duration {
    let busy = matches!(reply, Reply::Refused(Refusal::Busy));
    let last = if busy { LAST_BUSY_PAUSE } else { LAST_PAUSE };
    (pause * 2).min(last)
}

/// Somewhere between half of a pause and all of it: those who were refused together must not come
/// back together.
#[allow(clippy::disallowed_methods, reason = "a host may differ from run to run")]
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// Whether a refusal may be followed by success without anybody changing anything.
fn passes(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::NotLeader(_)
            | Refusal::Busy
            | Refusal::Transferring
            | Refusal::Superseded
            | Refusal::ReconfigurationPending
    )
}

/// Whether carrying it out twice makes no difference to anybody.
fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Query { .. } | Request::Transfer(_) => true,
        Request::Command { session, .. } => session.is_some(),
        // A session that nobody uses is evicted in time.
        Request::OpenSession => true,
        Request::Reconfigure(_) | Request::ForceReconfigure(_) => false,
    }
}

impl Asker<'_> {
    /// The same, for a request whose last byte came at `at`, if it had to be waited for.
    pub fn since(self, at: Option<Instant>) -> Self {
        Asker { began: at.unwrap_or(self.began), ..self }
    }

    /// The node's answer: anything but a refusal or "unknown".
    pub async fn ask(&self, request: Request) -> Result<Reply, ApiError> {
        // Only those that are not answered at once pay for a look at the clock.
        let first = self.attempt(&request).await;
        if !matches!(first, Reply::Refused(_)) && !first.is_unknown() {
            return Ok(first);
        }
        self.again(request, first).await
    }

    /// One attempt. A leader that was cut off answers nothing, and nothing says that it is gone, so a
    /// command that may be repeated waits for it only until another leads.
    async fn attempt(&self, request: &Request) -> Reply {
        let mut attempt = pin!(self.handle.request(request.clone()));
        if !matches!(request, Request::Command { session: Some(_), .. }) {
            return attempt.await;
        }
        let leader = self.handle.view().status.leader;
        // A leader that hands over still answers what it has.
        if let Ok(reply) = timeout(LEADER_PATIENCE, attempt.as_mut()).await {
            return reply;
        }
        tokio::select! {
            reply = attempt => reply,
            () = self.another_leads(leader) => Reply::LeaderLost,
        }
    }

    /// Waits until there is another leader than this.
    async fn another_leads(&self, leader: Option<NodeId>) {
        let is_other = |other: NodeId| Some(other) != leader;
        let mut views = self.handle.watch();
        if views.wait_for(|view| view.status.leader.is_some_and(is_other)).await.is_err() {
            // The node is gone, and the attempt ends for that.
            std::future::pending().await
        }
    }

    async fn again(&self, request: Request, mut reply: Reply) -> Result<Reply, ApiError> {
        let deadline = self.began + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match reply {
                Reply::Refused(refusal) => {
                    let error = ApiError::refused(refusal);
                    if !passes(refusal) {
                        return Err(error);
                    }
                    error
                }
                Reply::Unknown | Reply::LeaderLost => {
                    let error = self.no_answer(&request, &reply);
                    if !is_repeatable(&request) {
                        return Err(error);
                    }
                    error
                }
                reply => return Ok(reply),
            };
            if let Some(stopped) = self.stopped() {
                return Err(match reply.is_unknown() && !is_query(&request) {
                    true => error,
                    false => stopped,
                });
            }
            if now() + pause > deadline {
                return Err(error);
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = next_pause(pause, &reply);
            let uncertain = reply.is_unknown() && !is_query(&request);
            let attempt = self.attempt(&request);
            // Cut off, it has reached the node already, and nobody will know what became of it.
            reply = match timeout_at(deadline.into(), attempt).await.unwrap_or(Reply::Unknown) {
                // The earlier attempt may still have an effect, whatever becomes of this one.
                Reply::Refused(refusal) if uncertain && passes(refusal) => Reply::Unknown,
                // It may have had one even though its session is gone by now, for example.
                Reply::Refused(_) if uncertain => {
                    return Err(outcome_unknown(&request, "an earlier attempt was not answered"));
                }
                reply => reply,
            };
        }
    }

    /// Why the node will not answer any more, if so.
    pub fn stopped(&self) -> Option<ApiError> {
        let view = self.handle.view();
        let reason = match &view.stopped {
            Some(error) => error.to_string(),
            None if self.handle.watch().has_changed().is_err() => "it was told to end".to_owned(),
            None => return None,
        };
        let message = format!("this node has stopped: {reason}; ask another member");
        Some(ApiError::new(Code::Stopping, message))
    }

    /// What to answer to a request whose outcome is not known, and why it is not.
    fn no_answer(&self, request: &Request, reply: &Reply) -> ApiError {
        let why = match reply {
            Reply::LeaderLost => "the leader was lost while the request was on its way",
            _ if self.stopped().is_some() => "this node stopped while the request was on its way",
            _ => "no answer came in time",
        };
        if is_query(request) {
            ApiError::new(Code::NoLeader, format!("{why}; nothing was changed: try again"))
        } else {
            outcome_unknown(request, why)
        }
    }

    /// The machine's answer, and the applied index that it reflects.
    pub async fn query(
        &self,
        query: Bytes,
        consistency: Consistency,
    ) -> Result<(Bytes, LogIndex), ApiError> {
        match self.ask(Request::Query { query, consistency }).await? {
            Reply::Value { index, response } => Ok((response, index)),
            other => Err(unexpected(&other)),
        }
    }

    /// The machine's answer, and an index at which the state reflects the command.
    pub async fn command(
        &self,
        session: Option<(SessionId, u64)>,
        command: Bytes,
    ) -> Result<(Bytes, LogIndex), ApiError> {
        match self.ask(Request::Command { session, command }).await? {
            Reply::Applied { response, index } => Ok((response, index)),
            Reply::NotKept { bytes, .. } => Err(not_kept(bytes)),
            other => Err(unexpected(&other)),
        }
    }

    /// `forced`: even if no quorum of the voters after the change answers.
    pub async fn reconfigure(
        &self,
        change: Reconfigure,
        forced: bool,
    ) -> Result<LogIndex, ApiError> {
        let request = match forced {
            true => Request::ForceReconfigure(change),
            false => Request::Reconfigure(change),
        };
        match self.ask(request).await? {
            Reply::Reconfigured { index } => Ok(index),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn open_session(&self) -> Result<SessionId, ApiError> {
        match self.ask(Request::OpenSession).await? {
            Reply::SessionOpened(session) => Ok(session),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn transfer(&self, to: NodeId) -> Result<(), ApiError> {
        match self.ask(Request::Transfer(to)).await? {
            Reply::Transferring => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until this node reflects all that was acknowledged before. Says up to which index.
    pub async fn barrier(&self) -> Result<LogIndex, ApiError> {
        // The empty query: see `StateMachine::query`.
        let answer = self.query(Bytes::new(), Consistency::Linearizable).await;
        answer.map(|(_, index)| index)
    }
}

fn is_query(request: &Request) -> bool {
    matches!(request, Request::Query { .. } | Request::Transfer(_))
}

fn outcome_unknown(request: &Request, why: &str) -> ApiError {
    let remedy = match request {
        Request::Command { session: Some(_), .. } => {
            "send it again with the same Idempotency-Key, at any member: it is applied once"
        }
        Request::Command { .. } => {
            "read before sending it again, or send commands with an Idempotency-Key"
        }
        Request::Reconfigure(_) | Request::ForceReconfigure(_) => {
            "see GET /v1/members before trying again"
        }
        Request::OpenSession | Request::Query { .. } | Request::Transfer(_) => "try again",
    };
    let message = format!("{why}; it may or may not take effect: {remedy}");
    ApiError::new(Code::OutcomeUnknown, message)
}

/// The command took effect, but what it answered is not known any more.
fn not_kept(bytes: u64) -> ApiError {
    let message = format!(
        "the command was applied, and it was applied once, but its answer of {bytes} bytes was too \
         large to be kept: read to see the state, and do not send it again"
    );
    ApiError::new(Code::AnswerNotKept, message)
}

/// The node answered another question. That is a bug, and the client must not guess.
pub(super) fn unexpected(what: &impl std::fmt::Debug) -> ApiError {
    tracing::error!(?what, "an answer that does not fit its request");
    let message = "the node's answer does not fit the request, what it did is unknown: \
                   see its log and read before trying again";
    ApiError::new(Code::OutcomeUnknown, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of a request that is answered like this again and again.
    fn pauses(reply: &Reply) -> Vec<u128> {
        let next = |pause: &Duration| Some(next_pause(*pause, reply));
        std::iter::successors(Some(FIRST_PAUSE), next).take(9).map(|p| p.as_millis()).collect()
    }

    #[test]
    fn a_busy_cluster_is_left_alone_for_longer() {
        let busy = pauses(&Reply::Refused(Refusal::Busy));
        assert_eq!(busy, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        let unled = pauses(&Reply::Refused(Refusal::NotLeader(None)));
        assert_eq!(unled, [10, 20, 40, 80, 160, 200, 200, 200, 200]);
        assert_eq!(next_pause(LAST_BUSY_PAUSE, &Reply::Unknown), LAST_PAUSE);
    }

    #[test]
    fn a_pause_is_at_least_half_of_itself() {
        let pause = Duration::from_millis(100);
        let drawn: Vec<Duration> = (0..1000).map(|_| jittered(pause)).collect();
        assert!(drawn.iter().all(|drawn| (pause / 2..=pause).contains(drawn)));
        assert!(drawn.iter().any(|other| *other != drawn[0]));
    }
}
