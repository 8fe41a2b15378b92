//! The raft crate behind a wrapper that makes its elections deterministic.
//!
//! The crate draws each election timeout from the thread's random generator, deep inside of
//! `step` and `tick`. The drawn value is only read at the beginning of the next tick, so it is
//! enough to overwrite it after every call, with a hash of what identifies the wait: member, life,
//! term and role. Whether a draw took place must not matter (to overwrite only "when it changed"
//! would itself be random), hence the value has no memory. Nobody else holds the inner node, so
//! nobody can forget.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};
use raft::{GetEntriesContext, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole};

use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::error::Error;
use crate::log::Log;
use crate::types::{HardState, LogIndex, NodeId, Term};

pub(crate) struct Raft {
    inner: RawNode<Log>,
    /// Hash of seed, member and life, and of later seeds.
    key: u64,
    min: u64,
    span: u64,
}

impl Raft {
    pub fn new(config: &Config, log: Log, applied: LogIndex) -> Result<Self, Error> {
        let (min, max) = config.election_ticks;
        let settings = raft::Config {
            id: config.id.0,
            election_tick: min as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: config.max_message_bytes,
            max_inflight_msgs: config.max_inflight,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: min as usize,
            max_election_tick: max as usize,
            // Lease-based reads are stale even without clock skew (etcd-io/raft #166).
            read_only_option: if planted(Bug::RaftLeaseReads) {
                ReadOnlyOption::LeaseBased
            } else {
                ReadOnlyOption::Safe
            },
            // Batching glues entries to an empty append and can commit what only the leader has.
            batch_append: planted(Bug::AppendsGlued),
            max_uncommitted_size: config.max_uncommitted_bytes,
            max_committed_size_per_ready: config.max_apply_bytes,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let inner = RawNode::new(&settings, log, &logger)
            .map_err(|error| Error::Config(error.to_string()))?;
        let key = mix(mix(config.seed, config.id.0), config.incarnation);
        let mut raft =
            Raft { inner, key, min: u64::from(min), span: u64::from(max) - u64::from(min) };
        raft.settle();
        Ok(raft)
    }

    /// From now on, other election timeouts.
    pub fn reseed(&mut self, seed: u64) {
        self.key = mix(self.key, seed);
        self.settle();
    }

    fn settle(&mut self) {
        let raft = &mut self.inner.raft;
        let draw = mix(self.key, raft.term << 2 | raft.state as u64);
        raft.set_randomized_election_timeout((self.min + draw % self.span) as usize);
    }

    pub fn tick(&mut self) {
        self.inner.tick();
        self.settle();
    }

    /// Time passes for a follower that must not campaign: it only forgets, in due time, that its
    /// leader is alive, or it would never vote for another.
    pub fn tick_passively(&mut self) {
        let elapsed = self.inner.raft.election_elapsed;
        self.inner.raft.election_elapsed = elapsed.saturating_add(1);
    }

    /// Handles a message; what raft itself refuses (an answer of an unknown peer) is dropped, as
    /// the network might have done.
    pub fn step(&mut self, message: Message) {
        let _ = self.inner.step(message);
        self.settle();
    }

    /// Appends entries with these data, all or none, on a leader (any other node would pass them
    /// on). On success says where the first one is.
    pub fn propose(&mut self, entries: &[Bytes]) -> Option<(LogIndex, Term)> {
        assert!(self.is_leader() && !entries.is_empty(), "a proposal is a leader's");
        let first = self.last_index() + 1;
        let mut message = Message { from: self.inner.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let entry = |data: &Bytes| Entry { data: data.clone(), ..Entry::default() };
        message.entries = entries.iter().map(entry).collect();
        let accepted = self.inner.step(message).is_ok();
        self.settle();
        accepted.then(|| (first, self.term()))
    }

    /// As [`propose`](Self::propose). An accepted change may still turn into an empty entry.
    pub fn propose_change(&mut self, change: ConfChangeV2) -> Option<(LogIndex, Term)> {
        let accepted = self.inner.propose_conf_change(Vec::new(), change).is_ok();
        self.settle();
        accepted.then(|| (self.last_index(), self.inner.raft.term))
    }

    pub fn read_index(&mut self, context: Vec<u8>) {
        self.inner.read_index(context);
        self.settle();
    }

    pub fn transfer_leader(&mut self, to: NodeId) {
        self.inner.transfer_leader(to.0);
        self.settle();
    }

    /// Gives up leadership without a word.
    pub fn step_down(&mut self) {
        let term = self.term();
        self.inner.raft.become_follower(term, raft::INVALID_ID);
        self.settle();
    }

    pub fn report_unreachable(&mut self, peer: NodeId) {
        self.inner.report_unreachable(peer.0);
        self.settle();
    }

    pub fn report_snapshot(&mut self, peer: NodeId, finished: bool) {
        if planted(Bug::SnapshotNotReported) || (planted(Bug::LostSnapshotNotReported) && !finished)
        {
            return;
        }
        let status = if finished { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.inner.report_snapshot(peer.0, status);
        self.settle();
    }

    pub fn has_ready(&self) -> bool {
        self.inner.has_ready()
    }

    pub fn ready(&mut self) -> Ready {
        self.inner.ready()
    }

    pub fn advance_append_async(&mut self, ready: Ready) {
        self.inner.advance_append_async(ready);
    }

    pub fn on_persist_ready(&mut self, number: u64) {
        self.inner.on_persist_ready(number);
    }

    pub fn advance_apply_to(&mut self, applied: LogIndex) {
        self.inner.advance_apply_to(applied);
    }

    /// Makes a membership change effective; `None` if the present configuration does not allow it
    /// (the same on every replica).
    pub fn apply_change(&mut self, change: &ConfChangeV2) -> Option<ConfState> {
        let state = self.inner.apply_conf_change(change).ok();
        self.settle();
        state
    }

    /// The membership that raft goes by.
    pub fn membership(&self) -> ConfState {
        self.inner.raft.prs().conf().to_conf_state()
    }

    pub fn log(&self) -> &Log {
        self.inner.store()
    }

    pub fn log_mut(&mut self) -> &mut Log {
        self.inner.mut_store()
    }

    /// Term, vote and commit as raft has them now.
    pub fn hard_state(&self) -> HardState {
        let raft = &self.inner.raft;
        HardState { term: raft.term, vote: NodeId(raft.vote), commit: raft.raft_log.committed }
    }

    pub fn term(&self) -> Term {
        self.inner.raft.term
    }

    pub fn commit(&self) -> LogIndex {
        self.inner.raft.raft_log.committed
    }

    pub fn role(&self) -> StateRole {
        self.inner.raft.state
    }

    pub fn is_leader(&self) -> bool {
        self.role() == StateRole::Leader
    }

    /// The leader of the present term, if it is known.
    pub fn leader(&self) -> Option<NodeId> {
        let id = self.inner.raft.leader_id;
        (id != raft::INVALID_ID).then_some(NodeId(id))
    }

    /// The last index, entries that are not handed out yet included.
    pub fn last_index(&self) -> LogIndex {
        self.inner.raft.raft_log.last_index()
    }

    /// The term of the entry at `index`, if it is known; entries that are not handed out yet
    /// included.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.inner.raft.raft_log.term(index).ok().filter(|term| *term > 0)
    }

    /// Index and data of the normal entries behind `index`, entries that are not handed out yet
    /// included.
    pub fn normal_entries_after(&self, index: LogIndex) -> Vec<(LogIndex, Bytes)> {
        let context = GetEntriesContext::empty(false);
        let found = self.inner.raft.raft_log.entries(index + 1, None, context);
        let entries = found.expect("the log is kept from the last applied entry on");
        let is_normal = |entry: &Entry| entry.get_entry_type() == EntryType::EntryNormal;
        entries.into_iter().filter(is_normal).map(|entry| (entry.index, entry.data)).collect()
    }

    /// Returns the data of the entry at `index`; `None` if the log does not hold it.
    pub fn entry_data(&self, index: LogIndex) -> Option<Bytes> {
        // At least one entry is returned, whatever its size.
        let context = GetEntriesContext::empty(false);
        let found = self.inner.raft.raft_log.entries(index, Some(0), context).ok()?;
        found.into_iter().next().map(|entry| entry.data)
    }

    /// Whether raft knows that the whole log is durable. It insists on that when it wins.
    pub fn log_is_durable(&self) -> bool {
        self.inner.raft.raft_log.persisted == self.last_index()
    }

    pub fn is_transferring(&self) -> bool {
        self.transferee().is_some()
    }

    /// The member that is to lead next, while leadership is being handed over to it.
    pub fn transferee(&self) -> Option<NodeId> {
        self.inner.raft.lead_transferee.map(NodeId)
    }

    pub fn has_pending_change(&self) -> bool {
        self.inner.raft.has_pending_conf()
    }

    /// Whether an entry of the present term is committed: before that, a leader does not know
    /// what is.
    pub fn committed_in_term(&self) -> bool {
        self.inner.raft.commit_to_current_term()
    }

    /// What the leader knows of the members: id, progress.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &raft::Progress)> {
        self.inner.raft.prs().iter().map(|(id, progress)| (NodeId(*id), progress))
    }
}

/// Mixes `value` into `key`: every bit of both matters to every bit of the result.
fn mix(key: u64, value: u64) -> u64 {
    let mut x = key.rotate_left(25) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
