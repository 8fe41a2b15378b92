//! What the checkers are told about a run, as data that a test can change.

use std::collections::BTreeMap;

use bytes::Bytes;
use stormkv::api::Reconfigure;
use stormkv::env::DiskOp;
use stormkv::kv::Kv;
use stormkv::memory::MemDisk;
use stormkv::node::{Applied, Membership, Progress, Role, Status};
use stormkv::session::SessionLimits;
use stormkv::types::{Entry, EntryKind, HardState, LogIndex, NodeId, SessionId, SnapshotId, Term};
use stormkv::wal::{Wal, WalConfig};
use stormkv::wire::{Kind, Message};

use super::super::view::View;
use super::super::{Broken, Safety};
use super::nodes::FailureRecorder;
use crate::kv::KeyValue;

/// A node at one moment, as far as the checkers look into it.
#[derive(Clone)]
pub(super) struct Seen {
    pub status: Status,
    pub membership: Membership,
    pub progress: Vec<Progress>,
    pub terms: BTreeMap<LogIndex, Term>,
    pub entries: BTreeMap<LogIndex, Entry>,
    pub damage: Option<SnapshotId>,
}

impl Seen {
    pub fn of(node: &impl View) -> Self {
        let status = node.status();
        let known = status.first.saturating_sub(1)..=status.last.index;
        Seen {
            status,
            membership: node.membership().clone(),
            progress: node.progress().collect(),
            terms: known.clone().filter_map(|at| Some((at, node.term_at(at)?))).collect(),
            entries: known.filter_map(|at| Some((at, node.entry(at)?))).collect(),
            damage: node.damage(),
        }
    }
}

impl View for Seen {
    fn status(&self) -> Status {
        self.status
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn progress(&self) -> impl Iterator<Item = Progress> {
        self.progress.iter().copied()
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.terms.get(&index).copied()
    }

    fn entry(&self, index: LogIndex) -> Option<Entry> {
        self.entries.get(&index).cloned()
    }

    fn damage(&self) -> Option<SnapshotId> {
        self.damage
    }
}

/// One thing that the checkers are told; see the functions of [`Safety`].
pub(super) enum Fed {
    Queued(NodeId, Vec<DiskOp>),
    Executed(NodeId, DiskOp),
    Crashed(NodeId, bool),
    Damaged(NodeId),
    Recovered(NodeId, Seen),
    Sending(NodeId, NodeId, Message),
    Applied(NodeId, Applied),
    After(NodeId, Seen),
    Acknowledged(SessionId, u64, LogIndex, Bytes),
    /// By whom, from the state at which index, and what was committed before.
    Read(NodeId, LogIndex, LogIndex),
    /// By whom, which query, from the state at which index, what it had applied, and the response.
    Queried(NodeId, Bytes, LogIndex, LogIndex, Bytes),
    Opened(SessionId),
    Reconfigured(LogIndex, Reconfigure),
    /// A command without a session, where it was applied, and the response.
    Loose(Bytes, LogIndex, Bytes),
    Addresses(NodeId, Membership),
    Content(NodeId, Kv),
}

/// A whole run.
pub(super) struct Tape {
    pub fed: Vec<Fed>,
    /// Who leads in the end.
    pub leader: NodeId,
    /// Two who follow. The first has voted for the leader, the second was down.
    pub followers: [NodeId; 2],
    /// The end of everybody's log; all of it is committed and applied.
    pub last: SnapshotId,
}

impl Tape {
    /// What three correct nodes do.
    pub fn honest() -> Self {
        FailureRecorder::story()
    }

    pub fn play(&self) -> Result<Safety<KeyValue>, Broken> {
        let mut safety = Safety::<KeyValue>::new(SessionLimits { count: 64, bytes: 1 << 20 });
        for fed in &self.fed {
            match fed {
                Fed::Queued(id, ops) => safety.queued(*id, ops)?,
                Fed::Executed(id, op) => safety.executed(*id, op),
                Fed::Crashed(id, cache_survives) => safety.crashed(*id, *cache_survives),
                Fed::Damaged(id) => safety.damaged(*id),
                Fed::Recovered(id, seen) => safety.recovered(*id, seen, false)?,
                Fed::Sending(id, to, message) => safety.sending(*id, *to, message)?,
                Fed::Applied(id, applied) => safety.applied(*id, applied)?,
                Fed::After(id, seen) => safety.after(*id, seen, seen.status()).map(drop)?,
                Fed::Acknowledged(session, number, index, response) => {
                    safety.acknowledged(*session, *number, *index, response)?;
                }
                Fed::Read(id, index, floor) => safety.read(*id, *index, *floor)?,
                Fed::Queried(id, query, index, applied, response) => {
                    safety.queried(*id, query, (*index, *applied), response)?;
                }
                Fed::Opened(session) => safety.opened(*session)?,
                Fed::Reconfigured(index, change) => safety.reconfigured(*index, change)?,
                Fed::Loose(command, index, response) => {
                    safety.acknowledged_loose(command, *index, response)?;
                }
                Fed::Addresses(id, membership) => safety.addresses(*id, membership)?,
                Fed::Content(id, kv) => safety.content(*id, kv)?,
            }
        }
        Ok(safety)
    }

    // ---- finding ----

    /// Where the last item is that fits.
    pub fn last_of(&self, fits: impl Fn(&Fed) -> bool) -> usize {
        self.fed.iter().rposition(fits).expect("the honest tape holds it")
    }

    /// Where the first item is that fits.
    pub fn first_of(&self, fits: impl Fn(&Fed) -> bool) -> usize {
        self.fed.iter().position(fits).expect("the honest tape holds it")
    }

    /// How `id` was seen before the item at `end`.
    pub fn seen_before(&self, id: NodeId, end: usize) -> usize {
        let fits = |fed: &Fed| matches!(fed, Fed::After(by, _) if *by == id);
        self.fed[..end].iter().rposition(fits).expect("it was seen before")
    }

    /// The membership with which the cluster began.
    pub fn first_membership(&self) -> Membership {
        match &self.fed[self.first_of(|fed| matches!(fed, Fed::After(..)))] {
            Fed::After(_, seen) => seen.membership.clone(),
            _ => unreachable!("it is an `After`"),
        }
    }

    /// How `id` is seen at the end.
    pub fn seen(&self, id: NodeId) -> Seen {
        match &self.fed[self.seen_before(id, self.fed.len())] {
            Fed::After(_, seen) => seen.clone(),
            _ => unreachable!("it is an `After`"),
        }
    }

    /// The item at `at`, which tells how a node was seen.
    pub fn seen_at(&mut self, at: usize) -> &mut Seen {
        match &mut self.fed[at] {
            Fed::After(_, seen) => seen,
            _ => unreachable!("it is an `After`"),
        }
    }

    /// The first message of this kind and term that accepts, with its place: from, to, message.
    pub fn message(&self, kind: Kind, term: Term) -> (usize, NodeId, NodeId, Message) {
        let at = self.first_of(|fed| match fed {
            Fed::Sending(_, _, Message::Raft(message)) => {
                (message.kind(), message.term(), message.reject()) == (kind, term, false)
            }
            _ => false,
        });
        match &self.fed[at] {
            Fed::Sending(from, to, message) => (at, *from, *to, message.clone()),
            _ => unreachable!("it is a `Sending`"),
        }
    }

    // ---- adding ----

    /// Shows `id` as it was seen last, but for a change.
    pub fn shows(&mut self, id: NodeId, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen(id);
        change(&mut seen);
        self.fed.push(Fed::After(id, seen));
    }

    /// The last hard state of a node, in the present term.
    pub fn hard_state(&self, id: NodeId) -> HardState {
        self.seen(id).status.hard_state
    }

    /// The entry behind the last one, in the present term.
    pub fn next_entry(&self, data: &'static [u8]) -> Entry {
        entry(self.last.index + 1, self.last.term, data)
    }

    /// `id` writes an entry, which the disk does not execute yet.
    pub fn writes(&mut self, id: NodeId, entry: Entry) {
        let ops = record(self.hard_state(id), None, &[entry]);
        self.fed.push(Fed::Queued(id, ops));
    }

    /// `id` writes an entry, and it becomes durable.
    pub fn writes_durably(&mut self, id: NodeId, entry: Entry) {
        let ops = record(self.hard_state(id), None, &[entry]);
        self.does(id, ops);
    }

    /// `id` queues these operations, and its disk executes them.
    pub fn does(&mut self, id: NodeId, ops: Vec<DiskOp>) {
        self.fed.push(Fed::Queued(id, ops.clone()));
        self.fed.extend(ops.into_iter().map(|op| Fed::Executed(id, op)));
    }

    /// `id` is seen as a follower that has heard that the entry behind the last one is committed.
    pub fn commits_next(&mut self, id: NodeId, entry: Entry) {
        self.shows(id, |seen| {
            seen.status.role = Role::Follower;
            seen.status.hard_state.term = seen.status.hard_state.term.max(entry.term);
            seen.status.hard_state.commit = entry.index;
            seen.status.last = SnapshotId { index: entry.index, term: entry.term };
            seen.progress.clear();
            seen.terms.insert(entry.index, entry.term);
            seen.entries.insert(entry.index, entry);
        });
    }
}

pub(super) fn entry(index: LogIndex, term: Term, data: &'static [u8]) -> Entry {
    Entry { index, term, kind: EntryKind::Normal, data: Bytes::from_static(data) }
}

/// The write of one record that says just this, and its sync.
pub(super) fn record(
    hard_state: HardState,
    snapshot: Option<SnapshotId>,
    entries: &[Entry],
) -> Vec<DiskOp> {
    let config = WalConfig { segment_bytes: 1 << 16 };
    let mut wal = Wal::recover(&mut MemDisk::new(), config).expect("a blank disk").wal;
    let end = snapshot.map_or(0, |id| id.index);
    let end = entries.last().map_or(end, |entry| entry.index);
    let before = entries.first().map_or(end, |entry| entry.index - 1);
    if snapshot.is_none() && before > 0 {
        // Something must stand before the entries, for a log without gaps.
        let id = SnapshotId { index: before, term: 1 };
        wal.append(HardState::default(), Some(id), &[], &mut Vec::new());
    }
    let mut ops = Vec::new();
    wal.append(HardState { commit: 0, ..hard_state }, snapshot, entries, &mut ops);
    ops
}
