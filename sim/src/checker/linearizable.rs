//! The black-box checker: is there any order of the operations that explains every answer?
//!
//! Each partition of the history (usually one key) gets a search of its own. They advance in turn,
//! by step budgets that double, so that one key that cannot be decided does not hide another that
//! is illegal; the first illegal one ends the check. The verdict has three values, because the
//! problem is NP-complete and time is not. Everything is counted in steps; whoever wants a time
//! limit passes a callback that knows the clock, so that the library itself stays deterministic.

use super::compile::{Partition, compile, partition};
use super::explain::explain;
use super::search::{Progress, Search};
use super::why::Why;
use crate::history::{History, Key};

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none, and why.
    Violation(Why),
    /// Neither was proven within the limits; the text says which keys are undecided.
    Unknown(String),
}

/// How much work a check may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Search steps in all; a step takes about 20 to 100 ns.
    pub steps: u64,
    /// Configurations remembered in all, about 40 bytes each. When they are used up the search goes
    /// on, but may repeat itself.
    pub states: u64,
}

impl Default for Limits {
    /// About a second, and at most about 160 MB.
    fn default() -> Limits {
        Limits { steps: 20_000_000, states: 4_000_000 }
    }
}

const FIRST_SLICE: u64 = 4_096;
const LONGEST_SLICE: u64 = 262_144;

/// Checks a history. `expired` is asked now and then whether to give up; a pure function of the
/// history and the limits if it always says no.
pub fn check(history: &History, limits: Limits, expired: &mut dyn FnMut() -> bool) -> Verdict {
    let partitions = partition(history);
    let mut pending: Vec<(&Partition, Search)> = partitions
        .iter()
        .map(|partition| {
            let (cells, ops) = compile(history, &partition.keys, &partition.ops, |_| false);
            (partition, Search::new(partition.keys.len(), cells, ops))
        })
        .collect();
    let (mut steps, mut room, mut slice) = (limits.steps, limits.states, FIRST_SLICE);
    while !pending.is_empty() {
        let mut undecided = Vec::with_capacity(pending.len());
        let mut turns = pending.into_iter();
        let mut exhausted = false;
        for (partition, mut search) in turns.by_ref() {
            let before = search.steps();
            let progress = search.run(slice.min(steps), &mut room);
            steps = steps.saturating_sub(search.steps() - before);
            match progress {
                Progress::Legal => {}
                Progress::Illegal => return Verdict::Violation(explain(history, partition)),
                Progress::Undecided => undecided.push((partition, search)),
            }
            exhausted = steps == 0 || expired();
            if exhausted {
                break;
            }
        }
        undecided.extend(turns);
        if exhausted && !undecided.is_empty() {
            return Verdict::Unknown(name_undecided(&undecided, partitions.len()));
        }
        pending = undecided;
        slice = (2 * slice).min(LONGEST_SLICE);
    }
    Verdict::Linearizable
}

fn name_undecided(undecided: &[(&Partition, Search)], of: usize) -> String {
    const SHOWN: usize = 5;
    let name = |partition: &Partition| {
        let keys: Vec<&str> = partition.keys.iter().take(SHOWN).map(Key::as_ref).collect();
        let more = if partition.keys.len() > SHOWN { "+.." } else { "" };
        format!("{:?}", keys.join("+") + more)
    };
    let names: Vec<String> = undecided.iter().take(SHOWN).map(|(p, _)| name(p)).collect();
    format!(
        "{} of {of} keys are undecided within the limit ({}{}); no violation was found in the \
         others; allow more time",
        undecided.len(),
        names.join(", "),
        if undecided.len() > SHOWN { ", .." } else { "" }
    )
}
