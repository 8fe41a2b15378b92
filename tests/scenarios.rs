//! Runs every file under `scenarios/`: each is a story, and must happen as it is told.
//!
//! A scenario lists the waypoints that prove that its story took place. Without them a file would
//! stay green after a change that makes its fault miss its moment. `cargo sim replay FILE --trace`
//! tells a story event by event.
//!
//! A scenario that names a planted bug must fail as it expects with the bug, and must be clean
//! without it. A build without the feature `bugs` can only see the latter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stormkv_sim::campaign::guarded;
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::plan::Plan;
use stormkv_sim::scenario;
use stormkv_sim::world::RunOptions;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// All scenario files below this folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} cannot be listed: {error}", folder.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry of the folder").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found
}

/// The path from the root of the repository, as one would type it.
fn shown(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn load(path: &Path) -> Result<Plan, String> {
    scenario::load::<KeyValue>(path).map_err(|error| error.to_string())
}

/// What is wrong with the file itself.
fn misfits(path: &Path, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if plan.name != stem {
        wrong.push(format!("it is called `{}`, but its file `{stem}`", plan.name));
    }
    if plan.story.is_empty() {
        wrong.push("it tells no story".to_string());
    }
    match scenario::parse::<KeyValue>(&shown(path), &scenario::save(plan)) {
        Ok(again) if again == *plan => {}
        Ok(_) => wrong.push("it is another plan after it was saved and read again".to_string()),
        Err(error) => wrong.push(format!("it cannot be read again after it was saved: {error}")),
    }
    let expect = &plan.expect;
    if expect.violation.is_none() && expect.waypoints.is_empty() {
        wrong.push("nothing in [expect] proves that its story happened".to_string());
    }
    wrong
}

/// Runs the plan, with its bug and without; says what is not as it expects.
fn surprises(plan: &Plan) -> Vec<String> {
    if plan.bug.is_none() {
        return surprises_of(plan);
    }
    let mut sound = plan.clone();
    (sound.bug, sound.expect.violation) = (None, None);
    let mut wrong = surprises_of(&sound);
    wrong.iter_mut().for_each(|reason| reason.insert_str(0, "without its bug: "));
    if cfg!(feature = "bugs") {
        wrong.extend(surprises_of(plan));
    }
    wrong
}

/// Runs the plan as it is.
fn surprises_of(plan: &Plan) -> Vec<String> {
    scenario::unmet(plan, &guarded(|| kv::run(plan, &mut RunOptions::default())))
}

#[test]
fn every_scenario_happens_as_it_is_told() {
    let files = files(&root());
    assert!(!files.is_empty(), "there are no scenarios in {}", root().display());
    let mut failed = 0;
    for path in &files {
        let wrong = match load(path) {
            Ok(plan) => {
                let mut wrong = misfits(path, &plan);
                wrong.extend(surprises(&plan));
                wrong
            }
            Err(error) => vec![error],
        };
        println!("{} {}", if wrong.is_empty() { "ok    " } else { "FAILED" }, shown(path));
        for reason in &wrong {
            println!("         {reason}");
        }
        if !wrong.is_empty() {
            println!("         replay: cargo sim replay {} --trace", shown(path));
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {} scenarios, see above", files.len());
}

/// Each bug that is known to be found has a story.
#[cfg(feature = "bugs")]
#[test]
fn the_stories_of_the_planted_bugs_are_all_there() {
    let plans = files(&root().join("bugs")).into_iter().map(|path| load(&path).expect("a plan"));
    let told: BTreeSet<String> = plans.filter_map(|plan| plan.bug).collect();
    let missing: Vec<&str> = stormkv::bugs::ALL
        .iter()
        .map(|info| info.name)
        .filter(|name| !told.contains(*name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn no_two_scenarios_are_the_same_run() {
    let mut seen = BTreeSet::new();
    for path in files(&root()) {
        let plan = load(&path).expect("the other test says what is wrong with it");
        assert!(seen.insert(plan.hash()), "{} runs what another file runs", shown(&path));
    }
}

#[test]
fn a_scenario_that_misses_its_moment_is_noticed() {
    let mut plan = Plan::new("calm", 1);
    plan.expect.waypoints = vec!["leader-elected".to_string()];
    assert_eq!(surprises(&plan), Vec::<String>::new());
    plan.expect.waypoints = vec!["all-nodes-down".to_string()];
    let unreached = "the waypoint `all-nodes-down` is expected, but was not reached";
    assert_eq!(surprises(&plan), [unreached]);
    plan.expect.violation = Some("election-safety".to_string());
    let clean = "election-safety is expected to fail, but the run is clean";
    assert_eq!(surprises(&plan), [clean]);
    let wrong = misfits(Path::new("storm.toml"), &plan);
    assert_eq!(wrong.len(), 2, "its name and its story: {wrong:?}");
}

#[test]
fn a_fault_that_hits_nothing_is_noticed_if_none_may_be_skipped() {
    // Nobody leads as early as that.
    let early = "schema = 1\nname = \"early\"\nexpect.no_skipped_faults = true\n\
                 fault = [{ at_ms = 1, until_ms = 500, do = \"isolate leader\" }]\n";
    let mut plan = scenario::parse::<KeyValue>("early.toml", early).expect("a scenario");
    let skipped = "fault 0 (`isolate leader`) is expected to hit something, but there is no leader";
    assert_eq!(surprises(&plan), [skipped]);
    plan.faults[0].at_us = 400_000;
    assert_eq!(surprises(&plan), Vec::<String>::new());
    plan.faults[0].at_us = 1000;
    plan.expect.no_skipped_faults = false;
    assert_eq!(surprises(&plan), Vec::<String>::new());
}
