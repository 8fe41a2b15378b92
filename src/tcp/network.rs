//! What all connections of a node share: who it is, whom it trusts, what it counts.
//!
//! Most of it is fixed when the node starts. Three things are learned: the cluster, once, by a node
//! that joins; by which data directory each peer is known (see [`lives`](super::lives)); and where
//! peers are that nobody has told us about but who have dialed us.
//!
//! *Learning the cluster.* A node that joins accepts the cluster of the first peer it hears from,
//! in either direction; but not of anybody. With TLS any peer with a valid certificate may teach
//! it. Without, only those in its configured addresses may: nothing proves who they are, but a
//! stray node of another cluster that has an old address of ours does not capture us. What was
//! learned is durable before the first message of that cluster is delivered.
//!
//! *Being told things.* A peer may say that this node was removed, or that it knows it by another data
//! directory. Peers of the node's own cluster are believed only, and a single one does not end the node:
//! see [`refusals`](super::refusals) and [`Node`](crate::node::Node).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::api::MAX_ADDRESS;
use crate::tcp::address::PeerUrl;
use crate::tcp::handle::{Handle, Input};
use crate::tcp::identity::{ClusterId, Life};
use crate::tcp::lives::{Lives, OtherLife};
use crate::tcp::stats::Stats;
use crate::tcp::tls::PeerTls;
use crate::types::NodeId;
use crate::wire::Message;

/// Peers remembered because they dialed us, at most.
const MAX_HINTS: usize = 64;

/// Makes durable which cluster this node belongs to. May block; called until it succeeds once.
pub type LearnCluster = Box<dyn Fn(ClusterId) -> io::Result<()> + Send + Sync>;

/// How patient connections are.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For a TCP connection to be made.
    pub connect: Duration,
    /// For TLS and the handshake.
    pub handshake: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// Without a byte from the other side, or without room for one to it.
    pub silence: Duration,
    /// Between two attempts to connect, at least and at most. The time grows from one to the other
    /// and is drawn at random from its upper half.
    pub backoff: (Duration, Duration),
    /// For which links to a former member live on, so that it can be told that it was removed.
    pub grace: Duration,
    /// For which a received message waits for room in the node's inbox before it is dropped.
    pub inbox: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(2),
            handshake: Duration::from_secs(5),
            ping: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            grace: Duration::from_secs(10),
            inbox: Duration::from_millis(250),
        }
    }
}

/// What a node knows when its transport starts.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub id: NodeId,
    /// Its data directory; said in every hello and welcome.
    pub life: Life,
    /// Where its peers reach it; said in every hello.
    pub url: String,
    /// Its cluster, if it knows it.
    pub cluster: Option<ClusterId>,
    /// The configured addresses of peers. A joining node without TLS learns its cluster only from
    /// them.
    pub initial: BTreeMap<NodeId, String>,
    /// Mutual TLS for all connections between peers; `None`: plain TCP for all.
    pub tls: Option<Arc<PeerTls>>,
    /// Whether plain TCP may leave this machine.
    pub allow_plaintext: bool,
    /// Messages that wait for one lane to one peer, at most.
    pub queue_messages: usize,
    /// Bytes that wait for one lane to one peer, at most (one message always fits).
    pub queue_bytes: usize,
    /// Bytes of snapshots sent to one peer per second, at most. Below four chunks a second, a
    /// transfer may look stuck to its sender.
    pub snapshot_bytes_per_second: u64,
    /// Connections from peers, at most; more are told to try again.
    pub max_connections: usize,
    /// Connections that have not finished their handshake, at most; a newer one displaces one that
    /// says nothing.
    pub max_handshakes: usize,
    /// How patient connections are.
    pub timing: Timing,
}

impl Options {
    /// The defaults for the node `id` with this data directory, which its peers reach at `url`.
    #[must_use]
    pub fn new(id: NodeId, life: Life, url: impl Into<String>) -> Options {
        Options {
            id,
            life,
            url: url.into(),
            cluster: None,
            initial: BTreeMap::new(),
            tls: None,
            allow_plaintext: false,
            queue_messages: 4096,
            queue_bytes: 64 << 20,
            snapshot_bytes_per_second: 64 << 20,
            max_connections: 768,
            max_handshakes: 64,
            timing: Timing::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("id", &self.id)
            .field("life", &self.life)
            .field("url", &self.url)
            .field("cluster", &self.cluster)
            .field("initial", &self.initial)
            .field("tls", &self.tls.is_some())
            .field("allow_plaintext", &self.allow_plaintext)
            .finish_non_exhaustive()
    }
}

/// Who was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The one that is known under this id, from now on at least.
    Same,
    /// No member, as far as this node knows, so it is not remembered.
    Stranger,
    /// One with another data directory.
    Other,
    /// It could not be stored, or the cluster is not known.
    NotNow,
}

/// A node among its peers. Shared by all that connects.
pub struct Network {
    pub(super) options: Options,
    pub(super) handle: Handle,
    cluster: OnceLock<ClusterId>,
    /// Held while a cluster is being learned, so that it is learned once.
    learning: Mutex<LearnCluster>,
    lives: Lives,
    hints: Mutex<BTreeMap<NodeId, String>>,
    /// Where clients reach this node.
    client_url: OnceLock<String>,
    /// Where clients reach the peers that have said so.
    client_urls: Mutex<BTreeMap<NodeId, String>>,
    /// For each peer that is dialed: it lives, try again now.
    alive: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
    /// The address at which each peer is linked now.
    reached: Mutex<BTreeMap<NodeId, String>>,
    stats: Arc<Stats>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// A node that delivers what it hears through `handle`, stores the cluster it joins with
    /// `learn`, and remembers its peers in `lives`.
    #[must_use]
    pub fn new(
        options: Options,
        handle: Handle,
        learn: LearnCluster,
        lives: Lives,
    ) -> Arc<Network> {
        let cluster = options.cluster.map_or_else(OnceLock::new, OnceLock::from);
        Arc::new(Network {
            options,
            handle,
            cluster,
            learning: Mutex::new(learn),
            lives,
            hints: Mutex::default(),
            client_url: OnceLock::new(),
            client_urls: Mutex::default(),
            alive: Mutex::default(),
            reached: Mutex::default(),
            stats: Arc::default(),
        })
    }

    /// The cluster, if it is known by now.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Whether this node may learn its cluster from `peer`.
    pub(super) fn may_learn_from(&self, peer: NodeId) -> bool {
        self.options.tls.is_some() || self.options.initial.contains_key(&peer)
    }

    /// Joins `cluster` if none is known yet. Says whether this node belongs to it now.
    pub(super) async fn learn(self: &Arc<Self>, cluster: ClusterId, from: NodeId) -> bool {
        if self.cluster.get().is_none() {
            let network = self.clone();
            // Goes on to its end even if the handshake that waits for it takes too long.
            let learned = tokio::task::spawn_blocking(move || network.learn_once(cluster, from));
            if learned.await.is_err() {
                return false;
            }
        }
        self.cluster() == Some(cluster)
    }

    fn learn_once(&self, cluster: ClusterId, from: NodeId) {
        let learn = locked(&self.learning);
        if self.cluster.get().is_some() {
            return;
        }
        match learn(cluster) {
            Ok(()) => {
                info!(%cluster, %from, "joined the cluster");
                let _ = self.cluster.set(cluster);
            }
            Err(error) => warn!(%cluster, %error, "cannot store which cluster was joined"),
        }
    }

    /// Meets `peer`, whose data directory has this life, in the cluster of this node. Messages may be
    /// exchanged with the same one, and no other directory will ever be that peer's; and with a stranger,
    /// who is to be met again as soon as it is a member.
    pub(super) async fn meet(self: &Arc<Self>, peer: NodeId, life: Life) -> Met {
        let known = match self.lives.check(peer, life) {
            Some(known) => known,
            None if !self.is_member(peer) => return Met::Stranger,
            None => {
                let network = self.clone();
                // Goes on to its end even if the handshake that waits for it takes too long.
                let stored = tokio::task::spawn_blocking(move || network.meet_first(peer, life));
                match stored.await {
                    Ok(Some(known)) => known,
                    Ok(None) | Err(_) => return Met::NotNow,
                }
            }
        };
        match known {
            Ok(()) => Met::Same,
            Err(OtherLife(known)) => {
                debug!(%peer, %known, %life, "a peer came with another data directory");
                Met::Other
            }
        }
    }

    fn meet_first(&self, peer: NodeId, life: Life) -> Option<Result<(), OtherLife>> {
        let cluster = self.cluster()?;
        let met = self.lives.meet(cluster, peer, life, |peer| self.has_removed(peer));
        met.inspect_err(|error| warn!(%peer, %error, "cannot store that a peer was met")).ok()
    }

    /// Returns whether `peer` is a member, as far as this node has applied the log.
    pub(super) fn is_member(&self, peer: NodeId) -> bool {
        self.handle.view().membership.contains(peer)
    }

    /// Whether `peer` was removed, and this node would still know that after a crash.
    pub(super) fn has_removed(&self, peer: NodeId) -> bool {
        self.handle.view().has_removed(peer)
    }

    /// Sets where clients reach this node. To be called once, before anything is dialed.
    pub fn advertise(&self, client_url: String) {
        let _ = self.client_url.set(client_url);
    }

    /// Where this node is, as it says in its hello.
    pub(super) fn own_url(&self) -> String {
        let peers = &self.options.url;
        match self.client_url.get() {
            Some(clients) if peers.len() + 1 + clients.len() <= MAX_ADDRESS => {
                format!("{peers} {clients}")
            }
            _ => peers.clone(),
        }
    }

    /// Where clients reach a member, if that is known.
    #[must_use]
    pub fn client_url(&self, member: NodeId) -> Option<String> {
        if member == self.options.id {
            return self.client_url.get().cloned();
        }
        locked(&self.client_urls).get(&member).cloned()
    }

    /// Remembers where a peer says it is: for its peers in case nobody else says, and for clients.
    pub(super) fn hint(&self, peer: NodeId, url: &str) {
        let (url, clients) = match url.split_once(' ') {
            Some((url, clients)) => (url, Some(clients)),
            None => (url, None),
        };
        let mut client_urls = locked(&self.client_urls);
        match clients.filter(|clients| clients.parse::<PeerUrl>().is_ok()) {
            Some(clients) if client_urls.contains_key(&peer) || client_urls.len() < MAX_HINTS => {
                client_urls.insert(peer, clients.to_owned());
            }
            Some(_) => {}
            // It may run an older version now.
            None => drop(client_urls.remove(&peer)),
        }
        let sound = url.parse::<PeerUrl>().is_ok_and(|at| at.tls == self.options.tls.is_some());
        let mut hints = locked(&self.hints);
        if sound && (hints.contains_key(&peer) || hints.len() < MAX_HINTS) {
            hints.insert(peer, url.to_owned());
        }
    }

    pub(super) fn hinted(&self, peer: NodeId) -> Option<String> {
        locked(&self.hints).get(&peer).cloned()
    }

    /// Where else `peer` may be than at `url`: at the address from the settings, or where it says itself.
    pub(super) fn alternatives(&self, peer: NodeId, url: &str) -> Vec<String> {
        let given = self.options.initial.get(&peer).cloned();
        let mut others: Vec<String> = given.into_iter().chain(self.hinted(peer)).collect();
        others.retain(|other| other != url);
        others.dedup();
        others
    }

    /// `peer` is linked at this address, or not any more.
    pub(super) fn note_reached(&self, peer: NodeId, url: Option<String>) {
        let mut reached = locked(&self.reached);
        match url {
            Some(url) => drop(reached.insert(peer, url)),
            None => drop(reached.remove(&peer)),
        }
    }

    /// The address at which `peer` is linked now.
    pub(super) fn reached(&self, peer: NodeId) -> Option<String> {
        locked(&self.reached).get(&peer).cloned()
    }

    pub(super) fn forget_hint(&self, peer: NodeId) {
        locked(&self.hints).remove(&peer);
    }

    /// For waiting until `peer` shows that it lives.
    pub(super) fn alive(&self, peer: NodeId) -> Arc<Notify> {
        locked(&self.alive).entry(peer).or_default().clone()
    }

    /// `peer` has dialed us.
    pub(super) fn heard_of(&self, peer: NodeId) {
        if let Some(alive) = locked(&self.alive).get(&peer) {
            alive.notify_waiters();
        }
    }

    pub(super) fn forget(&self, peer: NodeId) {
        locked(&self.alive).remove(&peer);
        self.stats.forget(peer);
    }

    /// Tells the node that `peer` says that it was removed.
    pub(super) fn told_removed(&self, peer: NodeId) {
        self.handle.offer(Input::Message(peer, Message::Removed));
    }

    /// Tells the node that `peer` knows it by another data directory.
    pub(super) fn told_other_life(&self, peer: NodeId) {
        // If there is no room, the next attempt to connect is answered in the same way.
        self.handle.offer(Input::OtherLife(peer));
    }
}
