//! One event: what it does to a node, and what the node then does to the world.

use std::time::Duration;

use stormkv::config::Config;
use stormkv::driver::Driver;
use stormkv::env::{Completion, DiskOp, FileName};
use stormkv::error::Error;
use stormkv::kv::Kv;
use stormkv::node::Role;
use stormkv::types::{NodeId, Ticket};
use stormkv::wire::{Kind, Message};

use super::slot::{Batch, Judge, Starting};
use super::trace::{describe, mix_message, reply_code};
use super::{Event, World};
use crate::caught::{Panic, caught};
use crate::checker::{Broken, Check};
use crate::disk::{self, Crash};
use crate::network::{Endpoint, Fate};
use crate::outcome::Class;
use crate::plan::Delay;
use crate::port::{Effect, Port};
use crate::rng::{Purpose, Stream};

/// A node whose disk could not be read is started again after this time.
const START_AGAIN_NS: u64 = 100_000_000;
/// What a node may keep waiting of each kind: proposals, forwarded requests, reads.
const MAX_PENDING: usize = 1024;
/// Bytes of answers to queries that one flush of a node makes: one answer, that is.
const MAX_ANSWER_BYTES: usize = 1;
/// Far more segments of the log than snapshots leave over.
const MAX_SEGMENTS: usize = 1000;

impl World<'_> {
    pub(super) fn handle(&mut self, event: Event) {
        if let Some(node) = target(&event)
            && let Some(slot) = self.slot(node)
            && slot.paused
        {
            slot.deferred.push(event);
            self.trace.line(self.now_ns, || format!("{node} is paused: it will happen later"));
            return;
        }
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
            Event::DeliverFrame { from, to, frame } => {
                let message = Message::decode(&frame).expect("frames are not damaged yet");
                self.deliver(from, to, message);
            }
            Event::Ask { client, token, node, request } => {
                self.asked(client, token, node, *request)
            }
            Event::Tell { client, token, node, reply } => self.told(client, token, node, *reply),
            Event::Client { client, token } => self.client_timer(client, token),
            Event::DiskStep { node, life } => self.disk_step(node, life),
            Event::Fetched { node, life, ticket, file, offset, len } => {
                self.trace.mix(7 ^ node.0 << 8);
                self.trace.line(self.now_ns, || format!("{node} has read {file}"));
                let Some(slot) = self.slot(node).filter(|slot| slot.life == life) else { return };
                let found = slot.disk.read(file, offset, len as usize);
                let completion = Completion::Fetched(ticket, found);
                self.with(node, Some(life), |driver| driver.complete(completion));
            }
            Event::Flush { node, life } => self.flush_due(node, life),
            Event::Fault(at) => self.strike(at),
            Event::Mend(at) => self.mend(at),
            Event::Start { node } => self.start(node),
            Event::Heal => self.heal(),
            Event::Rest => self.look_for_rest(),
        }
    }

    fn tick(&mut self, node: NodeId, life: u64) {
        self.trace.mix(1 ^ node.0 << 8);
        self.trace.line(self.now_ns, || format!("{node} ticks"));
        let now = Duration::from_nanos(self.now_ns);
        self.with(node, Some(life), |driver| driver.wake(now));
        let next = self.slot(node).and_then(|slot| {
            let driver = slot.driver.as_ref().filter(|_| slot.life == life)?;
            Some(driver.deadline().as_nanos() as u64)
        });
        if let Some(at_ns) = next {
            self.schedule.push(at_ns.max(self.now_ns + 1), Event::Tick { node, life });
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.trace.mix(2 ^ from.0 << 8 ^ to.0 << 16);
        mix_message(&mut self.trace, &message);
        let up = self.slot(to).is_some_and(|slot| slot.is_up());
        if !up || !self.network.arrives(Endpoint::Node(from.0), Endpoint::Node(to.0)) {
            self.trace.line(self.now_ns, || format!("{} is lost", describe(from, to, &message)));
            return;
        }
        self.trace.line(self.now_ns, || describe(from, to, &message));
        if matches!(message, Message::Raft(_)) {
            self.messages += 1;
        }
        if message.kind() == Kind::Forward {
            self.reach("request-forwarded");
        }
        self.with(to, None, |driver| driver.receive(from, message));
    }

    /// Gives an input to a node, if it is up (and in this life). The node acts on it at once, or
    /// when the time is up in which inputs are collected.
    pub(super) fn with(
        &mut self,
        id: NodeId,
        life: Option<u64>,
        input: impl FnOnce(&mut Driver<Kv>),
    ) {
        let batch_ns = self.plan.cluster.batch_us * 1000;
        let at_ns = self.now_ns + batch_ns;
        let Some(slot) = self.slot(id) else { return };
        if life.is_some_and(|life| life != slot.life) {
            return;
        }
        let Some(driver) = &mut slot.driver else { return };
        if let Err(panic) = caught(|| input(driver)) {
            self.panicked(id, &panic);
        } else if batch_ns == 0 {
            self.flush(id);
        } else if !std::mem::replace(&mut slot.collecting, true) {
            let life = slot.life;
            self.schedule.push(at_ns, Event::Flush { node: id, life });
        }
    }

    fn flush_due(&mut self, node: NodeId, life: u64) {
        self.trace.mix(12 ^ node.0 << 8);
        self.trace.line(self.now_ns, || format!("{node} acts on its inputs"));
        if let Some(slot) = self.slot(node).filter(|slot| slot.life == life) {
            slot.collecting = false;
            self.flush(node);
        }
    }

    /// Lets a node act on its inputs, and carries out what it wants.
    fn flush(&mut self, id: NodeId) {
        let now_ns = self.now_ns;
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(mut driver) = slot.driver.take() else { return };
        let before = driver.node().status();
        let safety = &mut self.safety;
        let watch = Judge { id, safety, broken: None, applied: None, starting: None };
        let (disk, effects) = (&mut slot.disk, &mut self.effects);
        let mut port = Port { now_ns, disk, effects, watch };
        let caught = caught(|| driver.flush(&mut port));
        let Judge { broken, applied, .. } = port.watch;
        if let Some(applied) = applied {
            self.trace.mix(applied.digest);
        }
        if let Err(panic) = caught {
            self.panicked(id, &panic);
            return;
        }
        let last = driver.node().status().last;
        slot.driver = Some(driver);
        if let Some(broken) = broken {
            self.fail(Class::Safety, broken);
            return;
        }
        if applied.is_some_and(|applied| applied.by_snapshot) {
            self.reach("snapshot-installed");
            let campaigning = |role| matches!(role, Role::Candidate | Role::PreCandidate);
            if self.roles.iter().any(|(role, _)| campaigning(*role)) {
                self.reach("snapshot-during-election");
            }
        }
        // Of its own term and after its first entry: nothing else makes a leader's log longer.
        let led = self.roles[id.0 as usize] == (Role::Leader, last.term);
        if led && last.index > before.last.index + 1 {
            self.reach("proposals-batched");
        }
        self.after(id);
        self.carry_out(id);
        self.consider_stop(id);
        self.flush_again(id);
    }

    /// A node that had too much to do for one flush gets another one, but what has happened
    /// meanwhile comes first.
    fn flush_again(&mut self, id: NodeId) {
        let at_ns = self.now_ns + 1;
        let Some(slot) = self.slot(id) else { return };
        let has_work = slot.driver.as_ref().is_some_and(|driver| driver.has_work());
        if has_work && !std::mem::replace(&mut slot.collecting, true) {
            let life = slot.life;
            self.schedule.push(at_ns, Event::Flush { node: id, life });
            self.reach("answers-put-off");
        }
    }

    fn panicked(&mut self, id: NodeId, panic: &Panic) {
        let message = format!("{id} panicked at {}: {}", panic.place, panic.message);
        self.fail(Class::Safety, Broken { checker: "panic", message });
    }

    /// Lets the checkers compare the node with what it was before.
    fn after(&mut self, id: NodeId) {
        let slot = self.slots[id.0 as usize].as_ref().expect("it has just been used");
        let driver = slot.driver.as_ref().expect("it has just been used");
        let status = driver.node().status();
        if let Err(broken) = self.safety.after(id, driver.node()) {
            self.fail(Class::Safety, broken);
            return;
        }
        let (pending, segments) = (driver.node().pending(), driver.node().segments());
        if pending > 0 {
            self.safety.count(Check::Bounds, 1);
        }
        if pending > 3 * MAX_PENDING || segments > MAX_SEGMENTS {
            let message =
                format!("{id} keeps {pending} requests waiting and {segments} log segments");
            self.fail(Class::Safety, Broken { checker: "bounds", message });
        }
        let now = (status.role, status.hard_state.term);
        let before = std::mem::replace(&mut self.roles[id.0 as usize], now);
        if before.0 != now.0 {
            match (before.0, now.0) {
                (_, Role::Leader) => self.reach("leader-elected"),
                (Role::Leader, _) => self.reach("leader-deposed"),
                _ => {}
            }
        }
        self.trace.mix(status.hard_state.term << 32 ^ status.hard_state.commit);
        self.trace.mix(status.last.index << 8 ^ status.role as u64);
    }

    /// Carries out what the node wants, up to the point where a fault cuts it off.
    fn carry_out(&mut self, id: NodeId) {
        let mut effects = std::mem::take(&mut self.effects);
        let fuse = self.slot(id).and_then(|slot| slot.fuse);
        let cut = fuse.filter(|(count, _)| effects.len() > *count as usize);
        let keep = cut.map_or(effects.len(), |(count, _)| count as usize);
        for effect in effects.drain(..).take(keep) {
            if self.violation.is_some() {
                break;
            }
            self.carry_out_one(id, effect);
        }
        effects.clear();
        self.effects = effects;
        if let Some((_, fault)) = cut {
            self.reach("crash-between-outputs");
            self.crash(id, Crash::PowerLoss, fault);
        }
    }

    fn carry_out_one(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send(to, message) => self.send(id, to, message),
            Effect::Reply(request, reply) => {
                self.trace.mix(reply_code(&reply));
                self.reply(id, request, reply);
            }
            Effect::Submit(ticket, ops) => {
                let slot = self.slot(id).expect("it submits");
                assert!(slot.batch.is_none(), "a driver submits one batch at a time");
                slot.batch = Some(Batch { ticket, ops: ops.into() });
                self.schedule_disk_step(id);
            }
            Effect::Fetch(ticket, file, offset, len) => {
                let delay = self.plan.disk.read;
                let slot = self.slot(id).expect("it fetches");
                let life = slot.life;
                let took = slot.took(delay);
                let event = Event::Fetched { node: id, life, ticket, file, offset, len };
                self.schedule.push(self.now_ns + took, event);
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Err(broken) = self.safety.sending(from, to, &message) {
            self.fail(Class::Safety, broken);
            return;
        }
        if message.kind() == Kind::TimeoutNow {
            self.reach("leadership-transferred");
        }
        let ends = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        let fate = self.network.fate(self.now_ns, ends.0, ends.1, message.kind() as u8);
        let Fate::Delivered { at_ns, again_ns, .. } = fate else { return };
        // A refusal of a forwarded request speaks for one copy of it, so the transport must not
        // make a second one.
        let again_ns = again_ns.filter(|_| message.kind() != Kind::Forward);
        for at_ns in again_ns.into_iter().chain([at_ns]) {
            let event = if self.encodes() {
                Event::DeliverFrame { from, to, frame: message.encode() }
            } else if Some(at_ns) == again_ns {
                Event::Deliver { from, to, message: Box::new(message.clone()) }
            } else {
                continue;
            };
            self.schedule.push(at_ns, event);
        }
        if !self.encodes() {
            self.schedule.push(at_ns, Event::Deliver { from, to, message: Box::new(message) });
        }
    }

    // ---- the disk ----

    fn schedule_disk_step(&mut self, id: NodeId) {
        let disk = &self.plan.disk;
        let (write, sync) = (disk.write, disk.sync);
        let slot = self.slot(id).expect("it has a disk");
        let Some(batch) = &slot.batch else { return };
        let delay = match batch.ops.front() {
            Some(DiskOp::Sync { .. } | DiskOp::SyncDir) => sync,
            Some(_) => write,
            None => Delay { min_us: 0, mean_extra_us: 0 },
        };
        let took = slot.took(delay);
        let life = slot.life;
        self.schedule.push(self.now_ns + took, Event::DiskStep { node: id, life });
    }

    fn disk_step(&mut self, id: NodeId, life: u64) {
        self.trace.mix(3 ^ id.0 << 8);
        let Some(slot) = self.slot(id).filter(|slot| slot.life == life && slot.is_up()) else {
            self.trace.line(self.now_ns, || format!("{id} is gone, and its disk batch with it"));
            return;
        };
        if let Some((left, fault)) = &mut slot.disk_fuse {
            *left -= 1;
            if *left == 0 {
                let fault = *fault;
                self.reach("crash-between-disk-operations");
                self.trace.line(self.now_ns, || format!("{id} crashes before a disk operation"));
                self.crash(id, Crash::PowerLoss, fault);
                return;
            }
        }
        let batch = slot.batch.as_mut().expect("a step belongs to a batch");
        let ticket = batch.ticket;
        let Some(op) = batch.ops.pop_front() else {
            slot.batch = None;
            self.trace.line(self.now_ns, || format!("{id} disk has nothing to do"));
            return self.complete(id, life, ticket, Ok(()));
        };
        let result = slot.disk.execute(&op);
        let is_last = batch.ops.is_empty();
        self.trace.line(self.now_ns, || format!("{id} disk {}", describe_op(&op)));
        match result {
            Ok(()) => {
                self.safety.executed(id, &op);
                match op {
                    DiskOp::Rename { to: FileName::Snapshot(..), .. } => {
                        self.reach("snapshot-saved");
                    }
                    DiskOp::Remove { file: FileName::Segment(_) } => {
                        self.reach("log-segments-removed");
                    }
                    _ => {}
                }
                if is_last {
                    self.slot(id).expect("just used").batch = None;
                    self.complete(id, life, ticket, Ok(()));
                } else {
                    self.schedule_disk_step(id);
                }
            }
            Err(error) => {
                // A failed write may have written all of it.
                if matches!(op, DiskOp::Write { .. }) {
                    self.safety.executed(id, &op);
                }
                self.slot(id).expect("just used").batch = None;
                self.complete(id, life, ticket, Err(error));
            }
        }
    }

    fn complete(
        &mut self,
        id: NodeId,
        life: u64,
        ticket: Ticket,
        result: Result<(), stormkv::error::DiskError>,
    ) {
        let completion = Completion::Done(ticket, result);
        self.with(id, Some(life), |driver| driver.complete(completion));
    }

    /// A node that has stopped by itself leaves its place.
    fn consider_stop(&mut self, id: NodeId) {
        let Some(slot) = self.slot(id) else { return };
        let Some(error) = slot.driver.as_ref().and_then(|driver| driver.node().stopped()) else {
            return;
        };
        match error {
            Error::Removed => {
                slot.retired = true;
                self.reach("removed-node-stopped");
            }
            Error::Disk(fault) if disk::is_fault(fault) => self.reach("node-stopped-by-disk"),
            error => {
                let message = format!("{id} stopped: {error}");
                self.fail(Class::Safety, Broken { checker: "fail-stop", message });
            }
        }
        self.take_down(id, Crash::Kill, u32::MAX, false);
        if self.healed_ns.is_some() {
            self.schedule.push(self.now_ns + START_AGAIN_NS, Event::Start { node: id });
        }
    }

    // ---- starting and crashing ----

    pub(super) fn crash(&mut self, id: NodeId, crash: Crash, fault: u32) {
        if self.slot(id).is_some_and(|slot| slot.is_up()) {
            self.take_down(id, crash, fault, crash == Crash::Kill);
        }
    }

    fn take_down(&mut self, id: NodeId, crash: Crash, fault: u32, cache_survives: bool) {
        self.trace.line(self.now_ns, || format!("{id} is down"));
        if self.roles[id.0 as usize].0 == Role::Leader {
            self.reach("crash-of-leader");
        }
        self.roles[id.0 as usize] = (Role::Follower, 0);
        let slot = self.slot(id).expect("it is up");
        slot.driver = None;
        let unsynced = slot.batch.take().is_some();
        slot.fuse = None;
        slot.disk_fuse = None;
        slot.collecting = false;
        slot.deferred.clear();
        slot.paused = false;
        slot.disk.crash(crash, fault);
        self.safety.crashed(id, cache_survives);
        if unsynced {
            self.reach("crash-with-unsynced-writes");
        }
        if self.slots.iter().flatten().all(|slot| !slot.is_up()) {
            self.reach("all-nodes-down");
        }
    }

    pub(super) fn start(&mut self, id: NodeId) {
        self.trace.mix(4 ^ id.0 << 8);
        self.trace.line(self.now_ns, || format!("{id} starts"));
        let plan = self.plan;
        let now_ns = self.now_ns;
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if slot.is_up() || slot.retired {
            return;
        }
        slot.life += 1;
        let life = slot.life;
        let config = config(plan, id, slot.founder, life);
        let starting = Some(Starting::default());
        let safety = &mut self.safety;
        let watch = Judge { id, safety, broken: None, applied: None, starting };
        let (disk, effects) = (&mut slot.disk, &mut self.effects);
        let mut port = Port { now_ns, disk, effects, watch };
        let started = caught(|| Driver::start(config, &mut port));
        let kept = port.watch.starting.unwrap_or_default();
        let driver = match started {
            Err(panic) => return self.panicked(id, &panic),
            Ok(Err(Error::Disk(fault))) if disk::is_fault(&fault) => {
                self.trace.line(now_ns, || format!("{id} does not start: {fault}"));
                self.effects.clear();
                self.schedule.push(now_ns + START_AGAIN_NS, Event::Start { node: id });
                return;
            }
            Ok(Err(error)) => {
                let message = format!("{id} refuses to start: {error}");
                return self.fail(Class::Safety, Broken { checker: "recovery", message });
            }
            Ok(Ok(driver)) => driver,
        };
        let torn = driver.node().recovered_torn_tail();
        let judged = self
            .safety
            .recovered(id, driver.node())
            .and_then(|()| self.safety.queued(id, &kept.queued))
            .and_then(|()| kept.applied.iter().try_for_each(|a| self.safety.applied(id, a)));
        let deadline = driver.deadline();
        self.slots[id.0 as usize].as_mut().expect("it was just started").driver =
            Some(Box::new(driver));
        if let Err(broken) = judged {
            return self.fail(Class::Safety, broken);
        }
        if torn {
            self.reach("torn-tail-recovered");
        }
        self.after(id);
        self.carry_out(id);
        // Nodes do not tick in step.
        let stagger =
            Stream::new(plan.seed, Purpose::Clock, [id.0, life]).below(plan.cluster.tick_us * 1000);
        let at_ns = deadline.as_nanos() as u64 + stagger;
        self.schedule.push(at_ns, Event::Tick { node: id, life });
    }
}

fn config(plan: &crate::plan::Plan, id: NodeId, founder: bool, life: u64) -> Config {
    let cluster = &plan.cluster;
    let founders = if founder { plan.voters().collect() } else { Vec::new() };
    let mut config = Config::new(id, founders);
    if founder {
        config.founding_learners = plan.learners().collect();
    }
    config.seed = plan.seed;
    config.incarnation = life;
    config.tick = Duration::from_micros(cluster.tick_us);
    config.election_ticks = (cluster.election_ticks[0], cluster.election_ticks[1]);
    config.heartbeat_ticks = cluster.heartbeat_ticks;
    config.request_ticks = 300;
    config.read_retry_ticks = 20;
    config.snapshot_ticks = 100;
    config.max_pending = MAX_PENDING;
    config.max_inflight = 64;
    config.max_message_bytes = 64 << 10;
    config.max_answer_bytes = MAX_ANSWER_BYTES;
    config.snapshot_every = cluster.snapshot_every;
    config.keep_entries = cluster.keep_entries;
    config.chunk_bytes = cluster.chunk_bytes;
    config.segment_bytes = u64::from(cluster.segment_kib) << 10;
    config.sessions = cluster.sessions as usize;
    config
}

/// Whom an event happens to, if it cannot happen while that node is paused.
fn target(event: &Event) -> Option<NodeId> {
    match event {
        Event::Tick { node, .. }
        | Event::DiskStep { node, .. }
        | Event::Flush { node, .. }
        | Event::Fetched { node, .. }
        | Event::Ask { node, .. } => Some(*node),
        Event::Deliver { to, .. } | Event::DeliverFrame { to, .. } => Some(*to),
        _ => None,
    }
}

fn describe_op(op: &DiskOp) -> String {
    match op {
        DiskOp::Create { file, len } => format!("creates {file} with {len} bytes"),
        DiskOp::Write { file, offset, data } => {
            format!("writes {file} {offset}..{}", offset + data.len() as u64)
        }
        DiskOp::Sync { file } => format!("syncs {file}"),
        DiskOp::Rename { from, to } => format!("renames {from} to {to}"),
        DiskOp::Remove { file } => format!("removes {file}"),
        DiskOp::SyncDir => "syncs the directory".to_owned(),
    }
}
