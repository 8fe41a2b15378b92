//! Snapshots: saving the node's own state, sending one in chunks, receiving and installing one.
//!
//! *Saving* (`saving.rs`) freezes the replicated state and writes it piece by piece to a partial file,
//! which is renamed when it is complete and durable. Only then does the write-ahead log mention it,
//! and only when that is durable are older snapshots removed.
//!
//! *Sending* (`sending.rs`): raft decides that a follower needs a snapshot; its file is read and sent
//! in chunks with a small window. The log that the receiver needs next is kept until it has caught up.
//!
//! *Receiving* (`receiving.rs`): the chunks go to a partial file as they arrive; when all of them are
//! durable, the state is restored from that file beside the node, which checks every byte of it; only
//! then is the file renamed and raft shown the message. If raft accepts it, state, log and membership
//! change in one step, and the write-ahead log records that in one record.
//!
//! All of it goes through the disk's queue for snapshots, in pieces that are synced one by one, so that
//! a record of the log waits for one piece at most. Encoding and restoring are [`Work`] beside the node.

mod incoming;
mod receiving;
mod saving;
mod sending;

use std::collections::{BTreeMap, VecDeque};

use super::replica::Replica;
use super::{Node, Output};
use crate::env::{DiskOp, DiskQueue, FileName, Product, Work};
use crate::machine::StateMachine;
use crate::snapshot::{Head, Writer};
use crate::types::{NodeId, SnapshotId, Ticket};
use incoming::Incoming;
use saving::Saving;
use sending::{CatchUp, Outgoing};

/// Chunks sent ahead of their acknowledgement.
const WINDOW: u64 = 4;

/// What a batch of the queue for snapshots was for.
#[derive(Clone, Copy, Debug)]
enum Stored {
    /// A piece of the node's own snapshot is durable.
    Piece(SnapshotId),
    /// The node's own snapshot is complete and durable.
    Saved(SnapshotId),
    /// The beginning of the snapshot of this receipt, up to a length in bytes, is durable.
    Chunks(u64, u64),
    /// The snapshot of this receipt is durable under its name.
    Received(u64),
    /// Files that are not needed were removed.
    Removed,
}

/// What work beside the node was for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// The next piece of the node's own snapshot.
    Encode(SnapshotId),
    /// The state in the snapshot of this receipt.
    Restore(u64),
    /// A state that is not needed any more is dropped.
    Discard,
}

/// The snapshots of a node and their transfers.
pub(super) struct Snapshots<M> {
    /// The complete files on disk, with their sizes.
    files: BTreeMap<SnapshotId, u64>,
    /// The newest snapshot that the write-ahead log mentions durably.
    recorded: SnapshotId,
    /// Batches in the queue for snapshots with their bytes, and the newest ticket of it.
    storing: VecDeque<(Ticket, u64, Stored)>,
    /// What these batches write, in bytes.
    unsynced: u64,
    submitted: Ticket,
    /// Work beside the node, and the newest ticket of it.
    working: BTreeMap<Ticket, Purpose>,
    handed_out: Ticket,
    saving: Option<Saving>,
    /// A state that waits for its head, and one that waits until its place is free: see the bugs
    /// [`Bug::AppliedReadAfterState`](crate::bugs::Bug::AppliedReadAfterState) and
    /// [`Bug::AppliedBeforeLoad`](crate::bugs::Bug::AppliedBeforeLoad).
    frozen: Option<(Head, Writer)>,
    pub(super) loading: Option<M>,
    outgoing: BTreeMap<NodeId, Outgoing>,
    /// Members that have received a snapshot and not caught up since.
    catching_up: BTreeMap<NodeId, CatchUp>,
    /// Reads of files under way: for whom, which transfer, from where.
    fetches: BTreeMap<Ticket, (NodeId, u64, u64)>,
    next_fetch: u64,
    incoming: Option<Incoming<M>>,
    /// Snapshots whose receipt has begun so far.
    receipts: u64,
    /// A file that was refused by its receiver, or could not be read.
    suspect: Option<SnapshotId>,
    /// Received and durable, not yet accepted by raft.
    staged: Option<(SnapshotId, Replica<M>)>,
}

impl<M> Snapshots<M> {
    /// `present` is the file of the state, with its size; no one reads those in `left`.
    pub fn new(present: Option<(SnapshotId, u64)>, left: Vec<SnapshotId>) -> Self {
        Snapshots {
            recorded: SnapshotId::default(),
            files: left.into_iter().map(|id| (id, 0)).chain(present).collect(),
            storing: VecDeque::new(),
            unsynced: 0,
            submitted: Ticket(0),
            working: BTreeMap::new(),
            handed_out: Ticket(0),
            saving: None,
            frozen: None,
            loading: None,
            outgoing: BTreeMap::new(),
            catching_up: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            incoming: None,
            receipts: 0,
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
            incoming_bytes: self.incoming.as_ref().map_or(0, Incoming::ahead_bytes),
            storing_bytes: self.unsynced,
            ..super::Load::default()
        }
    }

    /// The transfer that is coming in, and how many bytes of it are here; zeros if there is none.
    pub fn receiving(&self) -> (u64, u64) {
        self.incoming.as_ref().map_or((0, 0), |incoming| (incoming.transfer, incoming.taken()))
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
    publish(id, ops);
}

/// The same for a partial file that is durable already.
fn publish(id: SnapshotId, ops: &mut Vec<DiskOp>) {
    ops.push(DiskOp::Rename { from: partial(id), to: complete(id) });
    ops.push(DiskOp::SyncDir);
}

impl<M: StateMachine> Node<M> {
    /// Hands a batch to the disk's queue for snapshots.
    fn store(&mut self, ops: Vec<DiskOp>, stored: Stored) {
        self.snapshots.submitted.0 += 1;
        let ticket = self.snapshots.submitted;
        let bytes = ops.iter().map(DiskOp::bytes).sum();
        self.snapshots.unsynced += bytes;
        self.snapshots.storing.push_back((ticket, bytes, stored));
        self.outputs.push(Output::Disk { queue: DiskQueue::Snapshot, ticket, ops });
    }

    /// All batches of the queue for snapshots up to `ticket` are durable.
    pub(super) fn stored(&mut self, ticket: Ticket) {
        assert!(ticket <= self.snapshots.submitted, "{ticket:?} was never submitted");
        while let Some((_, bytes, stored)) =
            self.snapshots.storing.pop_front_if(|(first, ..)| *first <= ticket)
        {
            self.snapshots.unsynced -= bytes;
            match stored {
                Stored::Piece(id) => self.piece_written(id),
                Stored::Saved(id) => self.saved(id),
                Stored::Chunks(receipt, end) => self.chunks_durable(receipt, end),
                Stored::Received(receipt) => self.received(receipt),
                Stored::Removed => {}
            }
        }
        assert!(
            !self.snapshots.storing.is_empty() || self.snapshots.unsynced == 0,
            "what is durable does not wait"
        );
    }

    /// Hands out work beside the node.
    fn hand_out(&mut self, work: Work, purpose: Purpose) {
        self.snapshots.handed_out.0 += 1;
        let ticket = self.snapshots.handed_out;
        self.snapshots.working.insert(ticket, purpose);
        self.outputs.push(Output::Work { ticket, work });
    }

    /// Work beside the node is done.
    pub(super) fn worked(&mut self, ticket: Ticket, product: Product) {
        let purpose = self.snapshots.working.remove(&ticket);
        match purpose.expect("this work was handed out, and is done once") {
            Purpose::Encode(id) => self.encoded(id, product.open()),
            Purpose::Restore(receipt) => self.restored(receipt, product.open()),
            Purpose::Discard => {}
        }
    }

    /// Drops a state beside the node: that takes time in proportion to its size, too.
    pub(super) fn discard(&mut self, state: Replica<M>) {
        let bytes = self.snapshots.files.values().copied().max().unwrap_or(0);
        self.hand_out(Work::new(0, bytes, move |_| drop(state)), Purpose::Discard);
    }

    /// The write-ahead log mentions this snapshot durably: older ones are not needed any more.
    pub(super) fn recorded(&mut self, id: SnapshotId) {
        assert!(id.index >= self.snapshots.recorded.index, "snapshots never go back");
        self.snapshots.recorded = id;
        self.clean_up();
    }

    /// Removes the snapshots that are neither the newest nor being sent, unless a restart may still
    /// need them. One that is being saved has a name that a refused one may bear already: it will
    /// take that file's place.
    pub(super) fn clean_up(&mut self) {
        let newest = self.raft.log().snapshot_id();
        if self.snapshots.recorded != newest || self.wal.floor().is_some() {
            return;
        }
        let outgoing = &self.snapshots.outgoing;
        let saving = self.snapshots.saving.as_ref().map(Saving::id);
        let old = self.snapshots.files.extract_if(.., |id, _| {
            *id != newest
                && saving != Some(*id)
                && !outgoing.values().any(|out| out.snapshot() == *id)
        });
        let mut ops: Vec<DiskOp> =
            old.map(|(id, _)| DiskOp::Remove { file: complete(id) }).collect();
        if !ops.is_empty() {
            ops.push(DiskOp::SyncDir);
            self.store(ops, Stored::Removed);
        }
    }

    /// Removes files that are not written to their end.
    pub(super) fn remove_partial(&mut self, files: Vec<FileName>) {
        if !files.is_empty() {
            let mut ops: Vec<DiskOp> =
                files.into_iter().map(|file| DiskOp::Remove { file }).collect();
            ops.push(DiskOp::SyncDir);
            self.store(ops, Stored::Removed);
        }
    }

    /// Lets time pass for all of them.
    pub(super) fn tick_snapshots(&mut self) {
        if self.raft.is_leader() && self.now.is_multiple_of(4) {
            self.consider_snapshot();
        }
        self.tick_saving();
        self.tick_incoming();
        self.tick_outgoing();
    }
}
