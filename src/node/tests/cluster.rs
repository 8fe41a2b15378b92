//! Several nodes on disks that keep all they are told to, and a network that loses nothing but what
//! the tests take from it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{Consistency, Reply, Request, RequestId};
use crate::config::Config;
use crate::env::{Completion, FileName, ReadFile};
use crate::error::Error;
use crate::kv::{Command, Kv, Query, Response};
use crate::memory::MemDisk;
use crate::node::{Node, Output, Role};
use crate::types::NodeId;
use crate::wire::{Kind, Message};

/// Changes a byte of a file.
pub(super) fn flip(disk: &mut MemDisk, file: FileName, at: usize) {
    disk.content_mut(file).unwrap()[at] ^= 1;
}

/// The complete snapshot files.
pub(super) fn snapshots(disk: &MemDisk) -> Vec<FileName> {
    disk.files().filter(|file| matches!(file, FileName::Snapshot(..))).collect()
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u64, Node<Kv>>,
    pub(super) disks: BTreeMap<u64, MemDisk>,
    configs: BTreeMap<u64, Config>,
    lives: u64,
    messages: Vec<(u64, u64, Message)>,
    pub(super) replies: Vec<Reply>,
    /// Messages of these are lost.
    pub(super) cut: Vec<u64>,
    /// How many chunks of snapshots were sent.
    pub(super) chunks: u64,
    /// Disk operations that this node carries out before its process dies.
    pub(super) fuse: Option<(u64, usize)>,
}

impl Cluster {
    /// This many voters; node 1 leads.
    pub(super) fn new(voters: u64, adjust: impl Fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            configs: BTreeMap::new(),
            lives: 0,
            messages: Vec::new(),
            replies: Vec::new(),
            cut: Vec::new(),
            chunks: 0,
            fuse: None,
        };
        for id in 1..=voters {
            let mut config = Config::new(NodeId(id), (1..=voters).map(NodeId).collect());
            config.segment_bytes = 4096;
            (config.seed, config.repair_ticks) = (3, 300);
            adjust(&mut config);
            cluster.configs.insert(id, config);
            cluster.disks.insert(id, MemDisk::new());
            cluster.start(id).unwrap();
        }
        cluster.nodes.get_mut(&1).unwrap().tick();
        cluster.run(100);
        cluster.lead();
        cluster
    }

    pub(super) fn start(&mut self, id: u64) -> Result<(), Error> {
        self.lives += 1;
        let config = Config { incarnation: self.lives, ..self.configs[&id].clone() };
        let node = Node::start(config, self.disks.get_mut(&id).unwrap())?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// A node with an empty disk that belongs to no cluster yet.
    pub(super) fn join(&mut self, id: u64) {
        let config = Config { id: NodeId(id), founders: Vec::new(), ..self.configs[&1].clone() };
        self.configs.insert(id, config);
        self.disks.insert(id, MemDisk::new());
        self.start(id).unwrap();
    }

    /// The process dies; what it has written stays.
    pub(super) fn kill(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.messages.retain(|(from, to, _)| *from != id && *to != id);
    }

    pub(super) fn disk(&mut self, id: u64) -> &mut MemDisk {
        self.disks.get_mut(&id).unwrap()
    }

    pub(super) fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.nodes.values_mut().for_each(Node::tick);
            for _ in 0..200 {
                if !self.step() {
                    break;
                }
            }
        }
    }

    /// Carries out what the nodes want, and delivers. Whether there was anything to do.
    pub(super) fn step(&mut self) -> bool {
        let mut busy = false;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let mut outputs = Vec::new();
            let node = self.nodes.get_mut(&id).unwrap();
            node.process();
            node.take_outputs(&mut outputs);
            busy |= !outputs.is_empty();
            for output in outputs {
                self.carry_out(id, output);
            }
        }
        for (from, to, message) in std::mem::take(&mut self.messages) {
            if let Some(node) = self.nodes.get_mut(&to) {
                node.receive(NodeId(from), message);
            }
        }
        busy
    }

    fn carry_out(&mut self, id: u64, output: Output) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let files = self.disks.get_mut(&id).unwrap();
        match output {
            Output::Disk { queue, ticket, ops } => {
                if let Some((_, left)) = self.fuse.as_mut().filter(|(fused, _)| *fused == id) {
                    if *left < ops.len() {
                        files.run(&ops[..*left]).unwrap();
                        self.fuse = None;
                        return self.kill(id);
                    }
                    *left -= ops.len();
                }
                files.run(&ops).unwrap();
                node.complete(Completion::Done(queue, ticket, Ok(())));
            }
            Output::Fetch { ticket, file, offset, len } => {
                node.complete(Completion::Fetched(ticket, files.read(file, offset, len)));
            }
            Output::Work { ticket, work } => {
                node.complete(Completion::Worked(ticket, Ok(work.run(files))));
            }
            Output::Send { to, message } => {
                self.chunks += u64::from(message.kind() == Kind::Chunk);
                if !self.cut.contains(&id) && !self.cut.contains(&to.0) {
                    self.messages.push((id, to.0, message));
                }
            }
            Output::Reply { reply, .. } => self.replies.push(reply),
            Output::Applied(_) => {}
        }
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |(id, node): (&u64, &Node<Kv>)| {
            (node.status().role == Role::Leader).then_some((node.status().hard_state.term, *id))
        };
        self.nodes.iter().filter_map(leads).max().map(|(_, id)| id)
    }

    /// Lets node 1 lead.
    fn lead(&mut self) {
        for _ in 0..20 {
            match self.leader() {
                Some(1) => return,
                Some(other) => {
                    let request = Request::Transfer(NodeId(1));
                    self.nodes.get_mut(&other).unwrap().request(RequestId(0), request);
                    self.run(10);
                }
                None => self.run(50),
            }
        }
        panic!("node 1 does not lead");
    }

    /// Writes `key` through the leader, and waits a while.
    pub(super) fn put(&mut self, key: &str, bytes: usize) {
        let leader = self.leader().expect("somebody leads");
        let value = Bytes::from(vec![b'v'; bytes]);
        let command = Command::Put { key: key.to_owned().into(), value }.encode();
        let request = Request::Command { session: None, command };
        self.nodes.get_mut(&leader).unwrap().request(RequestId(1), request);
        self.run(4);
    }

    /// Whether node `id` has applied a write of `key`.
    pub(super) fn has(&mut self, id: u64, key: &str) -> bool {
        self.replies.clear();
        let query = Query::Get { key: key.to_owned().into() }.encode();
        let request = Request::Query { query, consistency: Consistency::Stale };
        self.nodes.get_mut(&id).unwrap().request(RequestId(2), request);
        self.step();
        let [Reply::Value { response, .. }] = &self.replies[..] else { panic!("no answer") };
        *response != Response::Value(None).encode()
    }

    pub(super) fn term(&self, id: u64) -> u64 {
        self.nodes[&id].status().hard_state.term
    }
}
