//! All outgoing lanes of a node: what its thread calls to send.
//!
//! Nothing here waits. A message goes into the bounded queue of its lane, whose task (see `link`)
//! encodes and writes it; if there is no room it is dropped and counted, and raft is told once that
//! the peer is unreachable.
//!
//! Whom to dial follows the membership. A peer that leaves it keeps its links for a grace period,
//! so that it can still be told that it was removed. A peer that is not in it, but has dialed us
//! and said where it is, is dialed there when there is something to say to it: so a node that joins
//! can answer a leader of whom it has never heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::take;
use crate::tcp::handshake::Lane;
use crate::tcp::link::{Link, Shared};
use crate::tcp::network::Network;
use crate::tcp::queue::Pushed;
use crate::types::NodeId;
use crate::wire::Message;

/// Peers that are dialed although they are no members, at most.
const MAX_STRANGERS: usize = 64;

struct Peer {
    address: watch::Sender<String>,
    lanes: [Arc<Shared>; 3],
    tasks: Vec<JoinHandle<()>>,
    /// It is a member; otherwise it is dialed because it dialed us.
    member: bool,
    /// It was a member: this task closes its lanes.
    leaving: Option<JoinHandle<()>>,
}

impl Peer {
    fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.queue.close());
    }

    fn is_closed(&self) -> bool {
        self.lanes.iter().any(|lane| lane.queue.is_closed())
    }

    /// It is a member (again).
    fn stay(&mut self) {
        self.member = true;
        if let Some(leaving) = self.leaving.take() {
            leaving.abort();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
        if let Some(leaving) = &self.leaving {
            leaving.abort();
        }
    }
}

/// The outgoing lanes to all peers. Belongs to the node's thread; dropping it ends all links.
pub struct Peers {
    network: Arc<Network>,
    runtime: Runtime,
    peers: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// No peers yet; see [`update_addresses`](Self::update_addresses). Links run on `runtime`.
    #[must_use]
    pub fn new(network: Arc<Network>, runtime: Runtime) -> Peers {
        Peers { network, runtime, peers: BTreeMap::new() }
    }

    /// Sends `message` to `to`, or drops and counts it. Never blocks. Returns false if it certainly is
    /// not sent.
    pub fn send(&mut self, to: NodeId, message: Message) -> bool {
        if self.peers.get(&to).is_none_or(Peer::is_closed) {
            self.meet(to);
        }
        let Some(peer) = self.peers.get(&to) else {
            self.network.stats().dropped_unknown.add(1);
            return false;
        };
        let lane = &peer.lanes[usize::from(Lane::of(&message).number())];
        let pushed = lane.queue.push(message);
        match pushed {
            Pushed::Queued(0) => {}
            Pushed::Queued(dropped) => lane.stats().superseded.add(dropped as u64),
            Pushed::Twice => lane.stats().superseded.add(1),
            Pushed::Full => {
                lane.stats().dropped_full.add(1);
                lane.report(&self.runtime);
            }
            Pushed::Broken => lane.stats().dropped_unreached.add(1),
            Pushed::Closed => self.network.stats().dropped_unknown.add(1),
        }
        matches!(pushed, Pushed::Queued(_) | Pushed::Twice)
    }

    /// These are the members and where they are. New ones are dialed, those whose address has
    /// changed are dialed there from now on, and those that are missing are let go after a while.
    /// This node itself is skipped.
    pub fn update_addresses(&mut self, addresses: &BTreeMap<NodeId, String>) {
        self.prune();
        for (&id, address) in addresses {
            if id == self.network.options.id {
                continue;
            }
            match self.peers.get_mut(&id) {
                Some(peer) if !peer.is_closed() => {
                    peer.stay();
                    peer.address.send_if_modified(|known| {
                        let moved = known != address;
                        address.clone_into(known);
                        moved
                    });
                }
                _ => self.start(id, address.clone(), true),
            }
        }
        let grace = self.network.options.timing.grace;
        for (id, peer) in &mut self.peers {
            if addresses.contains_key(id) || !peer.member || peer.leaving.is_some() {
                continue;
            }
            let lanes = peer.lanes.clone();
            peer.leaving = Some(self.runtime.spawn(async move {
                sleep(grace).await;
                lanes.iter().for_each(|lane| lane.queue.close());
            }));
        }
    }

    /// Writes what is queued and ends all links, but takes no longer than `limit`. For a graceful
    /// end of the process.
    pub async fn close(mut self, limit: Duration) {
        let until = Instant::now() + limit;
        self.peers.values().for_each(Peer::close);
        for peer in self.peers.values_mut() {
            for mut task in std::mem::take(&mut peer.tasks) {
                if timeout_at(until, &mut task).await.is_err() {
                    task.abort();
                }
            }
        }
    }

    /// Begins to dial a peer that has told us where it is, if it is such a one.
    fn meet(&mut self, id: NodeId) {
        self.prune();
        let strangers = self.peers.values().filter(|peer| !peer.member).count();
        if strangers >= MAX_STRANGERS || self.network.has_removed(id) {
            return;
        }
        if let Some(address) = self.network.hinted(id) {
            self.start(id, address, false);
        }
    }

    fn start(&mut self, id: NodeId, address: String, member: bool) {
        let (address, known) = watch::channel(address);
        let stats = self.network.stats().peer(id);
        let lanes = Lane::ALL
            .map(|lane| Arc::new(Shared::new(self.network.clone(), id, lane, stats.clone())));
        let run =
            |lane: &Arc<Shared>| self.runtime.spawn(Link::new(lane.clone(), known.clone()).run());
        let tasks = lanes.iter().map(run).collect();
        self.peers.insert(id, Peer { address, lanes, tasks, member, leaving: None });
    }

    /// Forgets the peers whose lanes have ended.
    fn prune(&mut self) {
        let ended = take::extract_if(&mut self.peers, .., |_, peer| peer.is_closed());
        for (id, _) in ended {
            self.network.forget(id);
            if self.network.has_removed(id) {
                self.network.forget_hint(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
