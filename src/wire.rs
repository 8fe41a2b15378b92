//! What nodes say to each other, and how it looks as bytes.
//!
//! Raft's own messages travel beside a few of ours: requests forwarded to the leader, ReadIndex
//! questions (asked at application level, each with a fresh context: the crate's own forwarding can
//! answer with an index from before the question, etcd #20418), and snapshots in chunks.
//!
//! A frame is `length (4) | CRC-32 (4) | kind (1) | body`, little endian; the length counts kind and
//! body, the CRC covers them. Raft's body is protobuf, the others are postcard. Kinds 3 and 4 belong
//! to the transport.

mod lane;

use std::fmt;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{self, MessageType};
use serde::{Deserialize, Serialize};

use crate::api::{Reply, Request};
use crate::types::{LogIndex, NodeId, SnapshotId, Term};
pub use lane::Lane;

/// The longest frame that is accepted, checked before anything is allocated.
pub const MAX_FRAME: usize = 64 << 20;

/// Bytes of a frame before its kind: length and CRC.
pub const HEADER: usize = 8;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Raft itself.
    Raft(RaftMessage),
    /// A client's request on its way to the leader.
    Forward {
        /// Chosen by the sender, unique among all of its lives.
        id: u64,
        /// What the client wants.
        request: Request,
    },
    /// The leader's answer to a [`Message::Forward`].
    Answer {
        /// The id of the question.
        id: u64,
        /// For the client.
        reply: Reply,
    },
    /// Asks the leader for an index at which a read is linearizable.
    ReadIndex {
        /// Chosen by the sender, unique among all of its lives.
        id: u64,
    },
    /// The leader's answer: serve once this index is applied. `None`: not the leader, ask again.
    ReadIndexAnswer {
        /// The id of the question.
        id: u64,
        /// What was committed when the leader had made sure that it still leads.
        index: Option<LogIndex>,
    },
    /// A part of a snapshot.
    Chunk(Chunk),
    /// How much of a snapshot has arrived in order, or that it is not wanted.
    ChunkAck {
        /// Which transfer.
        transfer: u64,
        /// Bytes received without a gap.
        received: u64,
        /// The transfer is over: `Some(true)` installed or already known, `Some(false)` failed.
        done: Option<bool>,
    },
    /// The receiver was removed from the cluster for good, and should stop.
    Removed,
    /// Reports to the leader that the sender's disk is nearly full. Repeated while that lasts.
    DiskShort,
}

/// A part of a snapshot file on its way to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Chosen by the sender, unique among all of its lives.
    pub transfer: u64,
    /// The leader's term when it decided to send the snapshot.
    pub term: Term,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Bytes of the whole file.
    pub total: u64,
    /// Where `data` belongs.
    pub offset: u64,
    /// Bytes of the file.
    pub data: Bytes,
}

/// What kind of message it is; for traces, and for rules such as `drop = "2->1 AppendResp #4"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the message of that name")]
pub enum Kind {
    Append,
    AppendResp,
    Heartbeat,
    HeartbeatResp,
    Vote,
    VoteResp,
    PreVote,
    PreVoteResp,
    TimeoutNow,
    Forward,
    Answer,
    ReadIndex,
    ReadIndexAnswer,
    Chunk,
    ChunkAck,
    Removed,
    Other,
    DiskShort,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 18] = [
        Kind::Append,
        Kind::AppendResp,
        Kind::Heartbeat,
        Kind::HeartbeatResp,
        Kind::Vote,
        Kind::VoteResp,
        Kind::PreVote,
        Kind::PreVoteResp,
        Kind::TimeoutNow,
        Kind::Forward,
        Kind::Answer,
        Kind::ReadIndex,
        Kind::ReadIndexAnswer,
        Kind::Chunk,
        Kind::ChunkAck,
        Kind::Removed,
        Kind::Other,
        Kind::DiskShort,
    ];

    /// The kind's name, as rules and traces spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Append => "Append",
            Kind::AppendResp => "AppendResp",
            Kind::Heartbeat => "Heartbeat",
            Kind::HeartbeatResp => "HeartbeatResp",
            Kind::Vote => "Vote",
            Kind::VoteResp => "VoteResp",
            Kind::PreVote => "PreVote",
            Kind::PreVoteResp => "PreVoteResp",
            Kind::TimeoutNow => "TimeoutNow",
            Kind::Forward => "Forward",
            Kind::Answer => "Answer",
            Kind::ReadIndex => "ReadIndex",
            Kind::ReadIndexAnswer => "ReadIndexAnswer",
            Kind::Chunk => "Chunk",
            Kind::ChunkAck => "ChunkAck",
            Kind::Removed => "Removed",
            Kind::DiskShort => "DiskShort",
            Kind::Other => "Other",
        }
    }
}

/// A message of the raft crate, opaque but for what observers need. Boxed, because it is large and
/// passes through many hands.
#[derive(Clone, Debug, PartialEq)]
pub struct RaftMessage(pub(crate) Box<eraftpb::Message>);

impl RaftMessage {
    pub(crate) fn new(message: eraftpb::Message) -> Self {
        RaftMessage(Box::new(message))
    }

    /// What kind of message it is.
    pub fn kind(&self) -> Kind {
        match self.0.get_msg_type() {
            MessageType::MsgAppend => Kind::Append,
            MessageType::MsgAppendResponse => Kind::AppendResp,
            MessageType::MsgHeartbeat => Kind::Heartbeat,
            MessageType::MsgHeartbeatResponse => Kind::HeartbeatResp,
            MessageType::MsgRequestVote => Kind::Vote,
            MessageType::MsgRequestVoteResponse => Kind::VoteResp,
            MessageType::MsgRequestPreVote => Kind::PreVote,
            MessageType::MsgRequestPreVoteResponse => Kind::PreVoteResp,
            MessageType::MsgTimeoutNow => Kind::TimeoutNow,
            _ => Kind::Other,
        }
    }

    /// What the raft crate calls it, for example `MsgReadIndex`.
    pub fn name(&self) -> String {
        format!("{:?}", self.0.get_msg_type())
    }

    /// The sender.
    pub fn from(&self) -> NodeId {
        NodeId(self.0.from)
    }

    /// The receiver.
    pub fn to(&self) -> NodeId {
        NodeId(self.0.to)
    }

    /// The sender's term (for pre-votes: the term it would campaign for).
    pub fn term(&self) -> Term {
        self.0.term
    }

    /// Append, votes: the term of the entry at `index`.
    pub fn log_term(&self) -> Term {
        self.0.log_term
    }

    /// Append: the entry before the first one sent. Votes: the last entry. Responses: the match.
    pub fn index(&self) -> LogIndex {
        self.0.index
    }

    /// The sender's commit index, where the kind carries one.
    pub fn commit(&self) -> LogIndex {
        self.0.commit
    }

    /// Responses: refused.
    pub fn reject(&self) -> bool {
        self.0.reject
    }

    /// How many entries an append carries.
    pub fn entry_count(&self) -> usize {
        self.0.entries.len()
    }

    /// Bytes of the entries and of the context: nearly all of the message, when it is large.
    pub fn payload_bytes(&self) -> usize {
        let entries = &self.0.entries;
        entries.iter().map(|e| e.data.len() + e.context.len() + 16).sum::<usize>()
            + self.0.context.len()
    }

    /// Index and term of the entries an append carries.
    pub fn entries(&self) -> impl Iterator<Item = (LogIndex, Term)> + '_ {
        self.0.entries.iter().map(|e| (e.index, e.term))
    }
}

/// Bytes that are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Fewer bytes than the frame says.
    Truncated,
    /// The frame says that it is longer than [`MAX_FRAME`].
    TooLong(usize),
    /// The CRC does not match.
    Checksum,
    /// The kind is unknown or the body is not one of its kind.
    Malformed(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Truncated => write!(f, "the frame is shorter than its header says"),
            WireError::TooLong(len) => {
                write!(f, "the frame claims {len} bytes, the limit is {MAX_FRAME}")
            }
            WireError::Checksum => write!(f, "the frame's checksum does not match its bytes"),
            WireError::Malformed(what) => write!(f, "the frame is no message: {what}"),
        }
    }
}

impl std::error::Error for WireError {}

/// The bodies of our own messages.
#[derive(Serialize, Deserialize)]
enum Body {
    Forward(u64, Request),
    Answer(u64, Reply),
    ReadIndex(u64),
    ReadIndexAnswer(u64, Option<LogIndex>),
    Chunk(Chunk),
    ChunkAck(u64, u64, Option<bool>),
    Removed,
    DiskShort,
}

const RAFT: u8 = 1;
const OURS: u8 = 2;

/// Appends one frame with what `body` appends.
pub(crate) fn put_frame(buffer: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER]);
    buffer.push(kind);
    body(buffer);
    let counted = start + HEADER;
    let length = u32::try_from(buffer.len() - counted).expect("frames are far below 4 GiB");
    let crc = crc32fast::hash(&buffer[counted..]);
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..counted].copy_from_slice(&crc.to_le_bytes());
}

impl Message {
    /// What kind of message it is.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Raft(message) => message.kind(),
            Message::Forward { .. } => Kind::Forward,
            Message::Answer { .. } => Kind::Answer,
            Message::ReadIndex { .. } => Kind::ReadIndex,
            Message::ReadIndexAnswer { .. } => Kind::ReadIndexAnswer,
            Message::Chunk(_) => Kind::Chunk,
            Message::ChunkAck { .. } => Kind::ChunkAck,
            Message::Removed => Kind::Removed,
            Message::DiskShort => Kind::DiskShort,
        }
    }

    /// The message as one frame.
    pub fn encode(&self) -> Bytes {
        let mut frame = Vec::with_capacity(128);
        self.encode_into(&mut frame);
        Bytes::from(frame)
    }

    /// Appends the message as one frame.
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        let ours = |buffer: &mut Vec<u8>, body: &Body| {
            postcard::to_io(body, buffer).expect("writing to memory cannot fail");
        };
        put_frame(buffer, if matches!(self, Message::Raft(_)) { RAFT } else { OURS }, |buffer| {
            match self {
                Message::Raft(message) => {
                    message.0.write_to_vec(buffer).expect("writing to memory cannot fail");
                }
                Message::Forward { id, request } => {
                    ours(buffer, &Body::Forward(*id, request.clone()));
                }
                Message::Answer { id, reply } => ours(buffer, &Body::Answer(*id, reply.clone())),
                Message::ReadIndex { id } => ours(buffer, &Body::ReadIndex(*id)),
                Message::ReadIndexAnswer { id, index } => {
                    ours(buffer, &Body::ReadIndexAnswer(*id, *index));
                }
                Message::Chunk(chunk) => ours(buffer, &Body::Chunk(chunk.clone())),
                Message::ChunkAck { transfer, received, done } => {
                    ours(buffer, &Body::ChunkAck(*transfer, *received, *done));
                }
                Message::Removed => ours(buffer, &Body::Removed),
                Message::DiskShort => ours(buffer, &Body::DiskShort),
            }
        });
    }

    /// Reads one frame; the bytes must hold exactly one.
    ///
    /// # Errors
    /// When they do not.
    pub fn decode(frame: &Bytes) -> Result<Message, WireError> {
        let word = |at: usize| -> Result<u32, WireError> {
            let bytes = frame.get(at..at + 4).ok_or(WireError::Truncated)?;
            Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
        };
        let (length, crc) = (word(0)? as usize, word(4)?);
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        if frame.len() - HEADER != length || length == 0 {
            return Err(WireError::Truncated);
        }
        if crc32fast::hash(&frame[HEADER..]) != crc {
            return Err(WireError::Checksum);
        }
        let body = frame.slice(HEADER + 1..);
        match frame[HEADER] {
            RAFT => {
                // Reading from `Bytes` shares the payloads with the frame instead of copying them.
                let mut input = protobuf::CodedInputStream::from_carllerche_bytes(&body);
                let mut message = eraftpb::Message::default();
                message
                    .merge_from(&mut input)
                    .map_err(|error| WireError::Malformed(error.to_string()))?;
                Ok(Message::Raft(RaftMessage::new(message)))
            }
            OURS => {
                let body: Body = postcard::from_bytes(&body)
                    .map_err(|error| WireError::Malformed(error.to_string()))?;
                Ok(match body {
                    Body::Forward(id, request) => Message::Forward { id, request },
                    Body::Answer(id, reply) => Message::Answer { id, reply },
                    Body::ReadIndex(id) => Message::ReadIndex { id },
                    Body::ReadIndexAnswer(id, index) => Message::ReadIndexAnswer { id, index },
                    Body::Chunk(chunk) => Message::Chunk(chunk),
                    Body::ChunkAck(transfer, received, done) => {
                        Message::ChunkAck { transfer, received, done }
                    }
                    Body::Removed => Message::Removed,
                    Body::DiskShort => Message::DiskShort,
                })
            }
            kind => Err(WireError::Malformed(format!("unknown kind {kind}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};

    fn append() -> Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term, message.index) = (1, 2, 3, 4);
        let entry = eraftpb::Entry {
            index: 5,
            term: 3,
            data: Bytes::from_static(b"put"),
            ..Default::default()
        };
        message.entries.push(entry);
        Message::Raft(RaftMessage::new(message))
    }

    fn samples() -> Vec<Message> {
        let snapshot = SnapshotId { index: 9, term: 2 };
        let data = Bytes::from_static(b"chunk");
        vec![
            append(),
            Message::Forward { id: 1, request: Request::OpenSession },
            Message::Answer { id: 2, reply: Reply::Unknown },
            Message::Answer { id: 2, reply: Reply::LeaderLost },
            Message::ReadIndex { id: 3 },
            Message::ReadIndexAnswer { id: 3, index: Some(7) },
            Message::Chunk(Chunk { transfer: 4, term: 2, snapshot, total: 5, offset: 0, data }),
            Message::ChunkAck { transfer: 4, received: 5, done: Some(true) },
            Message::Removed,
            Message::DiskShort,
        ]
    }

    #[test]
    fn every_message_survives_the_wire() {
        for message in samples() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn no_damaged_or_short_frame_is_accepted() {
        for message in samples() {
            let frame = message.encode();
            for at in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..at)).is_err(), "cut at {at}");
                let mut damaged = frame.to_vec();
                damaged[at] ^= 0x10;
                assert!(Message::decode(&Bytes::from(damaged)).is_err(), "flipped at {at}");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_by_its_header() {
        let mut frame = append().encode().to_vec();
        frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = Message::decode(&Bytes::from(frame)).unwrap_err();
        assert_eq!(error, WireError::TooLong(u32::MAX as usize));
    }

    /// RUSTSEC-2024-0437: protobuf 2 recurses without bound on unknown nested *groups*. This crate
    /// skips a group by a loop, so the crafted input is refused, not fatal.
    #[test]
    fn deeply_nested_groups_do_not_overflow_the_stack() {
        let mut frame = BytesMut::new();
        frame.put_u64_le(0);
        frame.put_u8(RAFT);
        frame.put_bytes(0x7b, 4 << 20);
        let crc = crc32fast::hash(&frame[HEADER..]);
        let length = (frame.len() - HEADER) as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..HEADER].copy_from_slice(&crc.to_le_bytes());
        assert!(Message::decode(&frame.freeze()).is_err());
    }
}
