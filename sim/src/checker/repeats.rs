//! A leader does not append a command that it has already.
//!
//! A client in doubt sends its command again, with the same session and number. Both copies in the
//! log are harmless to the state, but each costs a write on every member; under overload, when
//! most requests are repeated, the copies are all that the cluster works on. A leader knows better
//! in two cases:
//!
//! - a copy stands in its own log and is not applied: whatever becomes of that entry is the answer;
//! - it has applied the command, and its session table holds the response.
//!
//! What only another member holds a leader cannot see, and a command that was not applied because
//! its session was gone has no response; neither is a fault.

use rustc_hash::FxHashMap;
use stormkv::node::Proposal;
use stormkv::types::{EntryKind, LogIndex, NodeId, SessionId, Term};

use super::ledger::{Ledger, Version};
use super::machine::MachineChecker;
use super::raft::Watched;
use super::{Broken, Check, Checks};
use crate::service::Service;
use crate::words;

/// A copy of a command: index, term and chain hash of its entry.
type Copy = (LogIndex, Term, u64);

/// Where each command of a session was ever appended. See the module.
#[derive(Default)]
pub(super) struct Repeats {
    copies: FxHashMap<(SessionId, u64), Vec<Copy>>,
    /// Copies of attempts that were all refused for certain: they must never be committed.
    condemned: FxHashMap<(SessionId, u64), Vec<Copy>>,
}

impl Repeats {
    /// `leader` has appended an entry that no log held before. It stands in `log` already.
    pub fn appended<S: Service>(
        &mut self,
        (leader, log): (NodeId, &Watched),
        index: LogIndex,
        version: &Version,
        machine: &MachineChecker<S>,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        if version.kind != EntryKind::Normal {
            return Ok(());
        }
        let decoded = Proposal::decode(&version.data);
        let Some(Proposal::Command(Some((session, number)), _)) = decoded else { return Ok(()) };
        let copies = self.copies.entry((session, number)).or_default();
        let found = (!copies.is_empty()).then(|| {
            checks.hit(Check::Repetition);
            let open = |&&(at, term, hash): &&Copy| {
                (log.applied + 1..index).contains(&at)
                    && log.shadow.written.at(at) == Some((term, hash))
            };
            let open = copies.iter().find(open).map(|&(index, term, _)| (index, term));
            (open, machine.effect(session, number).filter(|at| *at <= log.applied))
        });
        copies.push((index, version.term, version.hash));
        let why = match found {
            None | Some((None, None)) => return Ok(()),
            Some((Some((at, term)), _)) => {
                format!("entry {at}@{term} of its own log is the same command, and not applied yet")
            }
            Some((None, Some(at))) => {
                format!("it has applied the command (entry {at}) and its session has the response")
            }
        };
        let message = format!(
            "{leader} leads term {} and appends command {number} of session {} ({}) at entry \
             {index}, although {why}",
            version.term,
            session.0,
            words::entry(S::describe, version.kind, &version.data)
        );
        Err(Broken::new(Check::Repetition, message))
    }

    /// All attempts at a command so far were refused for certain: whatever copy of it there is by
    /// now must never be committed.
    pub fn all_refused(&mut self, session: SessionId, number: u64) {
        if let Some(copies) = self.copies.get(&(session, number)).filter(|c| !c.is_empty()) {
            self.condemned.insert((session, number), copies.clone());
        }
    }

    /// A copy of a command that is committed although it was refused for certain.
    pub fn committed_though_refused(
        &self,
        session: SessionId,
        number: u64,
        ledger: &Ledger,
    ) -> Option<LogIndex> {
        let is_committed = |&&(index, term, hash): &&Copy| {
            ledger.committed(index).is_some_and(|(t, h, _)| (t, h) == (term, hash))
        };
        let condemned = self.condemned.get(&(session, number))?;
        condemned.iter().find(is_committed).map(|(index, ..)| *index)
    }

    /// Forgets the copies before `index`.
    pub fn forget(&mut self, index: LogIndex) {
        self.condemned.clear();
        self.copies.retain(|_, copies| {
            copies.retain(|(at, ..)| *at >= index);
            !copies.is_empty()
        });
    }

    /// How many copies are remembered.
    pub fn kept(&self) -> usize {
        self.copies.values().map(Vec::len).sum()
    }
}
