//! How much a node keeps, by kind: all of it is bounded by the configuration, whatever peers,
//! clients and disks do. For metrics, and for checkers that hold the node to it.

use super::{Node, Status};
use crate::machine::StateMachine;
use crate::types::NodeId;

/// What a node keeps at the moment. Counts unless a unit is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests not taken up yet: none between two calls of [`Node::process`].
    pub arrived: usize,
    /// Requests that wait for an entry of the log.
    pub proposals: usize,
    /// Requests passed on to the leader and not answered.
    pub forwards: usize,
    /// Queries that wait.
    pub reads: usize,
    /// Entries of the log in memory.
    pub log_entries: u64,
    /// Their bytes, roughly.
    pub log_bytes: u64,
    /// Batches that are not durable yet.
    pub persisting: usize,
    /// Bytes of these batches, each counting 1 KiB at least.
    pub unsynced_bytes: u64,
    /// Messages that wait for one of these batches.
    pub held: usize,
    /// Complete snapshot files.
    pub snapshots: usize,
    /// Whether a snapshot of this node's own state is being saved.
    pub saving: bool,
    /// Snapshots that are being sent.
    pub outgoing: usize,
    /// Reads of snapshot files under way.
    pub fetches: usize,
    /// Bytes in memory of the snapshot that is being received.
    pub incoming_bytes: u64,
    /// Bytes of snapshots handed to the disk and not durable yet.
    pub storing_bytes: u64,
    /// Client sessions.
    pub sessions: usize,
    /// Bytes of the client sessions with the responses that they keep.
    pub session_bytes: u64,
    /// Segments of the write-ahead log.
    pub segments: usize,
    /// Whether the log's queue of the disk has completed nothing for
    /// [`hang_ticks`](crate::config::Config::hang_ticks), although something waits for it.
    pub disk_hangs: bool,
}

impl<M: StateMachine> Node<M> {
    /// How much the node keeps at the moment, by kind.
    pub fn load(&self) -> Load {
        let log = self.raft.log();
        let mut load = Load {
            arrived: self.arrived.len(),
            proposals: self.waiting.len(),
            forwards: self.forwards.len(),
            reads: self.reads.len(),
            log_entries: log.last() + 1 - log.first(),
            log_bytes: log.bytes(),
            persisting: self.persisting.len(),
            unsynced_bytes: self.unsynced,
            held: self.persisting.iter().map(super::ready::Persisting::held).sum(),
            sessions: self.replica.sessions().len(),
            session_bytes: self.replica.sessions().bytes(),
            segments: self.wal.segments(),
            disk_hangs: self.disk_hangs(),
            ..Load::default()
        };
        self.snapshots.add_to(&mut load);
        load
    }
}

impl<M: StateMachine> Node<M> {
    /// The member that this leader is handing leadership to.
    pub fn transferee(&self) -> Option<NodeId> {
        self.raft.transferee()
    }
}

impl Status {
    /// Applied entries that no durable snapshot covers.
    pub fn uncovered(&self) -> u64 {
        self.applied.index.saturating_sub(self.snapshot.index)
    }
}
