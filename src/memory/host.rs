//! The host of one node: a clock that is set by hand, a disk in memory, and lists of what the node
//! says.

use std::mem;
use std::time::Duration;

use bytes::Bytes;

use super::MemDisk;
use crate::api::{Reply, RequestId};
use crate::driver::Host;
use crate::env::{Clock, Disk, DiskOp, DiskQueue, FileName, Transport, Work};
use crate::error::DiskError;
use crate::types::{NodeId, Ticket};
use crate::wire::Message;

/// An in-memory [`Host`] of one node, for tests. See the [module](crate::memory).
///
/// It does nothing with what the node wants but keep it: operations are pending on its
/// [`disk`](Self::disk_mut), messages and replies wait until they are taken.
#[derive(Debug, Default)]
pub struct MemHost {
    now: Duration,
    disk: MemDisk,
    sent: Vec<(NodeId, Message)>,
    replies: Vec<(RequestId, Reply)>,
}

impl MemHost {
    /// A host with an empty disk, at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A host with an empty disk, whose clock shows `now`.
    #[must_use]
    pub fn at(now: Duration) -> Self {
        MemHost { now, ..Self::default() }
    }

    /// A host with this disk, at time zero. A node that is started on it finds what the disk holds.
    #[must_use]
    pub fn with_disk(disk: MemDisk) -> Self {
        MemHost { disk, ..Self::default() }
    }

    /// Sets the clock, forward or back. The driver notices at its next
    /// [`wake`](crate::driver::Driver::wake).
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &MemDisk {
        &self.disk
    }

    /// The disk, to carry out what is pending, or to damage it.
    pub fn disk_mut(&mut self) -> &mut MemDisk {
        &mut self.disk
    }

    /// Removes and returns what the node has sent, in order, with the receivers.
    pub fn take_sent(&mut self) -> Vec<(NodeId, Message)> {
        mem::take(&mut self.sent)
    }

    /// Removes and returns what the node has answered, in order.
    pub fn take_replies(&mut self) -> Vec<(RequestId, Reply)> {
        mem::take(&mut self.replies)
    }
}

impl Clock for MemHost {
    fn now(&self) -> Duration {
        self.now
    }
}

impl Transport for MemHost {
    fn send(&mut self, to: NodeId, message: Message) {
        self.sent.push((to, message));
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.replies.push((request, reply));
    }
}

impl Disk for MemHost {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        self.disk.list()
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.disk.load(file)
    }

    fn free(&mut self) -> Option<u64> {
        self.disk.free()
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        self.disk.submit(queue, ticket, ops);
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        self.disk.fetch(ticket, file, offset, len);
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        self.disk.work(ticket, work);
    }
}

impl Host for MemHost {}
