//! What is left of a member whose cluster has lost a quorum of its disks for good.
//!
//! Such a cluster commits nothing any more. A new one can be founded with what the surviving disks hold: the
//! log that is *longest*, the one whose last entry has the highest term and, of these, the highest index.
//! It contains each acknowledged entry that any survivor holds. Say that entry has term t. A log whose last
//! entry has a later term T shares the log of the leader of T up to there, and that leader had every entry
//! that was acknowledged in earlier terms (Raft paper, 5.4.3). A log whose last entry has term t, too, comes
//! from the same leader, and the longer of two such logs contains the shorter one.
//!
//! Entries behind the last one that is known to be committed may have been acknowledged or not: nobody is
//! left who could say. All of them become part of the new state, because losing an acknowledged write is worse
//! than keeping one whose client was never answered.
//!
//! What only the lost disks held is lost. That includes acknowledged writes, unless the survivors are a quorum.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::membership;
use super::replica::Replica;
use super::start::Beginning;
use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::env::Disk;
use crate::error::Error;
use crate::machine::StateMachine;
use crate::node::Damage;
use crate::types::{Entry, EntryKind, LogIndex, NodeId, SnapshotId, Term};

/// The state and the log of a member that does not run.
pub struct Survivor<M> {
    /// As of the snapshot.
    replica: Replica<M>,
    /// Behind the snapshot, contiguous.
    entries: Vec<Entry>,
    commit: LogIndex,
    damage: Option<Damage>,
}

/// How the log of a survivor compares with the longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The last index up to which both hold the same entries.
    pub common: LogIndex,
    /// Entries behind it that only the other survivor holds. None of them was acknowledged, as far as the
    /// two logs are whole.
    pub discarded: u64,
}

impl<M: StateMachine> Survivor<M> {
    /// Reads a member from its disk, and changes nothing there. `None`: it holds no state, as it was never
    /// founded or has lost its snapshot.
    ///
    /// # Errors
    /// When the disk cannot be read, or holds what a newer version wrote.
    pub fn read(
        params: &M::Params,
        config: &Config,
        disk: &mut dyn Disk,
    ) -> Result<Option<Survivor<M>>, Error> {
        let (beginning, _) = Beginning::<M>::read(params, config, disk)?;
        let Beginning { recovered, replica, present } = beginning;
        if present.is_none() {
            return Ok(None);
        }
        let first = recovered.entries.first().map(|entry| entry.index);
        assert!(
            first.is_none_or(|first| first == replica.applied().index + 1),
            "the log goes on behind the snapshot"
        );
        let commit = recovered.hard_state.commit.max(replica.applied().index);
        let damage = recovered.damage;
        let mut survivor = Survivor { replica, entries: recovered.entries, commit, damage };
        survivor.commit = survivor.commit.min(survivor.last().index);
        Ok(Some(survivor))
    }

    /// The snapshot from which its log goes on.
    #[must_use]
    pub fn snapshot(&self) -> SnapshotId {
        self.replica.applied()
    }

    /// The end of its log.
    #[must_use]
    pub fn last(&self) -> SnapshotId {
        let last = self.entries.last();
        last.map_or(self.snapshot(), |entry| SnapshotId { index: entry.index, term: entry.term })
    }

    /// The last entry that it knows to be committed. More may be.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// What of its log or state is damaged, if anything.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The term of the entry at `index`; `None` if it is not known (any more).
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let SnapshotId { index: base, term } = self.snapshot();
        match index.checked_sub(base)? {
            0 => Some(term),
            behind => self.entries.get(behind as usize - 1).map(|entry| entry.term),
        }
    }

    /// Returns the place of the survivor with the longest log, the first of equals; see the module. `None`
    /// without survivors.
    pub fn longest<'a>(survivors: impl IntoIterator<Item = &'a Survivor<M>>) -> Option<usize> {
        let rank = |survivor: &Survivor<M>| {
            let SnapshotId { index, term } = survivor.last();
            if planted(Bug::RecoveredByIndex) { (index, term) } else { (term, index) }
        };
        let mut longest = None;
        for (place, survivor) in survivors.into_iter().enumerate() {
            let rank = rank(survivor);
            if longest.is_none_or(|(_, best)| best < rank) {
                longest = Some((place, rank));
            }
        }
        longest.map(|(place, _)| place)
    }

    /// Compares its log with the longest one.
    #[must_use]
    pub fn compare(&self, longest: &Survivor<M>) -> Comparison {
        // Snapshots hold what is committed, and two logs never differ in that.
        let floor = self.snapshot().index.max(longest.snapshot().index);
        let end = self.last().index.min(longest.last().index);
        let same = |index: &LogIndex| self.term_at(*index) == longest.term_at(*index);
        let common = (floor..=end).rev().find(same).unwrap_or(floor.min(end));
        Comparison { common, discarded: self.last().index - common }
    }

    /// The voters of its cluster at the end of its log; of a change in progress, those after it.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let mut voters = self.replica.membership().voters().clone();
        for entry in self.entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
            let Some(change) = membership::membership_step(&entry.data) else { continue };
            voters.extend(change.voters);
            for id in change.removed.iter().chain(&change.learners) {
                voters.remove(id);
            }
        }
        voters
    }

    /// The state with which a new cluster goes on, as the pieces of a snapshot file: that of the snapshot, and
    /// all entries behind it.
    ///
    /// # Panics
    /// If an entry was written by a newer version of stormkv.
    pub fn into_backup(self) -> impl Iterator<Item = Bytes> + Send + use<M> {
        let Survivor { mut replica, entries, .. } = self;
        for entry in entries {
            let id = SnapshotId { index: entry.index, term: entry.term };
            match entry.kind {
                EntryKind::Normal => drop(replica.apply(id, &entry.data)),
                // The new cluster has other members.
                EntryKind::Membership => drop(replica.reconfigure(id, &Default::default(), None)),
            }
        }
        replica.snapshot().1
    }
}
