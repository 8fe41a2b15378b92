//! Bugs to plant: known mistakes of real systems, each a switch at the place where our code does
//! otherwise. A testbed is worth what it finds, so it has to find these.
//!
//! A site is one condition, `if planted(Bug::X)`. Without the cargo feature `bugs` that is the
//! constant false, and neither the sites nor the names below are part of the binary. With it, at
//! most one bug is planted at a time, per thread, by `plant`: the simulator plants the one that a
//! plan names for as long as the plan runs, so that a run remains a function of its plan.
//!
//! Numbers 1 to 40 come from issues of other systems and from papers, those from 41 on are mistakes
//! that this crate has made itself; U1 to U9 are defects of the crate `raft` 0.7.0, or of hosts that
//! use it in a plausible way, which this crate keeps out by the way in which it configures and
//! drives it. Planting one of these does not change the crate.

use std::any::Any;

use bytes::Bytes;

use crate::kv::{Command, Kv, Response, Versioned};
use crate::machine::StateMachine;
use crate::node::Proposal;
use crate::types::LogIndex;

macro_rules! bugs {
    ($($name:ident = $id:literal, $slug:literal, $class:ident, $origin:literal, $what:literal;)*) => {
        /// A mistake that can be planted. See the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $what] #[allow(missing_docs, reason = "the text is beside the name")] $name,)*
        }

        /// All of them, in order.
        #[cfg(feature = "bugs")]
        pub const ALL: &[Info] = &[$(Info {
            bug: Bug::$name,
            id: $id,
            name: $slug,
            class: Class::$class,
            origin: $origin,
            what: $what,
        },)*];
    };
}

bugs! {
    MessagesBeforeSync = "1", "messages-before-sync", Medium, "NATS #7564",
        "Messages that promise something leave before it is durable.";
    HardStateOnlyWithEntries = "2", "hard-state-only-with-entries", Hard, "redpanda #19",
        "Term and vote are saved only when there are entries to save.";
    CommitNotAnnounced = "3", "commit-not-announced", Easy, "raft-rs #403",
        "What raft wants to send after a write is done is thrown away.";
    AppendErrorIgnored = "4", "append-error-ignored", Medium, "etcd raftexample",
        "A failed write of the log is taken for done.";
    AcknowledgedOnAppend = "5", "acknowledged-on-append", Easy, "etcd raftexample",
        "A command is answered when it is in the leader's log, not when it is applied.";
    CompletedByIndex = "6", "completed-by-index", Hard, "redpanda #3003",
        "A request is completed by the index of its entry, whatever its term.";
    FailedOnStepDown = "7", "failed-on-step-down", Medium, "redisraft #23",
        "Open requests are answered as refused when the leader steps down.";
    SnapshotNotReported = "8", "snapshot-not-reported", Medium, "dgraph #2707",
        "Raft is never told how a transfer of a snapshot has ended.";
    TickWhileInstalling = "9", "tick-while-installing", Hard, "TiKV #11618",
        "Time passes for raft while a snapshot is being installed.";
    ConflictNotTruncated = "10", "conflict-not-truncated", Hard, "NATS #3870, braft #119",
        "The log on disk keeps what an append has replaced, if the append is shorter.";
    CorruptionIsTornTail = "11", "corruption-is-torn-tail", VeryHard, "PAR, FAST'18",
        "Any bad record is cut off as a torn tail, with all that follows.";
    ChecksumIgnored = "12", "checksum-ignored", Medium, "etcd #5230",
        "A record is accepted although its checksum does not match.";
    SegmentDirNotSynced = "13", "segment-dir-not-synced", Hard, "etcd #6368",
        "The directory is not synced after a new segment was created.";
    FsyncRetried = "14", "fsync-retried", VeryHard, "ATC'20",
        "A failed sync is repeated until it succeeds.";
    RemovalDropsHardState = "15", "removal-drops-hard-state", VeryHard, "raft-engine #143",
        "A new segment does not restate the vote, which goes with the old segment.";
    RemovedBeforeSynced = "16", "removed-before-synced", Hard, "raft-engine #288",
        "Old files are removed before what replaces them is durable.";
    TermBeyondTail = "17", "term-beyond-tail", VeryHard, "TiKV #19697",
        "Terms are still told for entries that were cut off.";
    AppliedReadAfterState = "18", "applied-read-after-state", Medium, "TiKV #10225",
        "A snapshot holds the state as of its beginning and the applied index as of its end.";
    LatestMembershipInSnapshot = "19", "latest-membership-in-snapshot", Hard, "pikiwidb-raft #385",
        "A snapshot is offered with the newest membership, not that of its index.";
    SessionsNotInSnapshot = "20", "sessions-not-in-snapshot", Hard, "atomix #1101",
        "Sessions are not part of a snapshot.";
    AppliedBeforeLoad = "21", "applied-before-load", Hard, "TiKV #12470",
        "While a snapshot is loaded, the applied index is new and the state is empty.";
    InstallKeepsOldKeys = "22", "install-keeps-old-keys", Medium, "redisraft #45",
        "A snapshot is loaded over the old state instead of replacing it.";
    SnapshotInTwoSteps = "23", "snapshot-in-two-steps", Medium, "nexus #4215",
        "An installed snapshot and the hard state that goes with it are recorded one after the other.";
    ChunksByPeerOnly = "24", "chunks-by-peer-only", VeryHard, "TiKV #1014",
        "Chunks of a snapshot are collected by their sender, whichever transfer they belong to.";
    LocalClockAtApply = "25", "local-clock-at-apply", Easy, "etcd v2 leases",
        "Whether a key has expired is judged by the member's own clock when an entry is applied.";
    DeduplicatedAtProposal = "26", "deduplicated-at-proposal", Medium, "curvine #676",
        "A repeated command is recognised when it is proposed only, not when it is applied.";
    AppliedFromZero = "27", "applied-from-zero", Medium, "etcd #14685",
        "After a restart entries are applied again that the state already has.";
    SessionsExpireByClock = "28", "sessions-expire-by-clock", Hard, "Raft thesis, 6.3",
        "Sessions expire by the member's own clock.";
    FailedCasNotRecorded = "29", "failed-cas-not-recorded", Hard, "Raft thesis, 6.3",
        "The response of a compare-and-swap that failed is not kept in its session.";
    ReadAtOnce = "30", "read-at-once", Easy, "go-dqlite #207",
        "A leader answers reads from its own state without asking a majority.";
    LeaseReads = "31", "lease-reads", Medium, "etcd-io/raft #166",
        "A leader that has heard from a majority lately does not ask before it answers reads.";
    LeaseSurvivesTransfer = "32", "lease-survives-transfer", VeryHard, "TiKV #1593",
        "A leader goes on trusting its lease after it has handed over.";
    ReadNotAwaited = "33", "read-not-awaited", Medium, "etcd #13464",
        "A read is served as soon as its index is known, although the index is not applied yet.";
    DroppedReadServedLocally = "34", "dropped-read-served-locally", Hard, "redisraft #19",
        "A read whose question got no answer is served from the local state.";
    ChangeEffectiveAtAppend = "35", "change-effective-at-append", Hard, "camunda #57393",
        "A change of the membership counts from when it is in the log, not from when it is committed.";
    MembershipWithoutApplied = "36", "membership-without-applied", Hard, "ClickHouse #105784",
        "After a restart the membership is newer than the applied index.";
    RefusedChangeNotAnswered = "37", "refused-change-not-answered", Medium, "CockroachDB #106147",
        "Whoever asked for a change that turned out to be refused waits for ever.";
    WipedDiskRejoins = "38", "wiped-disk-rejoins", VeryHard, "TiKV #9579",
        "A member whose disk was lost comes back under its old number.";
    TermStampedWhenSent = "39", "term-stamped-when-sent", VeryHard, "hashicorp/raft #695",
        "A message that waited carries the term of the moment when it is sent.";
    UnreadableHardStateIsDefault = "40", "unreadable-hard-state-is-default", Hard, "ClickHouse #113654",
        "A hard state that cannot be read is taken for that of a new member.";
    HeartbeatsWaitForLog = "41", "heartbeats-wait-for-log", Medium, "stormkv",
        "A response to a heartbeat waits for the log, of which all that waits is synced in one go.";
    HungDiskKeepsOffice = "42", "hung-disk-keeps-office", Easy, "stormkv",
        "A leader whose disk completes nothing any more goes on sending heartbeats.";
    CatchUpNotAwaited = "43", "catch-up-not-awaited", Medium, "stormkv",
        "The log behind a snapshot that is sent is dropped before its receiver has it.";
    PinnedLogIsHeavy = "44", "pinned-log-is-heavy", Medium, "stormkv",
        "A log that is kept for members that catch up makes the leader save its state again and again.";
    FullDiskStopsAll = "45", "full-disk-stops-all", Medium, "stormkv",
        "A snapshot is written until the disk is full, and a full disk stops the node.";
    LogUnbounded = "46", "log-unbounded", Medium, "stormkv",
        "A leader takes commands however large its log is.";
    LargeAnswersKept = "50", "large-answers-kept", Easy, "stormkv, issue 13",
        "Sessions keep every response whatever its length, and the table has no bound in bytes.";

    RetryProposedAgain = "52", "retry-proposed-again", Easy, "stormkv, issue 13",
        "A retry is proposed again although the first copy is in the log or applied.";
    OverloadAdmitted = "53", "overload-admitted", Medium, "stormkv, issue 13",
        "A leader admits commands that it cannot apply before their clients give up.";

    WrongRevisionReported = "54", "wrong-revision-reported", Easy, "etcd, mod_revision",
        "A get reports the revision of the whole state as that of the key.";
    PageTokenSkipsAKey = "55", "page-token-skips-a-key", Easy, "paging by offset",
        "A page that goes on behind a key leaves out the key that follows it.";
    StaleReadGoesBack = "56", "stale-read-goes-back", Medium, "any cache of reads",
        "A stale read is answered from a cache: a client may see a state and then an older one.";
    AddressesNotInSnapshot = "57", "addresses-not-in-snapshot", Medium, "any field added later",
        "A snapshot does not hold the addresses of the members.";
    ShortageNotReported = "58", "shortage-not-reported", Hard, "stormkv",
        "A leader does not know that the disks of a quorum are nearly full, and goes on proposing.";
    VoterAddedAtOnce = "59", "voter-added-at-once", Hard, "stormkv",
        "A new member counts for the quorum at once, although it has nothing.";
    QuorumNotChecked = "60", "quorum-not-checked", Medium, "etcd, strict-reconfig-check",
        "A leader accepts a change of the membership although no quorum is active after it.";
    NumberReused = "61", "number-reused", Easy, "stormkv",
        "A command is acknowledged with the response of another one that had its number.";
    RecoveredByIndex = "62", "recovered-by-index", Hard, "stormkv",
        "A lost cluster goes on with the log of the highest index, whatever its last term.";
    AddressTaken = "63", "address-taken", Medium, "stormkv",
        "A member is given the address of another one.";
    ClockNotContinued = "64", "clock-not-continued", Easy, "any replicated clock",
        "A new leader stamps its proposals with its own clock, and does not go on from the last stamp.";

    AppendBelowMatch = "U1", "append-below-match", Hard, "raft-rs #557",
        "A leader goes back behind what a follower has, and waits for news of a snapshot that is none.";
    AppendsGlued = "U2", "appends-glued", Hard, "raft 0.7.0",
        "Appends are batched: entries are glued to an append that was waiting.";
    ReadIndexForwarded = "U3", "read-index-forwarded", Hard, "etcd #20418",
        "Questions for a read index are passed on by raft itself, and repeated under their old number.";
    RaftLeaseReads = "U4", "raft-lease-reads", Hard, "etcd-io/raft #166",
        "Raft's own lease-based reads.";
    LeaderRemovesItself = "U5", "leader-removes-itself", Hard, "raft 0.7.0",
        "A leader is removed without handing over before, and goes on leading.";
    IdsReused = "U6", "ids-reused", Hard, "raft-rs #571",
        "A member that was removed is added again under the same number.";
    LoneVoterSendsEarly = "U7", "lone-voter-sends-early", Hard, "raft 0.7.0",
        "A sole voter's messages leave before its term is durable.";
    ElectionWhileInstalling = "U8", "election-while-installing", Hard, "raft 0.7.0",
        "Raft learns that a snapshot is applied only later, and may campaign before.";
    LostSnapshotNotReported = "U9", "lost-snapshot-not-reported", Hard, "raft 0.7.0",
        "A snapshot that was lost on its way is never reported, for there is no time limit.";
}

/// How hard a bug is expected to be to find.
#[cfg(feature = "bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Class {
    Easy,
    Medium,
    Hard,
    VeryHard,
}

#[cfg(feature = "bugs")]
impl Class {
    /// One letter: e, m, h or v.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Class::Easy => "e",
            Class::Medium => "m",
            Class::Hard => "h",
            Class::VeryHard => "v",
        }
    }
}

/// What is known of a bug.
#[cfg(feature = "bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Which one.
    pub bug: Bug,
    /// Its number in the catalogue, such as `12` or `U3`.
    pub id: &'static str,
    /// Its name, in words and hyphens.
    pub name: &'static str,
    /// How hard it is expected to be to find.
    pub class: Class,
    /// Where it was made before.
    pub origin: &'static str,
    /// What goes wrong, in one sentence.
    pub what: &'static str,
}

/// The bug of this name or number.
#[cfg(feature = "bugs")]
#[must_use]
pub fn find(name: &str) -> Option<&'static Info> {
    ALL.iter().find(|info| info.name == name || info.id.eq_ignore_ascii_case(name))
}

#[cfg(feature = "bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "bugs")]
#[inline]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never, in a build without the feature `bugs`.
#[cfg(not(feature = "bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

/// Plants a bug on this thread, or none, until the result is dropped.
#[cfg(feature = "bugs")]
#[must_use]
pub fn plant(bug: Option<Bug>) -> Planted {
    Planted { before: PLANTED.replace(bug) }
}

/// Holds what was planted before.
#[cfg(feature = "bugs")]
#[derive(Debug)]
pub struct Planted {
    before: Option<Bug>,
}

#[cfg(feature = "bugs")]
impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(self.before);
    }
}

/// The response to a put in the data of the entry at `index`, as soon as it is known where it is.
pub(crate) fn response_to_put(index: LogIndex, data: &[u8]) -> Option<Bytes> {
    let Proposal::Command(_, command) = Proposal::decode(data)? else { return None };
    let is_put = matches!(Command::decode(command), Ok(Command::Put { .. }));
    is_put.then(|| Response::Written { revision: index }.encode())
}

/// Whether this is the response of a compare-and-swap that found another value.
pub(crate) fn is_failed_cas(response: &[u8]) -> bool {
    matches!(Response::decode(response), Ok(Response::Swapped { swapped: false, .. }))
}

/// The answer to a get, with another revision of what it has found.
pub(crate) fn with_revision(response: Bytes, revision: LogIndex) -> Bytes {
    match Response::decode(&response) {
        Ok(Response::Value(Some(found))) => {
            Response::Value(Some(Versioned { revision, ..found })).encode()
        }
        _ => response,
    }
}

/// Removes a key of a key-value machine, as if its time were up.
pub(crate) fn expire_key<M: StateMachine>(machine: &mut M) {
    if let Some(kv) = (machine as &mut dyn Any).downcast_mut::<Kv>() {
        kv.expire();
    }
}

/// Leaves what a key-value machine held in the one that replaces it.
pub(crate) fn keep_old_keys<M: StateMachine>(old: &M, new: &mut M) {
    let (old, new) = (old as &dyn Any, new as &mut dyn Any);
    if let (Some(old), Some(new)) = (old.downcast_ref::<Kv>(), new.downcast_mut::<Kv>()) {
        new.keep(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sites may rely on it: what the compiler knows to be false it leaves out.
    #[cfg(not(feature = "bugs"))]
    const _: () = assert!(!planted(Bug::MessagesBeforeSync));

    #[cfg(feature = "bugs")]
    #[test]
    fn at_most_one_is_planted_and_only_as_long_as_it_is_held() {
        assert!(ALL.iter().all(|info| !planted(info.bug)));
        let one = plant(Some(Bug::ReadAtOnce));
        assert!(planted(Bug::ReadAtOnce) && !planted(Bug::LeaseReads));
        {
            let _other = plant(Some(Bug::LeaseReads));
            assert!(planted(Bug::LeaseReads) && !planted(Bug::ReadAtOnce));
        }
        assert!(planted(Bug::ReadAtOnce));
        drop(one);
        assert!(!planted(Bug::ReadAtOnce));
    }

    #[cfg(feature = "bugs")]
    #[test]
    fn each_has_a_number_and_a_name_of_its_own() {
        let numbers: std::collections::BTreeSet<_> = ALL.iter().map(|info| info.id).collect();
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|info| info.name).collect();
        assert_eq!((numbers.len(), names.len()), (ALL.len(), ALL.len()));
        assert_eq!(find("u3").map(|info| info.bug), Some(Bug::ReadIndexForwarded));
        assert_eq!(find("read-at-once").map(|info| info.id), Some("30"));
        assert_eq!(find("nonsense"), None);
    }
}
