//! Canaries: seeds that fail on purpose.
//!
//! A campaign that reports nothing may have found nothing, or may have lost what it found: in a
//! worker, in a file, on the way from another machine, in a summary. A canary tells the two apart.
//! Which seeds it takes is a function of the seed alone, so whoever adds up rows can count those
//! that were due without trusting what was reported.
//!
//! The seed is run all the same: only the verdict of a clean run is replaced, and a failure of the
//! seed's own is never hidden behind the canary.

use std::fmt;

use serde::Serialize;

use super::Totals;
use crate::outcome::{Class, Outcome, Violation};
use crate::rng::{Purpose, Stream};

/// The checker under whose name a canary is reported.
pub const CANARY: &str = "canary";

/// What share of the seeds fails on purpose; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Canary {
    /// From 0 to 1, and never NaN.
    share: f64,
}

impl Eq for Canary {}

impl Canary {
    /// Reads a share from 0 to 1. Errors with one line that says so.
    pub fn parse(text: &str) -> Result<Canary, String> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse() {
            Ok(share) if digits && (0.0..=1.0).contains(&share) => Ok(Canary { share }),
            _ => Err(format!("`{text}` is not a share: write a number from 0 to 1, such as 0.01")),
        }
    }

    /// Whether any seed is to fail.
    pub fn is_on(self) -> bool {
        self.share > 0.0
    }

    /// Whether this seed is to fail.
    pub fn takes(self, seed: u64) -> bool {
        self.is_on() && Stream::new(seed, Purpose::Canary, []).chance(self.share)
    }

    /// Fails the seed if it is to fail, and has not failed by itself.
    pub fn applied(self, seed: u64, mut outcome: Outcome) -> Outcome {
        if outcome.violation.is_none() && self.takes(seed) {
            outcome.violation = Some(Violation {
                class: Class::Safety,
                checker: CANARY,
                message: format!(
                    "nothing is wrong with seed {seed}: --canary {self} failed it on purpose, and \
                     its replay is clean"
                ),
                step: outcome.events,
                at_ns: outcome.sim_ns,
            });
        }
        outcome
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.share.fmt(f)
    }
}

/// What became of the canaries of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Canaries {
    /// Seeds that were to fail on purpose.
    pub due: u64,
    /// Those of them that were reported as canaries.
    pub reported: u64,
    /// Those of them that failed by themselves, and were reported as that.
    pub own: u64,
}

impl Canaries {
    pub(super) fn count(totals: &Totals) -> Canaries {
        let due = totals.failed.iter().filter(|failure| totals.canary.takes(failure.seed));
        let (reported, own): (Vec<_>, Vec<_>) =
            due.partition(|failure| failure.violation.checker == CANARY);
        Canaries {
            due: totals.canaries_due,
            reported: reported.len() as u64,
            own: own.len() as u64,
        }
    }

    /// Those that were due and not reported: failures get lost on the way.
    pub fn lost(self) -> u64 {
        self.due.saturating_sub(self.reported + self.own)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::campaign::{self, Seeds};

    #[test]
    fn a_share_is_read_back_as_it_is_written() {
        for text in ["0", "1", "0.01", "0.5", "1.0", "0.000001"] {
            let canary = Canary::parse(text).unwrap();
            assert_eq!(Canary::parse(&canary.to_string()), Ok(canary), "{text}");
        }
        for text in ["", "2", "-0", "-0.1", "nan", "inf", "1e-3", "half", "0.1 "] {
            let error = Canary::parse(text).unwrap_err();
            assert!(
                error.contains("is not a share: write a number from 0 to 1"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn about_the_share_of_the_seeds_is_taken_and_always_the_same() {
        let taken = |share: &str| {
            let canary = Canary::parse(share).unwrap();
            (0..10_000).filter(|seed| canary.takes(*seed)).collect::<Vec<u64>>()
        };
        assert_eq!(taken("0").len(), 0);
        assert_eq!(taken("1").len(), 10_000);
        let some = taken("0.05");
        assert!((400..600).contains(&some.len()), "{}", some.len());
        assert_eq!(some, taken("0.05"));
        let more = taken("0.1");
        assert!(some.iter().all(|seed| more.contains(seed)), "a larger share takes more");
    }

    #[test]
    fn every_canary_is_reported_and_a_failure_of_the_seed_itself_comes_first() {
        let canary = Canary::parse("0.5").unwrap();
        let seeds = Seeds::range(0, 40).unwrap();
        let own = (0..40).filter(|seed| canary.takes(*seed)).nth(3).unwrap();
        let run_seed = |seed| {
            assert!(seed != own, "it breaks by itself");
            canary.applied(seed, Outcome { events: 5, ..Outcome::default() })
        };
        let earlier = Totals { canary, ..Totals::default() };
        let mut ignore = |_, _: &Outcome| Ok::<(), String>(());
        let totals = campaign::go_on(&seeds, 2, &run_seed, earlier, &mut ignore, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let canaries = totals.canaries().unwrap();
        let due = (0..40).filter(|seed| canary.takes(*seed)).count() as u64;
        assert_eq!(canaries, Canaries { due, reported: due - 1, own: 1 });
        assert_eq!(canaries.lost(), 0);
        assert_eq!(totals.worst().unwrap().seed, own, "not the first canary");
        let mut robbed = totals.clone();
        robbed.failed.pop();
        assert_eq!(robbed.canaries().unwrap().lost(), 1);
        assert_eq!(Totals::default().canaries(), None);
    }
}
