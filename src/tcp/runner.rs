//! The thread of the node: takes inputs from its inbox, lets the driver act on them, and tells the
//! rest of the process how the node is doing.
//!
//! It waits for nothing but its inbox and the next tick. Whatever has piled up in the inbox is
//! taken in one go and flushed once: that is what turns many clients into few log records, few
//! messages and few syncs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::api::{Reply, RequestId};
use crate::config::Config;
use crate::driver::{Driver, Host};
use crate::env::{Clock, DiskOp, Transport};
use crate::error::Error;
use crate::machine::StateMachine;
use crate::node::{Applied, Membership};
use crate::tcp::answers::{Answer, Answers};
use crate::tcp::disk::{Files, OnFiles};
use crate::tcp::handle::{Input, View};
use crate::tcp::identity::ClusterId;
use crate::tcp::journal::Journal;
use crate::tcp::peers::Peers;
use crate::tcp::refusals::Refusals;
use crate::types::NodeId;
use crate::wire::Message;

/// Inputs taken between two flushes. More would let the first ones wait for too long.
const BATCH: usize = 1024;

/// The shortest time between two views of a busy node, unless something important changed.
const VIEW_EVERY: Duration = Duration::from_millis(10);

/// The free space of the disk is looked up so often.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// For sending what is queued for peers at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A node that has begun, and its surroundings.
pub struct Runner<M: StateMachine> {
    /// First, so that it goes first if this thread panics: the disk's threads must not wait for room
    /// in it while they are waited for.
    inbox: Receiver<Input>,
    driver: Driver<M>,
    world: World,
    view: watch::Sender<Arc<View>>,
    viewed_at: Duration,
    measured_at: Duration,
    membership: Arc<Membership>,
    /// The addresses from the settings.
    initial: BTreeMap<NodeId, String>,
    refusals: Refusals,
    cluster: Box<dyn Fn() -> Option<ClusterId> + Send>,
}

/// Why a node's thread has ended.
#[derive(Debug)]
pub enum End {
    /// It was told to.
    Asked,
    /// The node stopped by itself.
    Stopped(Error),
    /// These peers know the node by another data directory, and without them there is no quorum.
    OtherLife(Vec<NodeId>),
}

/// What the node sees: time, files, peers, and the clients that wait.
pub struct World {
    runtime: Runtime,
    began: Instant,
    files: Files,
    peers: Peers,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    /// Ids of forwarded requests for which there was no connection.
    unsent: Vec<u64>,
    answers: Answers,
    next_request: u64,
    journal: Journal,
}

impl World {
    /// A world that begins now. `runtime` is where the peers' links run, and `journal` follows the
    /// node.
    pub fn new(runtime: Runtime, files: Files, peers: Peers, journal: Journal) -> World {
        #[allow(clippy::disallowed_methods, reason = "this is the node's clock")]
        let began = Instant::now();
        World {
            runtime,
            began,
            files,
            peers,
            waiting: BTreeMap::new(),
            unsent: Vec::new(),
            answers: Answers::default(),
            next_request: 0,
            journal,
        }
    }
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Transport for World {
    fn send(&mut self, to: NodeId, message: Message) {
        if matches!(message, Message::Chunk(_)) {
            let now = self.now();
            self.journal.sent(now, to, &message);
        }
        let forward = match &message {
            Message::Forward { id, .. } => Some(*id),
            _ => None,
        };
        if !self.peers.send(to, message) {
            self.unsent.extend(forward);
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        // Who asked may have gone away meanwhile.
        if let Some(client) = self.waiting.remove(&request) {
            let _ = client.send(self.answers.admit(reply));
        }
    }
}

impl OnFiles for World {
    fn files(&mut self) -> &mut Files {
        &mut self.files
    }
}

impl Host for World {
    fn applied(&mut self, applied: Applied) {
        if applied.by_snapshot {
            let now = self.now();
            self.journal.installed(now, applied.id);
        }
    }

    fn queued(&mut self, ops: &[DiskOp]) {
        let now = self.now();
        self.journal.queued(now, ops);
    }
}

impl<M: StateMachine> Runner<M> {
    /// Starts the node from what its disk holds. Blocks while it reads. `initial` are the addresses
    /// from the settings, `cluster` says to which cluster the node belongs by now.
    ///
    /// # Errors
    /// As [`Node::start`](crate::node::Node::start).
    pub fn start(
        params: M::Params,
        config: Config,
        mut world: World,
        initial: BTreeMap<NodeId, String>,
        inbox: Receiver<Input>,
        view: watch::Sender<Arc<View>>,
        cluster: Box<dyn Fn() -> Option<ClusterId> + Send>,
    ) -> Result<Self, Error> {
        let driver = Driver::start_with(params, config, &mut world)?;
        let membership = Arc::new(driver.node().membership().clone());
        world.journal.begun(&driver.node().status(), &membership);
        // Before any link is made: connections ask the view who is a member.
        view.send_replace(Arc::new(look(&driver, membership.clone(), cluster())));
        world.peers.update_addresses(&addresses(&initial, &membership));
        let viewed_at = world.now();
        let measured_at = viewed_at;
        Ok(Runner {
            driver,
            world,
            inbox,
            view,
            viewed_at,
            measured_at,
            membership,
            initial,
            refusals: Refusals::default(),
            cluster,
        })
    }

    /// Runs the node until it is told to stop, or stops by itself; then says why. What is queued for
    /// peers is still sent, unless it should never have been said, and the disk finishes its batch.
    pub fn run(mut self) -> End {
        let end = loop {
            if let ControlFlow::Break(end) = self.take_inputs() {
                break end;
            }
            self.measure_space();
            self.driver.wake(self.world.now());
            self.driver.flush(&mut self.world);
            self.refuse_unsent();
            if let Some(error) = self.driver.node().stopped() {
                let end = End::Stopped(error.clone());
                self.look(false);
                break end;
            }
        };
        // Nobody is left to answer: what is in the log may still take effect.
        for (_, client) in std::mem::take(&mut self.world.waiting) {
            let _ = client.send(Reply::Unknown.into());
        }
        // First of all: the disk's threads must not wait for room in it.
        drop(self.inbox);
        let World { files, peers, runtime, .. } = self.world;
        let last_words = if matches!(end, End::OtherLife(_)) { Duration::ZERO } else { LAST_WORDS };
        runtime.block_on(peers.close(last_words));
        drop(files);
        end
    }

    /// Lets the node answer the requests that it wanted to pass on, but that no connection took.
    fn refuse_unsent(&mut self) {
        if self.world.unsent.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.world.unsent) {
            self.driver.not_forwarded(id);
        }
        self.driver.flush(&mut self.world);
    }

    /// Now and then reports the free space of the disk. The system has the number in memory.
    fn measure_space(&mut self) {
        let now = self.world.now();
        if now >= self.measured_at + SPACE_EVERY {
            self.measured_at = now;
            self.driver.report_free(self.world.files.free());
        }
    }

    /// Waits for inputs until the next tick is due, or not at all if the driver has work left, and
    /// hands all that are there to the driver.
    fn take_inputs(&mut self) -> ControlFlow<End> {
        let wait = if self.driver.has_work() {
            Duration::ZERO
        } else {
            self.driver.due_in(self.world.now())
        };
        let mut next = self.inbox.try_recv();
        let idle = next.is_err();
        self.look(idle);
        if idle {
            next = self.inbox.recv_timeout(wait).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            });
        }
        for _ in 0..BATCH {
            match next {
                Ok(input) => self.take(input)?,
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(End::Asked),
            }
            next = self.inbox.try_recv();
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, input: Input) -> ControlFlow<End> {
        match input {
            Input::Message(from, message) => {
                if matches!(message, Message::Chunk(_) | Message::ChunkAck { .. }) {
                    let now = self.world.now();
                    self.world.journal.received(now, from, &message);
                }
                self.driver.receive(from, message);
            }
            Input::Unreachable(peer) => self.driver.unreachable(peer),
            Input::Disconnected { peer, unsent } => {
                unsent.into_iter().for_each(|id| self.driver.not_forwarded(id));
                self.driver.disconnected(peer);
            }
            Input::Completion(completion) => self.driver.complete(completion),
            Input::Request(request, client) => {
                self.world.next_request += 1;
                let id = RequestId(self.world.next_request);
                self.world.waiting.insert(id, client);
                self.driver.request(id, request);
            }
            Input::Backup(sender) => {
                let _ = sender.send(Box::new(self.driver.node().backup()));
            }
            Input::OtherLife(peer) => return self.refused_by(peer),
            Input::Stop => return ControlFlow::Break(End::Asked),
        }
        ControlFlow::Continue(())
    }

    /// A peer refuses this node's data directory.
    fn refused_by(&mut self, peer: NodeId) -> ControlFlow<End> {
        if self.refusals.record(peer, self.world.now()) {
            warn!(%peer, "a peer knows this node by another data directory, and does not listen to it");
        }
        let node = self.driver.node();
        let (me, membership) = (node.status().id, node.membership());
        match self.refusals.outnumber(me, membership, &self.initial) {
            Some(peers) => ControlFlow::Break(End::OtherLife(peers)),
            None => ControlFlow::Continue(()),
        }
    }

    /// Publishes a view if there is news, and tells the transport who belongs to the cluster. While
    /// there is other work, what is not important waits a little.
    fn look(&mut self, idle: bool) {
        let node = self.driver.node();
        let now = self.world.now();
        let status = node.status();
        let hangs = || node.load().disk_hangs;
        self.world.journal.look(now, &status, node.transferee(), hangs, node.membership());
        let due = {
            let last = self.view.borrow();
            (idle && last.status != status)
                || (last.status.role, last.status.leader, last.status.hard_state.term)
                    != (status.role, status.leader, status.hard_state.term)
                || last.stopped.is_some() != node.stopped().is_some()
                || last.damage.is_some() != node.damage().is_some()
        };
        if !due && now < self.viewed_at + VIEW_EVERY {
            return;
        }
        self.viewed_at = now;
        if *node.membership() != *self.membership {
            self.world.journal.members_changed(&self.membership, node.membership());
            self.membership = Arc::new(node.membership().clone());
            self.world.peers.update_addresses(&addresses(&self.initial, &self.membership));
        }
        let view = look(&self.driver, self.membership.clone(), (self.cluster)());
        self.view.send_replace(Arc::new(view));
    }
}

/// Where to reach the members. The membership knows best; the settings help where it is silent, and
/// as long as a node that joins has no membership at all.
fn addresses(
    initial: &BTreeMap<NodeId, String>,
    membership: &Membership,
) -> BTreeMap<NodeId, String> {
    let mut addresses = initial.clone();
    addresses.retain(|id, _| membership.voters().is_empty() || membership.contains(*id));
    addresses.extend(membership.addresses().clone());
    addresses
}

fn look<M: StateMachine>(
    driver: &Driver<M>,
    membership: Arc<Membership>,
    cluster: Option<ClusterId>,
) -> View {
    let node = driver.node();
    View {
        cluster,
        status: node.status(),
        membership,
        membership_is_durable: node.membership_is_durable(),
        progress: node.progress().collect(),
        pending: node.pending(),
        load: node.load(),
        size: node.machine().size(),
        segments: node.segments(),
        space: node.disk_space(),
        damage: node.damage().cloned(),
        stopped: node.stopped().cloned(),
    }
}
