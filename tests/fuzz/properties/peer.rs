//! Messages of a peer that has been damaged, misrouted or gone mad: plausible in most parts, and
//! wrong anywhere.

use bytes::Bytes;
use protobuf::{Message as _, ProtobufEnum as _};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, MessageType,
};

use stormkv::api::{Consistency, Reconfigure, Refusal, Reply, Request};
use stormkv::kv::{Command, Query};
use stormkv::node::Status;
use stormkv::types::{NodeId, SessionId, SnapshotId};
use stormkv::wire::{Chunk, Message};

use super::frame::framed;
use super::input::Input;
use super::snapshot;

const KINDS: [MessageType; 20] = [
    MessageType::MsgAppend,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgAppendResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgSnapshot,
    MessageType::MsgPropose,
    MessageType::MsgTransferLeader,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgHup,
    MessageType::MsgUnreachable,
    MessageType::MsgCheckQuorum,
    MessageType::MsgSnapStatus,
];

/// A member, mostly.
pub fn node(input: &mut Input<'_>) -> NodeId {
    match input.byte() % 16 {
        15 => NodeId(input.near(&[0])),
        choice => NodeId(u64::from(choice % 5) + 1),
    }
}

/// A message of raft, if it survives the wire.
pub fn raft(status: &Status, from: NodeId, input: &mut Input<'_>) -> Option<Message> {
    let mut message = raft::eraftpb::Message::default();
    message.set_msg_type(KINDS[usize::from(input.byte()) % KINDS.len()]);
    message.from = from.0;
    message.to = status.id.0;
    let terms = [status.hard_state.term, status.last.term, 1];
    let indexes = [status.last.index, status.hard_state.commit, status.first, 0];
    message.term = input.near(&terms);
    message.index = input.near(&indexes);
    message.log_term = match status.last {
        last if last.index == message.index && input.flag() => last.term,
        last => input.near(&[last.term, 1, message.term, 0]),
    };
    message.commit = input.near(&indexes);
    let rare = input.byte();
    message.reject = rare & 1 == 1;
    if rare & 1 == 1 {
        message.reject_hint = input.near(&indexes);
    }
    if rare & 6 == 6 {
        message.request_snapshot = input.near(&indexes);
    }
    if rare & 24 == 24 {
        message.context = Bytes::copy_from_slice(input.some());
    }
    if rare & 96 == 96 {
        (message.commit_term, message.priority) = (input.near(&terms), input.u64() as i64);
        message.from = input.near(&[1, 2, 3]);
        message.to = input.near(&[1, 2]);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (input.near(&indexes), input.near(&terms));
        metadata.mut_conf_state().voters = vec![input.near(&[1, 0]), input.near(&[2])];
    }
    for at in 0..u64::from(input.byte() % 5) {
        let entry = entry(message.index.wrapping_add(at + 1), message.term, input);
        message.entries.push(entry);
    }
    let mut content = vec![1];
    content.extend(message.write_to_bytes().expect("writing to memory cannot fail"));
    Message::decode(&framed(&content)).ok()
}

fn entry(index: u64, term: u64, input: &mut Input<'_>) -> Entry {
    let mut entry = Entry { index, term, ..Entry::default() };
    let kind = input.byte();
    if kind & 0xe0 == 0xe0 {
        (entry.index, entry.term) = (input.near(&[index]), input.near(&[term, 1]));
    }
    let (kind, data) = match kind % 8 {
        0 | 1 => (EntryType::EntryNormal, Vec::new()),
        2 => (EntryType::EntryNormal, proposal(input)),
        3 => (EntryType::EntryNormal, input.some().to_vec()),
        4 | 5 => (EntryType::EntryConfChangeV2, change(input)),
        6 => (EntryType::EntryConfChangeV2, input.some().to_vec()),
        _ => (EntryType::EntryConfChange, input.some().to_vec()),
    };
    entry.set_entry_type(kind);
    entry.data = data.into();
    entry
}

fn proposal(input: &mut Input<'_>) -> Vec<u8> {
    let command = command(input);
    // A session that is open, or not; postcard writes small numbers as one byte.
    match input.byte() % 4 {
        0 => vec![0],
        1 => [&[1, 1, input.byte() & 0x7f, input.byte() & 0x7f][..], &long(&command)].concat(),
        _ => [&[1, 0][..], &long(&command)].concat(),
    }
}

/// Bytes with their length in front.
fn long(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    [&[len as u8 | 0x80, (len >> 7) as u8][..], bytes].concat()
}

fn change(input: &mut Input<'_>) -> Vec<u8> {
    let mut change = ConfChangeV2::default();
    let transition = raft::eraftpb::ConfChangeTransition::values();
    change.set_transition(transition[usize::from(input.byte()) % transition.len()]);
    for _ in 0..input.byte() % 4 {
        let mut single = ConfChangeSingle { node_id: node(input).0, ..Default::default() };
        let kinds = ConfChangeType::values();
        single.set_change_type(kinds[usize::from(input.byte()) % kinds.len()]);
        change.changes.push(single);
    }
    if input.byte() % 8 == 7 {
        change.context = Bytes::copy_from_slice(input.some());
    }
    change.write_to_bytes().expect("writing to memory cannot fail")
}

fn command(input: &mut Input<'_>) -> Bytes {
    let key = Bytes::copy_from_slice(&[input.byte() % 4]);
    match input.byte() % 4 {
        0 | 1 => Command::Put { key, value: Bytes::copy_from_slice(input.bytes(3)) }.encode(),
        2 => Command::Delete { key }.encode(),
        _ => Bytes::copy_from_slice(input.some()),
    }
}

/// What a client asks for.
pub fn request(input: &mut Input<'_>) -> Request {
    match input.byte() % 8 {
        0 => Request::OpenSession,
        1 | 2 => Request::Command { session: None, command: command(input) },
        3 => {
            let session = Some((SessionId(input.near(&[2, 3])), input.near(&[1])));
            Request::Command { session, command: command(input) }
        }
        4 | 5 => {
            let query = Query::Get { key: Bytes::copy_from_slice(input.bytes(1)) }.encode();
            let consistencies = [Consistency::Linearizable, Consistency::Stale];
            Request::Query { query, consistency: consistencies[usize::from(input.byte() % 2)] }
        }
        6 => {
            let mut change = Reconfigure::default();
            for _ in 0..input.byte() % 4 {
                let group = match input.byte() % 3 {
                    0 => &mut change.voters,
                    1 => &mut change.learners,
                    _ => &mut change.removed,
                };
                group.push(node(input));
            }
            if input.byte().is_multiple_of(4) {
                change.addresses.insert(node(input), "somewhere".to_owned());
            }
            match input.byte() % 4 {
                0 => Request::ForceReconfigure(change),
                _ => Request::Reconfigure(change),
            }
        }
        _ => Request::Transfer(node(input)),
    }
}

/// One of the other messages. `asked` is an id that the node waits for, if it does.
pub fn ours(status: &Status, asked: u64, input: &mut Input<'_>) -> Message {
    let indexes = [status.last.index, status.hard_state.commit, 0];
    match input.byte() % 8 {
        0 | 1 => Message::Forward { id: input.u64(), request: request(input) },
        2 => {
            let replies = [
                Reply::Unknown,
                Reply::Transferring,
                Reply::SessionOpened(SessionId(1)),
                Reply::Refused(Refusal::NotLeader(Some(node(input)))),
            ];
            let reply = replies[usize::from(input.byte()) % replies.len()].clone();
            Message::Answer { id: input.near(&[asked]), reply }
        }
        3 => Message::ReadIndex { id: input.u64() },
        4 => {
            let index = input.flag().then(|| input.near(&indexes));
            Message::ReadIndexAnswer { id: input.near(&[asked]), index }
        }
        5 => Message::ChunkAck {
            transfer: input.near(&[asked]),
            received: input.near(&[0, 100]),
            done: [None, None, Some(true), Some(false)][usize::from(input.byte() % 4)],
        },
        _ => chunk(status, input),
    }
}

/// A snapshot in one piece, or a piece of one.
fn chunk(status: &Status, input: &mut Input<'_>) -> Message {
    let terms = [status.hard_state.term, status.last.term, 1];
    let index = input.near(&[status.hard_state.commit, status.last.index]);
    let snapshot = SnapshotId { index, term: input.near(&terms) };
    let data = match input.byte() % 4 {
        0 => snapshot::any_file(input),
        _ => snapshot::good_named(snapshot, input),
    };
    let mut chunk = Chunk {
        transfer: u64::from(input.byte() % 4),
        term: input.near(&terms),
        snapshot,
        total: data.len() as u64,
        offset: 0,
        data,
    };
    match input.byte() % 8 {
        0 => chunk.total = input.near(&[chunk.total]),
        1 => chunk.offset = input.near(&[0, chunk.total]),
        2 | 3 => {
            let (from, to) = (input.up_to(chunk.data.len()), input.up_to(chunk.data.len()));
            chunk.data = chunk.data.slice(from.min(to)..from.max(to));
            chunk.offset = from.min(to) as u64;
        }
        _ => {}
    }
    Message::Chunk(chunk)
}
