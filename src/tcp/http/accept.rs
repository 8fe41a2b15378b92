//! Connections: accepted, counted, wrapped in TLS, watched, and ended in good order.
//!
//! This is a loop of our own because `axum::serve` and its like bound nothing: not the number of
//! connections, not the time for a handshake or a head. When the process has no file descriptor
//! left, the loop pauses; the connections that wait then wait in the kernel's queue.
//!
//! When all connections are in use, one that has had no request under way for a second gives way to a new
//! one. If there is none, the new one is a *surplus* connection: it gets one answer, and only about the state of the
//! node, so that an overloaded node can still be watched. Surplus connections have few places, and a
//! silent one keeps nobody out: see [`pending`](crate::tcp::pending).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::body::Body;
use super::error::{ApiError, Code};
use super::routes::{Route, Routes};
use super::service::{Service, now};
use super::watch::{Patience, Watchdog, Watched, WatchedStream};
use super::{HttpOptions, Limits, TlsSource};
use crate::tcp::descriptors::Shortage;
use crate::tcp::pending::{Pending, Place, Stage};

/// How long to pause when the process or the machine has run out of something.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

/// For a connection that was asked to end to have ended, so that another can have its place.
const DISPLACEMENT: Duration = Duration::from_secs(1);

/// For a client to close its side after its last answer, and the bytes that it may still send.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 4 << 20;

/// How often the token file is looked at.
const RELOAD_PERIOD: Duration = Duration::from_secs(1);

/// Where connections come from. A listener, or a test.
pub(super) trait Accept {
    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

/// Runs the accept loop until `shutdown`, then waits for the requests in flight.
pub(super) struct Server<R> {
    service: Arc<Service<R>>,
    watchdog: Arc<Watchdog>,
    limits: Limits,
    tls: Option<TlsSource>,
    places: Arc<Semaphore>,
    surplus: Arc<Pending>,
    /// A connection that waits for a place among the surplus ones.
    held: Option<(TcpStream, SocketAddr)>,
    shortage: Shortage,
    connections: JoinSet<()>,
}

impl<R: Routes> Server<R> {
    pub fn new(service: Arc<Service<R>>, options: &HttpOptions) -> Server<R> {
        let limits = options.limits.clone();
        let patience = Patience {
            header: limits.header,
            idle: limits.idle,
            sending: limits.sending,
            rate: limits.rate,
        };
        let idle = match limits.idle_per_address {
            0 => limits.connections.div_ceil(2),
            idle => idle,
        };
        let watchdog = Arc::new(Watchdog::new(patience, idle));
        Server {
            service,
            watchdog,
            tls: options.tls.clone(),
            places: Arc::new(Semaphore::new(limits.connections)),
            surplus: Pending::new(limits.surplus),
            held: None,
            shortage: Shortage::default(),
            limits,
            connections: JoinSet::new(),
        }
    }

    pub async fn run(mut self, mut source: impl Accept, shutdown: impl Future<Output = ()>) {
        let mut look = interval(self.watchdog.period());
        let mut reload = interval(RELOAD_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reload.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown);
        // Waits apart from accepting, so that a pause does not keep the watchdog from its work.
        let mut pause = std::pin::pin!(sleep(Duration::ZERO));
        loop {
            if pause.is_elapsed()
                && let Some((stream, address)) = self.held.take()
                && let Err(wait) = self.welcome(stream, address)
            {
                pause.set(sleep(wait));
            }
            tokio::select! {
                () = &mut shutdown => break,
                accepted = source.accept(), if pause.is_elapsed() => {
                    if let Err(wait) = self.accepted(accepted) {
                        pause.set(sleep(wait));
                    }
                }
                () = &mut pause, if !pause.is_elapsed() => {}
                Some(ended) = self.connections.join_next() => report(ended),
                _ = look.tick() => self.look(),
                _ = reload.tick() => self.reload(),
            }
        }
        // Nobody is accepted any more, and new ones shall not queue up.
        drop(source);
        self.drain().await;
    }

    /// Deals with what came of accepting, or says how long to pause before the next.
    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> Result<(), Duration> {
        match accepted {
            Ok((stream, address)) => {
                self.shortage = Shortage::default();
                self.welcome(stream, address)
            }
            // The client has gone already; the next one may be there.
            Err(error) if is_of_one_connection(&error) => Ok(()),
            Err(error) => {
                self.service.metrics.accept_failed();
                if let Some(waited) = self.shortage.warn() {
                    warn!(
                        %error, ?waited,
                        "cannot accept connections: if files ran out, raise `ulimit -n`"
                    );
                }
                Err(OUT_OF_FILES_PAUSE)
            }
        }
    }

    /// Serves a connection, or holds it and says how long to pause before the next attempt.
    fn welcome(&mut self, stream: TcpStream, address: SocketAddr) -> Result<(), Duration> {
        let watched = self.watchdog.watched(address.ip());
        let connection = Connection {
            service: Arc::clone(&self.service),
            watched: Arc::clone(&watched),
            limits: self.limits.clone(),
            surplus: None,
        };
        let tls = self.tls.as_ref().map(|current| TlsAcceptor::from(current()));
        let places = Arc::clone(&self.places);
        let task = if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            self.connections.spawn(connection.serve(stream, tls, place))
        } else if self.watchdog.displace() {
            self.service.metrics.closed_idle(1);
            self.connections.spawn(async move {
                let place = timeout(DISPLACEMENT, places.acquire_owned()).await;
                if let Ok(Ok(place)) = place {
                    connection.serve(stream, tls, place).await;
                }
            })
        } else {
            match self.surplus.try_enter(address.ip()) {
                Ok(place) => self.connections.spawn(connection.serve_surplus(stream, tls, place)),
                Err(wait) => {
                    self.held = Some((stream, address));
                    return Err(wait);
                }
            }
        };
        self.watchdog.add(&watched, task);
        Ok(())
    }

    fn look(&self) {
        let slow = self.watchdog.look(self.service.stopping.load(Ordering::Relaxed));
        self.service.metrics.cut_off(slow);
        self.service.metrics.closed_idle(self.watchdog.thin_out());
    }

    fn reload(&self) {
        let Some(tokens) = &self.service.tokens else { return };
        match tokens.reload() {
            Ok(false) => {}
            Ok(true) => info!("the token file has changed and was read again"),
            Err(error) => warn!(error, "the old tokens stay valid"),
        }
    }

    /// Lets the requests in flight finish, for a bounded time.
    async fn drain(mut self) {
        self.service.stopping.store(true, Ordering::Relaxed);
        let began = now();
        while !self.connections.is_empty() && began.elapsed() < self.limits.grace {
            self.look();
            if let Ok(Some(ended)) =
                timeout(self.watchdog.period(), self.connections.join_next()).await
            {
                report(ended);
            }
        }
        let left = self.connections.len();
        if left > 0 {
            warn!(left, "ended connections whose requests did not finish in time");
        }
        self.connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a panic: this is a bug");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// One connection and what it needs.
struct Connection<R> {
    service: Arc<Service<R>>,
    watched: Arc<Watched>,
    limits: Limits,
    /// The place of a surplus connection.
    surplus: Option<Arc<Place>>,
}

impl<R: Routes> Connection<R> {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>, place: OwnedSemaphorePermit) {
        self.speak(stream, tls).await;
        drop(place);
    }

    /// Serves one request, unless a newer connection needs the place before it has arrived.
    async fn serve_surplus(self, stream: TcpStream, tls: Option<TlsAcceptor>, mut place: Place) {
        let evicted = place.evicted();
        let limit = self.limits.surplus_time;
        let place = Arc::new(place);
        let this = Connection { surplus: Some(Arc::clone(&place)), ..self };
        let serve = async {
            if stream.peek(&mut [0]).await.is_ok() {
                place.reached(Stage::Speaking);
                this.speak(stream, tls).await;
            }
        };
        tokio::select! {
            () = evicted => {}
            _ = timeout(limit, serve) => {}
        }
    }

    async fn speak(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let service = Arc::clone(&self.service);
        let _open = service.metrics.connected();
        // Without it an answer may wait 40 ms for the acknowledgement of the one before.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match tls {
            None => self.speak_http(stream).await,
            Some(tls) => match timeout(self.limits.handshake, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.speak_http(stream).await,
                Ok(Err(_)) | Err(_) => service.metrics.handshake_failed(),
            },
        }
    }

    async fn speak_http(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let watched = Arc::clone(&self.watched);
        let io = TokioIo::new(WatchedStream { stream: &mut stream, watched });
        let max_head = self.limits.head;
        let this = Arc::new(self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            this.watched.busy();
            async move {
                let response = this.answer(request).await;
                match response.body() {
                    Body::Full(_) => this.watched.answering(),
                    Body::Stream { .. } => this.watched.streaming(),
                }
                Ok::<_, Infallible>(response)
            }
        });
        // No timer: see `watch.rs`.
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_header_size(max_head);
        // An error is the client's, who has gone or does not speak HTTP; hyper has said so.
        if builder.serve_connection(io, service).await.is_ok() {
            let _ = timeout(LINGER, linger(&mut stream)).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(place) = &self.surplus else {
            return self.service.handle(request, &self.watched).await;
        };
        let route = Route::<R>::find(request.uri().path());
        let monitors = route.is_ok_and(|route| route.is_monitoring());
        let mut response = if monitors {
            place.reached(Stage::Introduced);
            self.service.handle(request, &self.watched).await
        } else {
            self.service.metrics.turned_away();
            let message = format!(
                "all {} connections are in use, so nothing was done: close those that are not \
                 needed, or try again later",
                self.limits.connections
            );
            ApiError::new(Code::TooManyConnections, message).into_response()
        };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Reads what the client still sends. Closing over it would reset the connection, and the last answer
/// might be lost.
async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut ignored = vec![0; 16 << 10];
    let mut read = 0;
    while read < MAX_LINGER_BYTES
        && let Ok(count @ 1..) = stream.read(&mut ignored).await
    {
        read += count;
    }
}
