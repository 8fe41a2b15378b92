//! One lane to one peer: dials, says hello, writes what is queued, and starts over when it breaks.
//!
//! What was handed to a connection is never sent again: when the connection breaks, nobody knows
//! what arrived, and a forwarded request must not arrive twice. What still waits in the queue goes
//! out on the next connection, unless attempts fail repeatedly: then it is old, and dropped. Raft
//! is told each time that the peer is unreachable, and repeats what matters. Forwarded requests are
//! not kept: the node learns which of them were never handed to a connection, and refuses those; what
//! became of the others is unknown.
//!
//! The writer takes all that is queued, up to a batch, encodes it into one buffer and writes it;
//! what arrives meanwhile is the next batch. So a busy link makes few large writes, and an idle one
//! sends each message at once. A snapshot's lane is paced by a token bucket, so that the others
//! stay quick.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info};

use crate::tcp::address::{PeerUrl, check_plaintext};
use crate::tcp::frames::{Frame, FrameReader, PING_BYTES};
use crate::tcp::handle::Input;
use crate::tcp::handshake::{Hello, Lane, Status, VERSIONS, Welcome};
use crate::tcp::loss::LossReport;
use crate::tcp::network::{Met, Network};
use crate::tcp::queue::Queue;
use crate::tcp::stats::{LaneStats, PeerStats};
use crate::types::NodeId;
use crate::wire::Message;

/// Bytes that are written at once, about.
const BATCH: usize = 128 << 10;
/// Failed attempts in a row after which the queue is dropped.
const PATIENCE: u32 = 2;
/// Attempts at the usual address before others are tried.
const USUAL_ATTEMPTS: usize = 2;
/// A connection that broke sooner than this counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);
/// Memory for batches that is kept between them.
const KEEP: usize = 4 * BATCH;

/// A byte stream to a peer, plain or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Small messages at once, and an end of connections that are dead.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Writes all of `bytes`; fails when there is no progress for `silence`.
pub(super) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    silence: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(silence, stream.write(bytes)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(written)) => bytes = &bytes[written..],
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(silent(silence)),
        }
    }
    match timeout(silence, stream.flush()).await {
        Ok(flushed) => flushed,
        Err(_) => Err(silent(silence)),
    }
}

fn silent(limit: Duration) -> io::Error {
    let what = format!("the peer took or answered nothing for {limit:?}");
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// What a link and its queue's producer share.
pub(super) struct Shared {
    pub network: Arc<Network>,
    pub peer: NodeId,
    pub lane: Lane,
    pub queue: Queue,
    pub stats: Arc<PeerStats>,
    loss: LossReport,
}

impl Shared {
    pub fn new(network: Arc<Network>, peer: NodeId, lane: Lane, stats: Arc<PeerStats>) -> Shared {
        let options = &network.options;
        let queue = Queue::new(options.queue_messages, options.queue_bytes);
        Shared { network, peer, lane, queue, stats, loss: LossReport::default() }
    }

    pub fn stats(&self) -> &LaneStats {
        self.stats.lane(self.lane)
    }

    /// Reports to raft that messages were dropped, unless that is reported already. The inbox may be
    /// full; then a task tries again.
    pub fn report(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        if !self.loss.dropped(|| self.offer_report()) {
            return;
        }
        let shared = self.clone();
        runtime.spawn(async move {
            while !shared.loss.retry(|| shared.offer_report()) {
                if shared.queue.is_closed() {
                    shared.loss.give_up();
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
    }

    fn offer_report(&self) -> bool {
        self.network.handle.offer(Input::Unreachable(self.peer))
    }
}

/// Why a connection, or an attempt to make one, ended.
enum End {
    /// The lane is closed and its queue empty.
    Closed,
    /// The peer has another address now.
    Moved,
    /// It failed.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error)
    }
}

/// The task of one lane to one peer.
pub(super) struct Link {
    shared: Arc<Shared>,
    address: watch::Receiver<String>,
    jitter: StdRng,
    /// Since when the present connection, or the last one, works.
    connected_at: Option<Instant>,
    /// Attempts that have failed since the address was last changed.
    misses: usize,
}

impl Link {
    pub fn new(shared: Arc<Shared>, address: watch::Receiver<String>) -> Link {
        Link { shared, address, jitter: StdRng::from_entropy(), connected_at: None, misses: 0 }
    }

    /// Runs until the queue is closed.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        let (min, max) = shared.network.options.timing.backoff;
        let alive = shared.network.alive(shared.peer);
        let mut attempts = 0_u32;
        loop {
            // Snapshots are rare: their connection is only made when there is one.
            if shared.lane == Lane::Snapshot && !shared.queue.ready().await {
                return;
            }
            self.connected_at = None;
            let ended = self.connect_and_drive().await;
            shared.stats().disconnected();
            if shared.lane == Lane::Control {
                shared.network.note_reached(shared.peer, None);
            }
            match ended {
                End::Closed => return,
                End::Moved => {
                    (attempts, self.misses) = (0, 0);
                    shared.report(&tokio::runtime::Handle::current());
                    self.lost_requests();
                    shared.queue.connected();
                    continue;
                }
                End::Failed(error) => self.failed(&error),
            }
            if shared.queue.is_closed() {
                return;
            }
            let lived = self.connected_at.is_some_and(|at| at.elapsed() >= STABLE);
            attempts = if lived { 1 } else { attempts.saturating_add(1) };
            if attempts >= PATIENCE {
                let dropped = shared.queue.clear();
                shared.stats().dropped_unreached.add(dropped as u64);
                shared.loss.rearm();
            }
            let pause = min.saturating_mul(1 << attempts.min(16).saturating_sub(1)).min(max);
            let pause = pause.mul_f64(self.jitter.gen_range(0.5..=1.0));
            tokio::select! {
                () = sleep(pause) => {}
                // It lives, but an attempt a moment ago has failed: not too eager.
                () = async { sleep(min).await; alive.notified().await } => {}
                moved = self.address.changed() => match moved {
                    Ok(()) => (attempts, self.misses) = (0, 0),
                    Err(_) => return,
                },
            }
        }
    }

    /// Where to try now: at the peer's address, but after some failures in a row at each other place in turn
    /// where it may be.
    fn next_address(&mut self) -> String {
        let url = self.address.borrow_and_update().clone();
        let Some(turn) = (self.misses + 1).checked_sub(USUAL_ATTEMPTS) else { return url };
        let mut places = self.shared.network.alternatives(self.shared.peer, &url);
        places.insert(0, url);
        places.swap_remove(turn % places.len())
    }

    fn failed(&self, error: &io::Error) {
        let shared = &self.shared;
        let text = error.to_string();
        let lane = shared.lane.name();
        if shared.stats().failed(&text) {
            info!(peer = %shared.peer, lane, error = text, "a link to a peer failed");
        } else {
            debug!(peer = %shared.peer, lane, error = text, "a link to a peer failed again");
        }
        shared.report(&tokio::runtime::Handle::current());
        self.lost_requests();
    }

    /// Reports what became of the requests that were passed on to this peer.
    fn lost_requests(&self) {
        let shared = &self.shared;
        if shared.lane == Lane::Bulk {
            let unsent = shared.queue.disconnected();
            // Without room for it, who waits for an answer waits until the time is up.
            shared.network.handle.offer(Input::Disconnected { peer: shared.peer, unsent });
        }
    }

    async fn connect_and_drive(&mut self) -> End {
        let url = self.next_address();
        let connecting = connect(&self.shared, &url);
        let (stream, rtt) = tokio::select! {
            connected = connecting => match connected {
                Ok(connected) => connected,
                Err(error) => {
                    self.misses += 1;
                    return End::Failed(error);
                }
            },
            changed = self.address.changed(), if !self.shared.queue.is_closed() => {
                self.misses = 0;
                return if changed.is_ok() { End::Moved } else { End::Closed };
            }
        };
        self.connected_at = Some(Instant::now());
        if self.shared.lane == Lane::Control {
            self.shared.network.note_reached(self.shared.peer, Some(url));
        }
        self.shared.queue.connected();
        self.shared.stats().connected(rtt);
        debug!(peer = %self.shared.peer, lane = self.shared.lane.name(), ?rtt, "linked to a peer");
        match Driving::new(&self.shared, stream).run(&mut self.address).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }
}

/// Resolves the host anew, connects, speaks TLS if wanted, and shakes hands. Gives the stream and
/// how long the hello took to be answered.
async fn connect(shared: &Shared, url: &str) -> io::Result<(Box<dyn Stream>, Duration)> {
    let options = &shared.network.options;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let at: PeerUrl = url.parse().map_err(invalid)?;
    if at.tls != options.tls.is_some() {
        let (has, wants) = if at.tls { ("https", "plain TCP") } else { ("http", "TLS") };
        return Err(invalid(format!("{url} is {has}, but this node speaks {wants} to its peers")));
    }
    let timing = &options.timing;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{url} does not answer"));
    let stream =
        timeout(timing.connect, dial(&at, options.allow_plaintext)).await.map_err(late)??;
    prepare(&stream)?;
    let shaking = async {
        let mut stream: Box<dyn Stream> = match &options.tls {
            None => Box::new(stream),
            Some(tls) => {
                let (connector, name) = tls.connector(shared.peer)?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        let rtt = shake_hands(shared, &mut stream).await?;
        Ok((stream, rtt))
    };
    timeout(timing.handshake, shaking).await.map_err(late)?
}

async fn dial(at: &PeerUrl, allow_plaintext: bool) -> io::Result<TcpStream> {
    let mut last = None;
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((at.host.as_str(), at.port)).await?.collect();
    for address in found {
        if let Err(why) = check_plaintext(address.ip(), at.tls, allow_plaintext) {
            last = Some(io::Error::new(io::ErrorKind::PermissionDenied, why));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other(format!("`{}` has no address", at.host))))
}

async fn shake_hands(shared: &Shared, stream: &mut Box<dyn Stream>) -> io::Result<Duration> {
    let network = &shared.network;
    let hello = Hello {
        versions: VERSIONS,
        lane: shared.lane.number(),
        cluster: network.cluster(),
        from: network.options.id,
        to: shared.peer,
        life: network.options.life,
        url: network.own_url(),
    };
    stream.write_all(&hello.encode()).await?;
    stream.flush().await?;
    let asked = Instant::now();
    let welcome = Welcome::read(stream).await?;
    let rtt = asked.elapsed();
    judge(shared, &welcome).await.map_err(io::Error::other)?;
    Ok(rtt)
}

/// Says why messages must not follow this answer, if they must not.
async fn judge(shared: &Shared, welcome: &Welcome) -> Result<(), String> {
    let (network, peer) = (&shared.network, shared.peer);
    let own = network.cluster();
    match welcome.status {
        Status::Ok => {}
        Status::WrongCluster => {
            let other = welcome.cluster.map_or("none".to_owned(), |cluster| cluster.to_string());
            return Err(format!("{peer}'s address leads to another cluster ({other})"));
        }
        Status::WrongNode => {
            return Err(format!("{peer}'s address leads to {}: correct it", welcome.id));
        }
        Status::Removed => {
            if own.is_some() && own == welcome.cluster && welcome.id == peer {
                network.told_removed(peer);
            }
            return Err(format!("{peer} says that this node was removed from the cluster"));
        }
        Status::NoCommonVersion => {
            return Err(format!("{peer} speaks no version that this program does: upgrade one"));
        }
        Status::NotAllowed => {
            return Err(format!(
                "{peer} does not accept this node: its certificate is another's, or {peer} is \
                 joining and does not know this node's address"
            ));
        }
        Status::Busy => return Err(format!("{peer} is busy, or is itself joining")),
        Status::OtherLife => {
            if own.is_some() && own == welcome.cluster && welcome.id == peer {
                network.told_other_life(peer);
            }
            return Err(format!("{peer} knows this node by another data directory"));
        }
    }
    if welcome.id != peer {
        return Err(format!("{peer}'s address leads to {}: correct it", welcome.id));
    }
    if !(VERSIONS.0..=VERSIONS.1).contains(&welcome.version) {
        return Err(format!("{peer} chose version {}, which nobody offered", welcome.version));
    }
    let Some(theirs) = welcome.cluster else {
        return Err(format!("{peer} does not know its cluster"));
    };
    match own {
        Some(own) if own == theirs => {}
        Some(_) => return Err(format!("{peer} is a member of another cluster ({theirs})")),
        None if !network.may_learn_from(peer) => {
            return Err(format!(
                "{peer} is not one of the configured addresses, so its cluster is not taken for \
                 ours"
            ));
        }
        None if network.learn(theirs, peer).await => {}
        None => return Err(format!("the cluster {theirs} of {peer} could not be joined")),
    }
    match network.meet(peer, welcome.life).await {
        // What this node sends is no promise to count on; what a stranger sends is looked at as it comes.
        Met::Same | Met::Stranger => Ok(()),
        Met::Other => Err(format!(
            "{peer} has another data directory than the one it was met with: it has forgotten \
             what it promised; put the old one back, or remove it from the cluster"
        )),
        Met::NotNow => Err(format!("that {peer} was met could not be stored")),
    }
}

/// A connection that works.
struct Driving<'a> {
    shared: &'a Arc<Shared>,
    pongs: FrameReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
    buffer: Vec<u8>,
    batch: Vec<Message>,
    /// The newest ping and when it was written, until it is answered.
    asked: Option<(u64, Instant)>,
    pings: u64,
    tokens: Bucket,
}

impl<'a> Driving<'a> {
    fn new(shared: &'a Arc<Shared>, stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let rate = match shared.lane {
            Lane::Snapshot => Some(shared.network.options.snapshot_bytes_per_second),
            Lane::Control | Lane::Bulk => None,
        };
        Driving {
            shared,
            pongs: FrameReader::new(reader, PING_BYTES),
            writer,
            buffer: Vec::new(),
            batch: Vec::new(),
            asked: None,
            pings: 0,
            tokens: Bucket::new(rate),
        }
    }

    /// Carries messages until something ends it.
    async fn run(
        mut self,
        address: &mut watch::Receiver<String>,
    ) -> Result<std::convert::Infallible, End> {
        let timing = &self.shared.network.options.timing;
        let mut pings = interval(timing.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let shared = self.shared;
        loop {
            tokio::select! {
                biased;
                // An acceptor that is alive but never asked says nothing: pings judge that below.
                frame = self.pongs.next(Duration::MAX) => match frame {
                    Ok(Some(Frame::Pong(number))) => self.answered(number),
                    Ok(None) => return Err(closed().into()),
                    Ok(Some(_)) => return Err(chatter().into()),
                    Err(error) => return Err(io::Error::other(error).into()),
                },
                changed = address.changed(), if !shared.queue.is_closed() => {
                    return Err(if changed.is_ok() { End::Moved } else { End::Closed });
                }
                _ = pings.tick() => self.ping(timing.silence).await?,
                open = async { self.tokens.ready().await; shared.queue.ready().await } => {
                    if !open {
                        return Err(End::Closed);
                    }
                    self.write_batch(timing.silence).await?;
                }
            }
        }
    }

    fn answered(&mut self, number: u64) {
        if let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == number) {
            self.shared.stats().answered(asked.elapsed());
        }
    }

    /// Asks whether the peer still reads. At most one question is open.
    async fn ping(&mut self, silence: Duration) -> io::Result<()> {
        match self.asked {
            Some((_, asked)) if asked.elapsed() >= silence => return Err(silent(silence)),
            Some(_) => return Ok(()),
            None => {}
        }
        self.pings += 1;
        self.buffer.clear();
        Frame::Ping(self.pings).encode_into(&mut self.buffer);
        write_all(&mut self.writer, &self.buffer, silence).await?;
        self.shared.stats().sent_bytes.add(self.buffer.len() as u64);
        self.asked = Some((self.pings, Instant::now()));
        Ok(())
    }

    async fn write_batch(&mut self, silence: Duration) -> io::Result<()> {
        let (shared, stats) = (self.shared, self.shared.stats());
        let size = if shared.lane == Lane::Snapshot { 1 } else { BATCH };
        if shared.queue.take(size, &mut self.batch) {
            shared.loss.rearm();
        }
        self.buffer.clear();
        let count = self.batch.len() as u64;
        for message in self.batch.drain(..) {
            message.encode_into(&mut self.buffer);
        }
        self.tokens.spend(self.buffer.len());
        let written = write_all(&mut self.writer, &self.buffer, silence).await;
        match &written {
            Ok(()) => {
                stats.sent.add(count);
                stats.sent_bytes.add(self.buffer.len() as u64);
            }
            Err(_) => stats.dropped_broken.add(count),
        }
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        written
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the peer closed the connection")
}

fn chatter() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer sent messages on a connection of ours")
}

/// Paces writing. Bytes may be spent on credit; what comes next waits until the debt is paid.
struct Bucket {
    /// Bytes per second, if there is a limit.
    rate: Option<f64>,
    /// When the debt is paid.
    free_at: Instant,
}

impl Bucket {
    fn new(rate: Option<u64>) -> Bucket {
        Bucket { rate: rate.map(|rate| rate.max(1) as f64), free_at: Instant::now() }
    }

    fn spend(&mut self, bytes: usize) {
        if let Some(rate) = self.rate {
            let from = self.free_at.max(Instant::now());
            self.free_at = from + Duration::from_secs_f64((bytes as f64 / rate).min(60.0));
        }
    }

    async fn ready(&self) {
        if self.rate.is_some() {
            tokio::time::sleep_until(self.free_at).await;
        }
    }
}

#[cfg(test)]
mod tests;
