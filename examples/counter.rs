//! Bring your own state machine: a counter, on a cluster of one node, in memory.
//!
//! A node waits for nothing, so its host may be a few lines: a clock that is a number, a disk that
//! is a map, and a queue of finished work that is handed back. Exchange those for real ones and
//! the same node serves in production; see `stormkv::env` for what a host must promise.
//!
//! Run it with `cargo run --example counter`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use stormkv::api::{Consistency, Reply, Request, RequestId};
use stormkv::config::Config;
use stormkv::driver::{Driver, Host};
use stormkv::env::{
    Clock, Completion, Disk, DiskOp, DiskQueue, FileName, ReadFile, Transport, Work,
};
use stormkv::error::DiskError;
use stormkv::machine::{Chunks, StateMachine};
use stormkv::types::{LogIndex, NodeId, Ticket};
use stormkv::wire::Message;

/// The replicated state: one number. A command is eight bytes, what to add.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _index: LogIndex, command: &[u8]) -> Bytes {
        // A malformed command is committed already, so every replica must answer it alike.
        let Ok(add) = command.try_into() else { return Bytes::from_static(b"malformed") };
        self.0 = self.0.wrapping_add(u64::from_le_bytes(add));
        self.query(b"")
    }

    fn query(&self, _query: &[u8]) -> Bytes {
        Bytes::from(self.0.to_string())
    }

    fn snapshot(&self) -> Chunks {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
    }

    fn restore(chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Self, String> {
        let chunk = chunks.next().ok_or("the snapshot is empty")?;
        let bytes = chunk[..].try_into().map_err(|_| "a counter has eight bytes")?;
        Ok(Counter(u64::from_le_bytes(bytes)))
    }

    fn digest(&self) -> u64 {
        self.0
    }
}

/// A world of one node: time stands still until it is moved, and the disk is never late.
#[derive(Default)]
struct World {
    now: Duration,
    files: BTreeMap<FileName, Vec<u8>>,
    finished: VecDeque<Completion>,
    replies: VecDeque<Reply>,
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.now
    }
}

impl Transport for World {
    fn send(&mut self, _to: NodeId, _message: Message) {}

    fn reply(&mut self, _request: RequestId, reply: Reply) {
        self.replies.push_back(reply);
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
                    let content = self.files.get_mut(&file).expect("a write to a file");
                    let (start, end) = (offset as usize, offset as usize + data.len());
                    content.resize(content.len().max(end), 0);
                    content[start..end].copy_from_slice(&data);
                }
                DiskOp::Rename { from, to } => {
                    let content = self.files.remove(&from).expect("a rename of a file");
                    self.files.insert(to, content);
                }
                DiskOp::Remove { file } => {
                    self.files.remove(&file);
                }
                // Memory is as durable as this world gets.
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

/// Moves time on by a tick.
fn pass_time(driver: &mut Driver<Counter>, world: &mut World) {
    world.now += driver.due_in(world.now);
    driver.wake(world.now);
    driver.flush(world);
}

/// Moves time on, and hands finished disk work back, until the node has replied.
fn answer(driver: &mut Driver<Counter>, world: &mut World) -> Reply {
    for _ in 0..1000 {
        while let Some(completion) = world.finished.pop_front() {
            driver.complete(completion);
            driver.flush(world);
        }
        if let Some(reply) = world.replies.pop_front() {
            return reply;
        }
        pass_time(driver, world);
    }
    panic!("no answer within 1000 ticks");
}

fn main() {
    let mut world = World::default();
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.segment_bytes = 64 << 10;
    let mut driver = Driver::<Counter>::start(config.clone(), &mut world).expect("it starts");

    let mut next = 0;
    let mut ask = |driver: &mut Driver<Counter>, world: &mut World, request: &Request| loop {
        next += 1;
        driver.request(RequestId(next), request.clone());
        driver.flush(world);
        match answer(driver, world) {
            // Refused for lack of a leader: the election takes a few ticks.
            Reply::Refused(_) => pass_time(driver, world),
            reply => return reply,
        }
    };
    for add in [40_u64, 2] {
        let command = Bytes::copy_from_slice(&add.to_le_bytes());
        let request = Request::Command { session: None, command };
        println!("add {add}: {:?}", ask(&mut driver, &mut world, &request));
    }

    // The node dies; what it had made durable is all that the next one is given.
    drop(driver);
    world.finished.clear();
    config.incarnation = 1;
    let mut driver = Driver::<Counter>::start(config, &mut world).expect("it starts again");
    let consistency = Consistency::Linearizable;
    let request = Request::Query { query: Bytes::new(), consistency };
    let reply = ask(&mut driver, &mut world, &request);
    println!("after a restart: {reply:?}");
    assert!(matches!(&reply, Reply::Value { response, .. } if response == "42"), "{reply:?}");
}
