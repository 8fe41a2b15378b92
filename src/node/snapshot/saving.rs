//! Saving the node's own state, piece by piece.
//!
//! Each piece is encoded beside the node, written, synced, and followed by a pause as long as it took:
//! so the device has at least half of its time for the log, whatever its speed. The pieces are as small
//! as it takes for one to need about a tick. There are no pauses when the log has grown so much that the
//! snapshot is urgent. The members take turns: each begins at its own place between two
//! multiples of [`Config::snapshot_every`](crate::config::Config::snapshot_every).

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use tracing::debug;

use super::super::Node;
use super::super::ready::Then;
use super::{Purpose, Stored, complete, finish, partial};
use crate::bugs::{Bug, planted};
use crate::env::{DiskOp, Work};
use crate::machine::StateMachine;
use crate::snapshot::{Head, Writer};
use crate::types::{LogIndex, NodeId, SnapshotId};

/// Pieces shrink to this part of the largest.
const SMALLEST_PART: u32 = 64;
/// The first piece is this part of the largest.
const FIRST_PART: u32 = 8;
/// A piece that takes so many ticks or more is followed by smaller ones.
const LONG_TICKS: u64 = 3;

/// A snapshot of the node's own state that is being written.
pub(super) struct Saving {
    head: Head,
    /// `None` while the next piece is encoded.
    encoder: Option<Encoder>,
    /// Bytes that are written and durable, or about to be.
    written: u64,
    /// Bytes of the next piece.
    piece_bytes: u32,
    /// The tick at which the present piece was begun.
    began: u64,
    /// The tick at which the next piece may begin, if none is under way.
    next_at: Option<u64>,
}

impl Saving {
    pub fn id(&self) -> SnapshotId {
        self.head.id
    }

    /// Bytes of its file.
    pub fn written(&self) -> u64 {
        self.written
    }
}

/// The part of a snapshot that is not written yet.
pub(super) struct Encoder {
    writer: Writer,
    /// What did not fit into the last piece.
    rest: Bytes,
}

/// What encoding a piece gives: what is left of the snapshot, the piece, and whether it is the last.
type Encoded = (Encoder, Bytes, bool);

impl Encoder {
    /// The next piece, of `piece_bytes` bytes unless it is the last one. What the machine gives in one
    /// go may be larger: a value, or a chunk of many small ones.
    fn encode(mut self, piece_bytes: u32) -> Encoded {
        let room = piece_bytes as usize;
        if self.rest.len() >= room {
            let piece = self.rest.split_to(room);
            return (self, piece, false);
        }
        let mut piece = BytesMut::from(&std::mem::take(&mut self.rest)[..]);
        while piece.len() < room
            && let Some(mut bytes) = self.writer.next()
        {
            piece.extend_from_slice(&bytes.split_to(bytes.len().min(room - piece.len())));
            self.rest = bytes;
        }
        let is_last = piece.len() < room;
        (self, piece.freeze(), is_last)
    }
}

impl<M: StateMachine> Node<M> {
    /// Takes a snapshot if it is this member's turn, or if raft needs a newer one.
    pub(in crate::node) fn consider_snapshot(&mut self) {
        let log = self.raft.log();
        if self.snapshots.saving.is_some() {
            return;
        }
        let wanted = log.take_wanted();
        let applied = self.replica.applied();
        let newest = log.snapshot_id();
        // What is pinned for members that catch up is covered already, and what is not applied yet
        // cannot be: another snapshot would not make the log any smaller.
        let heavy_bytes = self.config.max_log_bytes / 2;
        let is_heavy = || match planted(Bug::PinnedLogIsHeavy) {
            true => log.bytes() >= heavy_bytes,
            false => {
                log.uncovered_bytes() >= heavy_bytes
                    && log.coverable_bytes(applied.index) >= heavy_bytes
            }
        };
        // Only the log says that there are others: see `repair.rs`.
        let me = self.config.id;
        let outgrown =
            || log.snapshot_is_of_one(me) && !self.replica.membership().is_quorum(|id| id == me);
        // The same bytes would be refused again.
        let suspect = self.snapshots.suspect == Some(newest);
        let is_due = applied.index >= self.next_turn(newest.index)
            || ((wanted || outgrown() || is_heavy()) && applied.index > newest.index)
            // What was deleted meanwhile makes room with the next snapshot only.
            || (applied.index > newest.index && self.is_short_of_room())
            || suspect;
        // A received one may turn out to be the same, with the same file.
        let is_received =
            self.snapshots.incoming.as_ref().is_some_and(|incoming| incoming.snapshot == applied);
        if !is_due || !self.space.may_save(self.now) || self.installing || is_received {
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
        debug!(node = %self.config.id, index = head.id.index, "saving a snapshot");
        self.snapshots.saving = Some(Saving {
            head,
            encoder: Some(Encoder { writer, rest: Bytes::new() }),
            written: 0,
            piece_bytes: (self.config.piece_bytes / FIRST_PART).max(1),
            began: self.now,
            next_at: None,
        });
        self.next_piece();
    }

    /// The applied index at which the next snapshot after the one at `newest` is due: the next of
    /// this member's own places, which are `snapshot_every` apart.
    fn next_turn(&self, newest: LogIndex) -> LogIndex {
        let every = self.config.snapshot_every;
        let membership = self.replica.membership();
        // No learner is a voter, so that nobody is counted twice.
        let groups = [membership.voters(), membership.learners()];
        let before = |group: &BTreeSet<NodeId>| group.range(..self.config.id).count() as u64;
        let rank: u64 = groups.into_iter().map(before).sum();
        let members: u64 = groups.into_iter().map(|group| group.len() as u64).sum();
        let place = every * rank / members.max(1);
        let rounds = newest.saturating_sub(place) / every + u64::from(newest >= place);
        place.saturating_add(rounds.saturating_mul(every))
    }

    /// Puts together a snapshot of parts that were taken at different times, as two bugs do.
    fn thaw(&mut self, head: Head, writer: Writer) -> (Head, Writer) {
        let Some((old, state)) = self.snapshots.frozen.take() else { return (head, writer) };
        let id = if planted(Bug::AppliedReadAfterState) { head.id } else { old.id };
        let head = Head { id, ..head };
        let writer = state.with_head(&head);
        (head, writer)
    }

    /// Begins the next piece: first it is encoded.
    fn next_piece(&mut self) {
        let now = self.now;
        let Some(saving) = &mut self.snapshots.saving else { return };
        let Some(encoder) = saving.encoder.take() else { return };
        (saving.began, saving.next_at) = (now, None);
        let (id, piece_bytes) = (saving.id(), saving.piece_bytes);
        let work = Work::new(0, piece_bytes.into(), move |_| encoder.encode(piece_bytes));
        self.hand_out(work, Purpose::Encode(id));
    }

    /// A piece is encoded: it is written and synced.
    pub(super) fn encoded(&mut self, id: SnapshotId, (encoder, data, is_last): Encoded) {
        let old = self.raft.log().snapshot_id();
        let fits = self.snapshot_fits(data.len() as u64);
        let Some(saving) = self.snapshots.saving.as_mut().filter(|saving| saving.id() == id) else {
            // A newer one was installed meanwhile.
            return self.remove_files(vec![partial(id)], 0);
        };
        if !fits {
            let written = self.forget(id);
            self.saving_did_not_fit();
            debug!(node = %self.config.id, index = id.index, written, "a snapshot does not fit");
            return self.remove_files(vec![partial(id)], written);
        }
        let mut ops = Vec::new();
        if planted(Bug::RemovedBeforeSynced) {
            ops.extend([DiskOp::Remove { file: complete(old) }, DiskOp::SyncDir]);
        }
        if saving.written == 0 {
            ops.push(DiskOp::Create { file: partial(id), len: 0 });
        }
        ops.push(DiskOp::Write { file: partial(id), offset: saving.written, data: data.clone() });
        saving.written += data.len() as u64;
        saving.encoder = Some(encoder);
        if is_last {
            finish(id, &mut ops);
            self.store(ops, Stored::Saved(id));
        } else {
            ops.push(DiskOp::Sync { file: partial(id) });
            self.store(ops, Stored::Piece(id));
        }
    }

    /// A piece is durable: the next one begins after a pause.
    pub(super) fn piece_written(&mut self, id: SnapshotId) {
        let largest = self.config.piece_bytes;
        let now = self.now;
        let Some(saving) = self.snapshots.saving.as_mut().filter(|saving| saving.id() == id) else {
            return self.remove_files(vec![partial(id)], 0);
        };
        let took = now - saving.began;
        saving.piece_bytes = match took {
            0..=1 => saving.piece_bytes.saturating_mul(2).min(largest),
            LONG_TICKS.. => (saving.piece_bytes / 2).max(largest / SMALLEST_PART).max(1),
            _ => saving.piece_bytes,
        };
        saving.next_at = Some(now + took.max(1));
        if self.raft.log().uncovered_bytes() >= self.config.max_log_bytes / 2 {
            self.next_piece();
        }
    }

    /// Begins the next piece when its pause is over.
    pub(super) fn tick_saving(&mut self) {
        let next_at = self.snapshots.saving.as_ref().and_then(|saving| saving.next_at);
        if next_at.is_some_and(|at| at <= self.now) {
            self.next_piece();
        }
    }

    /// The snapshot is durable: the log may forget what it covers.
    pub(super) fn saved(&mut self, id: SnapshotId) {
        match self.snapshots.saving.take() {
            Some(saving) if saving.id() == id => {
                self.snapshots.files.insert(id, saving.written);
                self.snapshots.suspect = None;
                self.raft.log_mut().saved(id, saving.head.membership.to_raft());
            }
            other => {
                self.snapshots.saving = other;
                return self.remove_files(vec![complete(id)], 0);
            }
        }
        // While room is short each delete would be followed by another one.
        if self.is_short_of_room() {
            self.wait_for_room();
        } else {
            self.has_room();
        }
        let mut ops = Vec::new();
        self.wal.append(self.written, Some(id), &[], &mut ops);
        self.submit(ops, Some(Then::Recorded(id)));
        self.compact_log();
    }

    /// Keeps some entries behind the snapshot for followers that lag a little, and those that a
    /// member needs next that is being sent a snapshot, or has just got one.
    pub(super) fn compact_log(&mut self) {
        let newest = self.raft.log().snapshot_id().index;
        let pinned = self.pinned().unwrap_or(newest);
        let keep: LogIndex = newest.saturating_sub(self.config.keep_entries);
        self.raft.log_mut().compact(keep.min(pinned));
        if self.raft.log().bytes() > self.config.max_log_bytes / 2 {
            self.raft.log_mut().compact(newest.min(pinned));
        }
    }
}
