//! Events: what happens at a moment, to which node or client, and how each kind of event is classified.
//!
//! Everything that the simulation, the trace hash and the recordings need to know of an event without
//! carrying it out is a field of [`Event`] or a method of it, beside the definition of its kind. An event
//! for one incarnation of a node is void for any later one.

use bytes::Bytes;
use stormkv::api::{Reply, Request};
use stormkv::env::{Completion, DiskQueue, FileName, Work};
use stormkv::types::{NodeId, Ticket};
use stormkv::wire::{Kind, Message};

use super::observe::MessageId;
use crate::network::Connection;
use crate::recording::StepKind;
use crate::rng::Draw;

/// The node or client that an event happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The cluster as a whole.
    Cluster,
    Node(NodeId),
    /// A worker of a client, by its lane.
    Worker(u32),
    /// A client's process, by its number.
    Client(u32),
}

/// Something that happens at a moment.
pub(super) struct Event {
    pub target: Target,
    /// The incarnation of the node that it is meant for; `None` if it is meant for any.
    pub incarnation: Option<u64>,
    /// The message that it is about, if it is about one.
    pub message: MessageId,
    pub kind: EventKind,
}

/// A message between nodes, as the receiver gets it.
pub(super) enum Payload {
    /// As a value: nothing is encoded.
    Value(Box<Message>),
    /// As the bytes of a frame.
    Frame(Bytes),
    /// As bytes that are damaged on the way; how, follows from the draw.
    Corrupt(Box<Message>, Draw),
}

/// What happens.
pub(super) enum EventKind {
    /// A node's timer is due, if it has not been set again since.
    Tick { timer: u64 },
    /// A message from another node arrives.
    Deliver { from: NodeId, payload: Payload, connection: Connection },
    /// A node's host reports that messages to a peer were lost, and perhaps that the connection for
    /// requests was.
    Unreachable { peer: NodeId, disconnected: bool },
    /// A client's request arrives at a node.
    ClientRequest { lane: u32, token: u64, request: Box<Request>, connection: Connection },
    /// A node's reply arrives at its client.
    ClientResponse { node: NodeId, token: u64, reply: Box<Reply>, connection: Connection },
    /// A client's process dies and a new one begins.
    ClientRestart,
    /// A client begins its next operation, or its timeout expires.
    ClientTimer { token: u64 },
    /// The next operation of a batch for the disk is carried out.
    DiskStep { queue: DiskQueue },
    /// A read of a node's disk is done.
    ReadDone { ticket: Ticket, file: FileName, offset: u64, len: u32 },
    /// Work beside a node is done.
    WorkDone { ticket: Ticket, work: Box<Work> },
    /// A node acts on the inputs that it has collected.
    Flush,
    /// A slow node hears from its disk.
    Complete { completion: Box<Completion> },
    /// A slow node takes the next input.
    Serve,
    /// A node in a crash loop crashes once more.
    CrashAgain,
    /// A fault of the plan begins.
    FaultBegins(usize),
    /// A fault of the plan ends.
    FaultEnds(usize),
    /// A node is started.
    Start,
    /// All faults end.
    Heal,
    /// The simulation looks whether the cluster has come to rest.
    CheckRest,
}

/// How much an event explains in a report about a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing by itself.
    #[default]
    None,
    /// Something, if it happens to the disk of the node that the violation is about.
    Disk,
    /// Something.
    Full,
}

impl Weight {
    /// A message that only says that its sender is alive explains nothing.
    pub fn of(message: &Message) -> Weight {
        match message.kind() {
            Kind::Heartbeat | Kind::HeartbeatResp => Weight::None,
            _ => Weight::Full,
        }
    }
}

impl Event {
    /// An event that happens to no node or client in particular.
    pub fn cluster(kind: EventKind) -> Event {
        Event { target: Target::Cluster, incarnation: None, message: 0, kind }
    }

    /// An event of a node, whatever its incarnation.
    pub fn node(id: NodeId, kind: EventKind) -> Event {
        Event { target: Target::Node(id), incarnation: None, message: 0, kind }
    }

    /// An event of a node that only its present incarnation sees.
    pub fn incarnation(id: NodeId, incarnation: u64, kind: EventKind) -> Event {
        Event { incarnation: Some(incarnation), ..Event::node(id, kind) }
    }

    /// An event of a worker of a client.
    pub fn worker(lane: u32, kind: EventKind) -> Event {
        Event { target: Target::Worker(lane), incarnation: None, message: 0, kind }
    }

    /// The start of a node.
    pub fn start(id: NodeId) -> Event {
        Event::node(id, EventKind::Start)
    }

    /// The same, about this message.
    pub fn about(self, message: MessageId) -> Event {
        Event { message, ..self }
    }

    /// The node that it concerns: for an answer the one that has given it.
    pub fn concerns(&self) -> Option<NodeId> {
        match (&self.kind, self.target) {
            (EventKind::ClientResponse { node, .. }, _) => Some(*node),
            (_, Target::Node(id)) => Some(id),
            _ => None,
        }
    }

    /// The node that has to run for it: while that is paused, the event waits. Starts and crashes come
    /// from outside of the process.
    pub fn runs_on(&self) -> Option<NodeId> {
        match (&self.kind, self.target) {
            (EventKind::Start | EventKind::CrashAgain, _) => None,
            (_, Target::Node(id)) => Some(id),
            _ => None,
        }
    }

    /// The node whose disk it needs. A start looks for itself.
    pub fn needs_disk(&self) -> Option<NodeId> {
        match (&self.kind, self.target) {
            (EventKind::DiskStep { .. } | EventKind::ReadDone { .. }, Target::Node(id)) => Some(id),
            (EventKind::WorkDone { work, .. }, Target::Node(id)) if work.reads() > 0 => Some(id),
            _ => None,
        }
    }

    /// Whether it takes the node's own time: what its disk and its inbox do does not.
    pub fn is_input(&self) -> bool {
        !matches!(self.kind, EventKind::DiskStep { .. } | EventKind::Serve)
    }

    /// Whether a peer or client loses it when the node's inbox is full. Damaged frames never fill it.
    pub fn may_be_lost(&self) -> bool {
        match &self.kind {
            EventKind::Deliver { payload, .. } => !matches!(payload, Payload::Corrupt(..)),
            kind => matches!(kind, EventKind::ClientRequest { .. }),
        }
    }

    /// How much it explains.
    pub fn weight(&self) -> Weight {
        match self.kind {
            EventKind::Tick { .. }
            | EventKind::Flush
            | EventKind::Serve
            | EventKind::Complete { .. }
            | EventKind::ClientRequest { .. }
            | EventKind::ClientResponse { .. } => Weight::None,
            EventKind::DiskStep { .. }
            | EventKind::ReadDone { .. }
            | EventKind::WorkDone { .. } => Weight::Disk,
            _ => Weight::Full,
        }
    }

    /// Its name in recordings, once it happens.
    pub fn step_kind(&self) -> StepKind {
        match self.kind {
            EventKind::Tick { .. } => StepKind::Tick,
            EventKind::Deliver { .. } => StepKind::Deliver,
            EventKind::Unreachable { .. } => StepKind::Notice,
            EventKind::ClientRequest { .. } => StepKind::Request,
            EventKind::ClientResponse { .. } => StepKind::Reply,
            EventKind::ClientRestart => StepKind::ClientRestart,
            EventKind::ClientTimer { .. } => StepKind::Client,
            EventKind::DiskStep { .. } | EventKind::WorkDone { .. } => StepKind::Disk,
            EventKind::ReadDone { .. } => StepKind::Read,
            EventKind::Flush => StepKind::Flush,
            EventKind::Complete { .. } => StepKind::Complete,
            EventKind::Serve => StepKind::Serve,
            EventKind::CrashAgain => StepKind::CrashAgain,
            EventKind::FaultBegins(_) => StepKind::Fault,
            EventKind::FaultEnds(_) => StepKind::Mend,
            EventKind::Start => StepKind::Start,
            EventKind::Heal => StepKind::Heal,
            EventKind::CheckRest => StepKind::Rest,
        }
    }
}
