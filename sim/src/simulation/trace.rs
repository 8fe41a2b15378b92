//! The rolling hash over every event, and the line that a person reads of it.

use stormkv::types::NodeId;
use stormkv::wire::{Kind, Message};

use super::failure::FailureRecorder;
use super::recorder::Recorder;
use crate::service::Service;
use crate::words;

/// Takes the line of one event.
pub type Sink = Box<dyn FnMut(&str)>;

/// Takes the rolling hash after one event.
pub type Digest = Box<dyn FnMut(u64)>;

#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    pub step: u64,
    /// The present event has its line already.
    told: bool,
    pub sink: Option<Sink>,
    pub failure: Option<Box<FailureRecorder>>,
    pub recorder: Option<Box<Recorder>>,
    pub digest: Option<Digest>,
}

impl Trace {
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub fn hash(&self) -> u64 {
        finish(self.hash)
    }

    /// Hands a line to the reader, if there is one; the first of an event begins with its number
    /// and time. The line costs nothing otherwise.
    pub fn line(&mut self, at_ns: u64, text: impl FnOnce() -> String) {
        if self.sink.is_none() && self.failure.is_none() {
            return;
        }
        let text = text();
        self.record(at_ns, &text);
        let Some(sink) = &mut self.sink else { return };
        if std::mem::replace(&mut self.told, true) {
            sink(&format!("{:>20}  ..{text}", ""));
            return;
        }
        let (ms, us) = (at_ns / 1_000_000, at_ns / 1000 % 1000);
        sink(&format!("{:>6} {ms:>6}.{us:03} ms  {text}", self.step));
    }

    /// The next event begins.
    pub fn begin(&mut self, step: u64, at_ns: u64) {
        self.mix(at_ns);
        self.step = step;
        self.told = false;
    }

    /// The present event is over.
    pub fn end(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest(finish(self.hash));
        }
    }
}

fn finish(mut x: u64) -> u64 {
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// What of a message goes into the hash.
pub(super) fn mix_message(trace: &mut Trace, message: &Message) {
    trace.mix(message.kind() as u64);
    match message {
        Message::Raft(raft) => {
            let flags = raft.entry_count() as u64 * 2 + u64::from(raft.reject());
            for value in [raft.term(), raft.index(), raft.log_term(), raft.commit(), flags] {
                trace.mix(value);
            }
        }
        Message::Forward { id, .. } | Message::ReadIndex { id } => trace.mix(*id),
        Message::Answer { id, reply } => {
            trace.mix(*id);
            trace.mix(reply_code(reply));
        }
        Message::ReadIndexAnswer { id, index } => {
            trace.mix(*id);
            trace.mix(index.unwrap_or(0));
        }
        Message::Chunk(chunk) => {
            trace.mix(chunk.transfer);
            trace.mix(chunk.offset ^ chunk.total << 32);
        }
        Message::ChunkAck { transfer, received, done } => {
            trace.mix(*transfer);
            trace.mix(*received * 4 + done.map_or(0, |done| 1 + u64::from(done)));
        }
        Message::Removed | Message::DiskShort => {}
    }
}

pub(super) fn reply_code(reply: &stormkv::api::Reply) -> u64 {
    use stormkv::api::Reply;
    match reply {
        Reply::SessionOpened(id) => id.0 * 8,
        Reply::Applied { index, .. } => index * 8 + 1,
        Reply::Value { index, .. } => index * 8 + 2,
        Reply::Reconfigured { index } => index * 8 + 3,
        Reply::Transferring => 4,
        Reply::Refused(_) => 5,
        // One kind of answer as far as a client is concerned.
        Reply::Unknown | Reply::LeaderLost => 6,
        Reply::NotKept { index, .. } => index * 8 + 7,
    }
}

/// `n1 -> n2 Append t2 prev=3@1 [4@2 5@2] commit=3`
pub(super) fn describe<S: Service>(from: NodeId, to: NodeId, message: &Message) -> String {
    let kind = message.kind();
    let mut text = format!("{from} -> {to} {}", kind.name());
    match message {
        Message::Raft(raft) => {
            text.push_str(&format!(" t{}", raft.term()));
            match kind {
                Kind::Append => {
                    text.push_str(&format!(" prev={}@{} [", raft.index(), raft.log_term()));
                    for (at, (index, term)) in raft.entries().enumerate() {
                        let space = if at > 0 { " " } else { "" };
                        text.push_str(&format!("{space}{index}@{term}"));
                    }
                    text.push_str(&format!("] commit={}", raft.commit()));
                }
                Kind::Vote | Kind::PreVote => {
                    text.push_str(&format!(" last={}@{}", raft.index(), raft.log_term()));
                }
                Kind::AppendResp => text.push_str(&format!(" match={}", raft.index())),
                Kind::Heartbeat => text.push_str(&format!(" commit={}", raft.commit())),
                _ => {}
            }
            if raft.reject() {
                text.push_str(" refused");
            }
        }
        Message::Chunk(chunk) => {
            let (end, id) = (chunk.offset + chunk.data.len() as u64, chunk.snapshot);
            text.push_str(&format!(
                " of snapshot {}@{} bytes {}..{end} of {}",
                id.index, id.term, chunk.offset, chunk.total
            ));
        }
        Message::ChunkAck { received, done, .. } => {
            text.push_str(&format!(" received={received}"));
            match done {
                Some(true) => text.push_str(" done"),
                Some(false) => text.push_str(" failed"),
                None => {}
            }
        }
        Message::ReadIndexAnswer { index: Some(index), .. } => {
            text.push_str(&format!(" index={index}"));
        }
        Message::Answer { reply, .. } => {
            text.push_str(&format!(" {}", words::reply(S::describe, reply)))
        }
        Message::Forward { request, .. } => {
            text.push_str(&format!(" {}", words::request(S::describe, request)))
        }
        _ => {}
    }
    text
}
