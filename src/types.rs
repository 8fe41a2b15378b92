//! The vocabulary of the crate: identifiers, log entries and the durable facts about them.
//!
//! Raft's own words are used throughout (term, index, vote, commit). Positions in the log stay
//! plain integers, because the code does arithmetic on them; things that are only ever compared or
//! looked up (nodes, sessions, tickets) are newtypes, so that one cannot be taken for another.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A position in the replicated log. The first entry has index 1; 0 means "before the log".
pub type LogIndex = u64;

/// A raft term. Terms start at 1; 0 means "no term yet".
pub type Term = u64;

/// A member of the cluster. Never 0, and never used again once its member was removed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A batch of disk operations. Tickets of one node count upwards and complete in order, so one
/// completed ticket implies all lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A client's session: the log index of the entry that opened it, hence unique for ever.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// What an entry of the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A command, or nothing: a new leader's first entry is empty.
    Normal,
    /// A membership change (raft's `ConfChangeV2`; empty to leave a joint configuration).
    Membership,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub index: LogIndex,
    /// The term of the leader that created it.
    pub term: Term,
    /// What `data` is.
    pub kind: EntryKind,
    /// The payload, opaque to the log.
    pub data: Bytes,
}

/// What a node must remember across crashes to keep its word (Raft, figure 2: "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term this node has taken part in.
    pub term: Term,
    /// Whom it voted for in that term; `NodeId(0)` for nobody.
    pub vote: NodeId,
    /// A lower bound of what is committed. May lag behind: it is persisted only on occasion.
    pub commit: LogIndex,
}

/// Names the state that a snapshot holds: everything up to `index`, whose entry had `term`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SnapshotId {
    /// The last index that is part of the snapshot.
    pub index: LogIndex,
    /// The term of that index.
    pub term: Term,
}

impl SnapshotId {
    /// How logs that end with this entry compare with others (Raft, section 5.4.1).
    pub(crate) fn rank(self) -> (Term, LogIndex) {
        (self.term, self.index)
    }
}

/// Whole microseconds, in which the log and snapshots hold times.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
