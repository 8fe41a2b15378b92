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
//! The table is bounded. When a session is opened and there is no room, the one that was used
//! least recently goes, by log index: the same one on every member, as no clock is asked. Its
//! client is told so, rather than risking to apply a command twice. All this holds only if all
//! members have the same limit, which they must be configured with.
//!
//! Left out: closing a session (it is evicted in time) and expiry by time.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use crate::chunks;
use crate::digest::Digest;
use crate::machine::Chunks;
use crate::types::{LogIndex, SessionId};

/// Sets hashes of sessions apart from other hashes.
const SESSION_SEED: u64 = 0x7365_7373_696f_6e73;

/// What is known of a command before it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It was not applied before: apply it and [`record`](Sessions::record) the response.
    Fresh,
    /// It was applied before, with this response: do not apply it again.
    Repeated(Bytes),
    /// A later command of the session was applied, or the number is 0: never apply it. Its own
    /// response, if it ever had an effect, is forgotten.
    OutOfOrder,
    /// There is no such session (any more): never apply it.
    Expired,
}

/// The table of the open sessions.
#[derive(Clone, Debug)]
pub struct Sessions {
    limit: usize,
    sessions: RedBlackTreeMapSync<SessionId, Session>,
    /// The same sessions by last use. Not part of a snapshot: it follows from `sessions`.
    by_use: BTreeSet<(LogIndex, SessionId)>,
    /// The wrapping sum of the sessions' hashes.
    digest: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    last_used: LogIndex,
    /// The newest sequence number that was applied; 0 for none.
    seq: u64,
    /// Its response.
    response: Bytes,
    /// Kept, so that a use of the session need not hash a large response again.
    #[serde(skip)]
    response_hash: u64,
}

impl Session {
    fn new(index: LogIndex) -> Session {
        let response = Bytes::new();
        let response_hash = hash_response(&response);
        Session { last_used: index, seq: 0, response, response_hash }
    }

    fn hash(&self, id: SessionId) -> u64 {
        Digest::new(SESSION_SEED)
            .u64(id.0)
            .u64(self.last_used)
            .u64(self.seq)
            .u64(self.response_hash)
            .finish()
    }
}

fn hash_response(response: &[u8]) -> u64 {
    Digest::new(SESSION_SEED).bytes(response).finish()
}

impl Sessions {
    /// An empty table for at most `limit` sessions. Every member of a cluster must use the same
    /// limit: it decides which session is evicted when.
    ///
    /// # Panics
    /// If `limit` is 0: a session would be evicted as it is opened.
    #[must_use]
    pub fn new(limit: usize) -> Sessions {
        assert!(limit > 0, "the session limit must be at least 1");
        let sessions = RedBlackTreeMapSync::new_sync();
        Sessions { limit, sessions, by_use: BTreeSet::new(), digest: 0 }
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
        // A table restored from a member with a higher limit may have several too many.
        while self.by_use.len() >= self.limit {
            self.evict();
        }
        let session = Session::new(index);
        self.digest = self.digest.wrapping_add(session.hash(id));
        self.by_use.insert((index, id));
        self.sessions.insert_mut(id, session);
        id
    }

    /// Lets the least recently used session go, if there is any.
    pub(crate) fn evict(&mut self) {
        let Some((_, oldest)) = self.by_use.pop_first() else { return };
        let evicted = self.sessions.get(&oldest).expect("both maps name the same sessions");
        self.digest = self.digest.wrapping_sub(evicted.hash(oldest));
        self.sessions.remove_mut(&oldest);
    }

    /// What is known of command `seq` of session `id`, wherever it comes from. Not a use of the
    /// session: only the log can use it, as all members must agree on which one is evicted.
    pub fn judge(&self, id: SessionId, seq: u64) -> Verdict {
        let Some(session) = self.sessions.get(&id) else {
            return Verdict::Expired;
        };
        match seq.cmp(&session.seq) {
            Ordering::Greater => Verdict::Fresh,
            // Before the first command the newest number is 0, and it has no response.
            Ordering::Equal if seq > 0 => Verdict::Repeated(session.response.clone()),
            Ordering::Equal | Ordering::Less => Verdict::OutOfOrder,
        }
    }

    /// Judges command `seq` of session `id`, which stands in the log at `index`. The session
    /// counts as used, whatever the verdict. Numbers may be skipped: what is skipped can never be
    /// applied afterwards.
    ///
    /// # Panics
    /// If `index` is older than the last use of the session: the log is applied in order.
    pub fn check(&mut self, id: SessionId, seq: u64, index: LogIndex) -> Verdict {
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
        self.judge(id, seq)
    }

    /// Remembers the response of command `seq`, which was judged [`Verdict::Fresh`] and applied.
    ///
    /// # Panics
    /// If it was not judged fresh.
    pub fn record(&mut self, id: SessionId, seq: u64, response: Bytes) {
        let session = self.sessions.get_mut(&id).expect("a fresh command has a session");
        assert!(seq > session.seq, "a fresh command has a new number");
        let before = session.hash(id);
        session.seq = seq;
        session.response_hash = hash_response(&response);
        session.response = response;
        self.digest = self.digest.wrapping_sub(before).wrapping_add(session.hash(id));
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

    /// A hash of the whole table, O(1): members that applied the same index must agree. The limit
    /// is not part of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Freezes the table as a stream of chunks of up to about 64 KiB. O(1); the work is done by
    /// the iterator.
    #[must_use]
    pub fn chunks(&self) -> Chunks {
        chunks::stream(&self.sessions, self.digest)
    }

    /// Rebuilds a table from its [`chunks`](Self::chunks), in order. If it holds more sessions
    /// than `limit`, the surplus goes when the next one is opened, as it does on a member that
    /// kept its table.
    ///
    /// # Errors
    /// Says what is wrong with the chunks.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub fn restore(
        limit: usize,
        chunks: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<Sessions, String> {
        let mut table = Sessions::new(limit);
        let hash = |&id: &SessionId, session: &mut Session| {
            session.response_hash = hash_response(&session.response);
            session.hash(id)
        };
        (table.sessions, table.digest) = chunks::read("the session table", chunks, hash)?;
        table.by_use =
            table.sessions.iter().map(|(&id, session)| (session.last_used, id)).collect();
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(table: &mut Sessions, id: SessionId, seq: u64, index: LogIndex, response: &str) {
        assert_eq!(table.check(id, seq, index), Verdict::Fresh);
        table.record(id, seq, Bytes::copy_from_slice(response.as_bytes()));
    }

    #[test]
    fn a_retry_gets_the_first_response() {
        let mut table = Sessions::new(10);
        let id = table.open(5);
        assert_eq!(id, SessionId(5));
        applied(&mut table, id, 1, 6, "one");
        assert_eq!(table.check(id, 1, 7), Verdict::Repeated("one".into()));
        applied(&mut table, id, 2, 8, "two");
        assert_eq!(table.check(id, 2, 9), Verdict::Repeated("two".into()));
        assert_eq!(table.check(id, 1, 10), Verdict::OutOfOrder);
    }

    #[test]
    fn a_judgement_is_no_use_of_a_session() {
        let mut table = Sessions::new(10);
        let id = table.open(5);
        applied(&mut table, id, 2, 6, "two");
        let digest = table.digest();
        let judged = [0, 1, 2, 3].map(|seq| table.judge(id, seq));
        let two = Verdict::Repeated("two".into());
        assert_eq!(judged, [Verdict::OutOfOrder, Verdict::OutOfOrder, two, Verdict::Fresh]);
        assert_eq!(table.judge(SessionId(6), 1), Verdict::Expired);
        assert_eq!(table.digest(), digest);
    }

    #[test]
    fn skipped_numbers_are_gone() {
        let mut table = Sessions::new(10);
        let id = table.open(1);
        applied(&mut table, id, 7, 2, "seven");
        assert_eq!(table.check(id, 6, 3), Verdict::OutOfOrder);
        applied(&mut table, id, u64::MAX, 4, "last");
        assert_eq!(table.check(id, u64::MAX, 5), Verdict::Repeated("last".into()));
    }

    #[test]
    fn number_zero_is_never_applied() {
        let mut table = Sessions::new(10);
        let id = table.open(1);
        assert_eq!(table.check(id, 0, 2), Verdict::OutOfOrder);
    }

    #[test]
    fn the_least_recently_used_session_is_evicted() {
        let mut table = Sessions::new(2);
        let (first, second) = (table.open(1), table.open(2));
        applied(&mut table, first, 1, 3, "");
        let third = table.open(4);
        assert_eq!(table.len(), 2);
        assert_eq!(table.check(second, 1, 5), Verdict::Expired);
        assert_eq!(table.check(first, 1, 6), Verdict::Repeated(Bytes::new()));
        // Even a refused command is a use.
        assert_eq!(table.check(third, 0, 7), Verdict::OutOfOrder);
        table.open(8);
        assert_eq!(table.check(first, 2, 9), Verdict::Expired);
        assert_eq!(table.check(third, 1, 10), Verdict::Fresh);
    }

    #[test]
    fn the_digest_covers_use_number_and_response() {
        let table = |steps: &dyn Fn(&mut Sessions, SessionId)| {
            let mut table = Sessions::new(3);
            let id = table.open(1);
            steps(&mut table, id);
            table.digest()
        };
        let digests = BTreeSet::from([
            Sessions::new(3).digest(),
            table(&|_, _| {}),
            table(&|table, id| assert_eq!(table.check(id, 1, 2), Verdict::Fresh)),
            table(&|table, id| applied(table, id, 1, 2, "")),
            table(&|table, id| applied(table, id, 2, 2, "")),
            table(&|table, id| applied(table, id, 1, 2, "a")),
            table(&|table, id| applied(table, id, 1, 3, "a")),
        ]);
        assert_eq!(digests.len(), 7);
        // An evicted session leaves nothing behind.
        let mut evicted = Sessions::new(1);
        let id = evicted.open(1);
        applied(&mut evicted, id, 1, 2, "a");
        evicted.open(9);
        let mut fresh = Sessions::new(1);
        fresh.open(9);
        assert_eq!(evicted.digest(), fresh.digest());
    }

    #[test]
    fn a_snapshot_is_frozen_and_a_lower_limit_evicts_late() {
        let mut table = Sessions::new(9);
        let ids: Vec<SessionId> = (1..=4).map(|index| table.open(index)).collect();
        let (chunks, digest) = (table.chunks(), table.digest());
        applied(&mut table, ids[0], 1, 5, "later");
        let mut restored = Sessions::restore(2, &mut { chunks }).unwrap();
        assert_eq!((restored.len(), restored.digest()), (4, digest));
        restored.open(5);
        assert_eq!(restored.len(), 2);
        assert_eq!(restored.check(ids[3], 1, 6), Verdict::Fresh);
        assert_eq!(restored.check(ids[2], 1, 7), Verdict::Expired);
    }

    #[test]
    #[should_panic(expected = "applied in order")]
    fn the_log_does_not_go_back() {
        let mut table = Sessions::new(2);
        let id = table.open(5);
        let _ = table.check(id, 1, 4);
    }
}
