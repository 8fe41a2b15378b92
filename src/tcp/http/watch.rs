//! Connections that waste time are cut off.
//!
//! Each connection says what it is doing and since when, in one atomic word, and one task looks at
//! all of them a few times a second. So a request costs no timer, and the time for a head (which a
//! slow client must not stretch) is told apart from the time that a connection may rest between
//! two requests, which hyper's one timeout cannot.
//!
//! | phase | begins | limit |
//! |---|---|---|
//! | fresh | accepted | header |
//! | head | first byte of a request | header |
//! | busy | the head is complete | none: bodies and the node have limits of their own |
//! | streaming | the response has begun, and is made while it is sent | as answering |
//! | answering | the response is made | sending, while no byte of it is taken; see below |
//! | idle | the response is sent | idle |
//!
//! A connection that has had no request under way for a second is worth little: it may be displaced by a
//! new one when all are in use (see `accept.rs`). One address may have only so many at rest.
//!
//! A long answer holds memory, or a version of the whole state, until it is taken. So a client must
//! not only take a byte now and then: as a whole, an answer may last as long as `sending`, and for
//! its bytes at a low rate.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

const FRESH: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;
const ANSWERING: u64 = 3;
const IDLE: u64 = 4;
const STREAMING: u64 = 5;

/// The phase is in the low bits, the milliseconds above.
const PHASE_BITS: u32 = 3;

/// After so long without a request under way a connection may be displaced.
const REST: Duration = Duration::from_secs(1);

/// How long a connection may stay in a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub header: Duration,
    pub idle: Duration,
    pub sending: Duration,
    /// Bytes per second of an answer, at least.
    pub rate: u64,
}

/// What one connection is doing.
#[derive(Debug)]
pub(crate) struct Watched {
    address: IpAddr,
    clock: Arc<AtomicU64>,
    phase: AtomicU64,
    /// Since when the client has taken no byte, in milliseconds; 0 if it does.
    stalled: AtomicU64,
    /// Bytes of the present answer that were taken. Only the connection's own task writes it.
    sent: AtomicU64,
}

impl Watched {
    fn enter(&self, phase: u64) {
        let now = self.clock.load(Ordering::Relaxed);
        self.phase.store(now << PHASE_BITS | phase, Ordering::Relaxed);
    }

    fn phase(&self) -> u64 {
        self.phase.load(Ordering::Relaxed) & ((1 << PHASE_BITS) - 1)
    }

    /// Since when it is in its phase, in milliseconds.
    fn since(&self) -> u64 {
        self.phase.load(Ordering::Relaxed) >> PHASE_BITS
    }

    /// Whether a new connection is worth more.
    fn is_displaceable(&self) -> bool {
        let waited = self.clock.load(Ordering::Relaxed).saturating_sub(self.since());
        matches!(self.phase(), IDLE | FRESH | HEAD) && u128::from(waited) >= REST.as_millis()
    }

    /// A request has arrived.
    pub fn busy(&self) {
        self.enter(BUSY);
    }

    /// The response is made, and only has to be sent.
    pub fn answering(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.enter(ANSWERING);
    }

    /// The response has begun, and the rest is made while it is sent.
    pub fn streaming(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.enter(STREAMING);
    }
}

/// Looks after all connections of a server.
pub(super) struct Watchdog {
    began: Instant,
    /// Milliseconds, as of the last look; from 1, as 0 means "not".
    clock: Arc<AtomicU64>,
    patience: Patience,
    /// Connections of one address that may rest.
    idle_per_address: usize,
    connections: Mutex<Vec<(Weak<Watched>, AbortHandle)>>,
}

#[allow(clippy::disallowed_methods, reason = "a host knows the time")]
fn now() -> Instant {
    Instant::now()
}

impl Watchdog {
    pub fn new(patience: Patience, idle_per_address: usize) -> Watchdog {
        let (began, clock) = (now(), Arc::new(AtomicU64::new(1)));
        Watchdog { began, clock, patience, idle_per_address, connections: Mutex::default() }
    }

    /// How often to [`look`](Self::look): often enough for the shortest limit.
    pub fn period(&self) -> Duration {
        let Patience { header, idle, sending, .. } = self.patience;
        (header.min(idle).min(sending) / 8)
            .clamp(Duration::from_millis(5), Duration::from_millis(250))
    }

    /// A new connection.
    pub fn watched(&self, address: IpAddr) -> Arc<Watched> {
        let watched = Watched {
            address,
            clock: Arc::clone(&self.clock),
            phase: AtomicU64::default(),
            stalled: AtomicU64::default(),
            sent: AtomicU64::default(),
        };
        watched.enter(FRESH);
        Arc::new(watched)
    }

    /// Cuts the connection off by ending its task, should it come to that.
    pub fn add(&self, watched: &Arc<Watched>, task: AbortHandle) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push((Arc::downgrade(watched), task));
    }

    /// Cuts off a connection without a request under way, so that another can have its place: of the
    /// address that has most of them, the one that has rested longest. Returns whether there was one.
    pub fn displace(&self) -> bool {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_address: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let mut candidates = Vec::new();
        for (at, (watched, _)) in connections.iter().enumerate() {
            let Some(watched) = watched.upgrade().filter(|watched| watched.is_displaceable())
            else {
                continue;
            };
            *of_address.entry(watched.address).or_default() += 1;
            candidates.push((watched.address, watched.since(), at));
        }
        let worst = candidates
            .iter()
            .min_by_key(|(address, since, _)| (std::cmp::Reverse(of_address[address]), *since));
        let Some(&(_, _, at)) = worst else { return false };
        let (_, task) = connections.swap_remove(at);
        task.abort();
        true
    }

    /// Cuts off those that have rested longest of an address that has too many at rest. Returns their
    /// number.
    pub fn thin_out(&self) -> u64 {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle: BTreeMap<IpAddr, Vec<u64>> = BTreeMap::new();
        let resting =
            |watched: &Weak<Watched>| watched.upgrade().filter(|watched| watched.phase() == IDLE);
        for watched in connections.iter().filter_map(|(watched, _)| resting(watched)) {
            idle.entry(watched.address).or_default().push(watched.since());
        }
        // Of each address with too many: how many must go, and when the last of them began to rest.
        let mut surplus: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (address, mut since) in idle {
            if let Some(count) = since.len().checked_sub(self.idle_per_address + 1) {
                let (_, last, _) = since.select_nth_unstable(count);
                surplus.insert(address, (count + 1, *last));
            }
        }
        let mut closed = 0;
        connections.retain(|(watched, task)| {
            let Some(watched) = resting(watched) else { return true };
            match surplus.get_mut(&watched.address) {
                Some((count, last)) if *count > 0 && watched.since() <= *last => {
                    *count -= 1;
                    closed += 1;
                    task.abort();
                    false
                }
                _ => true,
            }
        });
        closed
    }

    /// Cuts off those whose time is up, and, if the server is about to stop, those that do nothing.
    /// Says how many were too slow.
    pub fn look(&self, stopping: bool) -> u64 {
        let now = 1 + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX >> 4);
        self.clock.store(now, Ordering::Relaxed);
        let mut slow = 0;
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(watched, task)| {
            let Some(watched) = watched.upgrade() else { return false };
            let late = self.is_late(&watched, now);
            slow += u64::from(late);
            let goes = late || (stopping && matches!(watched.phase(), FRESH | IDLE));
            if goes {
                task.abort();
            }
            !goes
        });
        slow
    }

    fn is_late(&self, watched: &Watched, now: u64) -> bool {
        let over =
            |since: u64, limit: Duration| u128::from(now.saturating_sub(since)) > limit.as_millis();
        let stalled = watched.stalled.load(Ordering::Relaxed);
        let since = watched.since();
        (stalled > 0 && over(stalled, self.patience.sending))
            || match watched.phase() {
                FRESH | HEAD => over(since, self.patience.header),
                IDLE => over(since, self.patience.idle),
                ANSWERING | STREAMING => {
                    let sent = watched.sent.load(Ordering::Relaxed);
                    let rate = self.patience.rate.max(1);
                    let earned = Duration::from_millis(sent.saturating_mul(1000) / rate);
                    over(since, self.patience.sending.saturating_add(earned))
                }
                _ => false,
            }
    }
}

/// A stream whose connection is watched.
pub(super) struct WatchedStream<S> {
    pub stream: S,
    pub watched: Arc<Watched>,
}

impl<S> WatchedStream<S> {
    /// Notes whether a write has to wait for the client.
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let stalled = &self.watched.stalled;
        if result.is_ready() {
            // Mostly it was 0, and a load is cheaper than a store.
            if stalled.load(Ordering::Relaxed) != 0 {
                stalled.store(0, Ordering::Relaxed);
            }
            if let Poll::Ready(Ok(count)) = result {
                let sent = self.watched.sent.load(Ordering::Relaxed);
                self.watched.sent.store(sent + count as u64, Ordering::Relaxed);
            }
        } else if stalled.load(Ordering::Relaxed) == 0 {
            stalled.store(self.watched.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && matches!(self.watched.phase(), FRESH | IDLE) {
            self.watched.enter(HEAD);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        // Hyper flushes the stream only when it has handed over all it has.
        if matches!(result, Poll::Ready(Ok(()))) && self.watched.phase() == ANSWERING {
            self.watched.enter(IDLE);
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
