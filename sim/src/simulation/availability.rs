//! Availability: a healthy quorum must serve, also while faults strike the other members.
//!
//! Every [`LOOK_NS`] of simulated time the voters are divided into those that are *fit* (up, running at
//! full speed, with a disk that completes what it is asked for) and the others. A demand is in force
//! as long as fit voters that reach each other are a quorum of the membership in force, and nothing
//! excuses a pause:
//!
//! - `availability`: one of them, or a member with a wrong clock, leads, a quorum of them follows it,
//!   and what is in its log is applied, each within a bound that follows from the configuration and
//!   the drawn speeds;
//! - `leadership`: on links that lose nothing, where every member is fit or absent altogether, the
//!   leader stays in office. Nothing but a fault or a request deposes a healthy leader. Where a single
//!   late answer would, because no fit voter is spare, the links must be fast, too.
//!
//! What excuses a pause is one [`Excuse`], and each is counted: a run that excuses everything proves
//! nothing. A disturbance (a fault strikes or ends, a node starts or goes down, a change of the
//! membership) begins the time anew.

use std::collections::{BTreeMap, BTreeSet};

use stormkv::node::{Membership, Promise};
use stormkv::types::{LogIndex, NodeId, Term};

use super::Simulation;
use super::node::SimNode;
use crate::checker::{Broken, Check};
use crate::clock::TRUE_RATE;
use crate::network::{Endpoint, Rule};
use crate::outcome::Class;
use crate::plan::{Op, Plan};
use crate::service::Service;

/// How often the members are looked at.
const LOOK_NS: u64 = 50_000_000;
/// How many of the longest election timeouts an election may take: each round fails by chance only
/// when votes are split, once in five times or so.
const ROUNDS: u64 = 12;
/// What comes on top, for what does not depend on the timeouts.
const GRACE_NS: u64 = 500_000_000;
/// On links that lose messages, a round fails more often.
const LOSSY_FACTOR: u64 = 4;
/// A message takes longer than so many times the mean delay once in 3,000 times.
const SLOW_MEANS: u64 = 8;
/// After a disturbance the leader may change for so many of the longest election timeouts: a member
/// that comes back may bring a newer term.
const SETTLING_ROUNDS: u64 = 3;

/// Why nothing is demanded at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Excuse {
    /// The fit voters are no quorum.
    NoQuorum,
    /// The fit voters do not all reach each other.
    Disconnected,
    /// A link is degraded: it delays, damages, or carries in one direction only; or it was, and messages
    /// are still late.
    DegradedLink,
    /// A voter goes by another membership than the newest one, or the operator has asked for a change
    /// or a transfer. A member that is not there yet has no say, and excuses nothing.
    MembershipChange,
    /// A member repairs what its disk has lost.
    Repair,
    /// A node that works slowly leads them: it holds its office, and takes its time.
    SlowLeader,
    /// The fit voters are a quorum only with one that lacks committed entries, and gets them. One
    /// that had nothing when it became a voter is no excuse: it need not have become one so early.
    CatchUp,
}

impl Excuse {
    fn name(self) -> &'static str {
        match self {
            Excuse::NoQuorum => "excused-no-quorum",
            Excuse::Disconnected => "excused-disconnected",
            Excuse::DegradedLink => "excused-degraded-link",
            Excuse::MembershipChange => "excused-membership-change",
            Excuse::Repair => "excused-repair",
            Excuse::SlowLeader => "excused-slow-leader",
            Excuse::CatchUp => "excused-catch-up",
        }
    }
}

/// The members at one moment at which something is demanded of them.
struct Situation {
    /// The voters that are fit.
    fit: Vec<NodeId>,
    /// Every other member is absent altogether.
    is_settled: bool,
    /// The fit voters are a quorum without any one of them, too.
    has_spare: bool,
    /// One of the fit voters has nothing yet.
    has_empty: bool,
    /// A node that a quorum of fit voters follows, with its term.
    leader: Option<(NodeId, Term)>,
    /// The last entry of the leader's log, and the last that it has applied.
    last: LogIndex,
    applied: LogIndex,
}

/// What is demanded of the members, and since when.
pub(super) struct Availability {
    /// How long fit voters may be without a leader, or a leader without progress.
    bound_ns: u64,
    /// How long after a disturbance a leader may still lose its office.
    settling_ns: u64,
    /// How long a leader may be without progress because a voter is new.
    growing_ns: u64,
    /// The links lose nothing, so that leaders stay.
    is_lossless: bool,
    /// The links are so fast that no follower answers too late by chance.
    is_in_time: bool,
    /// A message that arrives later than after this time is late.
    late_ns: u64,
    next_look_ns: u64,
    /// A disturbance came after the last look.
    disturbed: bool,
    fit: Vec<NodeId>,
    /// When the demand came into force.
    since_ns: u64,
    unled_since_ns: Option<u64>,
    leader: Option<(NodeId, Term)>,
    applied: LogIndex,
    progress_ns: u64,
    longest_unled_ns: Option<u64>,
    /// Voters that had nothing when they became voters, and have not had all since.
    empty: BTreeSet<NodeId>,
    excuses: BTreeMap<Excuse, u64>,
}

impl Availability {
    pub fn new(plan: &Plan) -> Self {
        let network = &plan.network;
        let (lossless, round_ns) = (is_lossless(plan), round_ns(plan));
        let factor = if lossless { 1 } else { LOSSY_FACTOR };
        // A leader that hears of no quorum for the shortest timeout steps down. The delays are
        // exponential, so a single follower may miss that by chance.
        let timeout_us = u64::from(plan.cluster.election_ticks[0]) * plan.cluster.tick_us;
        let heartbeat_us = u64::from(plan.cluster.heartbeat_ticks) * plan.cluster.tick_us;
        let slow_us = network.latency.min_us + SLOW_MEANS * network.latency.mean_extra_us;
        let late_us = heartbeat_us + 2 * slow_us * u64::from(network.spread);
        Availability {
            bound_ns: factor * (GRACE_NS + ROUNDS * round_ns),
            settling_ns: GRACE_NS + SETTLING_ROUNDS * round_ns,
            growing_ns: factor * (GRACE_NS + SETTLING_ROUNDS * round_ns),
            // A queue that is full loses messages, too.
            is_lossless: lossless && network.kib_per_s == 0,
            is_in_time: late_us <= timeout_us,
            late_ns: round_ns + network.queue_us * 1000,
            next_look_ns: 0,
            disturbed: true,
            fit: Vec::new(),
            since_ns: 0,
            unled_since_ns: None,
            leader: None,
            applied: 0,
            progress_ns: 0,
            longest_unled_ns: None,
            empty: BTreeSet::new(),
            excuses: BTreeMap::new(),
        }
    }

    /// Something has happened that may depose a leader or delay its election.
    pub fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// How often each excuse was accepted, by name.
    pub fn excuses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.excuses.iter().map(|(excuse, count)| (excuse.name(), *count))
    }

    /// The longest time for which fit voters had no leader while one was demanded.
    pub fn longest_unled_ns(&self) -> Option<u64> {
        self.longest_unled_ns
    }

    fn excuse(&mut self, excuse: Excuse) {
        *self.excuses.entry(excuse).or_default() += 1;
        self.disturbed = true;
    }

    /// The demand begins anew.
    fn restart(&mut self, now_ns: u64, situation: &Situation) {
        self.disturbed = false;
        self.fit.clone_from(&situation.fit);
        (self.since_ns, self.progress_ns) = (now_ns, now_ns);
        (self.unled_since_ns, self.leader) = (None, None);
        self.applied = situation.applied;
    }

    /// Compares the members with what is demanded of them.
    fn judge(&mut self, now_ns: u64, situation: &Situation) -> Result<(), Broken> {
        if self.disturbed || self.fit != situation.fit {
            self.restart(now_ns, situation);
        }
        let Some(leader) = situation.leader else {
            let since_ns = *self.unled_since_ns.get_or_insert(now_ns);
            return self.unled(now_ns, since_ns);
        };
        if let Some(since_ns) = self.unled_since_ns.take() {
            let longest = self.longest_unled_ns.get_or_insert(0);
            *longest = (*longest).max(now_ns - since_ns);
        }
        let is_caught_up = situation.applied >= situation.last;
        if situation.applied > self.applied || is_caught_up || self.leader != Some(leader) {
            (self.applied, self.progress_ns) = (situation.applied, now_ns);
        }
        let stuck_ns = now_ns - self.progress_ns;
        // No election is needed when a member is added.
        let bound_ns = if situation.has_empty { self.growing_ns } else { self.bound_ns };
        if stuck_ns > bound_ns {
            let Situation { last, applied, .. } = situation;
            let message = format!(
                "{} leads a healthy quorum ({}), but for {} it has applied nothing behind entry \
                 {applied} of {last}",
                leader.0,
                super::stall::list(self.fit.clone()),
                seconds(stuck_ns),
            );
            return Err(Broken::new(Check::Availability, message).at(leader.0));
        }
        self.keeps_office(now_ns, situation, leader)
    }

    fn unled(&self, now_ns: u64, since_ns: u64) -> Result<(), Broken> {
        let unled_ns = now_ns - since_ns;
        if unled_ns <= self.bound_ns {
            return Ok(());
        }
        let message = format!(
            "for {} the voters {} have been up, connected and able to sync, and are a quorum, but \
             none of them leads them",
            seconds(unled_ns),
            super::stall::list(self.fit.clone()),
        );
        Err(Broken::new(Check::Availability, message))
    }

    fn keeps_office(
        &mut self,
        now_ns: u64,
        situation: &Situation,
        leader: (NodeId, Term),
    ) -> Result<(), Broken> {
        let demanded = self.is_lossless
            && (self.is_in_time || situation.has_spare)
            && situation.is_settled
            && now_ns - self.since_ns > self.settling_ns;
        if !demanded {
            self.leader = None;
            return Ok(());
        }
        let before = *self.leader.get_or_insert(leader);
        if before == leader {
            return Ok(());
        }
        let message = format!(
            "{} led in term {}, and {} leads in term {}, although no fault has struck for {}: \
             nothing but itself can have deposed a healthy leader",
            before.0,
            before.1,
            leader.0,
            leader.1,
            seconds(now_ns - self.since_ns),
        );
        Err(Broken::new(Check::Leadership, message).at(before.0))
    }
}

fn seconds(ns: u64) -> String {
    let ms = ns / 1_000_000;
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Returns whether the links of a plan lose nothing as long as no fault strikes.
pub(super) fn is_lossless(plan: &Plan) -> bool {
    let network = &plan.network;
    network.drop == 0.0 && network.garble == 0.0 && network.heavy_tail == 0.0
}

/// The longest election timeout with a message there and back, in nanoseconds.
pub(super) fn round_ns(plan: &Plan) -> u64 {
    let network = &plan.network;
    let election_ns = u64::from(plan.cluster.election_ticks[1]) * plan.cluster.tick_us * 1000;
    let latency_us = network.latency.min_us + 4 * network.latency.mean_extra_us;
    election_ns + 2 * latency_us * 1000 * u64::from(network.spread)
}

/// Returns whether a node runs at full speed, with a disk that completes what it is asked for, and with a
/// clock that is right.
pub(super) fn is_fit<S: Service>(slot: &SimNode<S>, now_ns: u64) -> bool {
    can_lead(slot, now_ns) && !slot.faults.has_late_timers() && slot.clock.rate() == TRUE_RATE
}

/// Returns whether a node can serve as a leader: it is fit but for its clock, by which only elections go. A
/// disk that hangs while nothing is asked of it does no harm.
fn can_lead<S: Service>(slot: &SimNode<S>, now_ns: u64) -> bool {
    let is_idle = slot.driver.as_ref().is_some_and(|driver| !driver.is_writing());
    slot.is_up()
        && slot.faults.lost().is_none()
        && !slot.faults.is_paused()
        && (!slot.faults.disk_hangs() || is_idle)
        && slot.faults.disk_slowness() == 1
        && slot.device.slowed_until_ns() <= now_ns
        && slot.inbox.as_ref().is_none_or(|inbox| !inbox.is_slowed())
        && slot.faults.crash_loop().is_none()
}

/// Whether a node takes no part in anything: it neither sends nor receives.
fn is_absent<S: Service>(slot: &SimNode<S>) -> bool {
    !slot.is_up() || slot.faults.is_paused()
}

impl<S: Service> Simulation<'_, S> {
    /// After an event: looks at the members if it is time to.
    pub(super) fn watch_availability(&mut self) {
        if self.kernel.now_ns() < self.availability.next_look_ns {
            return;
        }
        self.availability.next_look_ns = self.kernel.now_ns() + LOOK_NS;
        let mut empty = std::mem::take(&mut self.availability.empty);
        empty.retain(|id| !self.has_all(*id));
        self.availability.empty = empty;
        match self.situation() {
            Err(excuse) => {
                self.availability.excuse(excuse);
                self.catch_up.restart(None);
            }
            Ok(situation) => {
                self.safety.count(Check::Availability, 1);
                if let Err(broken) = self.availability.judge(self.kernel.now_ns(), &situation) {
                    return self.fail(Class::Liveness, broken);
                }
                match situation.leader {
                    // What is due under an overload is judged by what is answered.
                    _ if self.plan.load.is_judged() => {}
                    None => self.catch_up.restart(None),
                    Some(leader) => self.watch_catch_up(leader, self.availability.since_ns),
                }
            }
        }
    }

    /// The membership was another one `before`.
    pub(super) fn note_new_voters(&mut self, before: &Membership) {
        self.availability.disturb();
        // Of one that is down it is not known; it is no part of the fit voters anyway.
        let has_nothing =
            |id: &NodeId| self.cluster.node(*id).is_some_and(|n| n.status().last.index == 0);
        let new = self.cluster.membership().voters().iter().filter(|id| !before.votes(**id));
        let empty: Vec<NodeId> = new.copied().filter(has_nothing).collect();
        // The first membership that is seen is that of the founders.
        if !before.voters().is_empty() {
            self.availability.empty.extend(empty);
        }
    }

    fn situation(&self) -> Result<Situation, Excuse> {
        let membership = self.cluster.membership();
        if membership.is_joint() || self.is_operated() {
            return Err(Excuse::MembershipChange);
        }
        let (mut fit, mut is_settled) = (Vec::new(), true);
        for slot in self.cluster.iter().filter(|slot| membership.contains(slot.id)) {
            let is_cut_off = self.is_cut_off(slot.id);
            if is_fit(slot, self.kernel.now_ns()) && !is_cut_off {
                let node = slot.driver.as_ref().expect("it is up").node();
                if node.damage().is_some() {
                    return Err(Excuse::Repair);
                }
                if *node.membership() != *membership && node.membership().votes(slot.id) {
                    return Err(Excuse::MembershipChange);
                }
                if membership.votes(slot.id) {
                    fit.push(slot.id);
                }
            } else if !is_absent(slot) && !is_cut_off {
                is_settled = false;
            }
        }
        if !membership.is_quorum(|id| fit.contains(&id)) {
            return Err(Excuse::NoQuorum);
        }
        self.check_links(&fit)?;
        let is_empty = |id: NodeId| self.availability.empty.contains(&id);
        let is_current = |id: NodeId| fit.contains(&id) && (self.has_all(id) || is_empty(id));
        if !membership.is_quorum(is_current) {
            return Err(Excuse::CatchUp);
        }
        let up = self.cluster.iter().filter(|slot| can_lead(slot, self.kernel.now_ns()));
        let leader = up.map(|slot| slot.id).find_map(|id| self.leads_fit(id, &fit));
        let is_slowed =
            |slot: &&SimNode<S>| slot.inbox.as_ref().is_some_and(|inbox| inbox.is_slowed());
        let mut slow = self.cluster.iter().filter(is_slowed);
        if leader.is_none() && slow.any(|slot| self.leads_fit(slot.id, &fit).is_some()) {
            return Err(Excuse::SlowLeader);
        }
        let status = leader.and_then(|(id, _)| self.cluster.node(id)).map(|node| node.status());
        let (last, applied) = status.map_or((0, 0), |s| (s.last.index, s.applied.index));
        let has_empty = fit.iter().any(|id| is_empty(*id));
        let has_spare = fit.len() > membership.voters().len() / 2 + 1;
        // A leader that loses its vote hands over when the new voters have caught up.
        is_settled &= !membership.promises().iter().any(Promise::unseats_any);
        Ok(Situation { fit, is_settled, has_spare, has_empty, leader, last, applied })
    }

    /// Returns whether a node has all that is committed.
    fn has_all(&self, id: NodeId) -> bool {
        let commit = self.safety.commit();
        self.cluster.node(id).is_some_and(|node| node.status().last.index >= commit)
    }

    /// The operator has a request under way that may move the leadership.
    fn is_operated(&self) -> bool {
        let currents = self.clients.all.iter().filter_map(|client| client.current.as_ref());
        let mut ops = currents.map(|current| &self.plan.ops[current.row].call.op);
        ops.any(Op::is_admin)
    }

    /// The member is outside of the core: it never gets well again.
    fn is_lost(&self, id: NodeId) -> bool {
        let slot = self.cluster.get(id);
        slot.is_some_and(|slot| slot.faults.lost().is_some())
    }

    /// Cut off from every other member, in both directions or, once it is lost, in one.
    fn is_cut_off(&self, id: NodeId) -> bool {
        let end = Endpoint::Node(id.0);
        self.is_lost(id)
            || self.network.suffers(|rule| match rule {
                Rule::Isolate(members) => members.contains(&end) && members.len() == 1,
                _ => false,
            })
    }

    /// Whether all of these reach each other, and no link is degraded.
    fn check_links(&self, fit: &[NodeId]) -> Result<(), Excuse> {
        let is_lost = |end: &Endpoint| match end {
            Endpoint::Node(id) => self.is_lost(NodeId(*id)),
            Endpoint::Client(_) => false,
        };
        for rule in self.network.rules() {
            match rule {
                Rule::Isolate(_) | Rule::Groups(_) => {}
                Rule::OneWay { from, to } if from.are_all(is_lost) || to.are_all(is_lost) => {}
                _ => return Err(Excuse::DegradedLink),
            }
        }
        let links = || {
            let others = |from: NodeId| fit.iter().filter(move |to| **to != from);
            fit.iter().flat_map(move |from| others(*from).map(move |to| (*from, *to)))
        };
        if links().any(|(from, to)| self.is_late(from, to)) {
            return Err(Excuse::DegradedLink);
        }
        match links().any(|(from, to)| self.is_cut(from, to)) {
            true => Err(Excuse::Disconnected),
            false => Ok(()),
        }
    }

    /// Returns whether a fault keeps all messages from one to the other back.
    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.network.is_cut(Endpoint::Node(from.0), Endpoint::Node(to.0))
    }

    /// Returns whether a message from one to the other arrives late because of a fault, which may be over.
    pub(super) fn is_late(&self, from: NodeId, to: NodeId) -> bool {
        let (from, to) = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        self.network.last_arrival_ns(from, to) > self.kernel.now_ns() + self.availability.late_ns
    }

    /// Whether a quorum of these follows this one, and in which term.
    fn leads_fit(&self, id: NodeId, fit: &[NodeId]) -> Option<(NodeId, Term)> {
        if !self.cluster.leads(id) {
            return None;
        }
        let term = self.cluster.node(id)?.status().hard_state.term;
        let follows = |peer: NodeId| {
            let status =
                self.cluster.node(peer).filter(|_| fit.contains(&peer)).map(|node| node.status());
            status.is_some_and(|s| s.leader == Some(id) && s.hard_state.term == term)
        };
        self.cluster.membership().is_quorum(follows).then_some((id, term))
    }
}
