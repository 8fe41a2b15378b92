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

use tracing::warn;

use super::replica::Replica;
use super::{Node, Output};
use crate::env::{DiskOp, DiskQueue, FileName, Product, Work};
use crate::error::{DiskError, Error};
use crate::machine::StateMachine;
use crate::snapshot::{Head, Writer};
use crate::take;
use crate::types::{NodeId, SnapshotId, Ticket};
use incoming::{Incoming, Stage};
use saving::Saving;
use sending::{CatchUp, Outgoing};

/// Chunks sent ahead of their acknowledgement.
const WINDOW: u64 = 4;

/// What a batch of the queue for snapshots was for.
#[derive(Clone, Debug)]
enum Stored {
    /// A piece of the node's own snapshot is durable.
    Piece(SnapshotId),
    /// The node's own snapshot is complete and durable.
    Saved(SnapshotId),
    /// The beginning of the snapshot of this receipt, up to a length in bytes, is durable.
    Chunks(u64, u64),
    /// The snapshot of this receipt is durable under its name.
    Received(u64),
    /// Files, of so many bytes together, were removed.
    Removed(Vec<FileName>, u64),
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

    /// Fills in the part of a node's load that is about snapshots.
    pub fn add_to(&self, load: &mut super::Load) {
        load.snapshots = self.files.len();
        load.saving = self.saving.is_some();
        load.outgoing = self.outgoing.len();
        load.fetches = self.fetches.len();
        load.incoming_bytes = self.incoming.as_ref().map_or(0, Incoming::ahead_bytes);
        load.storing_bytes = self.unsynced;
    }

    /// Bytes of the complete file of this snapshot; 0 if there is none.
    pub fn size_of(&self, id: SnapshotId) -> u64 {
        self.files.get(&id).copied().unwrap_or(0)
    }

    /// Bytes of files that can make way or soon will: all but the complete file of `newest`.
    pub fn spare_bytes(&self, newest: SnapshotId) -> u64 {
        let old = self.files.iter().filter(|(id, _)| **id != newest).map(|(_, bytes)| bytes);
        let saving = self.saving.as_ref().map_or(0, Saving::written);
        let incoming = self.incoming.as_ref().map_or(0, Incoming::taken);
        old.sum::<u64>() + saving + incoming
    }

    /// Bytes of files whose removal is on its way to the disk.
    pub fn bytes_being_removed(&self) -> u64 {
        let bytes = |stored: &Stored| match stored {
            Stored::Removed(_, bytes) => *bytes,
            _ => 0,
        };
        self.storing.iter().map(|(.., stored)| bytes(stored)).sum()
    }

    /// Bytes handed to the disk and not durable yet.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
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
        self.space.spend(&ops);
        self.snapshots.storing.push_back((ticket, bytes, stored));
        self.outputs.push(Output::Disk { queue: DiskQueue::Snapshot, ticket, ops });
    }

    /// All batches of the queue for snapshots up to `ticket` are durable.
    pub(super) fn stored(&mut self, ticket: Ticket) {
        assert!(ticket <= self.snapshots.submitted, "{ticket:?} was never submitted");
        while let Some((_, bytes, stored)) =
            take::pop_front_if(&mut self.snapshots.storing, |(first, ..)| *first <= ticket)
        {
            self.snapshots.unsynced -= bytes;
            match stored {
                Stored::Piece(id) => self.piece_written(id),
                Stored::Saved(id) => self.saved(id),
                Stored::Chunks(receipt, end) => self.chunks_durable(receipt, end),
                Stored::Received(receipt) => self.received(receipt),
                Stored::Removed(..) => {}
            }
        }
        assert!(
            !self.snapshots.storing.is_empty() || self.snapshots.unsynced == 0,
            "what is durable does not wait"
        );
    }

    /// A batch of the queue for snapshots did not fit on the disk: what it was for is dropped, and with
    /// it everything that waits in the queue, because that may go on with the same files. The room
    /// of what was written becomes free, and the snapshots are tried again later.
    pub(super) fn not_stored(&mut self, ticket: Ticket, error: DiskError) {
        assert!(ticket <= self.snapshots.submitted, "{ticket:?} was never submitted");
        self.outputs
            .retain(|output| !matches!(output, Output::Disk { queue: DiskQueue::Snapshot, .. }));
        self.snapshots.unsynced = 0;
        let (mut left, mut bytes, mut is_dropped) = (Vec::new(), 0, false);
        for (_, _, stored) in std::mem::take(&mut self.snapshots.storing) {
            let id = match stored {
                Stored::Removed(files, size) => {
                    left.extend(files);
                    bytes += size;
                    continue;
                }
                Stored::Piece(id) | Stored::Saved(id) => id,
                Stored::Chunks(receipt, _) | Stored::Received(receipt) => {
                    let of = self.snapshots.incoming.as_ref().filter(|of| of.receipt == receipt);
                    let Some(incoming) = of else { continue };
                    incoming.snapshot
                }
            };
            is_dropped = true;
            bytes += self.forget(id);
            left.push(partial(id));
            // It may have got its name already.
            if !self.snapshots.files.contains_key(&id) {
                left.push(complete(id));
            }
        }
        if !is_dropped {
            return self.stop(Error::Disk(error));
        }
        warn!(node = %self.config.id, %error, "dropped a snapshot that does not fit");
        self.remove_files(left, bytes);
        self.saving_did_not_fit();
    }

    /// Forgets the snapshot with this name that is being saved or received. Returns its bytes.
    fn forget(&mut self, id: SnapshotId) -> u64 {
        let saving = self.snapshots.saving.take_if(|saving| saving.id() == id);
        let incoming = self.snapshots.incoming.take_if(|incoming| incoming.snapshot == id);
        let received = incoming.as_ref().map_or(0, Incoming::taken);
        if let Some(Stage::Publishing(replica)) = incoming.map(|incoming| incoming.stage) {
            self.discard(*replica);
        }
        saving.map_or(0, |saving| saving.written()) + received
    }

    /// Bytes by which files become larger once all that is on its way to the disk is done.
    pub(super) fn room_under_way(&self) -> u64 {
        let log = self.persisting.iter().map(|batch| batch.room()).sum::<u64>();
        log + self.snapshots.unsynced()
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
        // Only now are the segments below it not needed: without this they would stay until the next
        // snapshot is recorded.
        let mut ops = Vec::new();
        self.wal.compact(&mut ops);
        if !ops.is_empty() {
            self.submit(ops, None);
        }
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
        let old = take::extract_if(&mut self.snapshots.files, .., |id, _| {
            *id != newest
                && saving != Some(*id)
                && !outgoing.values().any(|out| out.snapshot() == *id)
        });
        let (files, sizes): (Vec<_>, Vec<u64>) =
            old.into_iter().map(|(id, size)| (complete(id), size)).unzip();
        self.remove_files(files, sizes.into_iter().sum());
    }

    /// Removes files of so many bytes together.
    pub(super) fn remove_files(&mut self, files: Vec<FileName>, bytes: u64) {
        if files.is_empty() {
            return;
        }
        let mut ops: Vec<DiskOp> =
            files.iter().map(|file| DiskOp::Remove { file: *file }).collect();
        ops.push(DiskOp::SyncDir);
        self.space.frees(bytes);
        self.store(ops, Stored::Removed(files, bytes));
    }

    /// Lets time pass for all of them.
    pub(super) fn tick_snapshots(&mut self) {
        if self.now.is_multiple_of(4) && (self.raft.is_leader() || self.is_short_of_room()) {
            self.consider_snapshot();
        }
        self.tick_saving();
        self.tick_incoming();
        self.tick_outgoing();
    }
}
