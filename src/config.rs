//! How a node is set up. Durations are counted in ticks, so that the core needs no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::session::SessionLimits;
use crate::types::NodeId;
use crate::wire::MAX_FRAME;

/// What a frame has room for, with a generous margin for its other contents.
const FRAME_ROOM: u64 = MAX_FRAME as u64 / 2;

/// The settings of one node. Build it with [`Config::new`], change what matters, and let
/// [`Config::validate`] (which the node calls too) judge the whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// The voters that found the cluster together; the same on each of them. Empty for a node that
    /// joins an existing cluster. Only read when the data directory is empty.
    pub founders: Vec<NodeId>,
    /// The members that found the cluster with them, but only receive its log.
    pub founding_learners: Vec<NodeId>,
    /// Where the founders can be reached; the same on each of them. See
    /// [`Reconfigure::addresses`](crate::api::Reconfigure::addresses).
    pub addresses: BTreeMap<NodeId, String>,
    /// The state with which the cluster is founded: the bytes of a snapshot file (see
    /// [`Node::backup`](crate::node::Node::backup)) of this cluster's past or of another one; the
    /// same on each founder. Its membership is not taken over. `None` for an empty state.
    pub founding_state: Option<Bytes>,
    /// Entries between the end of the log that `founding_state` comes from and the beginning of the
    /// founded cluster's log; the same on each founder. That cluster may go on, and others may be
    /// founded with the same state: revisions and session ids of theirs must not be met again here.
    pub founding_gap: u64,
    /// Seeds the election timeouts. Any value serves; founders may share it.
    pub seed: u64,
    /// Must differ between any two starts of the same member (a counter or a random number):
    /// requests of an earlier life must not be taken for ones of this life.
    pub incarnation: u64,
    /// The length of one tick of the driver.
    pub tick: Duration,
    /// A follower that hears from no leader campaigns after this many ticks, drawn anew for every
    /// term from `[min, max)`. `min` is also the leader's check-quorum period.
    pub election_ticks: (u32, u32),
    /// A leader sends heartbeats every so many ticks. Below `election_ticks.0`.
    pub heartbeat_ticks: u32,
    /// A request that is not answered after so many ticks is answered with
    /// [`Reply::Unknown`](crate::api::Reply::Unknown).
    pub request_ticks: u32,
    /// A ReadIndex round that is not answered after so many ticks is repeated with a fresh context.
    pub read_retry_ticks: u32,
    /// A snapshot transfer that makes no progress for so many ticks has failed.
    pub snapshot_ticks: u32,
    /// A member whose log or snapshot is damaged stops with
    /// [`Error::BeyondRepair`] if, for so many ticks, no leader gives it more of what it lacks.
    pub repair_ticks: u32,
    /// Requests in progress; more are refused with [`Busy`](crate::api::Refusal::Busy).
    pub max_pending: usize,
    /// Append messages in flight to one follower.
    pub max_inflight: usize,
    /// Bytes of entries in one append message (at least one entry is sent). A link should carry as
    /// much between two heartbeats: to a follower that has lost an append, raft repeats the next one
    /// with each heartbeat until it is acknowledged, and a slow link would carry nothing else.
    pub max_message_bytes: u64,
    /// Bytes of entries in the leader's log that are not committed yet; more are refused.
    pub max_uncommitted_bytes: u64,
    /// Bytes handed to the disk and not durable yet, each batch counting 1 KiB at least. Above it a
    /// leader refuses proposals with [`Busy`](crate::api::Refusal::Busy), and a follower drops
    /// entries that it is sent: a disk that hangs piles up no more than this and one batch.
    pub max_unsynced_bytes: u64,
    /// Bytes that are written to the disk in one batch with one sync, unless a single write has more.
    /// A batch should take a small part of an election timeout.
    pub max_batch_bytes: u64,
    /// A disk that completes nothing for so many ticks, although something waits for it, hangs: a
    /// leader steps down, and no member with such a disk stands for election.
    pub hang_ticks: u32,
    /// Bytes of entries applied in one go.
    pub max_apply_bytes: u64,
    /// Bytes of answers made in one go, and the last one's. Other queries wait for the next time, so
    /// that neither ticks nor messages have to wait for all of them; other commands with long
    /// responses are answered with [`NotKept`](crate::api::Reply::NotKept).
    pub max_answer_bytes: usize,
    /// Bytes of one client command.
    pub max_command_bytes: usize,
    /// Take a snapshot after so many applied entries.
    pub snapshot_every: u64,
    /// Take a snapshot, too, when the entries kept in memory have this many bytes; half of it may
    /// be kept behind a snapshot.
    pub max_log_bytes: u64,
    /// Entries kept behind a snapshot, so that a follower that lags a little needs no snapshot.
    pub keep_entries: u64,
    /// Bytes of one chunk of a snapshot on the wire.
    pub chunk_bytes: u32,
    /// Bytes of a snapshot that are encoded, written and synced in one go, at most. Fewer on a disk
    /// on which that takes long.
    pub piece_bytes: u32,
    /// Bytes of one segment of the write-ahead log.
    pub segment_bytes: u64,
    /// Bytes of the disk that are for the log alone: no snapshot is written into them, and when little
    /// more than twice as many are free, commands that may grow the state are refused with
    /// [`DiskFull`](crate::api::Refusal::DiskFull). At least two segments, and it should be
    /// more than four times the largest command.
    pub reserve_bytes: u64,
    /// Client sessions kept; the one unused for longest makes room. Must be the same on all
    /// members, because it decides what replicas remember.
    pub sessions: usize,
    /// Bytes of these sessions, each [`SESSION_BYTES`](crate::session::SESSION_BYTES) and the
    /// response to its newest command, if that is short enough to be kept; the one unused for longest
    /// makes room. Must be the same on all members, too.
    pub max_session_bytes: u64,
}

/// More entries than a cluster writes in years.
pub const FOUNDING_GAP: u64 = 1 << 32;

impl Config {
    /// The defaults for the member `id`, fit for a cluster on a local network.
    pub fn new(id: NodeId, founders: Vec<NodeId>) -> Self {
        Config {
            id,
            founders,
            founding_learners: Vec::new(),
            addresses: BTreeMap::new(),
            founding_state: None,
            founding_gap: FOUNDING_GAP,
            seed: 0,
            incarnation: 0,
            tick: Duration::from_millis(10),
            election_ticks: (15, 30),
            heartbeat_ticks: 3,
            request_ticks: 500,
            read_retry_ticks: 20,
            snapshot_ticks: 200,
            repair_ticks: 6000,
            max_pending: 4096,
            max_inflight: 256,
            max_message_bytes: 1 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_unsynced_bytes: 64 << 20,
            max_batch_bytes: 1 << 20,
            hang_ticks: 60,
            max_apply_bytes: 4 << 20,
            max_answer_bytes: 8 << 20,
            max_command_bytes: 2 << 20,
            snapshot_every: 100_000,
            max_log_bytes: 256 << 20,
            keep_entries: 10_000,
            chunk_bytes: 256 << 10,
            piece_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            reserve_bytes: 256 << 20,
            sessions: 10_000,
            max_session_bytes: 64 << 20,
        }
    }

    /// The bounds of the session table.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits { count: self.sessions, bytes: self.max_session_bytes }
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting and what it may be.
    pub fn validate(&self) -> Result<(), Error> {
        let (min, max) = self.election_ticks;
        let rules = [
            (self.id != NodeId(0), "id must not be 0"),
            (!self.founders.contains(&NodeId(0)), "founders must not contain id 0"),
            (
                self.founders.is_empty()
                    || self.founders.contains(&self.id)
                    || self.founding_learners.contains(&self.id),
                "founders must contain this member's id, or be empty for a member that joins",
            ),
            (self.founding_gap >= 1, "founding_gap must be at least 1"),
            (!self.tick.is_zero(), "tick must be longer than 0"),
            (self.heartbeat_ticks >= 1, "heartbeat_ticks must be at least 1"),
            (min > self.heartbeat_ticks, "election_ticks.0 must be greater than heartbeat_ticks"),
            (max > min, "election_ticks.1 must be greater than election_ticks.0"),
            (self.request_ticks >= 1, "request_ticks must be at least 1"),
            (self.read_retry_ticks >= 1, "read_retry_ticks must be at least 1"),
            (self.snapshot_ticks >= 1, "snapshot_ticks must be at least 1"),
            (self.repair_ticks >= 1, "repair_ticks must be at least 1"),
            (self.max_pending >= 1, "max_pending must be at least 1"),
            (self.max_answer_bytes >= 1, "max_answer_bytes must be at least 1"),
            (self.max_unsynced_bytes >= 1, "max_unsynced_bytes must be at least 1"),
            (self.max_inflight >= 1, "max_inflight must be at least 1"),
            (self.hang_ticks > max, "hang_ticks must be greater than election_ticks.1"),
            (self.piece_bytes >= 1, "piece_bytes must be at least 1"),
            (self.snapshot_every >= 1, "snapshot_every must be at least 1"),
            (self.chunk_bytes >= 1, "chunk_bytes must be at least 1"),
            (self.segment_bytes >= 4096, "segment_bytes must be at least 4096"),
            (
                self.reserve_bytes >= 2 * self.segment_bytes,
                "reserve_bytes must be at least two segments, so that the log can always begin one",
            ),
            (self.sessions >= 1, "sessions must be at least 1"),
            (
                self.max_session_bytes >= SessionLimits::LEAST_BYTES,
                "max_session_bytes must be at least 1152, to have room for one session",
            ),
            (
                self.max_uncommitted_bytes >= self.max_message_bytes,
                "max_uncommitted_bytes must be at least max_message_bytes",
            ),
            (
                self.max_message_bytes <= FRAME_ROOM && u64::from(self.chunk_bytes) <= FRAME_ROOM,
                "max_message_bytes and chunk_bytes must be at most 32 MiB, to fit into a frame",
            ),
            (
                self.max_command_bytes as u64 <= FRAME_ROOM,
                "max_command_bytes must be at most 32 MiB, to fit into a frame",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::Config((*rule).to_owned())),
            None => Ok(()),
        }
    }
}
