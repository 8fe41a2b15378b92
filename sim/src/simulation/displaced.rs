//! Displaced proposals: commands that a new leader lacks, and that are committed after all.
//!
//! A leader that answers such a command as failed, or proposes it again, makes it take effect twice or
//! against its answer. It takes a leader with a command that only few have, another one without it that
//! replicates nothing, and then one that has it. Runs that get there are counted.

use crate::service::Service;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use stormkv::types::{LogIndex, NodeId, Term};

use super::Simulation;

/// Entries that are not committed and that some leader lacked when it was elected, by index and term.
#[derive(Debug, Default)]
pub(super) struct Displaced(BTreeSet<(LogIndex, Term)>);

impl<S: Service> Simulation<'_, S> {
    /// Notes what others have and a new leader lacks.
    pub(super) fn note_displaced(&mut self, leader: NodeId) {
        let Some(node) = self.cluster.node(leader) else { return };
        let commit = self.safety.commit();
        let mut found = Vec::new();
        for other in self.cluster.ids().into_iter().filter_map(|id| self.cluster.node(id)) {
            let lacked = (commit + 1..=other.status().last.index)
                .filter_map(|index| Some((index, other.term_at(index)?)))
                .filter(|(index, term)| node.term_at(*index) != Some(*term));
            found.extend(lacked);
        }
        self.displaced.0.extend(found);
    }

    /// These entries are committed.
    pub(super) fn note_commits(&mut self, fresh: Option<RangeInclusive<LogIndex>>) {
        let Some(fresh) = fresh.filter(|_| !self.displaced.0.is_empty()) else { return };
        let end = *fresh.end();
        for index in fresh {
            let term = self.safety.committed_command(index);
            if term.is_some_and(|term| self.displaced.0.contains(&(index, term))) {
                self.reach("displaced-proposal-committed");
            }
        }
        self.displaced.0 = self.displaced.0.split_off(&(end + 1, 0));
    }
}
