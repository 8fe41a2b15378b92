//! A node and a host that does nothing by itself: the tests complete its batches by hand.

use std::mem;

use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

use crate::api::{Consistency, Reply, Request, RequestId};
use crate::config::Config;
use crate::env::{Completion, DiskQueue};
use crate::kv::{Command, Kv, Query};
use crate::memory::MemDisk;
use crate::node::{Node, Output, Role};
use crate::types::{NodeId, Ticket};
use crate::wire::{Kind, Message, RaftMessage};

/// A node, and what it wanted that the test has not looked at yet.
pub(super) struct Host {
    pub(super) node: Node<Kv>,
    pub(super) outputs: Vec<Output>,
    /// The newest batch that the node submitted.
    pub(super) submitted: Ticket,
}

impl Host {
    /// Node 1 of a new cluster of this many voters.
    pub(super) fn found(voters: u64, adjust: impl FnOnce(&mut Config)) -> Host {
        let mut config = Config::new(NodeId(1), (1..=voters).map(NodeId).collect());
        adjust(&mut config);
        let node = Node::start(config, &mut MemDisk::new()).expect("the configuration makes sense");
        let mut host = Host { node, outputs: Vec::new(), submitted: Ticket(0) };
        host.collect();
        host
    }

    /// The same, with its first batch done, and nothing more to say.
    pub(super) fn founded(voters: u64) -> Host {
        Host::founded_with(voters, |_| ())
    }

    fn founded_with(voters: u64, adjust: impl FnOnce(&mut Config)) -> Host {
        let mut host = Host::found(voters, adjust);
        host.persist();
        host.take();
        host
    }

    /// A leader of three in term 2 whose first entry, 2@2, is durable on node 2 and committed.
    pub(super) fn leading() -> Host {
        Host::leading_with(|_| ())
    }

    /// The same, with other settings.
    pub(super) fn leading_with(adjust: impl FnOnce(&mut Config)) -> Host {
        let mut host = Host::founded_with(3, adjust);
        host.campaign();
        host.persist();
        host.vote(2);
        host.persist();
        host.acknowledge(2, 2);
        assert_eq!(host.node.status().role, Role::Leader);
        assert_eq!(host.node.status().applied.index, 2);
        host.take();
        host
    }

    pub(super) fn collect(&mut self) {
        let before = self.outputs.len();
        self.node.process();
        self.node.take_outputs(&mut self.outputs);
        for output in &self.outputs[before..] {
            if let Output::Disk { queue: DiskQueue::Log, ticket, .. } = output {
                assert!(*ticket > self.submitted, "tickets count upwards");
                self.submitted = *ticket;
            }
        }
    }

    pub(super) fn take(&mut self) -> Vec<Output> {
        mem::take(&mut self.outputs)
    }

    pub(super) fn tick(&mut self) {
        self.node.tick();
        self.collect();
    }

    pub(super) fn done(&mut self, ticket: Ticket) {
        self.node.complete(Completion::Done(DiskQueue::Log, ticket, Ok(())));
        self.collect();
    }

    /// Completes batches until the node has none under way.
    pub(super) fn persist(&mut self) {
        while self.node.done < self.submitted {
            self.done(self.submitted);
        }
    }

    pub(super) fn receive(&mut self, from: u64, message: Message) {
        self.node.receive(NodeId(from), message);
        self.collect();
    }

    pub(super) fn receive_raft(&mut self, message: eraftpb::Message) {
        self.receive(message.from, Message::Raft(RaftMessage::new(message)));
    }

    pub(super) fn ask(&mut self, id: u64, request: Request) {
        self.node.request(RequestId(id), request);
        self.collect();
    }

    pub(super) fn put(&mut self, id: u64) {
        self.ask(id, put(&[b'v'; 8]));
    }

    /// Ticks until the node asks for votes in earnest: it has heard that it may.
    pub(super) fn campaign(&mut self) {
        for _ in 0..100 {
            if self.node.status().role == Role::Follower {
                self.tick();
            }
        }
        let term = self.node.status().hard_state.term + 1;
        self.receive_raft(raft(2, MessageType::MsgRequestPreVoteResponse, term));
        assert_eq!(self.node.status().role, Role::Candidate);
        self.take();
    }

    /// A vote of this node for the present term arrives.
    pub(super) fn vote(&mut self, from: u64) {
        let term = self.node.status().hard_state.term;
        self.receive_raft(raft(from, MessageType::MsgRequestVoteResponse, term));
    }

    /// Node `from` has everything up to `index`.
    pub(super) fn acknowledge(&mut self, from: u64, index: u64) {
        let term = self.node.status().hard_state.term;
        let mut message = raft(from, MessageType::MsgAppendResponse, term);
        message.index = index;
        self.receive_raft(message);
    }

    /// Node 2 leads in this term and appends one empty entry of it.
    pub(super) fn append(&mut self, term: u64, previous: (u64, u64), commit: u64) {
        let mut message = raft(2, MessageType::MsgAppend, term);
        (message.index, message.log_term) = previous;
        message.commit = commit;
        let entry = eraftpb::Entry { index: previous.0 + 1, term, ..Default::default() };
        message.entries.push(entry);
        self.receive_raft(message);
    }

    /// One input of every kind that matters.
    pub(super) fn everything(&mut self) {
        self.done(self.submitted);
        self.acknowledge(2, 3);
        self.put(8);
        self.ask(9, get());
        self.node.unreachable(NodeId(2));
        for _ in 0..40 {
            self.tick();
        }
    }
}

pub(super) fn raft(from: u64, kind: MessageType, term: u64) -> eraftpb::Message {
    let mut message = eraftpb::Message { from, to: 1, term, ..Default::default() };
    message.set_msg_type(kind);
    message
}

pub(super) fn put(value: &[u8]) -> Request {
    let value = Bytes::copy_from_slice(value);
    let command = Command::Put { key: "k".into(), value }.encode();
    Request::Command { session: None, command }
}

pub(super) fn get() -> Request {
    let query = Query::Get { key: "k".into() }.encode();
    Request::Query { query, consistency: Consistency::Linearizable }
}

/// What was sent: to whom, of which kind.
pub(super) fn sent(outputs: &[Output]) -> Vec<(u64, Kind)> {
    let send = |output: &Output| match output {
        Output::Send { to, message } => Some((to.0, message.kind())),
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}

pub(super) fn replies(outputs: &[Output]) -> Vec<(u64, &Reply)> {
    let mut replies = Vec::new();
    for output in outputs {
        if let Output::Reply { request, reply } = output {
            replies.push((request.0, reply));
        }
    }
    replies
}

pub(super) fn batches(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Disk { .. })).count()
}
