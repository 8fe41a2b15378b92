//! One event: what it does to a node, and what the node then does to the simulation.

use std::time::Duration;

use stormkv::driver::Driver;
use stormkv::env::{Completion, DiskOp, DiskQueue, FileName};
use stormkv::node::{Role, Status};
use stormkv::types::{LogIndex, NodeId, Term};
use stormkv::wire::Message;

use super::failure::Weight;
use super::node::{Batch, Judge};
use super::trace::reply_code;
use super::{Event, Simulation, failure, recorder, stall};
use crate::caught::{Panic, caught};
use crate::checker::{Broken, Check};
use crate::disk::Crash;
use crate::network::Rule;
use crate::outcome::Class;
use crate::plan::Delay;
use crate::port::{Effect, Port};
use crate::service::Service;
use crate::view::recording::{Fate, MarkKind};

/// The free room on a disk is reported every so many ticks.
const REPORT_TICKS: u64 = 16;

impl<S: Service> Simulation<'_, S> {
    pub(super) fn handle(&mut self, event: Event) {
        self.trace.turn_to(failure::owner(&event), failure::weight(&event));
        self.film_event(&event, false);
        let Some(node) = target(&event) else { return self.dispatch(event) };
        if let Some(slot) = self.slot(node) {
            if slot.paused {
                // What happens to a node that never goes on is as good as lost.
                if slot.lost.is_none() {
                    slot.deferred.push(event);
                } else {
                    let mail = recorder::mail(&event);
                    self.trace.film(|recorder| recorder.ends(mail, Fate::Forgotten, false));
                }
                self.trace.turn_to(None, Weight::Mere);
                self.trace.line(self.now_ns, || format!("{node} is paused: it may happen later"));
                return;
            }
            if slot.inbox.is_some() {
                let Some(event) = self.queue_up(node, event) else {
                    self.trace.turn_to(None, Weight::Mere);
                    self.trace.line(self.now_ns, || format!("{node} is busy"));
                    return;
                };
                return self.dispatch_to_disk(event);
            }
        }
        self.dispatch_to_disk(event);
    }

    /// Carries out an event, unless it needs a disk that hangs.
    pub(super) fn dispatch_to_disk(&mut self, event: Event) {
        if let Some(event) = self.waits_for_disk(event) {
            self.dispatch(event);
        }
    }

    pub(super) fn dispatch(&mut self, event: Event) {
        self.film_event(&event, true);
        match event {
            Event::Tick { node, life, timer } => self.tick(node, life, timer),
            Event::Deliver { from, to, message, connection, mail } => {
                self.deliver((from, to), *message, connection, mail);
            }
            Event::DeliverFrame { from, to, frame, connection, mail } => {
                let message = Message::decode(&frame).expect("this frame is not damaged");
                self.deliver((from, to), message, connection, mail);
            }
            Event::DeliverGarbled { from, to, message, draw, connection, mail } => {
                self.deliver_garbled((from, to), *message, draw, connection, mail);
            }
            Event::Unreachable { node, life, peer, disconnected } => {
                self.unreachable(node, life, peer, disconnected);
            }
            Event::Ask { client, token, node, request, connection, mail } => {
                self.asked((client, token), node, *request, connection, mail);
            }
            Event::Tell { client, token, node, reply, connection, mail } => {
                self.told((client, token), node, *reply, connection, mail);
            }
            Event::Client { client, token } => self.client_timer(client, token),
            Event::Restart { client } => self.restart_client(client),
            Event::DiskStep { node, life, queue } => self.disk_step(node, life, queue),
            Event::Fetched { node, life, ticket, file, offset, len } => {
                self.trace.mix(7 ^ node.0 << 8);
                self.trace.line(self.now_ns, || format!("{node} has read {file}"));
                let Some(slot) = self.slot(node).filter(|slot| slot.life == life) else { return };
                let found = slot.disk.read(file, offset, len as usize);
                let completion = Completion::Fetched(ticket, found);
                self.with(node, Some(life), |driver| driver.complete(completion));
            }
            Event::Worked { node, life, ticket, work } => {
                self.trace.mix(15 ^ node.0 << 8);
                self.trace
                    .line(self.now_ns, || format!("{node} has done work beside it: {work:?}"));
                let Some(slot) = self.slot(node).filter(|slot| slot.life == life) else { return };
                let disk = &mut slot.disk;
                match caught(|| work.run(disk)) {
                    Ok(product) => {
                        let completion = Completion::Worked(ticket, Ok(product));
                        self.with(node, Some(life), |driver| driver.complete(completion));
                    }
                    Err(panic) => self.panicked(node, &panic),
                }
            }
            Event::Flush { node, life } => self.flush_due(node, life),
            Event::Complete { node, life, completion } => {
                self.with(node, Some(life), |driver| driver.complete(*completion));
            }
            Event::Serve { node } => self.serve(node),
            Event::CrashAgain { node, life } => self.crash_again(node, life),
            Event::Fault(at) => self.strike(at),
            Event::Mend(at) => self.mend(at),
            Event::Start { node } => self.start(node),
            Event::Heal => self.heal(),
            // One that is left from the window before must not go on for ever.
            Event::Rest if self.healed_ns.is_none() => {}
            Event::Rest => self.look_for_stall(),
        }
    }

    fn tick(&mut self, node: NodeId, life: u64, timer: u64) {
        self.trace.mix(1 ^ node.0 << 8);
        self.trace.line(self.now_ns, || format!("{node} ticks"));
        let now_ns = self.now_ns;
        let is_bounded = self.plan.disk.size_kib > 0;
        let Some(slot) = self.slot(node) else { return };
        if (slot.life, slot.timer) == (life, timer) {
            let now = Duration::from_nanos(slot.clock.at(now_ns));
            // As a host of production: now and then.
            let reports = is_bounded && timer.is_multiple_of(REPORT_TICKS);
            let free = slot.disk.free();
            self.with(node, Some(life), |driver| {
                if reports {
                    driver.report_free(free);
                }
                driver.wake(now);
            });
            self.set_timer(node);
        }
    }

    /// Gives an input to a node, if it is up (and in this life). The node acts on it at once, or
    /// when the time is up in which inputs are collected.
    pub(super) fn with(
        &mut self,
        id: NodeId,
        life: Option<u64>,
        input: impl FnOnce(&mut Driver<S::Machine>),
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
        // One that was stopped by an input acts on none: what it was told, it does not believe yet.
        let acts = driver.node().stopped().is_none();
        let safety = &mut self.safety;
        let watch = Judge { id, safety, broken: None, applied: None, wrote: false, starting: None };
        let (disk, effects) = (&mut slot.disk, &mut self.effects);
        let mut port = Port { now_ns: slot.clock.at(now_ns), disk, effects, watch };
        let caught = caught(|| driver.flush(&mut port));
        let Judge { broken, applied, wrote, .. } = port.watch;
        if wrote {
            self.trace.film(|recorder| recorder.wrote(id));
        }
        if let Some(applied) = applied {
            self.trace.mix(applied.digest);
        }
        if let Err(panic) = caught {
            self.trace.leaves(id, before);
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
            if self.roles.iter().any(|(role, _)| campaigning(*role)) {
                self.reach("snapshot-during-election");
            }
        }
        // Of its own term and after its first entry: nothing else makes a leader's log longer.
        let led = self.roles[id.0 as usize] == (Role::Leader, last.term);
        if led && last.index > before.last.index + 1 {
            self.reach("proposals-batched");
        }
        if led && last.index > before.last.index {
            self.judge_changes(id, before.last.index);
        }
        if acts {
            self.after(id, status);
        }
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

    pub(super) fn panicked(&mut self, id: NodeId, panic: &Panic) {
        let (role, term) = self.roles[id.0 as usize];
        let role = stall::role(role);
        let message = format!(
            "{id}, {role} in term {term}, panicked: {} (at {})",
            panic.message, panic.place
        );
        self.trace.note(self.now_ns, id, || format!("{id} panics"));
        self.trace.film(|recorder| recorder.mark(Some(id), MarkKind::Panic, &panic.message));
        self.fail(Class::Safety, Broken::new("panic", message).at(id));
    }

    /// Notes the newest membership that any node has applied.
    fn note_newest(&mut self, id: NodeId, applied: LogIndex) {
        if applied <= self.newest.0 {
            return;
        }
        self.newest.0 = applied;
        let slot = self.slots[id.0 as usize].as_ref().expect("it has just been used");
        let node = slot.driver.as_ref().expect("it has just been used").node();
        if self.newest.1 != *node.membership() {
            let now = node.membership().clone();
            let before = std::mem::replace(&mut self.newest.1, now);
            self.past.note(applied, &self.newest.1);
            self.note_promises(&before);
            self.note_new_voters(&before);
            self.snapshot_rate.changed();
        }
    }

    /// Lets the checkers compare the node, which has this status now, with what it was before.
    pub(super) fn after(&mut self, id: NodeId, status: Status) {
        self.note_newest(id, status.applied.index);
        let slot = self.slots[id.0 as usize].as_ref().expect("it has just been used");
        let driver = slot.driver.as_ref().expect("it has just been used");
        // One that has stopped may have heard of a commit whose entry it will never write down.
        let heard_only =
            driver.node().stopped().is_some() && status.hard_state.commit > status.last.index;
        let mut committed = None;
        if !heard_only {
            match self.safety.after(id, driver.node(), status) {
                Ok(fresh) => {
                    committed = Some(fresh.clone());
                    self.trace.film(|recorder| recorder.commits(fresh));
                }
                Err(broken) => return self.fail(Class::Safety, broken),
            }
        }
        if let Some(invariant) = S::INVARIANT
            && let Err(how) = invariant(driver.node().machine())
        {
            let message = format!("{id} {how}, as of entry {}", status.applied.index);
            return self.fail(Class::Safety, Broken::new("invariant", message).at(id));
        }
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
        let before = std::mem::replace(&mut self.roles[id.0 as usize], now);
        if before.0 != now.0 {
            let (role, term) = (stall::role(now.0), now.1);
            self.trace.note(self.now_ns, id, || format!("{id} becomes {role} in term {term}"));
            match (before.0, now.0) {
                (_, Role::Leader) => self.elected(id, now.1),
                (Role::Leader, _) => self.reach("leader-deposed"),
                _ => {}
            }
        }
        self.watch_space(id);
        self.watch_damage(id);
        self.trace.mix(status.hard_state.term << 32 ^ status.hard_state.commit);
        self.trace.mix(status.last.index << 8 ^ status.role as u64);
        self.portray();
    }

    /// Notes what a disk that fills up makes a node do.
    fn watch_space(&mut self, id: NodeId) {
        if self.plan.disk.size_kib == 0 {
            return;
        }
        let slot = self.slots[id.0 as usize].as_mut().expect("it has just been used");
        let space = slot.driver.as_ref().expect("it has just been used").node().disk_space();
        let before = std::mem::replace(&mut slot.space, space);
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
            Effect::Submit(queue, ticket, ops) => {
                let batch = &mut self.slot(id).expect("it submits").batches[queue as usize];
                assert!(batch.is_none(), "a driver submits one batch at a time to a queue");
                *batch = Some(Batch { ticket, ops: ops.into() });
                self.schedule_disk_step(id, queue);
            }
            Effect::Work(ticket, work) => {
                let (now_ns, disk) = (self.now_ns, &self.plan.disk);
                let us_per_kib = self.plan.cpu.work_us_per_kib;
                let slot = self.slot(id).expect("it hands out work");
                let life = slot.life;
                let read_ns = match work.reads() {
                    0 => now_ns,
                    bytes => slot.disk_ends(now_ns, disk.read, bytes, disk.kib_per_s),
                };
                let ends_ns = read_ns + work.bytes() * us_per_kib * 1000 / 1024;
                let event = Event::Worked { node: id, life, ticket, work: Box::new(work) };
                self.schedule.push(ends_ns, event);
            }
            Effect::Fetch(ticket, file, offset, len) => {
                let (now_ns, disk) = (self.now_ns, &self.plan.disk);
                let slot = self.slot(id).expect("it fetches");
                let life = slot.life;
                let ends_ns = slot.disk_ends(now_ns, disk.read, len.into(), disk.kib_per_s);
                let event = Event::Fetched { node: id, life, ticket, file, offset, len };
                self.schedule.push(ends_ns, event);
            }
        }
    }

    // ---- the disk ----

    fn schedule_disk_step(&mut self, id: NodeId, queue: DiskQueue) {
        let (now_ns, disk) = (self.now_ns, &self.plan.disk);
        let slot = self.slot(id).expect("it has a disk");
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
        let life = slot.life;
        self.schedule.push(ends_ns, Event::DiskStep { node: id, life, queue });
    }

    fn disk_step(&mut self, id: NodeId, life: u64, queue: DiskQueue) {
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
        if self.loses_names(id, queue) {
            return;
        }
        let slot = self.slot(id).expect("it is up");
        let batch = slot.batches[queue as usize].as_mut().expect("a step belongs to a batch");
        let ticket = batch.ticket;
        let Some(op) = batch.ops.pop_front() else {
            slot.batches[queue as usize] = None;
            self.trace.line(self.now_ns, || format!("{id} disk has nothing to do"));
            return self.completed(id, life, Completion::Done(queue, ticket, Ok(())));
        };
        let result = slot.disk.execute(&op);
        let is_last = batch.ops.is_empty();
        self.trace.line(self.now_ns, || format!("{id} disk {}", describe_op(&op)));
        self.trace.film(|recorder| recorder.disk(id, &op, result.is_err()));
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
                    self.slot(id).expect("just used").batches[queue as usize] = None;
                    self.completed(id, life, Completion::Done(queue, ticket, Ok(())));
                } else {
                    self.schedule_disk_step(id, queue);
                }
            }
            Err(error) => {
                self.trace.note(self.now_ns, id, || format!("{id} disk fails: {error}"));
                self.trace.film(|recorder| {
                    recorder.mark(Some(id), MarkKind::DiskError, &error.to_string());
                });
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
                let slot = self.slot(id).expect("just used");
                slot.disk_failed = true;
                slot.batches[queue as usize] = None;
                self.completed(id, life, Completion::Done(queue, ticket, Err(error)));
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
                let applied = self.node(id).map_or(0, |node| node.status().applied.index);
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
        let slot = self.slots[id.0 as usize].as_ref().expect("it has a disk");
        let (files, bytes) = (slot.disk.files(), slot.disk.bytes_used());
        if let Err(broken) = self.bounds.disk(id, files, bytes) {
            self.fail(Class::Safety, broken);
        }
    }
}

/// Whom an event happens to, if it cannot happen while that node is paused.
pub(super) fn target(event: &Event) -> Option<NodeId> {
    match event {
        Event::Tick { node, .. }
        | Event::DiskStep { node, .. }
        | Event::Flush { node, .. }
        | Event::Complete { node, .. }
        | Event::Serve { node }
        | Event::Fetched { node, .. }
        | Event::Worked { node, .. }
        | Event::Unreachable { node, .. }
        | Event::Ask { node, .. } => Some(*node),
        Event::Deliver { to, .. }
        | Event::DeliverFrame { to, .. }
        | Event::DeliverGarbled { to, .. } => Some(*to),
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
