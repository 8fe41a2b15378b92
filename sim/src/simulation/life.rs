//! The lives of a node: it starts, stops by itself, or is taken down.

use std::time::Duration;

use stormkv::config::Config;
use stormkv::driver::Driver;
use stormkv::env::{DiskOp, FileName};
use stormkv::error::Error;
use stormkv::node::Role;
use stormkv::session::SessionLimits;
use stormkv::types::{NodeId, SnapshotId};

use super::node::{Judge, Starting};
use super::observe::Observation;
use super::{Event, Simulation};
use crate::caught::caught;
use crate::checker::{Broken, Check};
use crate::disk::{self, Crash};
use crate::outcome::Class;
use crate::plan::Cluster;
use crate::port::Port;
use crate::recording::Fate;
use crate::rng::Purpose;
use crate::service::Service;

/// A node whose disk could not be read is started again after this time.
pub(super) const START_AGAIN_NS: u64 = 100_000_000;
/// What a node may keep waiting of each kind: proposals, forwarded requests, reads.
const MAX_PENDING: usize = 1024;
/// Bytes reserved for the log beside two segments: one of the largest values that are common.
const RESERVE_BYTES: u64 = 16 << 10;
/// Bytes of answers to queries that one flush of a node makes: one answer, that is.
const MAX_ANSWER_BYTES: usize = 1;

impl<S: Service> Simulation<'_, S> {
    /// A node that has stopped by itself leaves its place.
    pub(super) fn consider_stop(&mut self, id: NodeId) {
        let damaged = self.atlas.is_damaged(id);
        let Some(error) = self.cluster.node(id).and_then(|node| node.stopped()).cloned() else {
            return;
        };
        let reason = error.to_string();
        self.observers.see(&Observation::Stopped(id, &error));
        let slot = self.cluster.get_mut(id).expect("it has stopped");
        match error {
            Error::Removed => {
                slot.faults.retire();
                self.atlas.whole(id);
                self.reach("removed-node-stopped");
            }
            Error::Disk(fault) if disk::is_fault(&fault) => self.reach("node-stopped-by-disk"),
            Error::BeyondRepair { .. } if damaged => {
                return self.gives_up(id, &error);
            }
            error => {
                let message = format!("{id} stopped: {error}");
                self.fail(Class::Safety, Broken::new(Check::FailStop, message).at(id));
            }
        }
        let healed = self.healed_ns.is_some();
        let slot = self.cluster.get_mut(id).expect("it has just been used");
        slot.stops += u32::from(healed);
        slot.stopped = Some(reason);
        self.take_down(id, Crash::Kill, u32::MAX, false);
        if healed {
            self.kernel.after(START_AGAIN_NS, Event::start(id));
        }
    }

    pub(super) fn crash(&mut self, id: NodeId, crash: Crash, fault: u32) {
        if self.cluster.is_up(id) {
            self.take_down(id, crash, fault, crash == Crash::Kill);
        }
    }

    pub(super) fn take_down(&mut self, id: NodeId, crash: Crash, fault: u32, cache_survives: bool) {
        self.availability.disturb();
        self.observers.see(&Observation::Down(id));
        if self.cluster.set_role(id, (Role::Follower, 0)).0 == Role::Leader {
            self.reach("crash-of-leader");
        }
        let slot = self.cluster.get_mut(id).expect("it is up");
        let fuses = slot.faults.fuses().filter(|armed| *armed != fault).collect::<Vec<_>>();
        self.give_up(fuses, "its node went down before its moment");
        let slot = self.cluster.get_mut(id).expect("it is up");
        slot.remember_membership();
        let status = slot.driver.take().map(|driver| driver.node().status());
        if let Some(status) = status {
            slot.last_seen.snapshot = status.snapshot.index;
            self.observers.see(&Observation::Left(id, &status));
        }
        let waiting = slot.inbox.iter().flat_map(|inbox| inbox.waiting());
        for event in slot.faults.deferred().chain(waiting).filter(|event| event.message > 0) {
            self.observers.see(&Observation::Forgotten(event.message, Fate::Forgotten));
        }
        let unsynced = std::mem::take(&mut slot.batches).iter().any(Option::is_some);
        slot.faults.process_ended();
        slot.collecting = false;
        if let Some(inbox) = &mut slot.inbox {
            inbox.clear();
        }
        let disk_failed = std::mem::take(&mut slot.disk_state.has_failed);
        let disk = *slot.disk.stats();
        slot.disk.crash(crash, fault);
        if cache_survives && disk_failed {
            self.reach("killed-before-disk-error-was-known");
        }
        let cache_survives = cache_survives && !disk_failed;
        let slot = self.cluster.get(id).expect("it was up");
        let after = slot.disk.stats();
        let crashed = Observation::DiskCrashed { node: id, crash, before: &disk, after };
        self.observers.see(&crashed);
        self.safety.crashed(id, cache_survives);
        if unsynced {
            self.reach("crash-with-unsynced-writes");
        }
        if self.cluster.iter().all(|slot| !slot.is_up()) {
            self.reach("all-nodes-down");
        }
        self.start_in_loop(id);
    }

    /// A node does not start, which must have a reason.
    fn refused(&mut self, id: NodeId, error: Error) {
        self.observers.see(&Observation::StartRefused(id, &error));
        self.effects.clear();
        let healed = self.healed_ns.is_some();
        let slot = self.cluster.get_mut(id).expect("it was to start");
        slot.stops += u32::from(healed);
        slot.stopped = Some(error.to_string());
        match (error, self.atlas.is_exceeded(), self.atlas.mark(id)) {
            (Error::Disk(fault), ..) if disk::is_fault(&fault) => {
                self.kernel.after(START_AGAIN_NS, Event::start(id));
            }
            (Error::Corrupt { .. }, true, Some(mark)) => mark.stopped = true,
            (error, ..) => {
                let message = format!("{id} refuses to start: {error}");
                self.fail(Class::Safety, Broken::new(Check::Recovery, message).at(id));
            }
        }
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let starts = self.cluster.get(id).is_some_and(|slot| !slot.is_up() && !slot.is_gone());
        self.observers.see(&Observation::StartDue { node: id, starts });
        let (plan, seed) = (self.plan, self.kernel.seed());
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id).filter(|_| starts) else { return };
        if slot.faults.disk_hangs() {
            slot.faults.hold(Event::start(id));
            return;
        }
        self.availability.disturb();
        self.observers.see(&Observation::Started(id));
        self.strike_at_start(id);
        let slot = self.cluster.get_mut(id).expect("it has a place");
        slot.incarnation += 1;
        slot.heard.clear();
        let incarnation = slot.incarnation;
        let mut config = config(plan, id, slot.founder, incarnation);
        config.seed = seed;
        config.founding_state = self.founding.state.clone().filter(|_| slot.founder);
        let founding = self.founding.id;
        let starting = Some(Starting::default());
        let safety = &mut self.safety;
        let watch = Judge { id, safety, broken: None, applied: None, wrote: false, starting };
        let (disk, effects) = (&mut slot.disk, &mut self.effects);
        // A start takes a while, so nodes do not tick in step.
        let took_ns = self
            .kernel
            .stream(Purpose::Clock, [id.0, incarnation])
            .below(plan.cluster.tick_us * 1000);
        let mut port = Port { now_ns: slot.clock.at(now_ns) + took_ns, disk, effects, watch };
        let started = caught(|| Driver::start_with(S::params(), config, &mut port));
        let kept = port.watch.starting.unwrap_or_default();
        let driver = match started {
            Err(panic) => return self.panicked(id, &panic),
            Ok(Err(error)) => return self.refused(id, error),
            Ok(Ok(driver)) => driver,
        };
        let torn = driver.node().recovered_torn_tail();
        let founds = kept.queued.iter().any(|op| founds(op, founding));
        let judged = self
            .safety
            .recovered(id, driver.node(), founds)
            .and_then(|()| self.safety.queued(id, &kept.queued))
            .and_then(|()| kept.applied.iter().try_for_each(|a| self.safety.applied(id, a)));
        let status = driver.node().status();
        self.snapshot_rate.started(id, status.applied.index);
        self.cluster.get_mut(id).expect("it was just started").driver = Some(Box::new(driver));
        if let Err(broken) = judged {
            return self.fail(Class::Safety, broken);
        }
        if torn {
            self.reach("torn-tail-recovered");
        }
        if std::mem::take(
            &mut self.cluster.get_mut(id).expect("it was just started").disk_state.is_old,
        ) {
            self.reach("old-files-read");
        }
        self.note_recovery(id);
        self.after(id, status);
        self.show_applied(id, 0, true);
        self.carry_out(id);
        self.set_timer(id);
        self.crash_in_loop(id);
    }
}

/// Whether a node founds its cluster with this operation: no other start begins this snapshot.
fn founds(op: &DiskOp, SnapshotId { index, term }: SnapshotId) -> bool {
    matches!(op, DiskOp::Create { file, .. } if *file == FileName::Partial(index, term))
}

/// How much an append may carry: what a path carries between two heartbeats, as [`Config`] asks for.
fn message_bytes(plan: &crate::plan::Plan) -> u64 {
    const RANGE: (u64, u64) = (4 << 10, 64 << 10);
    let heartbeat_us = plan.cluster.tick_us * u64::from(plan.cluster.heartbeat_ticks);
    match u64::from(plan.network.kib_per_s) << 10 {
        0 => RANGE.1,
        bytes_per_s => (bytes_per_s * heartbeat_us / 1_000_000).clamp(RANGE.0, RANGE.1),
    }
}

/// Bytes that a disk transfers in so many milliseconds, within a range whose upper end holds for disks
/// without weight. An operator sizes what waits for a disk by the disk, as [`Config`] asks for.
fn disk_bytes(plan: &crate::plan::Plan, ms: u64, range: (u64, u64)) -> u64 {
    match u64::from(plan.disk.kib_per_s) << 10 {
        0 => range.1,
        bytes_per_s => (bytes_per_s * ms / 1000).clamp(range.0, range.1),
    }
}

/// The bounds of the session table of every node.
pub(super) fn session_limits(cluster: &Cluster) -> SessionLimits {
    let bytes = u64::from(cluster.session_kib) << 10;
    SessionLimits { count: cluster.sessions as usize, bytes }
}

/// How a node is set up, apart from the seed of its elections.
pub(super) fn config(
    plan: &crate::plan::Plan,
    id: NodeId,
    founder: bool,
    incarnation: u64,
) -> Config {
    let cluster = &plan.cluster;
    let founders = if founder { plan.voters().collect() } else { Vec::new() };
    let mut config = Config::new(id, founders);
    if founder {
        config.founding_learners = plan.learners().collect();
    }
    config.incarnation = incarnation;
    config.tick = Duration::from_micros(cluster.tick_us);
    config.election_ticks = (cluster.election_ticks[0], cluster.election_ticks[1]);
    config.heartbeat_ticks = cluster.heartbeat_ticks;
    config.request_ticks = 300;
    config.read_retry_ticks = 20;
    config.snapshot_ticks = 100;
    config.repair_ticks = 200;
    config.max_pending = MAX_PENDING;
    config.max_inflight = 64;
    config.max_message_bytes = message_bytes(plan).min(disk_bytes(plan, 40, (1 << 10, 64 << 10)));
    // The default in production is many seconds for a slow disk. Then only what a leader observes
    // keeps it from taking more than it can do in time.
    let unsynced_ms = if plan.load.is_judged() { 10_000 } else { 500 };
    config.max_unsynced_bytes = disk_bytes(plan, unsynced_ms, (16 << 10, 1 << 20));
    config.max_batch_bytes = disk_bytes(plan, 40, (2 << 10, 64 << 10));
    config.piece_bytes = disk_bytes(plan, 40, (1 << 10, 64 << 10)) as u32;
    config.hang_ticks = 2 * cluster.election_ticks[1];
    config.max_log_bytes = u64::from(cluster.log_kib) << 10;
    config.max_uncommitted_bytes = (config.max_log_bytes / 4).max(config.max_message_bytes);
    config.max_answer_bytes = MAX_ANSWER_BYTES;
    config.snapshot_every = cluster.snapshot_every;
    config.keep_entries = cluster.keep_entries;
    config.chunk_bytes = cluster.chunk_bytes.min(disk_bytes(plan, 40, (256, 64 << 10)) as u32);
    config.segment_bytes = u64::from(cluster.segment_kib) << 10;
    config.reserve_bytes = 2 * config.segment_bytes + RESERVE_BYTES;
    let SessionLimits { count, bytes } = session_limits(cluster);
    (config.sessions, config.max_session_bytes) = (count, bytes);
    config
}
