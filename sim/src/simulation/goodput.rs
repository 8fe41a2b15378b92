//! Goodput: what is answered under far more load than the cluster can carry.
//!
//! A plan of [`Load`] has three phases: as much load as the cluster can just carry, many times as
//! much, and after a while the first one again. Commands that are asked for and that are answered
//! are counted in each. Under the overload at least [`SHARE_PERCENT`] of the steady rate must still
//! be answered, and after it that rate again; but never more than is asked for.
//!
//! A cluster collapses here in many ways: it works on copies of what it has done, or on requests
//! that nobody waits for any more, or it elects a new leader again and again. The check knows none
//! of them. A plan with faults is not judged: what they cost is not known.

use crate::checker::{Broken, Check};
use crate::plan::{Load, Phase};

/// Share of the steady rate that must be answered, in percent.
const SHARE_PERCENT: u64 = 80;
/// Fewer answers than this in the steady phase say nothing of a rate.
const LEAST_ANSWERS: u64 = 20;

/// What was asked for and answered, by phase.
#[derive(Debug, Default)]
pub(super) struct Goodput {
    asked: [u64; Phase::ALL.len()],
    answered: [u64; Phase::ALL.len()],
}

impl Goodput {
    /// A client has begun a command.
    pub fn asked(&mut self, load: &Load, at_us: u64) {
        if let Some(phase) = load.phase_at(at_us) {
            self.asked[phase as usize] += 1;
        }
    }

    /// A client has the answer to a command.
    pub fn answered(&mut self, load: &Load, at_us: u64) {
        if let Some(phase) = load.phase_at(at_us) {
            self.answered[phase as usize] += 1;
        }
    }

    /// Whether there was enough to compare.
    ///
    /// # Errors
    /// When too little was answered.
    pub fn judge(&self, load: &Load) -> Result<bool, Broken> {
        let length_us = |phase| {
            let (begin_us, end_us) = load.span_us(phase);
            end_us - begin_us
        };
        let steady = self.answered[Phase::Steady as usize];
        if !load.is_judged() || steady < LEAST_ANSWERS {
            return Ok(false);
        }
        for (phase, when) in [(Phase::Overload, "under"), (Phase::Recovered, "after")] {
            let (asked, answered) = (self.asked[phase as usize], self.answered[phase as usize]);
            let steady = steady * length_us(phase) / length_us(Phase::Steady);
            // A count of n differs by its square root from run to run.
            let noise = steady.isqrt();
            if (answered + noise) * 100 < steady.min(asked) * SHARE_PERCENT {
                let (begin_us, end_us) = load.span_us(phase);
                let message = format!(
                    "{when} the overload, from {} to {} ms, {answered} of {asked} commands were \
                     answered; in as much time before it were {steady}",
                    begin_us / 1000,
                    end_us / 1000
                );
                return Err(Broken::new(Check::Goodput, message));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four seconds of a steady load, four of an overload, two to recover and two after it.
    const LOAD: Load = Load {
        steady_us: 1_000_000,
        overload_us: 5_000_000,
        relief_us: 9_000_000,
        recovered_us: 11_000_000,
        end_us: 13_000_000,
    };

    fn judge(steady: u64, overload: (u64, u64), recovered: (u64, u64)) -> Result<bool, Broken> {
        let mut goodput = Goodput::default();
        let mut count = |at_us, (asked, answered)| {
            (0..asked).for_each(|_| goodput.asked(&LOAD, at_us));
            (0..answered).for_each(|_| goodput.answered(&LOAD, at_us));
        };
        count(4_999_999, (steady, steady));
        count(5_000_000, overload);
        count(9_000_000, (1000, 0));
        count(12_000_000, recovered);
        goodput.judge(&LOAD)
    }

    #[test]
    fn four_fifths_of_the_steady_rate_are_enough() {
        assert_eq!(judge(100, (1000, 80), (50, 40)), Ok(true));
        assert!(judge(100, (1000, 69), (50, 40)).is_err());
        assert!(judge(100, (1000, 80), (50, 29)).is_err());
    }

    #[test]
    fn no_more_is_demanded_than_is_asked_for() {
        assert_eq!(judge(100, (10, 8), (0, 0)), Ok(true));
        assert!(judge(100, (100, 44), (0, 0)).is_err());
    }

    #[test]
    fn a_few_answers_are_no_rate() {
        assert_eq!(judge(19, (1000, 0), (1000, 0)), Ok(false));
    }
}
