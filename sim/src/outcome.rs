//! What came of one run: the verdict and the counts that prove that something was tested.

use std::collections::BTreeMap;

/// How bad a violation is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something bad happened (exit code 1).
    Safety,
    /// Something good did not happen in time (exit code 2).
    Liveness,
    /// A checker ran out of time (exit code 3).
    Unknown,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// How bad.
    pub class: Class,
    /// Which checker spoke first, for example `election-safety`. Stable: part of the fingerprint.
    pub checker: &'static str,
    /// What broke, in one sentence: which operation, which node, which term, why that is wrong.
    pub message: String,
    /// The number of the event after which it was seen.
    pub step: u64,
    /// Simulated time in nanoseconds.
    pub at_ns: u64,
}

/// What came of one run. A pure function of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first violation; `None` if the run is clean.
    pub violation: Option<Violation>,
    /// The rolling hash over every event.
    pub trace_hash: u64,
    /// Events processed.
    pub events: u64,
    /// Raft messages delivered to nodes.
    pub messages: u64,
    /// Client operations that were acknowledged.
    pub acknowledged: u64,
    /// Simulated nanoseconds.
    pub sim_ns: u64,
    /// Faults injected by kind, for example `crash` -> 3.
    pub faults: BTreeMap<&'static str, u64>,
    /// Waypoints reached, for example `snapshot-installed` -> 2.
    pub waypoints: BTreeMap<&'static str, u64>,
    /// How often each check was made with its antecedent true.
    pub checks: BTreeMap<&'static str, u64>,
}
