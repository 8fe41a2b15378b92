//! The nodes that the tests talk to.

#![allow(clippy::disallowed_methods, reason = "a node has a thread of its own, and real time")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::api::{Reply, Request, RequestId};
use crate::config::Config;
use crate::driver::{Driver, Host};
use crate::env::{Clock, Completion, Disk, DiskOp, DiskQueue, FileName, ReadFile, Transport, Work};
use crate::error::{DiskError, DiskErrorKind, Error};
use crate::kv::{Kv, Response};
use crate::machine::{StateMachine, StateSize};
use crate::node::{DiskSpace, Load, Membership, Role, Status};
use crate::tcp::answers::Answer;
use crate::tcp::handle::{Handle, Input, Snapshot, View};
use crate::types::{HardState, NodeId, SnapshotId, Ticket};
use crate::wire::Message;

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

/// A real node's world: real time, a disk in memory, and nobody else.
struct World {
    began: Instant,
    files: BTreeMap<FileName, Vec<u8>>,
    finished: VecDeque<Completion>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Transport for World {
    fn send(&mut self, _to: NodeId, _message: Message) {}

    fn reply(&mut self, request: RequestId, reply: Reply) {
        if let Some(waiting) = self.waiting.remove(&request) {
            let _ = waiting.send(reply.into());
        }
    }
}

impl Disk for World {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        Ok(self.files.keys().copied().collect())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        Ok(Bytes::copy_from_slice(&self.files[&file]))
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        for op in ops {
            match op {
                DiskOp::Create { file, len } => {
                    self.files.insert(file, vec![0; len as usize]);
                }
                DiskOp::Write { file, offset, data } => {
                    let content = self.files.get_mut(&file).unwrap();
                    let (start, end) = (offset as usize, offset as usize + data.len());
                    content.resize(content.len().max(end), 0);
                    content[start..end].copy_from_slice(&data);
                }
                DiskOp::Rename { from, to } => {
                    let content = self.files.remove(&from).unwrap();
                    self.files.insert(to, content);
                }
                DiskOp::Remove { file } => drop(self.files.remove(&file)),
                DiskOp::Sync { .. } | DiskOp::SyncDir => {}
            }
        }
        self.finished.push_back(Completion::Done(queue, ticket, Ok(())));
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        let data = self.read(file, offset, len);
        self.finished.push_back(Completion::Fetched(ticket, data));
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        let product = work.run(self);
        self.finished.push_back(Completion::Worked(ticket, Ok(product)));
    }
}

impl ReadFile for World {
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        let content = &self.files[&file][offset as usize..];
        Ok(Bytes::copy_from_slice(&content[..content.len().min(len as usize)]))
    }
}

impl Host for World {}

/// A real node, the only member of its cluster.
pub fn real() -> Handle {
    let (sender, inbox) = sync_channel(1024);
    let (views, view) = watch::channel(Arc::new(view()));
    std::thread::spawn(move || run(&inbox, &views));
    Handle::new(sender, view)
}

fn run(inbox: &Receiver<Input>, views: &watch::Sender<Arc<View>>) {
    let mut world = World {
        began: Instant::now(),
        files: BTreeMap::new(),
        finished: VecDeque::new(),
        waiting: BTreeMap::new(),
    };
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.segment_bytes = 4 << 20;
    config.sessions = 2;
    config.addresses = BTreeMap::from([(NodeId(1), "http://127.0.0.1:12379".to_owned())]);
    let mut driver = Driver::<Kv>::start(config, &mut world).unwrap();
    for number in 0.. {
        driver.flush(&mut world);
        while let Some(completion) = world.finished.pop_front() {
            driver.complete(completion);
            driver.flush(&mut world);
        }
        show(&driver, views);
        if driver.node().stopped().is_some() {
            return;
        }
        let wait = match driver.has_work() {
            true => Duration::ZERO,
            false => driver.due_in(world.now()),
        };
        match inbox.recv_timeout(wait) {
            Ok(Input::Request(request, reply)) => {
                world.waiting.insert(RequestId(number), reply);
                driver.request(RequestId(number), request);
            }
            Ok(Input::Backup(reply)) => drop(reply.send(Box::new(driver.node().backup()))),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => driver.wake(world.now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn show(driver: &Driver<Kv>, views: &watch::Sender<Arc<View>>) {
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
