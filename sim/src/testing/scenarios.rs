//! A folder of scenario files as a test target: each file is a test.
//!
//! Cargo runs the target as a process without a harness, and libtest-mimic stands in for it: it reads
//! the arguments of libtest and prints what libtest prints. It does not capture output, and a scenario
//! prints nothing by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

use super::files;
use super::source::Source;
use crate::plan::Plan;
use crate::report::Subject;
use crate::scenario;
use crate::service::Service;

/// A folder of scenario files, for the `main` of a test target with `harness = false`.
///
/// The test of a file fails unless
/// - the plan can be read, is named after its file and has a story,
/// - it is the same plan after it was saved and read again,
/// - `expect` names a violation or waypoints, without which nothing shows that the story took place,
/// - its run meets `expect`. A plan with a planted bug must meet it with the bug, if this build has the
///   feature `bugs`, and must be clean without it.
///
/// Two tests judge the folder: `folder_not_empty`, and `folder_no_duplicates` for files that run the same
/// plan.
pub struct Scenarios {
    source: Source,
    folder: PathBuf,
    tests: Vec<Trial>,
}

impl Scenarios {
    /// The scenario files of a service below this folder. A relative one begins at the root of the package.
    pub fn of<S: Service>(folder: impl Into<PathBuf>) -> Scenarios {
        let folder = files::in_package(&folder.into());
        Scenarios { source: Source::of::<S>(), folder, tests: Vec::new() }
    }

    /// Adds a test, which fails if it panics.
    pub fn test(mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Scenarios {
        self.tests.push(Trial::test(name, move || {
            run();
            Ok(())
        }));
        self
    }

    /// Does what the arguments of the process ask for. The exit code is that of libtest: 101 if a test
    /// fails. Ends the process if the arguments are wrong or ask for help.
    pub fn run(self) -> ExitCode {
        self.run_with(&Arguments::from_args()).exit_code()
    }

    fn run_with(self, arguments: &Arguments) -> Conclusion {
        libtest_mimic::run(arguments, self.trials())
    }

    /// All tests. No file is read for that: nextest starts a process for each test, and one to list them.
    fn trials(self) -> Vec<Trial> {
        let Scenarios { source, folder, mut tests } = self;
        // A folder that cannot be listed fails the test below instead of ending the process, which
        // would look like a broken build to nextest.
        let listed = files::scenarios_below(&folder);
        let paths = listed.clone().unwrap_or_default();
        for path in &paths {
            let (name, path) = (test_name(&folder, path), path.clone());
            let source = source.clone();
            tests.push(Trial::test(name, move || Ok(check_file(&source, &path)?)));
        }
        tests.push(Trial::test("folder_not_empty", move || match listed {
            Ok(paths) if paths.is_empty() => {
                Err(format!("there are no scenarios in {}", files::shown(&folder)).into())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Failed::from(error)),
        }));
        tests.push(Trial::test("folder_no_duplicates", move || {
            Ok(check_duplicates(&source, &paths)?)
        }));
        tests
    }
}

/// `membership::members-move` for the file `membership/members-move.toml` of the folder.
fn test_name(folder: &Path, path: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path).with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("::")
}

/// Reads and runs one file.
fn check_file(source: &Source, path: &Path) -> Result<(), String> {
    let plan = files::load(source, path)?;
    let mut wrong = misfits(source, path, &plan);
    wrong.extend(surprises(source, &plan));
    if wrong.is_empty() {
        return Ok(());
    }
    let file = files::shown(path);
    let replay = Subject::File(file.clone()).replay_command();
    Err(format!("{file}\n  {}\nreplay: {replay} --trace", wrong.join("\n  ")))
}

/// Compares the runs of all files. A file that cannot be read fails its own test.
fn check_duplicates(source: &Source, paths: &[PathBuf]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for path in paths {
        let Ok(plan) = files::load(source, path) else { continue };
        if let Some(earlier) = seen.insert(plan.hash(), path) {
            wrong.push(format!("{} runs what {} runs", files::shown(path), files::shown(earlier)));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What is wrong with the file itself.
fn misfits(source: &Source, path: &Path, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if plan.name != stem {
        wrong.push(format!("it is called `{}`, but its file `{stem}`", plan.name));
    }
    if plan.story.is_empty() {
        wrong.push("it has no story".to_string());
    }
    match source.parse(&files::shown(path), &scenario::save(plan)) {
        Ok(again) if again == *plan => {}
        Ok(_) => wrong.push("it is another plan after it was saved and read again".to_string()),
        Err(error) => wrong.push(format!("it cannot be read again after it was saved: {error}")),
    }
    let expect = &plan.expect;
    if expect.violation.is_none() && expect.waypoints.is_empty() {
        wrong.push("nothing in [expect] shows that its story took place".to_string());
    }
    wrong
}

/// Runs the plan, with its bug and without, and returns the expectations that are not met.
fn surprises(source: &Source, plan: &Plan) -> Vec<String> {
    if plan.bug.is_none() {
        return surprises_of(source, plan);
    }
    let mut sound = plan.clone();
    (sound.bug, sound.expect.violation) = (None, None);
    let mut wrong = surprises_of(source, &sound);
    wrong.iter_mut().for_each(|reason| reason.insert_str(0, "without its bug: "));
    // Without the feature the bug is not in the build, and its violation cannot come about.
    if cfg!(feature = "bugs") {
        wrong.extend(surprises_of(source, plan));
    }
    wrong
}

/// Runs the plan as it is.
fn surprises_of(source: &Source, plan: &Plan) -> Vec<String> {
    scenario::unmet(plan, &source.run(plan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;

    fn calm(name: &str) -> Plan {
        let mut plan = Plan::new(name, 1);
        plan.story = "Nothing happens.".to_string();
        plan.expect.waypoints = vec!["leader-elected".to_string()];
        plan
    }

    /// The arguments of a target that prints nothing: libtest cannot capture what it prints.
    fn silent(scratch: &str, arguments: &[&str]) -> Arguments {
        let log = files::failures().join("tests-of-testing").join(format!("{scratch}.log"));
        let mut arguments = Arguments::from_iter(["target"].iter().chain(arguments));
        arguments.logfile = Some(log.to_string_lossy().into_owned());
        arguments
    }

    /// Runs the tests of a folder with these files.
    fn run(scratch: &str, files: &[(&str, &str)], arguments: &[&str]) -> Conclusion {
        let folder = files::scratch(scratch);
        for (name, text) in files {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        }
        Scenarios::of::<KeyValue>(folder)
            .test("added", || ())
            .test("fails", || panic!("as a test does"))
            .run_with(&silent(scratch, arguments))
    }

    fn counts(conclusion: &Conclusion) -> (u64, u64, u64) {
        (conclusion.num_passed, conclusion.num_failed, conclusion.num_filtered_out)
    }

    #[test]
    fn each_file_is_a_test() {
        let good = scenario::save(&calm("good"));
        let files = [("good.toml", &*good), ("room/bad.toml", "schema = 1\nnome = \"bad\"\n")];
        let skipped = ["--skip", "fails"];
        // good, added, folder_not_empty and folder_no_duplicates; room::bad.
        assert_eq!(counts(&run("each", &files, &skipped)), (4, 1, 1));
        assert_eq!(counts(&run("each", &files, &["room::"])), (0, 1, 5));
        assert_eq!(counts(&run("each", &files, &["--exact", "good"])), (1, 0, 5));
        assert_eq!(counts(&run("each", &files, &["--exact", "fails"])), (0, 1, 5));
    }

    #[test]
    fn folder_judged_as_a_whole() {
        let only = ["--skip", "fails", "folder_"];
        assert_eq!(counts(&run("empty", &[], &only)), (1, 1, 2), "no scenario");
        // The name and the story are no part of a run.
        let (one, two) = (scenario::save(&calm("one")), scenario::save(&calm("two")));
        let files = [("one.toml", &*one), ("room/two.toml", &*two)];
        assert_eq!(counts(&run("twice", &files, &only)), (1, 1, 4), "two that are the same");
        let missing = Scenarios::of::<KeyValue>(files::failures().join("no-such-folder"));
        let conclusion = missing.run_with(&silent("missing", &[]));
        assert_eq!(counts(&conclusion), (1, 1, 0));
    }

    #[test]
    fn test_name_follows_the_path() {
        let name = |path| test_name(Path::new("scenarios"), Path::new(path));
        assert_eq!(name("scenarios/membership/members-move.toml"), "membership::members-move");
        assert_eq!(name("scenarios/v1.2.toml"), "v1.2");
    }

    #[test]
    fn unmet_expectation_is_noticed() {
        let mut plan = Plan::new("calm", 1);
        plan.expect.waypoints = vec!["leader-elected".to_string()];
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), Vec::<String>::new());
        plan.expect.waypoints = vec!["all-nodes-down".to_string()];
        let unreached = "the waypoint `all-nodes-down` is expected, but was not reached";
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), [unreached]);
        plan.expect.violation = Some("election-safety".to_string());
        let clean = "election-safety is expected to fail, but the run is clean";
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), [clean]);
        let wrong = misfits(&Source::of::<KeyValue>(), Path::new("storm.toml"), &plan);
        assert_eq!(wrong.len(), 2, "its name and its story: {wrong:?}");
        let wrong =
            misfits(&Source::of::<KeyValue>(), Path::new("calm.toml"), &Plan::new("calm", 1));
        assert_eq!(wrong.len(), 2, "its story and its expectation: {wrong:?}");
    }

    #[test]
    fn skipped_fault_is_noticed_if_none_may_be() {
        // No node leads as early as that.
        let early = "schema = 1\nname = \"early\"\nexpect.no_skipped_faults = true\n\
                     fault = [{ at_ms = 1, until_ms = 500, do = \"isolate leader\" }]\n";
        let mut plan = scenario::parse::<KeyValue>("early.toml", early).expect("a scenario");
        let skipped =
            "fault 0 (`isolate leader`) is expected to hit something, but there is no leader";
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), [skipped]);
        plan.faults[0].at_us = 400_000;
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), Vec::<String>::new());
        plan.faults[0].at_us = 1000;
        plan.expect.no_skipped_faults = false;
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), Vec::<String>::new());
    }

    #[test]
    fn failing_file_has_a_line_to_paste() {
        let path = files::scratch("paste").join("late.toml");
        let mut plan = calm("late");
        plan.expect.waypoints = vec!["all-nodes-down".to_string()];
        std::fs::write(&path, scenario::save(&plan)).unwrap();
        let error = check_file(&Source::of::<KeyValue>(), &path).unwrap_err();
        let shown = files::shown(&path);
        assert!(error.starts_with(&format!("{shown}\n  the waypoint `all-nodes-down`")), "{error}");
        assert!(error.ends_with(&format!("replay: cargo sim replay {shown} --trace")), "{error}");
    }

    /// With the feature `bugs` the violation must come about; without the bug the run must be clean.
    #[test]
    fn planted_bug_is_judged_with_and_without() {
        let mut plan = calm("bug");
        plan.bug = Some("read-not-awaited".to_string());
        plan.expect.violation = Some("read-index".to_string());
        // A calm cluster does not show the bug.
        let expected: &[&str] = match cfg!(feature = "bugs") {
            true => &["read-index is expected to fail, but the run is clean"],
            false => &[],
        };
        assert_eq!(surprises(&Source::of::<KeyValue>(), &plan), expected);
        plan.expect.waypoints = vec!["all-nodes-down".to_string()];
        assert!(
            surprises(&Source::of::<KeyValue>(), &plan)[0]
                .starts_with("without its bug: the waypoint")
        );
    }
}
