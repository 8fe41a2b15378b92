//! What must be there after a crash.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::cluster::{Cluster, value_of};
use crate::api::{Reply, Request};
use crate::kv::{Command, Query, Response};
use crate::machine::StateMachine;
use crate::tcp::identity::Life;
use crate::types::{NodeId, SessionId};

/// A write to a key: the number of its new value, or a deletion.
pub(super) type Written = Option<u64>;

/// What clients and the rest of the host did and learned, in this order.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// A write to this key was sent. There is one at a time.
    Sent(u64, Written),
    /// It was acknowledged.
    Acknowledged(u64),
    /// It was refused: it has no effect.
    Refused(u64),
    /// The session is open.
    Session(SessionId),
    /// A command of the session was sent, with this number.
    SessionSent(u64),
    /// It was acknowledged, with this response.
    SessionAcknowledged(u64, Bytes),
    /// It was refused.
    SessionRefused,
    /// The directory of a member was opened.
    Opened(NodeId, Life),
    /// Its cluster was set.
    Cluster(NodeId),
    /// A peer was stored in it.
    Peer(NodeId, NodeId),
    /// A learner was added.
    Joined(NodeId),
    /// The removal of a learner was sent.
    Leaving(NodeId),
    /// It is removed.
    Left(NodeId),
}

#[derive(Clone, Debug, Default)]
struct Key {
    known: Written,
    /// A write that may have happened.
    open: Option<Written>,
}

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    acknowledged: Option<(u64, Bytes)>,
    open: Option<u64>,
}

/// What was acknowledged, and what may have happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    keys: BTreeMap<u64, Key>,
    session: Option<Session>,
    lives: BTreeMap<NodeId, Life>,
    with_cluster: BTreeSet<NodeId>,
    peers: BTreeSet<(NodeId, NodeId)>,
    joined: BTreeSet<NodeId>,
    left: BTreeSet<NodeId>,
}

impl Expected {
    /// Something more has happened.
    pub(super) fn note(&mut self, mark: &Mark) {
        match mark {
            Mark::Sent(key, written) => self.keys.entry(*key).or_default().open = Some(*written),
            Mark::Acknowledged(key) => {
                let key = self.keys.entry(*key).or_default();
                key.known = key.open.take().expect("it was sent");
            }
            Mark::Refused(key) => self.keys.entry(*key).or_default().open = None,
            Mark::Session(id) => {
                self.session = Some(Session { id: *id, acknowledged: None, open: None });
            }
            Mark::SessionSent(number) => self.session().open = Some(*number),
            Mark::SessionAcknowledged(number, response) => {
                let session = self.session();
                session.open = None;
                session.acknowledged = Some((*number, response.clone()));
            }
            Mark::SessionRefused => self.session().open = None,
            Mark::Opened(member, life) => {
                self.lives.insert(*member, *life);
            }
            Mark::Cluster(member) => {
                self.with_cluster.insert(*member);
            }
            Mark::Peer(member, peer) => {
                self.peers.insert((*member, *peer));
            }
            Mark::Joined(learner) => {
                self.joined.insert(*learner);
            }
            Mark::Leaving(learner) => {
                self.joined.remove(learner);
            }
            Mark::Left(learner) => {
                self.left.insert(*learner);
            }
        }
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("it was opened")
    }

    /// The session that is open, and the number of its next command.
    pub(super) fn next_in_session(&self) -> Option<(SessionId, u64)> {
        let session = self.session.as_ref()?;
        let last = session.acknowledged.as_ref().map_or(0, |(number, _)| *number);
        Some((session.id, last + 1))
    }

    /// The peers that are stored in a member's directory.
    pub(super) fn peers_of(&self, member: NodeId) -> BTreeMap<NodeId, Life> {
        let peers = self.peers.iter().filter(|(of, _)| *of == member);
        peers.map(|(_, peer)| (*peer, life_of(*peer))).collect()
    }

    /// The number of the next learner.
    pub(super) fn next_learner(&self) -> NodeId {
        let used = self.joined.iter().chain(&self.left).max();
        NodeId(used.map_or(100, |id| id.0 + 1))
    }

    /// Compares with what there is. What was open is decided afterwards.
    pub(super) fn verify(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        for (member, directory) in cluster.directories() {
            if let Some(life) = self.lives.get(&member)
                && *life != directory.life()
            {
                return Err(format!("{member} has lost the identity of its directory"));
            }
            if self.with_cluster.contains(&member) && directory.cluster().is_none() {
                return Err(format!("{member} has forgotten its cluster"));
            }
            let found = directory.read_peers().map_err(|error| error.to_string())?;
            let mut peers = self.peers_of(member).into_iter();
            if let Some((peer, _)) = peers.find(|(peer, life)| found.get(peer) != Some(life)) {
                return Err(format!("{member} has forgotten the directory of its peer {peer}"));
            }
            self.lives.insert(member, directory.life());
        }
        // What is committed is applied once this is.
        let command = Command::Put { key: Bytes::from_static(b"last"), value: Bytes::new() };
        let request = Request::Command { session: None, command: command.encode() };
        match cluster.answer(&request)? {
            Reply::Applied { .. } => {}
            other => return Err(format!("{other:?} instead of a write")),
        }
        self.verify_session(cluster)?;
        let leader = cluster.leader().ok_or("the leader is gone")?;
        for (number, key) in &mut self.keys {
            let query = Query::Get { key: key_of(*number) }.encode();
            let answer = Response::decode(&leader.machine().query(&query));
            let Ok(Response::Value(found)) = answer else {
                return Err(format!("{answer:?} instead of a value"));
            };
            let found = found.map(|found| found.value);
            let possible = [Some(key.known), key.open].into_iter().flatten();
            let written = possible.into_iter().find(|written| written.map(value_of) == found);
            let prefix = |value: &Bytes| value[..value.len().min(8)].to_vec();
            key.known = written.ok_or_else(|| {
                format!("key {number} holds {:?}, not {key:?}", found.as_ref().map(prefix))
            })?;
            key.open = None;
        }
        let membership = leader.membership();
        if let Some(lost) = self.joined.iter().find(|learner| !membership.contains(**learner)) {
            return Err(format!("the learner {lost} that was added is lost"));
        }
        match self.left.iter().find(|learner| !membership.has_left(**learner)) {
            Some(back) => Err(format!("the learner {back} that was removed is back")),
            None => Ok(()),
        }
    }

    /// Repeats the last command of the session: it takes effect once.
    fn verify_session(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let known = session.acknowledged.clone();
        let last = session.open.or(known.as_ref().map(|(number, _)| *number));
        let Some(number) = last else { return Ok(()) };
        match (cluster.answer(&session_command(session.id, number))?, known) {
            (Reply::Applied { response, .. }, Some((last, first))) if last == number => {
                if response != first {
                    return Err(format!("command {number} of the session was applied twice"));
                }
            }
            (Reply::Applied { response, .. }, _) => {
                session.acknowledged = Some((number, response));
            }
            (other, _) => return Err(format!("{other:?} to command {number} of the session")),
        }
        session.open = None;
        Ok(())
    }
}

/// The key with this number.
pub(super) fn key_of(number: u64) -> Bytes {
    Bytes::from(format!("key {number}"))
}

/// The command with this number of the session.
pub(super) fn session_command(session: SessionId, number: u64) -> Request {
    let value = Bytes::from(number.to_string());
    let command = Command::Put { key: Bytes::from_static(b"session"), value }.encode();
    Request::Command { session: Some((session, number)), command }
}

/// The life of a peer that exists only by its name.
pub(super) fn life_of(peer: NodeId) -> Life {
    Life::from_number(peer.0).expect("not 0")
}
