//! The trace hash: a rolling hash over all that happens, by which two runs are compared.

use stormkv::api::Reply;
use stormkv::types::NodeId;
use stormkv::wire::Message;

use super::Observation;

/// The kind of thing that a number in the hash stands for: each has a tag of its own, so that two different
/// events never look the same.
#[derive(Clone, Copy)]
enum Tag {
    Tick = 1,
    Arrives = 2,
    DiskStep = 3,
    Start = 4,
    Request = 5,
    Reply = 6,
    Read = 7,
    ClientTimer = 8,
    FaultBegins = 9,
    FaultEnds = 10,
    Heal = 11,
    Flush = 12,
    Lost = 13,
    LossReported = 14,
    Work = 15,
    ArrivesDamaged = 16,
    ClientRestart = 17,
    CheckRest = 18,
}

/// The rolling hash.
#[derive(Clone, Copy, Default)]
pub(super) struct TraceHash(u64);

impl TraceHash {
    pub fn value(self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 32)
    }

    /// An event begins at this time.
    pub fn begin(&mut self, at_ns: u64) {
        self.mix(at_ns);
    }

    fn mix(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn tagged(&mut self, tag: Tag, value: u64) {
        self.mix(tag as u64 ^ value << 8);
    }

    fn node(&mut self, tag: Tag, id: NodeId, rest: u64) {
        self.mix(tag as u64 ^ id.0 << 8 ^ rest << 16);
    }

    #[inline(always)]
    pub fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Tick(id) => self.node(Tag::Tick, *id, 0),
            Observation::Flush(id) => self.node(Tag::Flush, *id, 0),
            Observation::Applied(digest) => self.mix(*digest),
            Observation::Acted(status) => {
                self.mix(status.hard_state.term << 32 ^ status.hard_state.commit);
                self.mix(status.last.index << 8 ^ status.role as u64);
            }
            Observation::StartDue { node, .. } => self.node(Tag::Start, *node, 0),
            Observation::Lost(id, loss) => self.node(Tag::Lost, *id, *loss as u64),
            Observation::DiskStep(id) => self.node(Tag::DiskStep, *id, 0),
            Observation::Read(id, _) => self.node(Tag::Read, *id, 0),
            Observation::Worked(id, _) => self.node(Tag::Work, *id, 0),
            Observation::Arrives { ends: (from, to), message, damaged } => {
                let tag = if *damaged { Tag::ArrivesDamaged } else { Tag::Arrives };
                self.node(tag, *from, to.0);
                self.message(message);
            }
            Observation::LossReported { node, peer, .. } => {
                self.node(Tag::LossReported, *node, peer.0);
            }
            Observation::RequestArrives { node, token, .. } => {
                self.node(Tag::Request, *node, *token);
            }
            Observation::Replied(reply) => self.reply(reply),
            Observation::ReplyArrives { node, token, .. } => self.node(Tag::Reply, *node, *token),
            Observation::ClientTimer { lane, token, .. } => {
                self.mix(Tag::ClientTimer as u64 ^ u64::from(*lane) << 8 ^ token << 16);
            }
            Observation::ClientRestarts(number) => {
                self.tagged(Tag::ClientRestart, u64::from(*number))
            }
            Observation::FaultDue(at, _) => self.tagged(Tag::FaultBegins, *at as u64),
            Observation::FaultOver(at, _) => self.tagged(Tag::FaultEnds, *at as u64),
            Observation::Heals(_) => self.tagged(Tag::Heal, 0),
            Observation::RestChecked => self.tagged(Tag::CheckRest, 0),
            _ => {}
        }
    }

    fn message(&mut self, message: &Message) {
        self.mix(message.kind() as u64);
        match message {
            Message::Raft(raft) => {
                let flags = raft.entry_count() as u64 * 2 + u64::from(raft.reject());
                for value in [raft.term(), raft.index(), raft.log_term(), raft.commit(), flags] {
                    self.mix(value);
                }
            }
            Message::Forward { id, .. } | Message::ReadIndex { id } => self.mix(*id),
            Message::Answer { id, reply } => {
                self.mix(*id);
                self.reply(reply);
            }
            Message::ReadIndexAnswer { id, index } => {
                self.mix(*id);
                self.mix(index.unwrap_or(0));
            }
            Message::Chunk(chunk) => {
                self.mix(chunk.transfer);
                self.mix(chunk.offset ^ chunk.total << 32);
            }
            Message::ChunkAck { transfer, received, done } => {
                self.mix(*transfer);
                self.mix(*received * 4 + done.map_or(0, |done| 1 + u64::from(done)));
            }
            Message::Removed | Message::DiskShort => {}
        }
    }

    fn reply(&mut self, reply: &Reply) {
        self.mix(match reply {
            Reply::SessionOpened(id) => id.0 * 8,
            Reply::Applied { index, .. } => index * 8 + 1,
            Reply::Value { index, .. } => index * 8 + 2,
            Reply::Reconfigured { index } => index * 8 + 3,
            Reply::Transferring => 4,
            Reply::Refused(_) => 5,
            // One kind of answer as far as a client is concerned.
            Reply::Unknown | Reply::LeaderLost => 6,
            Reply::NotKept { index, .. } => index * 8 + 7,
        });
    }
}
