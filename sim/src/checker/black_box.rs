//! The black-box search for any service: is there an order of the requests, compatible with real time, in which
//! the model gives every response that a client received?
//!
//! It knows nothing of the log, and so is an independent opinion on small histories beside the witness order.
//! Depth first (Wing and Gong 1993, Lowe 2017): of the requests that may come next, that is those called before
//! the earliest return of one that is not yet placed, take one whose response the model gives; take it back when
//! nothing fits. A set of placed requests with a state is explored once. Queries change nothing, so each is placed
//! as soon as its response fits. A command of unknown outcome may be placed or not.

use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use stormkv::machine::Context;
use stormkv::types::LogIndex;

use crate::rng::mix;
use crate::service::{Model, Request, Search};

/// The outcome of a request, as far as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its response.
    Response(Bytes),
    /// That it took effect.
    Effect,
    /// Nothing: it may have taken effect, may do so at any later time, or never.
    Nothing,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Position of the call in the order of all calls and returns.
    pub call: u64,
    /// Position of the return; `None` if there was none.
    pub ret: Option<u64>,
    /// The request.
    pub request: Request,
    /// Its outcome.
    pub known: Known,
}

impl Operation {
    fn is_query(&self) -> bool {
        matches!(self.request, Request::Query(_))
    }

    /// The position after which it cannot take effect any more.
    fn limit(&self) -> u64 {
        if self.known == Known::Nothing { u64::MAX } else { self.ret.unwrap_or(u64::MAX) }
    }
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is an order.
    Linearizable,
    /// There is none.
    Violation {
        /// The longest order that explains some of the requests, by their numbers.
        longest: Vec<usize>,
        /// The request that has to come next and cannot.
        stuck: usize,
    },
    /// Neither was proven within the limit.
    Unknown,
}

/// A state that the search has reached, and what it may still try from there.
struct Reached<M> {
    model: M,
    /// The requests that led here from the state before: a command, then queries.
    placed: Vec<usize>,
    /// Commands that may come next, the most promising one last.
    candidates: Vec<usize>,
}

struct Searching<'a> {
    ops: &'a [Operation],
    placed: Vec<bool>,
    /// The number of those that are.
    count: usize,
    /// Requests that must be placed and are not.
    left: usize,
    /// Identifies the set of those that are.
    set: u64,
    /// No request before this one is unplaced.
    first: usize,
}

/// Searches for an order of the requests `ops`, which are sorted by their calls, in at most `steps` steps. The
/// search begins at the state `model`.
///
/// # Panics
/// If the requests are not in the order of their calls.
pub fn search<M: Model>(search: &Search<M>, model: M, ops: &[Operation], steps: u64) -> Found {
    assert!(ops.is_sorted_by_key(|op| op.call), "requests are given in the order of their calls");
    let left = ops.iter().filter(|op| op.known != Known::Nothing).count();
    let placed = vec![false; ops.len()];
    let mut now = Searching { ops, placed, count: 0, left, set: 0, first: 0 };
    let mut seen = FxHashSet::default();
    let (mut longest, mut stuck) = (Vec::new(), None);
    let root = now.arrive(model, Vec::new());
    let mut path = vec![root];
    let mut used = 0;
    loop {
        if now.left == 0 {
            return Found::Linearizable;
        }
        let Some(top) = path.last_mut() else { break };
        if stuck.is_none() || now.count > longest.len() {
            stuck = now.most_urgent();
            longest = path.iter().flat_map(|state| state.placed.iter().copied()).collect();
            continue;
        }
        let Some(op) = top.candidates.pop() else {
            let state = path.pop().expect("it is on top");
            state.placed.iter().rev().for_each(|op| now.set(*op, false));
            continue;
        };
        used += 1;
        if used > steps {
            return Found::Unknown;
        }
        let mut model = search.clone(&top.model);
        if !now.fits(&mut model, op, path.len() as LogIndex) {
            continue;
        }
        model.forget();
        now.set(op, true);
        let state = now.arrive(model, vec![op]);
        if seen.insert((now.set, search.digest(&state.model))) {
            path.push(state);
        } else {
            state.placed.iter().rev().for_each(|op| now.set(*op, false));
        }
    }
    Found::Violation { longest, stuck: stuck.expect("something is left") }
}

impl Searching<'_> {
    /// Places a request, or takes it back.
    fn set(&mut self, op: usize, is_placed: bool) {
        self.placed[op] = is_placed;
        self.set ^= mix(0x5ea2_c4ed, op as u64, 0);
        match (is_placed, self.ops[op].known == Known::Nothing) {
            (_, true) => {}
            (true, false) => self.left -= 1,
            (false, false) => self.left += 1,
        }
        if is_placed {
            self.count += 1;
        } else {
            self.count -= 1;
            self.first = self.first.min(op);
        }
        while self.placed.get(self.first) == Some(&true) {
            self.first += 1;
        }
    }

    /// The requests that may come next: no other one has returned before they were called.
    fn window(&self) -> Vec<usize> {
        let mut limit = u64::MAX;
        let mut window = Vec::new();
        for (op, operation) in self.ops.iter().enumerate().skip(self.first) {
            if operation.call > limit {
                break;
            }
            if !self.placed[op] {
                limit = limit.min(operation.limit());
                window.push(op);
            }
        }
        window.retain(|op| self.ops[*op].call < limit);
        window
    }

    /// Whether the model gives the response of a request that comes next.
    fn fits<M: Model>(&self, model: &mut M, op: usize, index: LogIndex) -> bool {
        let operation = &self.ops[op];
        let response = match &operation.request {
            Request::Command(command) => {
                Some(model.apply(Context::new(index, Duration::ZERO), command))
            }
            Request::Query(query) => model.query(LogIndex::MAX, query),
        };
        match &operation.known {
            Known::Response(known) => response.as_ref() == Some(known),
            Known::Effect | Known::Nothing => true,
        }
    }

    /// Places the queries that fit a new state.
    fn arrive<M: Model>(&mut self, mut model: M, mut placed: Vec<usize>) -> Reached<M> {
        loop {
            let mut window = self.window();
            let before = placed.len();
            for op in window.iter().copied().filter(|op| self.ops[*op].is_query()) {
                // A query without a response is placed nowhere.
                if self.ops[op].known != Known::Nothing && self.fits(&mut model, op, 0) {
                    self.set(op, true);
                    placed.push(op);
                }
            }
            if placed.len() == before {
                window.retain(|op| !self.ops[*op].is_query());
                // The one that returns first is tried first, those of unknown outcome last.
                window.sort_by_key(|op| std::cmp::Reverse((self.ops[*op].limit(), *op)));
                return Reached { model, placed, candidates: window };
            }
        }
    }

    /// The unplaced request that returned first.
    fn most_urgent(&self) -> Option<usize> {
        let unplaced = (0..self.ops.len()).filter(|op| !self.placed[*op]);
        unplaced.min_by_key(|op| self.ops[*op].limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::MachineAsModel;
    use stormkv::kv::{Command, Kv, Query};
    use stormkv::machine::StateMachine;

    const SEARCH: Search<MachineAsModel<Kv>> = MachineAsModel::SEARCH;

    fn searched(ops: &[Operation], steps: u64) -> Found {
        search(&SEARCH, MachineAsModel::new(&()), ops, steps)
    }

    fn put(value: &'static str) -> Request {
        let (key, value) = ("k".into(), value.into());
        // A transaction: its response does not depend on the index.
        Request::Command(
            Command::Txn {
                compares: Vec::new(),
                then: vec![stormkv::kv::TxnOp::Put { key, value }],
                otherwise: Vec::new(),
            }
            .encode(),
        )
    }

    /// The response to a read of whether the key has this value.
    fn has(value: &'static str) -> Request {
        let expected = Some(Bytes::from(value));
        Request::Command(
            Command::Txn {
                compares: vec![stormkv::kv::Compare { key: "k".into(), expected }],
                then: Vec::new(),
                otherwise: Vec::new(),
            }
            .encode(),
        )
    }

    fn response(before: &[Request], request: &Request) -> Bytes {
        let mut kv = Kv::default();
        let mut last = Bytes::new();
        for (index, request) in (1..).zip(before.iter().chain([request])) {
            let Request::Command(command) = request else { continue };
            last = kv.apply(Context::new(index, Duration::ZERO), command);
        }
        match request {
            Request::Command(_) => last,
            Request::Query(query) => kv.query(query),
        }
    }

    fn op(call: u64, ret: u64, request: &Request, known: Known) -> Operation {
        Operation { call, ret: Some(ret), request: request.clone(), known }
    }

    #[test]
    fn order_in_real_time_is_respected() {
        let (a, b, is_a) = (put("a"), put("b"), has("a"));
        let told =
            |before: &[Request], request: &Request| Known::Response(response(before, request));
        let both = [a.clone(), b.clone()];
        let a_last = told(&[b.clone(), a.clone()], &is_a);
        // Overlapping writes may have either order, successive ones only one.
        let mut ops = vec![
            op(1, 3, &a, told(&[], &a)),
            op(2, 4, &b, told(&[], &b)),
            op(5, 6, &is_a, a_last.clone()),
        ];
        assert_eq!(searched(&ops, 1_000), Found::Linearizable);
        ops[0].ret = Some(2);
        ops[1].call = 3;
        let found = searched(&ops, 1_000);
        assert_eq!(found, Found::Violation { longest: vec![0, 1], stuck: 2 });
        ops[2].known = told(&both, &is_a);
        assert_eq!(searched(&ops, 1_000), Found::Linearizable);
        assert_eq!(searched(&ops, 1), Found::Unknown);
    }

    #[test]
    fn command_of_unknown_outcome_may_be_placed_late_or_never() {
        let (a, b, is_a) = (put("a"), put("b"), has("a"));
        let told =
            |before: &[Request], request: &Request| Known::Response(response(before, request));
        let yes = told(std::slice::from_ref(&a), &is_a);
        let no = told(std::slice::from_ref(&b), &is_a);
        let ops = |first: &Known, second: &Known| {
            vec![
                op(1, 2, &a, Known::Nothing),
                op(3, 4, &b, Known::Effect),
                op(5, 6, &is_a, first.clone()),
                op(7, 8, &is_a, second.clone()),
            ]
        };
        for (first, second, fits) in
            [(&no, &no, true), (&no, &yes, true), (&yes, &yes, true), (&yes, &no, false)]
        {
            let found = searched(&ops(first, second), 1_000);
            assert_eq!(found == Found::Linearizable, fits, "{found:?}");
        }
    }

    #[test]
    fn query_is_placed_where_it_fits() {
        let (a, read) = (put("a"), Request::Query(Query::Get { key: "k".into() }.encode()));
        let old = Known::Response(response(&[], &read));
        let mut ops = vec![op(1, 4, &a, Known::Effect), op(2, 3, &read, old)];
        assert_eq!(searched(&ops, 1_000), Found::Linearizable);
        (ops[1].call, ops[1].ret) = (5, Some(6));
        let found = searched(&ops, 1_000);
        assert_eq!(found, Found::Violation { longest: vec![0], stuck: 1 });
    }
}
