//! Planted bugs seen from outside: no build has them that was not asked for it, and one that has
//! none says which command has them.

#![allow(clippy::disallowed_methods, reason = "a test of the host's command line")]

use std::process::{Command, Output};

use stormkv_sim::report::Subject;

/// Three names of the catalogue.
const NAMES: [&str; 3] = ["failed-on-step-down", "checksum-ignored", "read-at-once"];

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkv-sim"));
    command.args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// `cargo sim` is one build for all commands. As a default of a package, the feature would reach the
/// node in every command that builds both packages.
#[test]
fn the_bugs_are_in_what_cargo_sim_builds_and_no_default() {
    let read = |path: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).expect(path)
    };
    let alias = read(".cargo/config.toml");
    let words = "\"run --release -p stormkv-sim --features bugs --\"";
    assert!(alias.contains(&format!("sim = {words}")), "{alias}");
    for manifest in ["Cargo.toml", "sim/Cargo.toml"] {
        let features = read(manifest).parse::<toml::Table>().expect(manifest)["features"].clone();
        assert!(features.get("default").is_none(), "{manifest} has default features");
    }
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
    let output = sim(&["bugs", "--list", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let list: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).expect("a JSON array");
    assert_eq!(list.len(), stormkv::bugs::ALL.len());
    for name in NAMES {
        assert!(list.iter().any(|entry| entry["name"] == name), "{name}");
    }
    let output = sim(&["bugs", "--only", "1,no-such-bug"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""));
    assert!(text(&output.stderr).starts_with("error: there is no bug `no-such-bug`"));
}

#[cfg(not(feature = "bugs"))]
mod without {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn it_says_which_command_has_the_bugs() {
        for line in [
            &["bugs", "--list"][..],
            &["run", "--seeds", "3", "--bug", "12"],
            &["replay", "--seed", "3", "--bug", "12"],
        ] {
            let output = sim(line);
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{line:?}");
            let command = format!("`cargo sim {}` runs one that has", line.join(" "));
            let message = text(&output.stderr);
            assert!(message.contains(&command) && message.lines().count() == 1, "{message}");
        }
        let output = sim(&["bugs", "--budget", "none"]);
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output.stderr).contains("`none` is not a time limit"));
    }

    #[test]
    fn a_scenario_with_a_bug_runs_without_it_and_says_so() {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted.toml");
        let scenario = "schema = 1\nname = \"planted\"\nbug = \"some-bug\"\n\
                        expect.violation = \"read-index\"\n";
        std::fs::write(&path, scenario).expect("the temporary directory can be written");
        let path = path.to_str().expect("UTF-8");
        let output = sim(&["replay", path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        let warning = text(&output.stderr);
        assert!(warning.contains("`some-bug`, which is not planted"), "{warning}");
        assert!(
            warning.contains("`cargo sim replay ") && warning.contains("planted.toml"),
            "{warning}"
        );
        assert!(text(&output.stdout).contains("bug         some-bug, not in this build\n"));
    }
}
