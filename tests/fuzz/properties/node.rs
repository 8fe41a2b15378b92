//! A node among peers that say anything: it may refuse, stand still or follow, but not panic, and
//! what it wrote can be read back.
//!
//! The messages are sound frames of strange content, as a peer with damaged memory would send them.
//! Safety is not judged here, because raft trusts what its members promise; that a single message
//! brings a process down is another matter.

use std::collections::VecDeque;

use stormkv::api::RequestId;
use stormkv::config::Config;
use stormkv::env::{Completion, DiskQueue, FileName, ReadFile, Work};
use stormkv::kv::Kv;
use stormkv::memory::MemDisk;
use stormkv::node::{Node, Output, Role};
use stormkv::types::{NodeId, Ticket};
use stormkv::wire::Message;

use super::frame::framed;
use super::input::Input;
use super::peer;

/// Bounds the work of one input.
const MAX_STEPS: usize = 100;
const MAX_PENDING: usize = 8;

type Fetch = (Ticket, FileName, u64, u32);

/// A node, its disk, and what it waits for.
struct Host {
    node: Node<Kv>,
    disk: MemDisk,
    life: u64,
    batches: VecDeque<(DiskQueue, Ticket, Vec<stormkv::env::DiskOp>)>,
    works: VecDeque<(Ticket, Work)>,
    fetches: VecDeque<Fetch>,
    /// The newest id of a question that it asked a peer.
    asked: u64,
}

impl Host {
    fn new(input: &mut Input<'_>) -> Host {
        let founders = match input.byte() % 4 {
            0 => 0,
            1 => 1,
            _ => 3,
        };
        let mut config = config(0);
        config.founders = (1..=founders).map(NodeId).collect();
        if founders > 0 && input.byte() % 4 == 3 {
            config.founding_learners = vec![NodeId(4)];
        }
        let mut disk = MemDisk::new();
        let node = Node::start(config, &mut disk).expect("the configuration makes sense");
        let mut host = Host {
            node,
            disk,
            life: 0,
            batches: VecDeque::new(),
            works: VecDeque::new(),
            fetches: VecDeque::new(),
            asked: 0,
        };
        host.collect();
        if input.flag() {
            host.persist();
        }
        host
    }

    fn collect(&mut self) {
        let mut outputs = Vec::new();
        self.node.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Disk { queue, ticket, ops } => {
                    self.batches.push_back((queue, ticket, ops));
                }
                Output::Work { ticket, work } => self.works.push_back((ticket, work)),
                Output::Fetch { ticket, file, offset, len } => {
                    self.fetches.push_back((ticket, file, offset, len));
                }
                Output::Send { message, .. } => {
                    self.asked = match &message {
                        Message::Forward { id, .. } | Message::ReadIndex { id } => *id,
                        Message::Chunk(chunk) => chunk.transfer,
                        _ => self.asked,
                    };
                    assert_eq!(Message::decode(&message.encode()), Ok(message));
                }
                Output::Reply { .. } | Output::Applied(_) => {}
            }
        }
        assert!(self.node.pending() <= 3 * MAX_PENDING, "requests pile up");
    }

    fn run_batch(&mut self) {
        if let Some((ticket, work)) = self.works.pop_front() {
            let product = work.run(&mut self.disk);
            self.node.complete(Completion::Worked(ticket, Ok(product)));
            self.collect();
        }
        if let Some((queue, ticket, ops)) = self.batches.pop_front() {
            self.disk.run(&ops).expect("nothing fails");
            self.node.complete(Completion::Done(queue, ticket, Ok(())));
            self.collect();
        }
    }

    fn persist(&mut self) {
        while !self.batches.is_empty() || !self.works.is_empty() {
            self.run_batch();
        }
    }

    fn run_fetch(&mut self) {
        if let Some((ticket, file, offset, len)) = self.fetches.pop_front() {
            let found = self.disk.read(file, offset, len);
            self.node.complete(Completion::Fetched(ticket, found));
            self.collect();
        }
    }

    fn tick(&mut self) {
        self.node.tick();
        self.collect();
    }

    fn receive(&mut self, from: NodeId, message: Message) {
        self.node.receive(from, message);
        self.collect();
    }

    /// The process dies, and what its disk holds is read. `false` if it may not start again.
    fn restart(&mut self) -> bool {
        if self.node.stopped().is_some() {
            return false;
        }
        self.life += 1;
        self.batches.clear();
        self.works.clear();
        self.fetches.clear();
        self.node = Node::start(config(self.life), &mut self.disk).expect("its own files are good");
        self.collect();
        true
    }

    /// Helps the node to lead: what it asks for is granted, as far as a peer can.
    fn promote(&mut self) {
        for _ in 0..30 {
            self.tick();
            self.persist();
            let term = self.node.status().hard_state.term;
            let (kind, term) = match self.node.status().role {
                Role::Follower => continue,
                Role::PreCandidate => (PRE_VOTE_RESPONSE, term + 1),
                Role::Candidate => (VOTE_RESPONSE, term),
                Role::Leader => return,
            };
            let to = self.node.status().id;
            for from in [2, 3] {
                // Type, receiver, sender, term.
                let content = [1, 8, kind, 16, to.0 as u8, 24, from, 32, term as u8 & 0x7f];
                if let Ok(message) = Message::decode(&framed(&content)) {
                    self.receive(NodeId(u64::from(from)), message);
                }
            }
        }
    }

    fn step(&mut self, input: &mut Input<'_>) -> bool {
        match input.byte() % 16 {
            0..=5 => {
                let from = peer::node(input);
                if let Some(message) = peer::raft(&self.node.status(), from, input) {
                    self.receive(from, message);
                }
            }
            6 | 7 => {
                let from = peer::node(input);
                let message = peer::ours(&self.node.status(), self.asked, input);
                self.receive(from, message);
            }
            8 => {
                let from = peer::node(input);
                if let Ok(message) = Message::decode(&framed(input.some())) {
                    self.receive(from, message);
                }
            }
            9 => {
                let id = RequestId(u64::from(input.byte()));
                self.node.request(id, peer::request(input));
                self.collect();
            }
            10 => (0..=input.byte() % 32).for_each(|_| self.tick()),
            11 => self.run_batch(),
            12 => self.persist(),
            13 => self.run_fetch(),
            14 => match input.byte() % 4 {
                0 => return self.restart(),
                1 => {
                    self.node.unreachable(peer::node(input));
                    self.collect();
                }
                _ => self.persist(),
            },
            _ => self.promote(),
        }
        self.node.stopped().is_none()
    }
}

const VOTE_RESPONSE: u8 = 6;
const PRE_VOTE_RESPONSE: u8 = 18;

fn config(life: u64) -> Config {
    let mut config = Config::new(NodeId(1), Vec::new());
    config.incarnation = life;
    config.max_pending = MAX_PENDING;
    config.max_inflight = 4;
    config.max_command_bytes = 256;
    config.chunk_bytes = 64;
    config.snapshot_every = 4;
    config.keep_entries = 2;
    config.segment_bytes = 4096;
    config.sessions = 2;
    config.request_ticks = 50;
    config.snapshot_ticks = 20;
    config
}

/// Starts a node and does to it what the input says.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut host = Host::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() || !host.step(&mut input) {
            break;
        }
    }
    // Once more with nothing under way, and from what is on the disk then.
    host.persist();
    (0..40).for_each(|_| host.tick());
    host.persist();
    host.restart();
}
