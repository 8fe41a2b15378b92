//! A swarm as a test: regressions first, then seeds.

use std::path::{Path, PathBuf};

use super::failure;
use super::files;
use super::source::Source;
use super::variables::Variables;
use crate::campaign::{self, Failure, Totals};
use crate::caught::guarded;
use crate::plan::Plan;
use crate::scenario;
use crate::service::Service;

/// The folder of plans that failed once, from the root of the package.
const REGRESSIONS: &str = "tests/regressions";

/// A swarm of seeds to run in a test. See the [module](super) for its variables and regressions.
///
/// ```no_run
/// use stormkv_sim::kv::KeyValue;
/// use stormkv_sim::testing::Swarm;
///
/// #[test]
/// fn swarm_clean_beyond_quorum() {
///     let totals = Swarm::of::<KeyValue>(100).beyond_quorum().run();
///     assert!(totals.seeds < 100 || totals.faults["stopped-beyond-quorum"] > 10);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Swarm {
    seeds: u64,
    source: Source,
    /// The folder of regressions; `None` for the default, which need not exist.
    regressions: Option<PathBuf>,
    /// The folder that plans of failing seeds are saved in.
    failures: PathBuf,
}

impl Swarm {
    /// The seeds `0..seeds` of the default swarm of a service.
    pub fn of<S: Service>(seeds: u64) -> Swarm {
        Swarm { seeds, source: Source::of::<S>(), regressions: None, failures: files::failures() }
    }

    /// Adds damage to disks beyond what a quorum can repair: the cluster may stop with an error, but must
    /// not violate safety.
    pub fn beyond_quorum(mut self) -> Swarm {
        self.source.beyond_quorum = true;
        self
    }

    /// Takes regressions from this folder instead of `tests/regressions`. A relative one begins at the
    /// root of the package. The folder must exist.
    pub fn regressions(mut self, folder: impl Into<PathBuf>) -> Swarm {
        self.regressions = Some(folder.into());
        self
    }

    /// Plants a bug in every seed, to prove that the test can fail.
    ///
    /// # Panics
    /// If there is no bug of this name; `cargo sim bugs --list` names them.
    #[cfg(feature = "bugs")]
    #[track_caller]
    pub fn bug(mut self, name: &str) -> Swarm {
        let is_known = stormkv::bugs::ALL.iter().any(|info| info.name == name);
        assert!(is_known, "there is no bug `{name}`; `cargo sim bugs --list` names them");
        self.source.bug = Some(name.to_string());
        self
    }

    /// Runs the regressions, then the seeds or those that `STORM_SEED` or `STORM_SEEDS` names. Returns
    /// what the seeds add up to, for checks of coverage; with variables set these are fewer or more
    /// seeds than the test asks for.
    ///
    /// # Panics
    /// With a report if a run fails, if no client is answered in any of several seeds, and if a variable
    /// or a regression cannot be read.
    #[track_caller]
    pub fn run(self) -> Totals {
        match Variables::read().and_then(|variables| self.check(&variables)) {
            Ok(totals) => totals,
            Err(report) => panic!("{report}"),
        }
    }

    /// Runs one seed, without regressions and variables.
    ///
    /// # Errors
    /// With a report if the run fails.
    pub(super) fn check_seed(&self, seed: u64) -> Result<(), String> {
        let outcome = guarded(|| self.source.run(&self.source.plan(seed)));
        match outcome.violation {
            None => Ok(()),
            Some(violation) => {
                let failure = Failure { seed, violation };
                Err(failure::of_seed(&self.source, &failure, &self.failures))
            }
        }
    }

    /// Does what [`run`](Swarm::run) does, with these variables.
    fn check(&self, variables: &Variables) -> Result<Totals, String> {
        let choice = variables.choose(self.seeds)?;
        if !choice.is_one {
            self.check_regressions()?;
        }
        let run_seed = |seed| self.source.run(&self.source.plan(seed));
        let totals = campaign::run(&choice.seeds, choice.jobs, &run_seed, &mut |_| ());
        println!(
            "seeds {}: {} events, {} operations acknowledged, trace hash {:016x}",
            choice.seeds, totals.events, totals.acknowledged, totals.trace_hash
        );
        if let Some(worst) = totals.worst() {
            return Err(format!(
                "{} of {} seeds failed\n{}\n{}",
                totals.failed.len(),
                totals.seeds,
                failure::list(&totals.failed),
                failure::of_seed(&self.source, worst, &self.failures)
            ));
        }
        // A single cluster may be stopped before it answers anything.
        if totals.seeds > 1 && totals.acknowledged == 0 {
            return Err("no client was answered in any seed: nothing was tested".to_string());
        }
        Ok(totals)
    }

    /// Runs the regressions of this kind of swarm; all that fail are reported together.
    fn check_regressions(&self) -> Result<(), String> {
        let folder = files::in_package(self.regressions.as_deref().unwrap_or(REGRESSIONS.as_ref()));
        // A folder that was named must be there: a misspelt one would test nothing.
        if self.regressions.is_none() && !folder.exists() {
            return Ok(());
        }
        let paths = files::scenarios_below(&folder)?;
        let mut reports = Vec::new();
        for path in &paths {
            if let Err(report) = self.check_regression(path, &files::load(&self.source, path)?) {
                reports.push(report);
            }
        }
        match reports.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{} of {} regressions failed\n\n{}",
                reports.len(),
                paths.len(),
                reports.join("\n")
            )),
        }
    }

    fn check_regression(&self, path: &Path, plan: &Plan) -> Result<(), String> {
        // The other kind of swarm has them, too, and each is run once.
        if plan.end.beyond_quorum != self.source.beyond_quorum {
            return Ok(());
        }
        if let Some(bug) = &plan.bug {
            return Err(format!(
                "{}: it plants the bug `{bug}` and can never pass; remove it, or keep it as a \
                 scenario that expects the violation\n",
                files::shown(path)
            ));
        }
        let outcome = self.source.run(plan);
        if let Some(violation) = &outcome.violation {
            return Err(failure::of_regression(path, plan, violation));
        }
        // The violation that was found must not come back; other expectations hold as ever.
        let mut clean = plan.clone();
        clean.expect.violation = None;
        match scenario::unmet(&clean, &outcome).as_slice() {
            [] => Ok(()),
            unmet => Err(format!("{}:\n  {}\n", files::shown(path), unmet.join("\n  "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;
    use crate::outcome::{Class, Outcome, Violation};
    use crate::simulation::{self, RunOptions};

    /// Fails for each plan whose seed is 5.
    fn rotten(plan: &Plan) -> Outcome {
        assert!(plan.seed != 5, "seed 5 is rotten");
        Outcome { acknowledged: 1, ..Outcome::default() }
    }

    fn swarm(scratch: &str, seeds: u64, run: fn(&Plan) -> Outcome) -> Swarm {
        let scratch = files::scratch(scratch);
        std::fs::create_dir(scratch.join("regressions")).unwrap();
        let mut swarm = Swarm::of::<KeyValue>(seeds).regressions(scratch.join("regressions"));
        swarm.source = swarm.source.with_run(run);
        swarm.failures = scratch.join("failures");
        swarm
    }

    fn keep(swarm: &Swarm, name: &str, plan: &Plan) {
        let path = swarm.regressions.as_ref().unwrap().join(name);
        std::fs::write(path, scenario::save(plan)).unwrap();
    }

    #[track_caller]
    fn contains_all(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn failure_has_the_lines_to_paste_and_a_file() {
        let swarm = swarm("failure", 8, rotten);
        let report = swarm.check(&Variables::default()).unwrap_err();
        let hash = crate::swarm::generate::<KeyValue>(5).hash();
        let saved = swarm.failures.join("seed-5.toml");
        contains_all(
            &report,
            &[
                "1 of 8 seeds failed\n  seed 5: panic\n",
                "safety violation (panic): the run panicked: seed 5 is rotten",
                &format!("shrink   cargo sim shrink --seed 5 --plan {hash:016x} -o seed-5.toml\n"),
                &format!("view     cargo sim view --seed 5 --plan {hash:016x} -o seed-5.html\n"),
                &format!("replay   cargo sim replay --seed 5 --plan {hash:016x}\n"),
                "test     STORM_SEED=5 cargo test testing::swarm::tests::failure_has_the_lines",
                &format!("scenario {}\n", files::shown(&saved)),
            ],
        );
        let plan = scenario::load::<KeyValue>(&saved).expect("the file can be read");
        assert_eq!(plan.hash(), hash, "the file runs what the seed runs");
        assert_eq!(plan.expect.violation.as_deref(), Some("panic"));
        assert_eq!(plan.found.map(|found| found.seed), Some(5));
    }

    #[test]
    fn failure_reported_when_its_file_cannot_be_saved() {
        let mut swarm = swarm("unsaved", 8, rotten);
        std::fs::write(&swarm.failures, "a file stands in the way").unwrap();
        swarm.failures.push("below");
        let report = swarm.check_seed(5).unwrap_err();
        contains_all(&report, &["seed 5 is rotten", "replay ", "scenario not saved: "]);
    }

    #[test]
    fn many_failures_are_counted() {
        let swarm = swarm("many", 40, |_| panic!("always"));
        let report = swarm.check(&Variables::of(None, None, Some("2"))).unwrap_err();
        contains_all(&report, &["40 of 40 seeds failed", "  seed 9: panic\n  and 30 more\n"]);
    }

    #[test]
    fn variables_replace_the_seeds() {
        let swarm = swarm("variables", 8, rotten);
        let check = |seed, seeds| swarm.check(&Variables::of(seed, seeds, None));
        assert_eq!(check(Some("7"), None).unwrap().seeds, 1);
        assert_eq!(check(None, Some("6..9")).unwrap().seeds, 3);
        contains_all(&check(Some("5"), None).unwrap_err(), &["1 of 1 seeds failed"]);
        contains_all(&check(None, Some("x")).unwrap_err(), &["STORM_SEEDS: `x` is not"]);
    }

    #[test]
    fn one_seed_is_checked() {
        let swarm = swarm("one", 1, rotten);
        assert_eq!(swarm.check_seed(4), Ok(()));
        contains_all(&swarm.check_seed(5).unwrap_err(), &["seed 5 is rotten", "replay "]);
    }

    #[test]
    fn swarm_without_answers_fails() {
        let swarm = swarm("silent", 8, |_| Outcome::default());
        contains_all(&swarm.check(&Variables::default()).unwrap_err(), &["nothing was tested"]);
        assert!(swarm.check(&Variables::of(Some("1"), None, None)).is_ok(), "one may be silent");
    }

    #[test]
    fn regression_runs_before_the_seeds() {
        let swarm = swarm("regression", 8, rotten);
        let mut plan = Plan::new("kept", 5);
        plan.expect.violation = Some("panic".to_string());
        keep(&swarm, "kept.toml", &plan);
        let report = swarm.check(&Variables::default()).unwrap_err();
        contains_all(
            &report,
            &["1 of 1 regressions failed", "seed 5 is rotten", "replay ", "kept.toml"],
        );
        assert!(!report.contains("seeds failed"), "the seeds were run first:\n{report}");
        assert!(swarm.check(&Variables::of(Some("6"), None, None)).is_ok(), "one seed and no more");
    }

    #[test]
    fn regression_passes_once_it_is_clean() {
        let swarm = swarm("mended", 3, rotten);
        let mut plan = Plan::new("kept", 6);
        plan.expect.violation = Some("panic".to_string());
        keep(&swarm, "kept.toml", &plan);
        assert!(swarm.check(&Variables::default()).is_ok());
        plan.expect.waypoints = vec!["leader-elected".to_string()];
        keep(&swarm, "kept.toml", &plan);
        let report = swarm.check(&Variables::default()).unwrap_err();
        contains_all(&report, &["the waypoint `leader-elected` is expected"]);
    }

    #[test]
    fn regression_belongs_to_its_kind_of_swarm() {
        let mut swarm = swarm("kinds", 3, rotten);
        let mut plan = Plan::new("kept", 5);
        plan.end.beyond_quorum = true;
        keep(&swarm, "kept.toml", &plan);
        assert!(swarm.check_regressions().is_ok());
        swarm.source.beyond_quorum = true;
        assert!(swarm.check_regressions().is_err());
    }

    #[test]
    fn regressions_that_test_nothing_are_refused() {
        let swarm = swarm("refused", 3, rotten);
        let mut plan = Plan::new("kept", 6);
        plan.bug = Some("read-not-awaited".to_string());
        keep(&swarm, "kept.toml", &plan);
        let error = swarm.check(&Variables::default()).unwrap_err();
        contains_all(
            &error,
            &["kept.toml: it plants the bug `read-not-awaited` and can never pass"],
        );
        let missing = Swarm::of::<KeyValue>(1).regressions("tests/no-such-folder");
        let error = missing.check(&Variables::default()).unwrap_err();
        contains_all(&error, &["tests/no-such-folder cannot be listed"]);
    }

    /// A real failure: a plan that cannot recover in time.
    #[test]
    fn saved_plan_fails_like_its_seed() {
        fn hasty(plan: &Plan) -> Outcome {
            let mut outcome = simulation::run::<KeyValue>(plan, &mut RunOptions::default());
            outcome.violation.get_or_insert(Violation {
                class: Class::Liveness,
                checker: "recovery",
                message: format!("it took {} events", outcome.events),
                step: outcome.events,
                at_ns: outcome.sim_ns,
            });
            outcome
        }
        let swarm = swarm("saved", 1, hasty);
        swarm.check_seed(3).unwrap_err();
        let saved =
            scenario::load::<KeyValue>(swarm.failures.join("seed-3.toml")).expect("it was saved");
        assert_eq!(hasty(&saved), hasty(&crate::swarm::generate::<KeyValue>(3)));
    }

    #[cfg(feature = "bugs")]
    #[test]
    fn planted_bug_is_found_and_its_file_replays() {
        let swarm = swarm("planted", 3, |plan| {
            simulation::run::<KeyValue>(plan, &mut RunOptions::default())
        });
        let swarm = swarm.bug("read-not-awaited");
        let report = swarm.check(&Variables::default()).unwrap_err();
        contains_all(
            &report,
            &[
                "cargo sim shrink --seed 0 --bug read-not-awaited --plan ",
                "cargo sim view --seed 0 --bug read-not-awaited --plan ",
                "cargo sim replay --seed 0 --bug read-not-awaited --plan ",
                "seed-0-read-not-awaited.toml",
            ],
        );
        let saved = swarm.failures.join("seed-0-read-not-awaited.toml");
        let plan = scenario::load::<KeyValue>(saved).expect("it was saved");
        let outcome = swarm.source.run(&plan);
        assert_eq!(scenario::unmet(&plan, &outcome), Vec::<String>::new());
        assert_eq!(outcome, swarm.source.run(&swarm.source.plan(0)));
    }

    #[cfg(feature = "bugs")]
    #[test]
    #[should_panic(expected = "there is no bug `no-such-bug`")]
    fn unknown_bug_is_refused() {
        let _ = Swarm::of::<KeyValue>(1).bug("no-such-bug");
    }
}
