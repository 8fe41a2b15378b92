//! The search: tries candidates in order and keeps the best plan.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::data::Plainer;
use super::weight::Weight;
use super::{DoesNotFail, Fingerprint, Options, Progress, Report, Run, Shrunk, Slip, rename, told};
use crate::caught::guarded;
use crate::outcome::{Class, Outcome, Violation};
use crate::parallel;
use crate::plan::{Found, Plan};
use crate::simulation::RunOptions;
use crate::version::REVISION;

/// A candidate may have this many times the events of the best plan's run ...
const LONGER: u64 = 2;
/// ... and so many more: a very short run may grow by an election or two.
const GRACE: u64 = 2_000;

/// A round trip may take this part of an election timeout, in thousandths, in any plan.
const CALM_HASTE: u64 = 100;

/// Which part of the shortest election timeout a round trip on a slow link takes, in thousandths.
fn haste(plan: &Plan) -> u64 {
    let latency = plan.network.latency;
    let there_us = (latency.min_us + latency.mean_extra_us) * u64::from(plan.network.spread);
    2 * there_us * 1000 / (u64::from(plan.cluster.election_ticks[0]) * plan.cluster.tick_us)
}

/// What is known of a candidate's run.
#[derive(Clone)]
enum Known {
    /// It fails in the right way.
    Fails(Box<Outcome>),
    /// It ends in another way, after so many events.
    Ends(u64, Option<Box<Violation>>),
    /// It was still clean after so many events.
    Cut(u64),
}

pub(super) struct Search<'a> {
    options: &'a Options,
    run: Run<'a>,
    report: Report<'a>,
    plainer: Plainer,
    best: Plan,
    weight: Weight,
    outcome: Outcome,
    fingerprint: Fingerprint,
    found: Found,
    bound_us: u64,
    haste: u64,
    /// The plan names a bug, and does not fail without it: so must whatever becomes of it.
    controls: bool,
    known: BTreeMap<u64, Known>,
    judged: BTreeSet<u64>,
    slips: BTreeMap<Fingerprint, Slip>,
    adopted: u64,
    reported: u64,
    pass: &'static str,
    stopped: bool,
}

impl<'a> Search<'a> {
    /// Begins with a plan that must fail.
    pub fn begin(
        plan: &Plan,
        options: &'a Options,
        run: Run<'a>,
        report: Report<'a>,
        plainer: Plainer,
    ) -> Result<Self, DoesNotFail> {
        let outcome = run_guarded(run, plan, u64::MAX);
        let Some(violation) = &outcome.violation else { return Err(DoesNotFail) };
        let found = plan.found.clone().unwrap_or_else(|| Found {
            seed: options.seed.unwrap_or(plan.seed),
            rev: REVISION.to_owned(),
            events_before: outcome.events,
        });
        let mut search = Search {
            options,
            run,
            report,
            plainer,
            weight: Weight::with(plan, (plainer.names)(plan)),
            fingerprint: Fingerprint::of(violation),
            best: plan.clone(),
            outcome,
            found,
            bound_us: plan.end.bound_us,
            haste: haste(plan),
            controls: false,
            known: BTreeMap::new(),
            judged: BTreeSet::new(),
            slips: BTreeMap::new(),
            adopted: 0,
            reported: u64::MAX,
            pass: "begin",
            stopped: false,
        };
        search.controls = plan.bug.is_some()
            && !fails_without_bug(run, plan, search.limit(), &search.fingerprint);
        search.fix_end();
        Ok(search)
    }

    /// The part that depends on the service.
    pub fn plainer(&self) -> Plainer {
        self.plainer
    }

    fn weight_of(&self, plan: &Plan) -> Weight {
        Weight::with(plan, (self.plainer.names)(plan))
    }

    /// Says when the faults stop, if the plan leaves that to its last row: a row that is taken out
    /// must not move the end of the storm as well. (A pass may go back to that later.)
    fn fix_end(&mut self) {
        let mut plan = self.best.clone();
        plan.end.heal_at_us = Some(plan.heal_at_us());
        if plan.check().is_err() {
            return;
        }
        let outcome = run_guarded(self.run, &plan, self.limit());
        let violation = outcome.violation.as_ref();
        if violation.is_some_and(|violation| Fingerprint::of(violation) == self.fingerprint) {
            self.weight = self.weight_of(&plan);
            (self.best, self.outcome) = (plan, outcome);
        }
    }

    /// The lightest plan so far that fails in the right way.
    pub fn best(&self) -> &Plan {
        &self.best
    }

    /// What its run broke.
    pub fn violation(&self) -> &Violation {
        self.outcome.violation.as_ref().expect("the best plan fails")
    }

    /// Whether what is searched for is a stall.
    pub fn is_stall(&self) -> bool {
        self.fingerprint.class == Class::Liveness
    }

    /// How many other seeds may be tried.
    pub fn seeds(&self) -> u64 {
        self.options.seeds
    }

    /// How many candidates were adopted.
    pub fn adopted(&self) -> u64 {
        self.adopted
    }

    /// Whether the caller has enough.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The next pass begins.
    pub fn enter(&mut self, pass: &'static str) {
        self.pass = pass;
    }

    /// Runs the best plan, noting what chance does to its messages.
    pub fn chances(&self) -> Vec<crate::plan::NetRow> {
        let rows = Rc::new(Cell::new(Vec::new()));
        let kept = Rc::clone(&rows);
        let chances = Some(Box::new(move |rows| kept.set(rows)) as crate::simulation::Chances);
        let options =
            RunOptions { until_step: Some(self.limit()), chances, ..RunOptions::default() };
        guarded(|| (self.run)(&self.best, options));
        rows.take()
    }

    fn limit(&self) -> u64 {
        self.outcome.events.saturating_mul(LONGER).saturating_add(GRACE)
    }

    /// Adopts the first candidate that is lighter than the best plan and fails in the right way;
    /// returns its position.
    pub fn first(&mut self, count: usize, make: &dyn Fn(usize) -> Option<Plan>) -> Option<usize> {
        let (at, plan, outcome) =
            self.find(count, make, &|search, plan| search.is_lighter(plan))?;
        self.adopt(plan, outcome);
        Some(at)
    }

    /// Tries these, and adopts the first that serves.
    pub fn try_all(&mut self, candidates: Vec<Plan>) -> Option<usize> {
        self.first(candidates.len(), &|at| Some(candidates[at].clone()))
    }

    /// Makes candidates of the best plan as long as one of them serves.
    pub fn repeat(&mut self, make: &dyn Fn(&Plan) -> Vec<Plan>) {
        while self.try_all(make(&self.best.clone())).is_some() {}
    }

    /// Whether this plan is lighter than the best one.
    pub fn is_lighter(&self, plan: &Plan) -> bool {
        self.weight_of(plan) < self.weight
    }

    /// Adopts a plan that [`Search::find`] has found.
    pub fn adopt(&mut self, plan: Plan, outcome: Outcome) {
        self.weight = self.weight_of(&plan);
        (self.best, self.outcome) = (plan, outcome);
        self.adopted += 1;
        self.tell();
    }

    /// The first candidate that is `worth` a run and fails in the right way.
    pub fn find(
        &mut self,
        count: usize,
        make: &dyn Fn(usize) -> Option<Plan>,
        worth: &dyn Fn(&Self, &Plan) -> bool,
    ) -> Option<(usize, Plan, Outcome)> {
        let window = if self.options.jobs == 1 { 1 } else { 2 * self.options.jobs };
        let mut next = 0;
        while next < count && !self.stopped {
            let mut batch = Vec::new();
            while next < count && batch.len() < window {
                let whole = |plan: Plan| match plan.check() {
                    Ok(()) => plan,
                    Err(_) => rename::repaired(&plan),
                };
                let candidate = make(next).map(whole).filter(|plan| worth(self, plan));
                if let Some(plan) = candidate.filter(|plan| self.may_run(plan)) {
                    batch.push((next, plan.hash(), plan));
                }
                next += 1;
            }
            if let Some(found) = self.judge(batch) {
                return Some(found);
            }
        }
        None
    }

    /// Whether a plan can be run, and would not stall however good the code is: with election
    /// timeouts that are too short for its links, any cluster does.
    fn may_run(&self, plan: &Plan) -> bool {
        let haste = haste(plan);
        plan.check().is_ok() && (!self.is_stall() || haste <= self.haste.max(CALM_HASTE))
    }

    fn judge(&mut self, batch: Vec<(usize, u64, Plan)>) -> Option<(usize, Plan, Outcome)> {
        let (limit, run, known) = (self.limit(), self.run, &self.known);
        let (right, controls) = (&self.fingerprint, self.controls);
        let results = parallel::judge(
            &batch,
            self.options.jobs,
            &|(_, hash, plan)| match known.get(hash) {
                Some(known) if known.tells(limit) => known.clone(),
                _ => match Known::of(run_guarded(run, plan, limit), limit, right) {
                    Known::Fails(outcome)
                        if controls && fails_without_bug(run, plan, limit, right) =>
                    {
                        Known::Ends(outcome.events, None)
                    }
                    known => known,
                },
            },
            &|result| result.fails(limit),
        );
        let mut found = None;
        for ((at, hash, plan), result) in batch.into_iter().zip(results) {
            let Some(result) = result else { continue };
            // What was run ahead is remembered, but does not count yet.
            if found.is_none() {
                self.judged.insert(hash);
                if let Known::Ends(events, Some(violation)) = &result
                    && *events <= limit
                {
                    self.note_slip(&plan, violation);
                }
                if result.fails(limit)
                    && let Known::Fails(outcome) = &result
                {
                    found = Some((at, plan, Outcome::clone(outcome)));
                }
            }
            self.known.insert(hash, result);
        }
        self.tell();
        found
    }

    fn note_slip(&mut self, plan: &Plan, violation: &Violation) {
        // A stall within a shorter bound is no finding.
        if violation.class == Class::Liveness && plan.end.bound_us < self.bound_us {
            return;
        }
        let found = &self.found;
        self.slips.entry(Fingerprint::of(violation)).or_insert_with(|| Slip {
            plan: told(plan, violation, found),
            violation: violation.clone(),
        });
    }

    fn tell(&mut self) {
        let best = told(&self.best, self.violation(), &self.found);
        let progress = Progress {
            best: &best,
            improved: self.reported != self.adopted,
            events: self.outcome.events,
            tried: self.judged.len() as u64,
            pass: self.pass,
        };
        self.reported = self.adopted;
        self.stopped |= (self.report)(&progress).is_break();
    }

    pub fn finish(self) -> Shrunk {
        Shrunk {
            plan: told(&self.best, self.violation(), &self.found),
            events_before: self.found.events_before,
            tried: self.judged.len() as u64,
            adopted: self.adopted,
            slips: self.slips.into_values().collect(),
            minimal: !self.stopped,
            outcome: self.outcome,
        }
    }
}

impl Known {
    fn of(outcome: Outcome, limit: u64, right: &Fingerprint) -> Known {
        match outcome.violation {
            Some(ref violation) if Fingerprint::of(violation) == *right => {
                Known::Fails(Box::new(outcome))
            }
            None if outcome.events >= limit => Known::Cut(limit),
            violation => Known::Ends(outcome.events, violation.map(Box::new)),
        }
    }

    /// Whether a run to this limit would tell nothing else: what was run ahead of its turn, under
    /// another limit, must not make a difference.
    fn tells(&self, limit: u64) -> bool {
        match self {
            Known::Fails(_) | Known::Ends(..) => true,
            Known::Cut(at) => *at >= limit,
        }
    }

    fn fails(&self, limit: u64) -> bool {
        matches!(self, Known::Fails(outcome) if outcome.events <= limit)
    }
}

/// Whether the bug that a plan names has nothing to do with its failure.
fn fails_without_bug(run: Run<'_>, plan: &Plan, limit: u64, right: &Fingerprint) -> bool {
    let outcome = run_guarded(run, &Plan { bug: None, ..plan.clone() }, limit);
    outcome.violation.is_some_and(|violation| Fingerprint::of(&violation) == *right)
}

/// Runs a plan up to this event. The run of a panic knows how far it came.
fn run_guarded(run: Run<'_>, plan: &Plan, limit: u64) -> Outcome {
    let count = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&count);
    let digest =
        Some(Box::new(move |_| counted.set(counted.get() + 1)) as crate::simulation::Digest);
    let options = RunOptions { until_step: Some(limit), digest, ..RunOptions::default() };
    let mut outcome = guarded(|| run(plan, options));
    if let Some(violation) = &mut outcome.violation
        && outcome.events == 0
    {
        outcome.events = count.get() + 1;
        violation.step = outcome.events;
    }
    outcome
}
