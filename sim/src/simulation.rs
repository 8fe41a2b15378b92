//! The simulation: one event after the other, in virtual time, on one thread.
//!
//! A run is a pure function of its plan. Nodes are the product's own drivers; network, disks and
//! clocks are simulated; every event feeds a rolling hash and passes the checkers. In the first
//! phase faults strike. Then the core, a quorum or more, is healed, and must answer everything that
//! is still open and agree within the plan's bound.
//!
//! Components:
//! - the kernel (`kernel.rs` of the crate) has time, the queue of events and the seed,
//! - `cluster.rs` has the nodes, `node.rs` one of them with its disk, clock and faults,
//! - the network, `links.rs` sets it up as the plan says,
//! - `client.rs` has the clients,
//! - `observe.rs` has the observers: trace hash, text, recording, coverage.
//!
//! What happens:
//! - `event.rs` is an event, `step.rs` carries one out and what comes of it,
//! - `life.rs` starts and stops nodes, `inbox.rs` is where inputs wait for a slow node,
//! - `message.rs` has the messages between nodes, and the connections that they travel on,
//! - `request.rs` is what clients do, `answer.rs` judges what they are answered,
//! - `fault.rs` injects and clears faults, `atlas.rs` keeps damage within what can be repaired,
//! - `core.rs` chooses the nodes that are healed in the end, and how the others are lost,
//! - `founding.rs` makes the backup that a cluster may be founded with,
//! - `fork.rs` lets a run go on in another way than it did, `soak.rs` strings windows of a long run
//!   together, `chance.rs` names the messages that chance has lost, doubled or delayed.
//!
//! What is demanded:
//! - `availability.rs` demands service of a healthy quorum, `catch_up.rs` that members catch up,
//!   `prudence.rs` that no leader makes a change that loses the quorum,
//! - `recovery.rs` waits until the core has recovered, and `stall.rs` explains why it does not,
//! - `requests.rs` keeps what the black-box search of a service needs,
//! - `end.rs` compares the members and judges the history, `survivors.rs` what disks alone hold,
//! - `goodput.rs` judges what is answered under too much load,
//! - `displaced.rs` counts commands that are committed although a new leader lacked them,
//! - `marks.rs` asks the invariant and the checkers of the service,
//! - `in_force.rs` knows the memberships that may be in force, `waypoints.rs` names the situations that
//!   a campaign should reach.

mod answer;
mod atlas;
mod availability;
mod catch_up;
mod chance;
mod client;
mod cluster;
mod core;
mod displaced;
mod end;
mod event;
mod fault;
mod fork;
mod founding;
mod goodput;
mod in_force;
mod inbox;
mod life;
mod links;
mod marks;
mod message;
mod node;
mod observe;
mod prudence;
mod recovery;
mod request;
mod requests;
mod soak;
mod stall;
mod step;
mod survivors;
#[cfg(test)]
mod tests;
mod waypoints;

use std::collections::{BTreeMap, BTreeSet};

use stormkv::types::{NodeId, Term};

pub use self::client::action;
pub use self::fork::Fork;
pub use self::observe::failure::{
    Choice, FailureReport, Line, NodeRecord, Operation, Record, State, Struck,
};
pub use self::observe::fingerprint::Pictures;
pub use self::observe::recorder::RecordingSink;
pub use self::observe::{Digest, Sink};
pub use self::soak::{Quarters, SoakProgress, Soaked, soak};
use self::waypoints::WAYPOINTS;
pub use self::waypoints::waypoints;

use self::atlas::Atlas;
use self::availability::Availability;
use self::catch_up::CatchUp;
use self::client::Clients;
use self::cluster::Cluster;
use self::displaced::Displaced;
use self::event::{Event, EventKind, Target};
use self::fault::Victims;
use self::founding::Founding;
use self::inbox::Inbox;
use self::links::{capacity, endpoint, network_config};
use self::node::SimNode;
use self::observe::{Observation, Observers, Stamp};
use crate::checker::{Bounds, Broken, Safety, SnapshotRate};
use crate::history::History;
use crate::kernel::Kernel;
use crate::network::{NetAction, NetRule, Network};
use crate::outcome::{Class, Outcome, Recovery, Violation};
use crate::plan::{self, NetEffect, Plan, Wire};
use crate::port::Effect;
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
    pub recording: Option<RecordingSink>,
}

/// Takes what chance did to single messages.
pub type Chances = Box<dyn FnMut(Vec<plan::NetRow>)>;

/// Runs a plan to its end, or to the first violation.
pub fn run<S: Service>(plan: &Plan, options: &mut RunOptions) -> Outcome {
    let _planted = plant(plan);
    let mut simulation = Simulation::<S>::new(plan);
    simulation.observers.attach(options, plan, &simulation.clients);
    if options.chances.is_some() {
        simulation.network.note_chances();
    }
    let until_step = options.until_step.unwrap_or(u64::MAX);
    if let Some(Fork { after, salt }) = options.fork {
        simulation.pass(after.min(until_step));
        simulation.fork(salt);
    }
    let outcome = simulation.run(until_step);
    if let Some(sink) = &mut options.recording
        && let Some(recording) = simulation.take_recording(outcome.violation.is_some())
    {
        sink(recording);
    }
    if let Some(record) = &mut options.record
        && let Some(recorded) = simulation.take_record().filter(|_| outcome.violation.is_some())
    {
        record(recorded);
    }
    simulation.observers.detach(options);
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

pub(crate) struct Simulation<'p, S: Service> {
    plan: &'p Plan,
    kernel: Kernel<Event>,
    network: Network,
    founding: Founding,
    cluster: Cluster<S>,
    clients: Clients<S>,
    safety: Safety<S>,
    bounds: Bounds,
    snapshot_rate: SnapshotRate,
    atlas: Atlas,
    availability: Availability,
    catch_up: CatchUp,
    displaced: Displaced,
    observers: Observers<S>,
    effects: Vec<Effect>,
    violation: Option<Violation>,
    healed_ns: Option<u64>,
    rested: bool,
    /// Who has to recover; `None`: everybody.
    core: Option<BTreeSet<NodeId>>,
    recovery: Recovery,
    /// Operations that were open when the faults stopped, and still are.
    open_at_heal: usize,
    /// What each fault hit, for its end.
    victims: BTreeMap<usize, Victims>,
    /// Whom the latest fault on "the leader" hit.
    last_leader_hit: Option<NodeId>,
    /// Whom a leader told last to take over, and the term in which it would lead.
    handed_over: Option<(NodeId, Term)>,
}

impl<'p, S: Service> Simulation<'p, S> {
    fn new(plan: &'p Plan) -> Self {
        let founding = Founding::new::<S>(plan.cluster.backup_keys);
        let safety = Safety::new(life::session_limits(&plan.cluster));
        let config = life::config(plan, NodeId(1), false, 0);
        let clients = Clients::new(plan);
        let mut simulation = Simulation {
            plan,
            kernel: Kernel::new(plan.seed),
            network: Network::new(plan.seed, network_config(&plan.network)),
            cluster: Cluster::new(),
            safety: safety.founded(founding.id, &founding.commands),
            founding,
            bounds: Bounds::new(&config, plan.cluster.nodes + plan.cluster.learners),
            snapshot_rate: SnapshotRate::new(&config),
            atlas: Atlas::default(),
            availability: Availability::new(plan),
            catch_up: CatchUp::new(plan),
            displaced: Displaced::default(),
            observers: Observers::new(&clients),
            clients,
            effects: Vec::new(),
            violation: None,
            healed_ns: None,
            rested: false,
            core: None,
            recovery: Recovery::default(),
            open_at_heal: 0,
            victims: BTreeMap::new(),
            last_leader_hit: None,
            handed_over: None,
        };
        simulation.except_messages();
        if simulation.founding.state.is_some() {
            simulation.reach("founded-from-backup");
            simulation.write_before(simulation.founding.id.index);
        }
        for id in plan.voters().chain(plan.learners()) {
            simulation.place(id, true);
            simulation.kernel.at(0, Event::start(id));
        }
        simulation.enter();
        simulation
    }

    /// Schedules what the plan says, from now on.
    fn enter(&mut self) {
        let plan = self.plan;
        for (at, row) in plan.faults.iter().enumerate() {
            self.kernel.at_plan_time(row.at_us, Event::cluster(EventKind::FaultBegins(at)));
            if let Some(until_us) = row.until_us {
                self.kernel.at_plan_time(until_us, Event::cluster(EventKind::FaultEnds(at)));
            }
        }
        for row in plan.ops.iter().filter(|row| row.call.op == plan::Op::Restart) {
            let event = Event {
                target: Target::Client(row.client),
                ..Event::cluster(EventKind::ClientRestart)
            };
            self.kernel.at_plan_time(row.at_us, event);
        }
        self.kernel.at_plan_time(plan.heal_at_us(), Event::cluster(EventKind::Heal));
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
        // When all is healed, an operator has made room.
        let size = self.plan.disk.size_bytes().filter(|_| self.healed_ns.is_none());
        let (seed, cpu) = (self.kernel.seed(), &self.plan.cpu);
        self.cluster.place(id, || {
            let mut node = SimNode::new(seed, id, founder, Inbox::of(cpu));
            node.disk.set_size(size);
            node
        });
    }

    fn reach(&mut self, waypoint: &'static str) {
        self.observers.coverage.reach(waypoint);
    }

    fn fail(&mut self, class: Class, broken: Broken) {
        if self.violation.is_none() {
            let Broken { check, message, node, ops } = broken;
            self.observers.see(&Observation::Violated(node, &ops));
            let (step, at_ns) = (self.kernel.step(), self.kernel.now_ns());
            self.violation = Some(Violation { class, checker: check, message, step, at_ns });
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
        while self.violation.is_none() && !self.rested && self.kernel.step() < until_step {
            let Some(event) = self.kernel.next() else { break };
            self.observers.begin(Stamp { step: self.kernel.step(), at_ns: self.kernel.now_ns() });
            self.handle(event);
            self.heed_checkers();
            if self.violation.is_none() {
                self.watch_availability();
            }
            if self.healed_ns.is_some() && self.violation.is_none() {
                self.observers.see(&Observation::Aside);
                self.watch_recovery();
            }
            self.observers.end(&self.cluster, &self.network, &self.safety);
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut faults = self.observers.coverage.take_faults();
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
            ("clock-offset", self.cluster.iter().count() as u64),
        ];
        let (cut, reset) = (network.cut_in_flight, network.lost_in_reset);
        for slot in self.cluster.iter() {
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
        let custom = S::FAULTS.iter().map(|fault| fault.name());
        counted.extend(plan::Fault::kinds().chain(custom).map(|kind| (kind, 0)));
        for (name, count) in counted {
            *faults.entry(name).or_default() += count;
        }
        self.recovery.unled_ns = self.availability.longest_unled_ns();
        let mut checks = self.safety.counts();
        checks.extend(self.availability.excuses());
        checks.extend(self.observers.checked());
        let mut waypoints = self.observers.coverage.take_waypoints();
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
            trace_hash: self.observers.hash(),
            events: self.kernel.step(),
            messages: self.observers.coverage.raft_messages(),
            acknowledged: self.clients.acknowledged,
            sim_ns: self.kernel.now_ns(),
            faults,
            waypoints,
            checks,
            peaks: self.bounds.peaks().named(),
            recovery: self.recovery,
            skipped: self.observers.coverage.take_skipped(),
        }
    }
}
