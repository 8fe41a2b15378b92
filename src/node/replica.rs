//! The replicated state: machine, sessions and membership, all as of one applied index.
//!
//! They change together, entry by entry, and travel together in a snapshot. That is what makes a
//! retry after a restart or a snapshot still take effect once.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize, Serializer};

use crate::api::{Refusal, Reply};
use crate::bugs::{self, Bug, planted};
use crate::digest::Digest;
use crate::env::{FileName, ReadFile};
use crate::error::Error;
use crate::machine::{Context, StateMachine};
use crate::node::membership::Membership;
use crate::node::promise::Change;
use crate::session::{SessionLimits, Sessions, Verdict};
use crate::snapshot::{self, Head, Writer};
use crate::types::{LogIndex, SessionId, SnapshotId, micros};

/// Bytes of a snapshot file that are read in one go.
const READ_BYTES: u32 = 4 << 20;
/// Bytes that a proposal takes beside its command, at most: session, number, lengths, time.
const PROPOSAL_OVERHEAD: usize = 48;
/// Sets hashes of times apart from other hashes.
const TIME_SEED: u64 = 0x7265_706c_6963_6174;

/// What a normal entry holds.
/// Borrowed from the entry: every member reads each entry when it arrives and when it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal<'a> {
    /// Opens a session.
    OpenSession,
    /// A command for the state machine, with its session and number in it.
    Command(Option<(SessionId, u64)>, #[serde(serialize_with = "serialize_bytes")] &'a [u8]),
}

/// As one piece; serde would write a slice byte by byte, to the same result.
fn serialize_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl<'a> Proposal<'a> {
    /// The data of an entry: the proposal and, in microseconds, the cluster's time at which it is made.
    pub(crate) fn encode(&self, time: Duration) -> Bytes {
        let command = if let Proposal::Command(_, command) = self { command.len() } else { 0 };
        let room = Vec::with_capacity(command + PROPOSAL_OVERHEAD);
        postcard::to_extend(&(self, micros(time)), room)
            .expect("writing to memory cannot fail")
            .into()
    }

    /// Reads a proposal back from the data of an entry. `None` for data that no proposal encodes
    /// to.
    pub fn decode(data: &'a [u8]) -> Option<Self> {
        Self::decode_stamped(data).map(|(proposal, _)| proposal)
    }

    /// The same, with the cluster's time at which the leader proposed it; `None` in its place for an entry of a
    /// version that did not stamp its proposals.
    pub fn decode_stamped(data: &'a [u8]) -> Option<(Self, Option<Duration>)> {
        let (proposal, rest) = postcard::take_from_bytes(data).ok()?;
        if rest.is_empty() {
            return Some((proposal, None));
        }
        match postcard::take_from_bytes(rest).ok()? {
            (micros, []) => Some((proposal, Some(Duration::from_micros(micros)))),
            _ => None,
        }
    }

    /// The time with which the data of an entry are stamped, if they are.
    pub(crate) fn stamp(data: &'a [u8]) -> Option<Duration> {
        Self::decode_stamped(data)?.1
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Replica<M> {
    pub machine: M,
    sessions: Sessions,
    membership: Membership,
    /// Kept, because every entry is reported with it and few change it.
    membership_digest: u64,
    applied: SnapshotId,
    /// The cluster's time as of the applied index.
    time: Duration,
}

impl<M: StateMachine> Replica<M> {
    /// The state of a cluster before its first entry. `applied` is index 1 for founders, as if a
    /// first entry had made them members, so that those who join later must receive a snapshot
    /// that says so; and index 0 for a node that joins.
    pub fn new(
        params: &M::Params,
        sessions: SessionLimits,
        membership: Membership,
        applied: SnapshotId,
    ) -> Self {
        Replica {
            machine: M::new(params),
            sessions: Sessions::new(sessions),
            membership_digest: membership.digest(),
            membership,
            applied,
            time: Duration::ZERO,
        }
    }

    /// The same machine and sessions as the beginning of a cluster with other members. Its log begins
    /// [`gap`](crate::config::Config::founding_gap) entries behind.
    pub fn refounded(self, membership: Membership, gap: u64) -> Self {
        let SnapshotId { index, term } = self.applied;
        let applied = SnapshotId { index: index.saturating_add(gap), term };
        Replica { membership_digest: membership.digest(), membership, applied, ..self }
    }

    /// The last applied index, and its term.
    pub fn applied(&self) -> SnapshotId {
        self.applied
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The client sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A hash of the membership.
    pub fn membership_digest(&self) -> u64 {
        self.membership_digest
    }

    /// The cluster's time as of the applied index.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// A hash of machine, sessions and time: equal on all replicas at equal applied index.
    pub fn digest(&self) -> u64 {
        let time = Digest::new(TIME_SEED).u64(micros(self.time)).finish();
        self.machine.digest() ^ self.sessions.digest().rotate_left(32) ^ time
    }

    /// Applies a normal entry. The reply is what its client is told, if it is still there.
    pub fn apply(&mut self, id: SnapshotId, data: &[u8]) -> Reply {
        self.advance(id);
        if data.is_empty() {
            return Reply::Refused(Refusal::ReconfigurationPending);
        }
        let index = id.index;
        let Some((proposal, stamp)) = Proposal::decode_stamped(data) else {
            // Only this crate writes entries. One that it cannot read comes from a newer version;
            // to skip it would let replicas differ, so stop.
            panic!("the entry at {index} holds no known proposal: a newer version wrote it")
        };
        if let Some(stamp) = stamp {
            assert!(
                stamp >= self.time || planted(Bug::ClockNotContinued),
                "the cluster's time goes back at entry {index}, from {:?} to {stamp:?}",
                self.time
            );
            self.time = stamp;
        }
        match proposal {
            Proposal::OpenSession => Reply::SessionOpened(self.sessions.open(index)),
            Proposal::Command(session, command) => self.command(index, session, command),
        }
    }

    fn command(
        &mut self,
        index: LogIndex,
        session: Option<(SessionId, u64)>,
        command: &[u8],
    ) -> Reply {
        let context = Context::new(index, self.time);
        let Some((id, number)) = session else {
            return Reply::Applied { index, response: self.machine.apply(context, command) };
        };
        match self.sessions.check(id, number, command, index) {
            Verdict::Fresh => {
                let response = self.machine.apply(context, command);
                if !planted(Bug::FailedCasNotRecorded) || !bugs::is_failed_cas(&response) {
                    self.sessions.record(id, number, command, response.clone());
                }
                Reply::Applied { index, response }
            }
            Verdict::Repeated(_) | Verdict::NotKept(_) if planted(Bug::DeduplicatedAtProposal) => {
                Reply::Applied { index, response: self.machine.apply(context, command) }
            }
            Verdict::Repeated(response) => Reply::Applied { index, response },
            Verdict::NotKept(bytes) => Reply::NotKept { index, bytes },
            Verdict::OutOfOrder => Reply::Refused(Refusal::OutOfOrder),
            Verdict::Reused => Reply::Refused(Refusal::NumberReused),
            Verdict::Expired => Reply::Refused(Refusal::SessionExpired),
        }
    }

    /// Applies a membership entry: `state` is what raft made of it, `None` if it was vetoed.
    pub fn reconfigure(
        &mut self,
        id: SnapshotId,
        change: &Change,
        state: Option<&ConfState>,
    ) -> Reply {
        self.advance(id);
        match state {
            Some(state) => {
                self.membership = self.membership.changed(state, change);
                self.membership_digest = self.membership.digest();
                Reply::Reconfigured { index: id.index }
            }
            None => Reply::Refused(Refusal::InvalidReconfiguration),
        }
    }

    fn advance(&mut self, id: SnapshotId) {
        assert_eq!(id.index, self.applied.index + 1, "entries are applied once, in order");
        assert!(id.term >= self.applied.term, "terms never go back along the log");
        self.applied = id;
    }

    /// Freezes the state as a snapshot.
    pub fn snapshot(&self) -> (Head, Writer) {
        let mut membership = self.membership.clone();
        if planted(Bug::AddressesNotInSnapshot) {
            membership.forget_addresses();
        }
        let head = Head { id: self.applied, membership, time: self.time };
        let sessions = if planted(Bug::SessionsNotInSnapshot) {
            let bytes = SessionLimits::LEAST_BYTES;
            Sessions::new(SessionLimits { count: 1, bytes }).chunks()
        } else {
            self.sessions.chunks()
        };
        let writer = Writer::new(&head, sessions, self.machine.snapshot());
        (head, writer)
    }

    /// The reply to a command of a session whose outcome is certain already, so that no entry is
    /// needed to find it out.
    ///
    /// What is applied is committed: no later leader has another log up to there, and no later entry
    /// changes what it did. So a recorded response stays true for ever, whether a follower
    /// or a deposed leader sends it. The answer carries the applied index: the state there
    /// reflects the command, as it does at every later index. A number that is passed by is certain,
    /// too: a session's newest number never goes back, and if the session goes, the number is
    /// refused all the same. So is another command with a number that has taken effect.
    ///
    /// That a session is not there is *not* certain: the entry that opens it may be committed and
    /// not applied here. Only the log can tell, so [`Verdict::Expired`] is left to it.
    pub fn settled(&self, id: SessionId, number: u64, command: &[u8]) -> Option<Reply> {
        let index = self.applied.index;
        match self.sessions.judge(id, number, command) {
            Verdict::Repeated(response) => Some(Reply::Applied { index, response }),
            Verdict::NotKept(bytes) => Some(Reply::NotKept { index, bytes }),
            Verdict::OutOfOrder => Some(Reply::Refused(Refusal::OutOfOrder)),
            Verdict::Reused => Some(Reply::Refused(Refusal::NumberReused)),
            Verdict::Fresh | Verdict::Expired => None,
        }
    }

    /// Lets the session go that was used least recently, whenever that is asked for.
    pub fn expire_session(&mut self) {
        self.sessions.evict();
    }

    /// Applies a command to the machine alone, whatever was applied before.
    pub fn apply_to_machine(&mut self, index: LogIndex, data: &[u8]) {
        if let Some(Proposal::Command(_, command)) = Proposal::decode(data) {
            self.machine.apply(Context::new(index, self.time), command);
        }
    }

    /// Rebuilds a state from a snapshot file of `len` bytes.
    pub fn restore_from(
        params: &M::Params,
        sessions: SessionLimits,
        file: FileName,
        len: u64,
        files: &mut dyn ReadFile,
    ) -> Result<Self, Error> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
        while (bytes.len() as u64) < len {
            let piece = files.read(file, bytes.len() as u64, READ_BYTES)?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        Replica::restore(params, sessions, file, &bytes.freeze())
    }

    /// Rebuilds a state from the bytes of a snapshot file.
    pub fn restore(
        params: &M::Params,
        sessions: SessionLimits,
        file: FileName,
        bytes: &Bytes,
    ) -> Result<Self, Error> {
        let contents = snapshot::read(file, bytes)?;
        let unreadable = |reason| Error::Corrupt { file, offset: 0, reason };
        let sessions =
            Sessions::restore(sessions, &mut contents.sessions.into_iter()).map_err(unreadable)?;
        let machine = M::restore(params, &mut contents.machine.into_iter()).map_err(unreadable)?;
        let Head { id, membership, time } = contents.head;
        let membership_digest = membership.digest();
        Ok(Replica { machine, sessions, membership, membership_digest, applied: id, time })
    }
}
