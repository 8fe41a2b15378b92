//! Members on real files, and their network, in one thread. Time passes when there is nothing else
//! to do.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Refusal, Reply, Request, RequestId};
use crate::config::Config;
use crate::driver::{Driver, Host};
use crate::env::{Clock, Completion, Transport};
use crate::kv::Kv;
use crate::node::{Node, Role};
use crate::tcp::directory::{Directory, Expected};
use crate::tcp::disk::{Files, OnFiles};
use crate::types::NodeId;
use crate::wire::Message;

/// Small, so that there are many.
const SEGMENT: u64 = 16 << 10;
const TICK: Duration = Duration::from_millis(10);
/// Real time in which a disk may be quick enough to finish within a tick.
const PATIENCE: Duration = Duration::from_micros(300);
/// Ticks in which a cluster must find a leader and answer.
const LIMIT: u32 = 20_000;

struct MemberHost {
    files: Files,
    clock: Rc<Cell<Duration>>,
    sent: Vec<(NodeId, Message)>,
    replies: Vec<(RequestId, Reply)>,
}

impl Clock for MemberHost {
    fn now(&self) -> Duration {
        self.clock.get()
    }
}

impl Transport for MemberHost {
    fn send(&mut self, to: NodeId, message: Message) {
        self.sent.push((to, message));
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.replies.push((request, reply));
    }
}

impl OnFiles for MemberHost {
    fn files(&mut self) -> &mut Files {
        &mut self.files
    }
}

impl Host for MemberHost {}

struct Member {
    id: NodeId,
    directory: Arc<Directory>,
    driver: Driver<Kv>,
    host: MemberHost,
}

pub(super) struct Cluster {
    members: Vec<Member>,
    done: Receiver<(usize, Completion)>,
    clock: Rc<Cell<Duration>>,
    requests: u64,
    replies: Vec<(RequestId, Reply)>,
}

impl Cluster {
    /// Starts the members 1 to `members` on their directories below `root`.
    ///
    /// # Errors
    /// When one refuses what it finds, or finds it damaged.
    pub(super) fn start(root: &Path, members: u64, incarnation: u64) -> Result<Cluster, String> {
        let (sender, done) = channel();
        let clock = Rc::new(Cell::new(Duration::ZERO));
        let founders: Vec<NodeId> = (1..=members).map(NodeId).collect();
        let mut started = Vec::new();
        for (at, id) in founders.iter().copied().enumerate() {
            let failed = |what: String| format!("{id} does not start: {what}");
            let expected = Expected { node: id, cluster: None };
            let path = root.join(format!("n{}", id.0)).join("data");
            let opened = Directory::open(&path, expected).map_err(|e| failed(e.to_string()))?;
            let (directory, sender) = (Arc::new(opened), sender.clone());
            let report = move |completion| drop(sender.send((at, completion)));
            let files = Files::start(directory.clone(), SEGMENT, report)
                .map_err(|error| failed(error.to_string()))?;
            let (sent, replies) = (Vec::new(), Vec::new());
            let mut host = MemberHost { files, clock: clock.clone(), sent, replies };
            let config = config(id, founders.clone(), incarnation);
            let driver = Driver::start(config, &mut host).map_err(|e| failed(e.to_string()))?;
            if let Some(damage) = driver.node().recovered_damage() {
                return Err(failed(format!("it takes its files for damaged: {damage:?}")));
            }
            started.push(Member { id, directory, driver, host });
        }
        Ok(Cluster { members: started, done, clock, requests: 0, replies: Vec::new() })
    }

    /// The data directories, by member.
    pub(super) fn directories(&self) -> impl Iterator<Item = (NodeId, &Directory)> {
        self.members.iter().map(|member| (member.id, &*member.directory))
    }

    /// The node that leads, if one does.
    pub(super) fn leader(&self) -> Option<&Node<Kv>> {
        let mut nodes = self.members.iter().map(|member| member.driver.node());
        nodes.find(|node| node.status().role == Role::Leader)
    }

    /// Hands a request to the leader, if there is one.
    pub(super) fn ask(&mut self, request: Request) -> Option<RequestId> {
        let leads = |member: &&mut Member| member.driver.node().status().role == Role::Leader;
        let leader = self.members.iter_mut().find(leads)?;
        self.requests += 1;
        let id = RequestId(self.requests);
        leader.driver.request(id, request);
        leader.driver.flush(&mut leader.host);
        Some(id)
    }

    /// The answers since the last call.
    pub(super) fn take_replies(&mut self) -> Vec<(RequestId, Reply)> {
        for member in &mut self.members {
            self.replies.append(&mut member.host.replies);
        }
        std::mem::take(&mut self.replies)
    }

    /// Asks until there is an answer other than a refusal that passes. Other answers are dropped.
    pub(super) fn answer(&mut self, request: &Request) -> Result<Reply, String> {
        let mut asked = None;
        for _ in 0..LIMIT {
            if asked.is_none() {
                asked = self.ask(request.clone());
            }
            for (id, reply) in self.take_replies() {
                match reply {
                    _ if Some(id) != asked => {}
                    Reply::Refused(Refusal::SessionExpired | Refusal::OutOfOrder) => {
                        return Ok(reply);
                    }
                    Reply::Refused(_) => asked = None,
                    reply => return Ok(reply),
                }
            }
            self.step()?;
        }
        Err(format!("no answer to {request:?}"))
    }

    /// Lets happen what is due.
    ///
    /// # Errors
    /// When a node has stopped.
    pub(super) fn step(&mut self) -> Result<(), String> {
        let mut idle = true;
        while let Ok((at, completion)) = self.done.try_recv() {
            self.members[at].driver.complete(completion);
            idle = false;
        }
        let mut messages = Vec::new();
        for member in &mut self.members {
            let from = member.id;
            messages.extend(member.host.sent.drain(..).map(|(to, message)| (from, to, message)));
            idle &= !member.driver.has_work();
        }
        for (from, to, message) in messages {
            // Learners that were added do not exist.
            if let Some(member) = self.members.iter_mut().find(|member| member.id == to) {
                member.driver.receive(from, message);
                idle = false;
            }
        }
        if idle {
            match self.done.recv_timeout(PATIENCE) {
                Ok((at, completion)) => self.members[at].driver.complete(completion),
                Err(_) => self.clock.set(self.clock.get() + TICK),
            }
        }
        for member in &mut self.members {
            member.driver.wake(self.clock.get());
            member.driver.flush(&mut member.host);
            if let Some(error) = member.driver.node().stopped() {
                return Err(format!("{} has stopped: {error}", member.id));
            }
        }
        Ok(())
    }
}

fn config(id: NodeId, founders: Vec<NodeId>, incarnation: u64) -> Config {
    let mut config = Config::new(id, founders);
    (config.seed, config.incarnation, config.tick) = (incarnation, incarnation, TICK);
    (config.segment_bytes, config.reserve_bytes) = (SEGMENT, 2 * SEGMENT);
    (config.snapshot_every, config.keep_entries) = (25, 5);
    (config.piece_bytes, config.chunk_bytes) = (4096, 4096);
    config
}

/// What a key holds that was written with this number: a size between tens of bytes and thousands.
pub(super) fn value_of(number: u64) -> Bytes {
    let size = match number % 7 {
        0 => 3000 + number % 3000,
        1 | 2 => 500,
        _ => 20,
    };
    let mut value = number.to_le_bytes().to_vec();
    value.resize(size as usize, number as u8);
    Bytes::from(value)
}
