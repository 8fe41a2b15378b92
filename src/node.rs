//! One member of the cluster, as a value: inputs go in, outputs come out.
//!
//! A [`Node`] reads no clock, opens no file and spawns no thread. Its host calls
//! [`tick`](Node::tick), [`receive`](Node::receive), [`request`](Node::request) and
//! [`complete`](Node::complete) as often as it has something to say, then
//! [`process`](Node::process), and then carries out the [`Output`]s, in order. An input by itself
//! only changes what the node has in mind; whatever is said or written because of it is decided
//! when all inputs are processed together. That is what makes a busy node fast: requests that came
//! together share their appends, records and rounds of heartbeats.
//!
//! All rules about what must be durable before what may be said live in here (see `ready.rs`), so
//! they are the same in the simulator and in production.
//!
//! - `election.rs` wraps the raft crate and makes elections deterministic,
//! - `start.rs` builds a node from what its disk holds,
//! - `repair.rs` is how a member behaves that has lost part of its log or state,
//! - `check.rs` refuses messages that raft would trust too much,
//! - `ready.rs` turns what raft wants into writes, messages and applied entries,
//! - `replica.rs` is the replicated state: machine, sessions, membership,
//! - `backlog.rs` knows the open entries of a leader's log, `waiting.rs` the requests that wait for
//!   an entry,
//! - `request.rs` takes up what clients ask for, and proposes it,
//! - `clock.rs` stamps proposals with the cluster's time, `read.rs` answers linearizable queries,
//! - `snapshot.rs` saves, sends, receives and installs snapshots,
//! - `pressure.rs` bounds what it takes in while its disk or its log is behind,
//! - `space.rs` is what it does when the disk is nearly full,
//! - `load.rs` says how much of everything it keeps,
//! - `membership.rs` says who belongs to the cluster,
//! - `promise.rs` says which members become voters when they have caught up,
//! - `catch_up.rs` measures how far they are, and gives them their votes,
//! - `activity.rs` records which members answer, so that no change loses the quorum,
//! - `leave.rs` is how one that does not any more takes its leave.
//!
//! Left out on purpose: lease-based reads (they are stale even without clock skew), forwarding by
//! raft itself (a forwarded proposal cannot be traced to its index and term), more than one raft
//! group per process.

mod activity;
mod backlog;
mod catch_up;
mod check;
mod clock;
mod election;
mod leave;
mod load;
mod membership;
mod pressure;
mod promise;
mod read;
mod ready;
mod repair;
mod replica;
mod request;
mod snapshot;
mod space;
mod start;
mod survivor;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::{ProgressState, StateRole};
use tracing::{debug, warn};

pub use self::load::Load;
pub use self::membership::{Membership, membership_change, membership_step};
#[cfg(test)]
pub(crate) use self::promise::Change;
pub use self::promise::Promise;
pub use self::replica::Proposal;
pub use self::space::DiskSpace;
pub use self::survivor::{Comparison, Survivor};
pub use crate::wal::Damage;

use self::activity::Activity;
use self::backlog::Backlog;
use self::catch_up::Rounds;
use self::clock::ClusterClock;
use self::election::Raft;
use self::leave::Farewell;
use self::read::Reads;
use self::ready::Persisting;
use self::repair::Repair;
use self::replica::Replica;
use self::snapshot::Snapshots;
use self::space::Space;
use self::waiting::Waiting;
use crate::api::{Refusal, Reply, Request, RequestId};
use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::env::{Completion, DiskOp, DiskQueue, FileName, Work};
use crate::error::Error;
use crate::machine::StateMachine;
use crate::types::{Entry, HardState, LogIndex, NodeId, SnapshotId, Term, Ticket};
use crate::wal::Wal;
use crate::wire::{Kind, Message, RaftMessage};

/// What a node wants from its host.
#[derive(Debug)]
pub enum Output {
    /// Carry out the batch; see [`Disk::submit`](crate::env::Disk::submit). Tickets of the batches
    /// of one queue count upwards.
    Disk {
        /// Which queue of the disk.
        queue: DiskQueue,
        /// Names the batch in its completion.
        ticket: Ticket,
        /// What to do, in order.
        ops: Vec<DiskOp>,
    },
    /// Read a piece of a file; see [`Disk::fetch`](crate::env::Disk::fetch). Fetches have tickets
    /// of their own.
    Fetch {
        /// Names the read in its completion.
        ticket: Ticket,
        /// Which file.
        file: FileName,
        /// From where.
        offset: u64,
        /// How many bytes, at most.
        len: u32,
    },
    /// Carry out work beside the node; see [`Disk::work`](crate::env::Disk::work). Work has tickets
    /// of its own.
    Work {
        /// Names the work in its completion.
        ticket: Ticket,
        /// What to do.
        work: Work,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        request: RequestId,
        /// What.
        reply: Reply,
    },
    /// For observers: an entry was applied, or a snapshot was installed.
    Applied(Applied),
}

/// Progress of the replicated state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry, or the last one in the snapshot.
    pub id: SnapshotId,
    /// Hash of machine and sessions after it.
    pub digest: u64,
    /// Hash of the membership after it.
    pub membership: u64,
    /// It came as a snapshot, in one piece with all that is before it.
    pub by_snapshot: bool,
}

/// What part a node plays in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "raft's own names")]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// A node's own view of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who.
    pub id: NodeId,
    /// Its part in the term.
    pub role: Role,
    /// Term, vote and commit index, as in memory.
    pub hard_state: HardState,
    /// The leader it follows.
    pub leader: Option<NodeId>,
    /// The last applied entry.
    pub applied: SnapshotId,
    /// The first entry kept in the log.
    pub first: LogIndex,
    /// The last entry of the log.
    pub last: SnapshotId,
    /// The newest durable snapshot.
    pub snapshot: SnapshotId,
}

/// What a leader knows of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which member.
    pub id: NodeId,
    /// The last entry that is known to be durable there.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// It is being sent a snapshot.
    pub in_snapshot: bool,
    /// It has answered lately.
    pub recent_active: bool,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Client(RequestId),
    /// Another member on behalf of its client, with its id of the question.
    Peer(NodeId, u64),
}

/// A request that was passed on to the leader.
#[derive(Debug)]
struct Forwarded {
    request: RequestId,
    leader: NodeId,
    deadline: u64,
}

/// One member of the cluster. See the module.
pub struct Node<M: StateMachine> {
    config: Config,
    params: M::Params,
    raft: Raft,
    wal: Wal,
    replica: Replica<M>,
    /// Ticks since the start.
    now: u64,
    /// The next id for questions to other members.
    next_id: u64,
    /// Requests that are not taken up yet, in order.
    arrived: Vec<(Origin, Request)>,
    outputs: Vec<Output>,
    stopped: Option<Error>,
    /// Who has told this member that it was removed.
    farewell: Farewell,

    /// The ticket of the newest batch.
    submitted: Ticket,
    /// The newest ticket that is done.
    done: Ticket,
    /// The ticket with which the present term and vote become durable.
    vow: Ticket,
    /// The ticket with which the present membership becomes durable: a restart knows it then.
    membership_vow: Ticket,
    /// Term, vote and commit as of the last `Ready`. All that the write-ahead log may say: raft may
    /// have gone on since, and commit entries that the log does not hold yet.
    written: HardState,
    persisting: VecDeque<Persisting>,
    /// What these batches count, in bytes.
    unsynced: u64,
    /// Bytes of commands proposed since the last tick.
    admitted: u64,
    /// The tick at which the log's queue of the disk last completed something, or began to have
    /// something to complete.
    disk_progress_at: u64,
    /// A snapshot is being made durable as the new state; raft stands still meanwhile.
    installing: bool,

    clock: ClusterClock,
    backlog: Backlog,
    waiting: Waiting,
    /// Requests passed on to the leader, by id.
    forwards: BTreeMap<u64, Forwarded>,
    reads: Reads,
    rounds: Rounds,
    activity: Activity,
    snapshots: Snapshots<M>,
    space: Space,
    /// The write-ahead log ended in a torn record when this life began.
    torn: bool,
    /// What was found damaged when this life began.
    found: Option<Damage>,
    /// Set as long as the log does not hold again what it once held.
    repair: Option<Repair>,
}

impl<M: StateMachine> Node<M> {
    /// Draws other election timeouts from now on: they follow from this seed, too.
    pub fn reseed(&mut self, seed: u64) {
        self.raft.reseed(seed);
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        self.now += 1;
        self.admitted = 0;
        self.tick_farewell();
        if self.stopped.is_some() {
            return;
        }
        // A tick may start an election, which reads the log; while a snapshot is being installed
        // the log and the applied index do not fit together yet.
        if self.repair.is_some() {
            self.tick_repair();
            if self.stopped.is_some() {
                return;
            }
        } else if self.disk_hangs() {
            self.tick_with_hung_disk();
        } else if (!self.installing || planted(Bug::TickWhileInstalling))
            && !self.would_lead_alone_too_early()
        {
            self.raft.tick();
            self.leave_joint();
            self.keep_promises();
        }
        self.expire();
        self.backlog.tick(self.now, self.backlog_span());
        self.tick_reads();
        self.tick_snapshots();
        self.report_shortage();
        self.vouch();
    }

    /// A message of another member has arrived.
    pub fn receive(&mut self, from: NodeId, message: Message) {
        if self.stopped.is_some() {
            return;
        }
        if message != Message::Removed && self.replica.membership().has_left(from) {
            return self.turn_away(from);
        }
        self.space.heard_from(from, self.now);
        match message {
            Message::Raft(message) => self.receive_raft(from, message),
            Message::Forward { id, request } => {
                self.arrived.push((Origin::Peer(from, id), request));
            }
            Message::Answer { id, reply } => {
                if let Some(Forwarded { request, .. }) = self.forwards.remove(&id) {
                    self.outputs.push(Output::Reply { request, reply });
                }
            }
            Message::ReadIndex { id } => self.asked_read_index(from, id),
            Message::ReadIndexAnswer { id, index } => self.answered_read_index(id, index),
            Message::Chunk(chunk) => self.receive_chunk(from, chunk),
            Message::ChunkAck { transfer, received, done } => {
                self.acknowledged_chunk(from, transfer, received, done);
            }
            Message::Removed => self.told_removed(from),
            Message::DiskShort => self.space.member_is_short(from, self.now),
        }
    }

    /// A client asks for something. The reply comes as an [`Output::Reply`].
    pub fn request(&mut self, request: RequestId, what: Request) {
        if self.stopped.is_none() {
            self.arrived.push((Origin::Client(request), what));
        }
    }

    /// Work for the disk is done.
    pub fn complete(&mut self, completion: Completion) {
        if self.stopped.is_some() {
            return;
        }
        match completion {
            Completion::Done(DiskQueue::Snapshot, ticket, Err(error))
                if error.is_full() && !planted(Bug::FullDiskStopsAll) =>
            {
                self.not_stored(ticket, error);
            }
            Completion::Done(_, _, Err(error)) if !planted(Bug::AppendErrorIgnored) => {
                self.stop(Error::Disk(error));
            }
            Completion::Done(DiskQueue::Log, ticket, _) => self.persisted(ticket),
            Completion::Done(DiskQueue::Snapshot, ticket, _) => self.stored(ticket),
            Completion::Fetched(ticket, found) => self.fetched(ticket, found),
            Completion::Worked(ticket, Ok(product)) => self.worked(ticket, product),
            Completion::Worked(_, Err(error)) => self.stop(Error::Disk(error)),
        }
    }

    /// The transport dropped messages to `peer`, or lost its connection.
    pub fn unreachable(&mut self, peer: NodeId) {
        if self.stopped.is_some() {
            return;
        }
        if !self.installing {
            self.raft.report_unreachable(peer);
        }
    }

    /// The connection that carries requests to `peer` was lost, and whatever was on it. Those that
    /// were passed on to it may have arrived or not, and the answers may never come: whoever asked
    /// can do more with that now than when the time is up.
    pub fn disconnected(&mut self, peer: NodeId) {
        if self.stopped.is_none() {
            self.doubt_forwards(peer);
        }
    }

    /// The forwarded request `id` was dropped before it reached a connection, and never will reach its
    /// leader: it certainly has no effect.
    pub fn not_forwarded(&mut self, id: u64) {
        if self.stopped.is_none()
            && let Some(Forwarded { request, leader, .. }) = self.forwards.remove(&id)
        {
            let refusal = Refusal::NotLeader(Some(leader));
            self.answer(Origin::Client(request), Reply::Refused(refusal));
        }
    }

    /// Acts on all inputs since the last call: proposes, asks, writes, sends, applies, answers.
    pub fn process(&mut self) {
        if self.stopped.is_none() {
            self.make_room();
        }
        self.take_up_requests();
        while self.stopped.is_none() {
            self.ask();
            if !self.raft.has_ready() {
                break;
            }
            self.process_ready();
        }
    }

    /// Whether [`process`](Self::process) has more to do although there is no input: queries that
    /// would have made the last call too long (see [`Config::max_answer_bytes`]).
    pub fn has_work(&self) -> bool {
        self.stopped.is_none() && self.reads.are_ready()
    }

    /// Moves the outputs of what was processed to `into`, in the order in which to carry them out.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        if into.is_empty() {
            std::mem::swap(into, &mut self.outputs);
        } else {
            into.append(&mut self.outputs);
        }
    }

    /// Why the node stopped, if it did. A stopped node ignores all inputs.
    pub fn stopped(&self) -> Option<&Error> {
        self.stopped.as_ref()
    }

    /// The node's own view of itself.
    pub fn status(&self) -> Status {
        let log = self.raft.log();
        Status {
            id: self.config.id,
            role: match self.raft.role() {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            hard_state: self.raft.hard_state(),
            leader: self.raft.leader(),
            applied: self.replica.applied(),
            first: log.first(),
            last: log.last_id(),
            snapshot: log.snapshot_id(),
        }
    }

    /// What this node, if it leads, knows of the members, itself included.
    pub fn progress(&self) -> impl Iterator<Item = Progress> {
        let leads = self.raft.is_leader();
        self.raft.progress().filter(move |_| leads).map(|(id, progress)| Progress {
            id,
            matched: progress.matched,
            next: progress.next_idx,
            in_snapshot: progress.state == ProgressState::Snapshot,
            recent_active: progress.recent_active,
        })
    }

    /// The membership as of the applied index.
    pub fn membership(&self) -> &Membership {
        self.replica.membership()
    }

    /// The term of the entry at `index`, if it is still known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.raft.log().term_at(index)
    }

    /// The entry at `index`, if it is still in the log.
    pub fn entry(&self, index: LogIndex) -> Option<Entry> {
        self.raft.log().get(index).cloned().map(ready::from_raft)
    }

    /// The replicated state as of the applied index, as the pieces of a snapshot file. O(1); the
    /// work is done by the iterator. A new cluster can be founded with it:
    /// [`Config::founding_state`].
    pub fn backup(&self) -> impl Iterator<Item = Bytes> + Send + use<M> {
        self.replica.snapshot().1
    }

    /// The cluster's time as of the applied index; see [`Context::time`](crate::machine::Context::time).
    pub fn time(&self) -> Duration {
        self.replica.time()
    }

    /// The state machine as of the applied index.
    pub fn machine(&self) -> &M {
        &self.replica.machine
    }

    /// Requests, reads and bytes that wait inside the node; all are bounded by the configuration.
    pub fn pending(&self) -> usize {
        self.arrived.len() + self.waiting.len() + self.forwards.len() + self.reads.len()
    }

    /// Whether the write-ahead log ended in a torn record when this life began.
    pub fn recovered_torn_tail(&self) -> bool {
        self.torn
    }

    /// What of the log or the state is damaged and not given back yet. `None` for a member that
    /// holds durably all that it ever acknowledged and that counts.
    pub fn damage(&self) -> Option<&Damage> {
        self.repair.as_ref().map(|repair| repair.damage())
    }

    /// The damage with which this life began, even if it is repaired by now.
    pub fn recovered_damage(&self) -> Option<&Damage> {
        self.found.as_ref()
    }

    /// Segments of the write-ahead log.
    pub fn segments(&self) -> usize {
        self.wal.segments()
    }

    fn stop(&mut self, error: Error) {
        warn!(id = %self.config.id, %error, "stopping");
        self.stopped = Some(error);
    }

    fn receive_raft(&mut self, from: NodeId, message: RaftMessage) {
        // The log changes under raft's feet while a snapshot is being installed. Raft copes with
        // lost messages; nothing else is as safe here.
        if self.installing {
            return;
        }
        let told_to_campaign = message.kind() == Kind::TimeoutNow;
        if told_to_campaign && (self.would_lead_alone_too_early() || self.disk_hangs()) {
            return;
        }
        if self.must_not_vote(&message) {
            return;
        }
        if let Err(reason) = self.check_raft(from, &message) {
            if reason == check::NOT_DURABLE {
                debug!(id = %self.config.id, %from, reason, "refused a message");
            } else {
                warn!(id = %self.config.id, %from, reason, "refused a message");
            }
            return;
        }
        if let Some(acknowledged) = self.has_lost(&message)
            && !planted(Bug::WipedDiskRejoins)
        {
            let last = self.raft.last_index();
            return self.stop(Error::DataLost { acknowledged, last });
        }
        // A leader sends again what was lost, and by then the disk may have caught up.
        if !message.0.entries.is_empty() {
            let bytes = message.0.entries.iter().map(|entry| entry.data.len() as u64).sum();
            if self.disk_lags() || self.log_is_full() || self.log_has_no_room_to_follow(bytes) {
                return;
            }
            self.space.take(bytes);
        }
        self.note_answer(from, &message);
        self.raft.step(*message.0);
    }

    /// The only voter wins its election at once, and raft insists that its log is durable by then.
    fn would_lead_alone_too_early(&self) -> bool {
        let (me, membership) = (self.config.id, self.replica.membership());
        !self.raft.is_leader()
            && (!self.persisting.is_empty() || self.raft.has_ready())
            && membership.votes(me)
            && membership.is_quorum(|id| id == me)
    }

    /// An id for a question to another member: unique among all lives of this one, because the
    /// lives' ranges begin far apart.
    fn fresh_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }
}
