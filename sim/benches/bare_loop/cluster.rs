//! Five nodes, their links and a client on one event heap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use raft::eraftpb::Message;

use super::node::{Disk, Node, decode, encode};

const NODES: u64 = 5;
const TICK_US: u64 = 10_000;
/// Latency of a link: at least the first, below the second.
const LATENCY_US: (u64, u64) = (1_000, 10_000);
const VALUE_BYTES: usize = 64;
/// Time after which the client asks again. Several times what a put takes.
const RETRY_US: u64 = 100_000;
/// Node N is down from N times the first on, for the second. As in `cargo sim speed`.
const CRASH_EVERY_US: u64 = 400_000;
const DOWN_US: u64 = 150_000;

/// Counts of a run, or of several.
#[derive(Debug, Default, PartialEq)]
pub struct Totals {
    /// Messages of raft that were delivered.
    pub messages: u64,
    pub events: u64,
    /// Puts that were acknowledged.
    pub puts: u64,
    pub simulated_us: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.messages += other.messages;
        self.events += other.events;
        self.puts += other.puts;
        self.simulated_us += other.simulated_us;
    }
}

/// Ordered only for the heap: two of them never have the same number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    /// A frame arrives at this node, unless the node was down since it was sent in this epoch.
    Deliver(u64, u64, Vec<u8>),
    /// The client's put of this number arrives at this node.
    Ask(u64, u64),
    /// The answer to the put of this number arrives.
    Acknowledged(u64),
    /// The client has waited long enough for the answer to this put.
    Retry(u64),
    Crash(u64),
    Restart(u64),
}

/// The finalizer of SplitMix64.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub struct Cluster {
    seed: u64,
    draws: u64,
    now_us: u64,
    sequence: u64,
    /// By time in microseconds, then in the order of scheduling.
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    voters: Vec<u64>,
    disks: Vec<Disk>,
    /// `None` while it is down.
    nodes: Vec<Option<Node>>,
    /// Counts starts and ends of each node.
    epochs: Vec<u64>,
    /// When the newest message of a link arrives: links keep the order, as connections do.
    links: BTreeMap<(u64, u64), u64>,
    /// The present put of the client, counted from 1.
    put: u64,
    sent: Vec<Message>,
    done: Vec<u64>,
    totals: Totals,
}

impl Cluster {
    pub fn new(seed: u64) -> Cluster {
        let voters: Vec<u64> = (1..=NODES).collect();
        let mut cluster = Cluster {
            seed,
            draws: 0,
            now_us: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            disks: voters.iter().map(|_| Disk::default()).collect(),
            nodes: voters.iter().map(|_| None).collect(),
            epochs: vec![0; voters.len()],
            links: BTreeMap::new(),
            put: 1,
            sent: Vec::new(),
            done: Vec::new(),
            totals: Totals::default(),
            voters,
        };
        (1..=NODES).for_each(|id| cluster.start(id));
        cluster.schedule(TICK_US, Event::Tick);
        cluster
    }

    /// Acknowledges so many puts, one after the other, and ends when all nodes agree. With `crashes`
    /// each node is down once on the way.
    pub fn run(mut self, puts: u64, crashes: bool) -> Totals {
        if crashes {
            for id in 1..=NODES {
                self.schedule(CRASH_EVERY_US * id, Event::Crash(id));
                self.schedule(CRASH_EVERY_US * id + DOWN_US, Event::Restart(id));
            }
        }
        let calm_at_us = if crashes { CRASH_EVERY_US * NODES + DOWN_US } else { 0 };
        self.ask(puts);
        while self.put <= puts || self.now_us < calm_at_us || !self.agrees() {
            let Reverse((at_us, _, event)) = self.heap.pop().expect("ticks go on");
            assert!(at_us >= self.now_us, "time goes back");
            self.now_us = at_us;
            self.totals.events += 1;
            self.handle(event, puts);
        }
        self.totals.puts = puts;
        self.totals.simulated_us = self.now_us;
        self.totals
    }

    fn handle(&mut self, event: Event, puts: u64) {
        match event {
            Event::Tick => {
                for id in 1..=NODES {
                    self.with(id, Node::tick);
                }
                self.schedule(TICK_US, Event::Tick);
            }
            Event::Deliver(to, epoch, frame) => {
                if epoch == self.epochs[to as usize - 1] {
                    self.totals.messages += 1;
                    let (message, _) = decode(&frame);
                    self.with(to, |node| node.step(message));
                }
            }
            Event::Ask(to, number) => {
                let mut command = number.to_le_bytes().to_vec();
                command.resize(command.len() + VALUE_BYTES, b'v');
                self.with(to, |node| node.propose(command));
            }
            // The answer to any attempt serves.
            Event::Acknowledged(number) if number == self.put => {
                self.put += 1;
                self.ask(puts);
            }
            Event::Retry(number) if number == self.put => self.ask(puts),
            Event::Acknowledged(_) | Event::Retry(_) => {}
            Event::Crash(id) => {
                self.epochs[id as usize - 1] += 1;
                self.nodes[id as usize - 1] = None;
            }
            Event::Restart(id) => self.start(id),
        }
    }

    fn start(&mut self, id: u64) {
        let at = id as usize - 1;
        self.epochs[at] += 1;
        let key = mix(mix(self.seed) ^ mix(id << 32 | self.epochs[at]));
        self.nodes[at] = Some(Node::start(id, &self.voters, &self.disks[at], key));
    }

    /// Lets a node that is up do something, and carries out what it wants then.
    fn with<T>(&mut self, id: u64, act: impl FnOnce(&mut Node) -> T) {
        let at = id as usize - 1;
        let Some(node) = &mut self.nodes[at] else { return };
        act(node);
        node.ready(&mut self.disks[at], &mut self.sent, &mut self.done);
        let leads = node.leads();
        for message in std::mem::take(&mut self.sent) {
            let (to, mut frame) = (message.to, Vec::new());
            encode(&message, &mut frame);
            let latency = self.latency();
            let arrives = self.links.entry((id, to)).or_default();
            *arrives = (self.now_us + latency).max(*arrives);
            let (wait, epoch) = (*arrives - self.now_us, self.epochs[to as usize - 1]);
            self.schedule(wait, Event::Deliver(to, epoch, frame));
        }
        for number in std::mem::take(&mut self.done) {
            if leads {
                let latency = self.latency();
                self.schedule(latency, Event::Acknowledged(number));
            }
        }
    }

    /// Sends the present put to the leader, if there is one, unless all are done.
    fn ask(&mut self, puts: u64) {
        if self.put > puts {
            return;
        }
        self.schedule(RETRY_US, Event::Retry(self.put));
        let leaders = self.nodes.iter().zip(&self.voters).filter_map(|(node, id)| {
            node.as_ref().filter(|node| node.leads()).map(|node| (node.term(), *id))
        });
        if let Some((_, to)) = leaders.max() {
            let latency = self.latency();
            self.schedule(latency, Event::Ask(to, self.put));
        }
    }

    /// Returns whether all nodes are up and have applied the same.
    fn agrees(&self) -> bool {
        let Some(first) = &self.nodes[0] else { return false };
        let same =
            |node: &Option<Node>| node.as_ref().is_some_and(|node| node.applied == first.applied);
        if !self.nodes.iter().all(same) {
            return false;
        }
        let states = self.nodes.iter().flatten().map(|node| &node.state);
        states.into_iter().for_each(|state| assert_eq!(*state, first.state, "replicas differ"));
        true
    }

    fn latency(&mut self) -> u64 {
        self.draws += 1;
        let (min, max) = LATENCY_US;
        min + mix(mix(self.seed) ^ self.draws) % (max - min)
    }

    fn schedule(&mut self, wait_us: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((self.now_us + wait_us, self.sequence, event)));
    }
}
