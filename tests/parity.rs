//! One scenario, two worlds: a file is run in the simulator and against real processes.
//!
//! The same clients do the same operations at the same times, through the same nodes, while the
//! same faults strike: `kill` and `crash` are kill -9, `pause` is SIGSTOP, and the links are those
//! of the proxies. (A power loss keeps its unsynced writes here, and a cut network delivers late
//! what it held back: real processes get the milder fault.) The two histories need not be equal,
//! because the real world has a timing of its own. But both must contain the same operations, and
//! the same checker must find both linearizable; and it must be able to say no.

#![allow(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and blocking clients need threads"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormkv_sim::checker::linearizable::Verdict;
use stormkv_sim::history::{Action, Answer, History, Outcome, Value};
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::plan::{Fault, LinkFault, Member, Plan, Who};
use stormkv_sim::{scenario, simulation};

use harness::clients::{Client, Options};
use harness::fleet::Fleet;
use harness::net::State;
use harness::record::{Recorder, judge, verdict};

#[allow(dead_code, reason = "the stories of tests/cluster.rs need more of it")]
#[path = "cluster/mod.rs"]
mod harness;

const SCENARIO: &str = "scenarios/parity/storm-in-both-worlds.toml";

fn load() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCENARIO);
    scenario::load::<KeyValue>(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for a moment of the plan.
fn wait(began: Instant, at_us: u64) {
    let at = began + Duration::from_micros(at_us);
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// The nodes of the plan as processes, with its settings.
fn found(plan: &Plan) -> Fleet {
    let cluster = &plan.cluster;
    let ms = |ticks: u32| (cluster.tick_us * u64::from(ticks) / 1000).to_string();
    let settings = [
        ("--election-ms", ms(cluster.election_ticks[0])),
        ("--heartbeat-ms", ms(cluster.heartbeat_ticks)),
        ("--snapshot-every", cluster.snapshot_every.to_string()),
        ("--keep-entries", cluster.keep_entries.to_string()),
        ("--segment-mib", "1".to_owned()),
    ];
    let extra: Vec<&str> = settings.iter().flat_map(|(name, value)| [*name, value]).collect();
    assert_eq!(cluster.learners, 0, "parity has voters only");
    Fleet::found_with(u64::from(cluster.nodes), &extra)
}

/// One client: its rows, in their order, at their times or as soon as it can.
fn client(plan: &Plan, number: u32, addresses: &[SocketAddr], recorder: &Arc<Recorder>) -> Client {
    let mut options = Options::new(plan.seed);
    options.patience = Duration::from_micros(plan.clients.retry_us);
    options.give_up = Duration::from_micros(plan.clients.give_up_us);
    let lanes = u64::from(plan.clients.count) + 1;
    Client::new(recorder.clone(), addresses, u64::from(number), lanes, true, &options)
}

fn work(plan: &Plan, number: u32, mut client: Client, began: Instant) {
    for row in plan.ops.iter().filter(|row| row.client == number) {
        wait(began, row.at_us);
        let action = simulation::action::<KeyValue>(&row.call).expect("parity has no operator");
        if let Some(node) = row.call.node {
            client.visit(node.0 as usize - 1);
        }
        client.perform(action);
    }
}

/// The real counterparts of the plan's faults.
struct Storm<'a> {
    fleet: &'a mut Fleet,
    /// Whom each fault hit.
    victims: Vec<Vec<u64>>,
    last_leader: Option<u64>,
}

fn ids(members: &[Member]) -> Vec<u64> {
    let id = |member: &Member| match member {
        Member::Node(node) => node.0,
        Member::Client(number) => panic!("parity cannot cut off client {number}"),
    };
    members.iter().map(id).collect()
}

impl Storm<'_> {
    fn find(&mut self, who: Who) -> u64 {
        match who {
            Who::Node(node) => node.0,
            Who::Leader => *self.last_leader.insert(self.fleet.leader()),
            Who::Same => self.last_leader.expect("a fault that hit a leader"),
        }
    }

    fn strike(&mut self, at: usize, fault: &Fault) {
        let network = &self.fleet.network;
        match fault {
            Fault::Kill(who) | Fault::Crash(who) => {
                let id = self.find(*who);
                self.victims[at] = vec![id];
                self.fleet.node(id).kill();
            }
            Fault::KillAll | Fault::CrashAll => {
                self.victims[at] = self.fleet.ids();
                self.fleet.kill_all();
            }
            Fault::Pause(who) => {
                let id = self.find(*who);
                self.victims[at] = vec![id];
                self.fleet.node(id).pause();
            }
            Fault::Link(LinkFault::Partition(groups)) => {
                for (place, left) in groups.iter().enumerate() {
                    for right in &groups[place + 1..] {
                        network.split(&ids(left), &ids(right), State::Silent);
                    }
                }
            }
            Fault::Link(LinkFault::OneWay { from, to }) => {
                network.block(&ids(from), &ids(to), State::Silent);
            }
            Fault::Link(LinkFault::Bridge { left, right, .. }) => {
                network.split(&ids(left), &ids(right), State::Silent);
            }
            other => panic!("parity has no counterpart of `{other}`"),
        }
        println!("fault {at}: {fault} (nodes {:?})", self.victims[at]);
    }

    fn mend(&mut self, at: usize, fault: &Fault) {
        for id in std::mem::take(&mut self.victims[at]) {
            match fault {
                Fault::Pause(_) => self.fleet.node(id).resume(),
                _ => self.fleet.node(id).start(),
            }
        }
        // Faults of the network do not overlap in these files.
        if matches!(fault, Fault::Link(_)) {
            self.fleet.network.heal();
        }
    }

    fn rage(&mut self, plan: &Plan, began: Instant) {
        let mut moments = Vec::new();
        for (at, row) in plan.faults.iter().enumerate() {
            moments.push((row.at_us, at, true));
            moments.push((row.until_us.unwrap_or(plan.heal_at_us()), at, false));
        }
        moments.sort_unstable();
        for (at_us, at, strikes) in moments {
            wait(began, at_us);
            let fault = &plan.faults[at].fault;
            if strikes { self.strike(at, fault) } else { self.mend(at, fault) }
        }
    }
}

/// Runs the plan with real processes.
fn run_for_real(plan: &Plan, fleet: &mut Fleet) -> History {
    let addresses: Vec<SocketAddr> = fleet.nodes.values().map(|node| node.http).collect();
    let recorder = Arc::new(Recorder::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 1..=plan.clients.count {
            let client = client(plan, number, &addresses, &recorder);
            scope.spawn(move || work(plan, number, client, began));
        }
        let victims = vec![Vec::new(); plan.faults.len()];
        Storm { fleet, victims, last_leader: None }.rage(plan, began);
    });
    println!("{:?}", recorder.counts());
    recorder.take()
}

/// What each client did, in its order.
fn deeds(plan: &Plan, history: &History) -> Vec<Vec<Action>> {
    let lanes = u64::from(plan.clients.count) + 1;
    let mut deeds = vec![Vec::new(); lanes as usize];
    for op in history.ops() {
        deeds[(op.process % lanes) as usize].push(op.action.clone());
    }
    deeds
}

/// The history with one answer changed: the last read that found something, here or in a scan.
fn tampered(history: &History) -> History {
    let mut history = history.clone();
    let forged = Value::text("forged");
    let read = history.ops_mut().iter_mut().rev().find_map(|op| match &mut op.outcome {
        Outcome::Ok(Answer::Value(Some(value))) => Some(value),
        Outcome::Ok(Answer::Pairs(pairs)) => pairs.first_mut().map(|(_, value)| value),
        _ => None,
    });
    *read.expect("something was read") = forged;
    history
}

#[test]
fn one_scenario_holds_in_both_worlds() {
    let _turn = harness::turn();
    let plan = load();
    let (outcome, simulated) = kv::recorded(&plan);
    assert_eq!(outcome.violation, None, "in the simulator");
    let mut fleet = found(&plan);
    let real = run_for_real(&plan, &mut fleet);
    fleet.converge(&fleet.ids());

    let (before, after) = (deeds(&plan, &simulated), deeds(&plan, &real));
    assert_eq!(before, after, "both worlds did the same");
    assert_eq!(before.iter().map(Vec::len).sum::<usize>(), plan.ops.len());
    for (name, history) in [("simulated", &simulated), ("real", &real)] {
        judge(history, fleet.folder(), name);
        let unanswered = history.ops().iter().filter(|op| !matches!(op.outcome, Outcome::Ok(_)));
        println!("{name}: {} of {} without an answer", unanswered.count(), plan.ops.len());
        let forged = verdict(&tampered(history));
        assert!(
            matches!(forged, Verdict::Violation(_)),
            "{name}, with a forged answer: {forged:?}"
        );
    }
    // Whatever became of the faults, in the end everything is read by everyone, alike.
    let last = |history: &History| -> Vec<Outcome> {
        let scans = history.ops().iter().rev().take(plan.clients.count as usize);
        scans.map(|op| op.outcome.clone()).collect()
    };
    for scans in [last(&simulated), last(&real)] {
        assert!(matches!(&scans[0], Outcome::Ok(Answer::Pairs(_))), "{scans:?}");
        assert!(scans.iter().all(|scan| *scan == scans[0]), "{scans:?}");
    }
}
