//! A checker's own picture of one node's log, kept from what the node writes, never from what it
//! says.
//!
//! Three pictures matter: what the node has written (and believes), what the disk has executed, and
//! what is durable. They differ by a queue of records, so one picture and the queues are enough.

use std::collections::{BTreeSet, VecDeque};

use stormkv::env::FileName;
use stormkv::types::{HardState, LogIndex, NodeId, SnapshotId, Term};

/// A record of the write-ahead log, reduced to what the invariants speak of.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub hard_state: HardState,
    /// A snapshot marker, with the chain hash of the log up to it.
    pub snapshot: Option<(SnapshotId, u64)>,
    /// The index of the first entry; entries as (term, chain hash).
    pub first: LogIndex,
    pub entries: Vec<(Term, u64)>,
}

impl Step {
    /// The last entry's index and chain hash.
    pub fn end(&self) -> Option<(LogIndex, u64)> {
        let (_, hash) = self.entries.last()?;
        Some((self.first + self.entries.len() as u64 - 1, *hash))
    }
}

/// Term, vote and log, as the records so far make them.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub term: Term,
    pub vote: NodeId,
    pub commit: LogIndex,
    pub snapshot: SnapshotId,
    /// The entry before the first one in `log`, with its chain hash.
    base: SnapshotId,
    base_hash: u64,
    log: VecDeque<(Term, u64)>,
}

impl Image {
    /// Whether nothing was ever recorded.
    pub fn is_blank(&self) -> bool {
        self.term == 0 && self.last().0.index == 0
    }

    /// The last entry, and its chain hash.
    pub fn last(&self) -> (SnapshotId, u64) {
        match self.log.back() {
            Some(&(term, hash)) => {
                (SnapshotId { index: self.base.index + self.log.len() as u64, term }, hash)
            }
            None => (self.base, self.base_hash),
        }
    }

    /// Term and chain hash at `index`, if it is still in the picture.
    pub fn at(&self, index: LogIndex) -> Option<(Term, u64)> {
        if index == self.base.index {
            return Some((self.base.term, self.base_hash));
        }
        let offset = index.checked_sub(self.base.index + 1)?;
        self.log.get(usize::try_from(offset).ok()?).copied()
    }

    pub fn base(&self) -> SnapshotId {
        self.base
    }

    /// Entries beyond the base, as (index, term, chain hash).
    pub fn entries(&self) -> impl Iterator<Item = (LogIndex, Term, u64)> + '_ {
        let first = self.base.index + 1;
        self.log.iter().zip(first..).map(|(&(term, hash), index)| (index, term, hash))
    }

    pub fn apply(&mut self, step: &Step) {
        self.term = step.hard_state.term;
        self.vote = step.hard_state.vote;
        self.commit = step.hard_state.commit;
        if let Some((id, hash)) = step.snapshot
            && id.index > self.snapshot.index
        {
            match self.at(id.index) {
                Some((term, _)) if term == id.term => {
                    self.log.drain(..(id.index - self.base.index) as usize);
                }
                _ => self.log.clear(),
            }
            (self.base, self.base_hash, self.snapshot) = (id, hash, id);
        }
        if !step.entries.is_empty() {
            let keep = step.first.saturating_sub(self.base.index + 1);
            self.log.truncate(keep as usize);
            self.log.extend(&step.entries);
        }
    }
}

/// One node's pictures.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// What the node believes.
    pub written: Image,
    /// What a crash cannot take.
    pub durable: Image,
    /// Handed to the disk, not executed yet: the records of one write each.
    queued: VecDeque<Vec<Step>>,
    /// Executed, not synced: they survive a crash in order, up to some point.
    cached: VecDeque<Cached>,
    /// Files whose names are not durable: a sync of them alone makes nothing safe.
    unnamed: BTreeSet<FileName>,
    /// What there was before the node noticed that it had lost something, and the term in which it
    /// did: a crash may undo the notice.
    before: Option<(Image, VecDeque<Cached>, Term)>,
}

/// A record that the disk has executed.
#[derive(Clone, Debug)]
struct Cached {
    file: FileName,
    step: Step,
    /// Its file was synced, only the name was not.
    synced: bool,
}

impl Shadow {
    /// The node has put these records into one write.
    pub fn queue(&mut self, steps: Vec<Step>) {
        for step in &steps {
            self.written.apply(step);
        }
        self.queued.push_back(steps);
    }

    /// The disk has executed the oldest queued write.
    pub fn executed(&mut self, file: FileName) {
        let steps = self.queued.pop_front().expect("only queued writes are executed");
        let cached = |step| Cached { file, step, synced: false };
        self.cached.extend(steps.into_iter().map(cached));
    }

    /// The disk has created a file.
    pub fn created(&mut self, file: FileName) {
        self.unnamed.insert(file);
    }

    /// The disk has made `file` durable.
    pub fn synced(&mut self, file: FileName) {
        for cached in self.cached.iter_mut().take_while(|cached| cached.file == file) {
            cached.synced = true;
        }
        if !self.unnamed.contains(&file) {
            self.make_durable();
        }
    }

    /// The disk has made all names durable.
    pub fn named(&mut self) {
        self.unnamed.clear();
        self.make_durable();
    }

    fn make_durable(&mut self) {
        while self.cached.front().is_some_and(|cached| cached.synced)
            && let Some(cached) = self.cached.pop_front()
        {
            self.durable.apply(&cached.step);
        }
    }

    /// What is cached will be made durable by the next sync of `file`.
    pub fn settle_in(&mut self, file: FileName) {
        for cached in &mut self.cached {
            cached.file = file;
        }
    }

    /// The process is gone. What is cached may survive or not.
    pub fn crashed(&mut self) {
        self.queued.clear();
    }

    /// The process is back with less than it had durably: `left` is all that there is now. Returns
    /// what was durable. What of `left` was only cached becomes durable with the first batch, before
    /// anything is sent; so the difference is not kept apart. All this counts once `term` is durable.
    pub fn shrink(&mut self, left: Image, term: Term) -> Image {
        let cached = std::mem::take(&mut self.cached);
        self.written = left.clone();
        let durable = std::mem::replace(&mut self.durable, left);
        self.before = Some((durable.clone(), cached, term));
        durable
    }

    /// The process is back and believes in what it has read. Finds which of the cached records
    /// that explains; false if none of the possible pictures does. `all` demands that every cached
    /// record was found: only the process had died.
    pub fn recovered(&mut self, all: bool, explains: impl Fn(&Image) -> bool) -> bool {
        if let Some((durable, cached, term)) = self.before.take()
            && self.durable.term < term
        {
            (self.durable, self.cached) = (durable, cached);
        }
        let mut image = self.durable.clone();
        let mut kept = 0;
        let mut found = (!all || self.cached.is_empty()).then(|| explains(&image)) == Some(true);
        let mut best = image.clone();
        for (at, cached) in self.cached.iter().enumerate() {
            image.apply(&cached.step);
            let last = at + 1 == self.cached.len();
            if (!all || last) && explains(&image) {
                (found, kept, best) = (true, at + 1, image.clone());
            }
        }
        if found {
            self.cached.truncate(kept);
            self.written = best;
        }
        found
    }
}
