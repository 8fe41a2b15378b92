//! Messages between nodes: what becomes of them on their way, damage to their bytes, and what a node
//! hears of messages and connections that were lost.
//!
//! A host tells its node that a peer is unreachable when it drops messages to it or loses a
//! connection, and that it is disconnected when the connection that carries requests is lost: the
//! simulation does as the hosts of production do.

use bytes::Bytes;
use stormkv::types::NodeId;
use stormkv::wire::{HEADER, Kind, Lane, Message};

use super::event::Payload;
use super::observe::text::{self, grants_vote};
use super::observe::{MessageId, Observation};
use super::{Event, EventKind, Simulation};
use crate::checker::{Broken, Check};
use crate::network::{Connection, DropReason, Endpoint, Fate, Parcel};
use crate::outcome::Class;
use crate::recording;
use crate::rng::{Draw, mix};
use crate::service::Service;

/// From so many chunks on, a snapshot takes several windows of the transfer.
const MANY_CHUNKS: u64 = 16;

impl<S: Service> Simulation<'_, S> {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Err(broken) = self.safety.sending(from, to, &message) {
            // It goes nowhere, but it is what is wrong.
            let id = self.observers.number_message();
            let ends = (from, to);
            self.observers.see(&Observation::Forbidden { ends, message: &message, id });
            self.fail(Class::Safety, broken);
            return;
        }
        if let Message::Chunk(chunk) = &message
            && chunk.offset == 0
        {
            self.snapshot_rate.sends(from);
        }
        if message.kind() == Kind::TimeoutNow {
            self.availability.disturb();
            self.reach("leadership-transferred");
            let term = self.cluster.role(from).1;
            self.handed_over = Some((to, term + 1));
        }
        if grants_vote(&message) && self.is_repairing(from) {
            self.reach("damaged-member-voted");
        }
        let lane = Lane::of(&message);
        let bytes = u32::try_from(message.weight()).expect("messages are far below 4 GiB");
        let parcel = Parcel { kind: message.kind() as u8, lane: lane.number(), bytes };
        let ends = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        let fate = self.network.fate(self.kernel.now_ns(), ends.0, ends.1, parcel);
        // A refusal of a forwarded request speaks for one copy of it, so the transport must not
        // make a second one.
        let copies = message.kind() != Kind::Forward;
        let (again_ns, dropped) = match fate {
            Fate::Delivered { again_ns, .. } => (again_ns.filter(|_| copies), None),
            Fate::Dropped(reason) => (None, Some(reason)),
        };
        let id = self.observers.number_message();
        let copy = again_ns.map(|_| self.observers.number_message());
        let ends = (from, to);
        self.observers.see(&Observation::Sent { ends, message: &message, id, copy, dropped });
        let Fate::Delivered { at_ns, garbled, connection, .. } = fate else {
            if let Some(reason) = dropped {
                self.tell_of_loss(from, to, parcel, lane, reason);
            }
            return;
        };
        if let Some(portrait) = &mut self.observers.fingerprint {
            portrait.sent(message.kind(), at_ns.max(again_ns.unwrap_or(0)));
        }
        if let (Some(at_ns), Some(copy)) = (again_ns, copy) {
            let payload = self.payload(message.clone());
            let event =
                Event::node(to, EventKind::Deliver { from, payload, connection }).about(copy);
            self.kernel.at(at_ns, event);
        }
        let payload = match garbled {
            None => self.payload(message),
            Some(draw) => Payload::Corrupt(Box::new(message), draw),
        };
        let event = Event::node(to, EventKind::Deliver { from, payload, connection }).about(id);
        self.kernel.at(at_ns, event);
    }

    fn payload(&self, message: Message) -> Payload {
        match self.encodes() {
            true => Payload::Frame(message.encode()),
            false => Payload::Value(Box::new(message)),
        }
    }

    /// A message arrives at the end of its link.
    pub(super) fn arrive(
        &mut self,
        ends: (NodeId, NodeId),
        payload: Payload,
        connection: Connection,
        mail: MessageId,
    ) {
        match payload {
            Payload::Value(message) => self.deliver(ends, *message, connection, mail),
            Payload::Frame(frame) => {
                let message = Message::decode(&frame).expect("this frame is not damaged");
                self.deliver(ends, message, connection, mail);
            }
            Payload::Corrupt(message, draw) => {
                self.deliver_corrupt(ends, *message, draw, connection, mail);
            }
        }
    }

    fn deliver(
        &mut self,
        (from, to): (NodeId, NodeId),
        message: Message,
        connection: Connection,
        mail: MessageId,
    ) {
        let arrives = Observation::Arrives { ends: (from, to), message: &message, damaged: false };
        self.observers.see(&arrives);
        if !self.gets_through((from, to), &message, connection, mail) {
            return;
        }
        let ends = (from, to);
        self.observers.see(&Observation::Delivered { ends, message: &message, id: mail });
        if matches!(message, Message::Raft(_)) {
            self.observers.coverage.raft_message();
            self.note_heard(from, to);
        }
        if let Message::Chunk(chunk) = &message
            && chunk.offset + chunk.data.len() as u64 == chunk.total
            && chunk.offset >= MANY_CHUNKS * u64::from(self.plan.cluster.chunk_bytes)
        {
            self.reach("snapshot-in-many-chunks");
        }
        if message.kind() == Kind::Forward {
            self.reach("request-forwarded");
        }
        self.with(to, |driver| driver.receive(from, message));
    }

    /// Whether a message that was on its way finds its receiver.
    fn gets_through(
        &mut self,
        (from, to): (NodeId, NodeId),
        message: &Message,
        connection: Connection,
        mail: MessageId,
    ) -> bool {
        let up = self.cluster.is_up(to);
        let ends = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        let arrives = if up { self.network.arrives(ends.0, ends.1, connection) } else { Ok(()) };
        if arrives == Err(DropReason::Reset) && message.kind() == Kind::Chunk {
            self.reach("chunk-lost-in-reset");
        }
        if let Some(fate) = lost(up, arrives) {
            let ends = (from, to);
            self.observers.see(&Observation::LostOnArrival { ends, message, id: mail, fate });
        }
        up && arrives.is_ok()
    }

    /// A frame arrives whose bytes were damaged on the way: its receiver must notice, and closes
    /// the connection.
    fn deliver_corrupt(
        &mut self,
        (from, to): (NodeId, NodeId),
        message: Message,
        draw: Draw,
        connection: Connection,
        mail: MessageId,
    ) {
        let arrives = Observation::Arrives { ends: (from, to), message: &message, damaged: true };
        self.observers.see(&arrives);
        if !self.gets_through((from, to), &message, connection, mail) {
            return;
        }
        self.observers.see(&Observation::Corrupted(mail));
        let frame = damaged(&message.encode(), draw);
        self.receive_damaged(from, to, &message, &frame);
    }

    /// What is left of `message` reaches the decoder of its receiver.
    pub(super) fn receive_damaged(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        frame: &Bytes,
    ) {
        self.safety.count(Check::FrameIntegrity, 1);
        match Message::decode(frame) {
            Err(error) => {
                let (ends, error) = ((from, to), &error);
                self.observers.see(&Observation::FrameRefused { ends, message, error });
                self.reach("frame-garbled-and-refused");
                self.break_connection(from, to, Lane::of(message));
            }
            Ok(read) => {
                let message = format!(
                    "{to} took a damaged frame for a message: {}; {from} had sent {}",
                    text::message(S::describe, from, to, &read),
                    text::message(S::describe, from, to, message)
                );
                self.fail(Class::Safety, Broken::new(Check::FrameIntegrity, message));
            }
        }
    }

    /// The connection on which one node sends to the other breaks; the sender will notice.
    pub(super) fn break_connection(&mut self, from: NodeId, to: NodeId, lane: Lane) {
        let ends = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        let at_ns = self.network.reset(self.kernel.now_ns(), ends.0, ends.1, lane.number());
        self.tell(at_ns, from, to, lane == Lane::Bulk);
    }

    /// A message was dropped when it was sent: its sender may hear of it.
    fn tell_of_loss(
        &mut self,
        from: NodeId,
        to: NodeId,
        parcel: Parcel,
        lane: Lane,
        reason: DropReason,
    ) {
        let ends = (Endpoint::Node(from.0), Endpoint::Node(to.0));
        let notice = self.network.notice(self.kernel.now_ns(), ends.0, ends.1, parcel, reason);
        let Some(notice) = notice else { return };
        if reason == DropReason::QueueFull {
            self.reach("queue-full-told");
        }
        self.tell(notice.at_ns, from, to, notice.broken && lane == Lane::Bulk);
    }

    fn tell(&mut self, at_ns: u64, node: NodeId, peer: NodeId, disconnected: bool) {
        let Some(slot) = self.cluster.get_mut(node).filter(|slot| slot.is_up()) else { return };
        let incarnation = slot.incarnation;
        self.kernel.at(
            at_ns,
            Event::incarnation(node, incarnation, EventKind::Unreachable { peer, disconnected }),
        );
    }

    /// A node hears that messages to a peer were lost; and if it is disconnected, that requests
    /// may have been.
    pub(super) fn unreachable(
        &mut self,
        node: NodeId,
        is_void: bool,
        peer: NodeId,
        disconnected: bool,
    ) {
        self.observers.see(&Observation::LossReported { node, peer, disconnected });
        if self.cluster.leads(node) {
            self.reach("leader-told-unreachable");
        }
        if is_void {
            return;
        }
        self.with(node, |driver| {
            driver.unreachable(peer);
            if disconnected {
                driver.disconnected(peer);
            }
        });
    }
}

/// Damages a frame. Only in ways that a length and a CRC-32 notice with certainty, so that a run
/// never depends on luck: bytes missing or too many, one or two bits anywhere, up to 32 bits in a
/// row of what the CRC covers, or the CRC itself. (Of arbitrary damage, one in 2^32 gets past a
/// CRC-32.)
fn damaged(frame: &[u8], draw: Draw) -> Bytes {
    let number = |i| Draw(mix(draw.0, 0, i));
    let below = |i, n: usize| number(i).below(n as u64) as usize;
    let mut bytes = frame.to_vec();
    let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
    // Its first byte is not zero.
    let burst = (number(3).0 as u32 | 1).to_le_bytes();
    let start = match below(0, 5) {
        0 => {
            bytes.truncate(below(1, frame.len()));
            return bytes.into();
        }
        1 => {
            let more = 1 + below(1, 64) as u64;
            bytes.extend((0..more).map(|i| number(4 + i).0 as u8));
            return bytes.into();
        }
        2 => {
            let (one, another) = (below(1, 8 * frame.len()), below(2, 8 * frame.len()));
            flip(&mut bytes, one);
            if another != one {
                flip(&mut bytes, another);
            }
            return bytes.into();
        }
        3 => HEADER - 4,
        _ => HEADER + below(1, frame.len() - HEADER),
    };
    bytes[start..].iter_mut().zip(burst).for_each(|(byte, damage)| *byte ^= damage);
    bytes.into()
}

/// What stops a message at its end.
pub(super) fn lost(up: bool, arrives: Result<(), DropReason>) -> Option<recording::Fate> {
    match arrives {
        _ if !up => Some(recording::Fate::Down),
        Err(DropReason::Partition) => Some(recording::Fate::Cut),
        Err(_) => Some(recording::Fate::Reset),
        Ok(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_of_every_kind_is_refused() {
        for message in [Message::Removed, Message::ReadIndex { id: u64::MAX }] {
            let frame = message.encode();
            assert_eq!(Message::decode(&frame), Ok(message));
            let mut lengths = [0; 3];
            for i in 0..20_000 {
                let damaged = damaged(&frame, Draw(i));
                assert_ne!(damaged, frame, "draw {i} does no damage");
                assert!(Message::decode(&damaged).is_err(), "draw {i} is not noticed");
                lengths[(damaged.len().cmp(&frame.len()) as i8 + 1) as usize] += 1;
            }
            // Shorter, as long, longer.
            assert!(lengths.iter().all(|count| *count > 3000), "{lengths:?}");
        }
    }
}
