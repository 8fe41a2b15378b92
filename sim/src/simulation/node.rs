//! One node of the simulated cluster: its disk and clock, the product's driver that runs on them if it is
//! up, and the faults that it suffers from.
//!
//! - `faults.rs` has the faults,
//! - `device.rs` is the time that its disk takes.

mod device;
mod faults;

use std::collections::{BTreeMap, VecDeque};

pub(super) use self::device::Device;
pub(super) use self::faults::NodeFaults;
use super::inbox::Inbox;
use crate::checker::{Broken, Safety};
use crate::clock::LocalClock;
use crate::disk::SimDisk;
use crate::plan::Delay;
use crate::port::Watch;
use crate::service::Service;
use stormkv::driver::Driver;
use stormkv::env::{DiskOp, DiskQueue};
use stormkv::node::{Applied, DiskSpace, Membership};
use stormkv::types::{LogIndex, NodeId, Ticket};

/// A batch of operations that the disk has not carried out yet.
pub(super) struct Batch {
    pub ticket: Ticket,
    pub ops: VecDeque<DiskOp>,
}

/// What is known of a node that is down.
#[derive(Default)]
pub(super) struct LastSeen {
    /// Its newest durable snapshot: what it has applied at least when it starts again.
    pub snapshot: LogIndex,
    /// The membership that it went by.
    pub membership: Option<Membership>,
    /// Whether a change of the membership was under way.
    pub was_reconfiguring: bool,
}

/// A node. See the module.
pub(super) struct SimNode<S: Service> {
    pub id: NodeId,
    /// Founds the cluster; others join with an empty disk.
    pub founder: bool,
    /// Counts the starts. Events of an earlier incarnation are void.
    pub incarnation: u64,
    /// Boxed, because it changes hands with every event.
    pub driver: Option<Box<Driver<S::Machine>>>,
    /// It was given inputs that it has not acted on yet.
    pub collecting: bool,
    /// What waits for a slow node; `None` for one that takes no time.
    pub inbox: Option<Box<Inbox>>,
    pub disk: SimDisk,
    pub device: Device,
    /// By number of the queue.
    pub batches: [Option<Batch>; DiskQueue::ALL.len()],
    /// What an operation of the disk has left behind.
    pub disk_state: DiskState,
    pub clock: LocalClock,
    /// Counts the settings of its timer; only the last one counts.
    pub timer: u64,
    /// The count of its timer when a message of raft of each other node came last in this incarnation.
    pub heard: BTreeMap<NodeId, u64>,
    pub faults: NodeFaults,
    /// Why it stopped by itself the last time, or did not start; and how often since the faults
    /// stopped.
    pub stopped: Option<String>,
    pub stops: u32,
    pub last_seen: LastSeen,
}

/// What is known of the files of a node, beside the files themselves.
#[derive(Default)]
pub(super) struct DiskState {
    /// An operation has failed since the node started, which may not know it yet: the cache no
    /// longer holds all that it wrote, or the disk holds more of it than was synced.
    pub has_failed: bool,
    /// The files were made into those of an earlier release.
    pub is_old: bool,
    /// Room on the disk as the node last reported it.
    pub space: DiskSpace,
}

impl<S: Service> SimNode<S> {
    /// All faults that wait for their moment here.
    pub fn armed(&self) -> Vec<u32> {
        self.faults.armed().chain(self.disk.armed()).collect()
    }

    pub fn new(seed: u64, id: NodeId, founder: bool, inbox: Option<Box<Inbox>>) -> Self {
        SimNode {
            id,
            founder,
            incarnation: 0,
            driver: None,
            collecting: false,
            inbox,
            disk: SimDisk::new(seed, id.0),
            device: Device::new(seed, id),
            batches: Default::default(),
            disk_state: DiskState::default(),
            clock: LocalClock::new(seed, id.0),
            timer: 0,
            heard: BTreeMap::new(),
            faults: NodeFaults::none(),
            stopped: None,
            stops: 0,
            last_seen: LastSeen::default(),
        }
    }

    /// All up to here it has applied, whatever happens to it.
    pub fn surely_applied(&self) -> LogIndex {
        match &self.driver {
            Some(driver) => driver.node().status().applied.index,
            None => self.last_seen.snapshot,
        }
    }

    /// When the next operation of its disk ends; see [`Device::ends_ns`].
    pub fn disk_ends(&mut self, now_ns: u64, delay: Delay, bytes: u64, kib_per_s: u32) -> u64 {
        self.device.ends_ns(now_ns, delay, bytes, kib_per_s, self.faults.disk_slowness())
    }

    pub fn is_up(&self) -> bool {
        self.driver.is_some()
    }

    /// It never starts again.
    pub fn is_gone(&self) -> bool {
        self.faults.is_gone()
    }

    /// The membership that it goes by, or will when it is started again, if it knows one.
    pub fn membership(&self) -> Option<&Membership> {
        match &self.driver {
            Some(driver) => Some(driver.node().membership()),
            None => self.last_seen.membership.as_ref(),
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
