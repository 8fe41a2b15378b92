//! How soon a planted bug is found.
//!
//! A testbed is worth what it finds. So each bug of [`stormkv::bugs`] gets a campaign of its own: the
//! seeds of `cargo sim run`, with the bug planted, until one fails. How many seeds that takes is a
//! matter of luck, so it is done several times over, from seeds far apart, and what is told is the
//! median and where the true one lies.
//!
//! - [`Hunt`] deals out the seeds, whoever runs them; [`attempt`] and [`confirm`] judge a run,
//! - [`Median`] is the statistics,
//! - [`Score`] is what is told about a bug,
//! - with the feature `bugs`, `named` finds a bug by its number or name.
//!
//! Nothing here reads a clock or starts a thread: that is left to the command line, which tells how
//! long each run took on this machine.

mod hunt;
mod median;

use std::collections::BTreeMap;

pub use hunt::{Bag, Catch, Find, Found, Hunt, Limits, SEEDS_APART, Turn, attempt, confirm};
pub use median::{Interval, Median};

/// What is told about one bug.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// How many repeats there were.
    pub repeats: u64,
    /// How many of them found it; it counts as found if any did.
    pub detected: u64,
    /// The checker that spoke first in most of them; of several, the first by name.
    pub checker: Option<&'static str>,
    /// Seeds until it was found, the failing one included.
    pub seeds: Median,
    /// Seconds of computing until it was found.
    pub time_s: Median,
    /// The repeat whose failing run has the median number of events (the lower one of two).
    pub typical: Option<Found>,
}

impl Score {
    /// Adds up what came of the repeats. Those that were cut off count as larger than all others.
    #[must_use]
    pub fn of(bag: &Bag) -> Score {
        let detected = bag.found.len() as u64;
        let cut_off = bag.cut_off as usize;
        let mut by_events: Vec<&Found> = bag.found.iter().collect();
        by_events.sort_by_key(|found| (found.find.events, found.seed));
        let middle = by_events.len().saturating_sub(1) / 2;
        Score {
            repeats: detected + bag.cut_off,
            detected,
            checker: most_frequent(bag.found.iter().map(|found| found.find.checker)),
            seeds: Median::of(bag.found.iter().map(|found| found.seeds as f64), cut_off),
            time_s: Median::of(bag.found.iter().map(|found| found.time.as_secs_f64()), cut_off),
            typical: by_events.get(middle).map(|found| (*found).clone()),
        }
    }

    /// Whether any repeat found the bug.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.detected > 0
    }

    /// How many events the typical failing run has.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.typical.as_ref().map(|found| found.find.events)
    }
}

fn most_frequent(words: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    // Of several, the last is taken, so that is the first by name.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(word, _)| word)
}

/// The bug with this number or name.
///
/// # Errors
/// With one line that says which was meant, perhaps.
#[cfg(feature = "bugs")]
pub fn named(word: &str) -> Result<&'static stormkv::bugs::Info, String> {
    use stormkv::bugs::{ALL, find};
    if let Some(info) = find(word) {
        return Ok(info);
    }
    let names = || ALL.iter().map(|info| info.name);
    let nearest = crate::plan::nearest(word, names())
        .or_else(|| names().find(|name| word.len() > 3 && name.contains(word)));
    let remedy = match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`cargo sim bugs --list` names them all".to_owned(),
    };
    Err(format!("there is no bug `{}`: {remedy}", word.escape_debug()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Class;

    fn bag(finds: &[(u64, &'static str, u64)], cut_off: u64) -> Bag {
        let found = finds.iter().map(|(seeds, checker, events)| Found {
            seed: seeds - 1,
            seeds: *seeds,
            time: Duration::from_millis(100 * seeds),
            find: Find { checker, class: Class::Safety, events: *events },
        });
        Bag {
            found: found.collect(),
            cut_off,
            out_of_budget: cut_off > 0,
            seeds: 0,
            time: Duration::ZERO,
            unrelated: BTreeMap::new(),
        }
    }

    #[test]
    fn a_score_adds_up_the_repeats() {
        let finds = [(4, "b", 400), (1, "c", 100), (3, "b", 300), (2, "c", 200), (9, "a", 900)];
        let score = Score::of(&bag(&finds, 0));
        assert_eq!((score.repeats, score.detected, score.is_found()), (5, 5, true));
        assert_eq!(score.checker, Some("b"), "as often as c, and before it");
        assert_eq!((score.seeds.value, score.time_s.value), (Some(3.0), Some(0.3)));
        assert_eq!((score.events(), score.typical.unwrap().seed), (Some(300), 2));
        let score = Score::of(&bag(&finds[..4], 2));
        assert_eq!((score.repeats, score.detected), (6, 4));
        assert_eq!(score.seeds.value, Some(3.5), "the third and the fourth of six");
        assert_eq!(score.seeds.interval, Some(Interval { low: Some(1.0), high: None }));
        assert_eq!(score.events(), Some(200), "only of what failed, and the lower one of two");
    }

    #[test]
    fn what_was_not_found_has_no_numbers() {
        let score = Score::of(&bag(&[], 10));
        assert_eq!((score.is_found(), score.checker, score.events()), (false, None, None));
        assert_eq!((score.seeds.value, score.time_s.value), (None, None));
    }

    #[cfg(feature = "bugs")]
    #[test]
    fn a_bug_has_a_number_and_a_name() {
        for (word, id) in [("12", "12"), ("u3", "U3"), ("read-at-once", "30")] {
            assert_eq!(named(word).unwrap().id, id);
        }
        for (word, remedy) in [
            ("read-at-onze", "did you mean `read-at-once`?"),
            ("transfer", "did you mean `lease-survives-transfer`?"),
            ("99", "`cargo sim bugs --list` names them all"),
        ] {
            assert_eq!(named(word).unwrap_err(), format!("there is no bug `{word}`: {remedy}"));
        }
    }
}
