//! The end of a run: the cluster must come to rest, agree, and have told its clients the truth.

use super::{Event, World};
use crate::checker::linearizable::{self, Limits};
use crate::checker::{Broken, Check, witness};
use crate::outcome::Class;

/// How often the world looks whether the cluster has come to rest.
const LOOK_NS: u64 = 50_000_000;
/// One clean run in so many is also judged without the help of the log's order.
const BLACK_BOX_SAMPLE: u64 = 8;
/// Steps of the black-box search.
const BLACK_BOX_STEPS: u64 = 300_000;

impl World<'_> {
    pub(super) fn look_for_rest(&mut self) {
        self.trace.mix(12);
        let missing = self.missing();
        self.trace.line(self.now_ns, || match &missing {
            Some(missing) => format!("not at rest: {missing}"),
            None => "at rest".to_owned(),
        });
        // A backlog of operations may take its time, as long as one after the other is answered.
        let since = self.healed_ns.unwrap_or(self.now_ns).max(self.clients.progress_ns);
        match missing {
            None => {
                self.rested = true;
                self.safety.count(Check::Convergence, 1);
                self.compare_contents();
            }
            Some(missing) if self.now_ns - since > self.plan.end.bound_us * 1000 => {
                let seconds = self.plan.end.bound_us / 1_000_000;
                let message = format!("for {seconds} s after all was healed, {missing}");
                self.fail(Class::Liveness, Broken { checker: "convergence", message });
            }
            Some(_) => self.schedule.push(self.now_ns + LOOK_NS, Event::Rest),
        }
    }

    /// What the cluster lacks to be at rest.
    fn missing(&self) -> Option<String> {
        let nodes = || {
            self.slots
                .iter()
                .flatten()
                .filter_map(|slot| Some((slot.id, slot.driver.as_ref()?.node())))
        };
        let Some((leader, node)) = nodes()
            .filter(|(id, _)| self.leads(*id))
            .max_by_key(|(_, node)| node.status().hard_state.term)
        else {
            return Some("there is no leader".to_owned());
        };
        if let Some(client) = self
            .clients
            .all
            .iter()
            .find(|client| client.current.is_some() || !client.rows.is_empty())
        {
            let plan = self.plan;
            let at = client.current.as_ref().map(|current| current.row);
            let row = &plan.ops[at.or(client.rows.front().copied()).unwrap_or(0)];
            return Some(format!(
                "`{}` of client {} is not answered (leader {leader})",
                row.call, client.number
            ));
        }
        let (status, membership) = (node.status(), node.membership());
        if membership.is_joint() {
            return Some(format!("the membership is still joint (leader {leader})"));
        }
        if status.applied.index < status.last.index {
            return Some(format!(
                "leader {leader} has applied {} of {} entries",
                status.applied.index, status.last.index
            ));
        }
        for &id in membership.voters().union(membership.learners()) {
            let Some((_, peer)) = nodes().find(|(peer, _)| *peer == id) else {
                return Some(format!("{id} is not running"));
            };
            let theirs = peer.status();
            if theirs.applied != status.applied {
                return Some(format!(
                    "{id} has applied {} entries (log up to {}, snapshot {}), leader {leader} {} \
                     (log from {})",
                    theirs.applied.index,
                    theirs.last.index,
                    theirs.snapshot.index,
                    status.applied.index,
                    status.first,
                ));
            }
        }
        None
    }

    /// At rest, every member holds exactly what the committed log makes of it.
    fn compare_contents(&mut self) {
        for slot in self.slots.iter().flatten() {
            let Some(driver) = &slot.driver else { continue };
            let node = driver.node();
            // A node that was removed, or not yet added, may lag behind.
            if node.status().applied.index < self.safety.commit() {
                continue;
            }
            if let Err(broken) = self.safety.content(slot.id, node.machine()) {
                self.fail(Class::Safety, broken);
                return;
            }
        }
    }

    /// Judges what the clients were told: with the log's order always; without it for a sample of
    /// the clean runs, and for every failure of another kind, which may show more.
    pub(super) fn judge_history(&mut self) {
        let stalled = self.violation.as_ref().is_some_and(|v| v.class == Class::Liveness);
        if self.violation.is_some() && !stalled {
            return;
        }
        for (&(session, number), &(attempts, refused)) in &self.clients.refused {
            if let Err(broken) = self.safety.refused(session, number, attempts, refused) {
                self.violation = None;
                return self.fail(Class::Safety, broken);
            }
        }
        let owner = &self.clients.owner;
        let applied: Vec<witness::Applied> = self
            .safety
            .effects()
            .iter()
            .filter_map(|(index, session, number)| {
                let op = *owner.get(&(*session, *number))?;
                Some(witness::Applied { index: *index, op })
            })
            .collect();
        match witness::check(&self.clients.history, &applied) {
            Ok(stats) => {
                let placed = stats.answers + stats.gets + stats.scans;
                self.safety.count(Check::Witness, placed);
            }
            Err(message) => {
                self.violation = None;
                return self.fail(Class::Safety, Broken { checker: "linearizability", message });
            }
        }
        if self.plan.seed.is_multiple_of(BLACK_BOX_SAMPLE) {
            let limits = Limits { steps: BLACK_BOX_STEPS, ..Limits::default() };
            match linearizable::check(&self.clients.history, limits, &mut || false) {
                linearizable::Verdict::Violation(message) => {
                    let checker = "linearizability-black-box";
                    self.fail(Class::Safety, Broken { checker, message });
                }
                linearizable::Verdict::Linearizable => self.safety.count(Check::BlackBox, 1),
                linearizable::Verdict::Unknown(_) => {}
            }
        }
    }
}
