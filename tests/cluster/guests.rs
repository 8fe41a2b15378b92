//! Members beside the founders: they join, stay for a while and are removed, under whatever else happens.
//!
//! An operator behind an unreliable network: a request may be refused, or its outcome be unknown, so
//! each is repeated until the membership shows its effect. A number is used once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use stormkv_sim::rng::{Purpose, Stream};

use super::fleet::Fleet;
use super::http::{Connection, Request};

/// Guests at the same time.
const AT_ONCE: usize = 2;
/// Between two requests of the operator.
const PAUSE: Duration = Duration::from_millis(200);
/// The time for an answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A removed node that reaches the others has so long to end.
const END: Duration = Duration::from_secs(60);

/// How far a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its process runs; the membership may not have it yet.
    Joining { learner: bool },
    /// It is a member until then.
    Member(Instant),
    /// Its removal was asked for.
    Leaving,
    /// It is removed since then, and its process should end.
    Removed(Instant),
}

/// The operator of the guests.
pub struct Guests {
    choices: Stream,
    stages: BTreeMap<u64, Stage>,
    next_id: u64,
    request_at: Instant,
    joined: u64,
    removed: u64,
}

impl Guests {
    /// No guests yet; their numbers begin at `first_id`.
    pub fn new(seed: u64, first_id: u64) -> Guests {
        Guests {
            choices: Stream::new(seed, Purpose::Plan, [2]),
            stages: BTreeMap::new(),
            next_id: first_id,
            request_at: Instant::now(),
            joined: 0,
            removed: 0,
        }
    }

    /// The number of guests that became members, and of those that were removed again.
    pub fn counts(&self) -> (u64, u64) {
        (self.joined, self.removed)
    }

    /// Whether the process of this node may have ended without a fault.
    pub fn may_have_ended(&self, id: u64) -> bool {
        matches!(self.stages.get(&id), Some(Stage::Leaving | Stage::Removed(_)))
    }

    /// Starts one more guest, unless there are enough. Returns whether it did.
    pub fn invite(&mut self, fleet: &mut Fleet) -> bool {
        if self.stages.len() >= AT_ONCE {
            return false;
        }
        let id = self.next_id;
        self.next_id += 1;
        // Before its request as often as not: it waits then until it is added.
        fleet.newcomer(id).start();
        let learner = self.choices.below(3) == 0;
        self.stages.insert(id, Stage::Joining { learner });
        true
    }

    /// Takes the next step of each guest: at most one request, which may take a second.
    pub fn advance(&mut self, fleet: &mut Fleet) {
        let now = Instant::now();
        let mut gone = Vec::new();
        for (id, stage) in &mut self.stages {
            match *stage {
                Stage::Member(until) if until <= now => *stage = Stage::Leaving,
                Stage::Removed(since) => {
                    let node = fleet.node(*id);
                    if node.is_paused() || !node.has_process() {
                        // It cannot end before it runs again.
                        *stage = Stage::Removed(now);
                    } else if node.is_up() {
                        assert!(now < since + END, "guest {id} was removed and does not end");
                    } else {
                        let status = node.exit();
                        assert!(status.success(), "guest {id} was removed and ended with {status}");
                        gone.push(*id);
                    }
                }
                _ => {}
            }
        }
        for id in gone {
            self.stages.remove(&id);
            fleet.retire(id);
        }
        if now >= self.request_at {
            self.request(fleet);
            self.request_at = Instant::now() + PAUSE;
        }
    }

    /// Looks at the membership, and asks for one change of it.
    fn request(&mut self, fleet: &mut Fleet) {
        let waiting: Vec<(u64, Stage)> = self
            .stages
            .iter()
            .map(|(id, stage)| (*id, *stage))
            .filter(|(_, stage)| matches!(stage, Stage::Joining { .. } | Stage::Leaving))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let (id, stage) = waiting[self.choices.below(waiting.len() as u64) as usize];
        let up: Vec<u64> = fleet
            .ids()
            .into_iter()
            .filter(|other| *other != id)
            .filter(|other| fleet.node(*other).is_up() && !fleet.node(*other).is_paused())
            .collect();
        if up.is_empty() {
            return;
        }
        let through = up[self.choices.below(up.len() as u64) as usize];
        let mut connection = Connection::new(fleet.node(through).http, TIMEOUT);
        let Ok(seen) = connection.ask(&Request::new("GET", "/v1/members")) else { return };
        let seen = seen.json();
        let member = |member: &serde_json::Value| member["id"] == id;
        let is_member = seen["members"].as_array().is_some_and(|list| list.iter().any(member));
        let is_removed =
            seen["removed"].as_array().is_some_and(|list| list.iter().any(|other| *other == id));
        let request = match stage {
            Stage::Joining { .. } if is_member => {
                let stay = Duration::from_millis(2000 + self.choices.below(10_000));
                self.stages.insert(id, Stage::Member(Instant::now() + stay));
                self.joined += 1;
                return;
            }
            Stage::Leaving if is_removed => {
                self.stages.insert(id, Stage::Removed(Instant::now()));
                self.removed += 1;
                return;
            }
            Stage::Joining { learner } => {
                let url = fleet.node(id).url.clone();
                let body = json!({ "id": id, "url": url, "learner": learner });
                Request::new("POST", "/v1/members").json(&body)
            }
            _ => Request::new("DELETE", format!("/v1/members/{id}")),
        };
        if let Ok(answer) = connection.ask(&request) {
            let expected = [200, 204, 404, 409, 429, 503, 504, 507];
            let (status, text) = (answer.status, answer.text());
            let (method, target) = (request.method, &request.target);
            assert!(expected.contains(&status), "{method} {target} for {id}: {status} {text}");
        }
    }

    /// Lets each guest become a member or leave. Nothing else may be wrong any more.
    #[track_caller]
    pub fn settle(&mut self, fleet: &mut Fleet) {
        super::within(END * 2, "all guests have joined or left", || {
            self.advance(fleet);
            self.stages.values().all(|stage| matches!(stage, Stage::Member(_))).then_some(())
        });
    }
}
