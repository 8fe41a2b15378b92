//! Requests on their way into the log.
//!
//! They wait until the node has been given all inputs there are, and are then taken up together,
//! in the order in which they came. The commands among them become the entries of one proposal, so
//! they share one append to each follower, one record of the write-ahead log and one fsync.
//!
//! Raft accepts the entries of a proposal all or none. What is refused has certainly had no effect,
//! and no more is refused than must be: the entries of a refused proposal are tried one by one.
//!
//! A client that hears nothing sends its command again. If the retry were proposed too, a busy
//! cluster would work on copies only: so one whose outcome is known is answered at once, and one
//! whose entry is open waits for that entry. For the same reason a request that would be answered
//! too late is refused: the client has given up by then, and the work is wasted.

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::backlog;
use super::clock::ClusterClock;
use super::membership;
use super::promise::{Change, MAX_PROMISES};
use super::waiting::Waiter;
use super::{Forwarded, Node, Origin, Output, Proposal};
use crate::api::{Consistency, Reconfigure, Refusal, Reply, Request};
use crate::bugs::{self, Bug, planted};
use crate::machine::StateMachine;
use crate::session::MAX_KEPT_RESPONSE;
use crate::take;
use crate::types::{LogIndex, NodeId, SessionId, SnapshotId, Term};
use crate::wire::Message;

/// Bytes an entry takes in an append beside its data, at most.
const ENTRY_OVERHEAD: u64 = 32;

/// Commands that are proposed together: who asked, and the data of the entry.
#[derive(Default)]
struct Batch {
    origins: Vec<Origin>,
    entries: Vec<Bytes>,
    /// Sessions and numbers of those that have one.
    commands: BTreeSet<(SessionId, u64)>,
    /// What they take in an append.
    bytes: u64,
    /// The same of all that was taken up together, proposed already or not: none of it waits for the
    /// disk yet, but all of it is about to.
    taken_up: u64,
    /// What they cost a leader; see [`backlog`].
    work: u64,
}

/// Whether `id` is no voter any more after `change`.
pub(super) fn leaves(change: &Reconfigure, id: NodeId) -> bool {
    change.removed.contains(&id) || change.learners.contains(&id)
}

impl<M: StateMachine> Node<M> {
    /// Answers, passes on or proposes each request that has arrived.
    pub(super) fn take_up_requests(&mut self) {
        if self.arrived.is_empty() || self.stopped.is_some() {
            return;
        }
        self.follow_log();
        let mut batch = Batch::default();
        for (origin, request) in mem::take(&mut self.arrived) {
            self.take_up(origin, request, &mut batch);
        }
        self.propose(&mut batch);
    }

    fn take_up(&mut self, origin: Origin, request: Request, batch: &mut Batch) {
        if self.has_left() {
            self.answer(origin, Reply::Refused(Refusal::Stopping));
            return;
        }
        let size = match &request {
            Request::Command { command, .. } => command.len(),
            Request::Query { query, .. } => query.len(),
            Request::Reconfigure(change) | Request::ForceReconfigure(change) => {
                let ids = change.voters.len() + change.learners.len() + change.removed.len();
                let addresses: usize = change.addresses.values().map(String::len).sum();
                8 * (ids + change.addresses.len()) + addresses
            }
            Request::OpenSession | Request::Transfer(_) => 0,
        };
        if size > self.config.max_command_bytes {
            self.answer(origin, Reply::Refused(Refusal::TooLarge));
            return;
        }
        match request {
            Request::Command { session: Some((id, number)), command }
                if !planted(Bug::RetryProposedAgain)
                    && let Some(reply) = self.replica.settled(id, number, &command) =>
            {
                self.answer(origin, reply);
            }
            Request::Query { query, consistency: Consistency::Stale } => {
                self.read_stale(origin, query);
            }
            Request::Query { query, consistency: Consistency::Linearizable } => {
                self.read(origin, query);
            }
            request if self.raft.is_leader() => self.lead(origin, request, size as u64, batch),
            request => self.forward(origin, request),
        }
    }

    /// The member whose disk has no room for what this request, of `size` bytes, asks of a leader.
    fn lacks_room_for(&self, request: &Request, size: u64) -> Option<NodeId> {
        let grows = match request {
            // Handing over leadership adds nothing.
            Request::Transfer(_) => return None,
            Request::Command { command, .. } => self.replica.machine.grows(command),
            _ => false,
        };
        let of_state = if grows { self.short_member() } else { None };
        of_state.or_else(|| self.log_has_no_room_for(size).then_some(self.config.id))
    }

    /// Passes a request on to the leader.
    fn forward(&mut self, origin: Origin, request: Request) {
        let leader = self.raft.leader().filter(|leader| *leader != self.config.id);
        match (origin, leader) {
            (Origin::Client(client), Some(leader)) => {
                if self.forwards.len() >= self.config.max_pending {
                    self.answer(origin, Reply::Refused(Refusal::Busy));
                    return;
                }
                let id = self.fresh_id();
                let deadline = self.now + u64::from(self.config.request_ticks);
                self.forwards.insert(id, Forwarded { request: client, leader, deadline });
                let message = Message::Forward { id, request };
                self.outputs.push(Output::Send { to: leader, message });
            }
            // One hop is enough: who passed it on to us knows better soon.
            _ => self.answer(origin, Reply::Refused(Refusal::NotLeader(leader))),
        }
    }

    /// Begins what only a leader can do. What changes the membership or hands over leadership has
    /// its place between the commands before and after it.
    fn lead(&mut self, origin: Origin, request: Request, size: u64, batch: &mut Batch) {
        if let Request::Command { session: Some(number), command } = &request
            && self.join(origin, *number, command, batch)
        {
            return;
        }
        // Handing over leadership adds nothing, and is what helps when the disk hangs.
        let unsynced = self.unsynced + batch.taken_up;
        let lags = (unsynced > self.config.max_unsynced_bytes
            || self.admitted >= self.admissible_bytes())
            && !matches!(request, Request::Transfer(_));
        // Nobody waits any more for a proposal whose time is up, but its entry may stay open.
        let uncommitted = self.raft.last_index() - self.raft.commit();
        let open = self.waiting.len().max(uncommitted as usize) + batch.entries.len();
        let late = matches!(request, Request::Command { .. } | Request::OpenSession)
            && self.would_be_late(batch);
        if lags || late || open >= self.config.max_pending {
            self.answer(origin, Reply::Refused(Refusal::Busy));
            return;
        }
        if let Some(member) = self.lacks_room_for(&request, size) {
            self.answer(origin, Reply::Refused(Refusal::DiskFull(member)));
            return;
        }
        match request {
            Request::OpenSession => self.collect(origin, Proposal::OpenSession, batch),
            Request::Command { session, command } => {
                // Afterwards: a batch that is full is proposed first, with its commands.
                self.collect(origin, Proposal::Command(session, &command), batch);
                batch.commands.extend(session);
            }
            Request::Reconfigure(change) => {
                self.propose(batch);
                self.propose_change(origin, &change, false);
            }
            Request::ForceReconfigure(change) => {
                self.propose(batch);
                self.propose_change(origin, &change, true);
            }
            Request::Transfer(to) => {
                self.propose(batch);
                let reply = if self.replica.membership().voters().contains(&to) {
                    self.raft.transfer_leader(to);
                    Reply::Transferring
                } else {
                    Reply::Refused(Refusal::InvalidReconfiguration)
                };
                self.answer(origin, reply);
            }
            Request::Query { .. } => unreachable!("queries are not for the log"),
        }
    }

    /// Reads what is open from the log, once in each term that this node leads.
    fn follow_log(&mut self) {
        let term = self.raft.term();
        if self.raft.is_leader() && self.backlog.term() != term {
            let open = self.raft.normal_entries_after(self.replica.applied().index);
            let entries = open.iter().map(|(index, data)| (*index, data));
            self.backlog.begin(term, self.now, entries);
            let newest = open.iter().rev().find_map(|(_, data)| Proposal::stamp(data));
            self.continue_time(newest.unwrap_or_else(|| self.replica.time()));
        }
    }

    /// Lets the cluster's time go on from the last stamp of the log that this node leads.
    fn continue_time(&mut self, newest: Duration) {
        if planted(Bug::ClockNotContinued) {
            self.clock = ClusterClock::new(self.config.tick, Duration::ZERO);
            return;
        }
        assert!(newest >= self.replica.time(), "stamps never decrease along a log");
        self.clock.advance_to(newest, self.now);
    }

    /// Lets a request wait for the entry that holds its command already, if one does: an entry of
    /// this leader or an earlier one, committed or not. It gets the answer of that entry, which is
    /// named by index and term as ever. If the entry holds another command with the same number, the
    /// request is refused: only one of the two can take effect. Returns whether it took care of the request.
    fn join(
        &mut self,
        origin: Origin,
        (session, number): (SessionId, u64),
        command: &[u8],
        batch: &mut Batch,
    ) -> bool {
        if planted(Bug::RetryProposedAgain) || planted(Bug::DeduplicatedAtProposal) {
            return false;
        }
        if batch.commands.contains(&(session, number)) {
            // It came together with the attempt before it. That gets its place first.
            self.propose(batch);
        }
        let Some(index) = self.backlog.copy_of(session, number) else { return false };
        let term = self.raft.term_at(index).expect("an open entry is in the log");
        let open = self.raft.entry_data(index).expect("an open entry is in the log");
        let same =
            matches!(Proposal::decode(&open), Some(Proposal::Command(_, open)) if open == command);
        if !same && !planted(Bug::NumberReused) {
            self.answer(origin, Reply::Refused(Refusal::NumberReused));
            return true;
        }
        // It adds nothing to the log, but is kept and answered.
        if self.waiting.len() + batch.origins.len() >= self.config.max_pending {
            self.answer(origin, Reply::Refused(Refusal::Busy));
        } else {
            self.wait_for(origin, index, term);
        }
        true
    }

    /// The time over which a leader watches how fast its log is applied, in ticks. Short against
    /// the time of a request, so that an overload is noticed before it has piled up too much, and
    /// long against what a large write takes.
    pub(super) fn backlog_span(&self) -> u64 {
        (u64::from(self.config.request_ticks) / 8).max(1)
    }

    /// Whether a new entry would probably not be applied in half of the time that a request has: the
    /// other half is for the way here and back, and for errors of the estimate.
    fn would_be_late(&self, batch: &Batch) -> bool {
        let half = u64::from(self.config.request_ticks) / 2;
        !planted(Bug::OverloadAdmitted) && self.backlog.wait(self.now, batch.work) > half
    }

    /// Adds a command to the batch. A batch that no single append could carry is proposed in
    /// parts: raft sends one append per proposal, and the rest only when that is acknowledged.
    fn collect(&mut self, origin: Origin, proposal: Proposal<'_>, batch: &mut Batch) {
        let data = proposal.encode(self.clock.at(self.now));
        let bytes = data.len() as u64 + ENTRY_OVERHEAD;
        if batch.bytes + bytes > self.config.max_message_bytes {
            self.propose(batch);
        }
        batch.bytes += bytes;
        batch.taken_up += bytes;
        self.admitted += bytes;
        batch.work += backlog::work(&data);
        self.space.take(bytes);
        batch.origins.push(origin);
        batch.entries.push(data);
    }

    /// Proposes what is in the batch, and leaves it empty.
    fn propose(&mut self, batch: &mut Batch) {
        let Batch { origins, entries, taken_up, .. } = mem::take(batch);
        batch.taken_up = taken_up;
        if entries.is_empty() {
            return;
        }
        if let Some((first, term)) = self.raft.propose(&entries) {
            for ((origin, index), data) in origins.into_iter().zip(first..).zip(&entries) {
                self.backlog.push(self.now, index, data);
                if planted(Bug::AcknowledgedOnAppend)
                    && let Some(response) = bugs::response_to_put(index, data)
                {
                    self.answer(origin, Reply::Applied { index, response });
                    continue;
                }
                self.proposed(origin, Some((index, term)));
            }
            return;
        }
        // Too many bytes are not committed yet; some of these may still have room.
        for (origin, data) in origins.into_iter().zip(&entries) {
            let place = self.raft.propose(std::slice::from_ref(data));
            if let Some((index, _)) = place {
                self.backlog.push(self.now, index, data);
            }
            self.proposed(origin, place);
        }
    }

    /// Proposes a change at once, or, if it gives a vote to a member that lacks a part of the log, as
    /// a promise. `forced`: whoever answers.
    fn propose_change(&mut self, origin: Origin, change: &Reconfigure, forced: bool) {
        let waits = planted(Bug::RefusedChangeNotAnswered) && self.waiting.has_endless();
        let membership = self.replica.membership();
        let at_once = self.have_all(&change.voters) || planted(Bug::VoterAddedAtOnce);
        let is_full = !at_once && membership.promises().len() >= MAX_PROMISES;
        let refusal = if waits || self.raft.has_pending_change() || membership.is_joint() || is_full
        {
            Some(Refusal::ReconfigurationPending)
        } else if !membership.allows(change)
            || !membership.keeps_roles(change)
            || !(membership.keeps_addresses_apart(change) || planted(Bug::AddressTaken))
            || (at_once && !membership.keeps_promises(change))
        {
            Some(Refusal::InvalidReconfiguration)
        } else if at_once && !forced && !self.is_prudent(change) {
            Some(Refusal::QuorumAtRisk)
        } else if at_once
            && leaves(change, self.config.id)
            && !planted(Bug::LeaderRemovesItself)
            && self.hand_over(change)
        {
            Some(Refusal::Transferring)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.answer(origin, Reply::Refused(refusal));
            return;
        }
        let change = match at_once {
            true => Change::from(change.clone()),
            false => Change::promising(change, self.replica.membership()),
        };
        let place = self.raft.propose_change(membership::to_raft(&change));
        self.proposed(origin, place);
    }

    /// Returns whether a quorum of the voters after a change answers. Unchecked, a change could leave
    /// a membership that commits nothing any more, the next change included.
    fn is_prudent(&self, change: &Reconfigure) -> bool {
        // A voter that has nothing does not answer either.
        let unchecked = planted(Bug::QuorumNotChecked) || planted(Bug::VoterAddedAtOnce);
        unchecked || self.replica.membership().keeps_quorum(change, |id| self.is_active(id))
    }

    /// A leader does not remove or demote itself: it first hands over to the voter that stays, answers and
    /// has the most of the log. Returns whether there is one. Raft clears its own flag of who is active
    /// at the tick at which it gives a transfer up: by that flag all voters are equal at that moment, and
    /// one that hears nothing may be chosen each time.
    pub(super) fn hand_over(&mut self, change: &Reconfigure) -> bool {
        let me = self.config.id;
        let stays = |id: NodeId| {
            id != me && !leaves(change, id) && self.replica.membership().voters().contains(&id)
        };
        let best = self
            .raft
            .progress()
            .filter(|(id, _)| stays(*id))
            .max_by_key(|(id, progress)| (self.is_active(*id), progress.matched, id.0))
            .map(|(id, _)| id);
        if let Some(best) = best {
            debug!(id = %me, to = %best, "handing over before being removed");
            self.raft.transfer_leader(best);
        }
        best.is_some()
    }

    /// Raft leaves a joint configuration by itself, unless its leader changed at a bad moment.
    pub(super) fn leave_joint(&mut self) {
        if self.raft.is_leader()
            && self.replica.membership().is_joint()
            && !self.raft.has_pending_change()
            && !self.raft.is_transferring()
        {
            self.raft.propose_change(raft::eraftpb::ConfChangeV2::default());
        }
    }

    fn proposed(&mut self, origin: Origin, place: Option<(LogIndex, Term)>) {
        let Some((index, term)) = place else {
            let transferring = self.raft.is_transferring();
            let refusal = if transferring { Refusal::Transferring } else { Refusal::Busy };
            self.answer(origin, Reply::Refused(refusal));
            return;
        };
        self.wait_for(origin, index, term);
    }

    fn wait_for(&mut self, origin: Origin, index: LogIndex, term: Term) {
        let deadline = self.now + u64::from(self.config.request_ticks);
        for displaced in self.waiting.add(index, Waiter { term, origin, deadline }) {
            self.answer(displaced, Reply::LeaderLost);
        }
    }

    /// The entry at `id` was applied: all who wait for it get its reply. Only index and term
    /// together name an entry.
    pub(super) fn resolve(&mut self, id: SnapshotId, reply: Reply) {
        for (origin, reply) in self.resolved(id, reply) {
            self.answer(origin, reply);
        }
    }

    /// The same, but for the caller to answer.
    pub(super) fn resolved(&mut self, id: SnapshotId, reply: Reply) -> Vec<(Origin, Reply)> {
        let refused = matches!(
            reply,
            Reply::Refused(Refusal::ReconfigurationPending | Refusal::InvalidReconfiguration)
        );
        if planted(Bug::RefusedChangeNotAnswered) && refused {
            self.waiting.forget_deadlines(id.index);
            return Vec::new();
        }
        let mut resolved = Vec::new();
        while let Some(Waiter { term, origin, .. }) = self.waiting.pop(id.index) {
            // Another entry is committed in the place of theirs, which never will be.
            let reply = if term == id.term || planted(Bug::CompletedByIndex) {
                reply.clone()
            } else {
                Reply::Refused(Refusal::Superseded)
            };
            resolved.push((origin, reply));
        }
        resolved
    }

    pub(super) fn answer(&mut self, origin: Origin, reply: Reply) {
        let reply = self.within_room(reply);
        self.outputs.push(match origin {
            Origin::Client(request) => Output::Reply { request, reply },
            Origin::Peer(to, id) => Output::Send { to, message: Message::Answer { id, reply } },
        });
    }

    /// A long response to a command takes up room, like the answers to queries. It cannot wait for
    /// room as they do, because its entry is applied now; without room it is not made, as thousands
    /// of small commands that are committed together may have megabytes of response each.
    fn within_room(&mut self, reply: Reply) -> Reply {
        match reply {
            Reply::Applied { index, response } if response.len() > MAX_KEPT_RESPONSE => {
                if self.reads.have_room(&self.config) || planted(Bug::LargeAnswersKept) {
                    self.reads.take_room(response.len());
                    Reply::Applied { index, response }
                } else {
                    Reply::NotKept { index, bytes: response.len() as u64 }
                }
            }
            reply => reply,
        }
    }

    /// Leaves open what became of the requests that were passed on to `peer`.
    pub(super) fn doubt_forwards(&mut self, peer: NodeId) {
        let lost =
            take::extract_if(&mut self.forwards, .., |_, forwarded| forwarded.leader == peer);
        let clients: Vec<_> = lost.into_iter().map(|(_, forwarded)| forwarded.request).collect();
        for client in clients {
            self.answer(Origin::Client(client), Reply::LeaderLost);
        }
    }

    /// Answers the requests whose time is up. Their outcome is unknown, never "failed": the entry
    /// may be committed later.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        if !now.is_multiple_of(4) {
            return;
        }
        let mut origins = self.waiting.take_late(now);
        let late =
            take::extract_if(&mut self.forwards, .., |_, forwarded| forwarded.deadline <= now);
        origins.extend(late.into_iter().map(|(_, forwarded)| Origin::Client(forwarded.request)));
        for origin in origins {
            self.answer(origin, Reply::Unknown);
        }
    }
}
