//! The simulation: one event after the other, in virtual time, on one thread.
//!
//! A run is a pure function of its plan. Nodes are the product's own drivers; network, disks and
//! clocks are simulated; every event feeds a rolling hash and passes the checkers. In the first
//! phase faults strike. Then the core, a quorum or more, is healed, and must answer everything that
//! is still open and agree within the plan's bound.
//!
//! - `node.rs` is a node's place: its disk, and who judges what it does,
//! - `event.rs` carries out one event and what comes of it, `life.rs` starts and stops nodes,
//! - `message.rs` has the messages between nodes, and the connections that they travel on,
//! - `availability.rs` demands service of a healthy quorum, `catch_up.rs` that members catch up,
//! - `links.rs` says how the plan sets up the network,
//! - `fault.rs` injects and mends faults, `atlas.rs` keeps damage within what can be repaired,
//! - `inbox.rs` is where inputs wait for a slow node,
//! - `client.rs` and `request.rs` are the clients, `answer.rs` judges what they are answered,
//! - `chance.rs` names the messages that chance has lost, doubled or delayed,
//! - `portrait.rs` is a coarse picture of the cluster, for a search for new behaviour,
//! - `soak.rs` strings windows of a long run together,
//! - `end.rs` heals, waits for agreement and judges the history,
//! - `displaced.rs` counts commands that are committed although a new leader lacked them,
//! - `core.rs` says who is healed in the end, and how the others are lost,
//! - `recovery.rs` waits until the core has recovered, and `stall.rs` says why it does not,
//! - `end.rs` compares the members and judges the history,
//! - `founding.rs` makes the backup that a cluster may be founded with,
//! - `fork.rs` lets a run go on in another way than it did,
//! - `goodput.rs` judges what is answered under too much load,
//! - `trace.rs` is the hash and the readable line, `recorder.rs` what a page about a failure needs,
//! - `recorder.rs` films a run for those who want to look at all of it.

mod answer;
mod atlas;
mod availability;
mod catch_up;
mod chance;
mod client;
mod core;
mod displaced;
mod end;
mod event;
mod failure;
mod fault;
mod fork;
mod founding;
mod goodput;
mod in_force;
mod inbox;
mod life;
mod links;
mod message;
mod node;
mod portrait;
mod prudence;
mod recorder;
mod recovery;
mod request;
mod soak;
mod stall;
mod survivors;
#[cfg(test)]
mod tests;
mod trace;
mod waypoints;

use std::collections::{BTreeMap, BTreeSet};

use stormkv::api::{Reply, Request};
use stormkv::env::{Completion, DiskQueue, FileName, Work};
use stormkv::node::{Membership, Role};
use stormkv::types::{LogIndex, NodeId, Term, Ticket};
use stormkv::wire::Message;

pub use self::client::action;
pub use self::failure::{
    Choice, FailureReport, Line, NodeRecord, Operation, Record, State, Struck,
};
pub use self::fork::Fork;
pub use self::portrait::Pictures;
pub use self::recorder::RecordingSink;
pub use self::soak::{Quarters, SoakProgress, Soaked, soak};
pub use self::trace::{Digest, Sink};
pub use self::waypoints::WAYPOINTS;

use self::atlas::Atlas;
use self::availability::Availability;
use self::catch_up::CatchUp;
use self::client::Clients;
use self::displaced::Displaced;
use self::failure::Weight;
use self::founding::Founding;
use self::in_force::Past;
use self::inbox::Inbox;
use self::links::{capacity, endpoint, network_config};
use self::node::SimNode;
use self::portrait::Portrait;
use self::recorder::MessageId;
use self::trace::Trace;
use crate::checker::{Bounds, Broken, Safety, SnapshotRate, checkers};
use crate::history::History;
use crate::network::{Connection, NetAction, NetRule, Network};
use crate::outcome::{Class, Outcome, Recovery, Skipped, Violation};
use crate::plan::{self, NetEffect, Plan, Wire};
use crate::port::Effect;
use crate::rng::Draw;
use crate::service::Service;

/// How to run.
#[derive(Default)]
pub struct RunOptions {
    /// Gets one line per event.
    pub trace: Option<Sink>,
    /// Stop after this many events.
    pub until_step: Option<u64>,
    /// Go on by other draws than those of the plan's seed, from some event on.
    pub fork: Option<Fork>,
    /// Gets the rolling hash after each event: two runs are compared by it.
    pub digest: Option<Digest>,
    /// Gets what chance did to single messages, once the run is over: as the exceptions that would
    /// do the same without chance.
    pub chances: Option<Chances>,
    /// Gets a coarse picture of the cluster after each event of a node.
    pub pictures: Option<Pictures>,
    /// Gets what a page about the failure needs, once the run is over and if it has failed.
    pub record: Option<Record>,
    /// Gets the run as data, once it is over.
    pub film: Option<RecordingSink>,
}

/// Takes what chance did to single messages.
pub type Chances = Box<dyn FnMut(Vec<plan::NetRow>)>;

/// Runs a plan to its end, or to the first violation.
pub fn run<S: Service>(plan: &Plan, options: &mut RunOptions) -> Outcome {
    let _planted = plant(plan);
    let mut simulation = Simulation::<S>::new(plan);
    simulation.trace.sink = options.trace.take();
    simulation.trace.digest = options.digest.take();
    simulation.portrait = options.pictures.take().map(|sink| Box::new(Portrait::new(sink)));
    if options.chances.is_some() {
        simulation.network.note_chances();
    }
    if options.record.is_some() {
        simulation.trace.failure = Some(Box::default());
    }
    if options.film.is_some() {
        simulation.start_filming();
    }
    let until_step = options.until_step.unwrap_or(u64::MAX);
    if let Some(Fork { after, salt }) = options.fork {
        simulation.pass(after.min(until_step));
        simulation.fork(salt);
    }
    let outcome = simulation.run(until_step);
    if let Some(sink) = &mut options.film
        && let Some(film) = simulation.take_film(outcome.violation.is_some())
    {
        sink(film);
    }
    if let Some(record) = &mut options.record
        && let Some(recorded) = simulation.take_record().filter(|_| outcome.violation.is_some())
    {
        record(recorded);
    }
    options.trace = simulation.trace.sink.take();
    options.pictures = simulation.portrait.take().map(|portrait| portrait.sink);
    if let Some(chances) = &mut options.chances {
        chances(chance::rows(simulation.network.take_noted()));
    }
    outcome
}

/// Runs a plan as [`run`] does, and returns what its clients did and were told, too.
pub fn recorded<S: Service>(plan: &Plan) -> (Outcome, History) {
    let _planted = plant(plan);
    let mut simulation = Simulation::<S>::new(plan);
    let outcome = simulation.run(u64::MAX);
    (outcome, simulation.clients.history)
}

/// Plants the bug that the plan names, as long as the result is held.
#[cfg(feature = "bugs")]
fn plant(plan: &Plan) -> stormkv::bugs::Planted {
    let info = plan.bug.as_deref().and_then(stormkv::bugs::find);
    stormkv::bugs::plant(info.map(|info| info.bug))
}

/// This build has no bugs to plant, and nothing is held.
#[cfg(not(feature = "bugs"))]
fn plant(_: &Plan) -> Option<std::convert::Infallible> {
    None
}

/// Something that happens at a moment.
enum Event {
    /// A node's timer is due.
    Tick { node: NodeId, life: u64, timer: u64 },
    /// A message arrives.
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Box<Message>,
        connection: Connection,
        mail: MessageId,
    },
    /// As bytes.
    DeliverFrame {
        from: NodeId,
        to: NodeId,
        frame: bytes::Bytes,
        connection: Connection,
        mail: MessageId,
    },
    /// As bytes, which are damaged on the way.
    DeliverGarbled {
        from: NodeId,
        to: NodeId,
        message: Box<Message>,
        draw: Draw,
        connection: Connection,
        mail: MessageId,
    },
    /// A node hears from its host that messages to a peer were lost, and perhaps that the
    /// connection for requests was.
    Unreachable { node: NodeId, life: u64, peer: NodeId, disconnected: bool },
    /// A client's request arrives at a node.
    Ask {
        client: u32,
        token: u64,
        node: NodeId,
        request: Box<Request>,
        connection: Connection,
        mail: MessageId,
    },
    /// A reply arrives at its client.
    Tell {
        client: u32,
        token: u64,
        node: NodeId,
        reply: Box<Reply>,
        connection: Connection,
        mail: MessageId,
    },
    /// A client's process dies and a new one begins.
    Restart { client: u32 },
    /// A client begins, or its patience ends.
    Client { client: u32, token: u64 },
    /// The next operation of a node's batch is carried out.
    DiskStep { node: NodeId, life: u64, queue: DiskQueue },
    /// A read of a node's disk is done.
    Fetched { node: NodeId, life: u64, ticket: Ticket, file: FileName, offset: u64, len: u32 },
    /// Work beside a node is done.
    Worked { node: NodeId, life: u64, ticket: Ticket, work: Box<Work> },
    /// A node acts on the inputs that it was given.
    Flush { node: NodeId, life: u64 },
    /// A slow node hears what has become of its work for the disk.
    Complete { node: NodeId, life: u64, completion: Box<Completion> },
    /// A slow node takes the next input.
    Serve { node: NodeId },
    /// A node in a crash loop crashes once more.
    CrashAgain { node: NodeId, life: u64 },
    /// A fault strikes.
    Fault(usize),
    /// A fault ends.
    Mend(usize),
    /// A node is started again.
    Start { node: NodeId },
    /// All faults end.
    Heal,
    /// Has the cluster come to rest?
    Rest,
}

pub(crate) struct Simulation<'p, S: Service> {
    plan: &'p Plan,
    /// What chance is keyed with: the plan's, or that of a fork.
    seed: u64,
    now_ns: u64,
    /// When the plan's time began: 0, except in a window of a long run.
    base_ns: u64,
    step: u64,
    schedule: crate::schedule::Schedule<Event>,
    network: Network,
    founding: Founding,
    /// By id; place 0 is empty.
    slots: Vec<Option<SimNode<S>>>,
    clients: Clients<S>,
    safety: Safety<S>,
    bounds: Bounds,
    snapshot_rate: SnapshotRate,
    atlas: Atlas,
    availability: Availability,
    catch_up: CatchUp,
    displaced: Displaced,
    trace: Trace,
    portrait: Option<Box<Portrait>>,
    effects: Vec<Effect>,
    messages: u64,
    faults: BTreeMap<&'static str, u64>,
    skipped: Vec<Skipped>,
    waypoints: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
    healed_ns: Option<u64>,
    rested: bool,
    /// Who has to recover; `None`: everybody.
    core: Option<BTreeSet<NodeId>>,
    recovery: Recovery,
    /// Operations that were open when the faults stopped, and still are.
    open_at_heal: usize,
    /// The membership as of the highest index that anybody has ever applied.
    newest: (LogIndex, Membership),
    past: Past,
    /// What each fault hit, for its end.
    victims: BTreeMap<usize, Vec<NodeId>>,
    /// Whom the latest fault on "the leader" hit.
    last_leader_hit: Option<NodeId>,
    /// Role and term of each node before the present event.
    roles: Vec<(Role, Term)>,
    /// Whom a leader told last to take over, and the term in which it would lead.
    handed_over: Option<(NodeId, Term)>,
}

impl<'p, S: Service> Simulation<'p, S> {
    fn new(plan: &'p Plan) -> Self {
        let founding = Founding::new::<S>(plan.cluster.backup_keys);
        let safety = Safety::new(life::session_limits(&plan.cluster));
        let config = life::config(plan, NodeId(1), false, 0);
        let mut simulation = Simulation {
            plan,
            seed: plan.seed,
            now_ns: 0,
            base_ns: 0,
            step: 0,
            schedule: crate::schedule::Schedule::new(),
            network: Network::new(plan.seed, network_config(&plan.network)),
            slots: Vec::new(),
            clients: Clients::new(plan),
            safety: safety.founded(founding.id, &founding.commands),
            founding,
            bounds: Bounds::new(&config),
            snapshot_rate: SnapshotRate::new(&config),
            atlas: Atlas::default(),
            availability: Availability::new(plan),
            catch_up: CatchUp::new(plan),
            displaced: Displaced::default(),
            trace: Trace::default(),
            portrait: None,
            effects: Vec::new(),
            messages: 0,
            faults: BTreeMap::new(),
            skipped: Vec::new(),
            waypoints: BTreeMap::new(),
            violation: None,
            healed_ns: None,
            rested: false,
            core: None,
            recovery: Recovery::default(),
            open_at_heal: 0,
            newest: (0, Membership::default()),
            past: Past::default(),
            victims: BTreeMap::new(),
            last_leader_hit: None,
            roles: Vec::new(),
            handed_over: None,
        };
        simulation.except_messages();
        if simulation.founding.state.is_some() {
            simulation.reach("founded-from-backup");
            simulation.write_before(simulation.founding.id.index);
        }
        for id in plan.voters().chain(plan.learners()) {
            simulation.place(id, true);
            simulation.schedule.push(0, Event::Start { node: id });
        }
        simulation.enter();
        simulation
    }

    /// Schedules what the plan says, from now on.
    fn enter(&mut self) {
        let (plan, base_ns) = (self.plan, self.base_ns);
        for (at, row) in plan.faults.iter().enumerate() {
            self.schedule.push(base_ns + row.at_us * 1000, Event::Fault(at));
            if let Some(until_us) = row.until_us {
                self.schedule.push(base_ns + until_us * 1000, Event::Mend(at));
            }
        }
        for row in plan.ops.iter().filter(|row| row.call.op == plan::Op::Restart) {
            let event = Event::Restart { client: row.client };
            self.schedule.push(base_ns + row.at_us * 1000, event);
        }
        self.schedule.push(base_ns + plan.heal_at_us() * 1000, Event::Heal);
        for client in 0..self.clients.all.len() as u32 {
            self.begin(client);
        }
    }

    fn except_messages(&mut self) {
        for row in &self.plan.net {
            self.network.except(NetRule {
                action: match row.effect {
                    NetEffect::Drop => NetAction::Drop,
                    NetEffect::Duplicate => NetAction::Duplicate,
                    NetEffect::Delay { by_us } => NetAction::DelayNs(by_us * 1000),
                },
                from: endpoint(&row.message.from),
                to: endpoint(&row.message.to),
                kind: row.message.kind.code(),
                nth: u64::from(row.message.number),
            });
        }
    }

    /// Makes room for a node.
    fn place(&mut self, id: NodeId, founder: bool) {
        let at = id.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
            self.roles.resize(at + 1, (Role::Follower, 0));
        }
        if self.slots[at].is_none() {
            // When all is healed, an operator has made room.
            let size = self.plan.disk.size_bytes().filter(|_| self.healed_ns.is_none());
            let mut slot = SimNode::new(self.seed, id, founder, Inbox::of(&self.plan.cpu));
            slot.disk.set_size(size);
            self.slots[at] = Some(slot);
        }
    }

    fn slot(&mut self, id: NodeId) -> Option<&mut SimNode<S>> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.slots.iter().flatten().map(|slot| slot.id).collect()
    }

    fn reach(&mut self, waypoint: &'static str) {
        debug_assert!(WAYPOINTS.contains(&waypoint), "{waypoint} is not declared");
        *self.waypoints.entry(waypoint).or_default() += 1;
    }

    fn fail(&mut self, class: Class, broken: Broken) {
        if self.violation.is_none() {
            let Broken { checker, message, node, ops } = broken;
            debug_assert!(checkers().any(|name| name == checker), "{checker} is not declared");
            self.trace.blame(node, &ops);
            self.trace.film(|recorder| recorder.blame(node, &ops));
            let (step, at_ns) = (self.step, self.now_ns);
            self.violation = Some(Violation { class, checker, message, step, at_ns });
        }
    }

    fn encodes(&self) -> bool {
        self.plan.cluster.wire == Wire::Encoded
    }

    fn run(&mut self, until_step: u64) -> Outcome {
        self.drive(until_step);
        self.outcome()
    }

    /// Runs until the cluster rests, and judges what its clients were told; or to a violation, or
    /// to this step.
    fn drive(&mut self, until_step: u64) {
        self.pass(until_step);
        if self.rested || self.violation.is_some() {
            self.judge_history();
        }
    }

    /// Lets one event happen after the other, up to this step or the end.
    fn pass(&mut self, until_step: u64) {
        while self.violation.is_none() && !self.rested && self.step < until_step {
            let Some((at_ns, event)) = self.schedule.pop() else { break };
            self.now_ns = at_ns;
            self.step += 1;
            self.trace.begin(self.step, at_ns);
            self.film_step();
            self.handle(event);
            if self.violation.is_none() {
                self.watch_availability();
            }
            if self.healed_ns.is_some() && self.violation.is_none() {
                self.trace.turn_to(None, Weight::Mere);
                self.watch_recovery();
            }
            self.film_all();
            self.trace.end();
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut faults = std::mem::take(&mut self.faults);
        let network = self.network.stats();
        let mut counted = vec![
            ("message-lost", network.lost + network.lost_to_weather + network.excepted),
            ("message-duplicated", network.duplicated),
            ("message-partitioned", network.partitioned + network.cut_in_flight),
            ("message-clogged", network.clogged),
            ("message-garbled", network.garbled),
            ("message-lagged", network.lagged),
            ("message-queued", network.queued),
            ("message-queue-full", network.queue_full),
            ("message-reset", network.lost_in_reset),
            ("clock-offset", self.slots.iter().flatten().count() as u64),
        ];
        let (cut, reset) = (network.cut_in_flight, network.lost_in_reset);
        for slot in self.slots.iter().flatten() {
            let disk = slot.disk.stats();
            counted.push(("disk-sector-lost", disk.sectors_lost));
            counted.push(("disk-sector-torn", disk.sectors_torn));
            counted.push(("disk-entry-lost", disk.entries_lost));
            counted.push(("disk-sync-failed", disk.failed_syncs));
            counted.push(("disk-short-write", disk.short_writes));
            counted.push(("disk-byte-decayed", disk.bytes_decayed));
            counted.push(("disk-stale-read", disk.stale_reads));
        }
        // Those that never happened are listed, too.
        counted.extend(plan::Fault::kinds().map(|kind| (kind, 0)));
        for (name, count) in counted {
            *faults.entry(name).or_default() += count;
        }
        self.recovery.unled_ns = self.availability.longest_unled_ns();
        let mut checks = self.safety.counts();
        checks.extend(self.availability.excuses());
        let mut waypoints = std::mem::take(&mut self.waypoints);
        let (truncations, of_several) = self.safety.truncations();
        let late = [
            ("message-cut-in-flight", cut),
            ("message-lost-in-reset", reset),
            ("entries-truncated", truncations),
            ("two-entries-truncated", of_several),
        ];
        waypoints.extend(late.into_iter().filter(|(_, count)| *count > 0));
        Outcome {
            violation: self.violation.take(),
            trace_hash: self.trace.hash(),
            events: self.step,
            messages: self.messages,
            acknowledged: self.clients.acknowledged,
            sim_ns: self.now_ns,
            faults,
            waypoints,
            checks,
            peaks: self.bounds.peaks().named(),
            recovery: self.recovery,
            skipped: std::mem::take(&mut self.skipped),
        }
    }
}
