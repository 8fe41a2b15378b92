//! What a recorder is told of messages: when they are sent, and what becomes of them.

use stormkv::api::Reply;
use stormkv::types::{NodeId, Term};
use stormkv::wire::{Kind, Message};

use super::super::{MessageId, Observation};
use super::{Recorder, runs};
use crate::network::DropReason;
use crate::plan::MessageKind;
use crate::recording::{Fate, MessageRecord};
use crate::service::Service;
use crate::words;

impl Recorder {
    /// Takes in an observation of a message.
    pub(super) fn observe_message<S: Service>(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Sent { ends, message, id, copy, dropped } => {
                let record = self.record_of::<S>(*ends, message);
                self.post(*id, record, *dropped);
                if let Some(copy) = copy {
                    let record = self.recording.messages[*id as usize - 1].clone();
                    self.post(*copy, MessageRecord { copy: true, ..record }, None);
                }
            }
            Observation::Forbidden { ends, message, id } => {
                let record = self.record_of::<S>(*ends, message);
                self.post(*id, record, None);
                self.accuse(*id);
            }
            Observation::LostOnArrival { id, fate, .. } | Observation::Forgotten(id, fate) => {
                self.ends(*id, *fate, false);
            }
            Observation::Corrupted(id) => self.ends(*id, Fate::Garbled, false),
            Observation::Delivered { ends: (_, to), message, id } => {
                self.arrives(*id, *to, message);
            }
            Observation::RequestSent { lane, node, request, id, dropped } => {
                let what = words::request(S::describe, request);
                self.asks(*id, *lane, *node, &what, *dropped);
            }
            Observation::RequestArrives { id, lost, stale, .. } => {
                self.ends(*id, lost.unwrap_or(Fate::Delivered), lost.is_none() && *stale);
            }
            Observation::ReplySent { lane, node, reply, id, waits, dropped } => {
                let what = words::reply(S::describe, reply);
                self.replies(*id, *lane, *node, (&what, *waits), *dropped);
            }
            Observation::ReplyArrives { lane, reply, id, lost, stale, .. } => {
                self.ends(*id, lost.unwrap_or(Fate::Delivered), lost.is_none() && *stale);
                self.hears(*lane, index_of(reply));
            }
            _ => {}
        }
    }

    fn post(&mut self, id: MessageId, record: MessageRecord, dropped: Option<DropReason>) {
        let mut record = MessageRecord { sent: self.step, ..record };
        if let Some(reason) = dropped {
            (record.fate, record.end) = (self::dropped(reason), self.step);
        }
        self.recording.messages.push(record);
        assert_eq!(self.recording.messages.len(), id as usize, "messages are recorded in order");
    }

    /// The row of a message between nodes.
    fn record_of<S: Service>(
        &mut self,
        (from, to): (NodeId, NodeId),
        message: &Message,
    ) -> MessageRecord {
        let mut letter = MessageRecord {
            from: self.node(from),
            to: self.node(to),
            kind: message.kind() as u8,
            ..MessageRecord::default()
        };
        match message {
            Message::Raft(raft) => {
                (letter.term, letter.index) = (raft.term(), raft.index());
                (letter.log_term, letter.commit) = (raft.log_term(), raft.commit());
                letter.reject = raft.reject();
                let terms = raft.entries().map(|(_, term)| term);
                letter.entries = runs(terms).into_boxed_slice();
                if raft.kind() == Kind::Other {
                    letter.text = self.text(&raft.name());
                }
            }
            Message::Chunk(chunk) => {
                (letter.term, letter.index) = (chunk.term, chunk.snapshot.index);
                letter.log_term = chunk.snapshot.term;
                let end = chunk.offset + chunk.data.len() as u64;
                letter.text =
                    self.text(&format!("bytes {}..{end} of {}", chunk.offset, chunk.total));
            }
            Message::ChunkAck { received, done, .. } => {
                letter.reject = *done == Some(false);
                let done = if *done == Some(true) { ", done" } else { "" };
                letter.text = self.text(&format!("received {received}{done}"));
            }
            Message::ReadIndexAnswer { index, .. } => {
                (letter.index, letter.reject) = (index.unwrap_or(0), index.is_none());
            }
            Message::Forward { request, .. } => {
                letter.text = self.text(&words::request(S::describe, request))
            }
            Message::Answer { reply, .. } => {
                letter.text = self.text(&words::reply(S::describe, reply))
            }
            Message::ReadIndex { .. } | Message::Removed | Message::DiskShort => {}
        }
        letter
    }

    /// A client asks a node.
    fn asks(
        &mut self,
        id: MessageId,
        lane: u32,
        node: NodeId,
        what: &str,
        dropped: Option<DropReason>,
    ) {
        let (from, to, text) = (self.hand(lane), self.node(node), self.text(what));
        let op = self.open[lane as usize].map_or(0, |op| op + 1);
        let kind = row_of(MessageKind::Request);
        self.post(
            id,
            MessageRecord { from, to, kind, text, op, ..MessageRecord::default() },
            dropped,
        );
    }

    /// A node answers a client, which `waits` for that or has gone on.
    fn replies(
        &mut self,
        id: MessageId,
        lane: u32,
        node: NodeId,
        (what, waits): (&str, bool),
        dropped: Option<DropReason>,
    ) {
        let (from, to, text) = (self.node(node), self.hand(lane), self.text(what));
        let op = self.open[lane as usize].filter(|_| waits).map_or(0, |op| op + 1);
        let kind = row_of(MessageKind::Reply);
        self.post(
            id,
            MessageRecord { from, to, kind, text, op, ..MessageRecord::default() },
            dropped,
        );
    }

    /// A message arrives at a node, which may know of a newer term. The term is that of the last
    /// look: a node that collects its inputs may have heard of it, but not acted on it yet.
    fn arrives(&mut self, mail: MessageId, to: NodeId, message: &Message) {
        let term = self.known.get(to.0 as usize).map_or(0, |known| known.state.term);
        self.ends(mail, Fate::Delivered, is_over(message, term));
    }

    /// This is what became of a message.
    fn ends(&mut self, mail: MessageId, fate: Fate, stale: bool) {
        if let Some(at) = mail.checked_sub(1) {
            let letter = &mut self.recording.messages[at as usize];
            (letter.fate, letter.end, letter.stale) = (fate, self.step, stale);
        }
    }
}

/// Whether the term that a message speaks for is over. One that is passed on to the leader speaks
/// for none.
fn is_over(message: &Message, term: Term) -> bool {
    let spoken_for = match message {
        Message::Raft(raft) => raft.term(),
        Message::Chunk(chunk) => chunk.term,
        _ => 0,
    };
    (1..term).contains(&spoken_for)
}

fn dropped(reason: DropReason) -> Fate {
    match reason {
        DropReason::Loss => Fate::Loss,
        DropReason::Weather => Fate::Weather,
        DropReason::Partition => Fate::Partition,
        DropReason::Exception => Fate::Exception,
        DropReason::QueueFull => Fate::QueueFull,
        DropReason::Reset => Fate::Broken,
    }
}

/// The number of a kind of messages among all.
fn row_of(kind: MessageKind) -> u8 {
    MessageKind::all().position(|other| other == kind).expect("it is one of them") as u8
}

/// The place in the log that an answer speaks of; 0 if it speaks of none.
fn index_of(reply: &Reply) -> u64 {
    match reply {
        Reply::Applied { index, .. } | Reply::Value { index, .. } => *index,
        Reply::Reconfigured { index } | Reply::NotKept { index, .. } => *index,
        _ => 0,
    }
}
