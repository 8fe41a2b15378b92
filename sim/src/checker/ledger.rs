//! What the whole cluster has ever written and committed, each fact written once.
//!
//! Every entry gets a chain hash: h(i) = H(h(i-1), term, payload). Two logs that agree in one chain
//! hash agree in everything up to it, so comparing whole logs costs one comparison.

use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::FxHasher;
use stormkv::types::{Entry, EntryKind, LogIndex, NodeId, SnapshotId, Term};

use super::tail::Tail;

/// One version of the entry at some index.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub term: Term,
    pub hash: u64,
    pub kind: EntryKind,
    pub data: Bytes,
    /// Who wrote it first, and whether others have it too.
    by: NodeId,
    shared: bool,
}

/// All versions of all entries, and which of them are committed.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By index - 1.
    versions: Tail<Vec<Version>>,
    /// By index - 1: term and chain hash, and who committed it first.
    committed: Tail<(Term, u64, NodeId)>,
    /// Versions that were written for the first time, and not looked at yet.
    fresh: Vec<SnapshotId>,
    founding: LogIndex,
}

impl Ledger {
    /// This entry founds the cluster; it is committed before anything runs.
    pub fn founded(id: SnapshotId) -> Self {
        let founding = Version {
            term: id.term,
            hash: 1,
            kind: EntryKind::Normal,
            data: Bytes::new(),
            by: NodeId(0),
            shared: true,
        };
        let at = (id.index - 1) as usize;
        let versions = Tail::behind(at, [vec![founding]]);
        let committed = Tail::behind(at, [(id.term, 1, NodeId(0))]);
        Ledger { versions, committed, fresh: Vec::new(), founding: id.index }
    }

    /// Where the log begins.
    pub fn founding(&self) -> LogIndex {
        self.founding
    }

    /// The version of the entry at `index` with this term.
    pub fn version(&self, index: LogIndex, term: Term) -> Option<&Version> {
        let versions = self.versions.get(usize::try_from(index.checked_sub(1)?).ok()?)?;
        versions.iter().find(|version| version.term == term)
    }

    /// Notes an entry that `by` has written behind `previous`, and returns its chain hash. Fails if
    /// another node wrote the same index and term with another past or payload.
    ///
    /// A node may contradict itself: the only voter of a cluster leads as soon as it likes, and a
    /// crash may take term, vote and entries all at once. Nobody else has heard of them then, for
    /// messages wait until the term is durable (which is checked where they are sent).
    pub fn write(&mut self, by: NodeId, previous: u64, entry: &Entry) -> Result<u64, NodeId> {
        let hash = chain(previous, entry);
        let at = (entry.index - 1) as usize;
        self.versions.reach(at + 1, Vec::new);
        // What is forgotten is committed and applied everywhere: whoever writes it now is wrong.
        let Some(versions) = self.versions.get_mut(at) else { return Err(NodeId(0)) };
        let known = versions.iter_mut().find(|version| version.term == entry.term);
        let mut fresh = || {
            self.fresh.push(SnapshotId { index: entry.index, term: entry.term });
            let (kind, data) = (entry.kind, entry.data.clone());
            Version { term: entry.term, hash, kind, data, by, shared: false }
        };
        match known {
            Some(version) if version.hash == hash => version.shared |= version.by != by,
            Some(version) if version.shared || version.by != by => return Err(version.by),
            Some(version) => *version = fresh(),
            None => versions.push(fresh()),
        }
        Ok(hash)
    }

    /// The entries written for the first time since the last call. The first member to write an entry
    /// is the leader of its term.
    pub fn take_fresh(&mut self) -> Vec<SnapshotId> {
        std::mem::take(&mut self.fresh)
    }

    /// The changes of the membership that were ever written behind `index`, committed or not.
    pub fn changes_behind(&self, index: LogIndex) -> impl Iterator<Item = &Bytes> {
        let versions = self.versions.since(index as usize).flatten();
        let changes = versions.filter(|version| version.kind == EntryKind::Membership);
        changes.map(|version| &version.data)
    }

    /// The chain hash of an entry that follows on `previous`, if somebody has written it there.
    pub fn follows(&self, previous: u64, entry: &Entry) -> Option<u64> {
        let hash = chain(previous, entry);
        self.version(entry.index, entry.term).filter(|known| known.hash == hash).map(|_| hash)
    }

    /// The last committed index, anywhere.
    pub fn commit(&self) -> LogIndex {
        self.committed.len() as u64
    }

    /// The last committed entry, anywhere.
    pub fn last_committed(&self) -> SnapshotId {
        let (term, ..) = *self.committed.last().expect("entry 1 is committed");
        SnapshotId { index: self.commit(), term }
    }

    /// Term, chain hash and first committer of a committed entry.
    pub fn committed(&self, index: LogIndex) -> Option<(Term, u64, NodeId)> {
        self.committed.get(usize::try_from(index.checked_sub(1)?).ok()?).copied()
    }

    /// Forgets the entries before `index`.
    pub fn forget(&mut self, index: LogIndex) {
        let at = index.saturating_sub(1) as usize;
        self.versions.drop_before(at);
        self.committed.drop_before(at);
    }

    /// How many entries are remembered.
    pub fn kept(&self) -> usize {
        self.versions.kept().max(self.committed.kept())
    }

    /// Notes that `by` has committed the next index.
    pub fn push_committed(&mut self, term: Term, hash: u64, by: NodeId) {
        self.committed.push((term, hash, by));
    }
}

fn chain(previous: u64, entry: &Entry) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(previous);
    hasher.write_u64(entry.term);
    hasher.write_u8(entry.kind as u8);
    hasher.write(&entry.data);
    hasher.finish()
}
