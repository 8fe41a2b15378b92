//! Turns "there is no legal order" into one sentence about few operations.
//!
//! Two sound weakenings of an illegal history are used. Cutting it off after a return keeps every
//! legal history legal, so there is a first return after which it is illegal: that operation is the
//! culprit. And taking the answer of another operation as unknown keeps legal histories legal too,
//! so answers are forgotten, in ever smaller groups, as long as the rest stays illegal; what remains
//! is needed for the contradiction. All of it is bounded by a step budget.

use super::compile::{Partition, compile};
use super::search::{Progress, Search};
use super::why::Why;
use crate::history::{Action, Answer, History, Outcome, show};

const STEPS_IN_ALL: u64 = 20_000_000;
const STEPS_PER_TRIAL: u64 = 1_000_000;
const STATES: u64 = 2_000_000;
/// The most operations named in a sentence.
const NAMED: usize = 4;

/// Explains why a partition that was proven illegal is so.
pub(super) fn explain(history: &History, partition: &Partition) -> Why {
    let mut trials = Trials { history, partition, steps_left: STEPS_IN_ALL };
    let mut completed: Vec<usize> = partition.ops.clone();
    completed.retain(|&op| history.ops()[op].returned().is_some());
    completed.sort_unstable_by_key(|&op| history.ops()[op].ret);
    let culprit = trials.first_illegal(&completed);
    let cut = history.ops()[completed[culprit]].ret.expect("completed");
    let culprit_op = completed[culprit];
    completed.truncate(culprit);
    let others = trials.needed(completed, culprit_op, cut);
    let expected = trials.expected(culprit_op, cut);
    sentence(history, culprit_op, &others, expected)
}

struct Trials<'a> {
    history: &'a History,
    partition: &'a Partition,
    steps_left: u64,
}

impl Trials<'_> {
    /// Searches the history up to the position `cut`, with only the answers that `known` admits.
    /// `None` if the budget did not suffice.
    fn search(&mut self, cut: u64, known: &dyn Fn(usize) -> bool) -> Option<(Progress, Search)> {
        let of_interest = |&&op: &&usize| self.history.ops()[op].call < cut;
        let ops: Vec<usize> = self.partition.ops.iter().filter(of_interest).copied().collect();
        let budget = self.steps_left.min(STEPS_PER_TRIAL);
        self.steps_left = self.steps_left.saturating_sub(ops.len() as u64);
        let open = |op: usize| {
            let ret = self.history.ops()[op].returned();
            !known(op) || ret.is_none_or(|ret| ret > cut)
        };
        let (cells, compiled) = compile(self.history, &self.partition.keys, &ops, open);
        let mut search = Search::new(self.partition.keys.len(), cells, compiled);
        let mut room = STATES;
        let progress = search.run(budget, &mut room);
        self.steps_left = self.steps_left.saturating_sub(search.steps());
        (progress != Progress::Undecided).then_some((progress, search))
    }

    fn is_illegal(&mut self, cut: u64, known: &dyn Fn(usize) -> bool) -> bool {
        matches!(self.search(cut, known), Some((Progress::Illegal, _)))
    }

    /// The place in `completed` (ordered by return) of the operation whose return made the history
    /// illegal, or of a later one if the budget runs out.
    fn first_illegal(&mut self, completed: &[usize]) -> usize {
        let (mut low, mut high) = (0, completed.len() - 1);
        while low < high {
            let middle = (low + high) / 2;
            let cut = self.history.ops()[completed[middle]].ret.expect("completed");
            if self.is_illegal(cut, &|_| true) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        high
    }

    /// Forgets answers while the history up to `cut` stays illegal; returns what is left, in the
    /// order of the calls. The culprit itself is always kept.
    fn needed(&mut self, mut kept: Vec<usize>, culprit: usize, cut: u64) -> Vec<usize> {
        kept.sort_unstable();
        let mut chunk = kept.len().div_ceil(2).max(1);
        loop {
            let (mut start, before) = (0, kept.len());
            while start < kept.len() && self.steps_left > 0 {
                let end = (start + chunk).min(kept.len());
                let mut fewer = kept.clone();
                fewer.drain(start..end);
                let known = |op: usize| op == culprit || fewer.binary_search(&op).is_ok();
                if self.is_illegal(cut, &known) {
                    kept = fewer;
                } else {
                    start = end;
                }
            }
            if self.steps_left == 0 || chunk == 1 && kept.len() == before {
                return kept;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// For an operation on one key, a value that the key can have by then without it.
    fn expected(&mut self, culprit: usize, cut: u64) -> Option<String> {
        // Part of the budget is set aside for this, as it is one search that pays for itself.
        self.steps_left = self.steps_left.max(STEPS_PER_TRIAL);
        let [_] = self.partition.keys.as_slice() else { return None };
        match self.search(cut, &|op| op != culprit)? {
            (Progress::Legal, search) => Some(show(&search.final_value(0))),
            _ => None,
        }
    }
}

fn sentence(history: &History, culprit: usize, others: &[usize], expected: Option<String>) -> Why {
    let what = history.describe(culprit);
    if let Some(never) = never_written(history, culprit) {
        return Why::new(format!("{what} cannot be explained: {never}"), [culprit]);
    }
    // The latest ones are nearest to the contradiction.
    let named = &others[others.len().saturating_sub(NAMED - 1)..];
    let mut list: Vec<String> = named.iter().map(|&op| history.describe(op)).collect();
    if others.len() > named.len() {
        list.insert(0, format!("{} earlier operations", others.len() - named.len()));
    }
    let last = list.pop();
    let together = match (list.is_empty(), last) {
        (_, None) => String::new(),
        (true, Some(last)) => format!(" after or beside {last}"),
        (false, Some(last)) => format!(" together with {} and {last}", list.join(", ")),
    };
    let expected = match (expected, &history.ops()[culprit].action) {
        (Some(value), Action::Get { .. } | Action::Cas { .. } | Action::Delete { .. }) => {
            format!("; without it the value can be {value} by then")
        }
        _ => String::new(),
    };
    let shown = named.iter().copied().chain([culprit]);
    Why::new(format!("{what} fits into no order{together}{expected}"), shown)
}

/// For a get: says so if nobody ever wrote that value or anything that could grow into it.
fn never_written(history: &History, culprit: usize) -> Option<String> {
    let op = &history.ops()[culprit];
    let (Action::Get { key }, Outcome::Ok(Answer::Value(Some(value)))) = (&op.action, &op.outcome)
    else {
        return None;
    };
    let may_write = history.ops().iter().any(|other| match &other.action {
        _ if other.outcome == Outcome::Fail => false,
        Action::Put { key: k, value: v } | Action::Cas { key: k, new: v, .. } => {
            k == key && v == value
        }
        Action::Append { key: k, .. } => k == key,
        Action::Txn(_) => true,
        Action::Get { .. } | Action::Delete { .. } | Action::Scan { .. } | Action::Other { .. } => {
            false
        }
    });
    (!may_write).then(|| format!("no operation that may have had an effect wrote {value}"))
}
