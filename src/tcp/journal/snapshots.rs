//! Which snapshots are being written, sent and received, since when, and how many bytes they have.
//!
//! One entry for each peer and for each file that is not complete: as many as the node has.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::env::{DiskOp, FileName};
use crate::types::{NodeId, SnapshotId};
use crate::wire::Chunk;

/// A snapshot on its way from or to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    number: u64,
    pub peer: NodeId,
    pub id: SnapshotId,
    pub bytes: u64,
    began: Duration,
}

impl Transfer {
    fn new(now: Duration, peer: NodeId, chunk: &Chunk) -> Transfer {
        Transfer {
            number: chunk.transfer,
            peer,
            id: chunk.snapshot,
            bytes: chunk.total,
            began: now,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Files that are not complete: since when they are written, and how many bytes they have.
    writing: BTreeMap<SnapshotId, (Duration, u64)>,
    sending: BTreeMap<NodeId, Transfer>,
    receiving: Option<Transfer>,
}

fn partial(file: FileName) -> Option<SnapshotId> {
    match file {
        FileName::Partial(index, term) => Some(SnapshotId { index, term }),
        _ => None,
    }
}

impl Snapshots {
    pub fn queued(&mut self, now: Duration, ops: &[DiskOp]) {
        for op in ops {
            match op {
                DiskOp::Create { file, .. } => {
                    if let Some(id) = partial(*file) {
                        self.writing.insert(id, (now, 0));
                    }
                }
                DiskOp::Write { file, data, .. } => {
                    if let Some((_, bytes)) =
                        partial(*file).and_then(|id| self.writing.get_mut(&id))
                    {
                        *bytes += data.len() as u64;
                    }
                }
                DiskOp::Remove { file } => {
                    if let Some(id) = partial(*file) {
                        self.writing.remove(&id);
                    }
                }
                DiskOp::Sync { .. } | DiskOp::SyncDir | DiskOp::Rename { .. } => {}
            }
        }
    }

    /// The snapshot `id` is durable. Returns the bytes and the time, unless it came from a peer.
    pub fn saved(&mut self, now: Duration, id: SnapshotId) -> Option<(u64, Duration)> {
        let written = self.writing.remove(&id);
        // Older ones are given up.
        self.writing.retain(|other, _| other.index > id.index);
        if self.receiving.is_some_and(|receiving| receiving.id == id) {
            return None;
        }
        written.map(|(began, bytes)| (bytes, now.saturating_sub(began)))
    }

    /// A chunk goes to a peer. Returns whether it is the first of its transfer.
    pub fn sending(&mut self, now: Duration, to: NodeId, chunk: &Chunk) -> bool {
        if self.sending.get(&to).is_some_and(|known| known.number == chunk.transfer) {
            return false;
        }
        self.sending.insert(to, Transfer::new(now, to, chunk));
        true
    }

    /// A peer says that a transfer has ended. Returns it with the time that it took.
    pub fn ended(
        &mut self,
        now: Duration,
        from: NodeId,
        number: u64,
    ) -> Option<(Transfer, Duration)> {
        if self.sending.get(&from)?.number != number {
            return None;
        }
        let ended = self.sending.remove(&from)?;
        Some((ended, now.saturating_sub(ended.began)))
    }

    /// A chunk has come from a peer. Returns whether it is the first of its snapshot: another
    /// transfer of the same one goes on where the last one ended.
    pub fn receiving(&mut self, now: Duration, from: NodeId, chunk: &Chunk) -> bool {
        if let Some(known) = self.receiving.as_mut().filter(|known| known.id == chunk.snapshot) {
            known.peer = from;
            return false;
        }
        self.receiving = Some(Transfer::new(now, from, chunk));
        true
    }

    /// The state is now that of the snapshot `id`. Returns where it came from and the time since its
    /// first chunk, unless it did not come from a peer.
    pub fn installed(&mut self, now: Duration, id: SnapshotId) -> Option<(Transfer, Duration)> {
        let received = self.receiving.take_if(|receiving| receiving.id == id)?;
        self.writing.retain(|other, _| other.index > id.index);
        Some((received, now.saturating_sub(received.began)))
    }
}
