//! One event: what it does to a node, and what the node then does to the simulation.

use std::time::Duration;

use stormkv::driver::Driver;
use stormkv::env::{Completion, DiskOp, DiskQueue, FileName};
use stormkv::node::{Role, Status};
use stormkv::types::{NodeId, Term};

use super::Simulation;
use super::event::{Event, EventKind, Target};
use super::node::{Batch, Judge};
use super::observe::{MessageId, Observation, text};
use crate::caught::{Panic, caught};
use crate::checker::{Broken, Check};
use crate::disk::Crash;
use crate::network::Rule;
use crate::outcome::Class;
use crate::plan::Delay;
use crate::port::{Effect, Port};
use crate::recording::Fate;
use crate::service::Service;

/// The free room on a disk is reported every so many ticks.
const REPORT_TICKS: u64 = 16;

impl<S: Service> Simulation<'_, S> {
    pub(super) fn handle(&mut self, event: Event) {
        self.observers.see(&Observation::Due(&event));
        let Some(node) = event.runs_on() else { return self.dispatch(event) };
        if let Some(slot) = self.cluster.get_mut(node).filter(|slot| slot.faults.is_paused()) {
            // What happens to a node that never goes on is as good as lost.
            if slot.faults.lost().is_none() {
                slot.faults.defer(event);
            } else {
                let id = event.message;
                self.observers.see(&Observation::Forgotten(id, Fate::Forgotten));
            }
            return self.observers.see(&Observation::Paused(node));
        }
        match self.queue_up(node, event) {
            Some(event) => self.dispatch_to_disk(event),
            None => self.observers.see(&Observation::Busy(node)),
        }
    }

    pub(super) fn dispatch(&mut self, event: Event) {
        self.observers.see(&Observation::Happens(&event));
        let Event { target, incarnation, message, kind } = event;
        match target {
            Target::Cluster => self.carry_out_for_cluster(kind),
            Target::Node(id) => self.carry_out_at_node(id, incarnation, message, kind),
            Target::Worker(lane) => match kind {
                EventKind::ClientTimer { token } => self.client_timer(lane, token),
                EventKind::ClientResponse { node, token, reply, connection } => {
                    self.told((lane, token), node, *reply, connection, message);
                }
                _ => unreachable!("no other event happens to a worker"),
            },
            Target::Client(number) => self.restart_client(number),
        }
    }

    fn carry_out_for_cluster(&mut self, kind: EventKind) {
        match kind {
            EventKind::FaultBegins(at) => self.strike(at),
            EventKind::FaultEnds(at) => self.mend(at),
            EventKind::Heal => self.heal(),
            // One that is left from the window before must not go on for ever.
            EventKind::CheckRest if self.healed_ns.is_none() => {}
            EventKind::CheckRest => self.look_for_stall(),
            _ => unreachable!("it happens to a node or a client"),
        }
    }

    fn carry_out_at_node(
        &mut self,
        id: NodeId,
        incarnation: Option<u64>,
        message: MessageId,
        kind: EventKind,
    ) {
        let is_void = incarnation.is_some_and(|incarnation| {
            self.cluster.get(id).is_none_or(|slot| slot.incarnation != incarnation)
        });
        match kind {
            EventKind::Tick { timer } => self.tick(id, is_void, timer),
            EventKind::Deliver { from, payload, connection } => {
                self.arrive((from, id), payload, connection, message);
            }
            EventKind::Unreachable { peer, disconnected } => {
                self.unreachable(id, is_void, peer, disconnected);
            }
            EventKind::ClientRequest { lane, token, request, connection } => {
                self.asked((lane, token), id, *request, connection, message);
            }
            EventKind::DiskStep { queue } => self.disk_step(id, is_void, queue),
            EventKind::ReadDone { ticket, file, offset, len } => {
                self.observers.see(&Observation::Read(id, file));
                let Some(slot) = self.cluster.get_mut(id).filter(|_| !is_void) else { return };
                let found = slot.disk.read(file, offset, len as usize);
                let completion = Completion::Fetched(ticket, found);
                self.with(id, |driver| driver.complete(completion));
            }
            EventKind::WorkDone { ticket, work } => {
                self.observers.see(&Observation::Worked(id, &work));
                let Some(slot) = self.cluster.get_mut(id).filter(|_| !is_void) else { return };
                let disk = &mut slot.disk;
                match caught(|| work.run(disk)) {
                    Ok(product) => {
                        let completion = Completion::Worked(ticket, Ok(product));
                        self.with(id, |driver| driver.complete(completion));
                    }
                    Err(panic) => self.panicked(id, &panic),
                }
            }
            EventKind::Flush => self.flush_due(id, is_void),
            EventKind::Complete { .. } if is_void => {}
            EventKind::Complete { completion } => {
                self.with(id, |driver| driver.complete(*completion));
            }
            EventKind::Serve => self.serve(id),
            EventKind::CrashAgain if is_void => {}
            EventKind::CrashAgain => self.crash_again(id),
            EventKind::Start => self.start(id),
            _ => unreachable!("it happens to a client or to the whole cluster"),
        }
    }

    fn tick(&mut self, node: NodeId, is_void: bool, timer: u64) {
        self.observers.see(&Observation::Tick(node));
        let now_ns = self.kernel.now_ns();
        let is_bounded = self.plan.disk.size_kib > 0;
        let Some(slot) = self.cluster.get_mut(node) else { return };
        if !is_void && slot.timer == timer {
            let now = Duration::from_nanos(slot.clock.at(now_ns));
            // As a host of production: now and then.
            let reports = is_bounded && timer.is_multiple_of(REPORT_TICKS);
            let free = slot.disk.free();
            self.with(node, |driver| {
                if reports {
                    driver.report_free(free);
                }
                driver.wake(now);
            });
            self.set_timer(node);
        }
    }

    /// Gives an input to a node, if it is up. The node acts on it at once, or
    /// when the time is up in which inputs are collected.
    pub(super) fn with(&mut self, id: NodeId, input: impl FnOnce(&mut Driver<S::Machine>)) {
        let batch_ns = self.plan.cluster.batch_us * 1000;
        let at_ns = self.kernel.now_ns() + batch_ns;
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let Some(driver) = &mut slot.driver else { return };
        if let Err(panic) = caught(|| input(driver)) {
            self.panicked(id, &panic);
        } else if batch_ns == 0 {
            self.flush(id);
        } else if !std::mem::replace(&mut slot.collecting, true) {
            let incarnation = slot.incarnation;
            self.kernel.at(at_ns, Event::incarnation(id, incarnation, EventKind::Flush));
        }
    }

    fn flush_due(&mut self, node: NodeId, is_void: bool) {
        self.observers.see(&Observation::Flush(node));
        if let Some(slot) = self.cluster.get_mut(node).filter(|_| !is_void) {
            slot.collecting = false;
            self.flush(node);
        }
    }

    /// Lets a node act on its inputs, and carries out what it wants.
    fn flush(&mut self, id: NodeId) {
        let now_ns = self.kernel.now_ns();
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let Some(mut driver) = slot.driver.take() else { return };
        let before = driver.node().status();
        // One that was stopped by an input acts on none: what it was told, it does not believe yet.
        let acts = driver.node().stopped().is_none();
        let safety = &mut self.safety;
        let watch = Judge { id, safety, broken: None, applied: None, wrote: false, starting: None };
        let (disk, effects) = (&mut slot.disk, &mut self.effects);
        let mut port = Port { now_ns: slot.clock.at(now_ns), disk, effects, watch };
        let caught = caught(|| driver.flush(&mut port));
        let Judge { broken, applied, wrote, .. } = port.watch;
        if wrote {
            self.observers.see(&Observation::Wrote(id));
        }
        if let Some(applied) = applied {
            self.observers.see(&Observation::Applied(applied.digest));
        }
        if let Err(panic) = caught {
            self.observers.see(&Observation::Left(id, &before));
            self.panicked(id, &panic);
            return;
        }
        let status = driver.node().status();
        let Status { last, applied: now, .. } = status;
        slot.driver = Some(driver);
        if let Some(inbox) = &mut slot.inbox {
            inbox.processed(now_ns, self.effects.iter().map(Effect::bytes).sum());
        }
        if let (Some(inbox), Some(applied)) = (&mut slot.inbox, applied) {
            let entries = if applied.by_snapshot { 1 } else { now.index - before.applied.index };
            inbox.applied(now_ns, entries);
        }
        if let Some(broken) = broken {
            self.fail(Class::Safety, broken);
            return;
        }
        if applied.is_some_and(|applied| applied.by_snapshot) {
            self.reach("snapshot-installed");
            let campaigning = |role| matches!(role, Role::Candidate | Role::PreCandidate);
            if self.cluster.roles().any(|(_, role, _)| campaigning(role)) {
                self.reach("snapshot-during-election");
            }
        }
        // Of its own term and after its first entry: nothing else makes a leader's log longer.
        let led = self.cluster.role(id) == (Role::Leader, last.term);
        if led && last.index > before.last.index + 1 {
            self.reach("proposals-batched");
        }
        if led && last.index > before.last.index {
            self.judge_changes(id, before.last.index);
        }
        if acts {
            self.after(id, status);
            let by_snapshot = applied.is_some_and(|applied| applied.by_snapshot);
            self.show_applied(id, before.applied.index, by_snapshot);
        }
        self.carry_out(id);
        self.consider_stop(id);
        self.flush_again(id);
    }

    /// A node that had too much to do for one flush gets another one, but what has happened
    /// meanwhile comes first.
    fn flush_again(&mut self, id: NodeId) {
        let at_ns = self.kernel.now_ns() + 1;
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let has_work = slot.driver.as_ref().is_some_and(|driver| driver.has_work());
        if has_work && !std::mem::replace(&mut slot.collecting, true) {
            let incarnation = slot.incarnation;
            self.kernel.at(at_ns, Event::incarnation(id, incarnation, EventKind::Flush));
            self.reach("answers-put-off");
        }
    }

    pub(super) fn panicked(&mut self, id: NodeId, panic: &Panic) {
        let (role, term) = self.cluster.role(id);
        let role = text::role(role);
        let message = format!(
            "{id}, {role} in term {term}, panicked: {} (at {})",
            panic.message, panic.place
        );
        self.observers.see(&Observation::Panicked(id, &panic.message));
        self.fail(Class::Safety, Broken::new(Check::Panic, message).at(id));
    }

    /// Lets the checkers compare the node, which has this status now, with what it was before.
    pub(super) fn after(&mut self, id: NodeId, status: Status) {
        if let Some(before) = self.cluster.note_applied(id, status.applied.index) {
            self.note_promises(&before);
            self.note_new_voters(&before);
            self.snapshot_rate.changed();
        }
        let slot = self.cluster.get(id).expect("it has just been used");
        let driver = slot.driver.as_ref().expect("it has just been used");
        // One that has stopped may have heard of a commit whose entry it will never write down.
        let heard_only =
            driver.node().stopped().is_some() && status.hard_state.commit > status.last.index;
        let mut committed = None;
        if !heard_only {
            match self.safety.after(id, driver.node(), status) {
                Ok(fresh) => {
                    committed = Some(fresh.clone());
                    self.observers.see(&Observation::Committed(fresh.clone()));
                    self.show_committed(fresh);
                }
                Err(broken) => return self.fail(Class::Safety, broken),
            }
        }
        if let Err(broken) = self.judge_invariant(id, &status) {
            return self.fail(Class::Safety, broken);
        }
        let slot = self.cluster.get(id).expect("it has just been used");
        let driver = slot.driver.as_ref().expect("it has just been used");
        if driver.node().stopped().is_none() {
            let load = driver.node().load();
            if load.proposals + load.forwards + load.reads > 0 {
                self.safety.count(Check::Bounds, 1);
            }
            if let Err(broken) = self.bounds.node(id, &load, &status, driver.waiting()) {
                self.fail(Class::Safety, broken);
            }
        }
        self.note_commits(committed);
        let now = (status.role, status.hard_state.term);
        let before = self.cluster.set_role(id, now);
        if before.0 != now.0 {
            self.observers.see(&Observation::RoleChanged(id, now.0, now.1));
            match (before.0, now.0) {
                (_, Role::Leader) => self.elected(id, now.1),
                (Role::Leader, _) => self.reach("leader-deposed"),
                _ => {}
            }
        }
        self.watch_space(id);
        self.watch_damage(id);
        self.observers.see(&Observation::Acted(&status));
        self.portray();
    }

    /// Notes what a disk that fills up makes a node do.
    fn watch_space(&mut self, id: NodeId) {
        if self.plan.disk.size_kib == 0 {
            return;
        }
        let slot = self.cluster.get_mut(id).expect("it has just been used");
        let space = slot.driver.as_ref().expect("it has just been used").node().disk_space();
        let before = std::mem::replace(&mut slot.disk_state.space, space);
        if space.misfits > before.misfits {
            self.reach("snapshot-did-not-fit");
        }
        if before.is_short && !space.is_short && self.healed_ns.is_none() {
            self.reach("disk-full-recovered");
        }
    }

    fn elected(&mut self, id: NodeId, term: Term) {
        self.reach("leader-elected");
        self.note_displaced(id);
        if self.network.suffers(|rule| matches!(rule, Rule::Ring { .. })) {
            self.reach("leader-elected-in-a-ring");
        }
        // The heir campaigns in the term after the one in which it was told to.
        let is_heir = self.handed_over.take_if(|heir| *heir == (id, term)).is_some();
        if is_heir && self.clients.have_commands_open(self.plan) {
            self.reach("transferred-under-load");
        }
    }

    /// Carries out what the node wants, up to the point where a fault cuts it off.
    pub(super) fn carry_out(&mut self, id: NodeId) {
        if self.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let cut = self.cluster.get(id).and_then(|slot| slot.faults.cut_off(effects.len()));
        let keep = cut.map_or(effects.len(), |(count, _)| count);
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
                self.observers.see(&Observation::Replied(&reply));
                self.reply(id, request, reply);
            }
            Effect::Submit(queue, ticket, ops) => {
                let batch =
                    &mut self.cluster.get_mut(id).expect("it submits").batches[queue as usize];
                assert!(batch.is_none(), "a driver submits one batch at a time to a queue");
                *batch = Some(Batch { ticket, ops: ops.into() });
                self.schedule_disk_step(id, queue);
            }
            Effect::Work(ticket, work) => {
                let (now_ns, disk) = (self.kernel.now_ns(), &self.plan.disk);
                let us_per_kib = self.plan.cpu.work_us_per_kib;
                let slot = self.cluster.get_mut(id).expect("it hands out work");
                let incarnation = slot.incarnation;
                let read_ns = match work.reads() {
                    0 => now_ns,
                    bytes => slot.disk_ends(now_ns, disk.read, bytes, disk.kib_per_s),
                };
                let ends_ns = read_ns + work.bytes() * us_per_kib * 1000 / 1024;
                let event = Event::incarnation(
                    id,
                    incarnation,
                    EventKind::WorkDone { ticket, work: Box::new(work) },
                );
                self.kernel.at(ends_ns, event);
            }
            Effect::Fetch(ticket, file, offset, len) => {
                let (now_ns, disk) = (self.kernel.now_ns(), &self.plan.disk);
                let slot = self.cluster.get_mut(id).expect("it fetches");
                let incarnation = slot.incarnation;
                let ends_ns = slot.disk_ends(now_ns, disk.read, len.into(), disk.kib_per_s);
                let event = Event::incarnation(
                    id,
                    incarnation,
                    EventKind::ReadDone { ticket, file, offset, len },
                );
                self.kernel.at(ends_ns, event);
            }
        }
    }

    // ---- the disk ----

    fn schedule_disk_step(&mut self, id: NodeId, queue: DiskQueue) {
        let (now_ns, disk) = (self.kernel.now_ns(), &self.plan.disk);
        let slot = self.cluster.get_mut(id).expect("it has a disk");
        let Some(batch) = &slot.batches[queue as usize] else { return };
        // A write fills the page cache, and a segment is made in advance by the host: only a sync
        // waits for the device.
        let (delay, bytes) = match batch.ops.front() {
            Some(DiskOp::Sync { file }) => (disk.sync, slot.disk.unsynced_bytes(*file)),
            Some(DiskOp::SyncDir) => (disk.sync, 0),
            Some(_) => (disk.write, 0),
            None => (Delay::default(), 0),
        };
        let ends_ns = slot.disk_ends(now_ns, delay, bytes, disk.kib_per_s);
        let incarnation = slot.incarnation;
        self.kernel.at(ends_ns, Event::incarnation(id, incarnation, EventKind::DiskStep { queue }));
    }

    fn disk_step(&mut self, id: NodeId, is_void: bool, queue: DiskQueue) {
        self.observers.see(&Observation::DiskStep(id));
        let Some(slot) = self.cluster.get_mut(id).filter(|slot| !is_void && slot.is_up()) else {
            self.observers.see(&Observation::DiskBatchGone(id));
            return;
        };
        if let Some(fault) = slot.faults.crash_before_disk_op() {
            self.reach("crash-between-disk-operations");
            self.observers.see(&Observation::CrashBeforeDiskOp(id));
            self.crash(id, Crash::PowerLoss, fault);
            return;
        }
        if self.loses_names(id, queue) {
            return;
        }
        let slot = self.cluster.get_mut(id).expect("it is up");
        let batch = slot.batches[queue as usize].as_mut().expect("a step belongs to a batch");
        let ticket = batch.ticket;
        let Some(op) = batch.ops.pop_front() else {
            slot.batches[queue as usize] = None;
            self.observers.see(&Observation::DiskBatchEmpty(id));
            return self.completed(id, Completion::Done(queue, ticket, Ok(())));
        };
        let result = slot.disk.execute(&op);
        let is_last = batch.ops.is_empty();
        self.observers.see(&Observation::DiskOp(id, &op, result.as_ref().copied()));
        match result {
            Ok(()) => {
                self.safety.executed(id, &op);
                self.watch_snapshots(id, &op);
                if !matches!(op, DiskOp::Write { .. } | DiskOp::Sync { .. } | DiskOp::SyncDir) {
                    self.weigh_disk(id);
                }
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
                    self.cluster.get_mut(id).expect("just used").batches[queue as usize] = None;
                    self.completed(id, Completion::Done(queue, ticket, Ok(())));
                } else {
                    self.schedule_disk_step(id, queue);
                }
            }
            Err(error) => {
                match &op {
                    DiskOp::SyncDir => self.reach("directory-sync-failed"),
                    DiskOp::Rename { .. } => self.reach("snapshot-operation-failed"),
                    DiskOp::Create { file, .. }
                    | DiskOp::Write { file, .. }
                    | DiskOp::Sync { file }
                    | DiskOp::Remove { file } => match file {
                        FileName::Segment(_) => {}
                        _ => self.reach("snapshot-operation-failed"),
                    },
                }
                // A failed write may have written all of it.
                if matches!(op, DiskOp::Write { file: FileName::Segment(_), .. }) {
                    self.safety.executed(id, &op);
                }
                let slot = self.cluster.get_mut(id).expect("just used");
                slot.disk_state.has_failed = true;
                slot.batches[queue as usize] = None;
                self.completed(id, Completion::Done(queue, ticket, Err(error)));
            }
        }
    }

    /// Counts the snapshots that a node saves, and what it writes to its log. On a disk that is short of
    /// room they are tried again and again, and a rotten one is replaced.
    fn watch_snapshots(&mut self, id: NodeId, op: &DiskOp) {
        match op {
            DiskOp::Write { file: FileName::Segment(_), data, .. } => {
                self.snapshot_rate.logged(id, data.len() as u64);
            }
            DiskOp::Create { file: FileName::Partial(index, _), .. } => {
                let applied = self.cluster.node(id).map_or(0, |node| node.status().applied.index);
                // What is received is ahead of the own state.
                let is_own = *index <= applied;
                if is_own && self.plan.disk.size_kib == 0 && !self.atlas.is_damaged(id) {
                    self.safety.count(Check::SnapshotRate, 1);
                    if let Err(broken) = self.snapshot_rate.saves(id, applied) {
                        self.fail(Class::Safety, broken.at(id));
                    }
                }
            }
            _ => {}
        }
    }

    /// A node's directory has changed: it may hold so much, and no more.
    fn weigh_disk(&mut self, id: NodeId) {
        let slot = self.cluster.get(id).expect("it has a disk");
        let (files, bytes) = (slot.disk.files(), slot.disk.bytes_used());
        if let Err(broken) = self.bounds.disk(id, files, bytes) {
            self.fail(Class::Safety, broken);
        }
    }
}
