//! Several nodes in memory and the network between them.
//!
//! The network loses nothing unless a member is isolated or not running, and delivers in the order
//! of sending. The losses are reported to the senders as a real transport would report them, so
//! that raft probes again and requests that were passed on are not waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{MemDisk, MemHost};
use crate::api::{Consistency, Refusal, Reply, Request, RequestId};
use crate::config::Config;
use crate::driver::Driver;
use crate::env::Disk;
use crate::error::Error;
use crate::machine::StateMachine;
use crate::node::{Node, Role};
use crate::types::NodeId;
use crate::wire::Message;

/// Length of a segment of the log, in bytes, unless the test sets another.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Steps in which a cluster becomes quiet. Only one that talks to itself for ever needs more.
const MAX_STEPS: usize = 1_000_000;

/// Ticks in which a request is answered: many elections.
const MAX_TICKS: usize = 10_000;

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// Content.
    pub message: Message,
}

/// An in-memory cluster for tests, on one clock. See the [module](crate::memory).
///
/// Between two calls nothing happens. From small to large, [`complete`](Self::complete) carries out
/// one disk operation, [`deliver`](Self::deliver) one message, [`tick`](Self::tick) lets time pass,
/// [`settle`](Self::settle) does all that takes no time, [`run`](Self::run) both, and
/// [`answer`](Self::answer) as much as it takes to answer a request.
///
/// Every method that takes the id of a member panics if there is none with this id.
pub struct MemCluster<M: StateMachine> {
    params: M::Params,
    members: BTreeMap<NodeId, Member<M>>,
    now: Duration,
    network: VecDeque<Packet>,
    isolated: BTreeSet<NodeId>,
    next_request: u64,
    replies: BTreeMap<RequestId, Reply>,
}

struct Member<M: StateMachine> {
    config: Config,
    host: MemHost,
    /// `None` while the process does not run.
    driver: Option<Driver<M>>,
}

impl<M: StateMachine> MemCluster<M> {
    /// A new cluster of the members 1 to `voters`, all running.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub fn new(voters: u64) -> Result<Self, Error> {
        Self::with_config(voters, |_| ())
    }

    /// A new cluster of the members 1 to `voters`, all running, after `adjust` has changed what
    /// matters in the configuration of each.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub fn with_config(voters: u64, adjust: impl Fn(&mut Config)) -> Result<Self, Error> {
        Self::with_params(M::Params::default(), voters, adjust)
    }

    /// The same, with machines of these parameters.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub fn with_params(
        params: M::Params,
        voters: u64,
        adjust: impl Fn(&mut Config),
    ) -> Result<Self, Error> {
        let mut cluster = MemCluster {
            params,
            members: BTreeMap::new(),
            now: Duration::ZERO,
            network: VecDeque::new(),
            isolated: BTreeSet::new(),
            next_request: 0,
            replies: BTreeMap::new(),
        };
        let founders: Vec<NodeId> = (1..=voters).map(NodeId).collect();
        for id in &founders {
            let mut config = Config::new(*id, founders.clone());
            config.segment_bytes = SEGMENT_BYTES;
            adjust(&mut config);
            cluster.add(config)?;
        }
        Ok(cluster)
    }

    /// Starts one more node, on an empty disk. One with no founders waits to be made a member with a
    /// [`Request::Reconfigure`].
    ///
    /// # Errors
    /// As [`Driver::start`]. The node is not there then.
    ///
    /// # Panics
    /// If there is a node with this id.
    pub fn add(&mut self, config: Config) -> Result<(), Error> {
        let id = config.id;
        assert!(!self.members.contains_key(&id), "{id} is there already");
        let mut host = MemHost::at(self.now);
        let driver = Driver::start_with(self.params.clone(), config.clone(), &mut host)?;
        self.members.insert(id, Member { config, host, driver: Some(driver) });
        self.flush(id);
        Ok(())
    }

    // ---- Steps ----

    /// Lets time pass until the next tick of some node is due, and lets all act on it.
    pub fn tick(&mut self) {
        let due = |driver: &Driver<M>| driver.due_in(self.now);
        let wait = self.drivers().map(due).min().unwrap_or(Duration::from_millis(10));
        self.now += wait;
        let now = self.now;
        for id in self.ids() {
            let Member { host, driver, .. } = self.member(id);
            host.set_now(now);
            if let Some(driver) = driver {
                driver.report_free(host.free());
                driver.wake(now);
            }
            self.flush(id);
        }
    }

    /// Carries out the oldest pending operation of this member's disk and reports it to the node.
    /// Returns whether there was one.
    pub fn complete(&mut self, id: NodeId) -> bool {
        let member = self.member(id);
        let Some(driver) = &mut member.driver else { return false };
        let Some(completion) = member.host.disk_mut().poll() else { return false };
        driver.complete(completion);
        self.flush(id);
        true
    }

    /// Delivers the oldest message that is on its way. Returns whether there was one.
    pub fn deliver(&mut self) -> bool {
        let Some(Packet { from, to, message }) = self.network.pop_front() else { return false };
        let driver = self.members.get_mut(&to).and_then(|member| member.driver.as_mut());
        driver.expect("messages to others are dropped").receive(from, message);
        self.flush(to);
        true
    }

    /// Carries out and delivers everything until the cluster waits for time to pass.
    ///
    /// # Panics
    /// If that does not end.
    pub fn settle(&mut self) {
        let ids = self.ids();
        for _ in 0..MAX_STEPS {
            let mut quiet = !self.deliver();
            for id in &ids {
                quiet &= !self.complete(*id);
                let driver = self.member(*id).driver.as_ref();
                if driver.is_some_and(Driver::has_work) {
                    self.flush(*id);
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the cluster is not quiet after {MAX_STEPS} steps");
    }

    /// Lets so many ticks pass, each with all that follows from it.
    pub fn run(&mut self, ticks: usize) {
        self.settle();
        for _ in 0..ticks {
            self.tick();
            self.settle();
        }
    }

    // ---- Requests ----

    /// Hands a request to this member, which must be running. The reply can be taken with
    /// [`take_reply`](Self::take_reply) once it is there.
    pub fn request(&mut self, to: NodeId, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let driver = self.member(to).driver.as_mut();
        driver.unwrap_or_else(|| panic!("{to} is not running")).request(id, request);
        self.flush(to);
        id
    }

    /// Removes and returns the reply to a request; `None` as long as there is none.
    pub fn take_reply(&mut self, request: RequestId) -> Option<Reply> {
        self.replies.remove(&request)
    }

    /// Asks the leader, and runs the cluster until there is an answer. A request that is refused
    /// because no leader is ready for it, or because too much is to be done, is tried again.
    ///
    /// # Panics
    /// If there is no answer after 10,000 ticks: no quorum is running, for example.
    pub fn answer(&mut self, request: &Request) -> Reply {
        let mut asked = None;
        for _ in 0..MAX_TICKS {
            self.settle();
            if asked.is_none() {
                asked = self.leader().map(|leader| self.request(leader, request.clone()));
                self.settle();
            }
            match asked.and_then(|id| self.take_reply(id)) {
                // It certainly had no effect, and an election or a little time helps.
                Some(Reply::Refused(
                    Refusal::NotLeader(_)
                    | Refusal::Busy
                    | Refusal::Transferring
                    | Refusal::Superseded
                    | Refusal::ReconfigurationPending,
                )) => asked = None,
                Some(reply) => return reply,
                None => {}
            }
            self.tick();
        }
        panic!("no answer to {request:?} after {MAX_TICKS} ticks");
    }

    /// Replicates and applies a command without a session. Returns the response of the machine.
    ///
    /// # Panics
    /// As [`answer`](Self::answer), and if the answer is another one: the leader was lost meanwhile,
    /// for example. Use [`answer`](Self::answer) to judge it.
    pub fn command(&mut self, command: impl Into<Bytes>) -> Bytes {
        match self.answer(&Request::Command { session: None, command: command.into() }) {
            Reply::Applied { response, .. } => response,
            reply => panic!("{reply:?} instead of a response to a command"),
        }
    }

    /// Reads from the leader what reflects every acknowledged command. Returns the response of the
    /// machine.
    ///
    /// # Panics
    /// As [`command`](Self::command).
    pub fn query(&mut self, query: impl Into<Bytes>) -> Bytes {
        let consistency = Consistency::Linearizable;
        match self.answer(&Request::Query { query: query.into(), consistency }) {
            Reply::Value { response, .. } => response,
            reply => panic!("{reply:?} instead of a response to a query"),
        }
    }

    // ---- Faults ----

    /// Ends the process of this member, but not its machine: what it has written stays, synced or
    /// not. Messages from and to it are lost.
    pub fn kill(&mut self, id: NodeId) {
        let member = self.member(id);
        member.driver = None;
        member.host.disk_mut().abandon_pending();
        self.disconnect(id);
    }

    /// Cuts the power of this member: its process ends, and what it has not synced is lost.
    pub fn crash(&mut self, id: NodeId) {
        self.kill(id);
        self.disk_mut(id).crash();
    }

    /// Starts this member again, on what its disk holds.
    ///
    /// # Errors
    /// As [`Driver::start`]. It is not running then, and can be started again.
    ///
    /// # Panics
    /// If it is running.
    pub fn restart(&mut self, id: NodeId) -> Result<(), Error> {
        let params = self.params.clone();
        let member = self.member(id);
        assert!(member.driver.is_none(), "{id} is running");
        // No two starts may have the same one.
        member.config.incarnation += 1;
        let config = member.config.clone();
        member.driver = Some(Driver::start_with(params, config, &mut member.host)?);
        self.flush(id);
        Ok(())
    }

    /// Cuts this member off from the others, with the messages that are on their way.
    pub fn isolate(&mut self, id: NodeId) {
        self.isolated.insert(id);
        self.disconnect(id);
    }

    /// Connects all members again.
    pub fn heal(&mut self) {
        self.isolated.clear();
    }

    /// Drops the messages from and to this member, and reports the lost connections.
    fn disconnect(&mut self, id: NodeId) {
        self.network.retain(|packet| packet.from != id && packet.to != id);
        for other in self.ids().into_iter().filter(|other| *other != id) {
            for (one, lost) in [(id, other), (other, id)] {
                if let Some(driver) = &mut self.member(one).driver {
                    driver.disconnected(lost);
                }
                self.flush(one);
            }
        }
    }

    // ---- Views ----

    /// The time on the clock of all members.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The running member that leads in the newest term, if one does. It need not know yet that it
    /// is not the leader any more.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let leads = |driver: &Driver<M>| {
            let status = driver.node().status();
            let leads = status.role == Role::Leader && driver.node().stopped().is_none();
            leads.then_some((status.hard_state.term, status.id))
        };
        self.drivers().filter_map(leads).max().map(|(_, id)| id)
    }

    /// The node of this member; `None` while it does not run.
    ///
    /// A node that has stopped with an error still runs in this sense; see [`Node::stopped`].
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node<M>> {
        self.get(id).driver.as_ref().map(Driver::node)
    }

    /// The replicated state as this member has applied it, which may be behind the leader's.
    ///
    /// # Panics
    /// If the member does not run.
    #[must_use]
    pub fn machine(&self, id: NodeId) -> &M {
        self.node(id).unwrap_or_else(|| panic!("{id} is not running")).machine()
    }

    /// The disk of this member.
    #[must_use]
    pub fn disk(&self, id: NodeId) -> &MemDisk {
        self.get(id).host.disk()
    }

    /// The disk of this member, to damage it, to fill it or to order failures.
    pub fn disk_mut(&mut self, id: NodeId) -> &mut MemDisk {
        self.member(id).host.disk_mut()
    }

    /// The messages on their way, oldest first.
    pub fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.network.iter()
    }

    /// Drops the messages on their way for which `keep` returns false, without a report to anyone.
    ///
    /// A [`Message::Forward`] that is lost like this leaves its client without an answer until the
    /// request times out.
    pub fn retain_packets(&mut self, keep: impl FnMut(&Packet) -> bool) {
        self.network.retain(keep);
    }

    fn drivers(&self) -> impl Iterator<Item = &Driver<M>> {
        self.members.values().filter_map(|member| member.driver.as_ref())
    }

    fn get(&self, id: NodeId) -> &Member<M> {
        self.members.get(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    fn member(&mut self, id: NodeId) -> &mut Member<M> {
        self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    /// Lets a node act on its inputs, and takes over what it says.
    fn flush(&mut self, id: NodeId) {
        loop {
            let member = self.member(id);
            if let Some(driver) = &mut member.driver {
                driver.flush(&mut member.host);
            }
            if !self.post(id) {
                return;
            }
        }
    }

    /// Takes over what a node has said. Returns whether it must act on the loss of a request.
    fn post(&mut self, from: NodeId) -> bool {
        let host = &mut self.member(from).host;
        let (replies, sent) = (host.take_replies(), host.take_sent());
        self.replies.extend(replies);
        let mut lost = Vec::new();
        for (to, message) in sent {
            if self.connected(from, to) {
                self.network.push_back(Packet { from, to, message });
            } else {
                lost.push((to, message));
            }
        }
        let Some(driver) = &mut self.member(from).driver else { return false };
        let mut lost_requests = false;
        for (to, message) in lost {
            driver.unreachable(to);
            // It never left, so the client may be told that it has no effect.
            if let Message::Forward { id, .. } = message {
                driver.not_forwarded(id);
                lost_requests = true;
            }
        }
        lost_requests
    }

    fn connected(&self, from: NodeId, to: NodeId) -> bool {
        let runs = self.members.get(&to).is_some_and(|member| member.driver.is_some());
        runs && !self.isolated.contains(&from) && !self.isolated.contains(&to)
    }
}
