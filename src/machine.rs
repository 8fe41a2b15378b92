//! The replicated state machine, as a trait: bring your own and get the whole testbed.
//!
//! [`Kv`](crate::kv::Kv) is the reference implementation.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use crate::types::LogIndex;

/// What a command is applied with beside its bytes: the same on every replica, because it is part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The position of the command in the log.
    pub index: LogIndex,
    /// The cluster's time, with which the leader stamped the command when it proposed it.
    ///
    /// It counts from the foundation of the cluster, in steps of the leader's [tick], and never goes back along
    /// the log, across changes of the leader. It is no time of day: without a leader it may stand still,
    /// and it runs as fast as the clock of the leader. Leases and times to live that are measured by it are
    /// judged alike by all replicas; a client that measures them by a clock of its own needs a fencing
    /// token besides.
    ///
    /// [tick]: crate::config::Config::tick
    pub time: Duration,
}

impl Context {
    /// The context of the command at `index` that was proposed at `time`. For tests of machines and for
    /// models; a node makes its own.
    #[must_use]
    pub const fn new(index: LogIndex, time: Duration) -> Context {
        Context { index, time }
    }
}

/// A snapshot as a stream of chunks. Frozen at the moment it was taken.
pub type Chunks = Box<dyn Iterator<Item = Bytes> + Send>;

/// How much a state holds. For metrics and for people: nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Entries, such as keys.
    pub entries: u64,
    /// Bytes of the entries' contents, without what it takes to keep them.
    pub bytes: u64,
}

/// A deterministic state machine.
///
/// Every replica applies the same commands in the same order, so the state, the responses, the
/// digest and the snapshot must be functions of the commands alone: no clock, no randomness, no
/// iteration over a map in random order.
///
/// A machine that needs time takes it from the [`Context`] of a command.
pub trait StateMachine: Sized + Send + 'static {
    /// What a machine is constructed with, such as limits; `()` for one that needs nothing. Replicas must
    /// have equal parameters if responses depend on them: they are not part of the log or of snapshots.
    type Params: Clone + Debug + Default + Send + Sync + 'static;

    /// Constructs the state before the first command.
    fn new(params: &Self::Params) -> Self;

    /// Applies one committed command and returns the response for its client. A command that cannot
    /// be decoded must be answered with an error response, the same on every replica: it is
    /// committed, so there is no way back.
    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes;

    /// Answers a read-only question about the present state. Any bytes must be answered: they come from
    /// clients as they are. A host sends the empty query to learn up to which index the state reflects
    /// the log, for example before a backup, and discards the answer, which should be short.
    fn query(&self, query: &[u8]) -> Bytes;

    /// Returns whether a command may make the state larger. While a disk is nearly full, only commands
    /// that do not are accepted: so that they can be used to make room, they must be told from the others.
    fn grows(&self, command: &[u8]) -> bool {
        let _ = command;
        true
    }

    /// Returns how much the present state holds. O(1). A machine that does not count reports zeros.
    fn size(&self) -> StateSize {
        StateSize::default()
    }

    /// Freezes the present state. Must be cheap (it runs between two commands); the work is done
    /// by the iterator, whose chunks should stay below about 64 KiB.
    fn snapshot(&self) -> Chunks;

    /// Rebuilds a state from the chunks of [`snapshot`](Self::snapshot), in order. The chunk
    /// boundaries are kept.
    ///
    /// # Errors
    /// Says what is wrong with the chunks. They were checked against bit rot before, so an error
    /// means a bug or an unknown newer format.
    fn restore(
        params: &Self::Params,
        chunks: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<Self, String>;

    /// A hash of the whole state, O(1) per call: replicas that applied the same index must agree.
    fn digest(&self) -> u64;
}
