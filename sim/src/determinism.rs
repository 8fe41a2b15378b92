//! Is a run determined by its seed? Runs it twice and finds the first event that differs.
//!
//! The second run is on another thread, whose `HashMap`s have other keys, and among memory that is
//! laid out in another way: what depends on any of it, or on the wall clock, shows. The rolling hash
//! after each event of both runs is kept (eight bytes an event), so the first event that differs is
//! known exactly.
//!
//! Its lines are not: to write them for every event would make each pair several times as slow. So a
//! pair that differs is run again with the trace on, and the lines around the difference are kept. A
//! run that is not deterministic may differ elsewhere then, or not at all. What is reported is always
//! one and the same pair, its hashes and its lines; when no later pair shows it again, that is said.
//!
//! This is host code: it starts threads, which never reach a run.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::Range;
use std::panic;
use std::rc::Rc;
use std::thread;

use serde_json::Value;

use crate::caught::guarded;
use crate::outcome::{Class, Outcome, Violation};
use crate::simulation::RunOptions;

/// The checker under whose name a difference is reported.
pub const CHECKER: &str = "determinism";

/// How many events before the difference, and behind it, keep their lines: another pair may differ a
/// little earlier or later.
const MARGIN: u64 = 5_000;
/// How many events are told before the first that differs.
const TOLD_BEFORE: u64 = 4;
/// How many more pairs are run to get the lines of a difference.
const PAIRS: u32 = 5;

/// Runs something with these options: the same thing at every call, if it is deterministic.
pub type Run<'a> = &'a (dyn Fn(RunOptions) -> Outcome + Sync);

/// Runs both, the second elsewhere, and returns the outcome of the first. If they differ, its
/// violation is the difference, whatever it was before.
pub fn check(first: Run<'_>, second: Run<'_>) -> Outcome {
    let (one, two) = (record(first, 0..0), elsewhere(|| record(second, 0..0)));
    let Some(difference) = Difference::between(&one, &two) else { return one.outcome };
    let violation = match difference {
        Difference::Event(event) => explain(first, second, event),
        Difference::Outcome(sentence) => violation(sentence, one.outcome.events),
    };
    Outcome { violation: Some(violation), ..one.outcome }
}

/// What is kept of one run.
#[derive(Default)]
struct Tape {
    /// After each event.
    hashes: Vec<u64>,
    /// The lines of some events, each with the number of its event.
    lines: Vec<(u64, String)>,
}

struct Recording {
    outcome: Outcome,
    tape: Tape,
}

/// Runs it, and keeps the lines of the events that are `told`.
fn record(run: Run<'_>, told: Range<u64>) -> Recording {
    let tape = Rc::new(RefCell::new(Tape::default()));
    let mut options = RunOptions::default();
    let kept = Rc::clone(&tape);
    options.digest = Some(Box::new(move |hash| kept.borrow_mut().hashes.push(hash)));
    if !told.is_empty() {
        let kept = Rc::clone(&tape);
        options.trace = Some(Box::new(move |line| {
            let mut tape = kept.borrow_mut();
            let event = tape.hashes.len() as u64 + 1;
            if told.contains(&event) {
                tape.lines.push((event, line.to_owned()));
            }
        }));
    }
    let outcome = guarded(|| run(options));
    Recording { outcome, tape: tape.take() }
}

/// Does it on another thread, and with other holes in the memory.
fn elsewhere<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            let mut ballast: Vec<Vec<u8>> =
                (0..509_usize).map(|n| vec![0; n * 379 % 8_191 + 1]).collect();
            ballast.retain(|block| block.len() % 2 == 0);
            let value = body();
            black_box(ballast);
            value
        });
        done.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

enum Difference {
    /// From this event on, counted from 1.
    Event(u64),
    /// Only in what came of it, as a sentence says.
    Outcome(String),
}

impl Difference {
    fn between(one: &Recording, two: &Recording) -> Option<Difference> {
        let (left, right) = (&one.tape.hashes, &two.tape.hashes);
        let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        if same < left.len().max(right.len()) {
            return Some(Difference::Event(same as u64 + 1));
        }
        if one.outcome == two.outcome {
            return None;
        }
        let json = |outcome| serde_json::to_value(outcome).expect("an outcome has string keys");
        let (place, left, right) = unequal("", &json(&one.outcome), &json(&two.outcome));
        Some(Difference::Outcome(format!(
            "two runs of this seed agree on every event and not on `{place}`: {left} in the first, \
             {right} in the second"
        )))
    }
}

/// Where two values differ first, and in what.
fn unequal(place: &str, one: &Value, two: &Value) -> (String, String, String) {
    if let (Value::Object(left), Value::Object(right)) = (one, two) {
        let mut keys = left.keys().chain(right.keys());
        if let Some(key) = keys.find(|key| left.get(*key) != right.get(*key)) {
            let dot = if place.is_empty() { "" } else { "." };
            let of = |side: &serde_json::Map<_, _>| side.get(key).cloned().unwrap_or_default();
            return unequal(&format!("{place}{dot}{key}"), &of(left), &of(right));
        }
    }
    (place.to_owned(), one.to_string(), two.to_string())
}

/// The violation for two runs that differ from this event on; runs more pairs to get its lines.
fn explain(first: Run<'_>, second: Run<'_>, found: u64) -> Violation {
    let mut around = found;
    for _ in 0..PAIRS {
        let told = around.saturating_sub(MARGIN)..around.saturating_add(MARGIN);
        let one = record(first, told.clone());
        let two = elsewhere(|| record(second, told.clone()));
        match Difference::between(&one, &two) {
            Some(Difference::Event(event)) if told.contains(&event) => {
                return violation(tell(found, event, &one.tape, &two.tape), event);
            }
            Some(Difference::Event(event)) => around = event,
            Some(Difference::Outcome(_)) | None => {}
        }
    }
    let sentence = format!(
        "two runs of this seed differ from event {found} on, but {PAIRS} more pairs did not show it \
         again with their lines: what differs depends on more than the seed, such as a clock, an \
         address or a thread"
    );
    violation(sentence, found)
}

/// The sentence, and below it the lines of both runs.
fn tell(found: u64, event: u64, one: &Tape, two: &Tape) -> String {
    let lines = |tape: &Tape, event: u64| -> Vec<String> {
        let of_event = tape.lines.iter().filter(|(at, _)| *at == event);
        let lines: Vec<String> = of_event.map(|(_, line)| line.clone()).collect();
        if !lines.is_empty() {
            return lines;
        }
        let ended = (tape.hashes.len() as u64) < event;
        vec![format!("event {event}: {}", if ended { "the run has ended" } else { "no line" })]
    };
    let mut text = format!("two runs of this seed differ from event {event} on");
    if event != found {
        write!(text, " (from event {found} on in the pair before)").expect("a string takes all");
    }
    let (left, right) = (lines(one, event), lines(two, event));
    let bare = |lines: &[String]| lines.join(" ").trim().to_owned();
    write!(text, ": `{}` in the first, `{}` in the second\n\n", bare(&left), bare(&right))
        .expect("a string takes all");
    let mut block = |heading: &str, lines: &[String]| {
        writeln!(text, "{heading}\n  {}", lines.join("\n  ")).expect("a string takes all");
    };
    let before = event.saturating_sub(TOLD_BEFORE).max(1)..event;
    let before: Vec<String> = before.flat_map(|event| lines(one, event)).collect();
    if !before.is_empty() {
        block("the same in both:", &before);
    }
    block("in the first run:", &left);
    block("in the second run:", &right);
    text.truncate(text.trim_end().len());
    text
}

fn violation(message: String, step: u64) -> Violation {
    Violation { class: Class::Safety, checker: CHECKER, message, step, at_ns: 0 }
}

#[cfg(test)]
mod tests {
    use crate::kv::KeyValue;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::simulation;
    use crate::swarm;

    /// A run of so many events. `odd` says whether an event comes out in another way.
    fn pretend(mut options: RunOptions, events: u64, odd: impl Fn(u64) -> bool) -> Outcome {
        let mut hash = 7_u64;
        for event in 1..=events {
            let word = if odd(event) { "odd" } else { "even" };
            hash = hash.rotate_left(9) ^ (event * 2 + u64::from(odd(event)));
            if let Some(trace) = &mut options.trace {
                trace(&format!("{event:>6} n1 says {word}"));
                trace(&format!("{:>6} n2 hears it", ".."));
            }
            if let Some(digest) = &mut options.digest {
                digest(hash);
            }
        }
        Outcome { events, trace_hash: hash, ..Outcome::default() }
    }

    fn found(outcome: Outcome) -> Violation {
        let violation = outcome.violation.expect("the runs differ");
        assert_eq!((violation.class, violation.checker), (Class::Safety, CHECKER));
        violation
    }

    #[test]
    fn the_first_event_that_differs_is_named_with_the_lines_of_both_sides() {
        let second = |options| pretend(options, 20_000, |event| event >= 12_345);
        let violation = found(check(&|options| pretend(options, 20_000, |_| false), &second));
        assert_eq!(violation.step, 12_345);
        let expected = "\
two runs of this seed differ from event 12345 on: `12345 n1 says even     .. n2 hears it` in the \
first, `12345 n1 says odd     .. n2 hears it` in the second

the same in both:
   12341 n1 says even
      .. n2 hears it
   12342 n1 says even
      .. n2 hears it
   12343 n1 says even
      .. n2 hears it
   12344 n1 says even
      .. n2 hears it
in the first run:
   12345 n1 says even
      .. n2 hears it
in the second run:
   12345 n1 says odd
      .. n2 hears it";
        assert_eq!(violation.message, expected);
    }

    #[test]
    fn a_run_that_ends_early_differs_where_it_ends() {
        let short = |options| pretend(options, 9, |_| false);
        let violation = found(check(&|options| pretend(options, 10, |_| false), &short));
        assert_eq!(violation.step, 10);
        assert!(violation.message.contains("in the second run:\n  event 10: the run has ended"));
    }

    #[test]
    fn a_pair_that_differs_elsewhere_the_next_time_is_told_as_it_was_then() {
        for (then, far) in [(70, false), (60_000, true)] {
            let pairs = AtomicU64::new(0);
            let second = |options| {
                let from = if pairs.fetch_add(1, Ordering::SeqCst) == 0 { 50 } else { then };
                pretend(options, 70_000, |event| event >= from)
            };
            let violation = found(check(&|options| pretend(options, 70_000, |_| false), &second));
            assert_eq!(violation.step, then);
            let sentence = format!("from event {then} on (from event 50 on in the pair before)");
            assert!(violation.message.contains(&sentence), "{}", violation.message);
            assert!(violation.message.contains(&format!("`{then} n1 says odd")));
            let runs = if far { 3 } else { 2 };
            assert_eq!(pairs.load(Ordering::SeqCst), runs, "lines are kept around the difference");
        }
    }

    #[test]
    fn a_difference_that_does_not_come_back_is_reported_without_lines() {
        let pairs = AtomicU64::new(0);
        let second = |options| {
            let once = pairs.fetch_add(1, Ordering::SeqCst) == 0;
            pretend(options, 100, |event| once && event == 50)
        };
        let violation = found(check(&|options| pretend(options, 100, |_| false), &second));
        assert_eq!(violation.step, 50);
        assert!(violation.message.contains("5 more pairs did not show it again"));
        assert_eq!(pairs.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn equal_events_with_unequal_counts_differ_too() {
        let counted = |count| {
            move |options| {
                let mut outcome = pretend(options, 10, |_| false);
                outcome.faults.insert("crash", count);
                outcome
            }
        };
        let violation = found(check(&counted(3), &counted(4)));
        assert!(
            violation.message.ends_with("not on `faults.crash`: 3 in the first, 4 in the second")
        );
        let panics = |_: RunOptions| -> Outcome { panic!("at its start") };
        let same = check(&panics, &panics);
        assert_eq!(same.violation.unwrap().checker, "panic", "both do the same");
        found(check(&|options| pretend(options, 3, |_| false), &panics));
    }

    #[test]
    fn hash_keys_of_another_thread_show() {
        #[allow(clippy::disallowed_types, reason = "the test is about their random order")]
        let hasty = |options| {
            let map: std::collections::HashMap<u64, ()> = (0..64).map(|n| (n, ())).collect();
            let keys: Vec<u64> = map.into_keys().collect();
            pretend(options, 64, |event| keys[event as usize - 1].is_multiple_of(2))
        };
        assert_eq!(found(check(&hasty, &hasty)).checker, CHECKER);
    }

    #[test]
    fn a_real_run_is_determined_by_its_seed() {
        for seed in 0..4 {
            let run = |mut options| {
                simulation::run::<KeyValue>(&swarm::generate::<KeyValue>(seed), &mut options)
            };
            let alone = run(RunOptions::default());
            assert_eq!(check(&run, &run), alone, "and watching changes nothing");
            assert!(alone.events > 0);
        }
    }

    #[test]
    fn runs_of_two_seeds_are_told_apart_by_their_lines() {
        let of = |seed| {
            move |mut options| {
                simulation::run::<KeyValue>(&swarm::generate::<KeyValue>(seed), &mut options)
            }
        };
        let violation = found(check(&of(1), &of(2)));
        let (sentence, lines) = violation.message.split_once("\n\n").unwrap();
        assert!(sentence.contains(&format!("from event {} on", violation.step)), "{sentence}");
        assert!(lines.contains("in the first run:\n") && lines.contains("in the second run:\n"));
    }
}
