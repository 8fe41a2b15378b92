//! The second phase: the faults have stopped, and the core has to recover within bounds.
//!
//! Three moments are noted, each with the event at which it comes: there is a leader; what was
//! asked before is answered; everybody in the core agrees. Each has its bound, because a cluster
//! that elects nobody must not hide behind the time that a long backlog may take.
//!
//! From the heal on no client gives up: an operation that is refused for ever is a stall, too.

use stormkv::types::NodeId;

use super::observe::Observation;
use super::stall::Missing;
use super::{Event, EventKind, Simulation};
use crate::checker::{Broken, Check};
use crate::outcome::Class;
use crate::plan::Plan;
use crate::service::Service;

/// How often the simulation looks whether a bound is exceeded.
const LOOK_NS: u64 = 50_000_000;
/// How many of the longest election timeouts an election may take, see [`leader_bound_ns`].
const ELECTION_TIMEOUTS: u64 = 20;
/// What comes on top for what does not depend on the timeouts.
const ELECTION_GRACE_NS: u64 = 5_000_000_000;

/// How long the core may be without a leader.
///
/// Nodes come back at once, but an operation of a slow disk that is under way may take 3 s more.
/// Then an election needs some timeouts: one until the old leader is given up, and one for each
/// round that fails, because votes are split or because links with a heavy tail, up to 50 times as
/// slow as usual, delay one of them.
fn leader_bound_ns(plan: &Plan) -> u64 {
    let latency = plan.network.latency;
    let timeout_us = u64::from(plan.cluster.election_ticks[1]) * plan.cluster.tick_us;
    let round_us = timeout_us + latency.min_us + latency.mean_extra_us;
    ELECTION_GRACE_NS + ELECTION_TIMEOUTS * round_us * 1000
}

impl<S: Service> Simulation<'_, S> {
    /// The faults have stopped, and the time begins to count.
    pub(super) fn begin_recovery(&mut self) {
        self.healed_ns = Some(self.kernel.now_ns());
        self.judge_survivors();
        self.open_at_heal =
            self.clients.all.iter().filter(|client| client.current.is_some()).count();
        if self.core.is_some() {
            // The operator waits for everybody before the membership changes again.
            let operators = self.clients.all.iter_mut().filter(|client| client.number == 0);
            operators.for_each(|operator| operator.rows.clear());
        }
        self.kernel.after(1, Event::cluster(EventKind::CheckRest));
    }

    fn since_heal_ns(&self) -> u64 {
        self.kernel.now_ns() - self.healed_ns.unwrap_or(self.kernel.now_ns())
    }

    /// A client's operation has ended. Those that were open at the heal end before any later one of
    /// the same client.
    pub(super) fn note_answer(&mut self, since_ns: u64) {
        let Some(healed_ns) = self.healed_ns else { return };
        if since_ns <= healed_ns && self.open_at_heal > 0 {
            self.open_at_heal -= 1;
            if self.open_at_heal == 0 {
                self.recovery.answered_ns = Some(self.since_heal_ns());
            }
        }
    }

    /// After each event of the second phase: what has been reached by now?
    pub(super) fn watch_recovery(&mut self) {
        if self.recovery.leader_ns.is_none() {
            if !self.is_led() {
                return;
            }
            self.recovery.leader_ns = Some(self.since_heal_ns());
            self.observers.see(&Observation::CoreLed);
        }
        let idle = self.clients.all.iter().all(|c| c.current.is_none() && c.rows.is_empty());
        if idle && self.missing().is_none() {
            self.observers.see(&Observation::AtRest);
            self.recovery.converged_ns = Some(self.since_heal_ns());
            self.rested = true;
            self.safety.count(Check::Convergence, 1);
            self.note_membership();
            self.count_replaced();
            self.compare_contents();
            if self.atlas.is_exceeded() {
                self.count("recovered-beyond-quorum");
            }
        }
    }

    /// Whether somebody in the core leads the newest term, has committed an entry of it, and is
    /// followed by a quorum of the core. A leader that has lost its followers and does not know it
    /// yet is none.
    fn is_led(&self) -> bool {
        let Some(leader) = self.core_leader().filter(|id| self.cluster.leader() == Some(*id))
        else {
            return false;
        };
        let Some(node) = self.cluster.node(leader) else { return false };
        let term = node.status().hard_state.term;
        let follows = |id: NodeId| {
            let status =
                self.cluster.node(id).filter(|_| self.is_core(id)).map(|node| node.status());
            status.is_some_and(|s| s.leader == Some(leader) && s.hard_state.term == term)
        };
        node.term_at(node.status().hard_state.commit) == Some(term)
            && node.membership().is_quorum(follows)
    }

    /// Looks whether the cluster takes too long.
    pub(super) fn look_for_stall(&mut self) {
        self.observers.see(&Observation::RestChecked);
        let since_heal_ns = self.since_heal_ns();
        let bound_ns = self.plan.end.bound_us * 1000;
        // A backlog of operations may take its time, as long as one after the other is answered,
        // and nothing is late before the next operation is due.
        let asks = |client: &super::client::Client<S>| {
            let next =
                client.rows.front().map(|at| self.kernel.plan_time_ns(self.plan.ops[*at].at_us));
            client.current.is_some() || next.is_some_and(|due_ns| due_ns <= self.kernel.now_ns())
        };
        let is_due = self.clients.all.iter().any(asks)
            || self.clients.all.iter().all(|client| client.rows.is_empty());
        let last_ns = self.healed_ns.unwrap_or(0).max(self.clients.progress_ns);
        let idle_ns = if is_due { self.kernel.now_ns() - last_ns } else { 0 };
        let waited_ns = if self.recovery.leader_ns.is_none() {
            (since_heal_ns > bound_ns.min(leader_bound_ns(self.plan))).then_some(since_heal_ns)
        } else if self.open_at_heal > 0 {
            (since_heal_ns > bound_ns).then_some(since_heal_ns)
        } else {
            (idle_ns > bound_ns).then_some(idle_ns)
        };
        if self.observers.has_text() {
            let lacking = self.explain_stall();
            self.observers.see(&Observation::NotAtRest(&lacking));
        }
        match waited_ns {
            None => self.kernel.after(LOOK_NS, Event::cluster(EventKind::CheckRest)),
            Some(waited_ns) => self.stalled(waited_ns),
        }
    }

    /// The cluster has been waited for long enough.
    fn stalled(&mut self, waited_ns: u64) {
        if let Some(excuse) = self.excuse_imprudence() {
            self.observers.see(&Observation::Excused(&excuse));
            self.reach("quorum-lost-imprudently");
            self.rested = true;
            return;
        }
        if let Some(excuse) = self.excuse() {
            self.observers.see(&Observation::Excused(&excuse));
            self.count("stopped-beyond-quorum");
            self.rested = true;
            return;
        }
        let what = self.explain_stall();
        let healed = match &self.core {
            None => "all was healed".to_owned(),
            Some(core) => format!("the core {} was healed", super::stall::list(core.clone())),
        };
        let ms = waited_ns / 1_000_000;
        let message = format!("for {}.{} s after {healed}, {what}", ms / 1000, ms % 1000 / 100);
        let broken = Broken::new(Check::Convergence, message);
        let broken = match self.missing().and_then(Missing::about) {
            Some(id) => broken.at(id),
            None => broken,
        };
        self.fail(Class::Liveness, broken);
    }
}
