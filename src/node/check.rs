//! Refuses messages that raft would trust too much.
//!
//! Raft takes what its peers say at face value: some forged, misrouted or damaged messages would make
//! it panic, or believe that others hold what they do not. Peers are authenticated, not infallible.

use raft::eraftpb::{self, EntryType, MessageType};

use super::membership;
use super::{Node, Proposal};
use crate::machine::StateMachine;
use crate::types::{NodeId, Term};
use crate::wire::RaftMessage;

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
        if inner.term > MAX_TERM {
            return Err("its term is beyond all reason");
        }
        match inner.get_msg_type() {
            MessageType::MsgAppend => self.check_append(inner),
            MessageType::MsgAppendResponse if inner.term == self.raft.term() => {
                if inner.request_snapshot != 0 {
                    return Err("it asks for a snapshot, which members never do by themselves");
                }
                if !inner.reject && inner.index > self.raft.last_index() {
                    return Err("it acknowledges entries that were never sent");
                }
                Ok(())
            }
            MessageType::MsgHeartbeat if inner.term >= self.raft.term() => {
                if inner.commit > self.raft.last_index() {
                    return Err("it commits entries that this member never acknowledged");
                }
                Ok(())
            }
            MessageType::MsgHeartbeat
            | MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow => Ok(()),
            _ => Err("its kind is not for the wire"),
        }
    }

    fn check_append(&self, inner: &eraftpb::Message) -> Result<(), &'static str> {
        if inner.log_term == 0 && inner.index != 0 {
            return Err("it names an entry without a term");
        }
        if inner.entries.len() as u64 >= u64::MAX - inner.index {
            return Err("its entries are beyond all reason");
        }
        let mut previous = (inner.index, inner.log_term);
        for entry in &inner.entries {
            if entry.index != previous.0 + 1 || entry.term < previous.1 || entry.term > inner.term {
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
            if committed && self.raft.log().term_at(entry.index).is_some_and(|t| t != entry.term) {
                return Err("it contradicts a committed entry");
            }
            previous = (entry.index, entry.term);
        }
        Ok(())
    }
}
