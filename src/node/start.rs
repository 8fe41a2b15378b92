//! Starting a node: from what its disk holds, or as a founder of a new cluster.
//!
//! Whatever is read back may still sit in the operating system's cache only (after the mere death of
//! the process), so the first batch makes it durable again, and no promise leaves before that batch
//! is done.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb;
use tracing::{info, warn};

use super::Node;
use super::activity::Activity;
use super::backlog::Backlog;
use super::catch_up::Rounds;
use super::clock::ClusterClock;
use super::election::Raft;
use super::leave::Farewell;
use super::membership::Membership;
use super::read::Reads;
use super::ready::{Then, to_raft};
use super::repair::Repair;
use super::replica::{Proposal, Replica};
use super::snapshot::{self, Snapshots};
use super::space::{Space, segment_bytes};
use super::waiting::Waiting;
use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::env::{Disk, DiskOp, FileName};
use crate::error::Error;
use crate::log::Log;
use crate::machine::StateMachine;
use crate::types::{Entry, EntryKind, HardState, NodeId, SnapshotId, Ticket};
use crate::wal::{Damage, Recovered, Wal, WalConfig};

/// The state in which a cluster is founded: as if entry 1 of term 1 had made the founders members.
const FOUNDED: SnapshotId = SnapshotId { index: 1, term: 1 };

/// What was found, or made, before raft starts.
pub(super) struct Beginning<M> {
    pub recovered: Recovered,
    pub replica: Replica<M>,
    /// The durable snapshot and its size.
    pub present: Option<(SnapshotId, u64)>,
}

impl<M: StateMachine> Node<M> {
    /// Starts the member that `config` describes on `disk`, with a machine of default parameters. Its
    /// first outputs are ready at once.
    ///
    /// # Errors
    /// When the configuration makes no sense, the disk cannot be read, or what it holds is damaged
    /// or was written by a newer version.
    pub fn start(config: Config, disk: &mut dyn Disk) -> Result<Self, Error> {
        Self::start_with(M::Params::default(), config, disk)
    }

    /// The same, with a machine of these parameters.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        params: M::Params,
        config: Config,
        disk: &mut dyn Disk,
    ) -> Result<Self, Error> {
        config.validate()?;
        let (mut beginning, membership) = Beginning::read(&params, &config, disk)?;
        refuse_hopeless(&config, &beginning.recovered, &membership)?;
        let mut ops = std::mem::take(&mut beginning.recovered.ops);
        let founds = beginning.is_blank() && !config.founders.is_empty();
        let founding = if founds { Some(founding(&params, &config)?) } else { None };
        let founded = founding.as_ref().map_or(FOUNDED, Replica::applied);
        let mut left = find_leftovers(&beginning, founded, disk)?;
        if let Some(replica) = founding {
            // It writes its first snapshot in the queue of the log, perhaps to the same file.
            ops.extend(left.partial.drain(..).map(|file| DiskOp::Remove { file }));
            beginning.found(replica, &mut ops);
        }
        let space = Space::new(disk.free());
        Ok(Self::build(params, config, beginning, left, space, ops))
    }

    fn build(
        params: M::Params,
        config: Config,
        beginning: Beginning<M>,
        left: Leftovers,
        space: Space,
        ops: Vec<DiskOp>,
    ) -> Self {
        let Beginning { recovered, replica, present } = beginning;
        let base = present.map(|(id, _)| id).unwrap_or_default();
        let mut hard_state = recovered.hard_state;
        // The commit index is persisted only on occasion, the snapshot always.
        if !planted(Bug::SnapshotInTwoSteps) {
            hard_state.commit = hard_state.commit.max(base.index);
        }
        let stamp = |entry: &Entry| match entry.kind {
            EntryKind::Normal => Proposal::stamp(&entry.data),
            EntryKind::Membership => None,
        };
        let newest = recovered.entries.iter().rev().find_map(stamp);
        let clock = ClusterClock::new(config.tick, newest.unwrap_or_else(|| replica.time()));
        let log = Log::new(
            base,
            if planted(Bug::MembershipWithoutApplied) {
                let known =
                    recovered.entries.iter().filter(|entry| entry.index <= hard_state.commit);
                super::membership::after(replica.membership(), known)
            } else {
                replica.membership().to_raft()
            },
            eraftpb::HardState {
                term: hard_state.term,
                vote: hard_state.vote.0,
                commit: hard_state.commit,
                ..Default::default()
            },
            recovered.entries.into_iter().map(to_raft).collect(),
        );
        let torn = recovered.torn.is_some();
        let found = recovered.damage;
        if let Some(damage) = &found {
            let Damage { file, offset, reason, floor } = damage;
            warn!(
                id = %config.id,
                %file,
                offset,
                reason,
                floor = floor.index,
                floor_term = floor.term,
                "damaged: this member needs a leader that gives it back what it has lost"
            );
        }
        let lacks = recovered.wal.floor().is_some();
        info!(
            id = %config.id,
            term = hard_state.term,
            snapshot = base.index,
            last = log.last(),
            torn,
            "starting"
        );
        let raft = Raft::new(&config, log, base.index).expect("the configuration was validated");
        let mut node = Node {
            raft,
            wal: recovered.wal,
            replica,
            now: 0,
            next_id: config.incarnation.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            arrived: Vec::new(),
            outputs: Vec::new(),
            stopped: None,
            farewell: Farewell::default(),
            submitted: Ticket(0),
            done: Ticket(0),
            vow: Ticket(1),
            membership_vow: Ticket(1),
            written: hard_state,
            persisting: VecDeque::new(),
            unsynced: 0,
            admitted: 0,
            disk_progress_at: 0,
            installing: false,
            clock,
            backlog: Backlog::default(),
            waiting: Waiting::default(),
            forwards: BTreeMap::new(),
            reads: Reads::default(),
            rounds: Rounds::default(),
            activity: Activity::default(),
            snapshots: Snapshots::new(present, left.complete),
            space,
            params,
            torn,
            repair: found.clone().filter(|_| lacks).map(Repair::new),
            found,
            config,
        };
        // Older snapshots may go when the log is durable that goes on from this one: until then a
        // power loss may bring back a log that does not.
        node.submit(ops, (base.index > 0).then_some(Then::Recorded(base)));
        node.remove_files(left.partial, 0);
        if base.index > 0 {
            node.report_applied(true);
        }
        node.consider_stepping_down();
        node.process();
        node
    }
}

impl<M: StateMachine> Beginning<M> {
    /// Reads what the disk holds. Also returns the membership as of the snapshot, even if only that is
    /// legible of it.
    pub fn read(
        params: &M::Params,
        config: &Config,
        disk: &mut dyn Disk,
    ) -> Result<(Self, Membership), Error> {
        let (mut restored, mut rotten) = (None, None);
        let mut check = |disk: &mut dyn Disk, id: SnapshotId| {
            let (replica, size) = restore(params, config, disk, id, &mut rotten)?;
            restored = Some((replica, size));
            Ok(())
        };
        let (usual, reserve) = (config.segment_bytes, config.reserve_bytes);
        let wal = WalConfig { segment_bytes: segment_bytes(usual, reserve, disk.free()) };
        let recovered = Wal::recover_with(disk, wal, &mut check)?;
        let mut membership = Membership::default();
        let (replica, present) = match (recovered.snapshot, restored) {
            (Some(id), Some((replica, size))) => {
                membership.clone_from(replica.membership());
                (replica, Some((id, size)))
            }
            (None, _) => {
                let blank = Membership::default();
                membership.clone_from(rotten.as_ref().unwrap_or(&blank));
                (Replica::new(params, config.session_limits(), blank, SnapshotId::default()), None)
            }
            (Some(_), None) => unreachable!("the log goes on from a snapshot that was restored"),
        };
        Ok((Beginning { recovered, replica, present }, membership))
    }

    /// Whether this disk has never taken part in a cluster.
    fn is_blank(&self) -> bool {
        let recovered = &self.recovered;
        recovered.damage.is_none()
            && recovered.snapshot.is_none()
            && recovered.entries.is_empty()
            && recovered.hard_state == HardState::default()
    }

    /// Founds a cluster with this state: it becomes a snapshot, the same on each founder.
    fn found(&mut self, replica: Replica<M>, ops: &mut Vec<DiskOp>) {
        self.replica = replica;
        let founded = self.replica.applied();
        let (_, writer) = self.replica.snapshot();
        let data: Bytes = writer.flatten().collect();
        let size = data.len() as u64;
        let file = snapshot::partial(founded);
        ops.push(DiskOp::Create { file, len: 0 });
        ops.push(DiskOp::Write { file, offset: 0, data });
        snapshot::finish(founded, ops);
        let hard_state = HardState { term: founded.term, vote: NodeId(0), commit: founded.index };
        self.recovered.wal.append(hard_state, Some(founded), &[], ops);
        self.recovered.hard_state = hard_state;
        self.present = Some((founded, size));
    }
}

/// The state of a cluster that is founded now: of the founders, with what the configuration gives
/// them.
fn founding<M: StateMachine>(params: &M::Params, config: &Config) -> Result<Replica<M>, Error> {
    let membership = Membership::founded_by(config);
    let Some(state) = &config.founding_state else {
        return Ok(Replica::new(params, config.session_limits(), membership, FOUNDED));
    };
    let named = snapshot::complete(FOUNDED);
    let old = Replica::restore(params, config.session_limits(), named, state)
        .map_err(|error| Error::Config(format!("the founding state cannot be read: {error}")))?;
    Ok(old.refounded(membership, config.founding_gap))
}

/// Restores the state from a snapshot file. Of a damaged one the membership may still be legible;
/// the newest such is left in `rotten`.
fn restore<M: StateMachine>(
    params: &M::Params,
    config: &Config,
    disk: &mut dyn Disk,
    id: SnapshotId,
    rotten: &mut Option<Membership>,
) -> Result<(Replica<M>, u64), Error> {
    let file = snapshot::complete(id);
    let corrupt = |reason: &str| Error::Corrupt { file, offset: 0, reason: reason.to_owned() };
    if !disk.list()?.contains(&file) {
        return Err(corrupt("the file is missing, though the log goes on from it"));
    }
    let bytes = disk.load(file)?;
    let restored = Replica::restore(params, config.session_limits(), file, &bytes);
    if let (Err(_), None) = (&restored, &rotten) {
        *rotten = crate::snapshot::legible_head(&bytes).map(|head| head.membership);
    }
    let replica = restored?;
    if replica.applied() != id {
        return Err(corrupt("it holds another snapshot than its name says"));
    }
    Ok((replica, bytes.len() as u64))
}

/// Refuses a damaged member that is all there is of its cluster, before anything is changed: nobody
/// could give it back what it has lost.
fn refuse_hopeless(
    config: &Config,
    recovered: &Recovered,
    membership: &Membership,
) -> Result<(), Error> {
    let me = config.id;
    let alone =
        membership.votes(me) && membership.is_quorum(|id| id == me) && !recovered.reconfigures;
    // Sometimes nothing is lost that counts.
    let lacks = recovered.newly_damaged && recovered.wal.floor().is_some();
    match &recovered.damage {
        Some(Damage { file, offset, reason, .. }) if lacks && alone => {
            let (file, offset, reason) = (*file, *offset, reason.clone());
            Err(Error::Corrupt { file, offset, reason })
        }
        _ => Ok(()),
    }
}

/// Snapshots that a crash left behind, and that the log does not name.
#[derive(Default)]
struct Leftovers {
    /// Those of a damaged member may be the last of what it had.
    complete: Vec<SnapshotId>,
    /// Files that were being written.
    partial: Vec<FileName>,
}

fn find_leftovers<M: StateMachine>(
    beginning: &Beginning<M>,
    founded: SnapshotId,
    disk: &mut dyn Disk,
) -> Result<Leftovers, Error> {
    let mut files = disk.list()?;
    files.sort_unstable();
    let mut left = Leftovers::default();
    for file in files {
        match file {
            FileName::Segment(_) => {}
            FileName::Partial(..) => left.partial.push(file),
            FileName::Snapshot(index, term) => {
                let id = SnapshotId { index, term };
                // A founder may have crashed before its first record was durable. Any other
                // snapshot proves that there was a log, and promises in it.
                if beginning.is_blank() && id != founded {
                    let reason = "the write-ahead log that should name it is gone".to_owned();
                    return Err(Error::Corrupt { file, offset: 0, reason });
                }
                let present = beginning.present.is_some_and(|(present, _)| id == present);
                left.complete.extend((!present).then_some(id));
            }
        }
    }
    Ok(left)
}
