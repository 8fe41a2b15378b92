//! Checkers that a service brings along.
//!
//! The simulator compares each response with the model of the service. A [`Checker`] holds what no comparison of
//! single responses shows: that a fencing token never goes back, that a watcher is notified once, that no two
//! holders of a lease overlap in time. It sees the [`Observation`]s of a run in the order in which they happen,
//! and fails the run under a name of its own, which reports, campaign files, `expect.violation` of scenarios
//! and shrinking use as they use the simulator's.
//!
//! Services without checkers pay nothing for them.

use stormkv::node::Role;
use stormkv::types::{LogIndex, NodeId, SessionId, Term};

use super::{Reach, Service};
use crate::history::History;

/// The moment of an observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the event, from 1.
    pub step: u64,
    /// Simulated time in nanoseconds.
    pub at_ns: u64,
}

/// A command as the committed log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<'a> {
    /// Its place in the log.
    pub index: LogIndex,
    /// The session of the client and the number of the command in it; `None` if it has no session.
    pub session: Option<(SessionId, u64)>,
    /// The command.
    pub command: &'a [u8],
}

/// The worker of a client that an observation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// The client, as plans number it.
    pub client: u32,
    /// The worker, from 0; unique within a run. Each does one operation after the other.
    pub number: u32,
}

/// How an operation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It took effect, or has read something.
    Acknowledged,
    /// It had no effect and never will.
    Refused,
    /// It may have taken effect, may do so later, or never.
    Unknown,
}

/// Something that a checker sees.
///
/// Commands that were deduplicated are left out: each is seen once as committed, and once per node and
/// incarnation as applied.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation<'a, S: Service> {
    /// A client begins an operation.
    Called {
        /// The client.
        worker: Worker,
        /// The operation.
        op: &'a S::Op,
        /// It may be answered from a state that is too old.
        is_stale: bool,
        /// Its number in the history, if it is part of it.
        recorded: Option<usize>,
    },
    /// A client receives the response to a request of the operation that it is doing.
    Response {
        /// The client.
        worker: Worker,
        /// The operation.
        op: &'a S::Op,
        /// The node that has sent the response.
        node: NodeId,
        /// Index of the command, or of the state that was read.
        index: LogIndex,
        /// The response.
        response: &'a [u8],
        /// The number of the operation in the history, if it is part of it.
        recorded: Option<usize>,
    },
    /// An operation has ended.
    Returned {
        /// The client.
        worker: Worker,
        /// The operation.
        op: &'a S::Op,
        /// Simulated time at which it was called, in nanoseconds.
        since_ns: u64,
        /// How it has ended.
        end: End,
    },
    /// A client's process is replaced by a new one, which knows nothing of what the old one has seen.
    ClientRestarted {
        /// The client, as plans number it.
        client: u32,
    },
    /// A command is committed for the first time on any node.
    Committed(Committed<'a>),
    /// A node has applied a command.
    Applied {
        /// The node.
        node: NodeId,
        /// The command.
        command: Committed<'a>,
    },
    /// A node has taken over the state of a snapshot.
    Restored {
        /// The node.
        node: NodeId,
        /// Index of the last command in the snapshot, or of what was applied behind it at once.
        index: LogIndex,
    },
    /// The state of a node after it has applied commands or taken over a snapshot.
    State {
        /// The node.
        node: NodeId,
        /// Index of the last entry in the state.
        index: LogIndex,
        /// The state.
        machine: &'a S::Machine,
    },
    /// A node has another role.
    RoleChanged {
        /// The node.
        node: NodeId,
        /// The new role.
        role: Role,
        /// The term of the role.
        term: Term,
    },
    /// A node starts.
    Started {
        /// The node.
        node: NodeId,
    },
    /// A node goes down: it was killed, has lost its power, or has stopped by itself.
    Down {
        /// The node.
        node: NodeId,
    },
    /// All faults are over.
    Healed,
}

/// What a checker has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub(crate) message: String,
    pub(crate) node: Option<NodeId>,
    pub(crate) ops: Vec<usize>,
}

impl Finding {
    /// A violation, in one sentence: which client, node, index, and why that is wrong.
    pub fn new(message: impl Into<String>) -> Finding {
        Finding { message: message.into(), ..Finding::default() }
    }

    /// The same, caused by this node.
    pub fn at(self, node: NodeId) -> Finding {
        Finding { node: Some(node), ..self }
    }

    /// The same, proven by these operations of the history: reports and the page show them.
    pub fn shown_by(self, ops: impl IntoIterator<Item = usize>) -> Finding {
        Finding { ops: ops.into_iter().collect(), ..self }
    }
}

/// What a checker may ask and count while it looks at an observation.
pub struct CheckContext<'a> {
    pub(crate) at: Stamp,
    pub(crate) checked: &'a mut u64,
    pub(crate) reach: Reach<'a>,
}

impl std::fmt::Debug for CheckContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckContext").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'a> CheckContext<'a> {
    /// A context for tests of a checker: the moment, what it adds to when it has compared something, and what
    /// takes its marks.
    pub fn new(at: Stamp, checked: &'a mut u64, reach: Reach<'a>) -> CheckContext<'a> {
        CheckContext { at, checked, reach }
    }

    /// The present moment.
    pub fn at(&self) -> Stamp {
        self.at
    }

    /// Counts that something was compared. A campaign names the checks that never were: they prove nothing.
    pub fn checked(&mut self) {
        *self.checked += 1;
    }

    /// Counts a mark of the service.
    ///
    /// # Panics
    /// If it is not one of [`Service::MARKS`].
    pub fn reach(&mut self, mark: &'static str) {
        (self.reach)(mark);
    }

    /// Counts a mark if `holds`.
    ///
    /// # Panics
    /// As [`reach`](Self::reach).
    pub fn sometimes(&mut self, mark: &'static str, holds: bool) {
        if holds {
            self.reach(mark);
        }
    }
}

/// A check of a run that the service brings along. See the module.
///
/// It must be a pure function of what it sees, as a run is one of its plan.
pub trait Checker<S: Service>: Send {
    /// The name, in lower case with hyphens, such as `fencing`. Different from those of all other checks.
    fn name(&self) -> &'static str;

    /// Looks at an observation.
    ///
    /// # Errors
    /// The violation.
    fn observe(
        &mut self,
        seen: &Observation<'_, S>,
        context: &mut CheckContext<'_>,
    ) -> Result<(), Finding>;

    /// Looks at the whole history of the clients: at the end of a run that came to rest, and of each window of a
    /// run of days.
    ///
    /// # Errors
    /// The violation.
    fn finish(
        &mut self,
        _history: &History,
        _context: &mut CheckContext<'_>,
    ) -> Result<(), Finding> {
        Ok(())
    }
}
