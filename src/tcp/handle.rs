//! How the rest of the host talks to the thread that runs the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::api::{Refusal, Reply, Request};
use crate::env::Completion;
use crate::error::Error;
use crate::machine::StateSize;
use crate::node::{Damage, DiskSpace, Load, Membership, Progress, Role, Status};
use crate::tcp::answers::Answer;
use crate::tcp::identity::ClusterId;
use crate::types::{HardState, NodeId, SnapshotId};
use crate::wire::Message;

/// Inputs that may wait for the thread of the node.
const INBOX: usize = 16 * 1024;

/// Requests that may be under way. Fewer than the inbox has room for: clients must never crowd out
/// what peers and the disk have to say.
const MAX_REQUESTS: usize = INBOX / 2;

/// What the thread of the node is told.
pub enum Input {
    /// A peer says something.
    Message(NodeId, Message),
    /// Messages to this peer were dropped, or its connection was lost.
    Unreachable(NodeId),
    /// The connection that carries requests to this peer was lost, with whatever was on it.
    Disconnected {
        /// The peer.
        peer: NodeId,
        /// Ids of forwarded requests that were never on it, and never will be.
        unsent: Vec<u64>,
    },
    /// The disk is done with something.
    Completion(Completion),
    /// A client wants something.
    Request(Request, oneshot::Sender<Answer>),
    /// Somebody wants the state as of now, as a snapshot file.
    Backup(oneshot::Sender<Snapshot>),
    /// A peer of the same cluster knows this node by another data directory.
    OtherLife(NodeId),
    /// The process ends. What is under way is left as it is, as in a crash.
    Stop,
}

/// The state of a node at one index as the pieces of a snapshot file, made while they are taken.
pub type Snapshot = Box<dyn Iterator<Item = Bytes> + Send>;

/// What a node looked like a moment ago.
#[derive(Clone, Debug)]
pub struct View {
    /// The cluster, if this node knows it yet.
    pub cluster: Option<ClusterId>,
    /// The node's own view of itself.
    pub status: Status,
    /// Who belongs to the cluster, as of the applied index.
    pub membership: Arc<Membership>,
    /// Whether the node would still know of that membership after a crash.
    pub membership_is_durable: bool,
    /// If it leads: what it knows of the members.
    pub progress: Vec<Progress>,
    /// Requests and reads that wait in it.
    pub pending: usize,
    /// How much it keeps of everything.
    pub load: Load,
    /// How much the state machine holds.
    pub size: StateSize,
    /// Segments of the write-ahead log.
    pub segments: usize,
    /// Room on its disk.
    pub space: DiskSpace,
    /// What is damaged and not repaired yet.
    pub damage: Option<Damage>,
    /// Why it stopped, if it did.
    pub stopped: Option<Error>,
}

impl View {
    /// What a node looks like before it has read its disk.
    #[must_use]
    pub fn starting(id: NodeId) -> View {
        View {
            cluster: None,
            status: Status {
                id,
                role: Role::Follower,
                hard_state: HardState::default(),
                leader: None,
                applied: SnapshotId::default(),
                first: 0,
                last: SnapshotId::default(),
                snapshot: SnapshotId::default(),
            },
            membership: Arc::default(),
            membership_is_durable: false,
            progress: Vec::new(),
            pending: 0,
            load: Load::default(),
            size: StateSize::default(),
            segments: 0,
            space: DiskSpace::default(),
            damage: None,
            stopped: None,
        }
    }

    /// Whether `id` may be told that it was removed; see
    /// [`Node::membership_is_durable`](crate::node::Node::membership_is_durable).
    #[must_use]
    pub fn has_removed(&self, id: NodeId) -> bool {
        self.membership_is_durable && self.membership.has_left(id)
    }
}

/// A running node. Clones talk to the same node.
#[derive(Clone)]
pub struct Handle {
    inbox: SyncSender<Input>,
    view: watch::Receiver<Arc<View>>,
    requests: Arc<AtomicUsize>,
}

/// The room for inputs: one end for a [`Handle`], one for the thread of the node.
#[must_use]
pub fn inbox() -> (SyncSender<Input>, Receiver<Input>) {
    sync_channel(INBOX)
}

/// A request under way, which takes up room until it is answered or given up.
struct Admission<'a>(&'a AtomicUsize);

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handle {
    /// A handle to the thread that reads the other end of `inbox` and keeps `view` up to date.
    #[must_use]
    pub fn new(inbox: SyncSender<Input>, view: watch::Receiver<Arc<View>>) -> Handle {
        Handle { inbox, view, requests: Arc::default() }
    }

    /// Asks the node and waits for its reply, which comes in bounded time.
    pub async fn request(&self, request: Request) -> Reply {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return Reply::Refused(Refusal::Busy);
        }
        let _admission = Admission(&self.requests);
        let (sender, receiver) = oneshot::channel();
        match self.inbox.try_send(Input::Request(request, sender)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Reply::Refused(Refusal::Busy),
            Err(TrySendError::Disconnected(_)) => return Reply::Refused(Refusal::Stopping),
        }
        // The node went away with the question: what became of it is not known.
        receiver.await.map_or(Reply::Unknown, Answer::take)
    }

    /// The state of this node as of now, as a snapshot file. `None` if the node has stopped or is
    /// too busy.
    pub async fn backup(&self) -> Option<Snapshot> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.try_send(Input::Backup(sender)).ok()?;
        receiver.await.ok()
    }

    /// Tells the node to stop. Blocks while the inbox is full.
    pub fn stop(&self) {
        // If nobody listens any more, the node has stopped already.
        let _ = self.inbox.send(Input::Stop);
    }

    /// Hands over an input without waiting. Says whether there was room for it.
    pub fn offer(&self, input: Input) -> bool {
        self.inbox.try_send(input).is_ok()
    }

    /// Hands over an input without waiting; gives it back if there is no room, or if the node is
    /// gone.
    ///
    /// # Errors
    /// When the input was not taken.
    #[allow(clippy::result_large_err, reason = "the input is given back, as it was given")]
    pub fn hand_over(&self, input: Input) -> Result<(), TrySendError<Input>> {
        self.inbox.try_send(input)
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// For waiting until the view changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }
}
