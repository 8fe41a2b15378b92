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
        let digest = Digest::new(SESSION_SEED)
            .u64(id.0)
            .u64(self.last_used)
            .u64(self.seq)
            .u64(self.response_hash);
        // Without the command it is the hash of builds that did not keep that.
        self.command.map_or(digest, |command| digest.u64(command)).finish()
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
mod tests {
    use super::*;

    fn at_most(count: usize) -> SessionLimits {
        SessionLimits { count, bytes: 1 << 20 }
    }

    const COMMAND: &[u8] = b"command";

    fn applied(table: &mut Sessions, id: SessionId, seq: u64, index: LogIndex, response: &str) {
        assert_eq!(table.check(id, seq, COMMAND, index), Verdict::Fresh);
        table.record(id, seq, COMMAND, Bytes::copy_from_slice(response.as_bytes()));
    }

    #[test]
    fn a_retry_gets_the_first_response() {
        let mut table = Sessions::new(at_most(10));
        let id = table.open(5);
        assert_eq!(id, SessionId(5));
        applied(&mut table, id, 1, 6, "one");
        assert_eq!(table.check(id, 1, COMMAND, 7), Verdict::Repeated("one".into()));
        applied(&mut table, id, 2, 8, "two");
        assert_eq!(table.check(id, 2, COMMAND, 9), Verdict::Repeated("two".into()));
        assert_eq!(table.check(id, 1, COMMAND, 10), Verdict::OutOfOrder);
    }

    #[test]
    fn a_judgement_is_no_use_of_a_session() {
        let mut table = Sessions::new(at_most(10));
        let id = table.open(5);
        applied(&mut table, id, 2, 6, "two");
        let digest = table.digest();
        let judged = [0, 1, 2, 3].map(|seq| table.judge(id, seq, COMMAND));
        let two = Verdict::Repeated("two".into());
        assert_eq!(judged, [Verdict::OutOfOrder, Verdict::OutOfOrder, two, Verdict::Fresh]);
        assert_eq!(table.judge(SessionId(6), 1, COMMAND), Verdict::Expired);
        assert_eq!(table.digest(), digest);
    }

    #[test]
    fn skipped_numbers_are_gone() {
        let mut table = Sessions::new(at_most(10));
        let id = table.open(1);
        applied(&mut table, id, 7, 2, "seven");
        assert_eq!(table.check(id, 6, COMMAND, 3), Verdict::OutOfOrder);
        applied(&mut table, id, u64::MAX, 4, "last");
        assert_eq!(table.check(id, u64::MAX, COMMAND, 5), Verdict::Repeated("last".into()));
    }

    #[test]
    fn number_zero_is_never_applied() {
        let mut table = Sessions::new(at_most(10));
        let id = table.open(1);
        assert_eq!(table.check(id, 0, COMMAND, 2), Verdict::OutOfOrder);
    }

    #[test]
    fn the_least_recently_used_session_is_evicted() {
        let mut table = Sessions::new(at_most(2));
        let (first, second) = (table.open(1), table.open(2));
        applied(&mut table, first, 1, 3, "");
        let third = table.open(4);
        assert_eq!(table.len(), 2);
        assert_eq!(table.check(second, 1, COMMAND, 5), Verdict::Expired);
        assert_eq!(table.check(first, 1, COMMAND, 6), Verdict::Repeated(Bytes::new()));
        // Even a refused command is a use.
        assert_eq!(table.check(third, 0, COMMAND, 7), Verdict::OutOfOrder);
        table.open(8);
        assert_eq!(table.check(first, 2, COMMAND, 9), Verdict::Expired);
        assert_eq!(table.check(third, 1, COMMAND, 10), Verdict::Fresh);
    }

    #[test]
    fn the_digest_covers_use_number_and_response() {
        let table = |steps: &dyn Fn(&mut Sessions, SessionId)| {
            let mut table = Sessions::new(at_most(3));
            let id = table.open(1);
            steps(&mut table, id);
            table.digest()
        };
        let digests = BTreeSet::from([
            Sessions::new(at_most(3)).digest(),
            table(&|_, _| {}),
            table(&|table, id| assert_eq!(table.check(id, 1, COMMAND, 2), Verdict::Fresh)),
            table(&|table, id| applied(table, id, 1, 2, "")),
            table(&|table, id| applied(table, id, 2, 2, "")),
            table(&|table, id| applied(table, id, 1, 2, "a")),
            table(&|table, id| applied(table, id, 1, 3, "a")),
        ]);
        assert_eq!(digests.len(), 7);
        // An evicted session leaves nothing behind.
        let mut evicted = Sessions::new(at_most(1));
        let id = evicted.open(1);
        applied(&mut evicted, id, 1, 2, "a");
        evicted.open(9);
        let mut fresh = Sessions::new(at_most(1));
        fresh.open(9);
        assert_eq!(evicted.digest(), fresh.digest());
    }

    #[test]
    fn a_snapshot_is_frozen_and_a_lower_limit_evicts_late() {
        let mut table = Sessions::new(at_most(9));
        let ids: Vec<SessionId> = (1..=4).map(|index| table.open(index)).collect();
        let (chunks, digest) = (table.chunks(), table.digest());
        applied(&mut table, ids[0], 1, 5, "later");
        let mut restored = Sessions::restore(at_most(2), &mut { chunks }).unwrap();
        assert_eq!((restored.len(), restored.digest()), (4, digest));
        restored.open(5);
        assert_eq!(restored.len(), 2);
        assert_eq!(restored.check(ids[3], 1, COMMAND, 6), Verdict::Fresh);
        assert_eq!(restored.check(ids[2], 1, COMMAND, 7), Verdict::Expired);
    }

    #[test]
    #[should_panic(expected = "applied in order")]
    fn the_log_does_not_go_back() {
        let mut table = Sessions::new(at_most(2));
        let id = table.open(5);
        let _ = table.check(id, 1, COMMAND, 4);
    }

    /// A response of so many bytes.
    fn long(len: usize) -> String {
        "r".repeat(len)
    }

    #[test]
    fn response_over_the_limit_is_not_kept() {
        let mut table = Sessions::new(at_most(10));
        let id = table.open(1);
        let empty = table.bytes();
        applied(&mut table, id, 1, 2, &long(MAX_KEPT_RESPONSE));
        assert_eq!(table.bytes(), empty + MAX_KEPT_RESPONSE as u64);
        assert_eq!(
            table.check(id, 1, COMMAND, 3),
            Verdict::Repeated(long(MAX_KEPT_RESPONSE).into())
        );
        applied(&mut table, id, 2, 4, &long(MAX_KEPT_RESPONSE + 1));
        assert_eq!(table.bytes(), empty);
        assert_eq!(table.check(id, 2, COMMAND, 5), Verdict::NotKept(MAX_KEPT_RESPONSE as u64 + 1));
        assert_eq!(table.check(id, 1, COMMAND, 6), Verdict::OutOfOrder);
        let mut restored = Sessions::restore(at_most(10), &mut table.chunks()).unwrap();
        assert_eq!((restored.bytes(), restored.digest()), (table.bytes(), table.digest()));
        assert_eq!(
            restored.check(id, 2, COMMAND, 7),
            Verdict::NotKept(MAX_KEPT_RESPONSE as u64 + 1)
        );
    }

    #[test]
    fn bytes_over_the_limit_evict_the_least_recently_used() {
        let full = SessionLimits::LEAST_BYTES;
        let mut table = Sessions::new(SessionLimits { count: 10, bytes: 2 * full });
        let ids: Vec<SessionId> = (1..=4).map(|index| table.open(index)).collect();
        applied(&mut table, ids[0], 1, 5, &long(MAX_KEPT_RESPONSE));
        assert_eq!(table.len(), 4);
        // Room for the two largest, so the two others go: first those that were only opened.
        applied(&mut table, ids[3], 1, 6, &long(MAX_KEPT_RESPONSE));
        assert_eq!((table.len(), table.bytes()), (2, 2 * full));
        assert_eq!(table.check(ids[1], 1, COMMAND, 7), Verdict::Expired);
        assert_eq!(table.check(ids[2], 1, COMMAND, 8), Verdict::Expired);
        let _new = table.open(9);
        assert_eq!(table.check(ids[0], 1, COMMAND, 10), Verdict::Expired);
        assert!(matches!(table.check(ids[3], 1, COMMAND, 11), Verdict::Repeated(_)));
    }

    #[test]
    fn lower_byte_limit_evicts_late() {
        let mut table = Sessions::new(at_most(9));
        for index in 1..=9 {
            table.open(index);
        }
        let lower = SessionLimits { count: 9, bytes: SessionLimits::LEAST_BYTES };
        let mut restored = Sessions::restore(lower, &mut table.chunks()).unwrap();
        assert_eq!((restored.len(), restored.digest()), (9, table.digest()));
        applied(&mut restored, SessionId(9), 1, 10, &long(1000));
        assert_eq!((restored.len(), restored.bytes()), (1, SESSION_BYTES + 1000));
    }

    #[test]
    fn another_command_with_the_same_number_is_refused() {
        let mut table = Sessions::new(at_most(9));
        let id = table.open(1);
        applied(&mut table, id, 1, 2, "one");
        assert_eq!(table.check(id, 1, b"another", 3), Verdict::Reused);
        assert_eq!(table.judge(id, 1, b"another"), Verdict::Reused);
        assert_eq!(table.judge(id, 1, COMMAND), Verdict::Repeated("one".into()));
        let mut restored = Sessions::restore(at_most(9), &mut table.chunks()).unwrap();
        assert_eq!(restored.digest(), table.digest());
        assert_eq!(restored.check(id, 1, b"another", 4), Verdict::Reused);
        // An older number says nothing of its command any more.
        applied(&mut restored, id, 2, 5, "two");
        assert_eq!(restored.check(id, 1, b"another", 6), Verdict::OutOfOrder);
    }

    /// Streams of version 1 hold every response in full, and those of version 2 nothing of the command.
    #[test]
    fn former_versions_are_still_read() {
        let mut table = Sessions::new(at_most(9));
        let (small, large) = (table.open(1), table.open(2));
        applied(&mut table, small, 3, 3, "small");
        applied(&mut table, large, 4, 4, &long(5000));
        // Builds of these versions did not hash the commands.
        let mut digest = 0u64;
        for (id, session) in &table.sessions {
            let former = Session { command: None, ..session.clone() };
            digest = digest.wrapping_add(former.hash(*id));
        }
        let restored = |version: u8, sessions: Vec<Vec<u8>>| {
            let header = postcard::to_extend(&(2u64, digest), vec![version]).unwrap();
            let mut chunks = [header].into_iter().chain(sessions).map(Bytes::from);
            Sessions::restore(at_most(9), &mut chunks).unwrap()
        };
        let former = [(small, 3u64, 3u64, "small".to_owned()), (large, 4, 4, long(5000))];
        let encoded = |response: &dyn Fn(String) -> Vec<u8>| {
            let session = |(id, used, seq, text): &(SessionId, u64, u64, String)| {
                let mut bytes = postcard::to_stdvec(&(id, used, seq)).unwrap();
                bytes.extend(response(text.clone()));
                bytes
            };
            former.iter().map(session).collect()
        };
        let first = encoded(&|text| postcard::to_stdvec(&Bytes::from(text)).unwrap());
        let second = encoded(&|text| postcard::to_stdvec(&Kept::new(text.into())).unwrap());
        for (version, sessions) in [(1, first), (2, second)] {
            let mut restored = restored(version, sessions);
            assert_eq!((restored.bytes(), restored.digest()), (table.bytes(), digest));
            assert_eq!(restored.check(small, 3, b"any", 5), Verdict::Repeated("small".into()));
            assert_eq!(restored.check(large, 4, b"any", 6), Verdict::NotKept(5000));
            applied(&mut restored, small, 4, 7, "next");
            assert_eq!(restored.check(small, 4, b"any", 8), Verdict::Reused);
        }
    }
}
