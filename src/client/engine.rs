//! Sends a request as often as it takes, and keeps account of what may have happened.
//!
//! Every attempt is judged: answered, refused, or uncertain. A refused attempt may be repeated
//! freely. After an uncertain one the request may be repeated only if that is harmless: it changes
//! nothing, or it carries the number of a session. Once an attempt was uncertain, nothing but a
//! result, or the answer that it was applied, makes the outcome known again: a later refusal says
//! only that the *later* attempt had no effect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::endpoints::Endpoints;
use super::error::{BAD_ANSWER, Error, ErrorKind, TLS_MISMATCH, UNAVAILABLE, is_passing};
use super::sessions::{Lease, Sessions};
use super::transport::{Answer, Attempt, Outgoing, Transport};

/// The first pause before an attempt is repeated; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long an endpoint may take before the others are asked whether one of them leads by now.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an endpoint may be silent where another one's answer is as good. Twice as long after each
/// round: perhaps all of them are slow.
const SILENCE: Duration = Duration::from_secs(1);

/// What repeating a request would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing: it only reads. Goes to the leader.
    Read,
    /// Nothing: it only reads, and any node's answer will do.
    ReadAnywhere,
    /// It is a command that a session can guard.
    Command,
    /// It would be done twice, or answered wrongly.
    Never,
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug)]
struct Fault {
    code: String,
    message: String,
    /// The endpoint will fail in the same way next time.
    lasts: bool,
}

impl Fault {
    fn new(code: &str, message: String) -> Fault {
        Fault { code: code.to_owned(), message, lasts: code == TLS_MISMATCH }
    }

    fn error(self, kind: ErrorKind) -> Error {
        Error::new(kind, &self.code, self.message)
    }
}

/// What one attempt means.
#[derive(Debug)]
enum Verdict {
    /// A result.
    Done(Answer),
    /// No result.
    Not(Meaning, Fault),
}

/// What is known about the effect of an attempt without a result, and of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Wrong: had no effect, and never will.
    Invalid,
    /// Had no effect, and would not have any if it were repeated now.
    Refused,
    /// Had no effect; may be repeated.
    Again,
    /// Had no effect, because the session is gone.
    Expired,
    /// May have had an effect.
    Uncertain,
    /// Had its effect, but the answer is not there.
    Applied,
}

/// How a node says that it did not do what it was asked.
#[derive(Deserialize)]
struct Complaint {
    code: String,
    message: String,
}

/// The message in the answer of a node that did not do what it was asked.
pub(super) fn complaint(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Complaint>(body).ok().map(|complaint| complaint.message)
}

/// Answers that are no success and yet say what came of the request.
const RESULTS: &[&str] = &["key_not_found", "precondition_failed"];

/// The code of a node that does not know itself what became of a request.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// The code of a node that knows that a command was applied, but not the answer any more.
const ANSWER_NOT_KEPT: &str = "answer_not_kept";

fn judge(attempt: Attempt, endpoint: &str) -> Verdict {
    let not = |meaning, code: &str, message| Verdict::Not(meaning, Fault::new(code, message));
    let answer = match attempt {
        Attempt::NotSent(reason) => return not(Meaning::Again, UNAVAILABLE, reason),
        Attempt::Lost(reason) => return not(Meaning::Uncertain, UNAVAILABLE, reason),
        Attempt::Mismatched(reason) => return not(Meaning::Again, TLS_MISMATCH, reason),
        Attempt::Answered(answer) => answer,
    };
    if answer.status.is_success() {
        return Verdict::Done(answer);
    }
    let Ok(Complaint { code, message }) = serde_json::from_slice(&answer.body) else {
        let message = format!("{endpoint} answered {} without saying why", answer.status);
        return not(Meaning::Uncertain, BAD_ANSWER, message);
    };
    if RESULTS.contains(&code.as_str()) {
        return Verdict::Done(answer);
    }
    let meaning = match (answer.status, code.as_str()) {
        (StatusCode::GONE, _) => Meaning::Expired,
        (_, code) if is_passing(code) => Meaning::Again,
        (_, OUTCOME_UNKNOWN) => Meaning::Uncertain,
        (_, ANSWER_NOT_KEPT) => Meaning::Applied,
        (
            _,
            "member_not_found"
            | "sequence_out_of_order"
            | "idempotency_key_reused"
            | "disk_full"
            | "quorum_at_risk",
        ) => Meaning::Refused,
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Meaning::Refused,
        (status, _) if status.is_client_error() => Meaning::Invalid,
        _ => Meaning::Uncertain,
    };
    Verdict::Not(meaning, Fault::new(&code, message))
}

/// All that sends requests.
pub(super) struct Engine {
    pub tls: Arc<rustls::ClientConfig>,
    pub transport: Transport,
    pub endpoints: Endpoints,
    pub sessions: Sessions,
    pub deadline: Duration,
    pub attempt_timeout: Duration,
}

/// What has become of one request so far.
struct Course<'a> {
    repeat: Repeat,
    /// For a command that is sent with a session: which one.
    lease: Option<Lease<'a>>,
    deadline: Instant,
    /// The first attempt that may have had an effect.
    doubt: Option<Fault>,
    /// The endpoint that has just failed.
    avoid: Option<usize>,
    pause: Duration,
    /// Attempts so far.
    attempts: usize,
    /// Endpoints that would fail in the same way again.
    hopeless: BTreeSet<usize>,
}

impl<'a> Course<'a> {
    fn new(repeat: Repeat, lease: Option<Lease<'a>>, deadline: Instant) -> Course<'a> {
        Course {
            repeat,
            lease,
            deadline,
            doubt: None,
            avoid: None,
            pause: FIRST_PAUSE,
            attempts: 0,
            hopeless: BTreeSet::new(),
        }
    }

    /// Whether an attempt may follow one that may have had an effect.
    fn is_repeatable(&self) -> bool {
        match self.repeat {
            Repeat::Read | Repeat::ReadAnywhere => true,
            Repeat::Command => self.lease.is_some(),
            Repeat::Never => false,
        }
    }

    /// Takes account of an attempt: `Ok` is why another one should be made.
    fn account(&mut self, fault: Fault, meaning: Meaning) -> Result<Fault, Error> {
        match meaning {
            Meaning::Invalid => Err(self.end(ErrorKind::Invalid, fault)),
            Meaning::Refused => Err(self.end(ErrorKind::Refused, fault)),
            Meaning::Again => Ok(fault),
            // Whatever an earlier attempt left in doubt.
            Meaning::Applied => Err(fault.error(ErrorKind::Applied)),
            Meaning::Expired => match &mut self.lease {
                // With another session an earlier attempt would not be recognised.
                Some(lease) if self.doubt.is_none() => {
                    lease.expired();
                    Ok(fault)
                }
                _ => Err(self.end(ErrorKind::Refused, fault)),
            },
            Meaning::Uncertain if self.lease.is_some() => {
                self.doubt.get_or_insert_with(|| fault.clone());
                Ok(fault)
            }
            // A read that was not answered simply was not.
            Meaning::Uncertain if self.is_repeatable() => {
                let is_doubt = fault.code == OUTCOME_UNKNOWN;
                Ok(if is_doubt { Fault::new(UNAVAILABLE, fault.message) } else { fault })
            }
            Meaning::Uncertain => Err(fault.error(ErrorKind::Unknown)),
        }
    }

    /// The request failed: with what is known about its effect.
    fn end(&mut self, kind: ErrorKind, fault: Fault) -> Error {
        match self.doubt.take() {
            Some(doubt) => doubt.error(ErrorKind::Unknown),
            None => fault.error(kind),
        }
    }

    /// Waits before the next attempt, longer each time.
    ///
    /// # Errors
    /// If there is no time for one more: the request failed.
    async fn pause(&mut self, fault: Fault) -> Result<(), Error> {
        let until = Instant::now() + jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if until >= self.deadline {
            return Err(self.end(ErrorKind::Refused, fault));
        }
        sleep_until(until).await;
        Ok(())
    }
}

impl Engine {
    /// Sends a request until there is a result.
    ///
    /// # Errors
    /// What is known about its effect when it was given up.
    pub async fn send(&self, outgoing: Outgoing, repeat: Repeat) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.deadline;
        let mut lease = None;
        if repeat == Repeat::Command && self.sessions.are_used() {
            let Ok(place) = timeout_at(deadline, self.sessions.place()).await else {
                let message = "all sessions were in use until the deadline: allow more of them";
                return Err(Error::new(ErrorKind::Refused, UNAVAILABLE, message));
            };
            lease = Some(place);
        }
        self.run(&outgoing, Course::new(repeat, lease, deadline)).await
    }

    /// Asks one endpoint, once, something that changes nothing.
    ///
    /// # Errors
    /// If there is no result.
    pub async fn send_to(&self, endpoint: usize, outgoing: Outgoing) -> Result<Answer, Error> {
        self.ask_at(&self.endpoints.all()[endpoint], outgoing).await
    }

    /// The same at any address.
    ///
    /// # Errors
    /// If there is no result.
    pub async fn ask_at(&self, name: &str, outgoing: Outgoing) -> Result<Answer, Error> {
        let limit = self.attempt_timeout.min(self.deadline).min(SILENCE);
        match judge(self.transport.attempt(name, &outgoing, limit).await, name) {
            Verdict::Done(answer) => Ok(answer),
            Verdict::Not(Meaning::Invalid, fault) => Err(fault.error(ErrorKind::Invalid)),
            Verdict::Not(_, fault) => Err(fault.error(ErrorKind::Refused)),
        }
    }

    async fn run(&self, outgoing: &Outgoing, mut course: Course<'_>) -> Result<Answer, Error> {
        loop {
            let mut keyed = outgoing.clone();
            if let Some(lease) = &mut course.lease {
                let key = self.idempotency_key(lease, course.deadline).await?;
                keyed = keyed.header(HeaderName::from_static("idempotency-key"), key);
            }
            let (endpoint, verdict) = self.attempt(&keyed, &course).await;
            let fault = match verdict {
                Verdict::Done(answer) => return Ok(answer),
                Verdict::Not(meaning, fault) => course.account(fault, meaning)?,
            };
            self.endpoints.failed(endpoint);
            course.avoid = Some(endpoint);
            course.attempts += 1;
            if fault.lasts {
                course.hopeless.insert(endpoint);
                if course.hopeless.len() == self.endpoints.all().len() {
                    return Err(course.end(ErrorKind::Refused, fault));
                }
            }
            course.pause(fault).await?;
        }
    }

    /// The key of a command; opens a session if there is none.
    async fn idempotency_key(
        &self,
        lease: &mut Lease<'_>,
        deadline: Instant,
    ) -> Result<HeaderValue, Error> {
        if lease.idempotency_key().is_none() {
            lease.opened(self.open_session(deadline).await?);
        }
        let key = lease.idempotency_key().expect("a session is open");
        Ok(HeaderValue::try_from(key).expect("digits and a dash may stand in a header"))
    }

    /// Opens a session. Repeating that is harmless: one that nobody uses goes in time.
    async fn open_session(&self, deadline: Instant) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Opened {
            session: u64,
        }
        let outgoing = Outgoing::new(Method::POST, "/v1/sessions");
        let course = Course::new(Repeat::Read, None, deadline);
        let answer = Box::pin(self.run(&outgoing, course)).await?;
        let opened = serde_json::from_slice::<Opened>(&answer.body);
        opened.map(|opened| opened.session).map_err(|_| {
            let message = "a session was asked for, but the answer does not name any";
            Error::new(ErrorKind::Refused, BAD_ANSWER, message)
        })
    }

    /// One attempt, and the endpoint that it was made at.
    async fn attempt(&self, outgoing: &Outgoing, course: &Course<'_>) -> (usize, Verdict) {
        let endpoint = match course.repeat {
            Repeat::ReadAnywhere => self.endpoints.any(),
            _ => self.endpoints.best(course.avoid).await,
        };
        let name = &self.endpoints.all()[endpoint];
        let left = course.deadline.saturating_duration_since(Instant::now());
        let is_repeatable = course.is_repeatable();
        // What cannot be repeated is waited for as long as there is time.
        let limit = if is_repeatable { left.min(self.attempt_timeout) } else { left };
        let may_move_on = is_repeatable && course.repeat != Repeat::ReadAnywhere;
        let endpoints = self.endpoints.all().len();
        let silence = match course.repeat {
            Repeat::ReadAnywhere if endpoints > 1 => {
                let rounds = u32::try_from(course.attempts / endpoints).unwrap_or(u32::MAX).min(16);
                SILENCE * 2_u32.pow(rounds)
            }
            _ => limit,
        };
        let attempting = self.transport.attempt_unless_silent(name, outgoing, silence, limit);
        let attempt = tokio::select! {
            attempt = attempting => attempt,
            () = self.other_leader(endpoint), if may_move_on => {
                Attempt::Lost(format!("{name} did not answer, and another node leads by now"))
            }
        };
        (endpoint, judge(attempt, name))
    }

    /// Returns when another endpoint than this one says that it leads.
    async fn other_leader(&self, endpoint: usize) {
        loop {
            sleep(PATIENCE).await;
            if self.endpoints.find_leader(Some(endpoint)).await.is_some() {
                return;
            }
        }
    }
}

/// Somewhere between half of a pause and all of it, so that clients do not come back as one.
#[allow(clippy::disallowed_methods, reason = "a client may differ from run to run")]
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
