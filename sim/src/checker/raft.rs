//! The invariants of Raft, checked at every event of every node.
//!
//! Each check is O(1), or O(members), because logs are compared by chain hashes and facts that may
//! be established only once (who leads a term, what is committed at an index) are kept for ever.
//! The checker watches what nodes write to their disks and send to each other, and what they
//! believe; it shares no code with them that could share a bug, except the record decoder.
//!
//! Left out: "VotesGranted", which does not hold (a vote may be repeated, and a candidate may have
//! lost its memory of votes that it got).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;
use stormkv::env::{DiskOp, FileName};
use stormkv::node::{Applied, Role, Status};
use stormkv::types::{LogIndex, NodeId, SnapshotId, Term};
use stormkv::wal::{Record, decode_records};
use stormkv::wire::{Kind, Message, RaftMessage};

use super::by_node::ByNode;
use super::ledger::{Ledger, Version};
use super::shadow::Step;
use super::tail::Tail;
use super::view::View;
use super::{Broken, Check, Checks};
use crate::service::Describe;

mod damage;
mod tell;
mod watched;

use damage::explains;
pub(super) use watched::Watched;

/// No index: nothing was committed.
const NOTHING: RangeInclusive<LogIndex> = RangeInclusive::new(1, 0);

/// The invariants of Raft over a whole cluster. See the module.
pub(super) struct RaftChecker {
    /// Describes commands in messages.
    pub(super) describe: Describe,
    pub(super) nodes: ByNode<Watched>,
    pub ledger: Ledger,
    pub(super) leader_of: BTreeMap<Term, NodeId>,
    /// Votes that left a node, by voter and term.
    pub(super) votes: FxHashMap<(NodeId, Term), NodeId>,
    /// The end of a candidate's log as it said itself, by candidate and term.
    pub(super) candidates: FxHashMap<(NodeId, Term), SnapshotId>,
    pub(super) pre_candidates: FxHashMap<(NodeId, Term), SnapshotId>,
    /// Digests of state and membership by applied index, and who was first.
    pub(super) digests: Tail<Option<(u64, u64, NodeId)>>,
    pub(super) max_term: Term,
    /// How often a node replaced entries of its log, and how often more than one.
    pub truncations: (u64, u64),
}

impl RaftChecker {
    /// For a cluster whose log begins there.
    pub fn founded(id: SnapshotId, describe: Describe) -> Self {
        RaftChecker {
            describe,
            nodes: ByNode::default(),
            ledger: Ledger::founded(id),
            leader_of: BTreeMap::new(),
            votes: FxHashMap::default(),
            candidates: FxHashMap::default(),
            pre_candidates: FxHashMap::default(),
            digests: Tail::behind(id.index as usize, []),
            max_term: 1,
            truncations: (0, 0),
        }
    }

    // ---- the disk ----

    /// A node has handed these operations to its driver: it believes in them from now on.
    pub fn queued(
        &mut self,
        id: NodeId,
        ops: &[DiskOp],
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let starting = self.nodes.get(id).is_none_or(|node| node.status.is_none());
        let fresh = if starting { self.skip_settling(id, ops) } else { ops };
        for op in fresh {
            let DiskOp::Write { file: FileName::Segment(_), data, .. } = op else { continue };
            let mut steps: Vec<Step> = Vec::new();
            for record in decode_records(data) {
                let record = record.map_err(|reason| {
                    let message = format!("{id} wrote a record that no restart can read: {reason}");
                    Broken::new(Check::WalFormat, message)
                })?;
                let end = steps.iter().rev().find_map(Step::end);
                steps.push(self.step(id, &record, end, checks)?);
            }
            self.nodes.of(id).shadow.queue(steps);
        }
        Ok(())
    }

    /// A start first makes durable what it has read, wherever that was, and writes some of it again
    /// for that; nothing of this is new to the checker. Returns what is: all from the first file
    /// on that the start creates.
    fn skip_settling<'o>(&mut self, id: NodeId, ops: &'o [DiskOp]) -> &'o [DiskOp] {
        let shadow = &mut self.nodes.of(id).shadow;
        let synced = ops.iter().find_map(|op| match op {
            DiskOp::Sync { file } => Some(*file),
            _ => None,
        });
        if let Some(file) = synced {
            shadow.settle_in(file);
        }
        let created = ops.iter().position(|op| matches!(op, DiskOp::Create { .. }));
        let (settling, fresh) = ops.split_at(created.unwrap_or(ops.len()));
        for op in settling {
            if matches!(op, DiskOp::Write { file: FileName::Segment(_), .. }) {
                shadow.queue(Vec::new());
            }
        }
        fresh
    }

    /// What a record says, checked against what everybody has written. `end` is where the records
    /// before it in the same write end.
    fn step(
        &mut self,
        id: NodeId,
        record: &Record,
        end: Option<(LogIndex, u64)>,
        checks: &mut Checks,
    ) -> Result<Step, Broken> {
        let snapshot = match record.snapshot {
            None => None,
            Some(snapshot) => Some((snapshot, snapshot_hash(&self.ledger, id, snapshot)?)),
        };
        let hard_state = record.hard_state;
        let Some(first) = record.entries.first().map(|entry| entry.index) else {
            return Ok(Step { hard_state, snapshot, first: 0, entries: Vec::new() });
        };
        let previous = match (end, snapshot) {
            (Some((index, hash)), _) if index + 1 == first => Some(hash),
            (_, Some((snapshot, hash))) if snapshot.index + 1 == first => Some(hash),
            _ => self.written_hash(id, first - 1),
        };
        let Some(mut previous) = previous else {
            let message = format!("{id} wrote entry {first} but its log holds no entry before it");
            return Err(Broken::new(Check::LogGap, message));
        };
        if self.nodes.get(id).is_some_and(Watched::leads) {
            checks.hit(Check::LeaderAppendOnly);
        }
        self.check_rewrite(id, first, hard_state.term, checks)?;
        let mut entries = Vec::with_capacity(record.entries.len());
        for entry in &record.entries {
            checks.hit(Check::LogMatching);
            previous = self.ledger.write(id, previous, entry).map_err(|other| {
                let message = format!(
                    "{id} wrote entry {}@{} with another payload or past than {other} did, although one leader made it",
                    entry.index, entry.term
                );
                Broken::new(Check::LogMatching, message)
            })?;
            entries.push((entry.term, previous));
        }
        Ok(Step { hard_state, snapshot, first, entries })
    }

    /// The chain hash of what a node has written at `index`.
    fn written_hash(&self, id: NodeId, index: LogIndex) -> Option<u64> {
        let (_, hash) = self.nodes.get(id)?.shadow.written.at(index)?;
        Some(hash)
    }

    /// Entries from `first` on are replaced: none of them may be one that this node knows to be
    /// committed, and a leader replaces nothing of its own.
    fn check_rewrite(
        &mut self,
        id: NodeId,
        first: LogIndex,
        term: Term,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let Some(node) = self.nodes.get(id) else { return Ok(()) };
        let (last, _) = node.shadow.written.last();
        if first > last.index {
            return Ok(());
        }
        checks.hit(Check::CommittedAppendOnly);
        self.truncations.0 += 1;
        self.truncations.1 += u64::from(last.index > first);
        let Some(status) = &node.status else { return Ok(()) };
        if first <= status.hard_state.commit {
            let message = format!(
                "{id} replaces entry {first} of its log, but knows that everything up to {} is \
                 committed",
                status.hard_state.commit
            );
            return Err(Broken::new(Check::CommittedAppendOnly, message));
        }
        // With a newer term in the same record it has lost its leadership first.
        if status.role == Role::Leader && status.hard_state.term == term {
            checks.hit(Check::LeaderAppendOnly);
            let message =
                format!("{id} leads term {term} and replaces entry {first} of its own log");
            return Err(Broken::new(Check::LeaderAppendOnly, message));
        }
        Ok(())
    }

    /// The disk has carried out `op` for a node.
    pub fn executed(&mut self, id: NodeId, op: &DiskOp) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        match op {
            DiskOp::Write { file: file @ FileName::Segment(_), .. } => node.shadow.executed(*file),
            DiskOp::Create { file, .. } => node.shadow.created(*file),
            DiskOp::Sync { file } => node.shadow.synced(*file),
            DiskOp::SyncDir => node.shadow.named(),
            _ => {}
        }
    }

    /// A node is gone: its process only, or its power too.
    pub fn crashed(&mut self, id: NodeId, killed: bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.shadow.crashed();
            node.status = None;
            node.killed = killed;
        }
    }

    /// A node is back. What it remembers must be explained by what was durable, plus some of what
    /// was on its way to the disk, in order; by nothing, if it `founds` its cluster. Call before the
    /// operations of its start are queued.
    pub fn recovered(
        &mut self,
        id: NodeId,
        found: &impl View,
        founds: bool,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let Some(node) = self.nodes.get_mut(id) else { return Ok(()) };
        checks.hit(Check::Durability);
        let status = found.status();
        let ledger = &self.ledger;
        let explained = node.shadow.recovered(node.killed, |image| {
            (!founds || image.is_blank()) && explains(image, found, &status, ledger)
        });
        node.applied = 0;
        if self.recovered_damaged(id, found, explained, checks)? {
            return Ok(());
        }
        let durable = &self.nodes.of(id).shadow.durable;
        let message = tell::forgotten(id, &status, durable);
        Err(Broken::new(Check::Durability, message))
    }

    // ---- messages ----

    /// A node sends a message: what it promises must be durable.
    pub fn sending(
        &mut self,
        id: NodeId,
        to: NodeId,
        message: &Message,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let Message::Raft(message) = message else { return Ok(()) };
        self.check_damaged_vote(id, to, message, checks)?;
        let Some(node) = self.nodes.get(id) else { return Ok(()) };
        let durable = &node.shadow.durable;
        let (durable_term, durable_vote) = (durable.term, durable.vote);
        let (durable_last, _) = durable.last();
        let term = message.term();
        let lie = |what: String| {
            Err(Broken::new(
                Check::PromiseDurability,
                format!("{id} tells {to} {what}, which a crash of {id} now would undo"),
            ))
        };
        let kind = message.kind();
        let grants = kind == Kind::VoteResp && !message.reject();
        let foretells = kind == Kind::PreVote || (kind == Kind::PreVoteResp && !message.reject());
        checks.hit(Check::PromiseDurability);
        if !foretells && term > durable_term {
            return lie(format!("that its term is {term} ({})", kind.name()));
        }
        if kind == Kind::Vote || grants {
            let vote = if grants { to } else { id };
            if durable_term == term && durable_vote != vote {
                return lie(format!("of its vote for {vote} in term {term}"));
            }
            self.check_vote(id, vote, message, checks)?;
        }
        // In a newer term the entries may have been replaced before they were durable; then the
        // message speaks to a leader that is deposed already.
        let claims = kind == Kind::AppendResp && !message.reject() && term == durable_term;
        if claims && message.index() > durable_last.index {
            return lie(format!("that it holds everything up to entry {}", message.index()));
        }
        Ok(())
    }

    fn check_vote(
        &mut self,
        id: NodeId,
        vote: NodeId,
        message: &RaftMessage,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let term = message.term();
        if vote == id {
            let end = SnapshotId { index: message.index(), term: message.log_term() };
            self.candidates.insert((id, term), end);
        }
        checks.hit(Check::OneVote);
        let first = *self.votes.entry((id, term)).or_insert(vote);
        if first != vote {
            let message =
                format!("{id} votes for {vote} in term {term}, but has voted for {first}");
            return Err(Broken::new(Check::OneVote, message));
        }
        Ok(())
    }

    // ---- the replicated state ----

    /// A node has applied an entry or a snapshot.
    pub fn applied(
        &mut self,
        id: NodeId,
        applied: &Applied,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let node = self.nodes.of(id);
        let index = applied.id.index;
        let expected =
            if applied.by_snapshot { index.max(node.applied + 1) } else { node.applied + 1 };
        checks.hit(Check::AppliedInOrder);
        if index != expected {
            let message = format!(
                "{id} applied entry {index} after entry {}: each must be applied once, in order",
                node.applied
            );
            return Err(Broken::new(Check::AppliedInOrder, message));
        }
        node.applied = index;
        let at = index as usize;
        self.digests.reach(at + 1, || None);
        let Some(known) = self.digests.get_mut(at) else {
            let message = format!("{id} applied entry {index}, which no log can hold any more");
            return Err(Broken::new(Check::AppliedInOrder, message));
        };
        let Some((state, membership, first)) = *known else {
            *known = Some((applied.digest, applied.membership, id));
            return Ok(());
        };
        if first != id {
            checks.hit(Check::StateHash);
        }
        if state != applied.digest {
            return Err(self.different_states(id, first, applied));
        }
        if membership != applied.membership {
            return Err(self.different_members(id, first, applied));
        }
        Ok(())
    }

    // ---- after each event ----

    /// Compares what a node believes after an event with what it believed before, and with what
    /// the cluster knows. Returns the indices that are committed for the first time, anywhere.
    pub fn after(
        &mut self,
        id: NodeId,
        node: &impl View,
        status: Status,
        checks: &mut Checks,
    ) -> Result<RangeInclusive<LogIndex>, Broken> {
        self.after_damage(id, node, checks)?;
        let watched = self.nodes.of(id);
        let before = watched.status.replace(status);
        // The membership is part of the applied state.
        if watched.membership_changed || before.is_none_or(|b| b.applied != status.applied) {
            watched.note_membership(node.membership());
        }
        self.max_term = self.max_term.max(status.hard_state.term);
        if let Some(before) = before {
            if before == status {
                self.check_progress(id, node, &status, checks)?;
                return Ok(NOTHING);
            }
            self.check_term(id, &before, &status, checks)?;
        }
        self.check_leader(id, before.as_ref(), &status, node, checks)?;
        self.check_progress(id, node, &status, checks)?;
        let fresh = self.check_commit(id, before.as_ref(), &status, node, checks)?;
        checks.hit(Check::AppliedCommitted);
        if status.applied.index > status.hard_state.commit {
            let message = format!(
                "{id} applied index {} but knows only {} to be committed",
                status.applied.index, status.hard_state.commit
            );
            return Err(Broken::new(Check::AppliedCommitted, message));
        }
        Ok(fresh)
    }

    fn check_term(
        &self,
        id: NodeId,
        before: &Status,
        now: &Status,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let (old, new) = (before.hard_state, now.hard_state);
        checks.hit(Check::MonotonicTerm);
        if new.term < old.term || new.commit < old.commit {
            let message = format!(
                "{id} went back from term {} and commit {} to term {} and commit {}",
                old.term, old.commit, new.term, new.commit
            );
            return Err(Broken::new(Check::MonotonicTerm, message));
        }
        if (new.term, new.vote) == (old.term, old.vote) || new.vote == NodeId(0) || new.vote == id {
            return Ok(());
        }
        if new.term == old.term && old.vote != NodeId(0) {
            let message = format!(
                "{id} changed its vote in term {} from {} to {}",
                new.term, old.vote, new.vote
            );
            return Err(Broken::new(Check::OneVote, message));
        }
        // Its log changed in the same flush, and before or after the vote is not to be seen.
        if before.last != now.last {
            return Ok(());
        }
        // A vote has just been given: the candidate's log must not end before the voter's.
        let Some(candidate) = self.candidates.get(&(new.vote, new.term)) else { return Ok(()) };
        checks.hit(Check::VotersCheck);
        if (candidate.term, candidate.index) < (before.last.term, before.last.index) {
            let message = format!(
                "{id} voted in term {} for {}, whose log ends at {}@{}, before its own at {}@{}",
                new.term,
                new.vote,
                candidate.index,
                candidate.term,
                before.last.index,
                before.last.term
            );
            return Err(Broken::new(Check::VotersCheck, message));
        }
        Ok(())
    }

    fn check_leader(
        &mut self,
        id: NodeId,
        before: Option<&Status>,
        now: &Status,
        node: &impl View,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let term = now.hard_state.term;
        let led = before.is_some_and(|b| b.role == Role::Leader && b.hard_state.term == term);
        if now.role != Role::Leader || led {
            return Ok(());
        }
        checks.hit(Check::ElectionSafety);
        let first = *self.leader_of.entry(term).or_insert(id);
        if first != id {
            let message = format!("{id} leads term {term}, but {first} was elected in it already");
            return Err(Broken::new(Check::ElectionSafety, message));
        }
        // Everything committed in earlier terms must be in the new leader's log.
        let last = self.ledger.last_committed();
        if last.term < term && last.index > now.first.saturating_sub(1) {
            checks.hit(Check::LeaderCompleteness);
            if node.term_at(last.index) != Some(last.term) {
                let message = format!(
                    "{id} leads term {term} without entry {}@{}, which is committed",
                    last.index, last.term
                );
                return Err(Broken::new(Check::LeaderCompleteness, message));
            }
        }
        Ok(())
    }

    fn check_progress(
        &self,
        id: NodeId,
        node: &impl View,
        status: &Status,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        if status.role != Role::Leader || status.hard_state.term < self.max_term {
            return Ok(());
        }
        for progress in node.progress() {
            checks.hit(Check::Progress);
            let durable = match self.nodes.get(progress.id) {
                Some(peer) => peer.shadow.durable.last().0.index,
                None => 0,
            };
            if progress.matched > durable {
                let message = format!(
                    "{id}, leader of term {}, believes that {} holds everything up to {}, but \
                     only {durable} is durable there",
                    status.hard_state.term, progress.id, progress.matched
                );
                return Err(Broken::new(Check::Progress, message));
            }
        }
        Ok(())
    }

    fn check_commit(
        &mut self,
        id: NodeId,
        before: Option<&Status>,
        now: &Status,
        node: &impl View,
        checks: &mut Checks,
    ) -> Result<RangeInclusive<LogIndex>, Broken> {
        let commit = now.hard_state.commit;
        let from = before.map_or(now.first, |before| before.hard_state.commit + 1).max(now.first);
        if from > commit {
            return Ok(NOTHING);
        }
        let leads = now.role == Role::Leader
            && before.is_some_and(|before| {
                before.role == Role::Leader && before.hard_state.term == now.hard_state.term
            });
        if leads {
            checks.hit(Check::CommitsOwnTerm);
            if node.term_at(commit) != Some(now.hard_state.term) {
                let message = format!(
                    "{id} leads term {} and committed entry {commit} of an earlier term directly: a \
                     later leader may still replace it",
                    now.hard_state.term
                );
                return Err(Broken::new(Check::CommitsOwnTerm, message));
            }
            self.check_quorum(id, commit, now.hard_state.term, checks)?;
        }
        let known = self.ledger.commit();
        for index in from..=commit {
            let term = node.term_at(index).unwrap_or(0);
            let Some(hash) = self.ledger.version(index, term).map(|version| version.hash) else {
                let message =
                    format!("{id} committed entry {index}@{term}, which nobody has ever written");
                return Err(Broken::new(Check::StateMachineSafety, message));
            };
            match self.ledger.committed(index) {
                None => self.ledger.push_committed(term, hash, id),
                Some((_, other, _)) if other == hash => checks.hit(Check::StateMachineSafety),
                Some((other, _, by)) => {
                    let message = format!(
                        "{id} committed entry {index}@{term}, but {by} committed {index}@{other}"
                    );
                    return Err(Broken::new(Check::StateMachineSafety, message));
                }
            }
        }
        Ok(known + 1..=self.ledger.commit())
    }

    /// What a leader commits must be durable on a quorum. A change of the membership may be applied
    /// in the same event, so either side of it will do.
    fn check_quorum(
        &self,
        id: NodeId,
        commit: LogIndex,
        term: Term,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::QuorumDurable);
        let holds = |peer: NodeId| {
            self.nodes.get(peer).is_some_and(|peer| {
                let durable = &peer.shadow.durable;
                commit <= durable.base().index
                    || durable.at(commit).is_some_and(|(found, _)| found == term)
                    || peer.wound.held(SnapshotId { index: commit, term })
            })
        };
        let Some(node) = self.nodes.get(id) else { return Ok(()) };
        let (before, now) = &node.membership;
        if before.is_quorum(holds) && !before.voters().is_empty() || now.is_quorum(holds) {
            return Ok(());
        }
        let holders: Vec<String> =
            self.nodes.ids().filter(|peer| holds(*peer)).map(|id| id.to_string()).collect();
        let message = format!(
            "{id} committed entry {commit}@{term}, which is durable only on {}: no quorum of {}",
            if holders.is_empty() { "no node".to_owned() } else { holders.join(", ") },
            now.voters().iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
        );
        Err(Broken::new(Check::QuorumDurable, message))
    }

    /// A committed entry: its version.
    pub fn committed_version(&self, index: LogIndex) -> Option<&Version> {
        let (term, ..) = self.ledger.committed(index)?;
        self.ledger.version(index, term)
    }
}

/// A snapshot must be a prefix of what is committed.
fn snapshot_hash(ledger: &Ledger, id: NodeId, snapshot: SnapshotId) -> Result<u64, Broken> {
    match ledger.committed(snapshot.index) {
        Some((term, hash, _)) if term == snapshot.term => Ok(hash),
        Some((term, ..)) => Err(Broken::new(
            Check::SnapshotPrefix,
            format!(
                "{id} has a snapshot up to {}@{}, but committed there is term {term}",
                snapshot.index, snapshot.term
            ),
        )),
        None => Err(Broken::new(
            Check::SnapshotPrefix,
            format!("{id} has a snapshot up to {}, which is not committed", snapshot.index),
        )),
    }
}
