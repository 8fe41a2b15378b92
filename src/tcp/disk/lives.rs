//! A whole node on real files: what it acknowledged outlives it, however it ends.

use std::path::Path;
use std::process::Command as Process;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::*;
use crate::api::{Refusal, Reply, Request, RequestId};
use crate::config::Config;
use crate::driver::{Driver, Host};
use crate::env::{Clock, Transport};
use crate::error::Error;
use crate::kv::{Command, Kv, Query, Response};
use crate::machine::StateMachine;
use crate::tcp::directory::Expected;
use crate::tcp::scratch::Scratch;
use crate::types::NodeId;
use crate::wire::Message;

const SEGMENT: u64 = 256 << 10;

/// The only member of a cluster, and its world.
struct World {
    files: Files,
    start: Instant,
    replies: Vec<Reply>,
}

struct Life {
    driver: Driver<Kv>,
    world: World,
    done: Receiver<Completion>,
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Transport for World {
    fn send(&mut self, to: NodeId, _: Message) {
        panic!("there is no {to}");
    }

    fn reply(&mut self, _: RequestId, reply: Reply) {
        self.replies.push(reply);
    }
}

impl OnFiles for World {
    fn files(&mut self) -> &mut Files {
        &mut self.files
    }
}

impl Host for World {}

impl Life {
    fn begin(path: &Path, incarnation: u64, snapshot_every: u64) -> Life {
        let expected = Expected { node: NodeId(1), cluster: None };
        let directory = Arc::new(Directory::open(path, expected).expect("it can be opened"));
        let (sender, done) = mpsc::channel();
        let report = move |completion| drop(sender.send(completion));
        let files = Files::start(directory, SEGMENT, report).expect("there are threads");
        let mut world = World { files, start: now(), replies: Vec::new() };
        let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
        config.incarnation = incarnation;
        (config.segment_bytes, config.reserve_bytes) = (SEGMENT, 2 * SEGMENT);
        config.snapshot_every = snapshot_every;
        config.keep_entries = 10;
        let driver = Driver::start(config, &mut world).expect("it starts");
        Life { driver, world, done }
    }

    /// Lets the node work until it has replied or stopped.
    fn answer(&mut self, request: &Request) -> Result<Reply, Error> {
        loop {
            self.driver.request(RequestId(1), request.clone());
            self.driver.flush(&mut self.world);
            loop {
                if let Some(error) = self.driver.node().stopped() {
                    return Err(error.clone());
                }
                match self.world.replies.pop() {
                    Some(full @ Reply::Refused(Refusal::DiskFull(_))) => return Ok(full),
                    // The election takes a few ticks.
                    Some(Reply::Refused(_)) => break,
                    Some(reply) => return Ok(reply),
                    None => self.work(),
                }
            }
            self.work();
        }
    }

    /// Waits for a completion or the next tick.
    fn work(&mut self) {
        self.driver.report_free(self.world.files.free());
        let pause = self.driver.due_in(self.world.now());
        match self.done.recv_timeout(pause) {
            Ok(completion) => self.driver.complete(completion),
            Err(_) => self.driver.wake(self.world.now()),
        }
        self.driver.flush(&mut self.world);
    }

    fn put(&mut self, key: u64, size: usize) -> Result<(), Error> {
        let command = Command::Put { key: key_of(key), value: value_of(key, size) }.encode();
        match self.answer(&Request::Command { session: None, command })? {
            Reply::Applied { .. } => Ok(()),
            other => panic!("{other:?} instead of a write"),
        }
    }

    #[track_caller]
    fn has(&self, keys: std::ops::Range<u64>, size: usize) {
        for key in keys {
            let query = Query::Get { key: key_of(key) }.encode();
            let answer = self.driver.node().machine().query(&query);
            let Ok(Response::Value(Some(found))) = Response::decode(&answer) else {
                panic!("the key {key} is lost");
            };
            assert_eq!(found.value, value_of(key, size), "the value of {key}");
        }
    }

    /// Makes sure that what is committed is applied.
    fn settle(&mut self) {
        self.put(u64::MAX, 1).expect("nothing fails");
    }
}

fn key_of(key: u64) -> Bytes {
    Bytes::from(format!("key {key}"))
}

fn value_of(key: u64, size: usize) -> Bytes {
    Bytes::from(vec![key as u8; size])
}

#[test]
fn a_node_that_just_ends_has_lost_nothing() {
    let scratch = Scratch::new();
    for life in 0..3 {
        let mut node = Life::begin(scratch.path(), life, 40);
        node.settle();
        node.has(0..life * 100, 5000);
        for key in life * 100..(life + 1) * 100 {
            node.put(key, 5000).expect("nothing fails");
        }
        // No farewell: it ends with a batch under way, perhaps.
    }
    let mut node = Life::begin(scratch.path(), 3, 40);
    node.settle();
    node.has(0..300, 5000);
    assert!(node.world.files.stats().syncs() > 0);
}

/// A small file system of its own, until it is dropped.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).expect("it is new");
        let mut mount = Process::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]).arg(scratch.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(scratch))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Process::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the small disk stays mounted");
    }
}

#[test]
fn full_disk_refuses_growth_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small file system can only be mounted by root");
        return;
    };
    let (path, ballast) = (disk.0.path().join("data"), disk.0.path().join("ballast"));
    fs::write(&ballast, vec![1; 2 << 20]).expect("there is room");
    let put = |key| {
        let command = Command::Put { key: key_of(key), value: value_of(key, 5000) }.encode();
        Request::Command { session: None, command }
    };
    let refused = Reply::Refused(Refusal::DiskFull(NodeId(1)));
    let mut node = Life::begin(&path, 0, 100);
    let mut acknowledged = 0;
    while node.answer(&put(acknowledged)).expect("it never stops") != refused {
        acknowledged += 1;
        assert!(acknowledged < 1000, "more than the disk can hold");
    }
    assert!(acknowledged > 50, "only {acknowledged} writes fit");
    // What makes no key goes on, and it comes back from a restart.
    let delete = Command::Delete { key: key_of(0) }.encode();
    let reply = node.answer(&Request::Command { session: None, command: delete });
    assert!(matches!(reply, Ok(Reply::Applied { .. })), "{reply:?}");
    drop(node);
    let mut node = Life::begin(&path, 1, 100);
    assert_eq!(node.answer(&put(acknowledged)), Ok(refused));
    node.has(1..acknowledged, 5000);

    fs::remove_file(&ballast).expect("it is there");
    node.work();
    node.settle();
    node.has(1..acknowledged, 5000);
}
