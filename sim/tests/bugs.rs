//! Planted bugs seen from outside: no build has them that was not asked for it, and one that has
//! none knows where to get it.

#![allow(clippy::disallowed_methods, reason = "a test of the host's command line")]

use std::process::{Command, Output};

use stormkv_sim::report::Subject;

/// Three names of the catalogue.
const NAMES: [&str; 3] = ["failed-on-step-down", "checksum-ignored", "read-at-once"];

fn sim(arguments: &[&str], cargo: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkv-sim"));
    command.args(arguments).env_remove("CARGO");
    if let Some(cargo) = cargo {
        command.env("CARGO", cargo);
    }
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// In both builds, so that a search that finds nothing anywhere would be noticed.
#[test]
fn a_binary_has_the_names_of_bugs_only_with_the_feature() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_stormkv-sim")).expect("the binary is there");
    let contains = |name: &str| binary.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(contains("cargo sim"), "the search finds what is there");
    for name in NAMES {
        assert_eq!(contains(name), cfg!(feature = "bugs"), "{name}");
    }
}

#[test]
fn the_line_that_replays_a_failure_names_its_bug() {
    let command = |beyond_quorum, bug| Subject::of_seed(7, beyond_quorum, bug).replay_command();
    assert_eq!(command(false, Some("a-bug")), "cargo sim replay --seed 7 --bug a-bug");
    let beyond = command(true, Some("a-bug"));
    assert_eq!(beyond, "cargo sim replay --beyond-quorum --seed 7 --bug a-bug");
    assert_eq!(command(false, None), "cargo sim replay --seed 7");
    assert_eq!(command(true, None), "cargo sim replay --beyond-quorum --seed 7");
}

#[cfg(feature = "bugs")]
#[test]
fn all_bugs_are_listed_and_an_unknown_one_is_refused() {
    let output = sim(&["bugs", "--list", "--json"], None);
    assert_eq!(output.status.code(), Some(0));
    let list: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).expect("a JSON array");
    assert_eq!(list.len(), stormkv::bugs::ALL.len());
    for name in NAMES {
        assert!(list.iter().any(|entry| entry["name"] == name), "{name}");
    }
    let output = sim(&["bugs", "--only", "1,no-such-bug"], None);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""));
    assert!(text(&output.stderr).starts_with("error: there is no bug `no-such-bug`"));
}

#[cfg(not(feature = "bugs"))]
mod without {
    use std::path::PathBuf;

    use super::*;

    const BUILD: &str = "run --release --quiet -p stormkv-sim --features bugs";

    #[test]
    fn it_says_which_command_builds_the_bugs() {
        for line in [
            &["bugs", "--list"][..],
            &["run", "--seeds", "3", "--bug", "12"],
            &["replay", "--seed", "3", "--bug", "12"],
        ] {
            let output = sim(line, None);
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{line:?}");
            let command = format!("`cargo {BUILD} -- {}`", line.join(" "));
            let message = text(&output.stderr);
            assert!(message.contains(&command) && message.lines().count() == 1, "{message}");
        }
        let output = sim(&["bugs", "--budget", "none"], None);
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output.stderr).contains("`none` is not a time limit"));
    }

    #[cfg(unix)]
    #[test]
    fn cargo_builds_them_and_gets_the_same_command_line() {
        let output = sim(&["bugs", "--only", "12", "--json"], Some("echo"));
        assert_eq!(output.status.code(), Some(0));
        let command = text(&output.stdout);
        assert!(command.starts_with(BUILD), "{command}");
        assert!(command.ends_with(" -- bugs --only 12 --json\n"), "{command}");
        let output = sim(&["run", "--bug", "12"], Some("false"));
        assert_eq!(output.status.code(), Some(1), "its exit code is passed on");
        let output = sim(&["run", "--bug", "12"], Some("no-such-cargo"));
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output.stderr).contains("error: cargo cannot be started: "));
    }

    #[test]
    fn a_scenario_with_a_bug_runs_without_it_and_says_so() {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted.toml");
        std::fs::write(&path, "schema = 1\nname = \"planted\"\nbug = \"some-bug\"\n")
            .expect("the temporary directory can be written");
        let path = path.to_str().expect("UTF-8");
        let output = sim(&["replay", path], None);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        let warning = text(&output.stderr);
        assert!(warning.contains("`some-bug`, which is not planted"), "{warning}");
        let command = format!("cargo {BUILD} -- replay ");
        assert!(warning.contains(&command) && warning.contains("planted.toml"), "{warning}");
        assert!(text(&output.stdout).contains("bug         some-bug, not in this build\n"));
    }
}
