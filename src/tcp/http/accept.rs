//! Connections: accepted, counted, wrapped in TLS, watched, and ended in good order.
//!
//! This is a loop of our own because `axum::serve` and its like bound nothing: not the number of
//! connections, not the time for a handshake or a head. When the process has no file descriptor
//! left, the loop pauses; the connections that wait then wait in the kernel's queue.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::body::Body;
use super::error::Code;
use super::service::{Service, now};
use super::watch::{Patience, Watchdog, Watched, WatchedStream};
use super::{HttpOptions, Limits, TlsSource};

/// How long to pause when the process or the machine has run out of something.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

/// Surplus connections that are told so at the same time; more are just closed.
const MAX_TURNED_AWAY: usize = 64;

/// How long a surplus client may take to read that.
const TURN_AWAY_PATIENCE: Duration = Duration::from_secs(1);

/// How often the token file is looked at.
const RELOAD_PERIOD: Duration = Duration::from_secs(1);

/// Where connections come from. A listener, or a test.
pub(super) trait Accept {
    fn accept(&mut self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Runs the accept loop until `shutdown`, then waits for the requests in flight.
pub(super) struct Server {
    service: Arc<Service>,
    watchdog: Arc<Watchdog>,
    limits: Limits,
    tls: Option<TlsSource>,
    places: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Server {
    pub fn new(service: Arc<Service>, options: &HttpOptions) -> Server {
        let limits = options.limits.clone();
        let patience = Patience {
            header: limits.header,
            idle: limits.idle,
            sending: limits.sending,
            rate: limits.rate,
        };
        let watchdog = Arc::new(Watchdog::new(patience));
        Server {
            service,
            watchdog,
            tls: options.tls.clone(),
            places: Arc::new(Semaphore::new(limits.connections)),
            limits,
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
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
    fn accepted(&mut self, accepted: io::Result<TcpStream>) -> Result<(), Duration> {
        match accepted {
            Ok(stream) => {
                self.welcome(stream);
                Ok(())
            }
            // The client has gone already; the next one may be there.
            Err(error) if is_of_one_connection(&error) => Ok(()),
            Err(error) => {
                self.service.metrics.accept_failed();
                warn!(%error, "cannot accept connections: if files ran out, raise `ulimit -n`");
                Err(OUT_OF_FILES_PAUSE)
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.service.metrics.turned_away();
            self.turn_away(stream);
            return;
        };
        let watched = self.watchdog.watched();
        let connection = Connection {
            service: Arc::clone(&self.service),
            watched: Arc::clone(&watched),
            limits: self.limits.clone(),
        };
        let tls = self.tls.as_ref().map(|current| TlsAcceptor::from(current()));
        let task = self.connections.spawn(connection.serve(stream, tls, place));
        self.watchdog.add(&watched, task);
    }

    /// Says that there are too many, if that can be done quickly.
    fn turn_away(&mut self, mut stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        if self.tls.is_some() {
            return;
        }
        let limit = self.limits.connections;
        self.connections.spawn(async move {
            let body = serde_json::json!({
                "code": Code::Busy.name(),
                "message": format!("all {limit} connections are in use: try again later"),
            });
            let body = body.to_string();
            let response = format!(
                "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
                 retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            // Reads what the client has to say, too: closing over it would reset the connection,
            // and the answer might be lost.
            let answer = async {
                stream.write_all(response.as_bytes()).await?;
                stream.shutdown().await?;
                let mut ignored = [0; 4096];
                while stream.read(&mut ignored).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = timeout(TURN_AWAY_PATIENCE, answer).await;
            drop(place);
        });
    }

    fn look(&self) {
        let slow = self.watchdog.look(self.service.stopping.load(Ordering::Relaxed));
        self.service.metrics.cut_off(slow);
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
struct Connection {
    service: Arc<Service>,
    watched: Arc<Watched>,
    limits: Limits,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>, place: OwnedSemaphorePermit) {
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
        drop(place);
    }

    async fn speak_http(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let io = TokioIo::new(WatchedStream { stream, watched: Arc::clone(&self.watched) });
        let max_head = self.limits.head;
        let this = Arc::new(self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            this.watched.busy();
            async move {
                let response = this.service.handle(request, &this.watched).await;
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
        let _ = builder.serve_connection(io, service).await;
    }
}
