//! Snapshots: saving our own, sending one in chunks, receiving and installing one.
//!
//! *Saving* freezes the replicated state and writes it piece by piece to a partial file, which is
//! renamed when it is complete and durable. Only then does the write-ahead log mention it, and only
//! after that are older entries, segments and snapshots dropped.
//!
//! *Sending*: raft decides that a follower needs a snapshot; its file is read and sent in chunks
//! with a small window. Raft waits until it is told how that ended, so it always is: by the
//! receiver, or by a timeout. Nobody can see from here whether a file has rotted, but a receiver
//! can; so when a whole one was refused, the state is saved anew before it is sent again.
//!
//! *Receiving*: the chunks are collected and checked, the state is rebuilt beside the present one,
//! the file is made durable; only then does raft get to see the message. If raft accepts it, state,
//! log and membership change in one step, and the write-ahead log records that in one record.

mod incoming;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use raft::eraftpb;
use tracing::{debug, warn};

use super::replica::Replica;
use super::{Node, Output};
use crate::bugs::{Bug, planted};
use crate::env::{DiskOp, FileName};
use crate::error::DiskError;
use crate::machine::StateMachine;
use crate::snapshot::{Head, Writer};
use crate::types::{LogIndex, NodeId, SnapshotId, Term, Ticket};
use crate::wire::{Chunk, Message};
use incoming::Incoming;

/// Chunks sent ahead of their acknowledgement.
const WINDOW: u64 = 4;
/// Bytes of a snapshot written in one batch, so that other writes need not wait for all of it.
const PIECE: usize = 256 << 10;
/// Chunks that are not acknowledged are sent again after so many ticks.
const RESEND_TICKS: u64 = 10;

/// What a batch was for, beyond making a `Ready` durable.
#[derive(Debug)]
pub(super) enum Then {
    /// A piece of our own snapshot is written.
    Written(SnapshotId),
    /// Our own snapshot is complete and durable.
    Saved(SnapshotId),
    /// A received snapshot is durable as a file.
    Received(u64),
    /// The write-ahead log says that an installed snapshot is the state.
    Installed(SnapshotId),
}

struct Saving {
    head: Head,
    writer: Writer,
    written: u64,
}

#[derive(Debug)]
struct Outgoing {
    transfer: u64,
    term: Term,
    snapshot: SnapshotId,
    total: u64,
    /// Bytes acknowledged, and sent.
    acked: u64,
    sent: u64,
    fetching: bool,
    /// The tick of the last acknowledgement that brought something, and of the last chunk.
    progress_at: u64,
    sent_at: u64,
}

/// The snapshots of a node and their transfers.
pub(super) struct Snapshots<M> {
    /// The complete files on disk, with their sizes.
    files: BTreeMap<SnapshotId, u64>,
    saving: Option<Saving>,
    /// A state that waits for its head, and one that waits until its place is free: see the bugs
    /// [`Bug::AppliedReadAfterState`] and [`Bug::AppliedBeforeLoad`].
    frozen: Option<(Head, Writer)>,
    pub(super) loading: Option<M>,
    outgoing: BTreeMap<NodeId, Outgoing>,
    /// Reads of files under way: for whom, which transfer, from where.
    fetches: BTreeMap<Ticket, (NodeId, u64, u64)>,
    next_fetch: u64,
    incoming: Option<Incoming<M>>,
    /// A file that was refused by whom it was sent to, or could not be read.
    suspect: Option<SnapshotId>,
    /// Received and durable, not yet accepted by raft.
    staged: Option<(SnapshotId, Replica<M>)>,
}

impl<M> Snapshots<M> {
    /// `present` is the file of the state, with its size; `left` are others that nobody will read.
    pub fn new(present: Option<(SnapshotId, u64)>, left: Vec<SnapshotId>) -> Self {
        Snapshots {
            files: left.into_iter().map(|id| (id, 0)).chain(present).collect(),
            saving: None,
            frozen: None,
            loading: None,
            outgoing: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            incoming: None,
            suspect: None,
            staged: None,
        }
    }

    /// The part of a node's load that is about snapshots.
    pub fn load(&self) -> super::Load {
        super::Load {
            snapshots: self.files.len(),
            saving: self.saving.is_some(),
            outgoing: self.outgoing.len(),
            fetches: self.fetches.len(),
            incoming_bytes: self.incoming.as_ref().map_or(0, Incoming::bytes),
            ..super::Load::default()
        }
    }

    /// The transfer that is coming in, and how many bytes of it are there; zeros if there is none.
    pub fn receiving(&self) -> (u64, usize) {
        self.incoming.as_ref().map_or((0, 0), |incoming| (incoming.transfer, incoming.data.len()))
    }

    /// Whether a received snapshot is complete and its file is being written.
    fn is_writing_received(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.rebuilt.is_some())
    }
}

pub(super) fn complete(id: SnapshotId) -> FileName {
    FileName::Snapshot(id.index, id.term)
}

pub(super) fn partial(id: SnapshotId) -> FileName {
    FileName::Partial(id.index, id.term)
}

/// The operations that make a fully written partial file a durable snapshot.
pub(super) fn finish(id: SnapshotId, ops: &mut Vec<DiskOp>) {
    ops.push(DiskOp::Sync { file: partial(id) });
    ops.push(DiskOp::Rename { from: partial(id), to: complete(id) });
    ops.push(DiskOp::SyncDir);
}

impl<M: StateMachine> Node<M> {
    pub(super) fn then(&mut self, then: Then) {
        match then {
            Then::Written(id) => self.write_piece(id),
            Then::Saved(id) => self.saved(id),
            Then::Received(transfer) => self.received(transfer),
            Then::Installed(id) => self.end_install(id),
        }
    }

    // ---- saving ----

    /// Takes a snapshot if enough was applied since the last, or if raft needs a newer one.
    pub(super) fn consider_snapshot(&mut self) {
        let log = self.raft.log();
        let wanted = log.take_wanted();
        let applied = self.replica.applied().index;
        let since = applied - log.snapshot_id().index;
        let heavy = log.bytes() >= self.config.max_log_bytes;
        // Only the log says that there are others: see `repair.rs`.
        let me = self.config.id;
        let outgrown =
            log.snapshot_is_of_one(me) && !self.replica.membership().is_quorum(|id| id == me);
        // The same bytes would be refused again.
        let suspect = self.snapshots.suspect == Some(log.snapshot_id());
        let due = since >= self.config.snapshot_every
            || ((wanted || heavy || outgrown) && since > 0)
            || suspect;
        // A received one that is being written may turn out to be the same, with the same file.
        let receiving = self.snapshots.is_writing_received();
        if !due || self.installing || receiving || self.snapshots.saving.is_some() {
            return;
        }
        let (head, writer) = self.replica.snapshot();
        if (planted(Bug::AppliedReadAfterState) || planted(Bug::LatestMembershipInSnapshot))
            && self.snapshots.frozen.is_none()
        {
            self.snapshots.frozen = Some((head, writer));
            return;
        }
        let (head, writer) = self.thaw(head, writer);
        let id = head.id;
        debug!(node = %self.config.id, index = id.index, "saving a snapshot");
        self.snapshots.saving = Some(Saving { head, writer, written: 0 });
        self.write_piece(id);
    }

    /// Puts together a snapshot of parts that were taken at different times, as two bugs do.
    fn thaw(&mut self, head: Head, writer: Writer) -> (Head, Writer) {
        let Some((old, state)) = self.snapshots.frozen.take() else { return (head, writer) };
        let id = if planted(Bug::AppliedReadAfterState) { head.id } else { old.id };
        let head = Head { id, ..head };
        let writer = state.with_head(&head);
        (head, writer)
    }

    fn write_piece(&mut self, id: SnapshotId) {
        let saving = match &mut self.snapshots.saving {
            Some(saving) if saving.head.id == id => saving,
            // A newer one was installed meanwhile.
            _ => return self.submit(vec![DiskOp::Remove { file: partial(id) }], None),
        };
        let mut ops = Vec::new();
        if planted(Bug::RemovedBeforeSynced) {
            let old = self.raft.log().snapshot_id();
            ops.extend([DiskOp::Remove { file: complete(old) }, DiskOp::SyncDir]);
        }
        if saving.written == 0 {
            ops.push(DiskOp::Create { file: partial(id), len: 0 });
        }
        let mut piece = BytesMut::new();
        let mut ended = false;
        while piece.len() < PIECE && !ended {
            match saving.writer.next() {
                Some(bytes) => piece.extend_from_slice(&bytes),
                None => ended = true,
            }
        }
        let (offset, data) = (saving.written, piece.freeze());
        saving.written += data.len() as u64;
        ops.push(DiskOp::Write { file: partial(id), offset, data });
        if ended {
            finish(id, &mut ops);
        }
        self.submit(ops, Some(if ended { Then::Saved(id) } else { Then::Written(id) }));
    }

    /// Our own snapshot is durable: the log may forget what it covers.
    fn saved(&mut self, id: SnapshotId) {
        match self.snapshots.saving.take() {
            Some(saving) if saving.head.id == id => {
                self.snapshots.files.insert(id, saving.written);
                self.snapshots.suspect = None;
                self.raft.log_mut().saved(id, saving.head.membership.to_raft());
            }
            other => {
                self.snapshots.saving = other;
                let ops = vec![DiskOp::Remove { file: complete(id) }, DiskOp::SyncDir];
                return self.submit(ops, None);
            }
        }
        let mut ops = Vec::new();
        self.wal.append(self.written, Some(id), &[], &mut ops);
        self.wal.compact(&mut ops);
        self.remove_old_files(&mut ops);
        self.submit(ops, None);
        self.compact_log();
    }

    /// Keeps some entries behind the snapshot for followers that lag a little, and those behind a
    /// snapshot that is being sent: its receiver will need them next.
    fn compact_log(&mut self) {
        let newest = self.raft.log().snapshot_id().index;
        let sending = self.snapshots.outgoing.values().map(|out| out.snapshot.index).min();
        let keep: LogIndex = newest.saturating_sub(self.config.keep_entries);
        self.raft.log_mut().compact(keep.min(sending.unwrap_or(keep)));
        if self.raft.log().bytes() > self.config.max_log_bytes / 2 {
            self.raft.log_mut().compact(newest.min(sending.unwrap_or(newest)));
        }
    }

    /// Removes the snapshots that are neither the newest nor being sent. One that is being saved has
    /// a name that a refused one may bear already: it will take that file's place.
    pub(super) fn remove_old_files(&mut self, ops: &mut Vec<DiskOp>) {
        let newest = self.raft.log().snapshot_id();
        let outgoing = &self.snapshots.outgoing;
        let saving = self.snapshots.saving.as_ref().map(|saving| saving.head.id);
        let old = self.snapshots.files.extract_if(.., |id, _| {
            *id != newest
                && saving != Some(*id)
                && !outgoing.values().any(|out| out.snapshot == *id)
        });
        let before = ops.len();
        ops.extend(old.map(|(id, _)| DiskOp::Remove { file: complete(id) }));
        if ops.len() > before {
            ops.push(DiskOp::SyncDir);
        }
    }

    /// Removes old files in a batch of their own, if there are any.
    fn clean_up(&mut self) {
        let mut ops = Vec::new();
        self.remove_old_files(&mut ops);
        if !ops.is_empty() {
            self.submit(ops, None);
        }
    }

    // ---- sending ----

    /// Raft wants `message`, a snapshot without its data, to be sent.
    pub(super) fn begin_transfer(&mut self, message: &eraftpb::Message) {
        let to = NodeId(message.to);
        let metadata = message.get_snapshot().get_metadata();
        let snapshot = SnapshotId { index: metadata.index, term: metadata.term };
        let usable = self.snapshots.suspect != Some(snapshot);
        let Some(&total) = self.snapshots.files.get(&snapshot).filter(|_| usable) else {
            // It was superseded between raft's decision and now, or will be; raft decides again.
            self.raft.report_snapshot(to, false);
            return;
        };
        let transfer = self.fresh_id();
        debug!(node = %self.config.id, %to, index = snapshot.index, total, "sending a snapshot");
        let outgoing = Outgoing {
            transfer,
            term: message.term,
            snapshot,
            total,
            acked: 0,
            sent: 0,
            fetching: false,
            progress_at: self.now,
            sent_at: self.now,
        };
        self.snapshots.outgoing.insert(to, outgoing);
        self.fetch(to);
    }

    /// Reads the next chunk for `to`, if its window has room.
    fn fetch(&mut self, to: NodeId) {
        let Some(out) = self.snapshots.outgoing.get_mut(&to) else { return };
        let len = self.config.chunk_bytes;
        let window = out.acked + WINDOW * u64::from(len);
        if out.fetching || out.sent >= out.total || out.sent >= window {
            return;
        }
        out.fetching = true;
        self.snapshots.next_fetch += 1;
        let ticket = Ticket(self.snapshots.next_fetch);
        let (file, offset) = (complete(out.snapshot), out.sent);
        self.snapshots.fetches.insert(ticket, (to, out.transfer, offset));
        self.outputs.push(Output::Fetch { ticket, file, offset, len });
    }

    pub(super) fn fetched(&mut self, ticket: Ticket, found: Result<Bytes, DiskError>) {
        let Some((to, transfer, offset)) = self.snapshots.fetches.remove(&ticket) else { return };
        let now = self.now;
        let Some(out) = self.snapshots.outgoing.get_mut(&to) else { return };
        // The file of a transfer that has ended may be removed already.
        if out.transfer != transfer {
            return;
        }
        let data = match found {
            Ok(data) if !data.is_empty() => data,
            // Nothing is lost but this copy of the state, and there is another in memory.
            other => {
                let reason = other.err().map_or("it is too short".to_owned(), |e| e.to_string());
                warn!(node = %self.config.id, index = out.snapshot.index, reason, "unreadable");
                self.snapshots.suspect = Some(out.snapshot);
                return self.end_transfer(to, false);
            }
        };
        out.fetching = false;
        // Otherwise it was rewound meanwhile.
        if out.sent == offset {
            out.sent += data.len() as u64;
            out.sent_at = now;
            let chunk = Chunk {
                transfer,
                term: out.term,
                snapshot: out.snapshot,
                total: out.total,
                offset,
                data,
            };
            self.outputs.push(Output::Send { to, message: Message::Chunk(chunk) });
        }
        self.fetch(to);
    }

    pub(super) fn acknowledged_chunk(
        &mut self,
        from: NodeId,
        transfer: u64,
        received: u64,
        done: Option<bool>,
    ) {
        let now = self.now;
        let Some(out) = self.snapshots.outgoing.get_mut(&from) else { return };
        if out.transfer != transfer || received > out.total {
            return;
        }
        if let Some(success) = done {
            if !success && out.sent >= out.total {
                self.snapshots.suspect = Some(out.snapshot);
            }
            self.end_transfer(from, success);
            return;
        }
        if received > out.acked {
            out.acked = received;
            out.sent = out.sent.max(received);
            out.progress_at = now;
        } else if received == 0 && out.acked > 0 {
            // The receiver has restarted and begins anew.
            (out.acked, out.sent) = (0, 0);
        }
        self.fetch(from);
    }

    fn end_transfer(&mut self, to: NodeId, success: bool) {
        let ended = self.snapshots.outgoing.remove(&to);
        let is_known = || {
            let index = ended.map_or(0, |out| out.snapshot.index);
            success && self.raft.progress().any(|(id, peer)| id == to && peer.matched >= index)
        };
        if !(planted(Bug::AppendBelowMatch) && is_known()) {
            self.raft.report_snapshot(to, success);
        }
        self.clean_up();
    }

    pub(super) fn tick_snapshots(&mut self) {
        if self.raft.is_leader() && self.now.is_multiple_of(4) {
            self.consider_snapshot();
        }
        let (now, limit) = (self.now, u64::from(self.config.snapshot_ticks));
        if let Some(incoming) = &self.snapshots.incoming
            && incoming.rebuilt.is_none()
            && incoming.progress_at + limit <= now
        {
            self.snapshots.incoming = None;
        }
        let term = self.raft.term();
        let leads = self.raft.is_leader();
        let peers: Vec<NodeId> = self.snapshots.outgoing.keys().copied().collect();
        for to in peers {
            let out = self.snapshots.outgoing.get_mut(&to).expect("just listed");
            if !leads || out.term != term || out.progress_at + limit <= now {
                self.end_transfer(to, false);
            } else if out.sent > out.acked && out.sent_at + RESEND_TICKS <= now {
                out.sent = out.acked;
                out.sent_at = now;
                self.fetch(to);
            }
        }
    }

    // ---- receiving ----

    pub(super) fn receive_chunk(&mut self, from: NodeId, chunk: Chunk) {
        let ack = |received: u64, done: Option<bool>| Output::Send {
            to: from,
            message: Message::ChunkAck { transfer: chunk.transfer, received, done },
        };
        if !self.check_chunk(from, &chunk) || chunk.term < self.raft.term() || self.installing {
            // A stale leader learns its place from raft; others may try again.
            self.outputs.push(ack(0, Some(false)));
            return;
        }
        if chunk.snapshot.index <= self.raft.commit() && !self.snapshots.is_writing_received() {
            // There is nothing new in it. Raft gets to see its name all the same, and answers with
            // what it has, which moves the leader on.
            self.snapshots.incoming.take_if(|incoming| incoming.transfer == chunk.transfer);
            self.step_snapshot(from, chunk.term, chunk.snapshot, None);
            self.outputs.push(ack(chunk.total, Some(true)));
            return;
        }
        let incoming = match &mut self.snapshots.incoming {
            Some(incoming)
                if incoming.from == from
                    && (incoming.transfer == chunk.transfer || planted(Bug::ChunksByPeerOnly)) =>
            {
                incoming
            }
            Some(incoming) if incoming.rebuilt.is_some() || incoming.term > chunk.term => return,
            _ if chunk.offset > 0 => {
                self.outputs.push(ack(0, None));
                return;
            }
            slot => slot.insert(Incoming::new(from, &chunk, self.now)),
        };
        if incoming.rebuilt.is_none() && incoming.take(chunk.offset, chunk.data) {
            incoming.progress_at = self.now;
        }
        let received = incoming.data.len() as u64;
        if incoming.rebuilt.is_some() {
            self.outputs.push(ack(incoming.total, None));
        } else if received < incoming.total {
            self.outputs.push(ack(received, None));
        } else {
            self.rebuild();
        }
    }

    /// All bytes are here: check them, rebuild the state beside the present one, write the file.
    fn rebuild(&mut self) {
        let mut incoming = self.snapshots.incoming.take().expect("a snapshot is being received");
        let (id, transfer) = (incoming.snapshot, incoming.transfer);
        let data = incoming.take_all();
        match Replica::restore(self.config.session_limits(), complete(id), &data) {
            Ok(replica) if replica.applied() == id => {
                let mut ops = vec![
                    DiskOp::Create { file: partial(id), len: 0 },
                    DiskOp::Write { file: partial(id), offset: 0, data },
                ];
                finish(id, &mut ops);
                incoming.rebuilt = Some(replica);
                self.snapshots.incoming = Some(incoming);
                self.submit(ops, Some(Then::Received(transfer)));
            }
            other => {
                let reason = other.err().map_or("it is another one".into(), |e| e.to_string());
                warn!(node = %self.config.id, from = %incoming.from, reason, "refused a snapshot");
                let message = Message::ChunkAck { transfer, received: 0, done: Some(false) };
                self.outputs.push(Output::Send { to: incoming.from, message });
            }
        }
    }

    /// The file is durable: now raft may see the message.
    fn received(&mut self, transfer: u64) {
        let incoming = self.snapshots.incoming.take_if(|incoming| incoming.transfer == transfer);
        let incoming = incoming.expect("a complete snapshot is not displaced");
        let (id, from, total) = (incoming.snapshot, incoming.from, incoming.total);
        let replica = incoming.rebuilt.expect("only complete ones are written");
        self.snapshots.files.insert(id, total);
        let membership = replica.membership().to_raft();
        self.snapshots.staged = Some((id, replica));
        self.step_snapshot(from, incoming.term, id, Some(membership));
        self.process();
        let accepted = self.snapshots.staged.take().is_none();
        if !accepted {
            self.clean_up();
        }
        let message = Message::ChunkAck { transfer, received: total, done: Some(true) };
        self.outputs.push(Output::Send { to: from, message });
    }

    fn step_snapshot(
        &mut self,
        from: NodeId,
        term: Term,
        id: SnapshotId,
        membership: Option<eraftpb::ConfState>,
    ) {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (from.0, self.config.id.0, term);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (id.index, id.term);
        if let Some(membership) = membership {
            metadata.set_conf_state(membership);
        }
        self.raft.step(message);
    }

    /// Hands over the rebuilt state of the snapshot that raft has accepted.
    pub(super) fn take_staged(&mut self, id: SnapshotId) -> Replica<M> {
        let (staged, replica) = self.snapshots.staged.take().expect("raft installs what we step");
        assert_eq!(staged, id, "raft installs another snapshot than it was given");
        (self.snapshots.saving, self.snapshots.frozen) = (None, None);
        replica
    }
}
