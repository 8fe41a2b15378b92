//! Refuses messages that raft would trust too much.
//!
//! Raft takes what its peers say at face value: some forged, misrouted or damaged messages would make
//! it panic, or believe that others hold what they do not. Peers are authenticated, not infallible.

use raft::eraftpb::{self, EntryType, MessageType};

use super::membership;
use super::{Node, Proposal};
use crate::bugs::{Bug, planted};
use crate::machine::StateMachine;
use crate::types::{LogIndex, NodeId, SnapshotId, Term};
use crate::wire::{Chunk, RaftMessage};

/// Why a vote is refused that comes after the election was won, or before the own log is durable: every
/// healthy election has some.
pub(super) const NOT_DURABLE: &str = "it would elect a member whose log is not durable";

/// Terms above this are not believed: at one election a microsecond they are 100,000 years away.
const MAX_TERM: Term = 1 << 62;

impl<M: StateMachine> Node<M> {
    /// Says why a message is refused, if it is.
    pub(super) fn check_raft(
        &self,
        from: NodeId,
        message: &RaftMessage,
    ) -> Result<(), &'static str> {
        let inner = &message.0;
        if inner.from != from.0 || from == self.config.id || from == NodeId(0) {
            return Err("it does not come from whom it says");
        }
        if inner.to != self.config.id.0 {
            return Err("it is for another member");
        }
        // Raft sends its own questions for a read index without one.
        if planted(Bug::ReadIndexForwarded) && inner.get_msg_type() == MessageType::MsgReadIndex {
            return Ok(());
        }
        // Raft takes a message without a term for one of its own.
        if inner.term == 0 || inner.term > MAX_TERM {
            return Err("its term is beyond all reason");
        }
        match inner.get_msg_type() {
            MessageType::MsgAppend => self.check_append(inner),
            MessageType::MsgAppendResponse if inner.term == self.raft.term() => {
                if inner.request_snapshot != 0 {
                    return Err("it asks for a snapshot, which members never do by themselves");
                }
                let claimed = if inner.reject { inner.reject_hint } else { inner.index };
                if claimed > self.raft.last_index() {
                    return Err("it acknowledges entries that were never sent");
                }
                Ok(())
            }
            MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow
                if !self.raft.log_is_durable() =>
            {
                Err(NOT_DURABLE)
            }
            MessageType::MsgHeartbeat
            | MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow => Ok(()),
            MessageType::MsgReadIndexResp if planted(Bug::ReadIndexForwarded) => Ok(()),
            _ => Err("its kind is not for the wire"),
        }
    }

    /// How far this member had acknowledged the log of a leader, if its own log does not reach that
    /// far. A heartbeat commits only what its receiver has acknowledged to the leader of this very
    /// term, and what is acknowledged is durable: so if it is not there, the disk was lost.
    pub(super) fn has_lost(&self, message: &RaftMessage) -> Option<LogIndex> {
        let inner = &message.0;
        let counts = inner.get_msg_type() == MessageType::MsgHeartbeat
            && inner.term >= self.raft.term()
            && inner.commit > self.raft.last_index();
        counts.then_some(inner.commit)
    }

    fn check_append(&self, inner: &eraftpb::Message) -> Result<(), &'static str> {
        // A cluster is founded as if by entry 1, so whoever is new begins with a snapshot. Entries
        // from before would make a member of a cluster that nobody founded.
        if inner.index == 0 || inner.log_term == 0 {
            return Err("it goes on from an entry that no log has");
        }
        if inner.entries.len() as u64 >= u64::MAX - inner.index {
            return Err("its entries are beyond all reason");
        }
        let mut previous = (inner.index, inner.log_term);
        for entry in &inner.entries {
            let follows =
                entry.index == previous.0 + 1 && (previous.1..=inner.term).contains(&entry.term);
            if !follows && !planted(Bug::AppendsGlued) {
                return Err("its entries are not in order");
            }
            let known = match entry.get_entry_type() {
                EntryType::EntryNormal => {
                    entry.data.is_empty() || Proposal::decode(&entry.data).is_some()
                }
                EntryType::EntryConfChangeV2 => membership::decode(&entry.data).is_some(),
                EntryType::EntryConfChange => false,
            };
            if !known {
                return Err("an entry is of no kind that this version writes");
            }
            let committed = entry.index <= self.raft.commit();
            if committed && self.raft.term_at(entry.index).is_some_and(|term| term != entry.term) {
                return Err("it contradicts a committed entry");
            }
            previous = (entry.index, entry.term);
        }
        Ok(())
    }

    /// Says whether a part of a snapshot may be believed, as far as it can be seen from the outside.
    pub(super) fn check_chunk(&self, from: NodeId, chunk: &Chunk) -> bool {
        let SnapshotId { index, term } = chunk.snapshot;
        let end = chunk.offset.checked_add(chunk.data.len() as u64);
        from != self.config.id
            && from != NodeId(0)
            && (1..=MAX_TERM).contains(&chunk.term)
            && (1..=chunk.term).contains(&term)
            && index > 0
            && end.is_some_and(|end| end <= chunk.total)
    }
}
