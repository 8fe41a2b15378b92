//! The log lines that an operator follows a node by: leaders, members, snapshots.
//!
//! The core decides and says nothing; all that is logged here is read off its status and off what it
//! hands to its host. Whatever is logged once per event is at the level info. Counters and durations
//! of the same events go to `/metrics`, see [`NodeStats`].

mod limit;
mod members;
mod snapshots;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tracing::info;

use crate::env::DiskOp;
use crate::node::{Membership, Role, Status};
use crate::types::{NodeId, SnapshotId, Term};
use crate::wire::Message;

pub(super) use self::limit::LineLimit;
use self::snapshots::Snapshots;

/// Events of a node, counted. Clones count together.
#[derive(Clone, Debug)]
pub struct NodeStats {
    /// Leaders that this node has come to know, its own elections included.
    pub leader_changes: Counter,
    /// Seconds per snapshot, by what was done with it: `save`, `send` or `install`.
    pub snapshot_seconds: Family<[(&'static str, &'static str); 1], Histogram>,
    /// Bytes of the newest snapshot that was saved or installed.
    pub snapshot_bytes: Gauge,
}

impl Default for NodeStats {
    fn default() -> NodeStats {
        let stats = NodeStats {
            leader_changes: Counter::default(),
            // From 10 ms to about 11 minutes.
            snapshot_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.01, 2.0, 17))
            }),
            snapshot_bytes: Gauge::default(),
        };
        for operation in ["save", "send", "install"] {
            drop(stats.snapshot_seconds.get_or_create(&[("operation", operation)]));
        }
        stats
    }
}

impl NodeStats {
    fn took(&self, operation: &'static str, time: Duration) {
        let histogram = self.snapshot_seconds.get_or_create(&[("operation", operation)]);
        histogram.observe(time.as_secs_f64());
    }
}

/// What was last known of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leadership {
    term: Term,
    role: Role,
    leader: Option<NodeId>,
}

impl From<&Status> for Leadership {
    fn from(status: &Status) -> Leadership {
        let Status { hard_state, role, leader, .. } = *status;
        Leadership { term: hard_state.term, role, leader }
    }
}

/// Follows one node from its start.
pub(super) struct Journal {
    id: NodeId,
    leadership: Leadership,
    /// To whom this node, as the leader of a term, hands leadership.
    transfer: Option<(Term, NodeId)>,
    snapshot: SnapshotId,
    snapshots: Snapshots,
    stats: NodeStats,
}

impl Journal {
    /// Follows the node `id`, which has not begun yet.
    pub fn new(id: NodeId, stats: NodeStats) -> Journal {
        Journal {
            id,
            leadership: Leadership { term: 0, role: Role::Follower, leader: None },
            transfer: None,
            snapshot: SnapshotId::default(),
            snapshots: Snapshots::default(),
            stats,
        }
    }

    /// The node has read its disk.
    pub fn begun(&mut self, status: &Status, membership: &Membership) {
        let members = members::list(membership);
        info!(
            term = status.hard_state.term,
            applied = status.applied.index,
            members,
            "the disk has been read"
        );
        self.leadership.term = status.hard_state.term;
        self.snapshot = status.snapshot;
    }

    /// Compares the node with what was last seen of it. `transferee` is the member that it hands
    /// leadership to; `hangs` says that its disk does nothing. `now` is a time on any one clock.
    pub fn look(
        &mut self,
        now: Duration,
        status: &Status,
        transferee: Option<NodeId>,
        hangs: impl FnOnce() -> bool,
        membership: &Membership,
    ) {
        if let Some(to) = transferee {
            self.transfer = Some((status.hard_state.term, to));
        }
        let seen = Leadership::from(status);
        if seen != self.leadership {
            let before = std::mem::replace(&mut self.leadership, seen);
            self.leader_changed(before, hangs, membership);
        }
        if status.snapshot != self.snapshot {
            self.snapshot = status.snapshot;
            if let Some((bytes, time)) = self.snapshots.saved(now, status.snapshot) {
                let SnapshotId { index, term } = status.snapshot;
                info!(index, term, bytes, seconds = seconds(time), "snapshot taken");
                self.stats.took("save", time);
                self.stats.snapshot_bytes.set(bytes.cast_signed());
            }
        }
    }

    fn leader_changed(
        &self,
        before: Leadership,
        hangs: impl FnOnce() -> bool,
        membership: &Membership,
    ) {
        let now = self.leadership;
        let is_new = |leader: &NodeId| (before.leader, before.term) != (Some(*leader), now.term);
        if let Some(leader) = before.leader
            && (now.leader, now.term) != (Some(leader), before.term)
        {
            let reason = if leader == self.id {
                self.why_deposed(before.term, hangs(), membership)
            } else {
                self.why_left(leader, before.term, membership)
            };
            info!(%leader, term = before.term, reason, "leader lost");
        }
        if let Some(leader) = now.leader.filter(is_new) {
            let this_node = leader == self.id;
            info!(%leader, term = now.term, this_node, "leader elected");
            self.stats.leader_changes.inc();
        }
    }

    /// Why this node does not lead any more, although it did in `term`.
    fn why_deposed(&self, term: Term, hangs: bool, membership: &Membership) -> String {
        let now = self.leadership;
        match self.transfer {
            _ if membership.has_left(self.id) => "it was removed from the cluster".to_owned(),
            Some((of, to)) if of == term && now.term > term => {
                format!("leadership was handed over to {to}")
            }
            _ if now.term > term => format!("another member began the higher term {}", now.term),
            _ if hangs => "its disk completes nothing".to_owned(),
            _ => "no quorum of the voters answered for an election timeout".to_owned(),
        }
    }

    /// Why this node does not follow `leader` any more, as it did in `term`.
    fn why_left(&self, leader: NodeId, term: Term, membership: &Membership) -> String {
        let now = self.leadership;
        match now.role {
            _ if membership.has_left(leader) => "it was removed from the cluster".to_owned(),
            Role::PreCandidate => "nothing was heard from it for an election timeout".to_owned(),
            Role::Candidate | Role::Leader => "it hands leadership to this member".to_owned(),
            Role::Follower if now.term > term => {
                format!("another member began the higher term {}", now.term)
            }
            Role::Follower => "it is not followed any more".to_owned(),
        }
    }

    /// Logs what has changed among the members.
    pub fn members_changed(&self, before: &Membership, after: &Membership) {
        let change = members::difference(before, after);
        // The very first one is logged as a whole when the node starts.
        if !change.is_empty() {
            info!(change, members = members::list(after), "membership changed");
        }
    }

    /// The node wants this done on its disk.
    pub fn queued(&mut self, now: Duration, ops: &[DiskOp]) {
        self.snapshots.queued(now, ops);
    }

    /// The node sends a message.
    pub fn sent(&mut self, now: Duration, to: NodeId, message: &Message) {
        if let Message::Chunk(chunk) = message
            && self.snapshots.sending(now, to, chunk)
        {
            let SnapshotId { index, term } = chunk.snapshot;
            info!(%to, index, term, bytes = chunk.total, "sending a snapshot");
        }
    }

    /// A message for the node has arrived.
    pub fn received(&mut self, now: Duration, from: NodeId, message: &Message) {
        match message {
            Message::Chunk(chunk) if self.snapshots.receiving(now, from, chunk) => {
                let SnapshotId { index, term } = chunk.snapshot;
                info!(%from, index, term, bytes = chunk.total, "receiving a snapshot");
            }
            Message::ChunkAck { transfer, done: Some(success), .. } => {
                let Some((chunk, time)) = self.snapshots.ended(now, from, *transfer) else {
                    return;
                };
                let (index, term, bytes) = (chunk.id.index, chunk.id.term, chunk.bytes);
                if *success {
                    info!(to = %from, index, term, bytes, seconds = seconds(time), "snapshot sent");
                    self.stats.took("send", time);
                } else {
                    info!(to = %from, index, term, bytes, seconds = seconds(time),
                        "snapshot not taken by the member; it is sent again");
                }
            }
            _ => {}
        }
    }

    /// The state of the node is now that of a snapshot.
    pub fn installed(&mut self, now: Duration, id: SnapshotId) {
        // The one that a node starts from was not received.
        if let Some((received, time)) = self.snapshots.installed(now, id) {
            let SnapshotId { index, term } = id;
            let (from, bytes) = (received.peer, received.bytes);
            info!(%from, index, term, bytes, seconds = seconds(time), "snapshot installed");
            self.stats.took("install", time);
            self.stats.snapshot_bytes.set(bytes.cast_signed());
        }
    }
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
