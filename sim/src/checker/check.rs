//! The checks, by name: the one list of what is counted and of what a violation may be.
//!
//! A check whose antecedent never holds proves nothing, so each is counted when it is made. Some look for
//! what is never due, such as a panic: they have no antecedent, and are not counted. A service may have checks of
//! its own beside these ([`Checker`](crate::service::Checker)); a name means one check.

use std::collections::BTreeMap;
use std::fmt;

use crate::service::Service;

macro_rules! checks {
    (counted { $($counted:ident = $counted_name:literal,)* } never_due { $($never:ident = $never_name:literal,)* }) => {
        /// A check of the simulator.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is the check of that name")]
        pub enum Check { $($counted,)* $($never,)* }

        impl Check {
            /// All checks, in the order of their numbers.
            pub const ALL: &[Check] = &[$(Check::$counted,)* $(Check::$never,)*];
            /// How many of them are counted: the first.
            const COUNTED: usize = [$(Check::$counted,)*].len();

            /// The stable name, which summaries and violations have.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Check::$counted => $counted_name,)*
                    $(Check::$never => $never_name,)*
                }
            }
        }
    };
}

checks! {
counted {
    ElectionSafety = "election-safety",
    OneVote = "one-vote",
    MonotonicTerm = "monotonic-term",
    PromiseDurability = "promise-durability",
    Durability = "durability",
    LogMatching = "log-matching",
    LeaderAppendOnly = "leader-append-only",
    CommittedAppendOnly = "committed-append-only",
    VotersCheck = "voters-check",
    LeaderCompleteness = "leader-completeness",
    StateMachineSafety = "state-machine-safety",
    CommitsOwnTerm = "commits-own-term",
    QuorumDurable = "quorum-durable",
    Progress = "match-durable",
    AppliedCommitted = "applied-committed",
    AppliedInOrder = "applied-in-order",
    StateHash = "state-hash",
    ReadIndex = "read-index",
    ReplicatedClock = "replicated-clock",
    Repetition = "repetition",
    Sessions = "sessions",
    Response = "response",
    Answer = "answer",
    AnswerIndex = "answer-index",
    ReadsGoBack = "reads-go-back",
    Addresses = "addresses",
    Refusal = "refusal",
    Content = "content",
    Bounds = "bounds",
    Witness = "linearizability",
    BlackBox = "linearizability-black-box",
    BlackBoxUnknown = "linearizability-black-box-unknown",
    Convergence = "convergence",
    Goodput = "goodput",
    Availability = "availability",
    CatchUp = "catch-up",
    SnapshotRate = "snapshot-rate",
    FrameIntegrity = "frame-integrity",
    DamageNoticed = "damage-noticed",
    DamageRepaired = "damage-repaired",
    DamagedVote = "damaged-vote",
    Prudence = "prudence",
    Recovery = "recovery",
}
never_due {
    Codec = "codec",
    DamageFloor = "damage-floor",
    DamageImagined = "damage-imagined",
    DamagePrefix = "damage-prefix",
    DamageTerm = "damage-term",
    DamageUnnoticed = "damage-unnoticed",
    DamagedCandidate = "damaged-candidate",
    FailStop = "fail-stop",
    Invariant = "invariant",
    Leadership = "leadership",
    LogGap = "log-gap",
    MembershipHash = "membership-hash",
    Panic = "panic",
    SnapshotPrefix = "snapshot-prefix",
    WalFormat = "wal-format",
}
}

/// The names of all checks of a service: the simulator's, and those of its own checkers.
pub fn check_names<S: Service>() -> Vec<&'static str> {
    let own = S::checkers();
    let own = own.iter().map(|checker| checker.name());
    Check::ALL.iter().map(|check| check.name()).chain(own).collect()
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each check was made with its antecedent true.
pub(crate) struct Checks([u64; Check::COUNTED]);

impl Checks {
    pub fn new() -> Self {
        Checks([0; Check::COUNTED])
    }

    pub fn hit(&mut self, check: Check) {
        self.add(check, 1);
    }

    pub fn add(&mut self, check: Check, times: u64) {
        self.0[check as usize] += times;
    }

    /// By name, those that were never made included.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        Check::ALL.iter().zip(&self.0).map(|(check, count)| (check.name(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_distinct_names_and_those_that_are_counted_come_first() {
        let mut names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        let mut checks = Checks::new();
        checks.hit(Check::Witness);
        let counts = checks.counts();
        assert_eq!((counts.len(), counts["linearizability"]), (Check::COUNTED, 1));
        assert!(!counts.contains_key(Check::Panic.name()));
    }
}
