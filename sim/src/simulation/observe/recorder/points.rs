//! Where in the log the operations of clients took effect, and when. It is taken from what was
//! committed: what a client was told may be the very lie that the run has failed for.
//!
//! - A write takes effect at the first entry that its session admits, when that is committed; whatever
//!   became of the answer.
//! - A change of the membership does at the entry that its answer names, if that is one.
//! - A read sees the log up to the entry that its answer names. It is called when all of that is
//!   committed, or it takes effect when it is. There is no such moment if a later command was
//!   committed before the read was called, or if the read returned too soon.

use stormkv::types::LogIndex;

use super::super::super::Simulation;
use super::Recorder;
use crate::plan::Op;
use crate::recording::{Operation, StepNumber};
use crate::service::{Service, parsed};

/// The first entry, which every cluster begins with: it is committed before all events.
const FOUNDATION: LogIndex = 1;

/// What kind of operation it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    Write,
    /// The operator's.
    Change,
}

impl Asked {
    pub fn of<S: Service>(op: &Op) -> Asked {
        match op {
            op if parsed::<S>(op).is_some_and(|op| S::is_read(&op)) => Asked::Read,
            op if op.is_admin() => Asked::Change,
            _ => Asked::Write,
        }
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Gives the operations of a recording their indices and points.
    pub(super) fn place_operations(&self, recorder: &mut Recorder) {
        let effects = self.safety.effects();
        let owner = &self.clients.owner;
        // Of one that took effect twice, the first time counts.
        for (index, session, number) in effects.iter().rev() {
            let op = owner.get(&(*session, *number)).and_then(|op| recorder.recorded.get(op));
            if let Some(op) = op {
                recorder.recording.ops[*op as usize].index = *index;
            }
        }
        for applied in self.own_loose().unwrap_or_default() {
            if let Some(op) = recorder.recorded.get(&applied.op) {
                recorder.recording.ops[*op as usize].index = applied.index;
            }
        }
        let refuted = recorder.refuted();
        let Recorder { recording, asked, .. } = recorder;
        for ((number, op), asked) in recording.ops.iter_mut().enumerate().zip(asked) {
            if *asked == Asked::Change && !self.safety.is_change(op.index) {
                op.index = 0;
            }
            let next = effects.partition_point(|(index, ..)| *index <= op.index);
            let next = effects.get(next).map(|(index, ..)| *index);
            if refuted != Some(number) || *asked != Asked::Read {
                op.point = point(op, *asked, &recording.commits, next).unwrap_or(0);
            }
        }
    }
}

/// When an operation took effect, if it did; `next` is the first command behind its index.
fn point(
    op: &Operation,
    asked: Asked,
    commits: &[(LogIndex, StepNumber)],
    next: Option<LogIndex>,
) -> Option<StepNumber> {
    let committed = |index: LogIndex| match index {
        FOUNDATION => Some(0),
        index => {
            let at = commits.binary_search_by_key(&index, |(index, _)| *index).ok()?;
            Some(commits[at].1)
        }
    };
    let at = committed(op.index)?;
    if asked != Asked::Read {
        return Some(at).filter(|at| *at >= op.call);
    }
    let misses = next.and_then(committed).is_some_and(|next| next < op.call);
    Some(at.max(op.call)).filter(|at| *at <= op.ret && !misses)
}

impl Recorder {
    /// The operation that the others in the proof speak against: the one that returned last.
    fn refuted(&self) -> Option<usize> {
        let proof = self.proof.iter().filter_map(|recorded| self.recorded.get(recorded));
        let answered = proof.map(|op| *op as usize).filter(|op| self.recording.ops[*op].ret > 0);
        answered.max_by_key(|op| self.recording.ops[*op].ret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_committed_has_a_point() {
        let commits = [(2, 10), (3, 20), (4, 20), (6, 40)];
        let place = |asked, index, (call, ret), next| {
            let op = Operation { index, call, ret, ..Operation::default() };
            point(&op, asked, &commits, next)
        };
        assert_eq!(place(Asked::Write, 3, (15, 30), None), Some(20));
        assert_eq!(place(Asked::Write, 3, (15, 18), None), Some(20), "too late, but it did");
        assert_eq!(place(Asked::Write, 3, (25, 30), None), None, "it is another's entry");
        for asked in [Asked::Read, Asked::Write, Asked::Change] {
            assert_eq!(place(asked, 0, (15, 30), None), None, "nowhere");
            assert_eq!(place(asked, 5, (15, 50), None), None, "not known to be committed");
            assert_eq!(place(asked, 7, (15, 50), None), None, "never committed");
        }
        assert_eq!(place(Asked::Read, 1, (5, 30), Some(3)), Some(5), "an empty log");
        assert_eq!(place(Asked::Read, 2, (15, 30), Some(3)), Some(15));
        assert_eq!(place(Asked::Read, 2, (25, 30), Some(4)), None, "it misses a command");
        assert_eq!(
            place(Asked::Read, 2, (25, 30), Some(6)),
            Some(25),
            "no command, nothing missed"
        );
        assert_eq!(place(Asked::Read, 6, (25, 45), None), Some(40));
        assert_eq!(place(Asked::Read, 6, (25, 30), None), None, "it returned before");
    }
}
