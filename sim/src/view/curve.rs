//! When was it sealed that a run fails? The share of its continuations that fail, over its events.
//!
//! From an event on, the same plan is run again and again with other chance ([`Fork`]): that is what
//! else might have happened, given all that has happened up to there. As long as few of these
//! continuations fail, the failure is still open; where the share jumps, something happened that it
//! follows from. So the curve says where to look, which is often far before the failure is seen.
//!
//! The first half of the points is spread evenly over the run. Each further one halves the stretch
//! over which the share changes most, so a jump is pinned down to a single event. Continuations are
//! numbered, and those with the same number use the same chance whatever the event is: so the shares
//! at two events differ because of what happened between them.
//!
//! Left out: other plans. What the plan itself makes inevitable fails with any chance, and the
//! curve of such a run is flat.

use std::cmp::Reverse;

use crate::caught::guarded;
use crate::outcome::{Class, Outcome};
use crate::parallel;
use crate::plan::Plan;
use crate::recording::StepNumber;
use crate::shrink::Run;
use crate::simulation::{Fork, RunOptions};

/// So many points a curve has, unless the run has fewer events.
pub const POINTS: usize = 50;

/// So many of them are spread evenly.
const EVEN: usize = 25;

/// Which continuations of a run fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// How many there are from each event on.
    pub runs: u32,
    /// In the order of the events.
    pub points: Vec<Point>,
}

/// What comes of the continuations from one event on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The last event that they share with the run; 0 is the beginning.
    pub step: StepNumber,
    /// How many break safety or liveness. Those that nobody could judge in time do not count.
    pub failed: u32,
    /// How many break what the run broke: the same checker speaks.
    pub same: u32,
}

/// The run that is to be continued.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// Its last event, or the one after which the violation was seen.
    pub last: StepNumber,
    /// Who spoke, if it failed.
    pub checker: Option<&'a str>,
}

/// Continues a run `runs` times from each of some events on, by means of `run`, on `jobs` threads. The
/// result does not depend on `jobs`. `report` hears how many continuations have been run, and how
/// many there may be.
///
/// # Panics
/// If there are no jobs, if `report` panics, or if the system refuses a thread.
pub fn curve(
    original: &Original<'_>,
    runs: u32,
    jobs: usize,
    run: Run<'_>,
    report: &mut dyn FnMut(u64, u64),
) -> Curve {
    assert!(jobs > 0, "continuing a run needs a thread");
    let even = evenly(original.last);
    let most = POINTS.min(original.last as usize + 1) as u64 * u64::from(runs);
    let mut points: Vec<Point> = Vec::new();
    let mut ask = |points: &mut Vec<Point>, at: usize, step| {
        report(points.len() as u64 * u64::from(runs), most);
        points.insert(at, point(original, step, runs, jobs, run));
    };
    for (at, step) in even.into_iter().enumerate() {
        ask(&mut points, at, step);
    }
    while points.len() < POINTS {
        let Some((at, step)) = between(&points) else { break };
        ask(&mut points, at, step);
    }
    Curve { runs, points }
}

/// The events to begin with: all of a short run.
fn evenly(last: StepNumber) -> Vec<StepNumber> {
    if (last as usize) < POINTS {
        return (0..=last).collect();
    }
    let parts = EVEN as u64 - 1;
    (0..=parts).map(|part| (part * u64::from(last) / parts) as StepNumber).collect()
}

/// The event to look at next, and its place: in the middle of the neighbours that differ most; among
/// equals of those that are farthest apart, then of the first. `None` if there is nothing left.
fn between(points: &[Point]) -> Option<(usize, StepNumber)> {
    let pairs = points.windows(2).map(|pair| (pair[0], pair[1])).enumerate();
    let apart = pairs.filter(|(_, (one, other))| other.step - one.step > 1);
    let (at, (one, other)) = apart.max_by_key(|(at, (one, other))| {
        (one.failed.abs_diff(other.failed), other.step - one.step, Reverse(*at))
    })?;
    Some((at + 1, one.step + (other.step - one.step) / 2))
}

fn point(original: &Original<'_>, step: StepNumber, runs: u32, jobs: usize, run: Run<'_>) -> Point {
    let salts: Vec<u64> = (1..=runs.into()).collect();
    let judge = |salt: &u64| {
        let fork = Some(Fork { after: step.into(), salt: *salt });
        let options = RunOptions { fork, ..RunOptions::default() };
        let outcome = guarded(|| run(original.plan, options));
        failed(&outcome).map(|checker| Some(checker) == original.checker)
    };
    let failed: Vec<bool> =
        parallel::judge(&salts, jobs, &judge, &|_| false).into_iter().flatten().flatten().collect();
    let same = failed.iter().filter(|same| **same).count();
    Point { step, failed: failed.len() as u32, same: same as u32 }
}

/// Who spoke, if it failed.
fn failed(outcome: &Outcome) -> Option<&'static str> {
    let violation = outcome.violation.as_ref().filter(|found| found.class != Class::Unknown)?;
    Some(violation.checker)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::outcome::Violation;

    fn broken(class: Class, checker: &'static str) -> Outcome {
        let violation = Violation { class, checker, message: String::new(), step: 0, at_ns: 0 };
        Outcome { violation: Some(violation), ..Outcome::default() }
    }

    /// Fails in the same way from event 700 on, one in ten from event 300 on, and in another one in
    /// five times before.
    fn fails(_: &Plan, options: RunOptions) -> Outcome {
        let Fork { after, salt } = options.fork.expect("a continuation");
        match (after, salt % 10) {
            (700.., _) | (300.., 1) => broken(Class::Safety, "sealed"),
            (_, 1) => broken(Class::Liveness, "other"),
            (_, 2) => panic!("one in ten"),
            (_, 3) => broken(Class::Unknown, "sealed"),
            _ => Outcome::default(),
        }
    }

    fn found(last: StepNumber, jobs: usize, report: &mut dyn FnMut(u64, u64)) -> Curve {
        let plan = Plan::new("any", 0);
        let original = Original { plan: &plan, last, checker: Some("sealed") };
        curve(&original, 20, jobs, &fails, report)
    }

    #[test]
    fn a_jump_is_pinned_down_to_the_event() {
        let curve = found(1000, 1, &mut |_, _| ());
        assert_eq!((curve.runs, curve.points.len()), (20, POINTS));
        assert!(curve.points.is_sorted_by_key(|point| point.step));
        let ends = [curve.points[0].step, curve.points[POINTS - 1].step];
        assert_eq!(ends, [0, 1000]);
        let find = |step| curve.points.iter().find(|point| point.step == step).copied();
        assert_eq!(find(699), Some(Point { step: 699, failed: 4, same: 2 }));
        assert_eq!(find(700), Some(Point { step: 700, failed: 20, same: 20 }));
        assert_eq!(curve.points[0], Point { step: 0, failed: 4, same: 0 });
    }

    #[test]
    fn the_curve_does_not_depend_on_the_number_of_threads() {
        assert_eq!(found(100_000, 1, &mut |_, _| ()), found(100_000, 4, &mut |_, _| ()));
    }

    #[test]
    fn a_short_run_is_looked_at_event_by_event() {
        for last in [0, 1, 7, 48, 49, 50] {
            let curve = found(last, 1, &mut |_, _| ());
            let steps: Vec<StepNumber> = curve.points.iter().map(|point| point.step).collect();
            assert_eq!(steps.len(), POINTS.min(last as usize + 1), "{last}");
            assert!(steps.is_sorted() && steps.first() == Some(&0), "{steps:?}");
            assert_eq!(steps.last(), Some(&last));
        }
    }

    #[test]
    fn a_flat_curve_stays_evenly_spread() {
        let curve = found(299, 1, &mut |_, _| ());
        let gaps = curve.points.windows(2).map(|pair| pair[1].step - pair[0].step);
        assert!(gaps.clone().all(|gap| (3..=7).contains(&gap)), "{:?}", gaps.collect::<Vec<_>>());
    }

    #[test]
    fn progress_is_told_of_all_that_is_run() {
        let asked = AtomicU64::new(0);
        let plan = Plan::new("any", 0);
        let original = Original { plan: &plan, last: 200, checker: None };
        let run = |plan: &Plan, options: RunOptions| {
            asked.fetch_add(1, Ordering::Relaxed);
            fails(plan, options)
        };
        let mut told = Vec::new();
        let curve = curve(&original, 20, 2, &run, &mut |done, of| {
            assert_eq!(of, 1000);
            told.push(done);
        });
        assert_eq!(asked.into_inner(), 1000);
        assert_eq!(told, (0..50).map(|point| point * 20).collect::<Vec<_>>());
        assert!(curve.points.iter().all(|point| point.same == 0), "it did not fail");
    }
}
