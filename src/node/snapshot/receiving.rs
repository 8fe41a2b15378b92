//! Receiving a snapshot: to disk as it arrives, restored beside the node, then shown to raft.

use raft::eraftpb;
use tracing::{debug, warn};

use super::super::replica::Replica;
use super::super::{Node, Output};
use super::incoming::{Incoming, Stage};
use super::{Purpose, Stored, partial, publish};
use crate::bugs::{Bug, planted};
use crate::env::{DiskOp, Work};
use crate::error::Error;
use crate::machine::StateMachine;
use crate::types::{NodeId, SnapshotId, Term};
use crate::wire::{Chunk, Message};

/// The sender of a snapshot that is being restored hears of it every so many ticks.
const RESTORING_TICKS: u64 = 16;
/// A part of a snapshot that no leader goes on with is kept for so many times
/// [`Config::snapshot_ticks`](crate::config::Config::snapshot_ticks): it costs room on the disk only,
/// and the next transfer of the same snapshot goes on behind it.
const KEPT_TRANSFERS: u64 = 10;

impl<M: StateMachine> Node<M> {
    pub(in crate::node) fn receive_chunk(&mut self, from: NodeId, chunk: Chunk) {
        let ack = |received: u64, done: Option<bool>| Output::Send {
            to: from,
            message: Message::ChunkAck { transfer: chunk.transfer, received, done },
        };
        if !self.check_chunk(from, &chunk) || chunk.term < self.raft.term() || self.installing {
            // A stale leader learns its place from raft; others may try again.
            self.outputs.push(ack(0, Some(false)));
            return;
        }
        let is_whole = self.snapshots.incoming.as_ref().is_some_and(Incoming::is_whole);
        if chunk.snapshot.index <= self.raft.commit() && !is_whole {
            // There is nothing new in it. Raft gets to see its name all the same, and answers with
            // what it has, which moves the leader on.
            let commit = self.raft.commit();
            if self.snapshots.incoming.as_ref().is_some_and(|i| i.snapshot.index <= commit) {
                self.drop_incoming();
            }
            self.step_snapshot(from, chunk.term, chunk.snapshot, None);
            self.outputs.push(ack(chunk.total, Some(true)));
            return;
        }
        let window = u64::from(self.config.chunk_bytes) * super::WINDOW;
        if self.snapshots.unsynced > 2 * window {
            // The disk lags behind: the sender tries again.
            return;
        }
        if !self.belongs(from, &chunk) {
            if is_whole || self.snapshots.incoming.as_ref().is_some_and(|i| i.term > chunk.term) {
                return;
            }
            if chunk.offset > 0 {
                self.outputs.push(ack(0, None));
                return;
            }
            self.drop_incoming();
            if !self.snapshot_fits(chunk.total) {
                // The sender gives up after a while, and begins again.
                debug!(node = %self.config.id, %from, total = chunk.total, "a snapshot does not fit");
                self.incoming_did_not_fit();
                return;
            }
            self.snapshots.receipts += 1;
            let receipt = self.snapshots.receipts;
            self.snapshots.incoming = Some(Incoming::new(receipt, from, &chunk, self.now));
        }
        if !self.snapshot_fits(chunk.data.len() as u64) {
            self.drop_incoming();
            return self.incoming_did_not_fit();
        }
        let incoming = self.snapshots.incoming.as_mut().expect("the chunk belongs to it");
        let offset = incoming.taken();
        let pieces = incoming.take(chunk.offset, chunk.data);
        if !pieces.is_empty() {
            incoming.progress_at = self.now;
        }
        let (receipt, end, id) = (incoming.receipt, incoming.taken(), incoming.snapshot);
        self.outputs.push(ack(incoming.acknowledged(window), None));
        if !pieces.is_empty() {
            self.write_chunks(id, offset, pieces, Stored::Chunks(receipt, end));
        }
    }

    /// Whether a chunk is a part of the snapshot that is being received. A new transfer of the same
    /// snapshot takes over what is there of it.
    fn belongs(&mut self, from: NodeId, chunk: &Chunk) -> bool {
        let Some(incoming) = &mut self.snapshots.incoming else { return false };
        if planted(Bug::ChunksByPeerOnly) && incoming.from == from {
            return true;
        }
        if (incoming.from, incoming.transfer) == (from, chunk.transfer) {
            return true;
        }
        let is_same = (incoming.snapshot, incoming.total) == (chunk.snapshot, chunk.total);
        let resumes = is_same && !incoming.is_whole() && incoming.term <= chunk.term;
        if resumes {
            incoming.resume(from, chunk.transfer, chunk.term, self.now);
            return true;
        }
        false
    }

    fn write_chunks(
        &mut self,
        id: SnapshotId,
        mut offset: u64,
        pieces: Vec<bytes::Bytes>,
        stored: Stored,
    ) {
        let file = partial(id);
        let mut ops = Vec::with_capacity(pieces.len() + 2);
        if offset == 0 {
            ops.push(DiskOp::Create { file, len: 0 });
        }
        for data in pieces {
            let len = data.len() as u64;
            ops.push(DiskOp::Write { file, offset, data });
            offset += len;
        }
        ops.push(DiskOp::Sync { file });
        self.store(ops, stored);
    }

    /// The beginning of a snapshot is durable. When all of it is, it is restored.
    pub(super) fn chunks_durable(&mut self, receipt: u64, end: u64) {
        let window = u64::from(self.config.chunk_bytes) * super::WINDOW;
        let (params, sessions) = (self.params.clone(), self.config.session_limits());
        let incoming = self.snapshots.incoming.as_mut();
        let Some(incoming) = incoming.filter(|incoming| incoming.receipt == receipt) else {
            return;
        };
        incoming.durable(end);
        incoming.progress_at = self.now;
        let (transfer, received) = (incoming.transfer, incoming.acknowledged(window));
        let (to, id, total) = (incoming.from, incoming.snapshot, incoming.total);
        let message = Message::ChunkAck { transfer, received, done: None };
        self.outputs.push(Output::Send { to, message });
        if incoming.is_durable() {
            incoming.stage = Stage::Restoring;
            let work = Work::new(total, total, move |files| {
                Replica::<M>::restore_from(&params, sessions, partial(id), total, files)
            });
            self.hand_out(work, Purpose::Restore(receipt));
        }
    }

    /// The state is restored beside the present one, or the bytes make none.
    pub(super) fn restored(&mut self, receipt: u64, result: Result<Replica<M>, Error>) {
        let is_it = |incoming: &&mut Incoming<M>| {
            incoming.receipt == receipt && matches!(incoming.stage, Stage::Restoring)
        };
        let incoming = self.snapshots.incoming.as_mut().filter(is_it);
        let incoming = incoming.expect("a whole snapshot is not displaced");
        let (id, from, transfer) = (incoming.snapshot, incoming.from, incoming.transfer);
        match result {
            Ok(replica) if replica.applied() == id => {
                incoming.stage = Stage::Publishing(Box::new(replica));
                let mut ops = Vec::new();
                publish(id, &mut ops);
                self.store(ops, Stored::Received(receipt));
            }
            other => {
                let reason = other.err().map_or("it is another one".into(), |e| e.to_string());
                warn!(node = %self.config.id, %from, reason, "refused a snapshot");
                self.drop_incoming();
                let message = Message::ChunkAck { transfer, received: 0, done: Some(false) };
                self.outputs.push(Output::Send { to: from, message });
            }
        }
    }

    /// The file is durable under its name: now raft may see the message.
    pub(super) fn received(&mut self, receipt: u64) {
        let incoming = self.snapshots.incoming.take_if(|incoming| incoming.receipt == receipt);
        let incoming = incoming.expect("a whole snapshot is not displaced");
        let (id, from, total) = (incoming.snapshot, incoming.from, incoming.total);
        let transfer = incoming.transfer;
        let Stage::Publishing(replica) = incoming.stage else {
            unreachable!("only what was restored is published")
        };
        self.snapshots.files.insert(id, total);
        let membership = replica.membership().to_raft();
        self.snapshots.staged = Some((id, *replica));
        self.step_snapshot(from, incoming.term, id, Some(membership));
        self.process();
        if let Some((_, refused)) = self.snapshots.staged.take() {
            self.discard(refused);
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
    pub(in crate::node) fn take_staged(&mut self, id: SnapshotId) -> Replica<M> {
        let (staged, replica) = self.snapshots.staged.take().expect("raft installs what we step");
        assert_eq!(staged, id, "raft installs another snapshot than it was given");
        (self.snapshots.saving, self.snapshots.frozen) = (None, None);
        replica
    }

    /// Gives up what is there of a snapshot, unless it is whole.
    fn drop_incoming(&mut self) {
        if let Some(incoming) = self.snapshots.incoming.take() {
            let file = partial(incoming.snapshot);
            if incoming.taken() > 0 {
                self.remove_files(vec![file], incoming.taken());
            }
        }
    }

    /// Gives up a part of a snapshot that no leader goes on with; while a whole one is restored, the
    /// sender hears that it is.
    pub(super) fn tick_incoming(&mut self) {
        if let Some(incoming) = self.snapshots.incoming.as_ref().filter(|i| i.is_whole())
            && self.now.is_multiple_of(RESTORING_TICKS)
        {
            let (transfer, received) = (incoming.transfer, incoming.total);
            let message = Message::ChunkAck { transfer, received, done: None };
            self.outputs.push(Output::Send { to: incoming.from, message });
        }
        let limit = KEPT_TRANSFERS * u64::from(self.config.snapshot_ticks);
        let is_forsaken = |incoming: &Incoming<M>| {
            !incoming.is_whole() && incoming.progress_at + limit <= self.now
        };
        if self.snapshots.incoming.as_ref().is_some_and(is_forsaken) {
            self.drop_incoming();
        }
    }
}
