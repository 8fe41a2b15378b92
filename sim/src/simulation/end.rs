//! The end of a run: the members must agree, and have told their clients the truth.

use std::collections::BTreeMap;

use super::Simulation;
use super::client::BLACK_BOX_SAMPLE;
use super::observe::Observation;
use crate::checker::linearizable::{self, Limits};
use crate::checker::{Broken, Check, black_box, witness};
use crate::history;
use crate::outcome::Class;
use crate::service::{Model, Request, Search, Service, Shown};

/// Steps of the black-box search.
const BLACK_BOX_STEPS: u64 = 300_000;

impl<S: Service> Simulation<'_, S> {
    /// Notes how far the membership has come from what it was.
    pub(super) fn note_membership(&mut self) {
        let plan = self.plan;
        let leader = self.cluster.leader().and_then(|id| self.cluster.get_mut(id));
        let Some(driver) = leader.and_then(|slot| slot.driver.as_ref()) else { return };
        let membership = driver.node().membership();
        let voters = membership.voters().len();
        let all_new = plan.voters().all(|id| membership.removed().contains(&id));
        let founders = plan.cluster.nodes;
        if all_new {
            self.reach("founders-all-replaced");
        }
        if founders == 1 && voters > 1 {
            self.reach("grown-from-one-voter");
        }
        if founders > 1 && voters == 1 {
            self.reach("shrunk-to-one-voter");
        }
    }

    /// At rest, every member holds exactly what the committed log makes of it.
    pub(super) fn compare_contents(&mut self) {
        for slot in self.cluster.iter() {
            let Some(driver) = &slot.driver else { continue };
            let node = driver.node();
            // A node that was removed, or not yet added, may lag behind.
            if node.status().applied.index < self.safety.commit() {
                continue;
            }
            let content = self.safety.content(slot.id, node.machine());
            let judged = content.and_then(|()| self.safety.addresses(slot.id, node.membership()));
            if let Err(broken) = judged {
                let broken = broken.at(slot.id);
                self.fail(Class::Safety, broken);
                return;
            }
        }
    }

    /// Finds whose the commands without a session are that are in the log. An answer names its own.
    /// Of the others that do the same, the one that was called first comes first: then none takes
    /// effect before its call if that is possible at all. Those of unknown outcome take precedence,
    /// because the others were refused.
    pub(super) fn own_loose(&self) -> Result<Vec<witness::Applied>, Broken> {
        let history = self.clients.history.ops();
        let (mut answered, mut open) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for loose in &self.clients.loose {
            match loose.index {
                Some(index) => drop(answered.insert(index, loose.recorded)),
                None => open.entry(&loose.command).or_default().push(loose.recorded),
            }
        }
        for waiting in open.values_mut() {
            // The next one is at the end.
            waiting.reverse();
            waiting.sort_by_key(|op| history[*op].outcome == history::Outcome::Info);
        }
        let mut applied = Vec::new();
        for (index, command) in self.safety.loose_effects() {
            let waiting = || open.get_mut(command).and_then(Vec::pop);
            let Some(op) = answered.get(&index).copied().or_else(waiting) else {
                let what = S::describe(Shown::Command(command));
                let message = format!(
                    "entry {index} holds `{what}` without a session, which no client has asked for so \
                     often"
                );
                return Err(Broken::new(Check::Refusal, message));
            };
            applied.push(witness::Applied { index, op });
        }
        Ok(applied)
    }

    /// Judges what the clients were told: with the log's order always; without it for a sample of
    /// the clean runs, and for every failure of another kind, which may show more.
    pub(super) fn judge_history(&mut self) {
        let stalled = self.violation.as_ref().is_some_and(|v| v.class == Class::Liveness);
        if self.violation.is_some() && !stalled {
            return;
        }
        self.observers.see(&Observation::Aside);
        self.observers.see(&Observation::Over);
        for (&(session, number), &(attempts, refused)) in &self.clients.refused {
            if let Err(broken) = self.safety.refused(session, number, attempts, refused) {
                self.violation = None;
                let op = self.clients.owner.get(&(session, number)).copied();
                let name = op.map_or_else(String::new, |op| self.clients.history.name(op) + ": ");
                let message = name + &broken.message;
                return self.fail(Class::Safety, Broken { message, ..broken }.shown_by(op));
            }
        }
        let loose = match self.own_loose() {
            Ok(loose) => loose,
            Err(broken) => {
                self.violation = None;
                return self.fail(Class::Safety, broken);
            }
        };
        let owner = &self.clients.owner;
        let effects = self.safety.effects().iter().filter_map(|(index, session, number)| {
            let op = *owner.get(&(*session, *number))?;
            Some(witness::Applied { index: *index, op })
        });
        let mut applied: Vec<_> = self.clients.before.into_iter().chain(effects).collect();
        applied.extend(loose);
        applied.sort_by_key(|applied| applied.index);
        match witness::check(&self.clients.history, &applied) {
            Ok(stats) => {
                let placed = stats.answers + stats.gets + stats.scans;
                self.safety.count(Check::Witness, placed);
            }
            Err(why) => {
                self.violation = None;
                let broken = Broken::new(Check::Witness, why.sentence).shown_by(why.ops);
                return self.fail(Class::Safety, broken);
            }
        }
        if self.plan.faults.is_empty() {
            match self.clients.goodput.judge(&self.plan.load) {
                Ok(compared) => self.safety.count(Check::Goodput, u64::from(compared)),
                Err(broken) => return self.fail(Class::Liveness, broken),
            }
        }
        self.observers.finish_checkers(&self.clients.history);
        if let Some(broken) = self.observers.take_found() {
            self.violation = None;
            return self.fail(Class::Safety, broken);
        }
        // A fork is judged like its run.
        if let Some(search) = &S::SEARCH {
            self.search_order(search);
        } else if self.plan.seed.is_multiple_of(BLACK_BOX_SAMPLE) {
            let limits = Limits { steps: BLACK_BOX_STEPS, ..Limits::default() };
            match linearizable::check(&self.clients.history, limits, &mut || false) {
                linearizable::Verdict::Violation(why) => {
                    let broken = Broken::new(Check::BlackBox, why.sentence);
                    self.fail(Class::Safety, broken.shown_by(why.ops));
                }
                linearizable::Verdict::Linearizable => self.safety.count(Check::BlackBox, 1),
                linearizable::Verdict::Unknown(_) => self.safety.count(Check::BlackBoxUnknown, 1),
            }
        }
    }

    /// Searches for an order of the requests that explains all responses, if this run is one of the sample.
    fn search_order(&mut self, search: &Search<S::Model>) {
        let Some(requests) = self.clients.requests.take() else { return };
        let requests = requests.take();
        match black_box::search(search, S::Model::new(&S::params()), &requests, BLACK_BOX_STEPS) {
            black_box::Found::Linearizable => self.safety.count(Check::BlackBox, 1),
            black_box::Found::Unknown => self.safety.count(Check::BlackBoxUnknown, 1),
            black_box::Found::Violation { longest, stuck } => {
                let operation = &requests[stuck];
                let request = match &operation.request {
                    Request::Command(bytes) => S::describe(Shown::Command(bytes)),
                    Request::Query(bytes) => S::describe(Shown::Query(bytes)),
                };
                let response = match &operation.known {
                    black_box::Known::Response(bytes) => S::describe(Shown::Response(bytes)),
                    _ => "its effect".to_owned(),
                };
                let message = format!(
                    "no order of the requests explains all responses: behind the {} of {} that have one, \
                     `{request}` must come, and `{response}` is wrong there",
                    longest.len(),
                    requests.len()
                );
                self.fail(Class::Safety, Broken::new(Check::BlackBox, message));
            }
        }
    }
}
