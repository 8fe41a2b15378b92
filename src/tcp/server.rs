//! A whole node: opens the directory, starts the threads and tasks, and ends them in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::{fmt, thread};

use rand::RngCore;
use rand::rngs::OsRng;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::api::Request;
use crate::env::Completion;
use crate::error::Error;
use crate::machine::StateMachine;
use crate::node::Role;
use crate::tcp::descriptors::{self, Budget};
use crate::tcp::directory::{Directory, DirectoryError, Expected};
use crate::tcp::disk::Files;
use crate::tcp::handle::{Handle, Input, View, inbox};
use crate::tcp::http::{self, HttpOptions, MachineRoutes, Routes, Tokens};
use crate::tcp::identity::ClusterId;
use crate::tcp::joining;
use crate::tcp::journal::{Journal, NodeStats};
use crate::tcp::listener::{Listener, listen};
use crate::tcp::lives::Lives;
use crate::tcp::metrics::host;
use crate::tcp::network::Network;
use crate::tcp::options::Options;
use crate::tcp::peers::Peers;
use crate::tcp::relocation;
use crate::tcp::runner::{End, Runner, World};
use crate::tcp::tls::{PeerTls, Reload, ReloadError, ServerTls, keep_fresh, reload_now};

/// How often certificates are read again.
const CERTIFICATES: Duration = Duration::from_secs(2);

/// For one attempt to hand over leadership, and how many there are.
const HAND_OVER: Duration = Duration::from_secs(1);
const HAND_OVERS: usize = 3;

/// Why a node does not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The settings are wrong; says which and how.
    Settings(String),
    /// The system refused something: a directory, a port, a certificate.
    Io(String),
    /// The node would not start, or stopped.
    Node(Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Settings(message) | ServerError::Io(message) => f.write_str(message),
            ServerError::Node(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<DirectoryError> for ServerError {
    fn from(error: DirectoryError) -> Self {
        match error {
            // It is not the directory that is wrong, but who wants to use it.
            DirectoryError::NotADirectory { .. }
            | DirectoryError::Strangers { .. }
            | DirectoryError::Locked { .. }
            | DirectoryError::WrongNode { .. }
            | DirectoryError::WrongCluster { .. }
            | DirectoryError::NoNode { .. }
            | DirectoryError::Restoring { .. }
            | DirectoryError::Used { .. } => ServerError::Settings(error.to_string()),
            _ => ServerError::Io(error.to_string()),
        }
    }
}

/// How a node's thread came to its end.
#[derive(Debug)]
pub enum Ended {
    /// It was told to.
    Asked,
    /// The node stopped by itself.
    Stopped(Error),
    /// The cluster does not let the node take part with its data directory; says why and what to
    /// do.
    Refused(DirectoryError),
    /// An invariant broke.
    Panicked,
}

/// A running node with its sockets. Dropping it ends it as a crash would, which loses nothing.
pub struct Server {
    handle: Handle,
    client_address: SocketAddr,
    ended: oneshot::Receiver<Ended>,
    thread: Option<thread::JoinHandle<()>>,
    http: tokio::task::JoinHandle<()>,
    shutdown: Option<oneshot::Sender<()>>,
    /// Certificates and tokens.
    secrets: Vec<Arc<dyn Reload>>,
    /// The listener for peers and the keepers of certificates: they end with this value.
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts the node that `options` describe, with `M` as its state machine. Returns when it has read
    /// its disk and listens.
    ///
    /// Clients reach the machine with `POST /v1/command` and `POST /v1/query`, whose bodies are the
    /// machine's own bytes; the routes of every node in [`http`] are there, too. All members of a
    /// cluster must run the same machine, and a data directory must be opened with the machine that has
    /// written it. The node does not check this; a machine may, in
    /// [`restore`](StateMachine::restore).
    ///
    /// # Errors
    /// When a directory, a file, a port or the node itself refuses.
    ///
    /// ```no_run
    /// use bytes::Bytes;
    /// use stormkv::machine::{Chunks, Context, StateMachine};
    /// use stormkv::tcp::Server;
    /// use stormkv::tcp::options::Settings;
    ///
    /// /// A number, and a command that adds one to it.
    /// struct Tally(u64);
    ///
    /// impl StateMachine for Tally {
    ///     type Params = ();
    ///
    ///     fn new((): &()) -> Tally {
    ///         Tally(0)
    ///     }
    ///
    ///     fn apply(&mut self, _: Context, _: &[u8]) -> Bytes {
    ///         self.0 += 1;
    ///         self.0.to_string().into()
    ///     }
    ///
    ///     fn query(&self, _: &[u8]) -> Bytes {
    ///         self.0.to_string().into()
    ///     }
    ///
    ///     fn snapshot(&self) -> Chunks {
    ///         let state = Bytes::copy_from_slice(&self.0.to_le_bytes());
    ///         Box::new(std::iter::once(state))
    ///     }
    ///
    ///     fn restore((): &(), chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Tally, String> {
    ///         let state: Bytes = chunks.flatten().collect();
    ///         let state: [u8; 8] = state[..].try_into().map_err(|_| "a tally has 8 bytes".to_owned())?;
    ///         Ok(Tally(u64::from_le_bytes(state)))
    ///     }
    ///
    ///     fn digest(&self) -> u64 {
    ///         self.0
    ///     }
    /// }
    ///
    /// # async fn example(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    /// // curl http://127.0.0.1:12380/v1/command -d ''
    /// let server = Server::start_with::<Tally>(settings.resolve()?, ()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start_with<M: StateMachine>(
        options: Options,
        params: M::Params,
    ) -> Result<Server, ServerError> {
        Server::start_node::<M, MachineRoutes>(options, params).await
    }

    /// Starts a node with the machine `M`, and the routes `R` beside those of every node.
    async fn start_node<M: StateMachine, R: Routes>(
        options: Options,
        params: M::Params,
    ) -> Result<Server, ServerError> {
        let budget = Budget::of(descriptors::limit(), options.max_connections)
            .map_err(ServerError::Settings)?;
        if budget.clients < options.max_connections {
            let (wanted, allowed) = (options.max_connections, budget.clients);
            warn!(
                wanted,
                allowed,
                "fewer connections of clients than the settings allow, for lack of file \
                 descriptors: raise the hard limit (`ulimit -Hn`)"
            );
        }
        let directory = open(&options)?;
        let (sender, receiver) = inbox();
        let (view, views) = watch::channel(Arc::new(View::starting(options.config.id)));
        let handle = Handle::new(sender.clone(), views);
        let mut tasks = JoinSet::new();

        let mut secrets = Vec::new();
        let network = network(&options, budget, &directory, &handle, &mut secrets)?;
        let http_options = http_options(&options, budget, &mut secrets)?;
        let port = |what, address, error| ServerError::Io(format!("{what} {address}: {error}"));
        let peers = Listener::bind(options.listen_peer, network.clone());
        let peers = peers
            .map_err(|error| port("cannot listen for peers at", options.listen_peer, error))?;
        let clients = listen(options.listen_client);
        let clients = clients.and_then(|clients| Ok((clients.local_addr()?, clients)));
        let (client_address, clients) = clients
            .map_err(|error| port("cannot listen for clients at", options.listen_client, error))?;

        let report = move |completion: Completion| {
            // The node's thread is gone: nobody waits for this any more.
            let _ = sender.send(Input::Completion(completion));
        };
        let files = Files::start(directory.clone(), options.config.segment_bytes, report)
            .map_err(|error| ServerError::Node(Error::Disk(error)))?;
        network.advertise(options.client_url(client_address));
        let stats = NodeStats::default();
        let urls = network.clone();
        let http_options = HttpOptions {
            client_urls: Some(Arc::new(move |id| urls.client_url(id))),
            register: vec![host::register(files.stats(), network.stats().clone(), stats.clone())],
            ..http_options
        };
        // A node that founds its cluster knows it.
        let joins = options.cluster.is_none().then(|| (options.config.id, own_url(&options)));
        info!(
            version = env!("CARGO_PKG_VERSION"),
            node = %options.config.id,
            cluster = network.cluster().map(|cluster| cluster.to_string()),
            clients = %client_address,
            client_tls = options.client_tls.is_some(),
            tokens = options.token_file.is_some(),
            peers = %peers.address(),
            peer_tls = options.peer_tls.is_some(),
            data_dir = %directory.path().display(),
            "listening"
        );
        let beginning = Beginning {
            options,
            directory,
            network: network.clone(),
            files,
            inbox: receiver,
            view,
            stats,
        };
        let (thread, ended) =
            beginning.spawn::<M>(params, tokio::runtime::Handle::current()).await?;

        tasks.spawn(peers.run());
        tasks.spawn(relocation::run(network.clone()));
        if let Some((id, url)) = joins {
            tasks.spawn(joining::remind(handle.clone(), id, url));
        }
        for secret in secrets.iter().filter(|secret| secret.what() != TOKENS) {
            tasks.spawn(keep_fresh(secret.clone(), CERTIFICATES));
        }
        let (shutdown, told) = oneshot::channel();
        let http =
            tokio::spawn(http::serve_routes::<R>(clients, handle.clone(), http_options, async {
                let _ = told.await;
            }));
        Ok(Server {
            handle,
            client_address,
            ended,
            thread: Some(thread),
            http,
            shutdown: Some(shutdown),
            secrets,
            tasks,
        })
    }

    /// For asking the node.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where it listens for clients: the port that it was told, or was given for port 0.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Reads certificates and tokens again, and logs what comes of it. Connections that exist go on;
    /// what cannot be used changes nothing.
    pub async fn reload(&self) {
        if self.secrets.is_empty() {
            info!("there are neither certificates nor tokens to be read again");
        }
        for secret in &self.secrets {
            reload_now(secret.clone()).await;
        }
    }

    /// Waits until the node has come to its end.
    pub async fn ended(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or(Ended::Panicked)
    }

    /// Hands over leadership, finishes the requests in flight, and ends the node.
    pub async fn stop(mut self) -> Ended {
        hand_over(&self.handle).await;
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
        let _ = (&mut self.http).await;
        let handle = self.handle.clone();
        let _ = tokio::task::spawn_blocking(move || handle.stop()).await;
        let ended = self.ended().await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        // Ports and the lock of the directory are free when this returns.
        self.tasks.shutdown().await;
        ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.offer(Input::Stop);
        self.http.abort();
    }
}

/// Opens the data directory as that of the node, and of its cluster if it founds one.
fn open(options: &Options) -> Result<Arc<Directory>, ServerError> {
    let expected = Expected { node: options.config.id, cluster: options.cluster };
    let directory = Directory::open(&options.data_dir, expected)?;
    if directory.is_restoring() {
        let path = directory.path().to_owned();
        return Err(DirectoryError::Restoring { path }.into());
    }
    Ok(Arc::new(directory))
}

/// Where peers reach the node.
fn own_url(options: &Options) -> String {
    options.addresses.get(&options.config.id).map(ToString::to_string).unwrap_or_default()
}

fn network(
    options: &Options,
    budget: Budget,
    directory: &Arc<Directory>,
    handle: &Handle,
    secrets: &mut Vec<Arc<dyn Reload>>,
) -> Result<Arc<Network>, ServerError> {
    let id = options.config.id;
    let tls = match &options.peer_tls {
        None => None,
        Some(files) => {
            let tls = PeerTls::load(id, files.clone())
                .map_err(|error| ServerError::Settings(error.to_string()))?;
            secrets.push(tls.clone());
            Some(tls)
        }
    };
    let mut settings = crate::tcp::network::Options::new(id, directory.life(), own_url(options));
    settings.cluster = directory.cluster();
    settings.initial = options.addresses.iter().map(|(id, url)| (*id, url.to_string())).collect();
    settings.tls = tls;
    settings.allow_plaintext = options.allow_plaintext;
    settings.snapshot_bytes_per_second = options.snapshot_rate;
    settings.max_connections = budget.peers;
    settings.max_handshakes = budget.handshakes;
    let learned = directory.clone();
    let learn = move |cluster: ClusterId| learned.set_cluster(cluster).map_err(io::Error::other);
    let lives = Lives::open(directory.clone())?;
    Ok(Network::new(settings, handle.clone(), Box::new(learn), lives))
}

fn http_options(
    options: &Options,
    budget: Budget,
    secrets: &mut Vec<Arc<dyn Reload>>,
) -> Result<HttpOptions, ServerError> {
    let wrong = ServerError::Settings;
    let mut http = HttpOptions::default();
    http.limits.connections = budget.clients;
    http.limits.surplus = budget.surplus;
    // The node refuses a command that is too long for it, and states its limit.
    http.limits.body = http.limits.body.max(options.config.max_command_bytes);
    http.hosts = options.host_names.clone();
    http.peers.tls = options.peer_tls.is_some();
    http.peers.allow_plaintext = options.allow_plaintext;
    if let Some(files) = &options.client_tls {
        let tls = ServerTls::load(files.clone()).map_err(|error| wrong(error.to_string()))?;
        secrets.push(tls.clone());
        http.client_certificates = files.client_ca.is_some();
        http.tls = Some(Arc::new(move || tls.config()));
    }
    if let Some(path) = &options.token_file {
        let tokens = Arc::new(Tokens::load(path).map_err(wrong)?);
        secrets.push(tokens.clone());
        http.tokens = Some(tokens);
    }
    Ok(http)
}

/// The tokens; the HTTP server looks at their file itself, now and then.
const TOKENS: &str = "tokens";

impl Reload for Tokens {
    fn what(&self) -> &'static str {
        TOKENS
    }

    fn reload(&self) -> Result<bool, ReloadError> {
        Ok(self.reload_now()?)
    }
}

/// What the thread of the node begins with.
struct Beginning {
    options: Options,
    directory: Arc<Directory>,
    network: Arc<Network>,
    files: Files,
    inbox: Receiver<Input>,
    view: watch::Sender<Arc<View>>,
    stats: NodeStats,
}

impl Beginning {
    /// Starts the thread, and waits until the node has read its disk.
    async fn spawn<M: StateMachine>(
        self,
        params: M::Params,
        runtime: tokio::runtime::Handle,
    ) -> Result<(thread::JoinHandle<()>, oneshot::Receiver<Ended>), ServerError> {
        let (begun, beginning) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (path, node) = (self.directory.path().to_owned(), self.options.config.id);
        let run = move || match self.start::<M>(params, runtime) {
            Ok(runner) => {
                let _ = begun.send(Ok(()));
                let _ = end.send(match runner.run() {
                    End::Asked => Ended::Asked,
                    End::Stopped(error) => Ended::Stopped(error),
                    End::OtherLife(peers) => {
                        Ended::Refused(DirectoryError::OtherLife { path, node, peers })
                    }
                });
            }
            Err(error) => {
                let _ = begun.send(Err(error));
            }
        };
        let name = "stormkv-node".to_owned();
        let thread = thread::Builder::new().name(name).spawn(run);
        let thread = thread.map_err(|error| ServerError::Io(format!("no thread: {error}")))?;
        match beginning.await {
            Ok(Ok(())) => Ok((thread, ended)),
            Ok(Err(error)) => Err(ServerError::Node(error)),
            Err(_) => Err(ServerError::Io("the node panicked while it started".to_owned())),
        }
    }

    fn start<M: StateMachine>(
        self,
        params: M::Params,
        runtime: tokio::runtime::Handle,
    ) -> Result<Runner<M>, Error> {
        let mut config = self.options.config;
        // Not a counter in the directory: a backup of the whole disk would bring an old one back.
        config.incarnation = OsRng.next_u64();
        config.seed = OsRng.next_u64();
        let peers = Peers::new(self.network.clone(), runtime.clone());
        let journal = Journal::new(config.id, self.stats);
        let world = World::new(runtime, self.files, peers, journal);
        let addresses = self.options.addresses.iter();
        let initial = addresses.map(|(id, url)| (*id, url.to_string())).collect();
        let network = self.network;
        let cluster = Box::new(move || network.cluster());
        Runner::start(params, config, world, initial, self.inbox, self.view, cluster)
    }
}

/// If this node leads, lets the voter that has the most of the log lead instead.
async fn hand_over(handle: &Handle) {
    let mut tried = Vec::new();
    while tried.len() < HAND_OVERS {
        let view = handle.view();
        let (id, role) = (view.status.id, view.status.role);
        if role != Role::Leader {
            return;
        }
        let heir = view
            .progress
            .iter()
            .filter(|member| member.id != id && view.membership.voters().contains(&member.id))
            .filter(|member| !tried.contains(&member.id))
            .max_by_key(|member| (member.recent_active, member.matched, member.id));
        let Some(heir) = heir else { return };
        tried.push(heir.id);
        let reply = handle.request(Request::Transfer(heir.id)).await;
        let mut views = handle.watch();
        let gone = views.wait_for(|view| view.status.role != Role::Leader);
        let term = view.status.hard_state.term;
        match timeout(HAND_OVER, gone).await {
            // Without a quorum it steps down in the same term.
            Ok(Ok(view)) if view.status.hard_state.term == term => {
                return info!(term, "stepped down before leadership was handed over");
            }
            Ok(_) => return info!(to = %heir.id, "handed over leadership"),
            Err(_) => warn!(to = %heir.id, ?reply, "the hand-over of leadership took too long"),
        }
    }
}

mod kv;
#[cfg(test)]
mod security;
#[cfg(test)]
mod tests;
