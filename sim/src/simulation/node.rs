//! One place in the simulated cluster: a disk, the node that runs on it, if it runs, and who judges
//! what it does.

use std::collections::{BTreeMap, VecDeque};

use super::Event;
use super::core::Loss;
use super::inbox::Inbox;
use crate::checker::{Broken, Safety};
use crate::clock::LocalClock;
use crate::disk::SimDisk;
use crate::plan::{Again, Delay, DiskFault};
use crate::port::Watch;
use crate::rng::{Purpose, Stream};
use crate::service::Service;
use stormkv::driver::Driver;
use stormkv::env::{DiskOp, DiskQueue};
use stormkv::node::{Applied, DiskSpace, Membership};
use stormkv::types::{LogIndex, NodeId, Ticket};

/// No operation takes longer on a slow disk than this, unless it would on a healthy one.
const SLOWEST_NS: u64 = 3_000_000_000;

/// A batch on its way to the platters.
pub(super) struct Batch {
    pub ticket: Ticket,
    pub ops: VecDeque<DiskOp>,
}

pub(super) struct SimNode<S: Service> {
    pub id: NodeId,
    /// Counts the starts. Events of an earlier life are void.
    pub life: u64,
    /// Boxed, because it changes hands with every event.
    pub driver: Option<Box<Driver<S::Machine>>>,
    pub disk: SimDisk,
    /// By number of the queue.
    pub batches: [Option<Batch>; DiskQueue::ALL.len()],
    /// It was given inputs that it has not acted on yet.
    pub collecting: bool,
    pub latency: Stream,
    /// When the device has transferred all that it was asked to.
    device_free_ns: u64,
    /// When the last operation ends that began while the disk was slow.
    pub slowed_until_ns: u64,
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
    /// It is outside of the core: it never gets well again.
    pub lost: Option<Loss>,
    /// Why it stopped by itself the last time, or did not start; and how often since the faults
    /// stopped.
    pub stopped: Option<String>,
    pub stops: u32,
    /// Its newest durable snapshot when it was up last: what it has applied at least when it
    /// starts again.
    pub snapshot: LogIndex,
    pub clock: LocalClock,
    /// Counts the settings of its timer; only the last one counts.
    pub timer: u64,
    /// The count of its timer when a message of raft of each other node came last in this life.
    pub heard: BTreeMap<NodeId, u64>,
    /// How late its timers may fire, and how late they do.
    pub jitter: Option<(u64, Stream)>,
    /// What waits for a slow node; `None` for one that takes no time.
    pub inbox: Option<Box<Inbox>>,
    /// When it crashes again after each start, with the fault.
    pub crash_loop: Option<(Again, u32)>,
    /// Its disk is gone for ever.
    pub wiped: bool,
    /// Its files were made into those of an earlier release.
    pub has_old_files: bool,
    /// The membership that it went by when it went down.
    pub left_in: Option<Membership>,
    /// A disk operation has failed since the node started, which may not know it yet: the cache no
    /// longer holds all that it wrote, or the disk holds more of it than was synced.
    pub disk_failed: bool,
    /// The disk hangs; and what waits for it.
    pub stalled: bool,
    pub stuck: Vec<Event>,
    /// Lose the power, with all names that are not durable, at the n-th disk operation from now on
    /// at which there are some, counted down; with the fault.
    pub name_fuse: Option<(u32, u32)>,
    /// At the next start, some of what is read is old; with the number of the fault.
    pub stale: Option<(DiskFault, usize)>,
    /// Whether a change of the membership was under way when it went down.
    pub was_reconfiguring: bool,
    /// Room on its disk as the node last reported it.
    pub space: DiskSpace,
}

impl<S: Service> SimNode<S> {
    /// The faults by which the node crashes at some moment to come.
    pub fn fuses(&self) -> impl Iterator<Item = u32> + use<S> {
        [self.fuse, self.disk_fuse, self.name_fuse].into_iter().flatten().map(|(_, fault)| fault)
    }

    /// All faults that wait for their moment here.
    pub fn armed(&self) -> Vec<u32> {
        let stale = self.stale.map(|(_, fault)| fault as u32);
        self.fuses().chain(stale).chain(self.disk.armed()).collect()
    }

    pub fn new(seed: u64, id: NodeId, founder: bool, inbox: Option<Box<Inbox>>) -> Self {
        SimNode {
            id,
            life: 0,
            driver: None,
            disk: SimDisk::new(seed, id.0),
            batches: Default::default(),
            collecting: false,
            latency: Stream::new(seed, Purpose::DiskLatency, [id.0]),
            device_free_ns: 0,
            slowed_until_ns: 0,
            founder,
            retired: false,
            paused: false,
            deferred: Vec::new(),
            fuse: None,
            disk_fuse: None,
            slowness: 1,
            lost: None,
            stopped: None,
            stops: 0,
            snapshot: 0,
            clock: LocalClock::new(seed, id.0),
            timer: 0,
            heard: BTreeMap::new(),
            jitter: None,
            inbox,
            crash_loop: None,
            wiped: false,
            has_old_files: false,
            left_in: None,
            disk_failed: false,
            stalled: false,
            stuck: Vec::new(),
            name_fuse: None,
            stale: None,
            was_reconfiguring: false,
            space: DiskSpace::default(),
        }
    }

    /// All up to here it has applied, whatever happens to it.
    pub fn surely_applied(&self) -> LogIndex {
        match &self.driver {
            Some(driver) => driver.node().status().applied.index,
            None => self.snapshot,
        }
    }

    /// When the next operation of its disk ends, in nanoseconds, if it begins now, transfers so many
    /// bytes at `kib_per_s` (0: at once) and takes `delay` besides. The device transfers for one
    /// operation at a time; what comes on top (seeks, the kernel) overlaps. A slow disk stretches
    /// both, within bounds, because an operation under way keeps its time when the fault ends.
    pub fn disk_ends(&mut self, now_ns: u64, delay: Delay, bytes: u64, kib_per_s: u32) -> u64 {
        let stretched = |ns: u64, factor: u64| ns.max((ns * factor).min(SLOWEST_NS));
        let usual = delay.min_us * 1000 + self.latency.exponential_ns(delay.mean_extra_us * 1000);
        let usual = stretched(usual, self.slowness);
        let mut ends_ns = now_ns + usual;
        if kib_per_s > 0 && bytes > 0 {
            let transfer = bytes * 1_000_000_000 / (u64::from(kib_per_s) << 10);
            let begins_ns = self.device_free_ns.max(now_ns);
            self.device_free_ns = begins_ns + stretched(transfer, self.slowness);
            ends_ns = self.device_free_ns + usual;
        }
        if self.slowness > 1 {
            self.slowed_until_ns = self.slowed_until_ns.max(ends_ns);
        }
        ends_ns
    }

    pub fn is_up(&self) -> bool {
        self.driver.is_some()
    }

    /// It never starts again.
    pub fn is_gone(&self) -> bool {
        self.retired || self.wiped || self.lost.is_some()
    }

    /// The membership that it goes by, or will when it is started again, if it knows one.
    pub fn membership(&self) -> Option<&Membership> {
        match &self.driver {
            Some(driver) => Some(driver.node().membership()),
            None => self.left_in.as_ref(),
        }
    }
}

/// Shows the checkers what a node does during one flush.
pub(super) struct Judge<'a, S: Service> {
    pub id: NodeId,
    pub safety: &'a mut Safety<S>,
    /// The first invariant that was broken during this flush.
    pub broken: Option<Broken>,
    pub applied: Option<Applied>,
    /// It has written something down.
    pub wrote: bool,
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

impl<S: Service> Judge<'_, S> {
    fn note(&mut self, result: Result<(), Broken>) {
        if let (Err(broken), None) = (result, &self.broken) {
            self.broken = Some(broken);
        }
    }
}

impl<S: Service> Watch for Judge<'_, S> {
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
        self.wrote = true;
        match &mut self.starting {
            Some(kept) => kept.queued.extend_from_slice(ops),
            None => {
                let result = self.safety.queued(self.id, ops);
                self.note(result);
            }
        }
    }
}
