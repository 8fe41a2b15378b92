//! What the transport counts. Plain atomics: written by the links, read by whoever asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::tcp::handshake::{Lane, Status};
use crate::tcp::journal::LineLimit;
use crate::types::NodeId;

/// Peers that are counted one by one, at most.
const MAX_PEERS: usize = 1024;

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One lane to and from one peer.
#[derive(Debug, Default)]
pub struct LaneStats {
    /// Messages and bytes handed to the socket.
    pub sent: Counter,
    /// Bytes of frames handed to the socket, pings included.
    pub sent_bytes: Counter,
    /// Messages dropped because the queue was full.
    pub dropped_full: Counter,
    /// Messages dropped because the peer was not reached for long.
    pub dropped_unreached: Counter,
    /// Messages that were handed to a connection which then broke; some may have arrived.
    pub dropped_broken: Counter,
    /// Chunks of snapshots dropped because the same or newer ones took their place in the queue.
    pub superseded: Counter,
    /// Connections made.
    pub connects: Counter,
    /// Connections that broke, and attempts that failed.
    pub failures: Counter,
    /// Messages received.
    pub received: Counter,
    /// Bytes of received frames' messages, as far as they carry payload.
    pub received_bytes: Counter,
    /// Received messages dropped because the node's inbox was full.
    pub dropped_inbox: Counter,
    /// Since when the outgoing connection lives, and its newest round-trip time.
    live: Mutex<(Option<Instant>, Option<Duration>)>,
    last_error: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LaneStats {
    /// For how long the outgoing connection has lived; `None` if there is none.
    #[must_use]
    pub fn connected_for(&self) -> Option<Duration> {
        locked(&self.live).0.map(|since| since.elapsed())
    }

    /// The newest round-trip time, from the handshake or a ping, of the newest connection.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        locked(&self.live).1
    }

    /// Why the last connection or attempt ended.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        locked(&self.last_error).clone()
    }

    pub(super) fn connected(&self, rtt: Duration) {
        self.connects.add(1);
        *locked(&self.live) = (Some(Instant::now()), Some(rtt));
    }

    pub(super) fn answered(&self, rtt: Duration) {
        locked(&self.live).1 = Some(rtt);
    }

    pub(super) fn disconnected(&self) {
        locked(&self.live).0 = None;
    }

    /// Counts a failure. Says whether it is another one than the last.
    pub(super) fn failed(&self, error: &str) -> bool {
        self.failures.add(1);
        let mut last = locked(&self.last_error);
        let is_new = last.as_deref() != Some(error);
        if is_new {
            *last = Some(error.to_owned());
        }
        is_new
    }
}

/// All lanes of one peer.
#[derive(Debug, Default)]
pub struct PeerStats {
    lanes: [LaneStats; 3],
}

impl PeerStats {
    /// One lane.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> &LaneStats {
        &self.lanes[usize::from(lane.number())]
    }
}

/// The whole transport.
#[derive(Debug, Default)]
pub struct Stats {
    peers: Mutex<BTreeMap<NodeId, Arc<PeerStats>>>,
    /// Messages dropped because nobody knows where their receiver is.
    pub dropped_unknown: Counter,
    /// Connections closed because they sent what is no handshake, no frame or no message of theirs.
    pub garbage: Counter,
    /// Connections that ended before they had introduced themselves, or took too long for it.
    pub unfinished: Counter,
    answers: [Counter; Status::ALL.len()],
    refusal_lines: [LineLimit; Status::ALL.len()],
    garbage_lines: LineLimit,
}

impl Stats {
    /// The peers that were ever talked to and are still of interest.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeId, Arc<PeerStats>> {
        locked(&self.peers).clone()
    }

    /// The handshakes answered with this status.
    #[must_use]
    pub fn answered(&self, status: Status) -> &Counter {
        &self.answers[status as usize]
    }

    /// Logs, now and then, that a peer was refused. One that is to try again is no news.
    pub(super) fn log_refusal(&self, from: NodeId, address: SocketAddr, status: Status) {
        let reason = status.name();
        if status == Status::Busy {
            debug!(%from, %address, reason, "refused a peer for now");
        } else if let Some(more) = self.refusal_lines[status as usize].admit() {
            info!(%from, %address, reason, more, "refused a peer");
        }
    }

    /// Counts a connection that was closed because of what it sent, and logs that now and then.
    pub(super) fn log_garbage(
        &self,
        address: SocketAddr,
        from: Option<NodeId>,
        error: &dyn std::fmt::Display,
    ) {
        self.garbage.add(1);
        if let Some(more) = self.garbage_lines.admit() {
            let from = from.map(|from| from.to_string());
            warn!(%address, from, %error, more, "closed a connection to the port for peers");
        }
    }

    pub(super) fn peer(&self, id: NodeId) -> Arc<PeerStats> {
        let mut peers = locked(&self.peers);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&id) {
            return Arc::default();
        }
        peers.entry(id).or_default().clone()
    }

    /// Forgets a peer; links that still end keep their own.
    pub(super) fn forget(&self, id: NodeId) {
        locked(&self.peers).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::testing::logged;

    #[test]
    fn refused_peers_are_logged_now_and_then_by_reason() {
        let (stats, address) = (Stats::default(), SocketAddr::from(([127, 0, 0, 1], 7)));
        let said = logged(|| {
            for id in 1..100 {
                stats.log_refusal(NodeId(id), address, Status::WrongCluster);
                stats.log_refusal(NodeId(id), address, Status::NotAllowed);
                stats.log_refusal(NodeId(id), address, Status::Busy);
                stats.log_garbage(address, None, &"no handshake");
            }
        });
        assert_eq!(said.lines().count(), 3, "{said}");
        let refused = "INFO stormkv::tcp::stats: refused a peer from=n1 address=127.0.0.1:7";
        assert_eq!(said.matches(refused).count(), 2, "{said}");
        assert!(said.contains(Status::WrongCluster.name()), "{said}");
        assert_eq!(stats.garbage.get(), 99);
    }
}
