//! Runs many seeds on many threads, and adds up what came of them.
//!
//! A run is a pure function of its seed, so threads share nothing but a counter that deals out
//! positions. Outcomes are folded in seed order, whatever order they finish in: the result, its
//! hash included, does not depend on the number of jobs. Memory is bounded: a worker that is more
//! than [`WINDOW`] positions ahead of the slowest one waits, so that few outcomes are ever held back.
//!
//! - `seeds.rs` says which seeds, and which machine's part of them,
//! - `file.rs` keeps a row for each seed, so that a campaign can be stopped, resumed and merged,
//! - `merge.rs` adds up the files of many shards,
//! - `lines.rs` reads them, in bounded memory and with an eye on what a crash leaves,
//! - `canary.rs` fails seeds on purpose, to prove that a failure is reported.
//!
//! This is host code: the threads and the wall clock are here, and never inside a run.

#![allow(
    clippy::disallowed_methods,
    reason = "a campaign runs on the host: its threads and its clock never reach a run"
)]

mod canary;
mod file;
mod lines;
mod merge;
mod seeds;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

pub use canary::{CANARY, Canaries, Canary};
pub use file::{FileError, Kept, Manifest, Settings};
pub use merge::{Merged, merge};
pub use seeds::{MAX_SEEDS, Seeds, Shard, Whole};

use crate::caught::guarded;
use crate::histogram::Histogram;
use crate::outcome::{Class, Outcome, Recovery, Violation};
use crate::rng::fold_hash;

/// The setting with the hash of the program, for a service of another crate.
pub const PROGRAM: &str = "program";
/// The name under which the file of a campaign says that it went beyond a quorum.
pub const BEYOND_QUORUM: &str = "beyond-quorum";

/// The name under which the file of a campaign says which bug was planted.
pub const BUG: &str = "bug";

/// How far the fastest worker may be ahead of the slowest, in seeds.
pub const WINDOW: u64 = 4096;

/// A seed that did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What broke.
    pub violation: Violation,
}

/// What came of a campaign. All but `wall`, `read_back` and `interrupted` is a pure function of the
/// seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// Those that failed, in seed order.
    pub failed: Vec<Failure>,
    /// A hash over every (seed, trace hash), in seed order.
    pub trace_hash: u64,
    /// Events processed.
    pub events: u64,
    /// Raft messages delivered.
    pub messages: u64,
    /// Client operations acknowledged.
    pub acknowledged: u64,
    /// Simulated nanoseconds; a large campaign simulates more of them than 64 bits hold.
    pub sim_ns: u128,
    /// Faults injected by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Waypoints reached.
    pub waypoints: BTreeMap<&'static str, u64>,
    /// How often each check was made with its antecedent true.
    pub checks: BTreeMap<&'static str, u64>,
    /// The most that any node of any run kept of each bounded thing.
    pub peaks: BTreeMap<&'static str, u64>,
    /// How long clusters took to recover.
    pub recovery: RecoveryTimes,
    /// How long it took on this machine.
    pub wall: Duration,
    /// How many of the seeds were run before and read back from a file.
    pub read_back: u64,
    /// Whether it was ended before its last seed.
    pub interrupted: bool,
    /// Which seeds were to fail on purpose.
    pub canary: Canary,
    /// The disks were damaged beyond what a quorum can repair, too.
    pub beyond_quorum: bool,
    /// The bug that was planted, by its name.
    pub bug: Option<String>,
    /// How many of the seeds were to fail on purpose.
    pub canaries_due: u64,
}

/// The recoveries of many runs; see [`Recovery`] for what is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryTimes {
    /// Until there was a leader.
    pub leader: Histogram,
    /// Until the requests that were open were answered.
    pub answered: Histogram,
    /// Until all was answered and all agreed.
    pub converged: Histogram,
    /// How long a healthy quorum had no leader.
    pub unled: Histogram,
}

impl RecoveryTimes {
    /// Adds one recovery.
    pub fn record(&mut self, recovery: &Recovery) {
        let Recovery { leader_ns, answered_ns, converged_ns, unled_ns } = *recovery;
        leader_ns.into_iter().for_each(|ns| self.leader.record(ns));
        answered_ns.into_iter().for_each(|ns| self.answered.record(ns));
        converged_ns.into_iter().for_each(|ns| self.converged.record(ns));
        unled_ns.into_iter().for_each(|ns| self.unled.record(ns));
    }

    /// Adds those of another campaign.
    pub fn merge(&mut self, other: &RecoveryTimes) {
        self.leader.merge(&other.leader);
        self.answered.merge(&other.answered);
        self.converged.merge(&other.converged);
        self.unled.merge(&other.unled);
    }

    /// Each distribution with its name.
    pub fn named(&self) -> [(&'static str, &Histogram); 4] {
        [
            ("leader", &self.leader),
            ("answered", &self.answered),
            ("converged", &self.converged),
            ("unled", &self.unled),
        ]
    }
}

impl Totals {
    /// Seeds that passed.
    pub fn passed(&self) -> u64 {
        self.seeds - self.failed.len() as u64
    }

    /// The failure to report: the most severe class, and the first seed within it. One that was
    /// made on purpose comes last.
    pub fn worst(&self) -> Option<&Failure> {
        let on_purpose = |failure: &Failure| failure.violation.checker == CANARY;
        self.failed.iter().min_by_key(|failure| (on_purpose(failure), failure.violation.class))
    }

    /// The most severe class of all failures.
    pub fn worst_class(&self) -> Option<Class> {
        self.failed.iter().map(|failure| failure.violation.class).min()
    }

    /// What became of the seeds that were to fail on purpose; `None` if none were to.
    pub fn canaries(&self) -> Option<Canaries> {
        self.canary.is_on().then(|| Canaries::count(self))
    }

    /// Adds the outcome of the next seed. Must be called in seed order.
    pub fn fold(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.canaries_due += u64::from(self.canary.takes(seed));
        self.trace_hash = fold_hash(fold_hash(self.trace_hash, seed), outcome.trace_hash);
        self.events += outcome.events;
        self.messages += outcome.messages;
        self.acknowledged += outcome.acknowledged;
        self.sim_ns += u128::from(outcome.sim_ns);
        add(&mut self.faults, &outcome.faults);
        add(&mut self.waypoints, &outcome.waypoints);
        add(&mut self.checks, &outcome.checks);
        for (name, peak) in &outcome.peaks {
            let most = self.peaks.entry(name).or_default();
            *most = (*most).max(*peak);
        }
        self.recovery.record(&outcome.recovery);
        if let Some(violation) = outcome.violation {
            self.failed.push(Failure { seed, violation });
        }
    }
}

fn add(sums: &mut BTreeMap<&'static str, u64>, counts: &BTreeMap<&'static str, u64>) {
    for (name, count) in counts {
        *sums.entry(name).or_default() += count;
    }
}

/// How many threads this machine runs at once; 1 if it does not say.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs every seed on `jobs` threads (at least 1) and folds the outcomes. `progress` is called on
/// the calling thread after each fold, in seed order.
///
/// Panics if `progress` does, or if the system refuses a thread.
pub fn run(
    seeds: &Seeds,
    jobs: usize,
    run_seed: &(dyn Fn(u64) -> Outcome + Sync),
    progress: &mut dyn FnMut(&Totals),
) -> Totals {
    let mut nothing = |_, _: &Outcome| Ok::<(), Infallible>(());
    let mut progress = |totals: &Totals| {
        progress(totals);
        ControlFlow::Continue(())
    };
    go_on(seeds, jobs, run_seed, Totals::default(), &mut nothing, &mut progress)
        .unwrap_or_else(|never| match never {})
}

/// Does what [`run`] does for the seeds behind those that `earlier` has added up, and adds to it.
/// `record` gets each outcome on the calling thread, in seed order, before it is folded. If `progress`
/// breaks, the seeds that are being run are finished and thrown away, and the result is what was
/// folded until then.
///
/// # Errors
/// With the first error of `record`, which ends the campaign.
///
/// # Panics
/// If `progress` or `record` does, or if the system refuses a thread.
pub fn go_on<E>(
    seeds: &Seeds,
    jobs: usize,
    run_seed: &(dyn Fn(u64) -> Outcome + Sync),
    earlier: Totals,
    record: &mut dyn FnMut(u64, &Outcome) -> Result<(), E>,
    progress: &mut dyn FnMut(&Totals) -> ControlFlow<()>,
) -> Result<Totals, E> {
    assert!(jobs > 0, "a campaign needs a thread");
    let started = Instant::now();
    let count = seeds.len();
    let mut totals = earlier;
    let next = AtomicU64::new(totals.seeds);
    let gate = Gate::default();
    gate.folded(totals.seeds);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..count.saturating_sub(totals.seeds).min(jobs as u64) {
            let (sender, gate, next) = (sender.clone(), &gate, &next);
            scope.spawn(move || {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    if position >= count || !gate.enter(position) {
                        break;
                    }
                    let outcome = guarded(|| run_seed(seeds.get(position)));
                    if sender.send((position, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let _open = OpenOnDrop(&gate);
        let mut early = BTreeMap::new();
        while totals.seeds < count {
            let (position, outcome) = receiver.recv().expect("a worker died outside of a run");
            early.insert(position, outcome);
            while let Some(outcome) = early.remove(&totals.seeds) {
                let seed = seeds.get(totals.seeds);
                record(seed, &outcome)?;
                totals.fold(seed, outcome);
                if progress(&totals).is_break() {
                    totals.interrupted = totals.seeds < count;
                    return Ok(());
                }
            }
            gate.folded(totals.seeds);
        }
        Ok(())
    })?;
    totals.wall = started.elapsed();
    Ok(totals)
}

/// Keeps workers within [`WINDOW`] positions of what has been folded. The worker of the lowest
/// position is always inside the window, so somebody can always go on.
#[derive(Default)]
struct Gate {
    folded: Mutex<u64>,
    moved: Condvar,
}

/// The position that lets everybody through: the campaign is over.
const OVER: u64 = u64::MAX;

impl Gate {
    /// Waits until `position` is inside the window; false if the campaign is over.
    fn enter(&self, position: u64) -> bool {
        let folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let folded = self
            .moved
            .wait_while(folded, |folded| position >= folded.saturating_add(WINDOW))
            .unwrap_or_else(PoisonError::into_inner);
        *folded != OVER
    }

    fn folded(&self, count: u64) {
        *self.folded.lock().unwrap_or_else(PoisonError::into_inner) = count;
        self.moved.notify_all();
    }
}

/// Lets the workers end when the folding thread panics; the scope would wait for them for ever.
struct OpenOnDrop<'a>(&'a Gate);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.folded(OVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seventh seed fails, every eleventh panics; early seeds take longest.
    fn pretend(seed: u64) -> Outcome {
        for _ in 0..(200u64.saturating_sub(seed)) * 50 {
            std::hint::black_box(fold_hash(seed, 1));
        }
        assert!(seed % 11 != 5, "seed {seed} is rotten");
        let class = if seed.is_multiple_of(2) { Class::Liveness } else { Class::Safety };
        let violation = Violation {
            class,
            checker: "pretend",
            message: format!("seed {seed}"),
            step: seed,
            at_ns: 0,
        };
        Outcome {
            violation: (seed % 7 == 3).then_some(violation),
            trace_hash: fold_hash(seed, 9),
            events: seed,
            messages: 1,
            acknowledged: 2,
            sim_ns: 1_000_000_000,
            faults: BTreeMap::from([("crash", seed % 3)]),
            waypoints: BTreeMap::from([("elected", 1)]),
            checks: BTreeMap::from([("one-vote", 5)]),
            peaks: BTreeMap::from([("reads", seed)]),
            recovery: Recovery { leader_ns: Some(seed), ..Recovery::default() },
            ..Outcome::default()
        }
    }

    fn campaign(seeds: &Seeds, jobs: usize) -> Totals {
        let totals = run(seeds, jobs, &pretend, &mut |_| ());
        Totals { wall: Duration::ZERO, ..totals }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_jobs() {
        let seeds = Seeds::range(0, 300).unwrap();
        let one = campaign(&seeds, 1);
        for jobs in [2, 7, 400] {
            assert_eq!(campaign(&seeds, jobs), one);
        }
        assert_eq!(one.seeds, 300);
        let expected: Vec<u64> = (0..300).filter(|seed| seed % 7 == 3 || seed % 11 == 5).collect();
        let failed: Vec<u64> = one.failed.iter().map(|failure| failure.seed).collect();
        assert_eq!(failed, expected, "failures come in seed order");
        let runs = 300 - (0..300).filter(|seed| seed % 11 == 5).count() as u64;
        assert_eq!((one.messages, one.acknowledged), (runs, runs * 2));
        assert_eq!(one.checks["one-vote"], runs * 5);
        assert_eq!(one.peaks["reads"], 299, "a peak is not a sum");
        let recovered = one.recovery.named().map(|(_, times)| times.count());
        assert_eq!(recovered, [runs, 0, 0, 0]);
        assert_eq!(one.sim_ns, u128::from(runs) * 1_000_000_000);
    }

    #[test]
    fn the_hash_covers_seeds_outcomes_and_their_order() {
        let hash = |text: &str| campaign(&Seeds::parse_file("seeds", text).unwrap(), 2).trace_hash;
        assert_ne!(hash("1\n2\n"), hash("2\n1\n"));
        assert_ne!(hash("1\n2\n"), hash("1\n4\n"));
        assert_ne!(hash("5\n"), hash("16\n"), "panics with different messages differ");
        assert_eq!(hash("1\n2\n"), hash("1\n2\n"));
    }

    #[test]
    fn a_panic_is_a_failure_of_its_seed() {
        let totals = campaign(&Seeds::range(4, 7).unwrap(), 2);
        assert_eq!(totals.passed(), 2);
        let violation = &totals.failed[0].violation;
        assert_eq!((totals.failed[0].seed, violation.checker), (5, "panic"));
        assert_eq!(violation.class, Class::Safety);
        let start = "the run panicked: seed 5 is rotten (at ";
        assert!(violation.message.starts_with(start), "{}", violation.message);
        assert!(violation.message.contains("campaign.rs:"), "{}", violation.message);
    }

    #[test]
    fn the_worst_failure_is_the_first_of_the_most_severe_class() {
        let seeds = Seeds::parse_file("seeds", "10\n24\n17\n31\n").unwrap();
        let totals = campaign(&seeds, 3);
        assert_eq!(totals.failed.len(), 4);
        assert_eq!(totals.worst().unwrap().seed, 17, "10 and 24 only miss liveness");
    }

    #[test]
    fn few_outcomes_are_held_back_by_a_slow_seed() {
        let started = AtomicU64::new(0);
        let most_ahead = AtomicU64::new(0);
        let seeds = Seeds::range(0, WINDOW * 3).unwrap();
        let slow_first = |seed: u64| {
            if seed == 0 {
                // The others run into the edge of the window, and no further.
                while started.load(Ordering::SeqCst) < WINDOW - 1 {
                    std::thread::yield_now();
                }
                std::thread::sleep(Duration::from_millis(50));
                most_ahead.store(started.load(Ordering::SeqCst), Ordering::SeqCst);
            } else {
                started.fetch_add(1, Ordering::SeqCst);
            }
            Outcome::default()
        };
        let totals = run(&seeds, 4, &slow_first, &mut |_| ());
        assert_eq!(totals.seeds, WINDOW * 3);
        assert_eq!(most_ahead.load(Ordering::SeqCst), WINDOW - 1);
    }

    #[test]
    fn a_panic_of_the_harness_ends_the_campaign_instead_of_hanging_it() {
        let seeds = Seeds::range(0, WINDOW * 4).unwrap();
        let result = crate::caught::caught(|| {
            run(&seeds, 3, &|_| Outcome::default(), &mut |totals| {
                assert!(totals.seeds < 10, "the bar broke");
            })
        });
        assert_eq!(result.unwrap_err().message, "the bar broke");
    }

    #[test]
    fn progress_sees_every_seed_in_order() {
        let mut seen = Vec::new();
        let seeds = Seeds::range(0, 50).unwrap();
        run(&seeds, 4, &|_| Outcome::default(), &mut |totals| seen.push(totals.seeds));
        assert_eq!(seen, (1..=50).collect::<Vec<u64>>());
    }
}
