//! Which seed is run next, and when it is enough: repeats that go forward together.
//!
//! Every repeat has a range of seeds of its own. The first seed of each is dealt, then the second of
//! each, and so on, to whoever asks; a repeat that has found something is left out. What a repeat
//! has found is its *smallest* failing seed, and all seeds before that were dealt before it. So the
//! number of jobs does not change what is found, only who finds it. Going forward together means
//! that a repeat that is cut off has seen as many seeds as any other, or more: it is rightly taken
//! for larger than all.
//!
//! This deals and counts. It runs nothing and reads no clock: whoever runs a seed says how long it
//! took, and the budget is in these times. When it is used up, seeds that were dealt are still
//! finished, so that what is found by then is right; only which repeats are cut off may differ from
//! machine to machine.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::caught::guarded;
use crate::outcome::{Class, Outcome};

/// The seeds of a repeat are those from its number times this on.
pub const SEEDS_APART: u64 = 1_000_000;

/// How far a hunt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many repeats there are.
    pub repeats: u64,
    /// How many seeds of each, at most [`SEEDS_APART`].
    pub seeds: u64,
    /// How much time all runs may take together.
    pub budget: Duration,
    /// After so many repeats have found something, the others need not go on.
    pub enough: u64,
}

/// A seed to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// For which repeat, from 0.
    pub repeat: u64,
    /// How many seeds of the repeat come before.
    pub offset: u64,
    /// The seed.
    pub seed: u64,
}

/// What was found by a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// The checker that spoke first.
    pub checker: &'static str,
    /// How bad it is.
    pub class: Class,
    /// How many events the run had.
    pub events: u64,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Catch {
    /// Nothing broke.
    Nothing,
    /// The bug broke something.
    Found(Find),
    /// Something broke, but it does without the bug, too. That is a finding about the product or the
    /// simulator, and proves nothing about the bug.
    Unrelated(Find),
}

/// Runs a plan that names a bug. An undecided run is no finding.
pub fn attempt(run: impl FnOnce() -> Outcome) -> Option<Find> {
    let outcome = guarded(run);
    let violation = outcome.violation.filter(|violation| violation.class != Class::Unknown)?;
    let (checker, class) = (violation.checker, violation.class);
    Some(Find { checker, class, events: outcome.events.max(violation.step) })
}

/// Runs the plan of a find without its bug: only what is sound then was broken by the bug.
pub fn confirm(find: Find, run_without: impl FnOnce() -> Outcome) -> Catch {
    match attempt(run_without) {
        None => Catch::Found(find),
        Some(_) => Catch::Unrelated(find),
    }
}

/// A repeat that has found something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first seed of the repeat that fails.
    pub seed: u64,
    /// How many seeds it took, this one included.
    pub seeds: u64,
    /// How long these took together, whoever ran them.
    pub time: Duration,
    /// What broke.
    pub find: Find,
}

/// One repeat under way.
#[derive(Debug, Default)]
struct Repeat {
    /// How long each of its seeds took.
    times: Vec<Duration>,
    /// The smallest offset that failed, and how.
    first: Option<(u64, Find)>,
    /// How many of its seeds are being run.
    open: u64,
}

/// The repeats of one campaign against one bug.
#[derive(Debug)]
pub struct Hunt {
    limits: Limits,
    repeats: Vec<Repeat>,
    /// The repeat and the offset that are next.
    next: (u64, u64),
    spent: Duration,
    unrelated: BTreeMap<u64, Find>,
}

/// What came of a hunt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bag {
    /// Those repeats that have found something, in their order.
    pub found: Vec<Found>,
    /// How many have not.
    pub cut_off: u64,
    /// Whether the budget was used up before all was done.
    pub out_of_budget: bool,
    /// How many seeds were run.
    pub seeds: u64,
    /// How long all runs took together.
    pub time: Duration,
    /// Seeds that fail without the bug, too, and how. All that were met are told, so there may be
    /// more of them with more jobs.
    pub unrelated: BTreeMap<u64, Find>,
}

impl Hunt {
    /// Begins a hunt.
    #[must_use]
    pub fn new(limits: Limits) -> Hunt {
        let limits = Limits { seeds: limits.seeds.min(SEEDS_APART), ..limits };
        let repeats = (0..limits.repeats).map(|_| Repeat::default()).collect();
        let (next, spent) = ((0, 0), Duration::ZERO);
        Hunt { limits, repeats, next, spent, unrelated: BTreeMap::new() }
    }

    /// The seed that is run next; `None` if there is none any more.
    pub fn deal(&mut self) -> Option<Turn> {
        while !self.is_enough() && !self.is_spent() {
            let (repeat, offset) = self.next;
            if offset >= self.limits.seeds {
                return None;
            }
            self.next = match repeat + 1 {
                next if next < self.limits.repeats => (next, offset),
                _ => (0, offset + 1),
            };
            let at = &mut self.repeats[repeat as usize];
            if at.first.is_none() {
                at.open += 1;
                at.times.push(Duration::ZERO);
                return Some(Turn { repeat, offset, seed: repeat * SEEDS_APART + offset });
            }
        }
        None
    }

    /// Takes what came of a turn, and how long its run took.
    pub fn take(&mut self, turn: Turn, catch: Catch, time: Duration) {
        let repeat = &mut self.repeats[turn.repeat as usize];
        repeat.open -= 1;
        repeat.times[turn.offset as usize] = time;
        self.spent += time;
        match catch {
            Catch::Nothing => {}
            Catch::Unrelated(find) => {
                self.unrelated.insert(turn.seed, find);
            }
            Catch::Found(find) => {
                if repeat.first.as_ref().is_none_or(|(offset, _)| turn.offset < *offset) {
                    repeat.first = Some((turn.offset, find));
                }
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.spent >= self.limits.budget
    }

    /// Whether enough repeats have found something, or all have.
    fn is_enough(&self) -> bool {
        let found = self.repeats.iter().filter(|repeat| repeat.first.is_some()).count() as u64;
        found >= self.limits.enough.min(self.limits.repeats)
    }

    /// What came of it, once all that was dealt is taken back.
    ///
    /// # Panics
    /// If a seed is still being run.
    #[must_use]
    pub fn end(self) -> Bag {
        assert!(self.repeats.iter().all(|repeat| repeat.open == 0), "a seed is still being run");
        let due = self.limits.seeds;
        let is_over = |repeat: &Repeat| repeat.first.is_some() || repeat.times.len() as u64 == due;
        let out_of_budget = !self.is_enough() && !self.repeats.iter().all(is_over);
        let seeds = self.repeats.iter().map(|repeat| repeat.times.len() as u64).sum();
        let mut found = Vec::new();
        for (repeat, Repeat { times, first, .. }) in (0..).zip(self.repeats) {
            if let Some((offset, find)) = first {
                let seeds = offset + 1;
                let time = times[..seeds as usize].iter().sum();
                found.push(Found { seed: repeat * SEEDS_APART + offset, seeds, time, find });
            }
        }
        let cut_off = self.limits.repeats - found.len() as u64;
        Bag { found, cut_off, out_of_budget, seeds, time: self.spent, unrelated: self.unrelated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Violation;

    const LIMITS: Limits =
        Limits { repeats: 3, seeds: 20, budget: Duration::from_secs(100), enough: 3 };

    const SECOND: Duration = Duration::from_secs(1);

    fn found() -> Catch {
        Catch::Found(Find { checker: "one-vote", class: Class::Safety, events: 7 })
    }

    /// Repeat 0 fails at its 5th seed and at later ones, repeat 1 at its first, repeat 2 never.
    fn pretend(turn: Turn) -> Catch {
        match (turn.repeat, turn.offset) {
            (0, 4..) | (1, 0) => found(),
            _ => Catch::Nothing,
        }
    }

    /// Runs a hunt on so many jobs; the last that was dealt is the first to be done.
    fn hunt(limits: Limits, jobs: usize) -> Bag {
        let mut hunt = Hunt::new(limits);
        let mut open = Vec::new();
        loop {
            while open.len() < jobs {
                let Some(turn) = hunt.deal() else { break };
                open.push(turn);
            }
            let Some(turn) = open.pop() else { break };
            hunt.take(turn, pretend(turn), SECOND);
        }
        hunt.end()
    }

    #[test]
    fn what_is_found_does_not_depend_on_the_number_of_jobs() {
        let expected = [(4, 5), (SEEDS_APART, 1)];
        for jobs in 1..40 {
            let bag = hunt(LIMITS, jobs);
            let found: Vec<_> = bag.found.iter().map(|found| (found.seed, found.seeds)).collect();
            assert_eq!(found, expected, "{jobs} jobs");
            assert_eq!(bag.found[0].time, SECOND * 5, "later seeds that were run do not count");
            assert_eq!((bag.cut_off, bag.out_of_budget), (1, false));
        }
        assert_eq!(hunt(LIMITS, 1).seeds, 5 + 1 + 20);
    }

    #[test]
    fn repeats_go_forward_together() {
        let mut hunt = Hunt::new(LIMITS);
        let turns: Vec<_> = (0..4).map(|_| hunt.deal().unwrap()).collect();
        let seeds: Vec<_> = turns.iter().map(|turn| turn.seed).collect();
        assert_eq!(seeds, [0, SEEDS_APART, 2 * SEEDS_APART, 1]);
        hunt.take(turns[1], found(), SECOND);
        assert_eq!(hunt.deal().unwrap().seed, 2 * SEEDS_APART + 1, "repeat 1 is done");
    }

    #[test]
    fn the_budget_cuts_off() {
        let bag = hunt(Limits { budget: SECOND * 6, ..LIMITS }, 1);
        assert_eq!((bag.found.len(), bag.cut_off, bag.seeds), (1, 2, 6));
        assert!(bag.out_of_budget);
        let bag = hunt(Limits { budget: Duration::ZERO, ..LIMITS }, 1);
        assert_eq!((bag.cut_off, bag.seeds, bag.out_of_budget), (3, 0, true));
    }

    #[test]
    fn enough_is_enough() {
        let bag = hunt(Limits { enough: 1, ..LIMITS }, 1);
        assert_eq!((bag.found.len(), bag.seeds, bag.out_of_budget), (1, 2, false));
    }

    fn broken(class: Class) -> Outcome {
        let violation =
            Violation { class, checker: "x", message: String::new(), step: 9, at_ns: 0 };
        Outcome { violation: Some(violation), events: 9, ..Outcome::default() }
    }

    #[test]
    fn only_what_is_sound_without_the_bug_is_its_doing() {
        let find = attempt(|| broken(Class::Liveness)).expect("a stall is a finding");
        assert_eq!(find, Find { checker: "x", class: Class::Liveness, events: 9 });
        assert_eq!(confirm(find.clone(), Outcome::default), Catch::Found(find.clone()));
        let also = confirm(find.clone(), || broken(Class::Safety));
        assert_eq!(also, Catch::Unrelated(find));
        assert_eq!(attempt(|| broken(Class::Unknown)), None);
        assert_eq!(attempt(|| panic!("a wreck")).map(|find| find.checker), Some("panic"));
    }
}
