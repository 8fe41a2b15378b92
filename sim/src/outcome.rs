//! What came of one run: the verdict and the counts that prove that something was tested.
//!
//! An [`Outcome`] is also what a row of a campaign's file holds (`campaign/row.rs`): whatever is
//! added to it is kept, resumed and merged without further ado, as long as serde knows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{self, Name};

/// How bad a violation is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Something bad happened (exit code 1).
    Safety,
    /// Something good did not happen in time (exit code 2).
    Liveness,
    /// A checker ran out of time (exit code 3).
    Unknown,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// How bad.
    pub class: Class,
    /// Which checker spoke first, for example `election-safety`. Stable: part of the fingerprint.
    #[serde(deserialize_with = "names::name")]
    pub checker: Name,
    /// What broke, in one sentence: which operation, which node, which term, why that is wrong.
    /// After an empty line may follow what a person wants to see beside it.
    pub message: String,
    /// The number of the event after which it was seen.
    pub step: u64,
    /// Simulated time in nanoseconds.
    pub at_ns: u64,
}

/// How long the cluster took to recover after the faults had stopped, in simulated nanoseconds from
/// then on. `None`: not before the run ended, or there was nothing to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Until there was a leader of the newest term that had committed an entry of that term and that
    /// a quorum of its members followed.
    pub leader_ns: Option<u64>,
    /// Until the last request that was open when the faults stopped was answered.
    pub answered_ns: Option<u64>,
    /// Until everything was answered and all who had to agree did.
    pub converged_ns: Option<u64>,
    /// The longest time, during the whole run, for which a healthy quorum had no leader that it
    /// followed; see `simulation/availability.rs`. It is seen within 50 ms.
    #[serde(default)]
    pub unled_ns: Option<u64>,
}

/// A fault of the plan that hit nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its row in the plan.
    pub fault: usize,
    /// Simulated time in nanoseconds at which it was due; for one that waited for its moment, at which
    /// it was given up.
    pub at_ns: u64,
    /// The reason, in a few words.
    pub why: &'static str,
}

/// What came of one run. A pure function of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The first violation; `None` if the run is clean.
    pub violation: Option<Violation>,
    /// The rolling hash over every event.
    #[serde(with = "hex")]
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
    #[serde(deserialize_with = "names::counts")]
    pub faults: BTreeMap<Name, u64>,
    /// Waypoints reached, for example `snapshot-installed` -> 2.
    #[serde(deserialize_with = "names::counts")]
    pub waypoints: BTreeMap<Name, u64>,
    /// How often each check was made with its antecedent true.
    #[serde(deserialize_with = "names::counts")]
    pub checks: BTreeMap<Name, u64>,
    /// The most that any node kept of each bounded thing, for example `log-entries` -> 310.
    #[serde(deserialize_with = "names::counts")]
    pub peaks: BTreeMap<Name, u64>,
    /// How long it took to recover.
    pub recovery: Recovery,
    /// Faults that hit nothing. A campaign makes no total of them, so its file leaves them out.
    #[serde(skip)]
    pub skipped: Vec<Skipped>,
}

/// A hash as 16 hexadecimal digits: JSON numbers cannot hold 64 bits everywhere.
mod hex {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{hash:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u64::from_str_radix(&digits, 16)
            .ok()
            .filter(|hash| format!("{hash:016x}") == digits)
            .ok_or_else(|| D::Error::custom("a hash has 16 hexadecimal digits"))
    }
}
