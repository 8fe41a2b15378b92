//! A snapshot that is being received: how far it is on its way to the disk, and the few chunks beyond
//! the first gap that have overtaken others.
//!
//! Throwing those away would be as right, but each would then be sent again after a while only, and
//! on a path that reorders a lot a transfer would take as many of these times as it has chunks.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::replica::Replica;
use super::WINDOW;
use crate::types::{NodeId, SnapshotId, Term};
use crate::wire::Chunk;

/// How far a snapshot has come.
pub(super) enum Stage<M> {
    /// Chunks are missing, or not durable.
    Receiving,
    /// All of it is durable in the partial file; the state is restored from there.
    Restoring,
    /// It is restored; the file gets its name.
    Publishing(Box<Replica<M>>),
}

/// A snapshot on its way in.
pub(super) struct Incoming<M> {
    /// Names it among all that this member has received; a transfer that resumes keeps it.
    pub receipt: u64,
    pub from: NodeId,
    pub transfer: u64,
    pub term: Term,
    pub snapshot: SnapshotId,
    /// Bytes of the whole.
    pub total: u64,
    pub stage: Stage<M>,
    /// The tick at which something last arrived or became durable.
    pub progress_at: u64,
    /// Bytes from the beginning to the first gap: handed to the disk, and durable there.
    taken: u64,
    durable: u64,
    /// Chunks beyond the gap, by their offset; no more than a sender's window.
    ahead: BTreeMap<u64, Bytes>,
}

impl<M> Incoming<M> {
    /// The transfer that this chunk is a part of, of which nothing is here yet.
    pub fn new(receipt: u64, from: NodeId, chunk: &Chunk, now: u64) -> Self {
        Incoming {
            receipt,
            from,
            transfer: chunk.transfer,
            term: chunk.term,
            snapshot: chunk.snapshot,
            total: chunk.total,
            stage: Stage::Receiving,
            progress_at: now,
            taken: 0,
            durable: 0,
            ahead: BTreeMap::new(),
        }
    }

    /// Goes on with another transfer of the same snapshot.
    pub fn resume(&mut self, from: NodeId, transfer: u64, term: Term, now: u64) {
        assert!(term >= self.term, "a leader of an older term is refused");
        (self.from, self.transfer, self.term, self.progress_at) = (from, transfer, term, now);
        // A sender may cut the file in another way.
        self.ahead.clear();
    }

    /// Whether nothing of it is missing.
    pub fn is_whole(&self) -> bool {
        !matches!(self.stage, Stage::Receiving)
    }

    /// Takes in a chunk, and what came before its turn. Returns what follows on what was there, in
    /// order: it goes to the disk.
    pub fn take(&mut self, offset: u64, data: Bytes) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        if offset > self.taken {
            if self.ahead.len() < WINDOW as usize {
                self.ahead.insert(offset, data);
            }
            return pieces;
        }
        let mut next = (offset == self.taken && !data.is_empty()).then_some(data);
        while let Some(data) = next {
            self.taken += data.len() as u64;
            pieces.push(data);
            next = self.ahead.remove(&self.taken);
        }
        assert!(self.taken <= self.total, "chunks are checked against the total");
        let taken = self.taken;
        self.ahead.retain(|offset, _| *offset > taken);
        pieces
    }

    /// All up to `end` is durable.
    pub fn durable(&mut self, end: u64) {
        assert!(end > self.durable, "batches of a queue end in order");
        assert!(end <= self.taken, "nothing is durable that was not handed to the disk");
        self.durable = end;
    }

    /// Bytes from the beginning that are durable.
    pub fn is_durable(&self) -> bool {
        self.durable == self.total
    }

    /// How far the sender may count it as received: what waits for the disk is bounded by a window.
    pub fn acknowledged(&self, window: u64) -> u64 {
        self.taken.min(self.durable.saturating_add(window))
    }

    /// Bytes from the beginning to the first gap.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes beyond the gap, which are in memory.
    pub fn ahead_bytes(&self) -> u64 {
        self.ahead.values().map(|data| data.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64) -> Chunk {
        let data = Bytes::from(vec![offset as u8; 10]);
        let snapshot = SnapshotId { index: 5, term: 1 };
        Chunk { transfer: 1, term: 1, snapshot, total: 100, offset, data }
    }

    fn incoming(offsets: &[u64]) -> (Incoming<()>, Vec<usize>) {
        let mut incoming = Incoming::new(1, NodeId(1), &chunk(0), 0);
        let pieces = offsets.iter().map(|at| incoming.take(*at, chunk(*at).data).len()).collect();
        (incoming, pieces)
    }

    #[test]
    fn take_keeps_chunks_that_overtake_others() {
        let (mut incoming, pieces) = incoming(&[20, 0, 30, 10, 10, 40]);
        assert_eq!(pieces, [0, 1, 0, 3, 0, 1]);
        assert_eq!((incoming.taken(), incoming.ahead_bytes()), (50, 0));
        assert_eq!(incoming.take(60, chunk(60).data), Vec::<Bytes>::new());
        let order = incoming.take(50, chunk(50).data);
        assert_eq!(order, [chunk(50).data, chunk(60).data]);
    }

    #[test]
    fn take_keeps_no_more_than_a_window_ahead() {
        let (incoming, _) = incoming(&[90, 80, 70, 60, 50, 40, 30, 20]);
        assert_eq!(incoming.ahead_bytes(), WINDOW * 10);
    }

    #[test]
    fn take_drops_what_does_not_fit_behind_the_end() {
        // As from a sender that cut the file in another way the second time.
        let (incoming, pieces) = incoming(&[15, 0, 10, 20]);
        assert_eq!(pieces, [0, 1, 1, 1]);
        assert_eq!((incoming.taken(), incoming.ahead_bytes()), (30, 0));
    }

    #[test]
    fn acknowledged_is_bounded_by_what_is_durable() {
        let (mut incoming, _) = incoming(&[0, 10, 20, 30, 40]);
        assert_eq!(incoming.acknowledged(20), 20);
        incoming.durable(20);
        assert_eq!(incoming.acknowledged(20), 40);
        incoming.durable(50);
        assert_eq!(incoming.acknowledged(20), 50);
        assert!(!incoming.is_durable());
    }

    #[test]
    fn resume_keeps_what_is_there_and_drops_what_is_ahead() {
        let (mut incoming, _) = incoming(&[0, 20]);
        incoming.resume(NodeId(3), 9, 2, 7);
        assert_eq!((incoming.taken(), incoming.ahead_bytes()), (10, 0));
        assert_eq!((incoming.from, incoming.transfer, incoming.term), (NodeId(3), 9, 2));
    }
}
