//! Which connection a message travels on, and about how long it is: what a transport asks to share a
//! path among the messages of a node.

use super::{Kind, MAX_FRAME, Message};
use crate::api::{Reply, Request};

/// Which kind of messages a connection carries. A node has one connection of each to every peer, so
/// that what is small does not wait behind what is large; nothing keeps them in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What is small and urgent: heartbeats, votes, acknowledgements, questions about reads.
    Control,
    /// Entries, forwarded requests and their answers.
    Bulk,
    /// Pieces of snapshots.
    Snapshot,
}

impl Lane {
    /// All lanes, in the order of their numbers.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Bulk, Lane::Snapshot];

    /// The lane for `message`.
    #[must_use]
    pub fn of(message: &Message) -> Lane {
        match message.kind() {
            Kind::Append | Kind::Forward | Kind::Answer => Lane::Bulk,
            Kind::Chunk => Lane::Snapshot,
            _ => Lane::Control,
        }
    }

    /// The lane with this number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(number)).copied()
    }

    /// The lane's number on the wire, and its place in [`Lane::ALL`].
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The lane's name, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lane::Control => "control",
            Lane::Bulk => "bulk",
            Lane::Snapshot => "snapshot",
        }
    }

    /// The longest frame that the lane carries. What is urgent is small.
    #[must_use]
    pub fn max_frame(self) -> usize {
        if self == Lane::Control { 1 << 20 } else { MAX_FRAME }
    }
}

impl Message {
    /// About how many bytes the message has as a frame, without encoding it.
    pub fn weight(&self) -> usize {
        const BASE: usize = 64;
        let payload = match self {
            Message::Raft(message) => message.payload_bytes(),
            Message::Forward { request, .. } => match request {
                Request::Command { command, .. } => command.len(),
                Request::Query { query, .. } => query.len(),
                Request::Reconfigure(change) | Request::ForceReconfigure(change) => {
                    let ids = change.voters.len() + change.learners.len() + change.removed.len();
                    8 * ids
                        + change.addresses.values().map(|address| 8 + address.len()).sum::<usize>()
                }
                Request::OpenSession | Request::Transfer(_) => 0,
            },
            Message::Answer { reply, .. } => match reply {
                Reply::Applied { response, .. } | Reply::Value { response, .. } => response.len(),
                _ => 0,
            },
            Message::Chunk(chunk) => chunk.data.len(),
            Message::ReadIndex { .. }
            | Message::ReadIndexAnswer { .. }
            | Message::ChunkAck { .. }
            | Message::Removed
            | Message::DiskShort => 0,
        };
        BASE + payload
    }
}
