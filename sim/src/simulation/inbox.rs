//! A node that takes time: what arrives while it is busy waits, and is taken one after the other.
//!
//! Where the plan gives the processors no weight, a healthy node takes no time to think. Otherwise it
//! takes a time for each input, and for each byte that it writes, sends or answers; a fault adds to
//! that a time for each input, or for each entry that it applies. What it wants of the simulation after
//! an input leaves at once, and the next input waits instead: its peers cannot tell the difference.

use std::collections::VecDeque;

use stormkv::env::Completion;
use stormkv::types::NodeId;

use super::observe::Observation;
use super::{Event, EventKind, Simulation};
use crate::plan::Cpu;
use crate::recording::Fate;
use crate::service::Service;

/// Inputs that wait. Far fewer than in production, so that an inbox is full now and then: then
/// messages and requests are lost, as they are by a peer whose queue for this node is full.
const MAX_WAITING: usize = 128;
/// So many inputs are a backlog.
const BACKLOG: usize = 20;

/// How slow a node is, and what waits for it.
#[derive(Default)]
pub(super) struct Inbox {
    /// For each input.
    pub input_ns: u64,
    /// For each entry that is applied.
    pub apply_ns: u64,
    /// For each KiB that it writes, sends or answers.
    kib_ns: u64,
    /// For each input, when no fault slows it down.
    usual_input_ns: u64,
    busy_until_ns: u64,
    waiting: VecDeque<Event>,
    /// When the next one is taken.
    serve_ns: Option<u64>,
}

impl Inbox {
    /// That of a healthy node; `None` if it takes no time.
    pub fn of(cpu: &Cpu) -> Option<Box<Inbox>> {
        let (input_ns, kib_ns) = (cpu.input_us * 1000, cpu.us_per_kib * 1000);
        let inbox = Inbox { input_ns, kib_ns, usual_input_ns: input_ns, ..Inbox::default() };
        (input_ns + kib_ns > 0).then(|| Box::new(inbox))
    }

    /// Whether a fault slows the node down.
    pub fn is_slowed(&self) -> bool {
        self.input_ns > self.usual_input_ns || self.apply_ns > 0
    }

    /// The node has written, sent and answered so many bytes.
    pub fn processed(&mut self, now_ns: u64, bytes: u64) {
        if self.kib_ns > 0 && bytes > 0 {
            self.busy_until_ns = self.busy_until_ns.max(now_ns) + bytes * self.kib_ns / 1024;
        }
    }

    /// The node is gone, and with it what waited.
    pub fn clear(&mut self) {
        self.waiting.clear();
        (self.busy_until_ns, self.serve_ns) = (0, None);
    }

    /// What waits.
    pub fn waiting(&self) -> impl Iterator<Item = &Event> {
        self.waiting.iter()
    }

    /// The node has applied so many entries.
    pub fn applied(&mut self, now_ns: u64, entries: u64) {
        self.busy_until_ns = self.busy_until_ns.max(now_ns) + entries * self.apply_ns;
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Lets an event wait if its node is slow and busy; otherwise gives it back.
    pub(super) fn queue_up(&mut self, id: NodeId, event: Event) -> Option<Event> {
        let now_ns = self.kernel.now_ns();
        let Some(inbox) = self.cluster.get_mut(id).and_then(|slot| slot.inbox.as_mut()) else {
            return Some(event);
        };
        // The disk and the inbox itself do not wait for the node.
        if !event.is_input() {
            return Some(event);
        }
        if inbox.waiting.is_empty() && inbox.busy_until_ns <= now_ns {
            inbox.busy_until_ns = now_ns + inbox.input_ns;
            return Some(event);
        }
        if event.may_be_lost() && inbox.waiting.len() >= MAX_WAITING {
            self.reach("inbox-full");
            self.observers.see(&Observation::Forgotten(event.message, Fate::InboxFull));
            return None;
        }
        inbox.waiting.push_back(event);
        if inbox.waiting.len() == BACKLOG {
            self.reach("inbox-backlog");
        }
        self.serve_later(id);
        None
    }

    /// Schedules the moment when the node takes the next input.
    fn serve_later(&mut self, id: NodeId) {
        let now_ns = self.kernel.now_ns();
        let Some(inbox) = self.cluster.get_mut(id).and_then(|slot| slot.inbox.as_mut()) else {
            return;
        };
        if inbox.serve_ns.is_some() || inbox.waiting.is_empty() {
            return;
        }
        let at_ns = inbox.busy_until_ns.max(now_ns);
        inbox.serve_ns = Some(at_ns);
        self.kernel.at(at_ns, Event::node(id, EventKind::Serve));
    }

    /// The node takes the next input, if this is the moment that was set.
    pub(super) fn serve(&mut self, id: NodeId) {
        let now_ns = self.kernel.now_ns();
        let Some(inbox) = self.cluster.get_mut(id).and_then(|slot| slot.inbox.as_mut()) else {
            return;
        };
        if inbox.serve_ns.is_none_or(|at_ns| now_ns < at_ns) {
            return;
        }
        inbox.serve_ns = None;
        if inbox.busy_until_ns <= now_ns
            && let Some(event) = inbox.waiting.pop_front()
        {
            inbox.busy_until_ns = now_ns + inbox.input_ns;
            self.observers.see(&Observation::Taken(id, &event));
            self.dispatch_to_disk(event);
        }
        self.serve_later(id);
    }

    /// The disk has done a batch: an input like others for a slow node.
    pub(super) fn completed(&mut self, id: NodeId, completion: Completion) {
        if let Some(slot) = self.cluster.get_mut(id).filter(|slot| slot.inbox.is_some()) {
            let incarnation = slot.incarnation;
            let completion = Box::new(completion);
            self.kernel
                .after(0, Event::incarnation(id, incarnation, EventKind::Complete { completion }));
        } else {
            self.with(id, |driver| driver.complete(completion));
        }
    }

    /// The node takes so long from now on, for each input and for each entry that it applies.
    pub(super) fn slow_down(&mut self, id: NodeId, input_ns: u64, apply_ns: u64) {
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let inbox = slot.inbox.get_or_insert_default();
        inbox.input_ns = inbox.input_ns.max(input_ns);
        inbox.apply_ns = inbox.apply_ns.max(apply_ns);
    }

    /// The node is as fast as usual again: what waits arrives anew.
    pub(super) fn speed_up(&mut self, id: NodeId) {
        let usual = Inbox::of(&self.plan.cpu);
        let Some(slot) = self.cluster.get_mut(id) else { return };
        let Some(inbox) = std::mem::replace(&mut slot.inbox, usual) else { return };
        for event in inbox.waiting {
            self.kernel.after(0, event);
        }
    }
}
