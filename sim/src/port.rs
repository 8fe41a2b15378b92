//! The simulation as one node sees it during one flush: a clock that stands still, a disk to
//! read from, and a list for everything else it asks for.
//!
//! The simulation decides when each request of that list takes effect. The observer of the node is a
//! parameter: the checkers in the simulation, a recorder in the tests of the checkers.

use std::time::Duration;

use bytes::Bytes;
use stormkv::api::{Reply, RequestId};
use stormkv::driver::Host;
use stormkv::env::{Clock, Disk, DiskOp, DiskQueue, FileName, Transport, Work};
use stormkv::error::DiskError;
use stormkv::node::Applied;
use stormkv::types::{NodeId, Ticket};
use stormkv::wire::Message;

use crate::disk::SimDisk;

/// A request of a node to the simulation.
pub(crate) enum Effect {
    Send(NodeId, Message),
    Reply(RequestId, Reply),
    Submit(DiskQueue, Ticket, Vec<DiskOp>),
    Fetch(Ticket, FileName, u64, u32),
    Work(Ticket, Work),
}

impl Effect {
    /// Bytes that the thread of the node has written, sent or answered for it.
    pub fn bytes(&self) -> u64 {
        match self {
            Effect::Send(_, message) => message.weight() as u64,
            Effect::Reply(_, Reply::Applied { response, .. } | Reply::Value { response, .. }) => {
                response.len() as u64
            }
            Effect::Submit(DiskQueue::Log, _, ops) => ops.iter().map(DiskOp::bytes).sum(),
            // The rest is done beside it, or has no bytes.
            Effect::Reply(..) | Effect::Submit(..) | Effect::Fetch(..) | Effect::Work(..) => 0,
        }
    }
}

/// Who is told what the node does inside; see [`Host`].
pub(crate) trait Watch {
    fn applied(&mut self, applied: Applied);
    fn queued(&mut self, ops: &[DiskOp]);
}

pub(crate) struct Port<'a, W> {
    pub now_ns: u64,
    pub disk: &'a mut SimDisk,
    /// In the order in which they were asked for.
    pub effects: &'a mut Vec<Effect>,
    pub watch: W,
}

impl<W> Clock for Port<'_, W> {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }
}

impl<W> Transport for Port<'_, W> {
    fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send(to, message));
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.effects.push(Effect::Reply(request, reply));
    }
}

impl<W> Disk for Port<'_, W> {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        Ok(self.disk.list())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.disk.load(file)
    }

    fn free(&mut self) -> Option<u64> {
        self.disk.free()
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        self.effects.push(Effect::Submit(queue, ticket, ops));
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        self.effects.push(Effect::Fetch(ticket, file, offset, len));
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        self.effects.push(Effect::Work(ticket, work));
    }
}

impl<W: Watch> Host for Port<'_, W> {
    fn applied(&mut self, applied: Applied) {
        self.watch.applied(applied);
    }

    fn queued(&mut self, ops: &[DiskOp]) {
        self.watch.queued(ops);
    }
}
