//! Nodes on real sockets for the transport's tests: all but the node itself, whose inbox is read by
//! the test.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::api::{Reconfigure, Request};
use crate::config::Config;
use crate::digest::Digest;
use crate::machine::{Chunks, Context, StateMachine, StateSize};
use crate::node::{DiskSpace, Load, Membership, Role, Status};
use crate::tcp::directory::{Directory, Expected};
use crate::tcp::handle::{Handle, Input, View};
use crate::tcp::identity::{ClusterId, Life};
use crate::tcp::listener::Listener;
use crate::tcp::lives::Lives;
use crate::tcp::network::{LearnCluster, Network, Options};
use crate::tcp::peers::Peers;
use crate::tcp::scratch::Scratch;
use crate::types::{HardState, NodeId, SnapshotId};
use crate::wire::{Chunk, Message, RaftMessage};

/// A machine that is no key-value store: one value, of which it counts nothing. A command replaces the
/// value and is answered with the one before; a query is answered with the value.
pub struct Register {
    value: Bytes,
}

impl StateMachine for Register {
    type Params = ();

    fn new((): &()) -> Register {
        Register { value: Bytes::new() }
    }

    fn apply(&mut self, _: Context, command: &[u8]) -> Bytes {
        std::mem::replace(&mut self.value, Bytes::copy_from_slice(command))
    }

    fn query(&self, _: &[u8]) -> Bytes {
        self.value.clone()
    }

    fn snapshot(&self) -> Chunks {
        Box::new(std::iter::once(self.value.clone()))
    }

    fn restore((): &(), chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Register, String> {
        Ok(Register { value: chunks.flatten().collect() })
    }

    fn digest(&self) -> u64 {
        Digest::new(0).bytes(&self.value).finish()
    }
}

/// Waits until `holds`; a test that waits this long has failed.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let begun = Instant::now();
    async move {
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "never happened: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

pub fn cluster(number: u64) -> Option<ClusterId> {
    ClusterId::from_number(number)
}

/// The life of this number.
pub fn life(number: u64) -> Life {
    Life::from_number(number).unwrap()
}

pub fn forward(id: u64, bytes: usize) -> Message {
    let request = Request::Command { session: None, command: Bytes::from(vec![7; bytes]) };
    Message::Forward { id, request }
}

pub fn heartbeat(from: u64, to: u64, commit: u64) -> Message {
    let mut message = eraftpb::Message::default();
    message.set_msg_type(MessageType::MsgHeartbeat);
    (message.from, message.to, message.term, message.commit) = (from, to, 1, commit);
    Message::Raft(RaftMessage::new(message))
}

pub fn chunk(transfer: u64, offset: u64, bytes: usize) -> Message {
    let (snapshot, data) = (SnapshotId { index: 1, term: 1 }, Bytes::from(vec![1; bytes]));
    Message::Chunk(Chunk { transfer, term: 1, snapshot, total: 1 << 30, offset, data })
}

/// The members in the view of a node, unless its test says otherwise.
const MEMBERS: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

/// A view in which these are the members, except those that were removed.
fn view(members: &[u64], removed: &[u64]) -> Arc<View> {
    let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
    let founded = Membership::founded_by(&Config::new(NodeId(1), ids(members)));
    let mut state = founded.to_raft();
    state.voters.retain(|id| !removed.contains(id));
    let change = Reconfigure { removed: ids(removed), ..Reconfigure::default() };
    let none = SnapshotId::default();
    Arc::new(View {
        cluster: None,
        status: Status {
            id: NodeId(1),
            role: Role::Follower,
            hard_state: HardState::default(),
            leader: None,
            applied: none,
            first: 1,
            last: none,
            snapshot: none,
        },
        membership: Arc::new(founded.changed(&state, &change.into())),
        membership_is_durable: true,
        progress: Vec::new(),
        pending: 0,
        load: Load::default(),
        size: StateSize::default(),
        segments: 1,
        space: DiskSpace::default(),
        damage: None,
        stopped: None,
    })
}

/// Where log lines of a test go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `act` logs at info and above.
pub fn logged(act: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// One node without its core.
pub struct TestNode {
    pub id: NodeId,
    pub network: Arc<Network>,
    pub peers: Peers,
    pub inbox: Receiver<Input>,
    pub url: String,
    /// The clusters that were stored.
    pub learned: Arc<Mutex<Vec<ClusterId>>>,
    view: watch::Sender<Arc<View>>,
    /// Its data directory.
    pub scratch: Scratch,
    listener: Option<JoinHandle<()>>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

/// A port that nobody listens at, and that the system gives to nobody: below those it hands out.
pub fn free_port() -> u16 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = u64::from(std::process::id()) * 64 + NUMBER.fetch_add(1, SeqCst);
        let port = 10_000 + (number % 20_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl TestNode {
    /// A member of cluster 7 that listens on a free port.
    pub async fn start(id: u64) -> TestNode {
        TestNode::with(id, |options| options.cluster = cluster(7)).await
    }

    /// A node with other options.
    pub async fn with(id: u64, change: impl FnOnce(&mut Options)) -> TestNode {
        let scratch = Scratch::new();
        let expected = Expected { node: NodeId(id), cluster: None };
        let directory = Arc::new(Directory::open(scratch.path(), expected).unwrap());
        let mut options = Options::new(NodeId(id), directory.life(), String::new());
        change(&mut options);
        let port = free_port();
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        options.url = format!("{scheme}://127.0.0.1:{port}");
        let url = options.url.clone();
        let (sender, inbox) = sync_channel(10_000);
        let (view, watched) = watch::channel(view(&MEMBERS, &[]));
        let learned: Arc<Mutex<Vec<ClusterId>>> = Arc::default();
        let stored = learned.clone();
        let learn: LearnCluster = Box::new(move |cluster| -> io::Result<()> {
            stored.lock().unwrap().push(cluster);
            Ok(())
        });
        let lives = Lives::open(directory).unwrap();
        let network = Network::new(options, Handle::new(sender, watched), learn, lives);
        let peers = Peers::new(network.clone(), Runtime::current());
        let id = NodeId(id);
        let mut node =
            TestNode { id, network, peers, inbox, url, learned, view, scratch, listener: None };
        node.listen().await;
        node
    }

    /// What it has stored about its peers.
    pub fn peers_file(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("peers.toml")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    pub async fn listen(&mut self) {
        let address = ([127, 0, 0, 1], self.port()).into();
        let listener = Listener::bind(address, self.network.clone()).unwrap();
        self.listener = Some(tokio::spawn(listener.run()));
    }

    /// Closes the listening socket and all connections that came through it.
    pub async fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            // Cancelled, as asked for; from here on the port is free.
            let _ = listener.await;
        }
    }

    /// Knows where these are.
    pub fn meet(&mut self, others: &[&TestNode]) {
        let addresses: BTreeMap<_, _> = others.iter().map(|o| (o.id, o.url.clone())).collect();
        self.peers.update_addresses(&addresses);
    }

    pub fn remove(&self, removed: &[u64]) {
        self.view.send_replace(view(&MEMBERS, removed));
    }

    /// Knows these members.
    pub fn know(&self, members: &[u64]) {
        self.view.send_replace(view(members, &[]));
    }

    /// The next input.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Input> {
        let begun = Instant::now();
        async move {
            loop {
                if let Ok(input) = self.inbox.try_recv() {
                    return input;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "nothing arrived");
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The next message; skips reports of unreachable peers.
    pub async fn message(&mut self) -> (NodeId, Message) {
        loop {
            if let Input::Message(from, message) = self.next().await {
                return (from, message);
            }
        }
    }
}
