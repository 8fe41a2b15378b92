//! Client sessions: what makes a retried command take effect once (Raft thesis, 6.3).
//!
//! A client that hears no answer cannot know whether its command was committed, so it sends it
//! again, perhaps through another node, and both copies may end up in the log. Each command hence
//! carries its session and a sequence number; a session remembers the newest number that was
//! applied, and the response. The second copy is recognised, is not applied, and is answered with
//! the first response.
//!
//! The table is replicated state just like the machine's: it changes only as the log is applied,
//! and is part of every snapshot. One command per session is outstanding at a time, so the newest
//! number is all there is to remember; a client that wants more opens more sessions.
//!
//! A session also keeps the hash of its newest command. A client that uses a number again, but for
//! another command, has made a mistake: acknowledged with the response of the first command, it would
//! take a write for done that never was. Such a command is refused.
//!
//! A response of more than [`MAX_KEPT_RESPONSE`] bytes is not kept: a small command may have a large
//! answer (a failed compare-and-swap returns the present value), and a table of such answers would
//! outweigh the state many times over, on every member and in every snapshot. Its length and its
//! hash are kept, and the second copy of the command is answered with "applied, but the answer was
//! not kept". The hash of a session covers the hash of its response, so that it does not depend on
//! what is kept of it.
//!
//! The table is bounded, in sessions and in bytes. When there is no room, the session that was used
//! least recently is evicted, by log index: the same one on every member, as no clock is asked. Its
//! client gets an error, rather than risking to apply a command twice. All this holds only if all
//! members have the same limits, which they must be configured with.
//!
//! Left out: closing a session (it is evicted in time) and expiry by time.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bugs::{Bug, planted};
use crate::chunks::{self, Format};
use crate::digest::Digest;
use crate::machine::Chunks;
use crate::types::{LogIndex, SessionId};

/// Sets hashes of sessions apart from other hashes.
const SESSION_SEED: u64 = 0x7365_7373_696f_6e73;

/// Sets hashes of commands apart from other hashes.
const COMMAND_SEED: u64 = 0x7365_7373_636f_6d6d;

/// The longest response that is kept for repetitions of its command, in bytes. Part of the protocol,
/// as it decides how replicas answer and which sessions have room.
pub const MAX_KEPT_RESPONSE: usize = 1024;

/// Bytes that a session counts beside its kept response: about what it takes in memory.
pub const SESSION_BYTES: u64 = 128;

/// Bounds of a [table](Sessions); equal on all members of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions, at least 1.
    pub count: usize,
    /// Bytes of all sessions, each [`SESSION_BYTES`] and its kept response. At least
    /// [`LEAST_BYTES`](Self::LEAST_BYTES).
    pub bytes: u64,
}

impl SessionLimits {
    /// Bytes of one session with the longest response that is kept.
    pub const LEAST_BYTES: u64 = SESSION_BYTES + MAX_KEPT_RESPONSE as u64;
}

/// What is known of a command before it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It was not applied before: apply it and [`record`](Sessions::record) the response.
    Fresh,
    /// It was applied before, with this response: do not apply it again.
    Repeated(Bytes),
    /// It was applied before: do not apply it again. Its response had this many bytes, more than
    /// [`MAX_KEPT_RESPONSE`], and was not kept.
    NotKept(u64),
    /// A later command of the session was applied, or the number is 0: never apply it. Its own
    /// response, if it ever had an effect, is forgotten.
    OutOfOrder,
    /// Another command with this number was applied before: never apply it.
    Reused,
    /// There is no such session (any more): never apply it.
    Expired,
}

/// The table of the open sessions.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    sessions: RedBlackTreeMapSync<SessionId, Session>,
    /// The same sessions by last use. Not part of a snapshot: it follows from `sessions`.
    by_use: BTreeSet<(LogIndex, SessionId)>,
    /// The wrapping sum of the sessions' hashes.
    digest: u64,
    /// The sum of the sessions' bytes.
    bytes: u64,
}

/// What is left of a response.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    Whole(Bytes),
    /// Its length and hash.
    Digest(u64, u64),
}

impl Kept {
    fn new(response: Bytes) -> Kept {
        if response.len() <= MAX_KEPT_RESPONSE || planted(Bug::LargeAnswersKept) {
            Kept::Whole(response)
        } else {
            Kept::Digest(response.len() as u64, hash_response(&response))
        }
    }

    /// The hash of the response, kept or not.
    fn hash(&self) -> u64 {
        match self {
            Kept::Whole(response) => hash_response(response),
            Kept::Digest(_, hash) => *hash,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    last_used: LogIndex,
    /// The newest sequence number that was applied; 0 for none.
    seq: u64,
    response: Kept,
    /// The hash of the newest command; `None` before the first one, and for one that was applied by a
    /// build that did not keep it.
    command: Option<u64>,
    /// The hash of `response`, so that a use of the session need not hash it again.
    #[serde(skip)]
    response_hash: u64,
}

/// A session in a stream of version 2, which kept nothing of the command.
#[derive(Deserialize)]
struct SecondSession {
    last_used: LogIndex,
    seq: u64,
    response: Kept,
}

impl From<SecondSession> for Session {
    fn from(former: SecondSession) -> Session {
        let SecondSession { last_used, seq, response } = former;
        Session { last_used, seq, response, command: None, response_hash: 0 }
    }
}

/// A session in a stream of version 1, which kept every response.
#[derive(Deserialize)]
struct FirstSession {
    last_used: LogIndex,
    seq: u64,
    response: Bytes,
}

impl From<FirstSession> for Session {
    fn from(former: FirstSession) -> Session {
        let FirstSession { last_used, seq, response } = former;
        SecondSession { last_used, seq, response: Kept::new(response) }.into()
    }
}

/// The version of the stream of chunks that is written.
const VERSION: u8 = 3;

/// The versions that are read.
const FORMATS: &[Format<SessionId, Session>] = &[
    Format { version: VERSION, take: |bytes| postcard::take_from_bytes(bytes) },
    Format { version: 2, take: take_former::<SecondSession> },
    Format { version: 1, take: take_former::<FirstSession> },
];

fn take_former<F: DeserializeOwned + Into<Session>>(
    bytes: &[u8],
) -> postcard::Result<((SessionId, Session), &[u8])> {
    let ((id, former), rest) = postcard::take_from_bytes::<(SessionId, F)>(bytes)?;
    Ok(((id, former.into()), rest))
}

impl Session {
    fn new(index: LogIndex) -> Session {
        let response = Kept::Whole(Bytes::new());
        let response_hash = response.hash();
        Session { last_used: index, seq: 0, response, command: None, response_hash }
    }

    fn bytes(&self) -> u64 {
        SESSION_BYTES
            + match &self.response {
                Kept::Whole(response) => response.len() as u64,
                Kept::Digest(..) => 0,
            }
    }

    /// Returns whether `command` can be the newest one that was applied.
    fn may_be(&self, command: &[u8]) -> bool {
        self.command.is_none_or(|applied| applied == hash_command(command))
            || planted(Bug::NumberReused)
    }

    fn hash(&self, id: SessionId) -> u64 {
        // The command is left out: builds that do not keep it must come to the same hash, and the state of
        // the machine shows what was applied.
        Digest::new(SESSION_SEED)
            .u64(id.0)
            .u64(self.last_used)
            .u64(self.seq)
            .u64(self.response_hash)
            .finish()
    }
}

fn hash_command(command: &[u8]) -> u64 {
    Digest::new(COMMAND_SEED).bytes(command).finish()
}

fn hash_response(response: &[u8]) -> u64 {
    Digest::new(SESSION_SEED).bytes(response).finish()
}

impl Sessions {
    /// An empty table within these limits. Every member of a cluster must use the same ones: they
    /// decide which session is evicted when.
    ///
    /// # Panics
    /// If a limit is below what one session needs: it would be evicted as it is opened.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Sessions {
        assert!(limits.count > 0, "the session limit must be at least 1");
        assert!(
            limits.bytes >= SessionLimits::LEAST_BYTES,
            "the table must have room for a session"
        );
        let sessions = RedBlackTreeMapSync::new_sync();
        Sessions { limits, sessions, by_use: BTreeSet::new(), digest: 0, bytes: 0 }
    }

    /// Opens a session, as the entry at `index` asks for, and evicts the least recently used ones
    /// if there are too many. The session's first command has sequence number 1.
    ///
    /// # Panics
    /// If `index` is 0 or older than the newest use of the table: the log is applied in order.
    pub fn open(&mut self, index: LogIndex) -> SessionId {
        let id = SessionId(index);
        assert!(index > 0, "the log starts at index 1");
        assert!(
            self.by_use.last().is_none_or(|&(newest, _)| newest <= index),
            "the log is applied in order"
        );
        assert!(!self.sessions.contains_key(&id), "one entry opens one session");
        let session = Session::new(index);
        // A table restored from a member with higher limits may have several too many.
        while self.by_use.len() >= self.limits.count {
            self.evict();
        }
        self.make_room(session.bytes());
        self.bytes += session.bytes();
        self.digest = self.digest.wrapping_add(session.hash(id));
        self.by_use.insert((index, id));
        self.sessions.insert_mut(id, session);
        self.assert_bounded();
        id
    }

    /// Evicts the least recently used sessions until there is room for so many more bytes.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.limits.bytes
            && !self.is_empty()
            && !planted(Bug::LargeAnswersKept)
        {
            self.evict();
        }
    }

    fn assert_bounded(&self) {
        let bounded = self.by_use.len() <= self.limits.count && self.bytes <= self.limits.bytes;
        assert!(bounded || planted(Bug::LargeAnswersKept), "the table of sessions is bounded");
    }

    /// Lets the least recently used session go, if there is any.
    pub(crate) fn evict(&mut self) {
        let Some((_, oldest)) = self.by_use.pop_first() else { return };
        let evicted = self.sessions.get(&oldest).expect("both maps name the same sessions");
        self.digest = self.digest.wrapping_sub(evicted.hash(oldest));
        self.bytes -= evicted.bytes();
        self.sessions.remove_mut(&oldest);
        assert!(!self.is_empty() || (self.bytes, self.digest) == (0, 0), "nothing counts nothing");
    }

    /// Returns what is known of `command`, number `seq` of session `id`, wherever it comes from. Not a use of
    /// the session: only the log can use it, as all members must agree on which one is evicted.
    pub fn judge(&self, id: SessionId, seq: u64, command: &[u8]) -> Verdict {
        let Some(session) = self.sessions.get(&id) else {
            return Verdict::Expired;
        };
        match seq.cmp(&session.seq) {
            Ordering::Greater => Verdict::Fresh,
            Ordering::Equal if seq > 0 && !session.may_be(command) => Verdict::Reused,
            // Before the first command the newest number is 0, and it has no response.
            Ordering::Equal if seq > 0 => match &session.response {
                Kept::Whole(response) => Verdict::Repeated(response.clone()),
                Kept::Digest(length, _) => Verdict::NotKept(*length),
            },
            Ordering::Equal | Ordering::Less => Verdict::OutOfOrder,
        }
    }

    /// Judges `command`, number `seq` of session `id`, which stands in the log at `index`. The session
    /// counts as used, whatever the verdict. Numbers may be skipped: what is skipped can never be
    /// applied afterwards.
    ///
    /// # Panics
    /// If `index` is older than the last use of the session: the log is applied in order.
    pub fn check(&mut self, id: SessionId, seq: u64, command: &[u8], index: LogIndex) -> Verdict {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Verdict::Expired;
        };
        assert!(session.last_used <= index, "the log is applied in order");
        let before = session.hash(id);
        let was_known = self.by_use.remove(&(session.last_used, id));
        assert!(was_known, "both maps name the same sessions");
        self.by_use.insert((index, id));
        session.last_used = index;
        self.digest = self.digest.wrapping_sub(before).wrapping_add(session.hash(id));
        self.judge(id, seq, command)
    }

    /// Remembers `command`, number `seq`, and its response, which was just judged [`Verdict::Fresh`] and applied.
    /// Evicts the least recently used sessions if it has no room.
    ///
    /// # Panics
    /// If it was not judged fresh.
    pub fn record(&mut self, id: SessionId, seq: u64, command: &[u8], response: Bytes) {
        let session = self.sessions.get_mut(&id).expect("a fresh command has a session");
        assert!(seq > session.seq, "a fresh command has a new number");
        let (hash, bytes) = (session.hash(id), session.bytes());
        session.seq = seq;
        session.command = Some(hash_command(command));
        session.response = Kept::new(response);
        session.response_hash = session.response.hash();
        self.digest = self.digest.wrapping_sub(hash).wrapping_add(session.hash(id));
        self.bytes = self.bytes - bytes + session.bytes();
        // It was used last, so all others would be evicted before it, and alone it has room.
        self.make_room(0);
        assert!(self.sessions.contains_key(&id), "a session is not evicted for its own response");
    }

    /// The number of open sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_use.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_use.is_empty()
    }

    /// Bytes of all sessions, as [`SessionLimits::bytes`] counts them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A hash of the whole table, O(1): members that applied the same index must agree. The limits
    /// are not part of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Freezes the table as a stream of chunks of up to about 64 KiB. O(1); the work is done by
    /// the iterator.
    #[must_use]
    pub fn chunks(&self) -> Chunks {
        chunks::stream(&self.sessions, self.digest, VERSION)
    }

    /// Rebuilds a table from its [`chunks`](Self::chunks), in order, also from those of a build that
    /// kept every response. If it holds more than `limits` allow, the surplus goes when the next
    /// session is opened or the next response recorded, as it does on a member that kept its table.
    ///
    /// # Errors
    /// Says what is wrong with the chunks.
    ///
    /// # Panics
    /// If a limit is below what one session needs.
    pub fn restore(
        limits: SessionLimits,
        chunks: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<Sessions, String> {
        let mut table = Sessions::new(limits);
        let counted = Cell::new(0);
        let hash = |&id: &SessionId, session: &mut Session| {
            session.response_hash = session.response.hash();
            counted.set(counted.get() + session.bytes());
            session.hash(id)
        };
        (table.sessions, table.digest) = chunks::read("the session table", FORMATS, chunks, hash)?;
        table.by_use =
            table.sessions.iter().map(|(&id, session)| (session.last_used, id)).collect();
        table.bytes = table.sessions.values().map(Session::bytes).sum();
        assert_eq!(table.bytes, counted.get(), "each session was read once");
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
