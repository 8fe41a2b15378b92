//! All checks that look at every event, behind one door, and the count of those that bit.
//!
//! A check whose antecedent never held proves nothing, so each counts how often it did.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use stormkv::api::Reconfigure;
use stormkv::env::DiskOp;
use stormkv::machine::Context;
use stormkv::node::{Applied, Membership, Proposal, Status, membership_change};
use stormkv::session::SessionLimits;
use stormkv::types::{EntryKind, LogIndex, NodeId, SessionId, SnapshotId, Term};
use stormkv::wire::Message;

use super::check::{Check, Checks};
use super::machine::MachineChecker;
use super::raft::RaftChecker;
use super::repeats::Repeats;
use super::view::View;
use crate::service::{Committed, Finding, Service, Shown};
use crate::words;

/// A broken promise: which checker noticed, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The name of the check that failed.
    pub check: &'static str,
    /// One sentence.
    pub message: String,
    /// The node that it is about, if that is not whoever the present event happens to.
    pub node: Option<NodeId>,
    /// The operations that prove it, as indices into the history; empty if none do.
    pub ops: Vec<usize>,
}

impl Broken {
    /// A promise that the node breaks to whom the present event happens.
    pub fn new(check: Check, message: String) -> Broken {
        Broken { check: check.name(), message, node: None, ops: Vec::new() }
    }

    /// The finding of a service's checker of this name.
    pub fn found(check: &'static str, finding: Finding) -> Broken {
        let Finding { message, node, ops } = finding;
        Broken { check, message, node, ops }
    }

    /// The same, about this node.
    pub fn at(self, node: NodeId) -> Broken {
        Broken { node: Some(node), ..self }
    }

    /// The same, proven by these operations.
    pub fn shown_by(self, ops: impl IntoIterator<Item = usize>) -> Broken {
        Broken { ops: ops.into_iter().collect(), ..self }
    }
}

/// Where a member is reached, from this entry on.
struct Address {
    index: LogIndex,
    address: String,
    acknowledged: bool,
}

/// The checks of every event. See the module.
pub struct Safety<S: Service> {
    pub(super) raft: RaftChecker,
    pub(super) machine: MachineChecker<S>,
    pub(super) repeats: Repeats,
    /// Sessions that a client has.
    pub(super) opened: BTreeSet<SessionId>,
    /// The newest committed change that gives a member an address, and whether the operator knows
    /// that it was made: one that is in the log may have been refused when it was applied.
    addresses: BTreeMap<NodeId, Address>,
    checks: Checks,
}

impl<S: Service> Safety<S> {
    /// For a cluster whose members keep this many sessions, and bytes of them.
    pub fn new(sessions: SessionLimits) -> Self {
        Safety {
            raft: RaftChecker::founded(SnapshotId { index: 1, term: 1 }, S::describe),
            machine: MachineChecker::new(sessions),
            repeats: Repeats::default(),
            opened: BTreeSet::new(),
            addresses: BTreeMap::new(),
            checks: Checks::new(),
        }
    }

    /// The same cluster, founded with a state in which these commands were applied.
    pub fn founded(mut self, id: SnapshotId, commands: &[(Context, Bytes)]) -> Self {
        self.raft = RaftChecker::founded(id, S::describe);
        self.machine.restore(commands);
        self
    }

    /// A node believes in these operations from now on.
    ///
    /// # Errors
    /// The invariant that they break, as with all functions here.
    pub fn queued(&mut self, id: NodeId, ops: &[DiskOp]) -> Result<(), Broken> {
        self.raft.queued(id, ops, &mut self.checks)?;
        for SnapshotId { index, term } in self.raft.ledger.take_fresh() {
            let log = self.raft.nodes.get(id).expect("it has just written");
            let version = self.raft.ledger.version(index, term).expect("it was just written");
            let (repeats, checks) = (&mut self.repeats, &mut self.checks);
            repeats.appended((id, log), index, version, &self.machine, checks)?;
        }
        Ok(())
    }

    /// The disk of a node has carried out an operation.
    pub fn executed(&mut self, id: NodeId, op: &DiskOp) {
        self.raft.executed(id, op);
    }

    /// A node is gone; `cache_survives` if only its process died.
    pub fn crashed(&mut self, id: NodeId, cache_survives: bool) {
        self.raft.crashed(id, cache_survives);
    }

    /// The disk of a node was damaged in silence.
    pub fn damaged(&mut self, id: NodeId) {
        self.raft.damaged(id);
    }

    /// A node was started again on its disk.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn recovered(&mut self, id: NodeId, node: &impl View, founds: bool) -> Result<(), Broken> {
        self.raft.recovered(id, node, founds, &mut self.checks)
    }

    /// A node sends a message.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn sending(&mut self, id: NodeId, to: NodeId, message: &Message) -> Result<(), Broken> {
        self.raft.sending(id, to, message, &mut self.checks)
    }

    /// A node has applied an entry or a snapshot.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn applied(&mut self, id: NodeId, applied: &Applied) -> Result<(), Broken> {
        self.raft.applied(id, applied, &mut self.checks)
    }

    /// A node has handled an event, and has this status now. Returns what is committed for the first
    /// time anywhere.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn after(
        &mut self,
        id: NodeId,
        node: &impl View,
        status: Status,
    ) -> Result<RangeInclusive<LogIndex>, Broken> {
        let fresh = self.raft.after(id, node, status, &mut self.checks)?;
        for index in fresh.clone() {
            if let Some(version) = self.raft.committed_version(index) {
                self.machine.commit(index, version, &mut self.checks)?;
                if version.kind == EntryKind::Membership
                    && let Some(change) = membership_change(&version.data)
                {
                    let addresses = change.addresses.into_iter().map(|(member, address)| {
                        (member, Address { index, address, acknowledged: false })
                    });
                    self.addresses.extend(addresses);
                }
            }
        }
        Ok(fresh)
    }

    /// A client was told that its command was applied at `index` with this response.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn acknowledged(
        &mut self,
        session: SessionId,
        number: u64,
        index: LogIndex,
        response: &[u8],
    ) -> Result<(), Broken> {
        self.machine.acknowledged(session, number, index, response, &mut self.checks)?;
        // A retry whose outcome is known is answered without an entry of its own, as of an index at
        // which the state reflects the command.
        let reflects = self.machine.took_effect(session, number).is_some_and(|at| at < index);
        if reflects && index <= self.commit() {
            return Ok(());
        }
        self.stands(
            index,
            &format!("command {number} of session {}", session.0),
            |found| matches!(found, Proposal::Command(Some(at), _) if at == (session, number)),
        )
    }

    /// A client was told that its command without a session was applied at `index`.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn acknowledged_loose(
        &mut self,
        command: &[u8],
        index: LogIndex,
        response: &[u8],
    ) -> Result<(), Broken> {
        let what = S::describe(Shown::Command(command));
        self.stands(index, &what, |found| found == Proposal::Command(None, command))?;
        self.machine.acknowledged_loose(&what, index, response, &mut self.checks)
    }

    /// A client was told that its command without a session was applied at `index`, and that there was
    /// no room for the response of so many bytes.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn not_kept_loose(
        &mut self,
        command: &[u8],
        index: LogIndex,
        bytes: u64,
    ) -> Result<(), Broken> {
        let what = S::describe(Shown::Command(command));
        self.stands(index, &what, |found| found == Proposal::Command(None, command))?;
        self.machine.not_kept_loose(&what, index, bytes, &mut self.checks)
    }

    /// The commands without a session that have changed something, in log order.
    pub fn loose_effects(&self) -> impl Iterator<Item = (LogIndex, &Bytes)> {
        self.machine.loose_effects()
    }

    /// A client was told that its session was opened: an entry of this index must have done so, and
    /// for nobody else.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn opened(&mut self, session: SessionId) -> Result<(), Broken> {
        let what = "a request for a session";
        self.stands(session.0, what, |found| found == Proposal::OpenSession)?;
        if self.opened.insert(session) {
            return Ok(());
        }
        let message = format!("session {} was given to two clients", session.0);
        Err(Broken::new(Check::AnswerIndex, message))
    }

    /// The operator was told that this change was made at `index`.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn reconfigured(&mut self, index: LogIndex, change: &Reconfigure) -> Result<(), Broken> {
        self.checks.hit(Check::AnswerIndex);
        let entry = self.raft.committed_version(index);
        let entry = entry.filter(|version| version.kind == EntryKind::Membership);
        let mut asked = change.clone();
        for ids in [&mut asked.voters, &mut asked.learners, &mut asked.removed] {
            ids.sort_unstable();
        }
        if entry.and_then(|version| membership_change(&version.data)) == Some(asked) {
            for address in self.addresses.values_mut().filter(|address| address.index == index) {
                address.acknowledged = true;
            }
            return Ok(());
        }
        let message = format!(
            "a change of the membership was answered as made at entry {index}, which {}",
            if self.raft.committed_version(index).is_some() {
                "is another one"
            } else {
                "is not committed"
            }
        );
        Err(Broken::new(Check::AnswerIndex, message))
    }

    /// The committed entry at `index` must be `what` a client was told that it is.
    fn stands(
        &mut self,
        index: LogIndex,
        what: &str,
        fits: impl FnOnce(Proposal<'_>) -> bool,
    ) -> Result<(), Broken> {
        self.checks.hit(Check::AnswerIndex);
        let version = self.raft.committed_version(index);
        if version.and_then(|version| Proposal::decode(&version.data)).is_some_and(fits) {
            return Ok(());
        }
        let found = match version {
            None => "is not committed".to_owned(),
            Some(version) => {
                format!("says `{}`", words::entry(S::describe, version.kind, &version.data))
            }
        };
        let message = format!("{what} was answered as applied at entry {index}, which {found}");
        Err(Broken::new(Check::AnswerIndex, message))
    }

    /// A client was told that its command was applied at `index`, and that the response of so many
    /// bytes was not kept.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn not_kept(
        &mut self,
        session: SessionId,
        number: u64,
        index: LogIndex,
        bytes: u64,
    ) -> Result<(), Broken> {
        self.machine.not_kept(session, number, index, bytes, &mut self.checks)
    }

    /// So many attempts at a command were made, and so many of them refused before they were put
    /// into any log.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn refused(
        &mut self,
        session: SessionId,
        number: u64,
        attempts: u32,
        refused: u32,
    ) -> Result<(), Broken> {
        let ledger = &self.raft.ledger;
        if let Some(at) = self.repeats.committed_though_refused(session, number, ledger) {
            let message = format!(
                "all attempts at command {number} of session {} were refused for certain when \
                 entry {at} held it already, yet that entry is committed",
                session.0
            );
            return Err(Broken::new(Check::Refusal, message));
        }
        self.machine.refused(session, number, attempts, refused, &mut self.checks)
    }

    /// All attempts at a command so far were refused for certain, and another one is made.
    pub fn all_refused(&mut self, session: SessionId, number: u64) {
        self.repeats.all_refused(session, number);
    }

    /// A query was answered from the state at `index`; `floor` was committed when it was sent.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn read(&mut self, id: NodeId, index: LogIndex, floor: LogIndex) -> Result<(), Broken> {
        self.checks.hit(Check::ReadIndex);
        if index >= floor {
            return Ok(());
        }
        let what = self.raft.what(floor).map_or_else(String::new, |what| format!(" ({what})"));
        let message = format!(
            "{id} answered a query from its state as of entry {index}, although entry \
             {floor}{what} was committed before the query was sent"
        );
        Err(Broken::new(Check::ReadIndex, message))
    }

    /// A node has answered a query as of `index`; it has applied everything up to `applied`.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn queried(
        &mut self,
        id: NodeId,
        query: &[u8],
        (index, applied): (LogIndex, LogIndex),
        response: &[u8],
    ) -> Result<(), Broken> {
        self.checks.hit(Check::AnswerIndex);
        if index > applied {
            let message = format!(
                "{id} answered a query as of entry {index}, but has applied only those up to \
                 {applied}"
            );
            return Err(Broken::new(Check::AnswerIndex, message));
        }
        self.machine.queried(id, query, index, response, &mut self.checks)
    }

    /// A node's state must be what the reference model makes of the committed log.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn content(&mut self, id: NodeId, machine: &S::Machine) -> Result<(), Broken> {
        self.machine.content(id, machine, &mut self.checks)
    }

    /// A node that has applied all that is committed goes by this membership: it must know each
    /// member's newest address, and no two of them may have the same one.
    ///
    /// # Errors
    /// As [`queued`](Self::queued).
    pub fn addresses(&mut self, id: NodeId, membership: &Membership) -> Result<(), Broken> {
        for (member, Address { index, address, .. }) in
            self.addresses.iter().filter(|(_, address)| address.acknowledged)
        {
            let known = membership.addresses().get(member);
            if !membership.contains(*member) {
                continue;
            }
            self.checks.hit(Check::Addresses);
            if known != Some(address) {
                let message = format!(
                    "{id} believes that {member} is at {known:?}, but it moved to {address} at entry \
                     {index}"
                );
                return Err(Broken::new(Check::Addresses, message));
            }
        }
        let mut taken: BTreeMap<&str, NodeId> = BTreeMap::new();
        for (member, address) in membership.addresses() {
            if let Some(other) = taken.insert(address, *member) {
                let message =
                    format!("{id} believes that {other} and {member} both are at {address}");
                return Err(Broken::new(Check::Addresses, message));
            }
        }
        Ok(())
    }

    /// Where each command took effect, in log order: index, session, number.
    pub fn effects(&self) -> &[(LogIndex, SessionId, u64)] {
        self.machine.effects()
    }

    /// The last entry that a crash cannot take from a node; 0 for one that was never seen.
    pub fn durable(&self, id: NodeId) -> LogIndex {
        self.raft.nodes.get(id).map_or(0, |node| node.shadow.durable.last().0.index)
    }

    /// The last index that is committed anywhere.
    pub fn commit(&self) -> LogIndex {
        self.raft.ledger.commit()
    }

    /// Returns the term of the entry that is committed at this index, if it is known.
    pub fn committed_term(&self, index: LogIndex) -> Option<Term> {
        self.raft.ledger.committed(index).map(|(term, ..)| term)
    }

    /// Returns the term of the command that is committed at this index, if it is one.
    pub fn committed_command(&self, index: LogIndex) -> Option<Term> {
        let version = self.raft.committed_version(index)?;
        let is_command = version.kind == EntryKind::Normal && !version.data.is_empty();
        self.raft.ledger.committed(index).filter(|_| is_command).map(|(term, ..)| term)
    }

    /// Returns the command that is committed at this index and took effect there, if it is one.
    pub fn effect(&self, index: LogIndex) -> Option<Committed<'_>> {
        let version = self.raft.committed_version(index)?;
        if version.kind != EntryKind::Normal {
            return None;
        }
        let Proposal::Command(session, command) = Proposal::decode(&version.data)? else {
            return None;
        };
        let is_first = session.is_none_or(|(session, number)| {
            self.machine.took_effect(session, number) == Some(index)
        });
        is_first.then_some(Committed { index, session, command })
    }

    /// Whether a change of the membership is committed at this index.
    pub fn is_change(&self, index: LogIndex) -> bool {
        let version = self.raft.committed_version(index);
        version.is_some_and(|version| version.kind == EntryKind::Membership)
    }

    /// The changes of the membership that were ever written behind `index`, committed or not.
    pub fn changes_behind(&self, index: LogIndex) -> impl Iterator<Item = &Bytes> {
        self.raft.ledger.changes_behind(index)
    }

    /// How often a node replaced entries of its log, and how often more than one at once.
    pub fn truncations(&self) -> (u64, u64) {
        self.raft.truncations
    }

    /// Counts a check that is made elsewhere.
    pub fn count(&mut self, check: Check, times: u64) {
        self.checks.add(check, times);
    }

    /// How often each check bit, those that never did included.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.checks.counts()
    }
}
