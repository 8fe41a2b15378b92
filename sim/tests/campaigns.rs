//! Campaigns from outside: the real binary, killed in the middle, resumed, split into shards, merged,
//! and made to fail on purpose.

#![allow(clippy::disallowed_methods, reason = "a test of the host's command line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Enough for a run to be killed in its middle.
const SEEDS: &str = "60";

/// A directory of one test that does not exist yet.
fn directory(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("campaigns").join(name);
    let _ = fs::remove_dir_all(&path);
    path.into_os_string().into_string().expect("UTF-8")
}

fn command(line: &str, directories: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkv-sim"));
    command.args(line.split_whitespace()).args(directories);
    command
}

fn sim(line: &str, directories: &[&str]) -> Output {
    command(line, directories).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The object on standard output, without the time it took.
#[track_caller]
fn object(output: &Output) -> Value {
    let mut object: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    object.as_object_mut().unwrap().remove("wall_s").expect("a field");
    object
}

#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in {message}");
    }
}

fn rows(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// A run that has written so many lines, and is not done.
fn run_up_to(lines: usize, line: &str, directory: &str) -> Child {
    let mut child = command(line, &[directory]).stdout(Stdio::null()).spawn().expect("it starts");
    let path = Path::new(directory).join("seeds-1-of-1.jsonl");
    let patience = Instant::now();
    while rows(&path) < lines {
        assert!(patience.elapsed() < Duration::from_secs(60), "nothing is written");
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been() {
    let (whole, killed) = (directory("whole"), directory("killed"));
    let line = format!("run --jobs 2 --json --seeds {SEEDS} --out");
    let uninterrupted = object(&sim(&line, &[&whole]));
    assert_eq!(uninterrupted, object(&sim(&format!("run --json --seeds {SEEDS}"), &[])));

    let file = Path::new(&killed).join("seeds-1-of-1.jsonl");
    let mut before = 0;
    for lines in [5, 15] {
        let mut child = run_up_to(lines, &line, &killed);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(rows(&file) >= before, "nothing is lost");
        before = rows(&file);
    }
    assert!((15..60).contains(&before), "killed in the middle, after {before} lines");
    assert_eq!(object(&sim(&line, &[&killed])), uninterrupted);
    let bytes = |directory: &str| fs::read(Path::new(directory).join("seeds-1-of-1.jsonl"));
    assert!(bytes(&whole).unwrap() == bytes(&killed).unwrap(), "byte for byte the same rows");

    let again = sim(&format!("run --jobs 1 --seeds {SEEDS} --out"), &[&killed]);
    let summary = text(&again.stdout);
    assert!(summary.starts_with("clean: 60 seeds, no violation\n"), "{summary}");
    assert!(summary.contains("0..60, 1 job, "), "{summary}");
}

/// Ctrl-C, as a terminal sends it.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_what_it_has_found() {
    let out = directory("interrupted");
    let line = "run --jobs 2 --seeds 1000000 --out";
    let started = command(line, &[&out]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = started.expect("it starts");
    let file = Path::new(&out).join("seeds-1-of-1.jsonl");
    let patience = Instant::now();
    while rows(&file) < 10 {
        assert!(patience.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("there is a program `kill`").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let summary = text(&output.stdout);
    let first = summary.lines().next().expect("a line");
    assert!(first.starts_with("clean: "), "{first}");
    assert!(first.ends_with(" seeds, no violation, interrupted before the end"), "{first}");
    let folded = first.split(' ').nth(1).expect("a number").replace(',', "");
    assert_eq!(folded, (rows(&file) - 1).to_string(), "a row for each seed, and one for the head");
    let hint = "note: the same command goes on behind the last seed that was finished\n";
    assert_eq!(text(&output.stderr), hint);
}

#[test]
fn shards_are_merged_to_what_one_run_says() {
    let (shared, own) = (directory("shared"), directory("own"));
    for (shard, out) in [("1/3", &shared), ("2/3", &own), ("3/3", &shared)] {
        let output = sim(&format!("run --seeds 5..20 --shard {shard} --out"), &[out]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let merged = sim("merge --json", &[&own, &shared]);
    assert_eq!((merged.status.code(), text(&merged.stderr)), (Some(0), ""));
    assert_eq!(object(&merged), object(&sim("run --json --seeds 5..20", &[])));
    let summary = sim("merge", &[&own, &shared]);
    let summary = text(&summary.stdout);
    assert!(summary.contains("5..20, 3 files, "), "{summary}");
    assert!(summary.starts_with("clean: 15 seeds, no violation\n"), "{summary}");

    refused(&sim("merge", &[&shared]), 64, &["5 of 15 seeds are missing, the first is 6"]);
    let partial = sim("merge --partial", &[&shared]);
    assert_eq!(partial.status.code(), Some(0));
    assert!(text(&partial.stderr).starts_with("warning: 5 of 15 seeds are missing"));
    assert!(text(&partial.stdout).starts_with("clean: 10 seeds, no violation\n"));
}

#[test]
fn canaries_come_through_shards_files_and_merging() {
    let out = directory("canaries");
    let whole = sim("run --json --seeds 24 --canary 0.3", &[]);
    assert_eq!(whole.status.code(), Some(1));
    for shard in ["1/2", "2/2"] {
        let line = format!("run --seeds 24 --canary 0.3 --shard {shard} --out");
        assert_eq!(sim(&line, &[&out]).status.code(), Some(1), "each shard has one");
    }
    let merged = sim("merge --json", &[&out]);
    assert_eq!(merged.status.code(), Some(1));
    let object = object(&merged);
    assert_eq!(object, self::object(&whole));
    let failed = object["failed"].as_array().unwrap();
    assert!((2..20).contains(&failed.len()), "about 7 of 24: {failed:?}");
    assert!(failed.iter().all(|failure| failure["checker"] == "canary"));
    let count = failed.len();
    assert_eq!(object["canaries"], serde_json::json!({"due": count, "reported": count, "own": 0}));

    let summary = sim("merge", &[&out]);
    let summary = text(&summary.stdout);
    assert!(summary.contains(&format!("due, {count} reported, 0 failed by themselves\n")));
    let seed = &failed[0]["seed"];
    let sentence = format!(
        "\nsafety violation (canary): nothing is wrong with seed {seed}: --canary 0.3 failed it on \
         purpose, and its replay is clean\n"
    );
    assert!(summary.contains(&sentence), "{summary}");
    assert!(
        summary.contains(&format!("replay   cargo sim replay --seed {seed} --plan ")),
        "{summary}"
    );
    let replay = sim(&format!("replay --json --seed {seed}"), &[]);
    assert_eq!(replay.status.code(), Some(0));

    let parts = ["with --canary 0.3, not with --canary 0.4", "use the same options"];
    refused(&sim("run --seeds 24 --canary 0.4 --shard 1/2 --out", &[&out]), 64, &parts);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let out = directory("two");
    let mut first = run_up_to(3, "run --jobs 1 --seeds 100000 --out", &out);
    let second = sim("run --jobs 1 --seeds 100000 --out", &[&out]);
    first.kill().unwrap();
    first.wait().unwrap();
    refused(&second, 64, &["seeds-1-of-1.jsonl is being written by another process", "--shard"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_a_usage_error() {
    let out = directory("taken");
    fs::create_dir_all(Path::new(&out).parent().unwrap()).unwrap();
    fs::write(&out, "a file").unwrap();
    let parts = ["seeds-1-of-1.jsonl: ", "name a directory with --out that can be written"];
    refused(&sim("run --seeds 1 --out", &[&out]), 64, &parts);
    refused(&sim("merge", &["no-such-directory"]), 64, &["no-such-directory: "]);
}

/// The shell's limit of the size of a file stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_with_an_error_and_loses_nothing() {
    let out = directory("full");
    let binary = env!("CARGO_BIN_EXE_stormkv-sim");
    // A limit of 40 blocks: 20 or 40 KiB, several rows either way.
    let script =
        format!("trap '' XFSZ; ulimit -f 40; exec '{binary}' run --seeds 40 --out '{out}'");
    let limited = || Command::new("sh").args(["-c", &script]).output().expect("a shell");
    refused(&limited(), 70, &["seeds-1-of-1.jsonl: ", "rows are kept", "run the same command"]);
    let file = Path::new(&out).join("seeds-1-of-1.jsonl");
    let kept = fs::read(&file).unwrap();
    assert!(kept.ends_with(b"\n") && rows(&file) > 4, "whole rows only");
    refused(&limited(), 70, &["rows are kept"]);
    assert!(fs::read(&file).unwrap() == kept, "there is still no room");

    let output = sim("run --json --seeds 40 --out", &[&out]);
    assert_eq!(object(&output), object(&sim("run --json --seeds 40", &[])));
    assert!(fs::read(&file).unwrap().starts_with(&kept));
}

#[test]
fn running_each_seed_twice_changes_nothing_but_the_time() {
    let output = sim("run --json --seeds 6 --check-determinism", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(object(&output), object(&sim("run --json --seeds 6", &[])));
}
