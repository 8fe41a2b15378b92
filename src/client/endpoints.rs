//! Which endpoint to ask: the leader's if it is known, else one after the other.
//!
//! Any node serves everything, so a wrong guess costs only a detour: a follower forwards what it
//! is told. The leader is found by asking all endpoints for their status at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::model::Status;
use super::transport::{Attempt, Outgoing, Transport};

/// How long all endpoints together have to say who leads.
const PROBE: Duration = Duration::from_secs(1);

/// How long the result of asking is good enough for the next one who wants to know.
const FRESH: Duration = Duration::from_millis(100);

/// The endpoints of a cluster and what is known of them.
pub(super) struct Endpoints {
    list: Vec<String>,
    transport: Transport,
    guess: Mutex<Guess>,
    /// When the endpoints were last asked. Held while they are, so that they are asked once.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Default)]
struct Guess {
    /// The leader's endpoint.
    leader: Option<usize>,
    /// Where to go if no leader is known, and for reads that any node may answer.
    next: usize,
    /// The leader has failed since the endpoints were asked.
    outdated: bool,
}

impl Endpoints {
    pub fn new(list: Vec<String>, transport: Transport) -> Endpoints {
        assert!(!list.is_empty(), "the builder checks that there is an endpoint");
        let guess =
            Mutex::new(Guess { leader: None, next: arbitrary(list.len()), outdated: false });
        Endpoints { list, transport, guess, asked: tokio::sync::Mutex::new(None) }
    }

    pub fn all(&self) -> &[String] {
        &self.list
    }

    fn guess(&self) -> MutexGuard<'_, Guess> {
        // A panic cannot leave two numbers half changed.
        self.guess.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some endpoint, the same one until it fails.
    pub fn any(&self) -> usize {
        self.guess().next
    }

    /// The leader's endpoint, or some other if there is no telling. `avoid` has just failed.
    pub async fn best(&self, avoid: Option<usize>) -> usize {
        if self.list.len() == 1 {
            return 0;
        }
        if let Some(leader) = self.guess().leader {
            return leader;
        }
        self.find_leader(avoid).await.unwrap_or_else(|| self.any())
    }

    /// This endpoint did not answer as hoped: what was known of it counts no more.
    pub fn failed(&self, endpoint: usize) {
        let mut guess = self.guess();
        if guess.leader == Some(endpoint) {
            guess.leader = None;
            guess.outdated = true;
        }
        if guess.next == endpoint {
            guess.next = (endpoint + 1) % self.list.len();
        }
    }

    /// Asks all endpoints who leads, and takes the first that says that it does itself. One that
    /// was deposed may still believe so: hence not `avoid`. What was found a moment ago is not
    /// asked again.
    pub async fn find_leader(&self, avoid: Option<usize>) -> Option<usize> {
        let mut asked = self.asked.lock().await;
        let outdated = std::mem::take(&mut self.guess().outdated);
        if !outdated && asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return self.guess().leader.filter(|&leader| Some(leader) != avoid);
        }
        let mut questions = JoinSet::new();
        for (number, endpoint) in self.list.iter().enumerate() {
            if Some(number) != avoid {
                let (transport, endpoint) = (self.transport.clone(), endpoint.clone());
                questions
                    .spawn(async move { leads(&transport, &endpoint).await.then_some(number) });
            }
        }
        let mut found = None;
        while let (None, Some(answer)) = (found, questions.join_next().await) {
            found = answer.ok().flatten();
        }
        // That no other one leads does not mean that `avoid` does not.
        if found.is_some() || avoid.is_none() {
            self.guess().leader = found;
        }
        *asked = Some(Instant::now());
        found
    }
}

/// Whether the node at this endpoint says that it leads.
async fn leads(transport: &Transport, endpoint: &str) -> bool {
    let question = Outgoing::new(Method::GET, "/v1/status");
    match transport.attempt(endpoint, &question, PROBE).await {
        Attempt::Answered(answer) if answer.status.is_success() => {
            serde_json::from_slice::<Status>(&answer.body).is_ok_and(|status| status.leads())
        }
        _ => false,
    }
}

/// A number below `count`, so that not all clients begin with the same endpoint.
#[allow(clippy::disallowed_methods, reason = "a client may differ from run to run")]
fn arbitrary(count: usize) -> usize {
    rand::random::<usize>() % count
}
