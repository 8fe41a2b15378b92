//! Accepts peers: shakes hands, reads their frames, delivers their messages to the node.
//!
//! Nothing is believed. A connection that has not said who it is has little time, and gives up its
//! place to a newer one if there is no other, so that silent strangers keep no peer out (see
//! [`pending`](super::pending)). A frame is checked before it is a message, and a message of raft must
//! come from whom the handshake named (what it says is judged by the node). A connection that sends
//! anything else is closed.
//!
//! There is at most one connection per peer and lane. A newer one displaces the older, and is not
//! read before that has ended, so messages of one peer are delivered in the order of its sending.
//! When the node's inbox is full, reading waits a little, which makes the sender wait; after that,
//! messages are dropped, as on any network.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::tcp::address::check_plaintext;
use crate::tcp::descriptors::Shortage;
use crate::tcp::frames::{Frame, FrameReader, ReadError};
use crate::tcp::handle::Input;
use crate::tcp::handshake::{Hello, Lane, Status, VERSIONS, Welcome};
use crate::tcp::identity::{ClusterId, Life};
use crate::tcp::link::{Stream, prepare, write_all};
use crate::tcp::network::{Met, Network};
use crate::tcp::pending::{Pending, Place, Stage};
use crate::tcp::tls::check_node;
use crate::types::NodeId;
use crate::wire::Message;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait in the system's queue to be accepted.
const BACKLOG: u32 = 1024;

/// Listens at `address`. When the system's queue is full, an attempt to connect is dropped without a word
/// and repeated after a second, so a burst of strangers should find room there: the usual 128 is little.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the connections of the earlier process are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections of peers. Dropping it, or the future of [`run`](Self::run), closes them.
pub struct Listener {
    socket: TcpListener,
    accepting: Arc<Accepting>,
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the address is not free, or not on this machine while plaintext is not allowed.
    pub fn bind(address: SocketAddr, network: Arc<Network>) -> io::Result<Listener> {
        let options = &network.options;
        check_plaintext(address.ip(), options.tls.is_some(), options.allow_plaintext)
            .map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        let socket = listen(address)?;
        let connections = Arc::new(Semaphore::new(options.max_connections));
        let accepting = Accepting { network, connections, slots: Arc::default() };
        Ok(Listener { socket, accepting: Arc::new(accepting) })
    }

    /// Where it listens; the port is the one that was given for port 0.
    ///
    /// # Panics
    /// Never: a bound socket has an address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Accepts peers for ever.
    pub async fn run(self) {
        let handshakes = Pending::new(self.accepting.network.options.max_handshakes);
        let mut connections = JoinSet::new();
        let mut shortage = Shortage::default();
        loop {
            while connections.try_join_next().is_some() {}
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    shortage = Shortage::default();
                    // More than these wait in the system's backlog.
                    let place = handshakes.enter(address.ip()).await;
                    let accepting = self.accepting.clone();
                    connections.spawn(async move { accepting.serve(stream, address, place).await });
                }
                Err(error) => {
                    // Most likely no file descriptor is free. That passes.
                    if let Some(waited) = shortage.warn() {
                        warn!(%error, ?waited, "cannot accept a peer's connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The newest connection of one peer and lane.
struct Slot {
    /// Counts the connections; older ones end when it grows.
    newest: watch::Sender<u64>,
    /// Held by the connection that is read.
    turn: Arc<tokio::sync::Mutex<()>>,
}

type Slots = BTreeMap<(NodeId, Lane), Slot>;

struct Accepting {
    network: Arc<Network>,
    connections: Arc<Semaphore>,
    slots: Arc<Mutex<Slots>>,
}

fn locked(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that has introduced itself.
struct Connection {
    from: NodeId,
    life: Life,
    /// It is the peer that this node remembers under that id.
    remembered: bool,
    lane: Lane,
    number: u64,
    newest: watch::Receiver<u64>,
    turn: Arc<tokio::sync::Mutex<()>>,
    slots: Arc<Mutex<Slots>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let key = (self.from, self.lane);
        let mut slots = locked(&self.slots);
        if slots.get(&key).is_some_and(|slot| *slot.newest.borrow() == self.number) {
            slots.remove(&key);
        }
    }
}

impl Connection {
    /// Waits until a newer connection takes this one's place.
    async fn displaced(&mut self) {
        let number = self.number;
        let _ = self.newest.wait_for(|newest| *newest != number).await;
    }
}

impl Accepting {
    async fn serve(&self, stream: TcpStream, address: SocketAddr, mut place: Place) {
        let stats = self.network.stats();
        let evicted = place.evicted();
        let introduced = tokio::select! {
            biased;
            () = evicted => Err(io::Error::other("its place was given to a newer connection")),
            introduced = self.introduce_in_time(stream, address, &place) => introduced,
        };
        drop(place);
        let (stream, mut connection) = match introduced {
            Ok(Some(introduced)) => introduced,
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                stats.log_garbage(address, None, &error);
                return;
            }
            Err(error) => {
                stats.unfinished.add(1);
                debug!(%address, %error, "a connection ended in its handshake");
                return;
            }
        };
        let turn = connection.turn.clone();
        let (from, lane) = (connection.from, connection.lane);
        let turn = tokio::select! {
            biased;
            () = connection.displaced() => None,
            turn = turn.lock() => Some(turn),
        };
        if turn.is_some() {
            match self.read(stream, &mut connection).await {
                Ok(why) => debug!(peer = %from, lane = lane.name(), why, "a peer's link ended"),
                Err(ReadError::Garbage(error)) => {
                    stats.log_garbage(address, Some(from), &error);
                }
                Err(error) => debug!(peer = %from, lane = lane.name(), %error, "a link ended"),
            }
        }
        drop(turn);
    }

    async fn introduce_in_time(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: &Place,
    ) -> io::Result<Option<(Box<dyn Stream>, Connection)>> {
        let limit = self.network.options.timing.handshake;
        timeout(limit, self.introduce(stream, address, place)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it did not introduce itself in time"))
        })
    }

    /// Speaks TLS if wanted and shakes hands. `None`: the peer was refused, and told why.
    async fn introduce(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: &Place,
    ) -> io::Result<Option<(Box<dyn Stream>, Connection)>> {
        prepare(&stream)?;
        // Whoever wants something begins with it: a stranger that says nothing has less of a claim.
        stream.peek(&mut [0]).await?;
        place.reached(Stage::Speaking);
        let mut certificate = None;
        let mut stream: Box<dyn Stream> = match &self.network.options.tls {
            None => Box::new(stream),
            Some(tls) => {
                let stream = tls.acceptor().accept(stream).await?;
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                certificate =
                    chain.first().cloned().map(rustls::pki_types::CertificateDer::into_owned);
                Box::new(stream)
            }
        };
        let hello = Hello::read(&mut stream).await?;
        place.reached(Stage::Introduced);
        let proven = match (&self.network.options.tls, &certificate) {
            (None, _) => true,
            (Some(_), Some(certificate)) => check_node(certificate, hello.from).is_ok(),
            (Some(_), None) => false,
        };
        let Some(lane) = Lane::from_number(hello.lane) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown lane"));
        };
        let (mut status, remembered) = match self.judge(&hello, proven).await {
            Ok(met) => (Status::Ok, met == Met::Same),
            Err(status) => (status, false),
        };
        let place = self.connections.clone().try_acquire_owned().ok();
        if status == Status::Ok && place.is_none() {
            status = Status::Busy;
        }
        self.network.stats().answered(status).add(1);
        let welcome = Welcome {
            version: hello.common_version().unwrap_or(VERSIONS.1),
            status,
            cluster: self.network.cluster(),
            id: self.network.options.id,
            life: self.network.options.life,
        };
        let (Status::Ok, Some(place)) = (status, place) else {
            self.network.stats().log_refusal(hello.from, address, status);
            stream.write_all(&welcome.encode()).await?;
            stream.shutdown().await?;
            return Ok(None);
        };
        // The older connection must end before the dialer begins to use this one.
        let connection = self.enter(&hello, lane, remembered, place);
        stream.write_all(&welcome.encode()).await?;
        stream.flush().await?;
        self.network.hint(hello.from, &hello.url);
        self.network.heard_of(hello.from);
        Ok(Some((stream, connection)))
    }

    /// Says who it is that says hello, or why messages must not follow.
    async fn judge(&self, hello: &Hello, proven: bool) -> Result<Met, Status> {
        let network = &self.network;
        let own = Own {
            id: network.options.id,
            cluster: network.cluster(),
            may_learn: network.may_learn_from(hello.from),
            has_left: network.has_removed(hello.from),
        };
        match own.judge(hello, proven)? {
            None => {}
            Some(cluster) if network.learn(cluster, hello.from).await => {}
            Some(_) => return Err(Status::Busy),
        }
        match network.meet(hello.from, hello.life).await {
            met @ (Met::Same | Met::Stranger) => Ok(met),
            Met::Other => Err(Status::OtherLife),
            Met::NotNow => Err(Status::Busy),
        }
    }

    /// Takes the place of an older connection of the same peer and lane.
    fn enter(
        &self,
        hello: &Hello,
        lane: Lane,
        remembered: bool,
        place: OwnedSemaphorePermit,
    ) -> Connection {
        let (from, life) = (hello.from, hello.life);
        let mut slots = locked(&self.slots);
        let slot = slots
            .entry((from, lane))
            .or_insert_with(|| Slot { newest: watch::Sender::new(0), turn: Arc::default() });
        slot.newest.send_modify(|newest| *newest += 1);
        let (number, newest) = (*slot.newest.borrow(), slot.newest.subscribe());
        let (turn, slots) = (slot.turn.clone(), self.slots.clone());
        Connection { from, life, remembered, lane, number, newest, turn, slots, _place: place }
    }

    /// Delivers what arrives until the connection ends; says why it ended.
    async fn read(
        &self,
        stream: Box<dyn Stream>,
        connection: &mut Connection,
    ) -> Result<&'static str, ReadError> {
        let network = &self.network;
        let timing = &network.options.timing;
        let (from, lane) = (connection.from, connection.lane);
        let stats = network.stats().peer(from);
        let stats = stats.lane(lane);
        let mut reader = FrameReader::new(stream, lane.max_frame());
        let mut pong = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                () = connection.displaced() => return Ok("a newer connection took its place"),
                frame = reader.next(timing.silence) => frame?,
            };
            match frame {
                None => return Ok("it was closed"),
                Some(Frame::Ping(number)) => {
                    // Once a second is often enough to notice that its sender was removed; when it
                    // dials again, it is told so.
                    if network.has_removed(from) {
                        return Ok("the peer was removed");
                    }
                    pong.clear();
                    Frame::Pong(number).encode_into(&mut pong);
                    let wrote = write_all(reader.stream(), &pong, timing.silence).await;
                    wrote.map_err(ReadError::Io)?;
                }
                Some(Frame::Pong(_)) => return Err(garbage("a pong that nobody asked for")),
                Some(Frame::Message(message)) => {
                    if !belongs(&message, from, lane) {
                        return Err(garbage("it is of another sender or lane"));
                    }
                    // What a member says counts: from its first word on it must be known who it is.
                    if !connection.remembered {
                        match network.meet(from, connection.life).await {
                            Met::Same => connection.remembered = true,
                            Met::Stranger => {}
                            Met::Other => return Ok("the peer is known by another data directory"),
                            Met::NotNow => return Ok("the peer could not be remembered"),
                        }
                    }
                    stats.received.add(1);
                    stats.received_bytes.add(message.weight() as u64);
                    let input = Input::Message(from, message);
                    let delivered = tokio::select! {
                        biased;
                        () = connection.displaced() => return Ok("a newer one took its place"),
                        delivered = deliver(network, input, timing.inbox) => delivered,
                    };
                    match delivered {
                        Delivered::Yes => {}
                        Delivered::Dropped => stats.dropped_inbox.add(1),
                        Delivered::Gone => return Ok("the node has stopped"),
                    }
                }
            }
        }
    }
}

fn garbage(what: &str) -> ReadError {
    ReadError::Garbage(crate::wire::WireError::Malformed(what.to_owned()))
}

/// Whether a message may come from `from` on this lane.
fn belongs(message: &Message, from: NodeId, lane: Lane) -> bool {
    let sender = match message {
        Message::Raft(raft) => raft.from() == from,
        _ => true,
    };
    sender && Lane::of(message) == lane
}

enum Delivered {
    Yes,
    Dropped,
    Gone,
}

/// Hands `input` to the node; waits a little for room in its inbox.
async fn deliver(network: &Network, input: Input, patience: Duration) -> Delivered {
    let mut input = match network.handle.hand_over(input) {
        Ok(()) => return Delivered::Yes,
        Err(TrySendError::Disconnected(_)) => return Delivered::Gone,
        Err(TrySendError::Full(input)) => input,
    };
    let until = Instant::now() + patience;
    while Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
        input = match network.handle.hand_over(input) {
            Ok(()) => return Delivered::Yes,
            Err(TrySendError::Disconnected(_)) => return Delivered::Gone,
            Err(TrySendError::Full(input)) => input,
        };
    }
    Delivered::Dropped
}

/// What an acceptor knows about itself, and about who greets it.
struct Own {
    id: NodeId,
    cluster: Option<ClusterId>,
    may_learn: bool,
    has_left: bool,
}

impl Own {
    /// Whether messages may follow `hello`: yes, yes once its cluster is learned, or why not.
    /// `proven`: its certificate, if one is needed, is that of its sender.
    fn judge(&self, hello: &Hello, proven: bool) -> Result<Option<ClusterId>, Status> {
        if hello.common_version().is_none() {
            return Err(Status::NoCommonVersion);
        }
        if !proven || hello.from == NodeId(0) || hello.from == self.id {
            return Err(Status::NotAllowed);
        }
        if hello.to != self.id {
            return Err(Status::WrongNode);
        }
        match (self.cluster, hello.cluster) {
            (Some(own), Some(theirs)) if own != theirs => Err(Status::WrongCluster),
            (Some(_), _) if self.has_left => Err(Status::Removed),
            // A joining node learns the cluster from our answer.
            (Some(_), _) => Ok(None),
            (None, Some(theirs)) if self.may_learn => Ok(Some(theirs)),
            (None, Some(_)) => Err(Status::NotAllowed),
            // Both are joining: neither can tell the other.
            (None, None) => Err(Status::Busy),
        }
    }
}

#[cfg(test)]
mod tests;
