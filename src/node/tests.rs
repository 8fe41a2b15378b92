//! The core by itself: inputs go in by hand, and the tests judge what comes out, in which order,
//! and above all what does not come out yet.

mod answers;
mod clock;
mod cluster;
mod grow;
mod host;
mod leave;
mod prudence;
mod repair;
mod retries;
mod space;
mod unsynced;

use super::{Node, Output, Role};
use crate::api::{Consistency, Refusal, Reply, Request, RequestId};
use crate::config::Config;
use crate::env::{Completion, DiskQueue, FileName};
use crate::error::{DiskError, DiskErrorKind, Error};
use crate::kv::{Kv, Query, Response};
use crate::memory::MemDisk;
use crate::types::{NodeId, SnapshotId, Ticket};
use crate::wire::{Chunk, Kind, Message, RaftMessage};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

use host::*;

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
    assert_eq!(replies(&host.take()), [(5, &Reply::LeaderLost)]);
}

/// The entries of the appends for `to`.
fn appended(outputs: &[Output], to: u64) -> Vec<usize> {
    let append = |output: &Output| match output {
        Output::Send { to: NodeId(id), message: Message::Raft(raft) }
            if *id == to && raft.kind() == Kind::Append =>
        {
            Some(raft.entry_count())
        }
        _ => None,
    };
    outputs.iter().filter_map(append).collect()
}

#[test]
fn puts_that_arrive_together_share_an_append_and_a_batch() {
    let mut host = Host::leading();
    for id in [7, 8, 9] {
        host.node.request(RequestId(id), put(b"v"));
    }
    assert_eq!(host.node.pending(), 3, "nothing is done before all is there");
    host.collect();
    let outputs = host.take();
    assert_eq!(batches(&outputs), 1);
    assert_eq!(appended(&outputs, 2), [3]);
    // Two of the three are durable on two members.
    host.persist();
    host.acknowledge(2, 4);
    let outputs = host.take();
    let answered: Vec<u64> = replies(&outputs).iter().map(|(id, _)| *id).collect();
    assert_eq!(answered, [7, 8], "each has a place of its own");
}

#[test]
fn a_batch_that_is_too_much_is_refused_only_as_far_as_it_must_be() {
    let mut host = Host::found(3, |config| {
        (config.max_message_bytes, config.max_uncommitted_bytes) = (2000, 2000);
    });
    host.persist();
    host.campaign();
    host.persist();
    host.vote(2);
    host.persist();
    host.acknowledge(2, 2);
    host.take();
    host.ask(6, put(&[b'v'; 900]));
    assert_eq!(appended(&host.take(), 2), [1]);
    for (id, value) in [(7, &[b'v'; 600][..]), (8, &[b'v'; 1200]), (9, &[b'v'; 300])] {
        host.node.request(RequestId(id), put(value));
    }
    host.collect();
    let outputs = host.take();
    assert_eq!(replies(&outputs), [(8, &Reply::Refused(Refusal::Busy))]);
    assert_eq!(host.node.status().last.index, 5, "what was refused is nowhere");
    host.persist();
    host.acknowledge(2, 5);
    let outputs = host.take();
    let answered: Vec<u64> = replies(&outputs).iter().map(|(id, _)| *id).collect();
    assert_eq!(answered, [6, 7, 9]);
}

#[test]
fn what_comes_after_a_transfer_is_refused_and_what_comes_before_is_not() {
    let mut host = Host::leading();
    host.node.request(RequestId(7), put(b"v"));
    host.node.request(RequestId(8), Request::Transfer(NodeId(2)));
    host.node.request(RequestId(9), put(b"v"));
    host.collect();
    let outputs = host.take();
    let refused = Reply::Refused(Refusal::Transferring);
    assert_eq!(replies(&outputs), [(8, &Reply::Transferring), (9, &refused)]);
    assert_eq!(host.node.status().last.index, 3);
}

#[test]
fn reads_that_arrive_together_share_a_round() {
    let mut host = Host::leading();
    for id in [7, 8] {
        host.node.request(RequestId(id), get());
    }
    host.collect();
    let first = host.take();
    assert_eq!(sent(&first), [(2, Kind::Heartbeat), (3, Kind::Heartbeat)]);
    // One more, while the answer is on its way: the round was asked before it came.
    host.ask(9, get());
    host.take();
    host.receive_raft(heartbeat_answer(&first));
    let outputs = host.take();
    let answered: Vec<u64> = replies(&outputs).iter().map(|(id, _)| *id).collect();
    assert_eq!(answered, [7, 8]);
}

#[test]
fn the_only_voter_does_not_lead_before_it_has_acted_on_what_it_received() {
    let mut host = Host::founded(1);
    let mut message = raft(2, MessageType::MsgAppend, 2);
    (message.index, message.log_term) = (1, 1);
    message.entries.push(eraftpb::Entry { index: 2, term: 2, ..Default::default() });
    host.node.receive(NodeId(2), Message::Raft(RaftMessage::new(message)));
    for _ in 0..40 {
        host.node.tick();
    }
    assert_eq!(host.node.status().role, Role::Follower, "its log is not durable");
    host.collect();
    host.persist();
    for _ in 0..40 {
        host.tick();
        host.persist();
    }
    assert_eq!(host.node.status().role, Role::Leader);
}

#[test]
fn what_raft_commits_is_not_recorded_before_the_entries_are() {
    let mut host = Host::founded(3);
    // All before the node acts on any of it: an entry that is committed, and ticks, of which one in
    // sixteen may write to the log.
    let mut message = raft(2, MessageType::MsgAppend, 2);
    (message.index, message.log_term, message.commit) = (1, 1, 2);
    message.entries.push(eraftpb::Entry { index: 2, term: 2, ..Default::default() });
    host.node.receive(NodeId(2), Message::Raft(RaftMessage::new(message)));
    for _ in 0..16 {
        host.node.tick();
    }
    host.collect();
    host.persist();
    assert_eq!(host.node.status().applied.index, 2);
}

#[test]
fn what_a_candidate_says_is_held_though_it_is_elected_before_it_is_said() {
    let mut host = Host::founded(3);
    host.campaign();
    host.persist();
    host.take();
    let term = host.node.status().hard_state.term;
    let mut request = raft(3, MessageType::MsgRequestVote, term);
    (request.index, request.log_term) = (1, 1);
    host.node.receive(NodeId(3), Message::Raft(RaftMessage::new(request)));
    let vote = raft(2, MessageType::MsgRequestVoteResponse, term);
    host.node.receive(NodeId(2), Message::Raft(RaftMessage::new(vote)));
    host.collect();
    assert_eq!(host.node.status().role, Role::Leader);
    assert_eq!(sent(&host.take()), [(2, Kind::Append), (3, Kind::Append)]);
    host.persist();
    assert_eq!(sent(&host.take()), [(3, Kind::VoteResp)]);
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
    let founded = restored.node.status().applied;
    assert!(founded.index > old.index + 1_000_000_000, "the old log may have gone on");
    assert_eq!(restored.node.machine(), host.node.machine());
    assert_eq!(restored.node.membership().voters().len(), 1);
    restored.persist();
    while restored.node.status().role != Role::Leader {
        restored.tick();
    }
    restored.persist();
    restored.put(4);
    restored.persist();
    assert!(restored.node.status().applied > founded);

    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.founding_state = Some(state.slice(..state.len() - 1));
    let error =
        Node::<Kv>::start(config, &mut MemDisk::new()).err().expect("half a backup is none");
    assert!(error.to_string().contains("founding state cannot be read"), "{error}");
}

/// A disk that holds one snapshot, and no log that names it.
fn only_snapshot(file: FileName, content: &Bytes) -> MemDisk {
    let mut disk = MemDisk::new();
    disk.insert(file, &content[..]);
    disk
}

#[test]
fn founding_from_a_backup_survives_a_crash() {
    let mut host = Host::leading();
    host.put(3);
    host.persist();
    host.acknowledge(2, 3);
    let state: Bytes = host.node.backup().flatten().collect();
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.founding_state = Some(state.clone());
    let founder = Node::<Kv>::start(config.clone(), &mut MemDisk::new()).expect("a founder");
    let SnapshotId { index, term } = founder.status().applied;
    // It crashed between its snapshot and the first record of its log.
    let mut left = only_snapshot(FileName::Snapshot(index, term), &state);
    let again = Node::<Kv>::start(config.clone(), &mut left).expect("it founds again");
    assert_eq!(again.status().applied, founder.status().applied);
    // Any other snapshot proves that there was a log.
    let mut left = only_snapshot(FileName::Snapshot(index + 1, term), &state);
    let error = Node::<Kv>::start(config, &mut left).err().expect("a log is gone");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_request_passed_to_a_leader_that_is_lost_is_answered_unknown_at_once() {
    let mut host = Host::founded(3);
    host.append(2, (1, 1), 1);
    host.persist();
    host.take();
    host.put(5);
    assert_eq!(sent(&host.take()), [(2, Kind::Forward)]);
    host.node.disconnected(NodeId(3));
    host.collect();
    assert_eq!(replies(&host.take()), [], "that was not its leader");
    host.node.disconnected(NodeId(2));
    host.collect();
    assert_eq!(replies(&host.take()), [(5, &Reply::LeaderLost)]);
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

/// What node 2 says to the question of its leader, in term 2, whether it still leads.
fn heartbeat_answer(question: &[Output]) -> eraftpb::Message {
    let context = question.iter().find_map(|output| match output {
        Output::Send { to: NodeId(2), message: Message::Raft(message) } => {
            Some(message.0.context.clone())
        }
        _ => None,
    });
    let mut answer = raft(2, MessageType::MsgHeartbeatResponse, 2);
    answer.context = context.expect("it asks node 2 whether it still leads");
    answer
}

#[test]
fn a_leaders_read_waits_for_a_majority() {
    let mut host = Host::leading();
    host.ask(7, get());
    let outputs = host.take();
    assert_eq!(replies(&outputs), [], "it may have been deposed without knowing");
    host.receive_raft(heartbeat_answer(&outputs));
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

#[test]
fn answers_that_are_too_much_for_one_go_wait_for_the_next_and_small_ones_do_not() {
    let mut host = Host::found(1, |config| config.max_answer_bytes = 5000);
    for _ in 0..40 {
        host.tick();
        host.persist();
    }
    host.ask(1, put(&[b'v'; 1000]));
    host.persist();
    host.take();
    let query = Query::Get { key: "k".into() }.encode();
    let ask = |host: &mut Host, id| {
        let consistency = if id % 2 == 0 { Consistency::Stale } else { Consistency::Linearizable };
        host.node.request(RequestId(id), Request::Query { query: query.clone(), consistency });
    };
    let answered = |host: &mut Host| {
        host.collect();
        let outputs = host.take();
        let replies = replies(&outputs);
        assert!(replies.iter().all(|(_, reply)| matches!(reply, Reply::Value { .. })));
        replies.len()
    };
    for id in 10..30 {
        ask(&mut host, id);
    }
    // One is the straw that breaks the camel's back.
    for left in [15, 10, 5] {
        assert_eq!(answered(&mut host), 5);
        assert_eq!((host.node.pending(), host.node.has_work()), (left, true));
    }
    assert_eq!(answered(&mut host), 5);
    assert!(host.node.pending() == 0 && !host.node.has_work());
    // Those that fit are answered in the same go.
    for id in 30..34 {
        ask(&mut host, id);
    }
    assert_eq!(answered(&mut host), 4);
    // Nobody waits for ever, not even if the host forgets that there is work.
    for id in 40..50 {
        ask(&mut host, id);
    }
    assert_eq!(answered(&mut host), 5);
    for _ in 0..1000 {
        host.node.tick();
    }
    host.collect();
    let outputs = host.take();
    let refused = |(_, reply): &(u64, &Reply)| **reply == Reply::Refused(Refusal::Busy);
    assert_eq!(replies(&outputs).into_iter().filter(refused).count(), 5);
}

#[test]
fn a_message_without_a_term_is_refused() {
    let mut host = Host::leading();
    for kind in [
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestVote,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
    ] {
        let mut message = raft(2, kind, 0);
        message.index = 9;
        host.receive_raft(message);
        assert!(host.take().is_empty(), "{kind:?}");
    }
}

#[test]
fn a_rejection_cannot_hint_behind_the_end_of_the_log() {
    let mut host = Host::leading();
    let mut message = raft(3, MessageType::MsgAppendResponse, 2);
    (message.reject, message.index, message.reject_hint) = (true, 1, u64::MAX);
    host.receive_raft(message.clone());
    assert!(host.take().is_empty());
    message.reject_hint = 1;
    host.receive_raft(message);
    let outputs = host.take();
    assert!(matches!(outputs[..], [Output::Fetch { .. }]), "it needs a snapshot: {outputs:?}");
}

#[test]
fn a_chunk_of_an_impossible_term_is_refused() {
    let mut host = Host::founded(3);
    let mut chunk = |term, of| {
        let data = Bytes::from_static(b"part");
        let snapshot = SnapshotId { index: 1, term: of };
        let chunk = Chunk { transfer: 7, term, snapshot, total: 9, offset: 0, data };
        host.receive(2, Message::Chunk(chunk));
        assert!(host.node.status().hard_state.term <= 2);
        matches!(
            host.take()[..],
            [Output::Send { message: Message::ChunkAck { done: Some(false), .. }, .. }]
        )
    };
    assert!(chunk(u64::MAX, 1), "there is no term after it");
    assert!(chunk(2, 3), "the snapshot is of a later term than its leader");
    assert!(chunk(2, 0));
    assert!(!chunk(2, 1), "this one is only old");
}

#[test]
fn nobody_is_elected_before_its_log_is_durable() {
    let mut host = Host::found(1, |_| ());
    host.persist();
    while host.node.status().role != Role::Leader {
        host.tick();
        host.persist();
    }
    host.put(7);
    host.receive_raft(raft(2, MessageType::MsgHeartbeat, 9));
    host.receive_raft(raft(2, MessageType::MsgTimeoutNow, 9));
    assert_eq!(host.node.status().role, Role::Follower, "its last entry is still being written");
    host.persist();
}

#[test]
fn a_log_does_not_begin_with_an_append() {
    let mut host = Host::found(1, |config| config.founders.clear());
    host.persist();
    host.append(1, (0, 0), 1);
    assert_eq!(host.node.status().last, SnapshotId::default());
}

#[test]
fn a_member_that_lost_what_it_acknowledged_stops() {
    let mut host = Host::founded(3);
    let mut heartbeat = raft(2, MessageType::MsgHeartbeat, 2);
    heartbeat.commit = 7;
    // From before its present term it may be about entries that were replaced since.
    host.receive_raft(raft(2, MessageType::MsgHeartbeat, 3));
    host.receive_raft(heartbeat.clone());
    assert_eq!(host.node.stopped(), None);
    heartbeat.term = 3;
    host.receive_raft(heartbeat);
    assert_eq!(host.node.stopped(), Some(&Error::DataLost { acknowledged: 7, last: 1 }));
}
