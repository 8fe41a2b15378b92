//! What clients say to a node, and what it answers.
//!
//! Three kinds of answers must never be confused (Raft thesis, 6.3): *done*, *refused* (this
//! attempt certainly had and will have no effect), and *unknown* (it may have happened, or may
//! still). A client in doubt repeats the command with the same session and sequence number, at any
//! node: it takes effect once. The repetition is answered with the first response, or if that was
//! long with [`NotKept`](Reply::NotKept), which is a kind of *done*.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{LogIndex, NodeId, SessionId};

/// Ties a reply to its request. Chosen by the host; means nothing to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How fresh the answer to a query must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Reflects every write that was acknowledged before the query was sent.
    Linearizable,
    /// Whatever this node has applied: fast, available in a minority, possibly old.
    Stale,
}

/// A change of the cluster's membership. Applied as one step through joint consensus if it is more
/// than a single change.
///
/// A new voter that lacks a part of the log is a learner first, and becomes a voter as soon as it has
/// caught up; until then the voters that the same change removes or demotes keep their votes. The
/// request is answered when the first of these two steps is applied, and the new member need not run
/// by then. [`Membership::promises`](crate::node::Membership::promises) lists the second steps that
/// are open. Removing or demoting the new member cancels its second step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconfigure {
    /// Members that vote, once they have caught up; new ones or learners that are promoted.
    pub voters: Vec<NodeId>,
    /// New members that only receive the log.
    pub learners: Vec<NodeId>,
    /// Members that leave for ever: their ids are never accepted again.
    pub removed: Vec<NodeId>,
    /// Where members can be reached, those named above or others whose address changes. Any text
    /// that the hosts agree on, at most [`MAX_ADDRESS`] bytes each; the node only remembers it. A
    /// present member that is named above with an address must be named in the role that it has: a
    /// move is never a promotion or a demotion. Two members never have the same address.
    pub addresses: BTreeMap<NodeId, String>,
}

/// The longest address of a member, in bytes.
pub const MAX_ADDRESS: usize = 1024;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens a session; the reply names it.
    OpenSession,
    /// Replicates and applies a command.
    Command {
        /// The session and the command's number in it, counted upwards from 1, one command at a
        /// time. `None` gives up exactly-once: a retry may then apply the command twice.
        session: Option<(SessionId, u64)>,
        /// For [`StateMachine::apply`](crate::machine::StateMachine::apply).
        command: Bytes,
    },
    /// Reads.
    Query {
        /// For [`StateMachine::query`](crate::machine::StateMachine::query).
        query: Bytes,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Changes the membership.
    Reconfigure(Reconfigure),
    /// Asks the leader to hand its leadership to this member.
    Transfer(NodeId),
    /// Changes the membership even if no quorum of the voters after it answers: the cluster may stop for
    /// ever. For an operator who knows better than the leader.
    ForceReconfigure(Reconfigure),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session is open.
    SessionOpened(SessionId),
    /// The command was committed and applied.
    Applied {
        /// Where in the log the command stands or, for a repeated one, some place behind it: the
        /// state there reflects the command.
        index: LogIndex,
        /// What the state machine answered, the first time it was applied.
        response: Bytes,
    },
    /// The answer to a query.
    Value {
        /// The applied index of the state that answered.
        index: LogIndex,
        /// What the state machine answered.
        response: Bytes,
    },
    /// The membership change is applied, or its first step: see [`Reconfigure`].
    Reconfigured {
        /// Where in the log it stands.
        index: LogIndex,
    },
    /// The transfer of leadership has begun. It may still fail; watch who leads.
    Transferring,
    /// This attempt had no effect and never will.
    Refused(Refusal),
    /// No answer came in time, so the outcome is not known: it may have happened, may happen still, or
    /// never.
    Unknown,
    /// The command was committed and applied, exactly once if it has a session, but its response is
    /// not there: it was too long to be kept for this repetition
    /// ([`MAX_KEPT_RESPONSE`](crate::session::MAX_KEPT_RESPONSE)), or too many long responses were
    /// due at once. Read to see the state.
    NotKept {
        /// Where in the log the command (or this repetition of it) stands.
        index: LogIndex,
        /// Bytes of the response.
        bytes: u64,
    },
    /// The outcome is not known, as with [`Unknown`](Self::Unknown), for a known reason: the leader was
    /// lost while the request was on its way. There is no use in waiting; see who leads now.
    LeaderLost,
}

impl Reply {
    /// Returns whether the outcome is not known: it may have happened, may happen still, or never.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Reply::Unknown | Reply::LeaderLost)
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// No leader is known, or the one asked is not the leader (any more). Try again, at the hinted
    /// node if there is one.
    NotLeader(Option<NodeId>),
    /// Too many requests are waiting, or so many that this one would not be answered in time. Try
    /// again later.
    Busy,
    /// Leadership is being handed over. Try again soon.
    Transferring,
    /// Another leader's entry took this one's place in the log. Try again.
    Superseded,
    /// The session is unknown: too many newer ones were opened since it was last used. Earlier
    /// attempts of the same command may have had an effect. Open a new session.
    SessionExpired,
    /// A newer command of the session was applied already; this number will never be.
    OutOfOrder,
    /// Another membership change is not finished. Try again later.
    ReconfigurationPending,
    /// The membership change makes no sense, for example adds an id that was removed once, or
    /// would leave no voter.
    InvalidReconfiguration,
    /// The request is larger than the configured limit.
    TooLarge,
    /// The node is shutting down or was removed.
    Stopping,
    /// The disk of this member is nearly full, and the command may grow the state. Delete keys, or
    /// make room on that disk.
    DiskFull(NodeId),
    /// No quorum of the voters after the membership change has answered lately, so the cluster could
    /// stop for ever. Start the missing members, or remove those that are lost first, and try again.
    QuorumAtRisk,
    /// The number belongs to another command of the session, which stands in the log. Use the next
    /// number for this one.
    NumberReused,
}
