//! The checkers of the service, and the stream that they see: what the simulator's own observers see, in the
//! terms of the service.
//!
//! Commands and states are no observations of the simulator's, because nothing else needs them one by one:
//! `Simulation` shows them only where there are checkers.

use std::collections::BTreeMap;

use stormkv::api::Reply;

use super::super::client::Clients;
use super::{Coverage, Observation, Stamp};
use crate::checker::{Broken, Check};
use crate::history::{self, History};
use crate::plan::{Call, Manner};
use crate::service::{self, CheckContext, Checker, End, Finding, Service, Worker, parsed};

/// A checker, and how often it has compared something.
struct Counted<S: Service> {
    checker: Box<dyn Checker<S>>,
    checked: u64,
}

/// An operation under way.
struct Open<S: Service> {
    op: S::Op,
    recorded: Option<usize>,
}

/// All checkers of a service. A violation is kept until the present event is over.
pub(in crate::simulation) struct Checkers<S: Service> {
    all: Vec<Counted<S>>,
    /// By lane.
    workers: Vec<Worker>,
    open: BTreeMap<u32, Open<S>>,
    found: Option<Broken>,
}

impl<S: Service> Checkers<S> {
    /// The checkers, anew; `None` if the service has none.
    ///
    /// # Panics
    /// If two checks have the same name.
    pub fn new(clients: &Clients<S>) -> Option<Box<Checkers<S>>> {
        let all: Vec<Counted<S>> =
            S::checkers().into_iter().map(|checker| Counted { checker, checked: 0 }).collect();
        for (at, counted) in all.iter().enumerate() {
            let name = counted.checker.name();
            let is_taken = Check::ALL.iter().any(|check| check.name() == name)
                || all[..at].iter().any(|other| other.checker.name() == name);
            assert!(
                !is_taken,
                "two checks are called `{name}`; give the checker of the service another name"
            );
        }
        if all.is_empty() {
            return None;
        }
        let workers = (0..).zip(&clients.all);
        let workers = workers.map(|(number, c)| Worker { client: c.number, number }).collect();
        Some(Box::new(Checkers { all, workers, open: BTreeMap::new(), found: None }))
    }

    /// How often each has compared something.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all.iter().map(|counted| (counted.checker.name(), counted.checked))
    }

    pub fn take_found(&mut self) -> Option<Broken> {
        self.found.take()
    }

    /// Shows all checkers what one of the simulator's observations means to them.
    pub fn observe(&mut self, at: Stamp, seen: &Observation<'_>, coverage: &mut Coverage) {
        match *seen {
            Observation::Called { lane, call, recorded, .. } => {
                self.called(at, lane, call, recorded, coverage);
            }
            Observation::ReplyArrives { lane, node, reply, lost: None, stale: false, .. } => {
                let (Reply::Applied { index, response } | Reply::Value { index, response }) = reply
                else {
                    return;
                };
                let Some(Open { op, recorded }) = self.open.remove(&lane) else { return };
                let seen = service::Observation::Response {
                    worker: self.workers[lane as usize],
                    op: &op,
                    node,
                    index: *index,
                    response,
                    recorded,
                };
                self.show(at, &seen, coverage);
                self.open.insert(lane, Open { op, recorded });
            }
            Observation::Returned { lane, since_ns, outcome, .. } => {
                let Some(Open { op, .. }) = self.open.remove(&lane) else { return };
                let end = match outcome {
                    history::Outcome::Ok(_) => End::Acknowledged,
                    history::Outcome::Fail => End::Refused,
                    history::Outcome::Info => End::Unknown,
                };
                let worker = self.workers[lane as usize];
                let seen = service::Observation::Returned { worker, op: &op, since_ns, end };
                self.show(at, &seen, coverage);
            }
            Observation::ClientRestarts(client) => {
                self.show(at, &service::Observation::ClientRestarted { client }, coverage);
            }
            Observation::RoleChanged(node, role, term) => {
                let seen = service::Observation::RoleChanged { node, role, term };
                self.show(at, &seen, coverage);
            }
            Observation::Started(node) => {
                self.show(at, &service::Observation::Started { node }, coverage);
            }
            Observation::Down(node) => {
                self.show(at, &service::Observation::Down { node }, coverage);
            }
            Observation::Healed(_) => self.show(at, &service::Observation::Healed, coverage),
            _ => {}
        }
    }

    /// The response to a command with a reused number is another command's, so such an operation is not shown.
    fn called(
        &mut self,
        at: Stamp,
        lane: u32,
        call: &Call,
        recorded: Option<usize>,
        coverage: &mut Coverage,
    ) {
        let Some(op) = parsed::<S>(&call.op).filter(|_| call.manner != Manner::Reused) else {
            return;
        };
        let seen = service::Observation::Called {
            worker: self.workers[lane as usize],
            op: &op,
            is_stale: call.manner == Manner::Stale,
            recorded,
        };
        self.show(at, &seen, coverage);
        self.open.insert(lane, Open { op, recorded });
    }

    /// Shows them an observation in the terms of the service.
    pub fn show(&mut self, at: Stamp, seen: &service::Observation<'_, S>, coverage: &mut Coverage) {
        self.ask(at, coverage, |checker, context| checker.observe(seen, context));
    }

    /// Shows them the history.
    pub fn finish(&mut self, at: Stamp, history: &History, coverage: &mut Coverage) {
        self.ask(at, coverage, |checker, context| checker.finish(history, context));
    }

    /// Asks one after the other, up to the first violation: what they see afterwards may follow from it.
    fn ask(
        &mut self,
        at: Stamp,
        coverage: &mut Coverage,
        judge: impl Fn(&mut dyn Checker<S>, &mut CheckContext<'_>) -> Result<(), Finding>,
    ) {
        if self.found.is_some() {
            return;
        }
        for Counted { checker, checked } in &mut self.all {
            let reach = &mut |mark| coverage.reach_mark::<S>(mark);
            let judged = judge(checker.as_mut(), &mut CheckContext::new(at, checked, reach));
            if let Err(finding) = judged {
                self.found = Some(Broken::found(checker.name(), finding));
                return;
            }
        }
    }
}
