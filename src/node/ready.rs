//! From raft's `Ready` to writes, messages and applied entries: the rules of durability.
//!
//! ```text
//! Ready -+-> the log in memory, at once
//!        +-> the write-ahead log -> batch with a ticket
//!        +-> messages: a leader's at once, all others wait for the ticket
//!        +-> committed entries -> apply -> replies
//! ticket done -> on_persist_ready -> waiting messages -> the next Ready
//! ```
//!
//! A message may promise something: a vote, a term, that entries are safe. It leaves only when what
//! it promises is durable. A leader's appends promise nothing about its own log, except that it
//! leads its term; so they may overtake its disk, but not the write of that term and its vote. The
//! same holds for the response to a heartbeat, which promises a term and nothing else: held until
//! the log is durable, it would let check-quorum depose a healthy leader whenever its followers
//! sync for longer than an election timeout.

use raft::eraftpb::{self, EntryType, MessageType};
use tracing::{debug, trace};

use super::membership;
use super::replica::{Proposal, Replica};
use super::{Applied, Node, Origin, Output};
use crate::api::{Refusal, Reply};
use crate::bugs::{self, Bug, planted};
use crate::env::{DiskOp, DiskQueue};
use crate::machine::StateMachine;
use crate::types::{Entry, EntryKind, HardState, LogIndex, NodeId, SnapshotId, Ticket};
use crate::wal::WalPosition;
use crate::wire::{Message, RaftMessage};

/// What a batch counts at least, in bytes: many small ones take room and time, too.
const LEAST_BATCH_BYTES: u64 = 1 << 10;

/// A batch on its way to the disk, and what waits for it.
#[derive(Debug)]
pub(super) struct Persisting {
    ticket: Ticket,
    /// What it counts until it is durable, in bytes.
    bytes: u64,
    /// Bytes by which it makes files larger.
    room: u64,
    /// How far the write-ahead log is durable once the batch is.
    position: WalPosition,
    /// The newest `Ready` that is durable then.
    ready: Option<u64>,
    /// Messages that promise what the batch makes durable.
    messages: Vec<eraftpb::Message>,
    /// Replies that say what a restart has to know, too.
    replies: Vec<(Origin, Reply)>,
    then: Option<Then>,
}

/// What a batch was for, beyond making a `Ready` durable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The write-ahead log goes on from this snapshot of the node's own state.
    Recorded(SnapshotId),
    /// The write-ahead log says that an installed snapshot is the state.
    Installed(SnapshotId),
}

impl Persisting {
    /// Bytes by which it makes files larger.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Messages that wait for the batch.
    pub fn held(&self) -> usize {
        self.messages.len()
    }
}

impl<M: StateMachine> Node<M> {
    /// Handles all that raft wants by now.
    pub(super) fn process_ready(&mut self) {
        let mut ready = self.raft.ready();
        let number = ready.number();
        let read_states = ready.take_read_states();
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let mut at_once = ready.take_messages();
        let mut after = ready.take_persisted_messages();
        if !at_once.is_empty() {
            after.extend(at_once.extract_if(.., |message| !promises_term_only(message)));
        }
        if !after.is_empty() && !planted(Bug::HeartbeatsWaitForLog) {
            at_once.extend(after.extract_if(.., |message| promises_term_only(message)));
        }
        if planted(Bug::CommitNotAnnounced) && !committed.is_empty() {
            at_once.clear();
        }
        let metadata = ready.snapshot().get_metadata();
        let install = (metadata.index > 0)
            .then_some(SnapshotId { index: metadata.index, term: metadata.term });
        trace!(
            id = %self.config.id,
            number,
            entries = entries.len(),
            committed = committed.len(),
            messages = at_once.len() + after.len(),
            install = install.map_or(0, |id| id.index),
            "ready"
        );
        if let Some(soft) = ready.ss() {
            let (role, leader) = (soft.raft_state, soft.leader_id);
            debug!(id = %self.config.id, term = self.raft.term(), ?role, leader, "role");
            if planted(Bug::FailedOnStepDown) && !self.raft.is_leader() {
                self.refuse_proposals();
            }
        }
        if let Some(id) = install {
            self.begin_install(id);
        }
        self.raft.log_mut().append(&entries);
        self.follow_time(&entries);
        if planted(Bug::ChangeEffectiveAtAppend) {
            for change in entries.iter().filter_map(|entry| membership::decode(&entry.data)) {
                self.raft.apply_change(&change);
            }
        }

        self.record(install, entries);
        self.raft.advance_append_async(ready);

        // From here on raft may change again.
        match self.persisting.back_mut() {
            Some(last) => last.ready = Some(number),
            None => self.raft.on_persist_ready(number),
        }
        if self.done >= self.vow || planted(Bug::LoneVoterSendsEarly) {
            self.send(at_once);
        } else {
            self.hold(self.vow, at_once);
        }
        if self.persisting.is_empty() || planted(Bug::MessagesBeforeSync) {
            self.send(after);
        } else {
            self.hold(self.submitted, after);
        }
        for state in read_states {
            self.read_index_known(&state.request_ctx, state.index);
        }
        if !committed.is_empty() {
            self.apply(committed);
        }
    }

    /// A leader's own stamps come from its clock; all others set it.
    fn follow_time(&mut self, entries: &[eraftpb::Entry]) {
        let stamp = |entry: &eraftpb::Entry| match entry.get_entry_type() {
            EntryType::EntryNormal => Proposal::stamp(&entry.data),
            _ => None,
        };
        if !self.raft.is_leader()
            && let Some(newest) = entries.iter().rev().find_map(stamp)
        {
            self.clock.set(newest, self.now);
        }
    }

    /// Writes down what must be durable, if anything must.
    fn record(&mut self, install: Option<SnapshotId>, entries: Vec<eraftpb::Entry>) {
        let hard_state = self.raft.hard_state();
        let vow = (hard_state.term, hard_state.vote) != (self.written.term, self.written.vote);
        // A commit index alone is not worth a write: it is found out again after a restart.
        let writes = !entries.is_empty() || install.is_some();
        if writes || (vow && !planted(Bug::HardStateOnlyWithEntries)) {
            let entries: Vec<Entry> = entries.into_iter().map(from_raft).collect();
            // Otherwise the hard state follows with the next record.
            let late = planted(Bug::SnapshotInTwoSteps) && install.is_some();
            let recorded = if late { self.written } else { hard_state };
            // What comes with a snapshot stays together with it.
            let max = if install.is_some() { u64::MAX } else { self.config.max_batch_bytes };
            for part in parts(&entries, max) {
                let mut ops = Vec::new();
                self.wal.append(up_to(recorded, part, &entries), install, part, &mut ops);
                self.submit(ops, install.map(Then::Installed));
            }
            if install.is_some() {
                self.membership_vow = self.submitted;
            }
            if vow {
                self.vow = self.submitted;
            }
        }
        self.written = hard_state;
        self.space.written();
    }

    /// Hands a batch to the log's queue of the disk. What must wait for it is attached to the last
    /// of `persisting`.
    pub(super) fn submit(&mut self, ops: Vec<DiskOp>, then: Option<Then>) {
        self.submitted.0 += 1;
        let ticket = self.submitted;
        let position = self.wal.position();
        if self.persisting.is_empty() {
            self.disk_progress_at = self.now;
        }
        let bytes = ops.iter().map(DiskOp::bytes).sum::<u64>().max(LEAST_BATCH_BYTES);
        self.unsynced += bytes;
        self.space.spend(&ops);
        self.size_segments();
        self.persisting.push_back(Persisting {
            ticket,
            bytes,
            room: ops.iter().map(DiskOp::room).sum(),
            position,
            ready: None,
            messages: Vec::new(),
            replies: Vec::new(),
            then,
        });
        self.outputs.push(Output::Disk { queue: DiskQueue::Log, ticket, ops });
    }

    /// All batches up to `ticket` are durable.
    pub(super) fn persisted(&mut self, ticket: Ticket) {
        assert!(ticket <= self.submitted, "{ticket:?} was never submitted");
        assert!(ticket > self.done, "{ticket:?} is done twice");
        self.disk_progress_at = self.now;
        while self.persisting.front().is_some_and(|first| first.ticket <= ticket) {
            let first = self.persisting.pop_front().expect("just seen");
            self.done = first.ticket;
            self.unsynced -= first.bytes;
            self.wal.synced(first.position);
            if let Some(number) = first.ready {
                self.raft.on_persist_ready(number);
            }
            if planted(Bug::TermStampedWhenSent) {
                let term = self.raft.term();
                self.send(first.messages.into_iter().map(|m| stamped(m, term)).collect());
            } else {
                self.send(first.messages);
            }
            for (origin, reply) in first.replies {
                self.answer(origin, reply);
            }
            match first.then {
                Some(Then::Recorded(id)) => self.recorded(id),
                Some(Then::Installed(id)) => self.end_install(id),
                None => {}
            }
            self.consider_whole();
        }
    }

    /// Keeps messages until the batch with this ticket is durable.
    fn hold(&mut self, ticket: Ticket, messages: Vec<eraftpb::Message>) {
        if messages.is_empty() {
            return;
        }
        let waits = |batch: &&mut Persisting| batch.ticket >= ticket;
        let batch = self.persisting.iter_mut().find(waits).expect("it is not durable yet");
        for message in messages {
            hold(&mut batch.messages, message);
        }
    }

    fn send(&mut self, mut messages: Vec<eraftpb::Message>) {
        if messages.is_empty() {
            return;
        }
        // Raft broadcasts in the order of a hash map.
        messages.sort_by_key(|message| message.to);
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.begin_transfer(&message);
                continue;
            }
            let to = NodeId(message.to);
            let message = Message::Raft(RaftMessage::new(message));
            self.outputs.push(Output::Send { to, message });
        }
    }

    /// What [`Bug::FailedOnStepDown`] does.
    fn refuse_proposals(&mut self) {
        for origin in self.waiting.take_through(LogIndex::MAX) {
            self.answer(origin, Reply::Refused(Refusal::NotLeader(None)));
        }
    }

    fn apply(&mut self, entries: Vec<eraftpb::Entry>) {
        let mut reconfigured = false;
        let mut replies = Vec::new();
        // What is applied before the first batch is done comes from the log of an earlier life.
        let again = planted(Bug::AppliedFromZero) && self.done == Ticket(0);
        let copies = if again { entries.clone() } else { Vec::new() };
        for entry in entries {
            let id = SnapshotId { index: entry.index, term: entry.term };
            match entry.get_entry_type() {
                EntryType::EntryNormal => {
                    let reply = self.replica.apply(id, &entry.data);
                    if planted(Bug::LocalClockAtApply) && self.now.is_multiple_of(16) {
                        bugs::expire_key(&mut self.replica.machine);
                    }
                    if planted(Bug::SessionsExpireByClock) && self.now.is_multiple_of(64) {
                        self.replica.expire_session();
                    }
                    self.report_applied(false);
                    self.resolve(id, reply);
                }
                EntryType::EntryConfChangeV2 => {
                    reconfigured = true;
                    let reply = self.apply_change(id, &entry.data);
                    self.report_applied(false);
                    replies.extend(self.resolved(id, reply));
                }
                EntryType::EntryConfChange => {
                    panic!("entry {} is of a kind that this crate never writes", id.index)
                }
            }
        }
        for entry in copies {
            self.replica.apply_to_machine(entry.index, &entry.data);
        }
        let applied = self.replica.applied().index;
        self.backlog.applied(applied);
        trace!(id = %self.config.id, applied, "applied");
        self.raft.advance_apply_to(applied);
        // Those who leave may be gone before a restart of this member could ask them what is
        // committed, so this time the commit index is worth a write. Until it is done, nobody is
        // told that they may go: not they themselves, and not who asked for it.
        if reconfigured {
            let mut ops = Vec::new();
            self.wal.append(self.written, None, &[], &mut ops);
            self.submit(ops, None);
            self.membership_vow = self.submitted;
            let batch = self.persisting.back_mut().expect("it was just submitted");
            batch.replies = replies;
        }
        self.serve_reads();
        self.consider_snapshot();
        self.consider_stepping_down();
    }

    /// The same on every replica: raft and the membership decide by the applied state alone.
    fn apply_change(&mut self, id: SnapshotId, data: &[u8]) -> Reply {
        let raft = membership::decode(data).expect("entries are checked when they arrive");
        let change = membership::from_raft(&raft);
        let leaves_joint = raft.changes.is_empty();
        let allowed = leaves_joint || self.replica.membership().allows(&change.now);
        let mut state = if allowed { self.raft.apply_change(&raft) } else { None };
        if planted(Bug::ChangeEffectiveAtAppend) {
            state = allowed.then(|| self.raft.membership());
        }
        self.replica.reconfigure(id, &change, state.as_ref())
    }

    pub(super) fn report_applied(&mut self, by_snapshot: bool) {
        self.outputs.push(Output::Applied(Applied {
            id: self.replica.applied(),
            digest: self.replica.digest(),
            membership: self.replica.membership_digest(),
            by_snapshot,
        }));
    }

    /// Replaces the whole state by a snapshot that is durable as a file already. Raft stands still
    /// until the log says so, durably.
    fn begin_install(&mut self, id: SnapshotId) {
        let mut replica: Replica<M> = self.take_staged(id);
        if planted(Bug::InstallKeepsOldKeys) {
            bugs::keep_old_keys(&self.replica.machine, &mut replica.machine);
        }
        if planted(Bug::AppliedBeforeLoad) {
            self.snapshots.loading =
                Some(std::mem::replace(&mut replica.machine, M::new(&self.params)));
        }
        let membership = replica.membership().to_raft();
        self.raft.log_mut().install(id, membership);
        let former = std::mem::replace(&mut self.replica, replica);
        self.discard(former);
        self.installing = true;
        self.report_applied(true);
        // Their entries may be part of the snapshot, or may never be committed.
        for origin in self.waiting.take_through(id.index) {
            self.answer(origin, Reply::LeaderLost);
        }
    }

    /// The installed snapshot is the durable state.
    pub(super) fn end_install(&mut self, id: SnapshotId) {
        self.installing = false;
        if let Some(machine) = self.snapshots.loading.take() {
            self.replica.machine = machine;
        }
        if !planted(Bug::ElectionWhileInstalling) {
            self.raft.advance_apply_to(id.index);
        }
        self.recorded(id);
        self.serve_reads();
        self.consider_stepping_down();
    }

    /// When nothing else is written, lets the write-ahead log vouch for its own end.
    pub(super) fn vouch(&mut self) {
        if !self.persisting.is_empty() || !self.now.is_multiple_of(16) {
            return;
        }
        let mut ops = Vec::new();
        if self.wal.vouch(self.written, &mut ops) {
            self.submit(ops, None);
        }
    }
}

/// Entries in parts of so many bytes, or of one entry; one part, if there are none. A single record
/// is synced in one go, so one of all that a busy leader takes up at once would look like a disk
/// that hangs.
fn parts(entries: &[Entry], max_bytes: u64) -> Vec<&[Entry]> {
    let (mut parts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let more = entry.data.len() as u64;
        if at > begin && bytes + more > max_bytes {
            parts.push(&entries[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += more;
    }
    parts.push(&entries[begin..]);
    parts
}

/// The hard state to record with a part of some entries: it must not speak of the commit of entries
/// that are not recorded yet, for a restart may find the log without them.
fn up_to(hard_state: HardState, part: &[Entry], entries: &[Entry]) -> HardState {
    let end = |entries: &[Entry]| entries.last().map_or(0, |entry| entry.index);
    match end(part) < end(entries) {
        true => HardState { commit: hard_state.commit.min(end(part)), ..hard_state },
        false => hard_state,
    }
}

/// What [`Bug::TermStampedWhenSent`] does.
fn stamped(mut message: eraftpb::Message, term: u64) -> eraftpb::Message {
    message.term = term;
    message
}

/// Whether a message promises no more than its sender's term, and for a leader that it leads it.
///
/// Raft says of a whole `Ready` that it is a leader's and that its messages may overtake its
/// writes. But many inputs may have passed since the last one, and the role may have changed
/// between them: what others send too may be a promise given before.
fn promises_term_only(message: &eraftpb::Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppend
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgTimeoutNow => true,
        // It says what the log does not have.
        MessageType::MsgAppendResponse => message.reject,
        _ => false,
    }
}

pub(super) fn from_raft(entry: eraftpb::Entry) -> Entry {
    Entry {
        index: entry.index,
        term: entry.term,
        kind: match entry.get_entry_type() {
            EntryType::EntryNormal => EntryKind::Normal,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Membership,
        },
        data: entry.data,
    }
}

/// The reverse, for entries read back from the write-ahead log.
pub(super) fn to_raft(entry: Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        data: entry.data,
        ..eraftpb::Entry::default()
    };
    raft.set_entry_type(match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Membership => EntryType::EntryConfChangeV2,
    });
    raft
}

/// Adds a message to those that wait. While a disk stalls, appends and heartbeats go on: only the
/// newest acknowledgement of each kind is worth keeping, because it covers the earlier ones.
fn hold(held: &mut Vec<eraftpb::Message>, message: eraftpb::Message) {
    let covers = |old: &eraftpb::Message| {
        let kind = message.get_msg_type();
        let is_acknowledgement = match kind {
            MessageType::MsgHeartbeatResponse => true,
            MessageType::MsgAppendResponse => old.index <= message.index,
            _ => false,
        };
        is_acknowledgement
            && (old.get_msg_type(), old.to, old.term) == (kind, message.to, message.term)
    };
    held.retain(|old| !covers(old));
    held.push(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(sizes: &[usize]) -> Vec<Entry> {
        let entry = |(index, size): (u64, &usize)| Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: vec![0; *size].into(),
        };
        (5..).zip(sizes).map(entry).collect()
    }

    #[test]
    fn parts_hold_as_much_as_fits_and_one_entry_at_least() {
        let lens = |sizes: &[usize]| -> Vec<usize> {
            parts(&entries(sizes), 10).into_iter().map(<[Entry]>::len).collect()
        };
        assert_eq!(lens(&[]), [0]);
        assert_eq!(lens(&[4, 4, 2, 1]), [3, 1]);
        assert_eq!(lens(&[50, 1, 50, 10]), [1, 1, 1, 1]);
    }

    #[test]
    fn a_part_speaks_of_no_commit_behind_it() {
        let entries = entries(&[1, 1, 1]);
        let commit = |commit, part: &[Entry]| {
            up_to(HardState { commit, ..HardState::default() }, part, &entries).commit
        };
        assert_eq!((commit(7, &entries[..1]), commit(4, &entries[..1])), (5, 4));
        assert_eq!(commit(7, &entries[1..]), 7);
        assert_eq!(up_to(HardState { commit: 9, ..HardState::default() }, &[], &[]).commit, 9);
    }
}
