//! One place in the simulated cluster: a disk, the node that runs on it, if it runs, and who judges
//! what it does.

use std::collections::VecDeque;

use stormkv::driver::Driver;
use stormkv::env::DiskOp;
use stormkv::kv::Kv;
use stormkv::node::Applied;
use stormkv::types::{NodeId, Ticket};

use super::Event;
use crate::checker::{Broken, Safety};
use crate::disk::SimDisk;
use crate::plan::Delay;
use crate::port::Watch;
use crate::rng::{Purpose, Stream};

/// No operation takes longer on a slow disk than this, unless it would on a healthy one.
const SLOWEST_NS: u64 = 3_000_000_000;

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
    /// It was given inputs that it has not acted on yet.
    pub collecting: bool,
    pub latency: Stream,
    /// Founds the cluster; others join with an empty disk.
    pub founder: bool,
    /// Removed from the cluster: never started again.
    pub retired: bool,
    pub paused: bool,
    /// What happened while it was paused.
    pub deferred: Vec<Event>,
    /// Crash after this many effects of one flush; with the number of the fault.
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
            collecting: false,
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

/// Shows the checkers what a node does during one flush.
pub(super) struct Judge<'a> {
    pub id: NodeId,
    pub safety: &'a mut Safety,
    /// The first invariant that was broken during this flush.
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

impl Judge<'_> {
    fn note(&mut self, result: Result<(), Broken>) {
        if let (Err(broken), None) = (result, &self.broken) {
            self.broken = Some(broken);
        }
    }
}

impl Watch for Judge<'_> {
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
