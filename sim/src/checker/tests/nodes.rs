//! Three real nodes in a world without faults but crashes, and the tape of what they do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use stormkv::api::{Consistency, Reconfigure, Reply, Request, RequestId};
use stormkv::config::Config;
use stormkv::driver::Driver;
use stormkv::env::{Completion, DiskOp};
use stormkv::kv::{Command, Kv, Query};
use stormkv::node::{Applied, Role};
use stormkv::types::{NodeId, SessionId};

use super::tape::{Fed, Seen, Tape};
use super::{N1, N2, N3};
use crate::disk::{Crash, SimDisk};
use crate::port::{Effect, Port, Watch};

/// Writes down what a node does inside.
struct Inside {
    id: NodeId,
    fed: Vec<Fed>,
}

impl Watch for Inside {
    fn applied(&mut self, applied: Applied) {
        self.fed.push(Fed::Applied(self.id, applied));
    }

    fn queued(&mut self, ops: &[DiskOp]) {
        self.fed.push(Fed::Queued(self.id, ops.to_vec()));
    }
}

fn port<'a>(
    now_ns: u64,
    id: NodeId,
    disk: &'a mut SimDisk,
    effects: &'a mut Vec<Effect>,
) -> Port<'a, Inside> {
    Port { now_ns, disk, effects, watch: Inside { id, fed: Vec::new() } }
}

struct Place {
    disk: SimDisk,
    driver: Option<Driver<Kv>>,
    life: u64,
}

/// The nodes, and the tape as it grows.
pub(super) struct FailureRecorder {
    now_ns: u64,
    places: BTreeMap<NodeId, Place>,
    work: VecDeque<(NodeId, Effect)>,
    replies: BTreeMap<RequestId, Reply>,
    asked: u64,
    fed: Vec<Fed>,
}

impl FailureRecorder {
    /// An election, commands, one of them twice, a read; the leader loses its power, the others go
    /// on, past a snapshot; it comes back and catches up.
    pub fn story() -> Tape {
        let mut nodes = FailureRecorder::start_all();
        let first = nodes.elected();
        let Reply::SessionOpened(session) = nodes.ask(first, Request::OpenSession) else {
            panic!("no session");
        };
        nodes.fed.push(Fed::Opened(session));
        for number in 1..=4 {
            nodes.put(first, session, number);
        }
        nodes.put(first, session, 4);
        nodes.read(first, Query::Get { key: "key1".into() });
        nodes.read(first, Query::Scan { prefix: "key".into(), after: None, limit: 3 });
        nodes.crash(first);
        let second = nodes.elected();
        for number in 5..=14 {
            nodes.put(second, session, number);
        }
        nodes.start(first);
        nodes.put_loose(second);
        nodes.move_member(second, N2);
        for number in 15..=17 {
            nodes.put(second, session, number);
        }
        (0..20).for_each(|_| nodes.tick());
        nodes.finish(second)
    }

    fn start_all() -> Self {
        let mut nodes = FailureRecorder {
            now_ns: 0,
            places: BTreeMap::new(),
            work: VecDeque::new(),
            replies: BTreeMap::new(),
            asked: 0,
            fed: Vec::new(),
        };
        for id in [N1, N2, N3] {
            let place = Place { disk: SimDisk::new(1, id.0), driver: None, life: 0 };
            nodes.places.insert(id, place);
            nodes.start(id);
        }
        nodes
    }

    fn finish(mut self, leader: NodeId) -> Tape {
        let last = self.seen(leader).status.last;
        for (id, place) in &self.places {
            let node = place.driver.as_ref().expect("all are up").node();
            assert_eq!(node.status().applied, last, "{id} has not caught up");
            self.fed.push(Fed::Content(*id, node.machine().clone()));
            self.fed.push(Fed::Addresses(*id, node.membership().clone()));
        }
        let (first, second) = match leader {
            N1 => (N2, N3),
            N2 => (N1, N3),
            _ => (N1, N2),
        };
        let voted = self.seen(first).status.hard_state.vote == leader;
        let followers = if voted { [first, second] } else { [second, first] };
        Tape { fed: self.fed, leader, followers, last }
    }

    fn seen(&self, id: NodeId) -> Seen {
        Seen::of(self.places[&id].driver.as_ref().expect("it is up").node())
    }

    // ---- what tests do ----

    fn put(&mut self, id: NodeId, session: SessionId, number: u64) {
        let command = Command::Put { key: format!("key{number}").into(), value: "value".into() };
        let session_and_number = Some((session, number));
        let command = Request::Command { session: session_and_number, command: command.encode() };
        let Reply::Applied { index, response } = self.ask(id, command) else {
            panic!("the command was not applied");
        };
        self.fed.push(Fed::Acknowledged(session, number, index, response));
    }

    fn put_loose(&mut self, id: NodeId) {
        let command = Command::Put { key: "loose".into(), value: "value".into() }.encode();
        let request = Request::Command { session: None, command: command.clone() };
        let Reply::Applied { index, response } = self.ask(id, request) else {
            panic!("the command was not applied");
        };
        self.fed.push(Fed::Loose(command, index, response));
    }

    fn move_member(&mut self, id: NodeId, member: NodeId) {
        let addresses = BTreeMap::from([(member, "elsewhere".to_owned())]);
        let change = Reconfigure { voters: vec![member], addresses, ..Reconfigure::default() };
        let Reply::Reconfigured { index } = self.ask(id, Request::Reconfigure(change.clone()))
        else {
            panic!("the member was not moved");
        };
        self.fed.push(Fed::Reconfigured(index, change));
    }

    fn read(&mut self, id: NodeId, query: Query) {
        let floor = self.seen(id).status.hard_state.commit;
        let query = query.encode();
        let consistency = Consistency::Linearizable;
        let request = Request::Query { query: query.clone(), consistency };
        let Reply::Value { index, response } = self.ask(id, request) else { panic!("no answer") };
        self.fed.push(Fed::Read(id, index, floor));
        let applied = self.seen(id).status.applied.index;
        self.fed.push(Fed::Queried(id, query, index, applied, response));
    }

    fn ask(&mut self, id: NodeId, request: Request) -> Reply {
        self.asked += 1;
        let name = RequestId(self.asked);
        self.input(id, |driver| driver.request(name, request));
        for _ in 0..20 {
            self.tick();
            if let Some(reply) = self.replies.remove(&name) {
                return reply;
            }
        }
        panic!("no answer");
    }

    /// Waits for a leader.
    fn elected(&mut self) -> NodeId {
        for _ in 0..200 {
            self.tick();
            let leads = |place: &Place| {
                let node = place.driver.as_ref().map(Driver::node);
                node.is_some_and(|node| node.status().role == Role::Leader)
            };
            if let Some((id, _)) = self.places.iter().find(|(_, place)| leads(place)) {
                return *id;
            }
        }
        panic!("nobody was elected");
    }

    fn crash(&mut self, id: NodeId) {
        let place = self.places.get_mut(&id).expect("one of three");
        place.driver = None;
        place.disk.crash(Crash::PowerLoss, 1);
        self.fed.push(Fed::Crashed(id, false));
    }

    fn start(&mut self, id: NodeId) {
        let place = self.places.get_mut(&id).expect("one of three");
        place.life += 1;
        let mut config = Config::new(id, vec![N1, N2, N3]);
        config.incarnation = place.life;
        (config.seed, config.snapshot_every, config.keep_entries) = (1, 8, 2);
        (config.segment_bytes, config.sessions) = (1 << 14, 64);
        let mut effects = Vec::new();
        let mut port = port(self.now_ns, id, &mut place.disk, &mut effects);
        let driver = Driver::<Kv>::start(config, &mut port).expect("the disk is good");
        let fed = port.watch.fed;
        place.driver = Some(driver);
        // As in the simulation: what it found is judged before what it did.
        self.fed.push(Fed::Recovered(id, self.seen(id)));
        self.happened(id, fed, effects);
    }

    // ---- the simulation ----

    fn tick(&mut self) {
        self.now_ns += 10_000_000;
        let now = Duration::from_nanos(self.now_ns);
        for id in [N1, N2, N3] {
            self.input(id, |driver| driver.wake(now));
        }
        while let Some((id, effect)) = self.work.pop_front() {
            self.carry_out(id, effect);
        }
    }

    fn input(&mut self, id: NodeId, input: impl FnOnce(&mut Driver<Kv>)) {
        let place = self.places.get_mut(&id).expect("one of three");
        let Some(driver) = &mut place.driver else { return };
        let mut effects = Vec::new();
        let mut port = port(self.now_ns, id, &mut place.disk, &mut effects);
        input(driver);
        driver.flush(&mut port);
        let fed = port.watch.fed;
        self.happened(id, fed, effects);
    }

    fn happened(&mut self, id: NodeId, fed: Vec<Fed>, effects: Vec<Effect>) {
        self.fed.extend(fed);
        self.fed.push(Fed::After(id, self.seen(id)));
        for effect in effects {
            if let Effect::Send(to, message) = &effect {
                self.fed.push(Fed::Sending(id, *to, message.clone()));
            }
            self.work.push_back((id, effect));
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        let place = self.places.get_mut(&id).expect("one of three");
        match effect {
            Effect::Send(to, message) => {
                self.input(to, |driver| driver.receive(id, message));
            }
            Effect::Reply(request, reply) => drop(self.replies.insert(request, reply)),
            Effect::Submit(queue, ticket, ops) => {
                for op in ops {
                    place.disk.execute(&op).expect("no faults");
                    self.fed.push(Fed::Executed(id, op));
                }
                let done = Completion::Done(queue, ticket, Ok(()));
                self.input(id, |driver| driver.complete(done));
            }
            Effect::Work(ticket, work) => {
                let done = Completion::Worked(ticket, Ok(work.run(&mut place.disk)));
                self.input(id, |driver| driver.complete(done));
            }
            Effect::Fetch(ticket, file, offset, len) => {
                let read = Completion::Fetched(ticket, place.disk.read(file, offset, len as usize));
                self.input(id, |driver| driver.complete(read));
            }
        }
    }
}
