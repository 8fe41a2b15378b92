//! The JSON object of `run`, which `replay` extends. Scripts rely on the names of the fields: they
//! may be added to, never renamed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{never_injected, never_reached, verdict};
use crate::campaign::{Canaries, Totals};
use crate::histogram::Histogram;
use crate::outcome::Violation;
use crate::version::{REVISION, VERSION};

/// One object for a campaign.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that passed.
    pub passed: u64,
    /// The others, in seed order.
    pub failed: Vec<JsonFailure<'a>>,
    /// Events processed.
    pub events: u64,
    /// Raft messages delivered.
    pub messages: u64,
    /// Client operations acknowledged.
    pub acknowledged: u64,
    /// Simulated seconds.
    pub sim_s: f64,
    /// Seconds on this machine.
    pub wall_s: f64,
    /// 16 hexadecimal digits: JSON numbers cannot hold 64 bits everywhere.
    pub trace_hash: String,
    /// Faults injected by kind.
    pub faults: &'a BTreeMap<&'static str, u64>,
    /// Waypoints reached.
    pub waypoints: &'a BTreeMap<&'static str, u64>,
    /// Known waypoints that were not.
    pub waypoints_never: Vec<&'a str>,
    /// How often each check was made with its antecedent true.
    pub checks: &'a BTreeMap<&'static str, u64>,
    /// What became of the seeds that were to fail on purpose; left out without `--canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Canaries>,
    /// Whether the campaign was ended before its last seed; left out if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// The bug that was planted; left out without `--bug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bug: Option<&'a str>,
    /// The most that any node kept of each bounded thing.
    pub peaks: &'a BTreeMap<&'static str, u64>,
    /// Known kinds of faults that were never injected.
    pub faults_never: Vec<&'static str>,
    /// How long clusters took to recover after the faults had stopped.
    pub recovery: JsonRecovery,
    /// The version of this build.
    pub version: &'static str,
    /// The git revision of this build.
    pub revision: &'static str,
}

/// The distributions of the recovery times.
#[derive(Debug, Serialize)]
pub struct JsonRecovery {
    /// Until there was a leader.
    pub leader_ms: JsonTimes,
    /// Until the requests that were open were answered.
    pub answered_ms: JsonTimes,
    /// Until all was answered and all agreed.
    pub converged_ms: JsonTimes,
    /// How long a healthy quorum had no leader, during the whole run.
    pub unled_ms: JsonTimes,
}

/// One distribution, in simulated milliseconds; null if there is no time in it. Percentiles are at
/// most 3.2 percent too large; the largest time is exact.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "percentiles have their names")]
pub struct JsonTimes {
    pub count: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

impl JsonTimes {
    fn new(times: &Histogram) -> JsonTimes {
        let ms = |ns: Option<u64>| ns.map(|ns| (ns / 1000) as f64 / 1e3);
        JsonTimes {
            count: times.count(),
            p50: ms(times.percentile_ns(50)),
            p90: ms(times.percentile_ns(90)),
            p99: ms(times.percentile_ns(99)),
            max: ms(times.max_ns()),
        }
    }
}

/// One failing seed.
#[derive(Debug, Serialize)]
pub struct JsonFailure<'a> {
    /// The seed; null for a scenario file.
    pub seed: Option<u64>,
    /// Which checker spoke.
    pub checker: &'static str,
    /// What broke, in one sentence.
    pub message: &'a str,
    /// `violation`, `liveness` or `unknown`.
    pub verdict: &'static str,
}

impl<'a> JsonFailure<'a> {
    /// The object for one violation.
    pub fn new(seed: Option<u64>, violation: &'a Violation) -> JsonFailure<'a> {
        JsonFailure {
            seed,
            checker: violation.checker,
            message: &violation.message,
            verdict: verdict(Some(violation)),
        }
    }
}

/// The object for a campaign. `waypoints` are all there are.
pub fn campaign_json<'a>(totals: &'a Totals, waypoints: &[&'a str]) -> Json<'a> {
    let failed = totals.failed.iter();
    Json {
        seeds: totals.seeds,
        passed: totals.passed(),
        failed: failed
            .map(|failure| JsonFailure::new(Some(failure.seed), &failure.violation))
            .collect(),
        events: totals.events,
        messages: totals.messages,
        acknowledged: totals.acknowledged,
        sim_s: totals.sim_ns as f64 / 1e9,
        wall_s: seconds(totals.wall),
        trace_hash: format!("{:016x}", totals.trace_hash),
        faults: &totals.faults,
        waypoints: &totals.waypoints,
        waypoints_never: never_reached(totals, waypoints),
        checks: &totals.checks,
        canaries: totals.canaries(),
        interrupted: totals.interrupted,
        bug: totals.bug.as_deref(),
        peaks: &totals.peaks,
        faults_never: never_injected(totals),
        recovery: JsonRecovery {
            leader_ms: JsonTimes::new(&totals.recovery.leader),
            answered_ms: JsonTimes::new(&totals.recovery.answered),
            converged_ms: JsonTimes::new(&totals.recovery.converged),
            unled_ms: JsonTimes::new(&totals.recovery.unled),
        },
        version: VERSION,
        revision: REVISION,
    }
}

/// Seconds with microseconds: more digits of a wall clock say nothing.
pub fn seconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e6
}

/// A measured rate with one decimal, for the same reason.
pub fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
