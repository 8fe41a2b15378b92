//! How the load of a plan changes, for the judgement of what is answered under too much of it.

use serde::Deserialize;

use super::units;

/// When a plan brings a load that the cluster can carry, one that it cannot, and the first one
/// again. The operations are rows as ever; this says how to compare what is answered. All times in
/// microseconds (in the file: milliseconds), in order; all 0 for a plan that is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// From here to the overload the cluster has as much to do as it can just carry (in the file:
    /// `steady_ms`).
    #[serde(rename = "steady_ms", deserialize_with = "units::ms")]
    pub steady_us: u64,
    /// Here the overload begins (in the file: `overload_ms`).
    #[serde(rename = "overload_ms", deserialize_with = "units::ms")]
    pub overload_us: u64,
    /// Here it ends (in the file: `relief_ms`).
    #[serde(rename = "relief_ms", deserialize_with = "units::ms")]
    pub relief_us: u64,
    /// From here to the end the cluster must have recovered (in the file: `recovered_ms`).
    #[serde(rename = "recovered_ms", deserialize_with = "units::ms")]
    pub recovered_us: u64,
    /// The end of what is judged (in the file: `end_ms`).
    #[serde(rename = "end_ms", deserialize_with = "units::ms")]
    pub end_us: u64,
}

/// A part of a plan with a load of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// As much as the cluster can just carry.
    Steady,
    /// Far more than that.
    Overload,
    /// As much as in the first one.
    Recovered,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 3] = [Phase::Steady, Phase::Overload, Phase::Recovered];
}

impl Load {
    /// Whether the plan is judged by what is answered.
    pub fn is_judged(&self) -> bool {
        self.end_us > 0
    }

    /// Beginning and end of a phase, in microseconds.
    pub fn span_us(&self, phase: Phase) -> (u64, u64) {
        match phase {
            Phase::Steady => (self.steady_us, self.overload_us),
            Phase::Overload => (self.overload_us, self.relief_us),
            Phase::Recovered => (self.recovered_us, self.end_us),
        }
    }

    /// The phase at this time, if it is part of one.
    pub fn phase_at(&self, at_us: u64) -> Option<Phase> {
        let holds = |phase: &Phase| {
            let (begin_us, end_us) = self.span_us(*phase);
            (begin_us..end_us).contains(&at_us)
        };
        Phase::ALL.into_iter().find(holds)
    }

    /// The settings by name, in the order in which they must be.
    pub(super) fn times(&self) -> [(&'static str, u64); 5] {
        [
            ("steady_ms", self.steady_us),
            ("overload_ms", self.overload_us),
            ("relief_ms", self.relief_us),
            ("recovered_ms", self.recovered_us),
            ("end_ms", self.end_us),
        ]
    }
}
