//! The requests of the clients as the black-box search takes them, in a run that is searched.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::black_box::{Known, Operation};
use crate::history::Outcome;
use crate::service::Request;

/// The requests so far.
#[derive(Default)]
pub(super) struct Requests {
    all: Vec<Operation>,
    /// By lane: the request that is under way.
    open: BTreeMap<u32, usize>,
    /// Those that certainly had no effect.
    refused: BTreeSet<usize>,
    /// Calls and returns so far.
    events: u64,
}

impl Requests {
    /// A client makes a request.
    pub fn called(&mut self, lane: u32, request: Request) {
        self.events += 1;
        self.open.insert(lane, self.all.len());
        self.all.push(Operation { call: self.events, ret: None, request, known: Known::Nothing });
    }

    /// It receives the response.
    pub fn answered(&mut self, lane: u32, response: &[u8]) {
        self.end(lane, Known::Response(response.to_vec().into()));
    }

    /// Its operation has ended in this way, possibly without a response.
    pub fn returned(&mut self, lane: u32, outcome: &Outcome) {
        if *outcome == Outcome::Fail {
            self.refused.extend(self.open.get(&lane));
        }
        let is_known = matches!(outcome, Outcome::Ok(_));
        self.end(lane, if is_known { Known::Effect } else { Known::Nothing });
    }

    fn end(&mut self, lane: u32, known: Known) {
        let Some(op) = self.open.remove(&lane) else { return };
        self.events += 1;
        (self.all[op].ret, self.all[op].known) = (Some(self.events), known);
    }

    /// The requests that may have had an effect, in the order of their calls.
    pub fn take(self) -> Vec<Operation> {
        let all = self.all.into_iter().enumerate();
        all.filter(|(op, _)| !self.refused.contains(op)).map(|(_, operation)| operation).collect()
    }
}
