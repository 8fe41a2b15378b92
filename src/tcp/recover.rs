//! Founds a new cluster with what the surviving disks of one hold that has lost its quorum for good.
//!
//! Everything that decides is in [`Survivor`]. Here the data directories are read, without changing them, and
//! compared; the new cluster is founded as from a backup, in a directory of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

use crate::config::Config;
use crate::machine::StateMachine;
use crate::node::Survivor;
use crate::tcp::directory::Survey;
use crate::tcp::identity::ClusterId;
use crate::tcp::server::ServerError;
use crate::types::{LogIndex, NodeId, SnapshotId};

/// What one data directory holds.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    node: NodeId,
    last: SnapshotId,
    commit: LogIndex,
    /// Entries that are not part of the longest log.
    discarded: u64,
    damage: Option<String>,
}

/// What a new cluster can be founded with. Its `Display` is a report for the operator.
pub struct Recovery {
    sources: Vec<Source>,
    /// The source with the longest log.
    chosen: usize,
    cluster: ClusterId,
    voters: BTreeSet<NodeId>,
    backup: Bytes,
}

impl Recovery {
    /// Reads the data directories of members with the machine `M`, of these parameters, that do not run. Blocks, and holds the
    /// state in memory.
    ///
    /// # Errors
    /// When one of them is in use, is none, or cannot be read; when they are of different clusters or of one
    /// member; and when none holds a state.
    pub fn read<M: StateMachine>(
        paths: &[PathBuf],
        params: &M::Params,
    ) -> Result<Recovery, ServerError> {
        let wrong = |message: String| Err(ServerError::Settings(message));
        let surveys: Result<Vec<Survey>, _> = paths.iter().map(|path| Survey::open(path)).collect();
        let surveys = surveys?;
        let clusters: BTreeSet<ClusterId> = surveys.iter().filter_map(Survey::cluster).collect();
        let clusters: Vec<ClusterId> = clusters.into_iter().collect();
        let [cluster] = clusters[..] else {
            let list: Vec<String> = clusters.iter().map(ToString::to_string).collect();
            return wrong(match list.len() {
                0 => "the directories belong to no cluster: their nodes have never joined one"
                    .to_owned(),
                _ => format!("the directories belong to different clusters: {}", list.join(", ")),
            });
        };
        for (at, survey) in surveys.iter().enumerate() {
            let earlier = surveys[..at].iter().find(|other| other.node() == survey.node());
            if let Some(twin) = earlier {
                return wrong(format!(
                    "{} and {} are both of node {}: name the newer one only",
                    twin.path().display(),
                    survey.path().display(),
                    survey.node().0
                ));
            }
        }
        let mut survivors: Vec<(Survey, Survivor<M>)> = Vec::new();
        for mut survey in surveys {
            let config = Config::new(survey.node(), Vec::new());
            let found = Survivor::read(params, &config, &mut survey).map_err(ServerError::Node)?;
            survivors.extend(found.map(|survivor| (survey, survivor)));
        }
        let Some(chosen) = Survivor::longest(survivors.iter().map(|(_, survivor)| survivor)) else {
            return wrong("none of the directories holds a state that can be read".to_owned());
        };
        let sources = survivors.iter().map(|(survey, survivor)| Source {
            path: survey.path().to_owned(),
            node: survey.node(),
            last: survivor.last(),
            commit: survivor.commit(),
            discarded: survivor.compare(&survivors[chosen].1).discarded,
            damage: survivor.damage().map(|damage| {
                format!("{} is damaged at byte {}: {}", damage.file, damage.offset, damage.reason)
            }),
        });
        let sources = sources.collect();
        let survivor = survivors.swap_remove(chosen).1;
        let voters = survivor.voters();
        let backup: Vec<u8> = survivor.into_backup().fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(&piece);
            all
        });
        Ok(Recovery { sources, chosen, cluster, voters, backup: backup.into() })
    }

    /// The state with which a new cluster begins: a snapshot file, to be
    /// [restored](super::restore()).
    #[must_use]
    pub fn backup(&self) -> Bytes {
        self.backup.clone()
    }

    fn committed(&self) -> LogIndex {
        let last = self.sources[self.chosen].last.index;
        self.sources.iter().map(|source| source.commit).max().unwrap_or(0).min(last)
    }

    /// Returns whether the survivors are a majority of the voters, so that nothing acknowledged is lost.
    fn is_quorum(&self) -> bool {
        let whole = self.sources.iter().filter(|source| source.damage.is_none());
        let survive = whole.filter(|source| self.voters.contains(&source.node)).count();
        survive > self.voters.len() / 2
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let voters: Vec<String> = self.voters.iter().map(|id| id.0.to_string()).collect();
        writeln!(f, "cluster {} with the voters {}", self.cluster, voters.join(", "))?;
        for (at, source) in self.sources.iter().enumerate() {
            let Source { path, node, last, commit, discarded, damage } = source;
            let role = if at == self.chosen { ", the longest log" } else { "" };
            writeln!(f, "\nnode {}{role}: {}", node.0, path.display())?;
            writeln!(
                f,
                "  log to entry {} of term {}, committed to {commit} at least",
                last.index, last.term
            )?;
            if *discarded > 0 {
                writeln!(
                    f,
                    "  {discarded} entries are not part of the longest log, and were never acknowledged"
                )?;
            }
            if let Some(damage) = damage {
                writeln!(f, "  {damage}")?;
            }
        }
        let (last, committed) = (self.sources[self.chosen].last.index, self.committed());
        writeln!(f, "\ncommitted       all up to entry {committed}: kept")?;
        if committed < last {
            writeln!(
                f,
                "uncertain       from entry {} to entry {last}: kept, though it may never have been acknowledged",
                committed + 1
            )?;
        }
        if self.is_quorum() {
            write!(f, "possibly lost   nothing that was acknowledged: these members are a quorum")
        } else {
            write!(
                f,
                "possibly lost   what was acknowledged behind entry {last} by members whose directories are \
                 not here"
            )
        }
    }
}
