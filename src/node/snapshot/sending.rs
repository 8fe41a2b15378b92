//! Sending a snapshot to a member that lags too far behind, and keeping what it needs next.
//!
//! Raft waits until it hears how a transfer ended, so it always does: from the receiver, or by a
//! timeout. No member can see from outside whether a file has rotted, but the receiver can; so when a
//! whole one was refused, the state is saved anew before it is sent again. A transfer that begins anew
//! goes on where the receiver is, if it has a part of the same snapshot.
//!
//! A transfer may take longer than the time between two snapshots. So the entries behind the snapshot
//! that is sent stay in the log until the receiver has caught up with the newest one, or makes no
//! progress: otherwise it would need the next snapshot as soon as it has this one. The log is bounded
//! all the same: when it is full, the leader takes no more proposals (`Node::log_is_full`).

use bytes::Bytes;
use raft::eraftpb;
use tracing::{debug, warn};

use super::super::{Node, Output};
use super::{WINDOW, complete};
use crate::bugs::{Bug, planted};
use crate::error::DiskError;
use crate::machine::StateMachine;
use crate::types::{LogIndex, NodeId, SnapshotId, Term, Ticket};
use crate::wire::{Chunk, Message};

/// Chunks that are not acknowledged are sent again after so many ticks.
const RESEND_TICKS: u64 = 10;

/// A snapshot on its way to a member.
#[derive(Debug)]
pub(super) struct Outgoing {
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

impl Outgoing {
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }
}

/// A member that has received a snapshot, and needs the entries behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp {
    /// The last entry that it is known to have.
    matched: LogIndex,
    /// The tick at which that was news.
    progress_at: u64,
}

impl<M: StateMachine> Node<M> {
    /// Raft wants `message`, a snapshot without its data, to be sent.
    pub(in crate::node) fn begin_transfer(&mut self, message: &eraftpb::Message) {
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

    pub(in crate::node) fn fetched(&mut self, ticket: Ticket, found: Result<Bytes, DiskError>) {
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

    pub(in crate::node) fn acknowledged_chunk(
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
        // Restoring a whole one takes as long as it takes.
        if received > out.acked || received == out.total {
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
        if let Some(out) = ended.as_ref().filter(|_| success && self.raft.is_leader()) {
            let catch_up = CatchUp { matched: out.snapshot.index, progress_at: self.now };
            self.snapshots.catching_up.insert(to, catch_up);
        }
        let is_known = || {
            let index = ended.map_or(0, |out| out.snapshot.index);
            success && self.raft.progress().any(|(id, peer)| id == to && peer.matched >= index)
        };
        if !(planted(Bug::AppendBelowMatch) && is_known()) {
            self.raft.report_snapshot(to, success);
        }
        self.clean_up();
    }

    /// The last entry that may be dropped from the log as far as members go that are being sent a
    /// snapshot or catch up behind one; `None` if there are none.
    pub(super) fn pinned(&self) -> Option<LogIndex> {
        if planted(Bug::CatchUpNotAwaited) {
            return None;
        }
        let sending = self.snapshots.outgoing.values().map(|out| out.snapshot.index);
        let catching_up = self.snapshots.catching_up.values().map(|member| member.matched);
        sending.chain(catching_up).min()
    }

    /// Ends transfers that make no progress, sends again what was lost, and lets go of the log of
    /// members that have caught up or given up.
    pub(super) fn tick_outgoing(&mut self) {
        let (now, limit) = (self.now, u64::from(self.config.snapshot_ticks));
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
        self.tick_catching_up(leads, limit);
    }

    fn tick_catching_up(&mut self, leads: bool, limit: u64) {
        if self.snapshots.catching_up.is_empty() {
            return;
        }
        let (now, newest) = (self.now, self.raft.log().snapshot_id().index);
        let raft = &self.raft;
        self.snapshots.catching_up.retain(|id, member| {
            let peer = raft.progress().find(|(peer, _)| peer == id);
            let Some((_, peer)) = peer.filter(|_| leads) else { return false };
            if peer.matched > member.matched {
                (member.matched, member.progress_at) = (peer.matched, now);
            }
            member.matched < newest && member.progress_at + limit > now
        });
        if self.snapshots.catching_up.is_empty() && self.snapshots.outgoing.is_empty() {
            self.compact_log();
        }
    }
}
