//! A snapshot that is being received: its bytes from the beginning to the first gap, and the few
//! chunks beyond the gap that have overtaken others.
//!
//! Throwing those away would be as right, but each would then be sent again after a while only, and
//! on a path that reorders a lot a transfer would take as many of these times as it has chunks.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::super::replica::Replica;
use super::WINDOW;
use crate::types::{NodeId, SnapshotId, Term};
use crate::wire::Chunk;

pub(super) struct Incoming<M> {
    pub from: NodeId,
    pub transfer: u64,
    pub term: Term,
    pub snapshot: SnapshotId,
    pub total: u64,
    pub data: BytesMut,
    /// Chunks beyond the first gap, by their offset; no more than a sender's window.
    ahead: BTreeMap<u64, Bytes>,
    pub progress_at: u64,
    /// Complete, checked and rebuilt; the file is being written.
    pub rebuilt: Option<Replica<M>>,
}

impl<M> Incoming<M> {
    /// The transfer that this chunk is a part of, of which nothing is here yet.
    pub fn new(from: NodeId, chunk: &Chunk, now: u64) -> Self {
        Incoming {
            from,
            transfer: chunk.transfer,
            term: chunk.term,
            snapshot: chunk.snapshot,
            total: chunk.total,
            data: BytesMut::new(),
            ahead: BTreeMap::new(),
            progress_at: now,
            rebuilt: None,
        }
    }

    /// Takes in what a chunk has, and what came before its turn. Says whether the gap has moved.
    pub fn take(&mut self, offset: u64, data: Bytes) -> bool {
        let before = self.end();
        if offset == before {
            self.data.extend_from_slice(&data);
        } else if offset > before && self.ahead.len() < WINDOW as usize {
            self.ahead.insert(offset, data);
        }
        while let Some(data) = self.ahead.remove(&self.end()) {
            self.data.extend_from_slice(&data);
        }
        let end = self.end();
        self.ahead.retain(|offset, _| *offset > end);
        end > before
    }

    /// Takes the bytes out.
    pub fn take_all(&mut self) -> Bytes {
        std::mem::take(&mut self.data).freeze()
    }

    /// How much of it is in memory.
    pub fn bytes(&self) -> u64 {
        self.end() + self.ahead.values().map(|data| data.len() as u64).sum::<u64>()
    }

    /// Where the first gap begins.
    fn end(&self) -> u64 {
        self.data.len() as u64
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

    fn incoming(offsets: &[u64]) -> (Incoming<()>, Vec<bool>) {
        let mut incoming = Incoming::new(NodeId(1), &chunk(0), 0);
        let moved = offsets.iter().map(|at| incoming.take(*at, chunk(*at).data)).collect();
        (incoming, moved)
    }

    #[test]
    fn chunks_that_overtake_others_wait_for_them() {
        let (mut incoming, moved) = incoming(&[20, 0, 30, 10, 10, 40]);
        assert_eq!(moved, [false, true, false, true, false, true]);
        let expected: Vec<u8> = [0, 10, 20, 30, 40].into_iter().flat_map(|at| [at; 10]).collect();
        assert_eq!(incoming.bytes(), 50);
        assert_eq!(incoming.take_all(), expected);
    }

    #[test]
    fn no_more_of_them_are_kept_than_a_sender_sends_ahead() {
        let (incoming, _) = incoming(&[90, 80, 70, 60, 50, 40, 30, 20]);
        assert_eq!(incoming.bytes(), WINDOW * 10);
    }

    #[test]
    fn what_does_not_fit_behind_the_end_is_dropped() {
        // As from a sender that cut the file in another way the second time.
        let (mut incoming, moved) = incoming(&[15, 0, 10, 20]);
        assert_eq!(moved, [false, true, true, true]);
        assert_eq!((incoming.bytes(), incoming.take_all().len()), (30, 30));
    }
}
