//! One place in the simulated cluster: a disk, and the node that runs on it, if it runs.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use stormkv::api::{Reply, RequestId};
use stormkv::driver::{Driver, Host};
use stormkv::env::{Clock, Disk, DiskOp, FileName, Transport};
use stormkv::error::DiskError;
use stormkv::kv::Kv;
use stormkv::node::Applied;
use stormkv::types::{NodeId, Ticket};
use stormkv::wire::Message;

use super::Event;
use crate::checker::{Broken, Safety};
use crate::disk::SimDisk;
use crate::plan::Delay;
use crate::rng::{Purpose, Stream};

/// No operation takes longer on a slow disk than this, unless it would on a healthy one.
const SLOWEST_NS: u64 = 3_000_000_000;

/// What a node has asked its world for, in order.
pub(super) enum Effect {
    Send(NodeId, Message),
    Reply(RequestId, Reply),
    Submit(Ticket, Vec<DiskOp>),
    Fetch(Ticket, FileName, u64, u32),
}

/// A batch on its way to the platters.
pub(super) struct Batch {
    pub ticket: Ticket,
    pub ops: VecDeque<DiskOp>,
}

pub(super) struct Slot {
    pub id: NodeId,
    /// Counts the starts. Events of an earlier life are void.
    pub life: u64,
    /// Boxed, because it changes hands with every event.
    pub driver: Option<Box<Driver<Kv>>>,
    pub disk: SimDisk,
    pub batch: Option<Batch>,
    pub latency: Stream,
    /// Founds the cluster; others join with an empty disk.
    pub founder: bool,
    /// Removed from the cluster: never started again.
    pub retired: bool,
    pub paused: bool,
    /// What happened while it was paused.
    pub deferred: Vec<Event>,
    /// Crash after this many effects of one input; with the number of the fault.
    pub fuse: Option<(u32, u32)>,
    /// Crash instead of the n-th disk operation from now on, counted down; with the fault.
    pub disk_fuse: Option<(u32, u32)>,
    /// Disk operations take this many times as long.
    pub slowness: u64,
}

impl Slot {
    pub fn new(seed: u64, id: NodeId, founder: bool) -> Self {
        Slot {
            id,
            life: 0,
            driver: None,
            disk: SimDisk::new(seed, id.0),
            batch: None,
            latency: Stream::new(seed, Purpose::DiskLatency, [id.0]),
            founder,
            retired: false,
            paused: false,
            deferred: Vec::new(),
            fuse: None,
            disk_fuse: None,
            slowness: 1,
        }
    }

    /// How long its disk takes for the next operation, in nanoseconds. Bounded, because an operation
    /// under way keeps its time when the disk is mended.
    pub fn took(&mut self, delay: Delay) -> u64 {
        let usual = delay.min_us * 1000 + self.latency.exponential_ns(delay.mean_extra_us * 1000);
        usual.max((usual * self.slowness).min(SLOWEST_NS))
    }

    pub fn is_up(&self) -> bool {
        self.driver.is_some()
    }
}

/// The world as one node sees it during one input.
pub(super) struct Port<'a> {
    pub now_ns: u64,
    pub id: NodeId,
    pub disk: &'a mut SimDisk,
    pub effects: &'a mut Vec<Effect>,
    pub safety: &'a mut Safety,
    /// The first invariant that was broken during this input.
    pub broken: Option<Broken>,
    pub applied: Option<Applied>,
    /// During a start, what the checkers should see is kept back until the recovered state is
    /// judged.
    pub starting: Option<Starting>,
}

/// What a node did while it started.
#[derive(Default)]
pub(super) struct Starting {
    pub queued: Vec<DiskOp>,
    pub applied: Vec<Applied>,
}

impl Port<'_> {
    fn note(&mut self, result: Result<(), Broken>) {
        if let (Err(broken), None) = (result, &self.broken) {
            self.broken = Some(broken);
        }
    }
}

impl Clock for Port<'_> {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }
}

impl Transport for Port<'_> {
    fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send(to, message));
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.effects.push(Effect::Reply(request, reply));
    }
}

impl Disk for Port<'_> {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        Ok(self.disk.list())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.disk.load(file)
    }

    fn submit(&mut self, ticket: Ticket, ops: Vec<DiskOp>) {
        self.effects.push(Effect::Submit(ticket, ops));
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        self.effects.push(Effect::Fetch(ticket, file, offset, len));
    }
}

impl Host for Port<'_> {
    fn applied(&mut self, applied: Applied) {
        self.applied = Some(applied);
        match &mut self.starting {
            Some(kept) => kept.applied.push(applied),
            None => {
                let result = self.safety.applied(self.id, &applied);
                self.note(result);
            }
        }
    }

    fn queued(&mut self, ops: &[DiskOp]) {
        match &mut self.starting {
            Some(kept) => kept.queued.extend_from_slice(ops),
            None => {
                let result = self.safety.queued(self.id, ops);
                self.note(result);
            }
        }
    }
}
