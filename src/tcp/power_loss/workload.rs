//! What clients and the rest of the host ask of a cluster in one life.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::cluster::{Cluster, value_of};
use super::expected::{Expected, Mark, key_of, life_of, session_command};
use crate::api::{Reconfigure, Reply, Request, RequestId};
use crate::kv::Command;
use crate::tcp::fs::Recorder;
use crate::tcp::identity::ClusterId;
use crate::types::NodeId;

/// Keys, each with at most one write under way.
const KEYS: u64 = 6;
/// Acknowledged writes in one life.
const WRITES: u32 = 90;
/// Steps in which they must be acknowledged.
const STEPS: u32 = 100_000;

/// What a request under way is.
enum Asked {
    Key(u64),
    Open,
    Session(u64),
    Add(NodeId),
    Remove(NodeId),
}

/// The clients.
pub(super) struct Workload<'a> {
    cluster: &'a mut Cluster,
    recorder: &'a Recorder,
    draws: &'a mut StdRng,
    /// As of now.
    expected: Expected,
    asked: BTreeMap<RequestId, Asked>,
    marks: Vec<(usize, Mark)>,
    /// The learner that is a member.
    learner: Option<NodeId>,
}

impl<'a> Workload<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        recorder: &'a Recorder,
        expected: &Expected,
        draws: &'a mut StdRng,
    ) -> Self {
        let (asked, marks) = (BTreeMap::new(), Vec::new());
        let expected = expected.clone();
        Workload { cluster, recorder, draws, expected, asked, marks, learner: None }
    }

    /// Works until enough is acknowledged. Returns what happened, and after how many events.
    pub(super) fn run(mut self) -> Result<Vec<(usize, Mark)>, String> {
        let opened: Vec<_> =
            self.cluster.directories().map(|(id, directory)| (id, directory.life())).collect();
        opened.into_iter().for_each(|(id, life)| self.mark(Mark::Opened(id, life)));
        let mut writes = 0;
        for _ in 0..STEPS {
            if writes >= WRITES {
                return Ok(self.marks);
            }
            self.ask();
            self.administer()?;
            self.cluster.step()?;
            for (id, reply) in self.cluster.take_replies() {
                // Without an answer it stays open: nothing more is sent to that key.
                if reply != Reply::Unknown
                    && let Some(asked) = self.asked.remove(&id)
                {
                    writes += self.answered(asked, reply)?;
                }
            }
        }
        Err(format!("only {writes} writes were acknowledged"))
    }

    fn mark(&mut self, mark: Mark) {
        self.expected.note(&mark);
        self.marks.push((self.recorder.position(), mark));
    }

    fn send(&mut self, asked: Asked, mark: Option<Mark>, request: Request) {
        if self.cluster.leader().is_none() {
            return;
        }
        // Before the request, which may reach the disk at once.
        if let Some(mark) = mark {
            self.mark(mark);
        }
        if let Some(id) = self.cluster.ask(request) {
            self.asked.insert(id, asked);
        }
    }

    fn ask(&mut self) {
        for key in 0..KEYS {
            let busy = self.asked.values().any(|asked| matches!(asked, Asked::Key(k) if *k == key));
            if busy || !self.draws.gen_bool(0.1) {
                continue;
            }
            let written = self.draws.gen_bool(0.8).then(|| self.draws.gen_range(1..1_000_000));
            let command = match written {
                Some(number) => Command::Put { key: key_of(key), value: value_of(number) },
                None => Command::Delete { key: key_of(key) },
            };
            let request = Request::Command { session: None, command: command.encode() };
            self.send(Asked::Key(key), Some(Mark::Sent(key, written)), request);
        }
        let busy = |asked: &Asked| matches!(asked, Asked::Open | Asked::Session(_));
        if self.draws.gen_bool(0.05) && !self.asked.values().any(busy) {
            match self.expected.next_in_session() {
                Some((session, number)) if self.draws.gen_bool(0.9) => {
                    let mark = Mark::SessionSent(number);
                    let request = session_command(session, number);
                    self.send(Asked::Session(number), Some(mark), request);
                }
                _ => self.send(Asked::Open, None, Request::OpenSession),
            }
        }
        let busy = |asked: &Asked| matches!(asked, Asked::Add(_) | Asked::Remove(_));
        if self.draws.gen_bool(0.02) && !self.asked.values().any(busy) {
            let (asked, mark, change) = match self.learner.take() {
                None => {
                    let learner = self.expected.next_learner();
                    let addresses = [(learner, "http://127.0.0.1:1".to_owned())].into();
                    let learners = vec![learner];
                    let change = Reconfigure { learners, addresses, ..Reconfigure::default() };
                    (Asked::Add(learner), None, change)
                }
                Some(learner) => {
                    let removed = vec![learner];
                    let change = Reconfigure { removed, ..Reconfigure::default() };
                    (Asked::Remove(learner), Some(Mark::Leaving(learner)), change)
                }
            };
            self.send(asked, mark, Request::Reconfigure(change));
        }
    }

    /// What the rest of the host stores, on its own threads otherwise.
    fn administer(&mut self) -> Result<(), String> {
        if !self.draws.gen_bool(0.01) {
            return Ok(());
        }
        let cluster = ClusterId::from_number(7).expect("not 0");
        let mut marks = Vec::new();
        for (member, directory) in self.cluster.directories() {
            directory.set_cluster(cluster).map_err(|error| error.to_string())?;
            marks.push(Mark::Cluster(member));
            let peer = NodeId(self.draws.gen_range(1000..1020));
            let mut peers = self.expected.peers_of(member);
            peers.insert(peer, life_of(peer));
            directory.write_peers(cluster, &peers).map_err(|error| error.to_string())?;
            marks.push(Mark::Peer(member, peer));
        }
        marks.into_iter().for_each(|mark| self.mark(mark));
        Ok(())
    }

    /// Takes note of an answer. Returns the number of writes that it acknowledges.
    fn answered(&mut self, asked: Asked, reply: Reply) -> Result<u32, String> {
        let refused = matches!(reply, Reply::Refused(_));
        match (asked, reply) {
            (Asked::Key(key), Reply::Applied { .. }) => self.mark(Mark::Acknowledged(key)),
            (Asked::Key(key), _) if refused => {
                self.mark(Mark::Refused(key));
                return Ok(0);
            }
            (Asked::Open, Reply::SessionOpened(session)) => self.mark(Mark::Session(session)),
            (Asked::Session(number), Reply::Applied { response, .. }) => {
                self.mark(Mark::SessionAcknowledged(number, response));
            }
            (Asked::Session(_), _) if refused => self.mark(Mark::SessionRefused),
            (Asked::Add(learner), Reply::Reconfigured { .. }) => {
                self.learner = Some(learner);
                self.mark(Mark::Joined(learner));
            }
            (Asked::Remove(learner), Reply::Reconfigured { .. }) => self.mark(Mark::Left(learner)),
            (_, _) if refused => {}
            (_, reply) => return Err(format!("{reply:?} is no answer")),
        }
        Ok(1)
    }
}
