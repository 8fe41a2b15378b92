//! The nodes that the tests talk to.

#![allow(clippy::disallowed_methods, reason = "a node has a thread of its own, and real time")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::api::{Reply, Request, RequestId};
use crate::config::Config;
use crate::driver::Driver;
use crate::error::{DiskError, DiskErrorKind, Error};
use crate::kv::{Kv, Response};
use crate::machine::{StateMachine, StateSize};
use crate::memory::MemHost;
use crate::node::{DiskSpace, Load, Membership, Role, Status};
use crate::tcp::answers::Answer;
use crate::tcp::handle::{Handle, Input, Snapshot, View};
use crate::types::{HardState, NodeId, SnapshotId};

/// What a node shows when it leads a cluster of its own.
pub fn view() -> View {
    let at = SnapshotId { index: 9, term: 2 };
    View {
        cluster: None,
        status: Status {
            id: NodeId(1),
            role: Role::Leader,
            hard_state: HardState { term: 2, vote: NodeId(1), commit: 9 },
            leader: Some(NodeId(1)),
            applied: at,
            first: 1,
            last: at,
            snapshot: SnapshotId::default(),
        },
        membership: Arc::new(founded_by(&[1, 2, 3])),
        membership_is_durable: true,
        progress: Vec::new(),
        pending: 0,
        load: Load::default(),
        size: StateSize::default(),
        segments: 1,
        space: DiskSpace::default(),
        damage: None,
        stopped: None,
    }
}

pub fn founded_by(ids: &[u64]) -> Membership {
    let ids: Vec<NodeId> = ids.iter().map(|id| NodeId(*id)).collect();
    let mut config = Config::new(ids[0], ids.clone());
    config.addresses = ids.iter().map(|id| (*id, format!("http://node:{}", id.0))).collect();
    Membership::founded_by(&config)
}

/// A node that says what `answer` says; `None` is never answered, while the node lives. The sender
/// changes what it shows.
pub fn scripted(
    mut answer: impl FnMut(Request) -> Option<Reply> + Send + 'static,
) -> (Handle, watch::Sender<Arc<View>>) {
    let (sender, inbox) = sync_channel(64);
    let (views, view) = watch::channel(Arc::new(view()));
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        while let Ok(input) = inbox.recv() {
            match input {
                Input::Request(request, reply) => match answer(request) {
                    Some(answer) => drop(reply.send(answer.into())),
                    None => unanswered.push(reply),
                },
                Input::Backup(reply) => drop(reply.send(endless())),
                _ => {}
            }
        }
    });
    (Handle::new(sender, view), views)
}

fn endless() -> Snapshot {
    Box::new(std::iter::repeat_with(|| Bytes::from(vec![7; 64 << 10])))
}

/// One that always says the same.
pub fn always(reply: Reply) -> (Handle, watch::Sender<Arc<View>>) {
    scripted(move |_| Some(reply.clone()))
}

/// A reply to a query that finds nothing.
pub fn nothing() -> Reply {
    Reply::Value { index: 9, response: Response::Value(None).encode() }
}

/// Where the replies to the requests of a node go.
type Waiting = BTreeMap<RequestId, oneshot::Sender<Answer>>;

/// A real node of the key-value store, the only member of its cluster.
pub fn real() -> Handle {
    real_with::<Kv>()
}

/// The same with another machine.
pub fn real_with<M: StateMachine>() -> Handle {
    let (sender, inbox) = sync_channel(1024);
    let (views, view) = watch::channel(Arc::new(view()));
    std::thread::spawn(move || run::<M>(&inbox, &views));
    Handle::new(sender, view)
}

fn run<M: StateMachine>(inbox: &Receiver<Input>, views: &watch::Sender<Arc<View>>) {
    // Real time, a disk in memory, and no other node.
    let began = Instant::now();
    let mut host = MemHost::new();
    let mut waiting = Waiting::new();
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.segment_bytes = 4 << 20;
    config.sessions = 2;
    config.addresses = BTreeMap::from([(NodeId(1), "http://127.0.0.1:12379".to_owned())]);
    let mut driver = Driver::<M>::start(config, &mut host).unwrap();
    for number in 0.. {
        host.set_now(began.elapsed());
        driver.flush(&mut host);
        while let Some(completion) = host.disk_mut().poll() {
            driver.complete(completion);
            driver.flush(&mut host);
        }
        for (request, reply) in host.take_replies() {
            if let Some(waiting) = waiting.remove(&request) {
                let _ = waiting.send(reply.into());
            }
        }
        show(&driver, views);
        if driver.node().stopped().is_some() {
            return;
        }
        let wait = match driver.has_work() {
            true => Duration::ZERO,
            false => driver.due_in(began.elapsed()),
        };
        match inbox.recv_timeout(wait) {
            Ok(Input::Request(request, reply)) => {
                waiting.insert(RequestId(number), reply);
                driver.request(RequestId(number), request);
            }
            Ok(Input::Backup(reply)) => drop(reply.send(Box::new(driver.node().backup()))),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => driver.wake(began.elapsed()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn show<M: StateMachine>(driver: &Driver<M>, views: &watch::Sender<Arc<View>>) {
    let node = driver.node();
    views.send_replace(Arc::new(View {
        cluster: None,
        status: node.status(),
        membership: Arc::new(node.membership().clone()),
        membership_is_durable: node.membership_is_durable(),
        progress: node.progress().collect(),
        pending: node.pending(),
        load: node.load(),
        size: node.machine().size(),
        segments: node.segments(),
        space: node.disk_space(),
        damage: node.damage().cloned(),
        stopped: node.stopped().cloned(),
    }));
}

/// Why a node of the tests stops.
pub fn disk_full() -> Error {
    let reason = "no space left on device".to_owned();
    Error::Disk(DiskError { operation: "fsync", file: None, kind: DiskErrorKind::Other, reason })
}
