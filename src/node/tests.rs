//! The core by itself: inputs go in by hand, and the tests judge what comes out, in which order,
//! and above all what does not come out yet.

use std::mem;

use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

use super::{Node, Output, Role};
use crate::api::{Consistency, Refusal, Reply, Request, RequestId};
use crate::config::Config;
use crate::env::{Completion, Disk, DiskOp, FileName};
use crate::error::{DiskError, Error};
use crate::kv::{Command, Kv, Query, Response};
use crate::types::{NodeId, Ticket};
use crate::wire::{Kind, Message, RaftMessage};

/// A disk with nothing on it. Batches never reach it: the tests complete them by hand.
struct Blank;

impl Disk for Blank {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        Ok(Vec::new())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        panic!("{file} is not there")
    }

    fn submit(&mut self, _: Ticket, _: Vec<DiskOp>) {
        panic!("a node does not submit while it starts")
    }

    fn fetch(&mut self, _: Ticket, _: FileName, _: u64, _: u32) {
        panic!("a node does not fetch while it starts")
    }
}

/// A node, and what it wanted that the test has not looked at yet.
struct Host {
    node: Node<Kv>,
    outputs: Vec<Output>,
    /// The newest batch that the node submitted.
    submitted: Ticket,
}

impl Host {
    /// Node 1 of a new cluster of this many voters.
    fn found(voters: u64, adjust: impl FnOnce(&mut Config)) -> Host {
        let mut config = Config::new(NodeId(1), (1..=voters).map(NodeId).collect());
        adjust(&mut config);
        let node = Node::start(config, &mut Blank).expect("the configuration makes sense");
        let mut host = Host { node, outputs: Vec::new(), submitted: Ticket(0) };
        host.collect();
        host
    }

    /// The same, with its first batch done, and nothing more to say.
    fn founded(voters: u64) -> Host {
        let mut host = Host::found(voters, |_| ());
        host.persist();
        host.take();
        host
    }

    /// A leader of three in term 2 whose first entry, 2@2, is durable on node 2 and committed.
    fn leading() -> Host {
        let mut host = Host::founded(3);
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

    fn collect(&mut self) {
        let before = self.outputs.len();
        self.node.take_outputs(&mut self.outputs);
        for output in &self.outputs[before..] {
            if let Output::Disk { ticket, .. } = output {
                assert!(*ticket > self.submitted, "tickets count upwards");
                self.submitted = *ticket;
            }
        }
    }

    fn take(&mut self) -> Vec<Output> {
        mem::take(&mut self.outputs)
    }

    fn tick(&mut self) {
        self.node.tick();
        self.collect();
    }

    fn done(&mut self, ticket: Ticket) {
        self.node.complete(Completion::Done(ticket, Ok(())));
        self.collect();
    }

    /// Completes batches until the node has none under way.
    fn persist(&mut self) {
        while self.node.done < self.submitted {
            self.done(self.submitted);
        }
    }

    fn receive(&mut self, from: u64, message: Message) {
        self.node.receive(NodeId(from), message);
        self.collect();
    }

    fn receive_raft(&mut self, message: eraftpb::Message) {
        self.receive(message.from, Message::Raft(RaftMessage(message)));
    }

    fn ask(&mut self, id: u64, request: Request) {
        self.node.request(RequestId(id), request);
        self.collect();
    }

    fn put(&mut self, id: u64) {
        self.ask(id, put(&[b'v'; 8]));
    }

    /// Ticks until the node asks for votes in earnest: it has heard that it may.
    fn campaign(&mut self) {
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
    fn vote(&mut self, from: u64) {
        let term = self.node.status().hard_state.term;
        self.receive_raft(raft(from, MessageType::MsgRequestVoteResponse, term));
    }

    /// Node `from` has everything up to `index`.
    fn acknowledge(&mut self, from: u64, index: u64) {
        let term = self.node.status().hard_state.term;
        let mut message = raft(from, MessageType::MsgAppendResponse, term);
        message.index = index;
        self.receive_raft(message);
    }

    /// Node 2 leads in this term and appends one empty entry of it.
    fn append(&mut self, term: u64, previous: (u64, u64), commit: u64) {
        let mut message = raft(2, MessageType::MsgAppend, term);
        (message.index, message.log_term) = previous;
        message.commit = commit;
        let entry = eraftpb::Entry { index: previous.0 + 1, term, ..Default::default() };
        message.entries.push(entry);
        self.receive_raft(message);
    }

    /// One input of every kind that matters.
    fn everything(&mut self) {
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

fn raft(from: u64, kind: MessageType, term: u64) -> eraftpb::Message {
    let mut message = eraftpb::Message { from, to: 1, term, ..Default::default() };
    message.set_msg_type(kind);
    message
}

fn put(value: &'static [u8]) -> Request {
    let command = Command::Put { key: "k".into(), value: value.into() }.encode();
    Request::Command { session: None, command }
}

fn get() -> Request {
    let query = Query::Get { key: "k".into() }.encode();
    Request::Query { query, consistency: Consistency::Linearizable }
}

/// What was sent: to whom, of which kind.
fn sent(outputs: &[Output]) -> Vec<(u64, Kind)> {
    let send = |output: &Output| match output {
        Output::Send { to, message } => Some((to.0, message.kind())),
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}

fn replies(outputs: &[Output]) -> Vec<(u64, &Reply)> {
    let mut replies = Vec::new();
    for output in outputs {
        if let Output::Reply { request, reply } = output {
            replies.push((request.0, reply));
        }
    }
    replies
}

fn batches(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Disk { .. })).count()
}

#[test]
fn a_founder_says_nothing_before_its_first_batch_is_done() {
    let mut host = Host::found(1, |_| ());
    assert_eq!(batches(&host.outputs), 1, "the founding of the cluster");
    for _ in 0..40 {
        host.tick();
    }
    host.put(7);
    let outputs = host.take();
    assert_eq!(sent(&outputs), []);
    assert!(matches!(replies(&outputs)[..], [(7, Reply::Refused(_))]), "it cannot lead yet");
    let applied = |output: &Output| matches!(output, Output::Applied(at) if !at.by_snapshot);
    assert!(!outputs.iter().any(applied), "nothing can be committed");
    host.persist();
    for _ in 0..40 {
        host.tick();
        host.persist();
    }
    host.put(8);
    host.persist();
    let outputs = host.take();
    assert!(matches!(replies(&outputs)[..], [(8, Reply::Applied { .. })]), "{outputs:?}");
}

#[test]
fn a_vote_is_held_until_it_is_durable() {
    let mut host = Host::founded(3);
    let mut request = raft(2, MessageType::MsgRequestVote, 2);
    (request.index, request.log_term) = (1, 1);
    host.receive_raft(request);
    let outputs = host.take();
    assert_eq!(batches(&outputs), 1);
    assert_eq!(sent(&outputs), [], "a vote that a crash could take back");
    host.persist();
    assert_eq!(sent(&host.take()), [(2, Kind::VoteResp)]);
}

#[test]
fn an_acknowledgement_is_held_until_the_entries_are_durable() {
    let mut host = Host::founded(3);
    host.append(2, (1, 1), 1);
    let outputs = host.take();
    assert_eq!((batches(&outputs), sent(&outputs)), (1, vec![]));
    host.append(2, (2, 2), 1);
    assert_eq!(sent(&host.take()), []);
    host.done(Ticket(host.submitted.0 - 1));
    assert_eq!(sent(&host.take()), [(2, Kind::AppendResp)], "the first, and not the second");
    host.persist();
    assert_eq!(sent(&host.take()), [(2, Kind::AppendResp)]);
}

#[test]
fn a_leaders_append_leaves_before_its_own_write_is_done() {
    let mut host = Host::leading();
    host.put(7);
    let outputs = host.take();
    assert_eq!(batches(&outputs), 1);
    assert!(sent(&outputs).contains(&(2, Kind::Append)), "{outputs:?}");
    // Two of three have it, and one of the two is the leader, whose own copy may be lost.
    host.acknowledge(2, 3);
    assert_eq!(replies(&host.take()), []);
    host.persist();
    let outputs = host.take();
    assert!(matches!(replies(&outputs)[..], [(7, Reply::Applied { index: 3, .. })]));
}

#[test]
fn a_leaders_append_waits_until_its_term_is_durable() {
    let mut host = Host::founded(3);
    host.campaign();
    // Its request for votes is held back, so this vote is early, but the node cannot tell.
    host.vote(2);
    assert_eq!(host.node.status().role, Role::Leader);
    assert_eq!(sent(&host.take()), [], "it does not say a term that it could forget");
    host.persist();
    let kinds = sent(&host.take());
    assert!(kinds.contains(&(2, Kind::Append)) && kinds.contains(&(3, Kind::Append)), "{kinds:?}");
}

#[test]
fn a_proposal_is_refused_once_another_entry_is_committed_in_its_place() {
    let mut host = Host::leading();
    host.put(7);
    host.persist();
    // Node 2 did not get it, leads in term 3 and writes an entry of its own to index 3.
    host.append(3, (2, 2), 2);
    host.persist();
    assert_eq!(host.node.status().role, Role::Follower);
    assert_eq!(replies(&host.take()), [], "a third leader may still commit the proposal");
    host.append(3, (3, 3), 3);
    host.persist();
    assert_eq!(replies(&host.take()), [(7, &Reply::Refused(Refusal::Superseded))]);
}

#[test]
fn a_proposal_at_the_place_of_an_older_one_answers_it_unknown() {
    let mut host = Host::leading();
    for id in [3, 4, 5] {
        host.put(id);
    }
    host.persist();
    host.append(3, (2, 2), 2);
    host.persist();
    host.campaign();
    host.persist();
    host.vote(2);
    host.take();
    // 3 is node 2's, 4 is empty, and 5 takes the place of the older proposal.
    host.put(15);
    assert_eq!(replies(&host.take()), [(5, &Reply::Unknown)]);
}

#[test]
fn a_backup_founds_a_cluster_whose_log_goes_on_behind_it() {
    let mut host = Host::leading();
    host.put(3);
    host.persist();
    host.acknowledge(2, 3);
    let old = host.node.status().applied;
    let state: Bytes = host.node.backup().flatten().collect();

    let found = |state| Host::found(1, |config| config.founding_state = Some(state));
    let mut restored = found(state.clone());
    assert_eq!(restored.node.status().applied, old);
    assert_eq!(restored.node.machine(), host.node.machine());
    assert_eq!(restored.node.membership().voters().len(), 1);
    restored.persist();
    while restored.node.status().role != Role::Leader {
        restored.tick();
    }
    restored.persist();
    restored.put(4);
    restored.persist();
    assert!(restored.node.status().applied > old);

    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.founding_state = Some(state.slice(..state.len() - 1));
    let error = Node::<Kv>::start(config, &mut Blank).err().expect("half a backup is none");
    assert!(error.to_string().contains("founding state cannot be read"), "{error}");
}

#[test]
fn a_failed_disk_operation_stops_the_node() {
    let mut host = Host::leading();
    host.put(7);
    host.take();
    let error = DiskError { operation: "fsync", file: None, reason: "worn out".into() };
    host.node.complete(Completion::Done(host.submitted, Err(error.clone())));
    host.collect();
    assert_eq!(host.node.stopped(), Some(&Error::Disk(error)));
    // Not even a success that comes late makes it speak again.
    host.everything();
    assert!(host.take().is_empty());
}

#[test]
fn a_read_waits_until_its_index_is_applied() {
    let mut host = Host::founded(3);
    host.receive_raft(raft(2, MessageType::MsgHeartbeat, 2));
    host.persist();
    host.take();
    host.ask(7, get());
    let outputs = host.take();
    let [Output::Send { to: NodeId(2), message: Message::ReadIndex { id } }] = outputs[..] else {
        panic!("it asks the leader, and nothing else: {outputs:?}");
    };
    host.receive(2, Message::ReadIndexAnswer { id, index: Some(2) });
    assert_eq!(replies(&host.take()), [], "entry 2 is committed, but not here yet");
    host.append(2, (1, 1), 1);
    host.persist();
    assert_eq!(replies(&host.take()), [], "it is here, but not known to be committed");
    let mut heartbeat = raft(2, MessageType::MsgHeartbeat, 2);
    heartbeat.commit = 2;
    host.receive_raft(heartbeat);
    let outputs = host.take();
    let response = Response::Value(None).encode();
    assert_eq!(replies(&outputs), [(7, &Reply::Value { index: 2, response })]);
}

#[test]
fn a_leaders_read_waits_for_a_majority() {
    let mut host = Host::leading();
    host.ask(7, get());
    let outputs = host.take();
    assert_eq!(replies(&outputs), [], "it may have been deposed without knowing");
    let context = outputs.iter().find_map(|output| match output {
        Output::Send { to: NodeId(2), message: Message::Raft(RaftMessage(message)) } => {
            Some(message.context.clone())
        }
        _ => None,
    });
    let mut answer = raft(2, MessageType::MsgHeartbeatResponse, 2);
    answer.context = context.expect("it asks node 2 whether it still leads");
    host.receive_raft(answer);
    let outputs = host.take();
    assert!(matches!(replies(&outputs)[..], [(7, Reply::Value { index: 2, .. })]), "{outputs:?}");
}

#[test]
fn what_is_too_large_or_too_much_is_refused() {
    let mut host = Host::found(1, |config| {
        config.max_pending = 2;
        config.max_command_bytes = 64;
    });
    for _ in 0..40 {
        host.tick();
        host.persist();
    }
    host.take();
    host.ask(1, put(&[b'v'; 64]));
    assert_eq!(replies(&host.take()), [(1, &Reply::Refused(Refusal::TooLarge))]);
    host.put(2);
    host.put(3);
    host.put(4);
    assert_eq!(replies(&host.take()), [(4, &Reply::Refused(Refusal::Busy))]);
    // What is answered makes room.
    host.persist();
    host.put(5);
    let outputs = host.take();
    assert!(
        matches!(replies(&outputs)[..], [(2, Reply::Applied { .. }), (3, Reply::Applied { .. })]),
        "{outputs:?}"
    );
    host.persist();
    assert!(matches!(replies(&host.take())[..], [(5, Reply::Applied { .. })]));
}
