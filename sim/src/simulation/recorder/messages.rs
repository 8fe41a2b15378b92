//! What a recorder is told of messages: when they are sent, and what becomes of them.

use stormkv::types::{NodeId, Term};
use stormkv::wire::{Kind, Message};

use super::{MessageId, Recorder, runs};
use crate::network::DropReason;
use crate::plan::MessageKind;
use crate::service::Service;
use crate::view::recording::{Fate, MessageRecord};
use crate::words;

impl Recorder {
    fn post(
        &mut self,
        letter: MessageRecord,
        fate: Result<Option<u64>, DropReason>,
    ) -> (MessageId, MessageId) {
        let mut letter = MessageRecord { sent: self.step, ..letter };
        if let Err(reason) = fate {
            (letter.fate, letter.end) = (dropped(reason), self.step);
        }
        let again =
            matches!(fate, Ok(Some(_))).then(|| MessageRecord { copy: true, ..letter.clone() });
        self.film.letters.push(letter);
        let first = self.film.letters.len() as MessageId;
        match again {
            None => (first, 0),
            Some(copy) => {
                self.film.letters.push(copy);
                (first, first + 1)
            }
        }
    }

    /// A node sends a message. Returns the numbers of the message and of its copy.
    pub fn sends<S: Service>(
        &mut self,
        (from, to): (NodeId, NodeId),
        message: &Message,
        fate: Result<Option<u64>, DropReason>,
    ) -> (MessageId, MessageId) {
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
        self.post(letter, fate)
    }

    /// A client asks a node. Returns the number of the message.
    pub fn asks(
        &mut self,
        lane: u32,
        node: NodeId,
        what: &str,
        fate: Result<(), DropReason>,
    ) -> MessageId {
        let (from, to, text) = (self.hand(lane), self.node(node), self.text(what));
        let op = self.open[lane as usize].map_or(0, |op| op + 1);
        let kind = row_of(MessageKind::Request);
        self.post(
            MessageRecord { from, to, kind, text, op, ..MessageRecord::default() },
            fate.map(|()| None),
        )
        .0
    }

    /// A node answers a client, which `waits` for that or has gone on. Returns the number of the
    /// message.
    pub fn replies(
        &mut self,
        lane: u32,
        node: NodeId,
        (what, waits): (&str, bool),
        fate: Result<(), DropReason>,
    ) -> MessageId {
        let (from, to, text) = (self.node(node), self.hand(lane), self.text(what));
        let op = self.open[lane as usize].filter(|_| waits).map_or(0, |op| op + 1);
        let kind = row_of(MessageKind::Reply);
        self.post(
            MessageRecord { from, to, kind, text, op, ..MessageRecord::default() },
            fate.map(|()| None),
        )
        .0
    }

    /// A message arrives at a node, which may know of a newer term. The term is that of the last
    /// look: a node that collects its inputs may have heard of it, but not acted on it yet.
    pub fn arrives(&mut self, mail: MessageId, to: NodeId, message: &Message) {
        let term = self.known.get(to.0 as usize).map_or(0, |known| known.state.term);
        self.ends(mail, Fate::Delivered, is_over(message, term));
    }

    /// This is what became of a message.
    pub fn ends(&mut self, mail: MessageId, fate: Fate, stale: bool) {
        if let Some(at) = mail.checked_sub(1) {
            let letter = &mut self.film.letters[at as usize];
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

/// What stops a message at its end.
pub(in crate::simulation) fn stopped(up: bool, arrives: Result<(), DropReason>) -> Option<Fate> {
    match arrives {
        _ if !up => Some(Fate::Down),
        Err(DropReason::Partition) => Some(Fate::Cut),
        Err(_) => Some(Fate::Reset),
        Ok(()) => None,
    }
}

/// The number of a kind of messages among all.
fn row_of(kind: MessageKind) -> u8 {
    MessageKind::all().position(|other| other == kind).expect("it is one of them") as u8
}
