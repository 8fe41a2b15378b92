//! What the committed log means: a reference of the sessions, and the model of the service, run once over
//! it.
//!
//! The reference is written anew, with plain maps, so that it shares no bug with the node's session
//! table. It says where each command took effect and what its client must be
//! told, and what every replica must hold in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use stormkv::machine::Context;
use stormkv::node::Proposal;
use stormkv::session::SessionLimits;
use stormkv::types::{EntryKind, LogIndex, NodeId, SessionId};

use super::ledger::Version;
use super::{Broken, Check, Checks};
use crate::service::{Model, Service, Shown};

/// The longest response that a node keeps, in bytes.
const MOST_KEPT: usize = 1024;
/// Bytes that a session counts beside the response that it keeps.
const SESSION_BYTES: u64 = 128;

pub(super) struct MachineChecker<S: Service> {
    limits: SessionLimits,
    /// Last use, newest number, and bytes.
    pub(super) sessions: BTreeMap<SessionId, (LogIndex, u64, u64)>,
    pub(super) model: S::Model,
    /// The cluster's time as of the last committed entry.
    time: Duration,
    /// Where a command took effect, and its response.
    pub(super) responses: FxHashMap<(SessionId, u64), (LogIndex, Bytes)>,
    pub(super) effects: Vec<(LogIndex, SessionId, u64)>,
    /// The commands without a session, by index.
    pub(super) loose: BTreeMap<LogIndex, Loose>,
    /// The first command with this number, and how many entries hold it, whether or not it took effect.
    pub(super) copies: FxHashMap<(SessionId, u64), (Bytes, u32)>,
}

/// A committed command that has no session.
pub(super) struct Loose {
    command: Bytes,
    response: Bytes,
    acknowledged: bool,
}

impl<S: Service> MachineChecker<S> {
    pub fn new(limits: SessionLimits) -> Self {
        MachineChecker {
            limits,
            sessions: BTreeMap::new(),
            model: S::Model::new(&S::params()),
            time: Duration::ZERO,
            responses: FxHashMap::default(),
            effects: Vec::new(),
            loose: BTreeMap::new(),
            copies: FxHashMap::default(),
        }
    }

    /// Begins with these commands applied.
    pub fn restore(&mut self, commands: &[(Context, Bytes)]) {
        for (context, command) in commands {
            self.model.apply(*context, command);
            self.time = context.time;
        }
    }

    pub fn effects(&self) -> &[(LogIndex, SessionId, u64)] {
        &self.effects
    }

    /// Where a command took effect whose response its session still holds, as of the last committed
    /// entry.
    pub fn effect(&self, session: SessionId, number: u64) -> Option<LogIndex> {
        let (_, newest, _) = self.sessions.get(&session)?;
        let (index, _) = self.responses.get(&(session, number))?;
        (*newest == number).then_some(*index)
    }

    /// Where a command took effect, as of the last committed entry.
    pub fn took_effect(&self, session: SessionId, number: u64) -> Option<LogIndex> {
        self.responses.get(&(session, number)).map(|(index, _)| *index)
    }

    /// The entry at `index` is committed.
    pub fn commit(
        &mut self,
        index: LogIndex,
        version: &Version,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        if version.kind != EntryKind::Normal || version.data.is_empty() {
            return Ok(());
        }
        let Some((proposal, stamp)) = Proposal::decode_stamped(&version.data) else {
            let message = format!("committed entry {index} holds no proposal that can be read");
            return Err(Broken::new(Check::Codec, message));
        };
        if let Some(stamp) = stamp {
            checks.hit(Check::ReplicatedClock);
            if stamp < self.time {
                let message = format!(
                    "committed entry {index} is stamped {stamp:?}, but an entry before it {:?}",
                    self.time
                );
                return Err(Broken::new(Check::ReplicatedClock, message));
            }
            self.time = stamp;
        }
        let context = Context::new(index, self.time);
        match proposal {
            Proposal::OpenSession => {
                self.sessions.insert(SessionId(index), (index, 0, SESSION_BYTES));
                self.evict();
                Ok(())
            }
            Proposal::Command(None, command) => {
                let response = self.model.apply(context, command);
                let command = version.data.slice_ref(command);
                self.loose.insert(index, Loose { command, response, acknowledged: false });
                Ok(())
            }
            Proposal::Command(Some((session, number)), command) => {
                let first = || (version.data.slice_ref(command), 0);
                let (first, count) = self.copies.entry((session, number)).or_insert_with(first);
                *count += u32::from(*first == *command);
                let Some((used, newest, _)) = self.sessions.get_mut(&session) else {
                    return Ok(());
                };
                *used = index;
                checks.hit(Check::Sessions);
                if number > *newest {
                    *newest = number;
                    let response = self.model.apply(context, command);
                    let kept = if response.len() > MOST_KEPT { 0 } else { response.len() as u64 };
                    self.sessions.insert(session, (index, number, SESSION_BYTES + kept));
                    self.evict();
                    if !S::Model::is_refusal(&response) {
                        self.effects.push((index, session, number));
                    }
                    self.responses.insert((session, number), (index, response));
                }
                Ok(())
            }
        }
    }

    /// The sessions that were used least recently go until the others are within the limits.
    fn evict(&mut self) {
        let bytes = |(_, _, bytes): &(LogIndex, u64, u64)| *bytes;
        let mut total: u64 = self.sessions.values().map(bytes).sum();
        while self.sessions.len() > self.limits.count || total > self.limits.bytes {
            let oldest = self.sessions.iter().min_by_key(|(id, (used, ..))| (*used, **id));
            let oldest = *oldest.expect("one session has room").0;
            total -= self.sessions.remove(&oldest).as_ref().map_or(0, bytes);
        }
    }

    /// The commands without a session that have changed something, in log order.
    pub fn loose_effects(&self) -> impl Iterator<Item = (LogIndex, &Bytes)> {
        let changed = self.loose.iter().filter(|(_, loose)| !S::Model::is_refusal(&loose.response));
        changed.map(|(index, loose)| (*index, &loose.command))
    }

    /// A client received the acknowledgement that its command, which has no session, took effect at
    /// `index`.
    pub fn acknowledged_loose(
        &mut self,
        what: &str,
        index: LogIndex,
        response: &[u8],
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Response);
        let loose = self.loose.get_mut(&index).expect("it stands there");
        if std::mem::replace(&mut loose.acknowledged, true) {
            let message = format!("`{what}` at entry {index} was acknowledged to two clients");
            return Err(Broken::new(Check::Response, message));
        }
        if *loose.response == *response {
            return Ok(());
        }
        let message = format!(
            "`{what}` took effect at entry {index}, but its client was told `{}` instead of `{}`",
            S::describe(Shown::Response(response)),
            S::describe(Shown::Response(&loose.response))
        );
        Err(Broken::new(Check::Response, message))
    }

    /// The same for an acknowledgement that carries only the length of the response.
    pub fn not_kept_loose(
        &mut self,
        what: &str,
        index: LogIndex,
        bytes: u64,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let loose = self.loose.get(&index).expect("it stands there");
        let response = loose.response.clone();
        if response.len() > MOST_KEPT && response.len() as u64 == bytes {
            return self.acknowledged_loose(what, index, &response, checks);
        }
        let message = format!(
            "`{what}` at entry {index} was answered without its response of {bytes} bytes, but that \
             has {}",
            response.len()
        );
        Err(Broken::new(Check::Response, message))
    }

    pub fn acknowledged(
        &self,
        session: SessionId,
        number: u64,
        index: LogIndex,
        response: &[u8],
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Response);
        let name = format!("command {number} of session {}", session.0);
        match self.responses.get(&(session, number)) {
            None => Err(Broken::new(
                Check::Response,
                format!(
                    "{name} was acknowledged (entry {index}) but has not taken effect in the \
                     committed log"
                ),
            )),
            Some((first, _)) if *first > index => Err(Broken::new(
                Check::Response,
                format!("{name} was acknowledged at entry {index}, before its effect at {first}"),
            )),
            Some((first, expected)) if **expected != *response => Err(Broken::new(
                Check::Response,
                format!(
                    "{name} took effect at entry {first}, but its client was told `{}` instead of \
                     `{}`",
                    S::describe(Shown::Response(response)),
                    S::describe(Shown::Response(expected))
                ),
            )),
            // Only what applies it can know what was not kept.
            Some((first, expected)) if *first < index && expected.len() > MOST_KEPT => {
                Err(Broken::new(
                    Check::Response,
                    format!(
                        "{name} took effect at entry {first}, and its repetition at entry {index} was \
                     answered with all of its {} bytes: at most {MOST_KEPT} are kept",
                        expected.len()
                    ),
                ))
            }
            Some(_) => Ok(()),
        }
    }

    /// A client received the acknowledgement that its command was applied, and that the response of so
    /// many bytes was not kept. That must be so: it took effect, and had a response that is too long.
    pub fn not_kept(
        &self,
        session: SessionId,
        number: u64,
        index: LogIndex,
        bytes: u64,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Response);
        let name = format!("command {number} of session {}", session.0);
        let what = match self.responses.get(&(session, number)) {
            Some((first, response))
                if *first <= index
                    && response.len() > MOST_KEPT
                    && response.len() as u64 == bytes =>
            {
                return Ok(());
            }
            Some((first, response)) => {
                format!("took effect at entry {first} with a response of {} bytes", response.len())
            }
            None => "has not taken effect in the committed log".to_owned(),
        };
        let message = format!(
            "{name} was acknowledged at entry {index} as one whose response of {bytes} bytes was not \
             kept, but it {what}"
        );
        Err(Broken::new(Check::Response, message))
    }

    /// A query was answered with this, as of `index`: the reference must answer the same, in all
    /// that there is in an answer.
    pub fn queried(
        &self,
        id: NodeId,
        query: &[u8],
        index: LogIndex,
        response: &[u8],
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Answer);
        let Some(expected) = self.model.query(index, query) else {
            return Err(Broken::new(Check::Answer, format!("{id} answered what is no query")));
        };
        if *expected == *response {
            return Ok(());
        }
        let (answer, right) =
            (S::describe(Shown::Exact(response)), S::describe(Shown::Exact(&expected)));
        let message = format!(
            "{id} answered a query as of entry {index} with `{answer}`, where the committed log makes \
             it `{right}`"
        );
        Err(Broken::new(Check::Answer, message))
    }

    /// Each attempt leaves one entry at most, and one that was refused leaves none.
    pub fn refused(
        &self,
        session: SessionId,
        number: u64,
        attempts: u32,
        refused: u32,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Refusal);
        let copies = self.copies.get(&(session, number)).map_or(0, |(_, count)| *count);
        if copies + refused <= attempts {
            return Ok(());
        }
        let message = format!(
            "of {attempts} attempts at command {number} of session {}, {refused} {} refused for \
             certain, yet {copies} are in the log",
            session.0,
            if refused == 1 { "was" } else { "were" }
        );
        Err(Broken::new(Check::Refusal, message))
    }

    pub fn content(
        &self,
        id: NodeId,
        machine: &S::Machine,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        checks.hit(Check::Content);
        let differs = |how| Broken::new(Check::Content, format!("{id} {how}"));
        self.model.compare(machine).map_err(differs)
    }
}

#[cfg(test)]
mod tests {
    use stormkv::types::{Entry, SnapshotId};

    use super::*;
    use crate::checker::ledger::Ledger;

    #[test]
    fn a_refused_attempt_leaves_no_entry() {
        let (mut checks, session) = (Checks::new(), SessionId(2));
        let mut machine =
            MachineChecker::<crate::kv::KeyValue>::new(SessionLimits { count: 8, bytes: 1 << 20 });
        // Command 1 of session 2: no bytes, which the machine does not understand; it counts.
        let twice = Bytes::from_static(&[1, 1, 2, 1, 0]);
        let command = Proposal::Command(Some((session, 1)), &[]);
        assert_eq!(Proposal::decode(&twice), Some(command));
        for (index, data) in (2..).zip([Bytes::from_static(&[0]), twice.clone(), twice]) {
            let entry = Entry { index, term: 1, kind: EntryKind::Normal, data };
            let mut ledger = Ledger::founded(SnapshotId { index: 1, term: 1 });
            ledger.write(NodeId(1), index, &entry).unwrap();
            let version = ledger.version(index, 1).expect("just written");
            machine.commit(index, version, &mut checks).unwrap();
        }
        let mut judge =
            |attempts, refused| machine.refused(session, 1, attempts, refused, &mut checks).is_ok();
        assert!(judge(3, 1), "two of three are in the log");
        assert!(judge(4, 1), "and one was lost");
        assert!(!judge(2, 1), "one of the two was not refused in truth");
    }
}
