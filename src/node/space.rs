//! Room on the disk, and the rules that keep a node alive when little is left.
//!
//! A full disk must never stop a node: what is durable would be unknown, and nothing could be deleted
//! any more. So a part of the room, [`Config::reserve_bytes`](crate::config::Config::reserve_bytes), is
//! for the log alone, and the node keeps its own growth away from it:
//!
//! ```text
//! free  > 2 reserves and half a state  everything is accepted
//!       > 1 reserve                    snapshots are written; commands that may grow the state are refused
//!       > 1/2                          segments of the log are small
//!       > 1/4                          a leader takes small entries only: deletes, changes of the membership
//!       > 1/8                          a leader takes nothing; a follower takes small entries of its leader
//!       below                          only terms, votes and snapshot markers are written
//! ```
//!
//! The log is replicated in order: behind an entry for which a quorum has no room not even a delete can
//! commit. So a follower reports to its leader that its disk is nearly full, and the leader refuses
//! growth unless the members with room are a quorum. For what is on its way by then, a follower goes
//! nearer to the end of its disk than a leader.
//!
//! A snapshot that does not fit is dropped, which frees its part, and tried again after a pause. The
//! way back from a full disk is: deletes make the next snapshot smaller, it fits into what is left
//! above the reserve, the log and the larger snapshot before it go, and there is room again. That is why
//! growth is refused as long as there is still room for half of the next snapshot.
//!
//! The host reports the free bytes once a second or so; in between the node subtracts what it hands to the disk.

use std::collections::BTreeMap;

use super::{Node, Output};
use crate::bugs::{Bug, planted};
use crate::env::DiskOp;
use crate::machine::StateMachine;
use crate::types::NodeId;
use crate::wal::MIN_SEGMENT_BYTES;
use crate::wire::Message;

/// The pause after a snapshot that did not fit grows up to so many times
/// [`Config::snapshot_ticks`](crate::config::Config::snapshot_ticks): each attempt writes what fits.
const LONGEST_PAUSE: u64 = 2;
/// While room is short, segments of the log are this part of their usual size, so that each start of
/// the node, which begins one, takes little.
const SMALL_SEGMENT_PART: u64 = 8;
/// A follower whose disk is nearly full reports this to its leader once in so many ticks.
const REPORT_TICKS: u64 = 4;
/// Entries of so many bytes are small: a delete, a change of the membership, a leader's first entry.
const SMALL_ENTRY_BYTES: u64 = 1 << 10;

/// Room on the disk of a node, for its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that are free, or `None` if the host does not know.
    pub free: Option<u64>,
    /// Commands that may grow the state are refused.
    pub is_short: bool,
    /// Snapshots that were dropped since the start because they did not fit.
    pub misfits: u64,
}

/// Room on the disk, as far as the node knows. See the module.
#[derive(Default)]
pub(super) struct Space {
    /// Bytes that are free when all that was handed to the disk is done.
    free: Option<u64>,
    /// Bytes of files whose removal the last report may not show.
    freed: u64,
    /// Bytes of entries that were taken since the last write of the log.
    taken: u64,
    /// No snapshot of the node's own state begins before this tick, and the pause before it.
    retry_at: u64,
    pause: u64,
    /// Bytes that were available for it when it did not fit.
    too_few: u64,
    misfits: u64,
    /// Of other members, the tick of the last report that their disk is nearly full.
    short: BTreeMap<NodeId, u64>,
    /// Of other members, the tick of the last message, since the first one in `short` reported.
    heard: BTreeMap<NodeId, u64>,
    /// The tick of that first report.
    short_since: u64,
}

impl Space {
    /// Describes a disk with `free` free bytes.
    pub fn new(free: Option<u64>) -> Self {
        Space { free, ..Space::default() }
    }

    /// Records that these operations are handed to the disk.
    pub fn spend(&mut self, ops: &[DiskOp]) {
        let room = ops.iter().map(DiskOp::room).sum::<u64>();
        self.free = self.free.map(|free| free.saturating_sub(room));
    }

    /// Records that files of `bytes` bytes are about to be removed.
    pub fn frees(&mut self, bytes: u64) {
        self.freed = self.freed.saturating_add(bytes);
    }

    /// Records that entries of `bytes` bytes will be part of the next write of the log.
    pub fn take(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// Bytes of entries that were taken since the last write of the log.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Records that the entries taken so far are written.
    pub fn written(&mut self) {
        self.taken = 0;
    }

    /// Returns whether a snapshot of the node's own state may begin at this tick.
    pub fn may_save(&self, now: u64) -> bool {
        now >= self.retry_at
    }

    /// Records the report of another member that its disk is nearly full.
    pub fn member_is_short(&mut self, id: NodeId, now: u64) {
        if self.short.is_empty() {
            self.short_since = now;
        }
        self.short.insert(id, now);
    }

    /// Records that another member has sent a message.
    pub fn heard_from(&mut self, id: NodeId, now: u64) {
        // As long as all have room it does not matter who is there.
        if !self.short.is_empty() {
            self.heard.insert(id, now);
        }
    }

    /// Forgets reports from before this tick, and who is there once all have room.
    fn forget_reports(&mut self, since: u64) {
        self.short.retain(|_, reported| *reported >= since);
        if self.short.is_empty() {
            self.heard.clear();
        }
    }

    /// Returns whether another member may have room: it does not report that it has none, and was heard since
    /// this tick, unless it is too early to judge.
    fn may_have_room(&self, id: NodeId, since: u64) -> bool {
        let heard = self.heard.get(&id).copied().unwrap_or(self.short_since);
        !self.short.contains_key(&id) && heard >= since
    }

    fn wait(&mut self, now: u64, shortest: u64, available: u64) {
        self.too_few = available;
        self.pause = (2 * self.pause).clamp(shortest, LONGEST_PAUSE * shortest);
        self.retry_at = now + self.pause;
    }
}

impl<M: StateMachine> Node<M> {
    /// Reports how many bytes are free on the disk, `None` if that is not known. Removals count as
    /// soon as they are carried out.
    pub fn report_free(&mut self, free: Option<u64>) {
        // Of what is on its way to the disk the host may have seen some or nothing.
        let under_way = self.room_under_way();
        self.space.free = free.map(|free| free.saturating_sub(under_way));
        self.space.freed = self.snapshots.bytes_being_removed();
        self.size_segments();
        let available = self.available_room().unwrap_or(u64::MAX);
        if available / 2 >= self.space.too_few {
            self.has_room();
        }
    }

    /// Bytes that are free, and those of files that make way as soon as they have to, or as a newer
    /// one is complete.
    fn available_room(&self) -> Option<u64> {
        let spare = self.snapshots.spare_bytes(self.newest());
        Some(self.space.free?.saturating_add(self.space.freed + spare))
    }

    /// Room on the disk, as the node sees it.
    pub fn disk_space(&self) -> DiskSpace {
        let Space { free, misfits, .. } = self.space;
        DiskSpace { free, is_short: self.is_short_of_room(), misfits }
    }

    /// Chooses small segments when room is short: see [`SMALL_SEGMENT_PART`].
    pub(super) fn size_segments(&mut self) {
        let usual = self.config.segment_bytes;
        self.wal.set_segment_bytes(segment_bytes(
            usual,
            self.config.reserve_bytes,
            self.space.free,
        ));
    }

    /// Returns whether so little room is left that the state must not grow: see the module.
    pub(super) fn is_short_of_room(&self) -> bool {
        let Some(available) = self.available_room() else { return false };
        let next = self.snapshots.size_of(self.newest()) + self.raft.log().uncovered_bytes();
        available < 2 * self.config.reserve_bytes + next / 2
    }

    /// The member whose disk is nearly full, if that is a reason for a leader to refuse commands that may
    /// grow the state: the leader itself, or another one without which there is no quorum.
    pub(super) fn short_member(&self) -> Option<NodeId> {
        let me = self.config.id;
        if self.is_short_of_room() {
            return Some(me);
        }
        let (member, _) = self.space.short.first_key_value()?;
        let since = self.now.saturating_sub(self.config.election_ticks.0.into());
        let has_room = |id| id == me || self.space.may_have_room(id, since);
        let is_enough = self.replica.membership().is_quorum(has_room);
        (!is_enough).then_some(*member)
    }

    /// Reports to the leader that this disk is nearly full, and forgets the old reports of others.
    pub(super) fn report_shortage(&mut self) {
        let span = u64::from(self.config.election_ticks.0).max(2 * REPORT_TICKS);
        self.space.forget_reports(self.now.saturating_sub(span));
        if self.now.is_multiple_of(REPORT_TICKS)
            && let Some(to) = self.raft.leader().filter(|leader| *leader != self.config.id)
            && self.is_short_of_room()
            && !planted(Bug::ShortageNotReported)
        {
            self.outputs.push(Output::Send { to, message: Message::DiskShort });
        }
    }

    /// Returns whether the log has no room for new entries of so many bytes, which this member would propose.
    pub(super) fn log_has_no_room_for(&self, bytes: u64) -> bool {
        self.log_would_pass(self.floor(bytes), bytes)
    }

    /// Returns whether the log has no room for entries of so many bytes that the leader has sent.
    pub(super) fn log_has_no_room_to_follow(&self, bytes: u64) -> bool {
        self.log_would_pass(self.floor(bytes) / 2, bytes)
    }

    /// Free bytes below which a leader proposes nothing of so many bytes.
    fn floor(&self, bytes: u64) -> u64 {
        let reserve = self.config.reserve_bytes;
        if bytes <= SMALL_ENTRY_BYTES { reserve / 4 } else { reserve / 2 }
    }

    fn log_would_pass(&self, floor: u64, bytes: u64) -> bool {
        self.space.free.is_some_and(|free| free < floor + self.space.taken + bytes)
    }

    /// Returns whether so many bytes of a snapshot may be written.
    pub(super) fn snapshot_fits(&self, bytes: u64) -> bool {
        planted(Bug::FullDiskStopsAll)
            || self.space.free.is_none_or(|free| free >= self.config.reserve_bytes + bytes)
    }

    /// Records that a snapshot of the node's own state did not fit. The next one comes after a pause
    /// that grows.
    pub(super) fn saving_did_not_fit(&mut self) {
        self.space.misfits += 1;
        self.wait_for_room();
    }

    /// Records that a snapshot that was sent to this member did not fit.
    pub(super) fn incoming_did_not_fit(&mut self) {
        self.space.misfits += 1;
    }

    /// Postpones the next snapshot of the node's own state by a pause.
    pub(super) fn wait_for_room(&mut self) {
        let available = self.available_room().unwrap_or(0);
        self.space.wait(self.now, self.config.snapshot_ticks.into(), available);
    }

    /// Ends the pause: there is room again.
    pub(super) fn has_room(&mut self) {
        (self.space.retry_at, self.space.pause, self.space.too_few) = (0, 0, 0);
    }

    fn newest(&self) -> crate::types::SnapshotId {
        self.raft.log().snapshot_id()
    }
}

/// Bytes of a segment of the log, if so many are free.
pub(super) fn segment_bytes(usual: u64, reserve: u64, free: Option<u64>) -> u64 {
    match free {
        Some(free) if free < reserve => (usual / SMALL_SEGMENT_PART).max(MIN_SEGMENT_BYTES),
        _ => usual,
    }
}
