//! Observations: all that a simulation lets its observers see, in the order in which it happens.
//!
//! An observation refers to what the simulation holds, and costs nothing to make. What an observer makes
//! of it (a number for the hash, a line of text, a row of a recording) is the observer's own.

use std::ops::RangeInclusive;

use stormkv::api::{Reply, Request};
use stormkv::env::{DiskOp, FileName, Work};
use stormkv::error::{DiskError, Error};
use stormkv::node::{Role, Status};
use stormkv::types::{LogIndex, NodeId, Term};
use stormkv::wire::{Message, WireError};

use super::super::core::Loss;
use super::super::event::Event;
use super::MessageId;
use crate::disk::{Crash, DiskStats};
use crate::history::Outcome;
use crate::network::DropReason;
use crate::plan::{Call, Fault};
use crate::recording::Fate;

/// Something that an observer may see. See the module.
pub(in crate::simulation) enum Observation<'a> {
    // ---- the present event ----
    /// An event is due; it may turn out that it cannot happen yet.
    Due(&'a Event),
    /// It happens.
    Happens(&'a Event),
    /// It waits until its node goes on.
    Paused(NodeId),
    /// It waits until its node has worked off what came before.
    Busy(NodeId),
    /// It waits until the disk of its node goes on.
    DiskHangs(NodeId),
    /// A slow node takes an event that has waited.
    Taken(NodeId, &'a Event),
    /// What follows in this event concerns no node in particular.
    Aside,

    // ---- nodes ----
    /// A node's timer is due.
    Tick(NodeId),
    /// A node acts on the inputs that it has collected.
    Flush(NodeId),
    /// A node has applied entries or a snapshot, with this digest of its state.
    Applied(u64),
    /// A node has queued operations for its disk.
    Wrote(NodeId),
    /// The state of a node after it has acted.
    Acted(&'a Status),
    /// A node has another role.
    RoleChanged(NodeId, Role, Term),
    /// Entries are committed for the first time anywhere.
    Committed(RangeInclusive<LogIndex>),
    /// A node is to start, which it does unless it runs already or is gone.
    StartDue { node: NodeId, starts: bool },
    /// A node starts.
    Started(NodeId),
    /// A node does not start.
    StartRefused(NodeId, &'a Error),
    /// A node has stopped by itself.
    Stopped(NodeId, &'a Error),
    /// A damaged node has stopped, because no other has repaired it.
    GaveUp(NodeId, &'a Error),
    /// A node has panicked.
    Panicked(NodeId, &'a str),
    /// A node goes down.
    Down(NodeId),
    /// The last state of a node that goes down.
    Left(NodeId, &'a Status),
    /// The disk of a node that goes down has crashed: its statistics before and after.
    DiskCrashed { node: NodeId, crash: Crash, before: &'a DiskStats, after: &'a DiskStats },
    /// A node outside of the core fails for good.
    Lost(NodeId, Loss),

    // ---- disks ----
    /// The next operation of a batch is due.
    DiskStep(NodeId),
    /// The node is gone, and its batch with it.
    DiskBatchGone(NodeId),
    /// The batch has no operations.
    DiskBatchEmpty(NodeId),
    /// The node loses its power before the operation.
    CrashBeforeDiskOp(NodeId),
    /// The node loses its power, and with it names that are not durable.
    NamesLost(NodeId),
    /// An operation was carried out, or has failed.
    DiskOp(NodeId, &'a DiskOp, Result<(), &'a DiskError>),
    /// A read is done.
    Read(NodeId, FileName),
    /// Work beside the node is done.
    Worked(NodeId, &'a Work),
    /// Bytes of a file are damaged in silence.
    Damaged { node: NodeId, file: FileName, fault: &'static str },
    /// A damaged node has everything again.
    Whole(NodeId),
    /// The disk of a node is to be taken away, but the others cannot do without it.
    CannotBeSpared(NodeId),

    // ---- messages between nodes ----
    /// A node sends a message. Of one that arrives twice, `copy` is the second.
    Sent {
        ends: (NodeId, NodeId),
        message: &'a Message,
        id: MessageId,
        copy: Option<MessageId>,
        dropped: Option<DropReason>,
    },
    /// A node is about to send a message that breaks an invariant.
    Forbidden { ends: (NodeId, NodeId), message: &'a Message, id: MessageId },
    /// A message reaches the end of its link, damaged or not.
    Arrives { ends: (NodeId, NodeId), message: &'a Message, damaged: bool },
    /// A message is lost at the end of its link.
    LostOnArrival { ends: (NodeId, NodeId), message: &'a Message, id: MessageId, fate: Fate },
    /// A message is delivered.
    Delivered { ends: (NodeId, NodeId), message: &'a Message, id: MessageId },
    /// The frame of a message arrives with damaged bytes.
    Corrupted(MessageId),
    /// A receiver refuses a damaged frame.
    FrameRefused { ends: (NodeId, NodeId), message: &'a Message, error: &'a WireError },
    /// A message is lost because its receiver went down or never goes on, or has no room for it.
    Forgotten(MessageId, Fate),
    /// A node's host reports lost messages to it.
    LossReported { node: NodeId, peer: NodeId, disconnected: bool },

    // ---- clients ----
    /// A client begins an operation of this row of the plan, with this number in the history.
    Called { lane: u32, row: usize, call: &'a Call, recorded: Option<usize> },
    /// A client sends a request.
    RequestSent {
        lane: u32,
        node: NodeId,
        request: &'a Request,
        id: MessageId,
        dropped: Option<DropReason>,
    },
    /// A request reaches the end of its link.
    RequestArrives {
        client: &'a str,
        node: NodeId,
        token: u64,
        request: &'a Request,
        id: MessageId,
        /// The reason why it does not get through.
        lost: Option<Fate>,
        /// The client has gone on.
        stale: bool,
        /// The operation in the history that it belongs to, if it is the present one.
        recorded: Option<usize>,
        /// The network lets it through, whether or not the node is up.
        passes: bool,
    },
    /// A node answers a request.
    Replied(&'a Reply),
    /// A node sends a reply; `waits` if its client still waits for it.
    ReplySent {
        lane: u32,
        node: NodeId,
        reply: &'a Reply,
        id: MessageId,
        waits: bool,
        dropped: Option<DropReason>,
    },
    /// A reply reaches the end of its link.
    ReplyArrives {
        lane: u32,
        client: &'a str,
        node: NodeId,
        token: u64,
        reply: &'a Reply,
        id: MessageId,
        lost: Option<Fate>,
        stale: bool,
        recorded: Option<usize>,
    },
    /// A read is about to be answered from a state that is too old.
    StaleAnswer { node: NodeId, index: LogIndex, recorded: Option<usize> },
    /// A client's timer is due, and `valid` if it has not gone on since.
    ClientTimer { lane: u32, client: &'a str, token: u64, valid: bool },
    /// A client's process is replaced by a new one.
    ClientRestarts(u32),
    /// So is one of its workers.
    WorkerRestarts(u32),
    /// An operation of a row of the plan has ended.
    Returned { lane: u32, row: usize, since_ns: u64, outcome: &'a Outcome },

    // ---- faults ----
    /// A fault of the plan is due.
    FaultDue(usize, &'a Fault),
    /// It hits nothing.
    FaultSkipped(usize, &'static str),
    /// It hits a node.
    FaultHits(usize, &'a Fault, NodeId),
    /// It has begun, on these nodes.
    FaultBegun(usize, &'a Fault, &'a [NodeId]),
    /// Its time is over.
    FaultOver(usize, &'a Fault),
    /// It is cleared.
    FaultCleared(usize),
    /// All faults are over; the core that is to recover, in words.
    Heals(&'a str),
    /// All faults are cleared.
    Healed(&'a str),

    // ---- recovery and verdict ----
    /// The simulation looks whether the cluster takes too long.
    RestChecked,
    /// What is missing, in words.
    NotAtRest(&'a str),
    /// The core has a leader.
    CoreLed,
    /// The cluster is at rest.
    AtRest,
    /// It does not come to rest, for this good reason.
    Excused(&'a str),
    /// The violation that is found next is about this message.
    Accused(MessageId),
    /// The run has failed because of this node, or else of the one that the present event concerns; these
    /// operations prove it.
    Violated(Option<NodeId>, &'a [usize]),
    /// All events are over.
    Over,
}
