//! Linearizable queries without a log entry: ReadIndex (Raft thesis, 6.4).
//!
//! A query may be answered from the applied state once that state contains everything that was
//! committed when the query arrived. The leader knows the commit index and makes sure, with a round
//! of heartbeats, that it still leads; a follower asks the leader. Queries that arrive close
//! together share a round, which begins when all of them are there. A round that gets no answer is
//! repeated with a fresh context: an old context may belong to an older question, and its answer
//! may be too old.
//!
//! An answer is a copy of up to a megabyte, made while nothing else happens. So one call of
//! [`process`](Node::process) makes no more than
//! [`max_answer_bytes`](crate::config::Config::max_answer_bytes) of them; the queries that are left
//! wait for the next call, stale ones too, and heartbeats go out in between.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Node, Origin, Output};
use crate::api::{Refusal, Reply};
use crate::bugs::{self, Bug, planted};
use crate::config::Config;
use crate::machine::StateMachine;
use crate::take;
use crate::types::{LogIndex, NodeId};
use crate::wire::Message;

/// Rounds under way at the same time. Queries that arrive meanwhile wait for the next.
const MAX_ROUNDS: usize = 4;

#[derive(Debug)]
struct Read {
    origin: Origin,
    /// Empty for another member's question: it wants the index only.
    query: Bytes,
    deadline: u64,
}

#[derive(Debug)]
struct Round {
    id: u64,
    asked_at: u64,
    reads: Vec<Read>,
}

/// The queries that wait, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// For a round.
    waiting: Vec<Read>,
    /// Some of them wait for nothing else: ask as soon as a round may begin.
    due: bool,
    /// For the answer to a round.
    rounds: VecDeque<Round>,
    /// For an index to be applied.
    confirmed: VecDeque<(LogIndex, Vec<Read>)>,
    /// For nothing but room in the answers of one `process`.
    ready: VecDeque<Read>,
    count: usize,
    /// Until when [`Bug::LeaseSurvivesTransfer`] asks nobody.
    lease_until: u64,
    /// Bytes answered since `process` began, long responses to commands included.
    answered: usize,
    /// Answers to stale reads, for a bug that keeps them.
    cached: BTreeMap<Bytes, (LogIndex, Bytes)>,
}

impl Reads {
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is room for one more answer.
    pub fn have_room(&self, config: &Config) -> bool {
        self.answered < config.max_answer_bytes
    }

    /// An answer of so many bytes is made.
    pub fn take_room(&mut self, bytes: usize) {
        self.answered += bytes;
    }

    /// Whether some could be answered at once, if only there were room.
    pub fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl<M: StateMachine> Node<M> {
    pub(super) fn read(&mut self, origin: Origin, query: Bytes) {
        if self.reads.count >= self.config.max_pending {
            self.answer(origin, Reply::Refused(Refusal::Busy));
            return;
        }
        if self.raft.leader().is_none() {
            self.answer(origin, Reply::Refused(Refusal::NotLeader(None)));
            return;
        }
        if matches!(origin, Origin::Client(_)) && self.trusts_itself() {
            return self.read_stale(origin, query);
        }
        let deadline = self.now + u64::from(self.config.request_ticks);
        self.reads.waiting.push(Read { origin, query, deadline });
        self.reads.count += 1;
        self.reads.due = true;
    }

    /// Answers a query from the present state, at once if there is room for the answer.
    pub(super) fn read_stale(&mut self, origin: Origin, query: Bytes) {
        if planted(Bug::StaleReadGoesBack) {
            let (machine, index) = (&self.replica.machine, self.replica.applied().index);
            let fresh = || (index, machine.query(&query));
            let (index, response) = self.reads.cached.entry(query.clone()).or_insert_with(fresh);
            let (index, response) = (*index, response.clone());
            return self.answer(origin, Reply::Value { index, response });
        }
        if !self.reads.are_ready() && self.reads.have_room(&self.config) {
            self.answer_query(origin, &query);
        } else if self.reads.count >= self.config.max_pending {
            self.answer(origin, Reply::Refused(Refusal::Busy));
        } else {
            let deadline = self.now + u64::from(self.config.request_ticks);
            self.reads.ready.push_back(Read { origin, query, deadline });
            self.reads.count += 1;
        }
    }

    /// Whether the member would answer a read by itself, as several bugs have it.
    fn trusts_itself(&self) -> bool {
        let heard = |id: NodeId| {
            self.raft.progress().any(|(peer, progress)| peer == id && progress.recent_active)
        };
        let (leads, membership) = (self.raft.is_leader(), self.replica.membership());
        let me = |id: NodeId| id == self.config.id;
        (planted(Bug::ReadAtOnce) && leads)
            || (planted(Bug::LeaseReads) && leads && membership.is_quorum(|id| me(id) || heard(id)))
            || (planted(Bug::LeaseSurvivesTransfer) && self.now < self.reads.lease_until)
    }

    /// Another member asks for an index.
    pub(super) fn asked_read_index(&mut self, from: NodeId, id: u64) {
        if !self.raft.is_leader() || self.reads.count >= self.config.max_pending {
            let message = Message::ReadIndexAnswer { id, index: None };
            self.outputs.push(Output::Send { to: from, message });
            return;
        }
        self.read(Origin::Peer(from, id), Bytes::new());
    }

    /// Begins a round for the queries that wait, if one may begin.
    pub(super) fn ask(&mut self) {
        let wanted = self.reads.due && !self.reads.waiting.is_empty();
        if !wanted || self.reads.rounds.len() >= MAX_ROUNDS {
            return;
        }
        // Raft drops the question of a leader that has not committed anything in its term.
        if self.raft.is_leader() && !self.raft.committed_in_term() {
            return;
        }
        let id = self.fresh_id();
        if self.raft.is_leader() || planted(Bug::ReadIndexForwarded) {
            self.raft.read_index(self.context(id));
        } else if let Some(leader) = self.raft.leader() {
            // What other members asked while this one led is theirs to ask again.
            self.drop_peer_reads();
            self.outputs.push(Output::Send { to: leader, message: Message::ReadIndex { id } });
        } else {
            return;
        }
        self.reads.due = false;
        let reads = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.push_back(Round { id, asked_at: self.now, reads });
    }

    fn drop_peer_reads(&mut self) {
        let (peers, own): (Vec<_>, Vec<_>) = std::mem::take(&mut self.reads.waiting)
            .into_iter()
            .partition(|read| matches!(read.origin, Origin::Peer(..)));
        self.reads.waiting = own;
        for read in peers {
            self.refuse_read(&read);
        }
    }

    /// Unique across members and lives, because raft matches acknowledgements by it.
    fn context(&self, id: u64) -> Vec<u8> {
        let mut context = self.config.id.0.to_le_bytes().to_vec();
        context.extend(self.config.incarnation.to_le_bytes());
        context.extend(id.to_le_bytes());
        context
    }

    /// Raft has confirmed one of our rounds as leader.
    pub(super) fn read_index_known(&mut self, context: &[u8], index: LogIndex) {
        let Some(id) = context.last_chunk::<8>() else { return };
        if planted(Bug::LeaseSurvivesTransfer) {
            self.reads.lease_until = self.now + u64::from(self.config.election_ticks.0) / 2;
        }
        self.confirm(u64::from_le_bytes(*id), index);
    }

    /// The leader has answered.
    pub(super) fn answered_read_index(&mut self, id: u64, index: Option<LogIndex>) {
        match index {
            Some(index) => self.confirm(id, index),
            // Ask again with the next tick: by then the leader may be known.
            None => {
                if let Some(round) = self.take_round(id) {
                    self.reads.waiting.extend(round.reads);
                }
            }
        }
    }

    fn take_round(&mut self, id: u64) -> Option<Round> {
        let at = self.reads.rounds.iter().position(|round| round.id == id)?;
        self.reads.rounds.remove(at)
    }

    fn confirm(&mut self, id: u64, index: LogIndex) {
        let Some(round) = self.take_round(id) else { return };
        let (peers, own): (Vec<_>, Vec<_>) =
            round.reads.into_iter().partition(|read| matches!(read.origin, Origin::Peer(..)));
        for read in peers {
            let Origin::Peer(to, id) = read.origin else { unreachable!("partitioned by it") };
            self.reads.count -= 1;
            let message = Message::ReadIndexAnswer { id, index: Some(index) };
            self.outputs.push(Output::Send { to, message });
        }
        if !own.is_empty() {
            self.reads.confirmed.push_back((index, own));
            self.serve_reads();
        }
        self.reads.due = true;
    }

    /// Answers the confirmed queries whose index is applied, as far as there is room.
    pub(super) fn serve_reads(&mut self) {
        let applied = self.replica.applied().index;
        while let Some((_, reads)) = take::pop_front_if(&mut self.reads.confirmed, |(index, _)| {
            *index <= applied || planted(Bug::ReadNotAwaited)
        }) {
            self.reads.ready.extend(reads);
        }
        while self.reads.have_room(&self.config)
            && let Some(read) = self.reads.ready.pop_front()
        {
            self.reads.count -= 1;
            self.answer_query(read.origin, &read.query);
        }
    }

    /// A new call of `process` has room for answers again. Those who waited for it come first.
    pub(super) fn make_room(&mut self) {
        self.reads.answered = 0;
        if self.reads.are_ready() {
            self.serve_reads();
        }
    }

    fn answer_query(&mut self, origin: Origin, query: &Bytes) {
        let mut response = self.replica.machine.query(query);
        self.reads.take_room(response.len());
        let index = self.replica.applied().index;
        if planted(Bug::WrongRevisionReported) {
            response = bugs::with_revision(response, index);
        }
        self.answer(origin, Reply::Value { index, response });
    }

    fn refuse_read(&mut self, read: &Read) {
        self.reads.count -= 1;
        match read.origin {
            Origin::Client(_) => {
                let leader = self.raft.leader();
                self.answer(read.origin, Reply::Refused(Refusal::NotLeader(leader)));
            }
            Origin::Peer(to, id) => {
                let message = Message::ReadIndexAnswer { id, index: None };
                self.outputs.push(Output::Send { to, message });
            }
        }
    }

    /// Repeats the rounds that got no answer, and gives up on queries whose time is up. A query has
    /// no effect, so giving up on it is a refusal and never "unknown".
    pub(super) fn tick_reads(&mut self) {
        if self.reads.count == 0 {
            return;
        }
        let (now, retry) = (self.now, u64::from(self.config.read_retry_ticks));
        if planted(Bug::DroppedReadServedLocally)
            && let Some(round) = self.reads.rounds.front()
            && round.asked_at + retry <= now
        {
            self.confirm(round.id, 0);
        }
        while let Some(round) =
            take::pop_front_if(&mut self.reads.rounds, |round| round.asked_at + retry <= now)
        {
            if planted(Bug::ReadIndexForwarded) && round.reads.iter().all(|r| r.deadline > now) {
                self.raft.read_index(self.context(round.id));
                self.reads.rounds.push_back(Round { asked_at: now, ..round });
                continue;
            }
            self.reads.waiting.extend(round.reads);
        }
        let mut late: Vec<Read> =
            self.reads.waiting.extract_if(.., |read| read.deadline <= now).collect();
        for (_, reads) in &mut self.reads.confirmed {
            late.extend(reads.extract_if(.., |read| read.deadline <= now));
        }
        self.reads.confirmed.retain(|(_, reads)| !reads.is_empty());
        for read in late {
            self.refuse_read(&read);
        }
        // The deadlines rise from front to back, nearly; nobody is forgotten.
        while let Some(read) =
            take::pop_front_if(&mut self.reads.ready, |read| read.deadline <= now)
        {
            self.reads.count -= 1;
            self.answer(read.origin, Reply::Refused(Refusal::Busy));
        }
        self.reads.due = true;
    }
}
