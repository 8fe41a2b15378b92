//! Nothing that a node keeps may grow without an end: queues, log, snapshots, files.
//!
//! Each bound follows from the node's configuration, and the reason stands beside it. They hold
//! for ever, but some are loose: what clients and a stalled disk pile up is limited by counts of
//! requests, not by what a run usually needs. So the peaks are kept too, and a long run compares
//! its first with its last.

use std::collections::BTreeMap;

use stormkv::config::Config;
use stormkv::env::FileName;
use stormkv::node::{Load, Status};
use stormkv::types::NodeId;

use super::{Broken, Check};

/// What is bounded, in the order of [`Peaks`].
pub const BOUNDED: &[&str] = &[
    "arrived",
    "proposals",
    "forwards",
    "reads",
    "log-entries",
    "log-bytes",
    "uncovered-entries",
    "persisting-batches",
    "unsynced-bytes",
    "waiting-batches",
    "held-messages",
    "snapshots",
    "outgoing-snapshots",
    "snapshot-fetches",
    "incoming-snapshot-bytes",
    "storing-snapshot-bytes",
    "sessions",
    "session-bytes",
    "wal-segments",
    "snapshot-files",
    "partial-files",
    "segment-files",
    "disk-bytes",
];

const COUNT: usize = BOUNDED.len();
/// Where the kinds begin that are seen on the disk, not in the node.
const FILES: usize = COUNT - 4;

/// Members that a leader sends to, at most, in a cluster that begins with fewer: a plan has no more at
/// the same time.
const MOST_MEMBERS: u64 = 16;
/// Entries that leaders add by themselves before anything is committed again, at most.
const OWN_ENTRIES: u64 = 64;
/// Bytes of an entry in memory, at least.
const LEAST_ENTRY_BYTES: u64 = 16;
/// What a batch for the disk counts at least, in bytes.
const LEAST_BATCH_BYTES: u64 = 1 << 10;
/// Bytes of the largest value of a plan, with what stands around it in a record.
const MOST_ENTRY_BYTES: u64 = 24 << 10;

/// Keys of a plan, at most: few have large values where there are many.
const MOST_KEYS: u64 = 64;
/// Bytes of a session, with the longest response that is kept.
const MOST_SESSION_BYTES: u64 = 128 + 1024;

/// The most that a node was seen to keep of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks([u64; COUNT]);

impl Peaks {
    /// By name.
    pub fn named(&self) -> BTreeMap<&'static str, u64> {
        BOUNDED.iter().copied().zip(self.0).collect()
    }

    /// Raises each peak to that of `other`.
    pub fn merge(&mut self, other: &Peaks) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

/// The bounds of every node of a cluster with the same settings. See the module.
pub struct Bounds {
    limits: [u64; COUNT],
    peaks: Peaks,
}

impl Bounds {
    /// For nodes with these settings, of which there are `members` at the start.
    pub fn new(config: &Config, members: u32) -> Self {
        let pending = config.max_pending as u64;
        // A snapshot is due when so many entries are applied. While it is written, others
        // follow until the log is full: the time that a slow disk takes has no bound.
        let uncovered =
            (2 * config.snapshot_every + pending).max(2 * config.max_log_bytes / LEAST_ENTRY_BYTES);
        // Behind the snapshot some are kept; after it, those that are not committed. A leader takes
        // no more requests than are pending; its own entries come on top, one for each election
        // and each change of the membership that is not committed yet.
        let entries = uncovered + config.keep_entries + pending + OWN_ENTRIES;
        let sending = MOST_MEMBERS.max(members.into());
        // The newest, each that is being sent, a new one that replaces it, one that was refused.
        let snapshots = 3 + sending;
        // A large entry has a segment of its own; the one written to, and two spares.
        let segments = entries + 3;
        // A session keeps one response, and no long one.
        let session_bytes =
            config.max_session_bytes.min(config.sessions as u64 * MOST_SESSION_BYTES);
        // The state is a handful of keys, and the sessions.
        let state = MOST_KEYS * MOST_ENTRY_BYTES + session_bytes;
        // Up to the limit, and the batch that passes it. Votes, terms and snapshots do not wait for
        // room: as many small batches as there are appends on their way, and a state that is saved.
        let small = 2 * config.max_inflight as u64;
        let batch = config.max_message_bytes + MOST_ENTRY_BYTES;
        let unsynced = config.max_unsynced_bytes + batch + small * LEAST_BATCH_BYTES;
        let window = 4 * u64::from(config.chunk_bytes);
        // Up to the limit, the window that passes it, and one piece of the node's own snapshot.
        let storing = 4 * window + u64::from(config.piece_bytes);
        // Each counts as so many bytes at least.
        let batches = config.max_unsynced_bytes / LEAST_BATCH_BYTES + 1 + small;
        let segment = config.segment_bytes.max(MOST_ENTRY_BYTES);
        Bounds {
            limits: [
                // Taken up as soon as the node acts on its inputs.
                0,
                pending,
                pending,
                pending,
                entries,
                // Full at twice the limit, and the message that fills it.
                2 * config.max_log_bytes + batch,
                uncovered,
                batches,
                unsynced,
                batches,
                // Acknowledgements of appends, one per batch or more, and answers to candidates.
                4 * batches,
                snapshots,
                sending,
                // A read goes on when its transfer has ended; its answer is then dropped.
                2 * sending,
                window,
                storing,
                config.sessions as u64,
                session_bytes,
                segments,
                // Removals wait in the queue of the disk, or are undone by a crash and made again.
                snapshots + sending,
                // One that is saved, one that is received, and those of which a crash has undone the
                // removal, until the next start removes them again.
                8,
                segments + 2,
                segments * segment + (snapshots + sending + 4) * state,
            ],
            peaks: Peaks::default(),
        }
    }

    /// A node keeps this much after an event; `waiting` batches wait in its driver.
    ///
    /// # Errors
    /// The bound that does not hold.
    pub fn node(
        &mut self,
        id: NodeId,
        load: &Load,
        status: &Status,
        waiting: usize,
    ) -> Result<(), Broken> {
        let values = [
            load.arrived as u64,
            load.proposals as u64,
            load.forwards as u64,
            load.reads as u64,
            load.log_entries,
            load.log_bytes,
            status.uncovered(),
            load.persisting as u64,
            load.unsynced_bytes,
            waiting as u64,
            load.held as u64,
            load.snapshots as u64,
            load.outgoing as u64,
            load.fetches as u64,
            load.incoming_bytes,
            load.storing_bytes,
            load.sessions as u64,
            load.session_bytes,
            load.segments as u64,
        ];
        self.note(id, 0, &values)
    }

    /// A node has these files, of so many bytes together.
    ///
    /// # Errors
    /// As [`node`](Self::node).
    pub fn disk(
        &mut self,
        id: NodeId,
        files: impl Iterator<Item = FileName>,
        bytes: u64,
    ) -> Result<(), Broken> {
        let mut values = [0, 0, 0, bytes];
        for file in files {
            values[match file {
                FileName::Snapshot(..) => 0,
                FileName::Partial(..) => 1,
                FileName::Segment(_) => 2,
            }] += 1;
        }
        self.note(id, FILES, &values)
    }

    fn note(&mut self, id: NodeId, from: usize, values: &[u64]) -> Result<(), Broken> {
        for (at, &value) in (from..).zip(values) {
            if value > self.peaks.0[at] {
                self.peaks.0[at] = value;
                let limit = self.limits[at];
                if value > limit {
                    let message =
                        format!("{id} keeps {value} {}, but the bound is {limit}", BOUNDED[at]);
                    return Err(Broken::new(Check::Bounds, message));
                }
            }
        }
        Ok(())
    }

    /// The peaks so far.
    pub fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// The peaks since the last call; they begin anew.
    pub fn take_peaks(&mut self) -> Peaks {
        std::mem::take(&mut self.peaks)
    }
}

#[cfg(test)]
mod tests {
    use stormkv::node::Role;
    use stormkv::types::{HardState, SnapshotId};

    use super::*;

    fn bounds() -> Bounds {
        let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
        // With the default there is room for more segments than a test can name.
        config.max_log_bytes = 1 << 20;
        Bounds::new(&config, 3)
    }

    fn status(applied: u64) -> Status {
        Status {
            id: NodeId(1),
            role: Role::Follower,
            hard_state: HardState::default(),
            leader: None,
            applied: SnapshotId { index: applied, term: 1 },
            first: 1,
            last: SnapshotId { index: applied, term: 1 },
            snapshot: SnapshotId { index: 1, term: 1 },
        }
    }

    #[test]
    fn each_count_of_a_node_has_a_bound_that_breaks_and_is_named() {
        const MANY: usize = 1 << 40;
        let loads: [(&str, Load); 18] = [
            ("arrived", Load { arrived: 1, ..Load::default() }),
            ("proposals", Load { proposals: MANY, ..Load::default() }),
            ("forwards", Load { forwards: MANY, ..Load::default() }),
            ("reads", Load { reads: MANY, ..Load::default() }),
            ("log-entries", Load { log_entries: 1 << 40, ..Load::default() }),
            ("log-bytes", Load { log_bytes: 1 << 40, ..Load::default() }),
            ("persisting-batches", Load { persisting: MANY, ..Load::default() }),
            ("unsynced-bytes", Load { unsynced_bytes: 1 << 40, ..Load::default() }),
            ("held-messages", Load { held: MANY, ..Load::default() }),
            ("snapshots", Load { snapshots: MANY, ..Load::default() }),
            ("outgoing-snapshots", Load { outgoing: MANY, ..Load::default() }),
            ("snapshot-fetches", Load { fetches: MANY, ..Load::default() }),
            ("incoming-snapshot-bytes", Load { incoming_bytes: 1 << 40, ..Load::default() }),
            ("storing-snapshot-bytes", Load { storing_bytes: 1 << 40, ..Load::default() }),
            ("sessions", Load { sessions: MANY, ..Load::default() }),
            ("session-bytes", Load { session_bytes: 1 << 40, ..Load::default() }),
            ("wal-segments", Load { segments: MANY, ..Load::default() }),
            ("log-entries", Load { log_entries: 1 << 41, ..Load::default() }),
        ];
        let quiet = Load { log_entries: 100, segments: 2, sessions: 5, ..Load::default() };
        for (name, load) in loads {
            let mut bounds = bounds();
            bounds.node(NodeId(1), &quiet, &status(5), 1).expect("that is little");
            let broken = bounds.node(NodeId(1), &load, &status(5), 1).expect_err(name);
            assert_eq!(broken.check, "bounds");
            assert!(broken.message.contains(&format!(" {name}, ")), "{}", broken.message);
        }
        let broken =
            bounds().node(NodeId(1), &quiet, &status(1 << 40), 1).expect_err("no snapshot");
        assert!(broken.message.contains("uncovered-entries"), "{}", broken.message);
        let broken = bounds().node(NodeId(1), &quiet, &status(5), MANY).expect_err("a stuck disk");
        assert!(broken.message.contains("waiting-batches"), "{}", broken.message);
    }

    #[test]
    fn files_that_nobody_removes_break_their_bounds() {
        let snapshots: Vec<FileName> = (0..100).map(|at| FileName::Snapshot(at, 1)).collect();
        let partial: Vec<FileName> = (0..9).map(|at| FileName::Partial(at, 1)).collect();
        let segments: Vec<FileName> = (0..1_000_000).map(FileName::Segment).collect();
        for (name, files, bytes) in [
            ("snapshot-files", snapshots, 0),
            ("partial-files", partial, 0),
            ("segment-files", segments, 0),
            ("disk-bytes", Vec::new(), 1 << 50),
        ] {
            let mut bounds = bounds();
            bounds
                .disk(NodeId(1), [FileName::Segment(1)].into_iter(), 4096)
                .expect("that is little");
            let broken = bounds.disk(NodeId(1), files.into_iter(), bytes).expect_err(name);
            assert!(broken.message.contains(name), "{}", broken.message);
        }
    }

    #[test]
    fn peaks_are_the_most_of_each_kind() {
        let mut bounds = bounds();
        for reads in [3, 9, 4] {
            let load = Load { reads, ..Load::default() };
            bounds.node(NodeId(1), &load, &status(5), 0).expect("few");
        }
        let first = bounds.take_peaks();
        assert_eq!(first.named()["reads"], 9);
        assert_eq!(bounds.peaks().named()["reads"], 0, "they begin anew");
        let mut both = *bounds.peaks();
        both.merge(&first);
        assert_eq!(both, first);
    }
}
