//! The files of a campaign, with outcomes that are made up: what is read back is what was run,
//! whatever a crash leaves of a file is mended or refused, and merging adds up like one run.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use stormkv_sim::campaign::{
    self, FileError, Kept, Manifest, Merged, Seeds, Settings, Shard, Totals, merge,
};
use stormkv_sim::outcome::{Class, Outcome, Recovery, Violation};
use stormkv_sim::report;
use stormkv_sim::version;

/// An empty directory for one test.
fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("campaign-files").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the temporary directory can be written");
    path
}

/// Every third seed fails; the messages have all that a line must not contain.
fn pretend(seed: u64) -> Outcome {
    let class = [Class::Safety, Class::Liveness, Class::Unknown][(seed / 3 % 3) as usize];
    let violation = Violation {
        class,
        checker: "one-vote",
        message: format!("seed {seed}: \"two\"\n\nlines \u{1b}\r\n\u{2028} and é"),
        step: seed.wrapping_mul(3),
        at_ns: u64::MAX - seed,
    };
    Outcome {
        violation: seed.is_multiple_of(3).then_some(violation),
        trace_hash: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        events: seed % 100,
        messages: 7,
        acknowledged: 3,
        sim_ns: u64::MAX,
        faults: BTreeMap::from([("crash", seed % 4), ("kill", 1)]),
        waypoints: BTreeMap::from([("leader-elected", 1)]),
        checks: BTreeMap::from([("one-vote", 0)]),
        peaks: BTreeMap::from([("log-entries", seed % 9)]),
        recovery: Recovery {
            leader_ns: Some(seed),
            answered_ns: None,
            converged_ns: Some(7),
            unled_ns: Some(seed),
        },
        ..Outcome::default()
    }
}

/// What a single run over these seeds adds up to.
fn single(seeds: &Seeds) -> Totals {
    let mut totals = Totals::default();
    for position in 0..seeds.len() {
        let seed = seeds.get(position);
        totals.fold(seed, pretend(seed));
    }
    totals
}

/// Runs, or goes on; returns the totals and the file.
fn keep(directory: &Path, seeds: &Seeds) -> Result<(Totals, PathBuf), FileError> {
    keep_with(directory, seeds, Settings::new(), &pretend)
}

fn keep_with(
    directory: &Path,
    seeds: &Seeds,
    settings: Settings,
    run_seed: &(dyn Fn(u64) -> Outcome + Sync),
) -> Result<(Totals, PathBuf), FileError> {
    let mut totals = Totals::default();
    let manifest = Manifest::new(seeds, settings);
    let mut kept = Kept::open(directory, &manifest, seeds, &mut |seed, outcome| {
        totals.fold(seed, outcome);
        totals.read_back += 1;
    })?;
    let mut record = |seed, outcome: &Outcome| kept.append(seed, outcome);
    let totals = campaign::go_on(seeds, 2, run_seed, totals, &mut record, &mut |_| {
        ControlFlow::Continue(())
    })?;
    kept.sync()?;
    Ok((totals, kept.path().to_path_buf()))
}

fn range(text: &str) -> Seeds {
    Seeds::parse(text).unwrap()
}

fn shard(seeds: &Seeds, text: &str) -> Seeds {
    seeds.clone().shard(Shard::parse(text).unwrap())
}

/// The JSON without the time it took.
fn json(totals: &Totals) -> String {
    let mut object = serde_json::to_value(report::campaign_json(totals, &["elected"])).unwrap();
    object.as_object_mut().unwrap().remove("wall_s").unwrap();
    object.to_string()
}

#[track_caller]
fn refused<T>(result: Result<T, FileError>, parts: &[&str]) {
    match result.map(|_| ()).expect_err("it must be refused") {
        FileError::Refused(text) => {
            for part in parts {
                assert!(text.contains(part), "`{part}` is missing in: {text}");
            }
        }
        other => panic!("refused in another way: {other:?}"),
    }
}

fn merged(paths: &[&Path], partial: bool) -> Result<Merged, FileError> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    merge(&paths, partial)
}

#[test]
fn what_is_read_back_adds_up_to_what_was_run() {
    let directory = directory("read-back");
    let seeds = range("18446744073709551580..18446744073709551615");
    let (first, path) = keep(&directory, &seeds).unwrap();
    let (second, again) = keep(&directory, &seeds).unwrap();
    assert_eq!((path.clone(), second.read_back), (again, 35));
    assert_eq!(json(&first), json(&second));
    assert_eq!(json(&first), json(&single(&seeds)));
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 36, "one line for the manifest and one for each seed");
}

#[test]
fn names_of_another_version_are_kept() {
    let directory = directory("unknown-names");
    let seeds = range("0..4");
    let (_, path) = keep(&directory, &seeds).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("\"crash\":3", "\"meteor\":3").replace("one-vote", "two-vote");
    fs::write(&path, text).unwrap();
    let totals = keep(&directory, &seeds).unwrap().0;
    assert_eq!(totals.faults["meteor"], 3);
    assert_eq!(totals.failed[0].violation.checker, "two-vote");
    assert_eq!(totals.checks.len(), 1);
}

/// A process can be killed at any byte.
#[test]
fn a_file_that_was_cut_off_anywhere_is_completed() {
    let directory = directory("cut");
    let seeds = range("0..3");
    let (totals, path) = keep(&directory, &seeds).unwrap();
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    // Every byte around the ends of lines, and some within.
    let near = |cut: usize| ends.iter().any(|end| end.abs_diff(cut) <= 2);
    for cut in (0..whole.len()).filter(|cut| near(*cut) || cut.is_multiple_of(23)) {
        fs::write(&path, &whole[..cut]).unwrap();
        let (resumed, _) = keep(&directory, &seeds).unwrap();
        let rows = ends.iter().filter(|end| **end < cut).count().saturating_sub(1);
        assert_eq!(resumed.read_back, rows as u64, "cut at {cut}");
        assert_eq!(json(&resumed), json(&totals), "cut at {cut}");
        assert!(fs::read(&path).unwrap() == whole, "cut at {cut}");
    }
}

#[test]
fn whether_a_line_was_torn_is_told() {
    let directory = directory("torn");
    let seeds = range("0..3");
    let (_, path) = keep(&directory, &seeds).unwrap();
    let open = || {
        let manifest = Manifest::new(&seeds, Settings::new());
        Kept::open(&directory, &manifest, &seeds, &mut |_, _| ()).unwrap().was_torn()
    };
    assert!(!open());
    let mut bytes = fs::read(&path).unwrap();
    bytes.pop();
    fs::write(&path, bytes).unwrap();
    assert!(open());
    assert!(!open(), "it was cut off the first time");
}

#[test]
fn damage_within_a_file_is_named_with_its_line() {
    let directory = directory("damage");
    let seeds = range("0..5");
    let (_, path) = keep(&directory, &seeds).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let with = |lines: &[&str]| fs::write(&path, lines.join("\n") + "\n").unwrap();
    let (m, r) = (lines[0], &lines[1..]);
    let longer = "x".repeat(5_000_000);
    for (damaged, parts) in [
        (vec![m, r[0], &r[1][9..], r[2], r[3], r[4]], [":3: ", "the line is damaged", "head -n 2"]),
        (vec![m, r[0], "", r[2], r[3], r[4]], [":3: ", "the line is damaged", "head -n 2"]),
        (vec![m, r[0], "\0\0\0", r[2]], [":3: ", "the line is damaged", "head -n 2"]),
        (vec![m, r[0], r[1], r[3], r[4]], [":4: ", "seed 3 is there", "seed 2 is due"]),
        (vec![m, r[0], r[0], r[1]], [":3: ", "seed 0 is there", "seed 1 is due"]),
        (vec![m, r[0], r[1], r[2], r[3], r[4], r[4]], [":7: ", "seed 4 is", "no more row is due"]),
        (vec![m, r[0], &longer], [":3: ", "more than 4194304 bytes", "head -n 2"]),
        (vec![r[0], r[1]], ["seeds-1-of-1.jsonl", "the first line is not", "`run --out`"]),
        (vec!["", m], ["seeds-1-of-1.jsonl", "the first line is not", "`run --out`"]),
    ] {
        with(&damaged);
        refused(keep(&directory, &seeds), &parts);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, damaged.join("\n") + "\n", "nothing is overwritten");
    }
    // A merge looks as closely.
    with(&[m, r[0], r[0], r[1]]);
    refused(merged(&[&directory], true), &[":3: ", "seed 0 does not belong there"]);
    with(&[m, r[0], &r[1][9..]]);
    refused(merged(&[&directory], true), &[":3: ", "the line is damaged"]);
    // What the message says does help.
    with(&lines[..2]);
    assert_eq!(json(&keep(&directory, &seeds).unwrap().0), json(&single(&seeds)));
}

#[test]
fn rows_of_another_build_are_refused() {
    let directory = directory("builds");
    let seeds = range("0..5");
    let (_, path) = keep(&directory, &seeds).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let value = |name: &str, value: &str| format!("\"{name}\":\"{value}\"");
    for (from, to, parts) in [
        (
            value("version", version::VERSION),
            value("version", "9.9.9"),
            ["was written by version 9.9.9 (", "use that build"],
        ),
        (
            value("revision", version::REVISION),
            value("revision", "cafe"),
            ["(cafe), this is", "use that build"],
        ),
        (
            value("sources", version::SOURCES),
            value("sources", "0011223344556677"),
            ["from other sources (0011223344556677,", "use that build"],
        ),
        (
            "\"schema\":1".to_owned(),
            "\"schema\":2".to_owned(),
            ["has the format 2, this build reads 1", "use the build that wrote it"],
        ),
    ] {
        assert!(whole.contains(&from), "{from} is in {whole}");
        fs::write(&path, whole.replacen(&from, &to, 1)).unwrap();
        refused(keep(&directory, &seeds), &parts);
        refused(merged(&[&directory], false), &parts);
    }
}

#[test]
fn a_campaign_is_gone_on_with_as_it_was_begun() {
    let directory = directory("settings");
    let settings = |options: &[(&str, &str)]| -> Settings {
        options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let seeds = range("0..5");
    let begun = settings(&[("canary", "0.1")]);
    let (_, path) = keep_with(&directory, &seeds, begun.clone(), &pretend).unwrap();
    for (options, part) in [
        (settings(&[]), "was begun with --canary 0.1, not without it"),
        (settings(&[("canary", "0.2")]), "with --canary 0.1, not with --canary 0.2"),
        (
            settings(&[("canary", "0.1"), ("check-determinism", "true")]),
            "without --check-determinism, not with --check-determinism",
        ),
    ] {
        refused(keep_with(&directory, &seeds, options, &pretend), &[part, "use the same options"]);
    }
    let other = range("0..6");
    let parts = ["belongs to the seeds 0..5, not to 0..6", "name another directory"];
    refused(keep_with(&directory, &other, begun.clone(), &pretend), &parts);
    let list = Seeds::parse_file("seeds", "0\n1\n2\n3\n4\n").unwrap();
    refused(keep_with(&directory, &list, begun.clone(), &pretend), &["not to a file of 5 seeds"]);

    fs::rename(&path, directory.join("seeds-2-of-3.jsonl")).unwrap();
    let shard = shard(&seeds, "2/3");
    refused(keep_with(&directory, &shard, begun, &pretend), &["is shard 1/1, not 2/3"]);
}

#[test]
fn one_file_has_one_writer() {
    let directory = directory("lock");
    let seeds = range("0..5");
    let manifest = Manifest::new(&seeds, Settings::new());
    let first = Kept::open(&directory, &manifest, &seeds, &mut |_, _| ()).unwrap();
    refused(keep(&directory, &seeds), &["is being written by another process", "--shard"]);
    let (_, other) = keep(&directory, &shard(&seeds, "1/2")).unwrap();
    assert_ne!(other, first.path(), "shards have files of their own");
    drop(first);
    keep(&directory, &seeds).unwrap();
}

#[test]
fn shards_add_up_to_a_single_run_wherever_they_ran() {
    let (shared, own) = (directory("shared"), directory("own"));
    let seeds = range("100..150");
    for part in ["1/4", "2/4", "4/4"] {
        keep(&shared, &shard(&seeds, part)).unwrap();
    }
    let (_, file) = keep(&own, &shard(&seeds, "3/4")).unwrap();
    let expected = json(&single(&seeds));
    for paths in [[own.as_path(), &shared], [&shared, &own], [&shared, &file]] {
        let merged = merged(&paths, false).unwrap();
        assert_eq!(json(&merged.totals), expected);
        assert_eq!(merged.label, "100..150, 4 files");
    }
    // Twice the same counts once, also when it was split in another way.
    keep(&own, &shard(&seeds, "1/2")).unwrap();
    keep(&own, &seeds).unwrap();
    let merged = merged(&[&own, &shared, &own, &file], false).unwrap();
    assert_eq!(json(&merged.totals), expected);
}

#[test]
fn ranges_that_overlap_add_up_to_all_their_seeds() {
    let (one, two) = (directory("overlap-1"), directory("overlap-2"));
    keep(&one, &range("0..20")).unwrap();
    keep(&two, &range("13..30")).unwrap();
    let sum = merged(&[&two, &one], false).unwrap();
    assert_eq!(json(&sum.totals), json(&single(&range("0..30"))));
    assert_eq!((sum.label.as_str(), sum.missing), ("2 files", None));
}

#[test]
fn a_seed_file_keeps_its_order_and_its_repetitions() {
    let (directory, other) = (directory("list"), directory("list-other"));
    let list = Seeds::parse_file("seeds", "9\n4\n4\n18446744073709551615\n0\n9\n7\n").unwrap();
    for part in ["3/3", "1/3", "2/3"] {
        keep(&directory, &shard(&list, part)).unwrap();
    }
    let expected = single(&list);
    assert_eq!(expected.seeds, 7);
    assert_eq!(json(&merged(&[&directory], false).unwrap().totals), json(&expected));
    fs::remove_file(directory.join("seeds-2-of-3.jsonl")).unwrap();
    let parts = ["2 of 7 seeds are missing", "the first is number 2", "--partial"];
    refused(merged(&[&directory], false), &parts);
    keep(&other, &range("0..3")).unwrap();
    refused(merged(&[&directory, &other], false), &["have an order in common", "separately"]);
}

#[test]
fn missing_seeds_do_not_pass_for_clean() {
    let directory = directory("missing");
    let seeds = range("0..20");
    for part in ["1/4", "3/4", "4/4"] {
        keep(&directory, &shard(&seeds, part)).unwrap();
    }
    let parts = ["5 of 20 seeds are missing", "the first is 1;", "--partial"];
    refused(merged(&[&directory], false), &parts);
    let (_, path) = keep(&directory, &shard(&seeds, "2/4")).unwrap();
    merged(&[&directory], false).unwrap();
    // As a process leaves it that is still running, or was killed.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let parts =
        ["1 of 20 seeds are missing", "the first is 17;", "has 4 of the 5 rows of shard 2/4"];
    refused(merged(&[&directory], false), &parts);
    let partial = merged(&[&directory], true).unwrap();
    assert_eq!(partial.totals.seeds, 19);
    assert!(partial.missing.unwrap().starts_with("1 of 20 seeds are missing"));
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len() - 5, "merging changes no file");
}

#[test]
fn a_seed_with_two_outcomes_is_a_finding() {
    let (one, two) = (directory("twice-1"), directory("twice-2"));
    keep(&one, &range("0..20")).unwrap();
    let odd = |seed| Outcome { events: pretend(seed).events + seed / 17, ..pretend(seed) };
    keep_with(&two, &range("10..30"), Settings::new(), &odd).unwrap();
    let error = merged(&[&one, &two], false).unwrap_err();
    let FileError::Contradiction(text) = error else { panic!("{error:?}") };
    assert!(text.starts_with("seed 17 has two outcomes"), "{text}");
    for part in ["twice-1", "twice-2", "--check-determinism"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_was_run_in_another_way_is_not_added_up() {
    let (one, two) = (directory("ways-1"), directory("ways-2"));
    keep(&one, &range("0..5")).unwrap();
    let settings = Settings::from([("check-determinism".to_owned(), "true".to_owned())]);
    keep_with(&two, &range("5..9"), settings, &pretend).unwrap();
    let parts = ["ways-2", "with --check-determinism, not without it", "merge them separately"];
    refused(merged(&[&one, &two], false), &parts);
    refused(merged(&[&directory("ways-3")], false), &["holds no seeds-K-of-N.jsonl"]);
    refused(merged(&[Path::new("no-such-directory")], false), &["no-such-directory: "]);
}

#[test]
fn campaigns_against_different_bugs_are_not_added_up() {
    let (one, two) = (directory("one-bug"), directory("another-bug"));
    let bug = |name: &str| Settings::from([(campaign::BUG.to_owned(), name.to_owned())]);
    keep_with(&one, &range("0..5"), bug("some-bug"), &pretend).unwrap();
    keep_with(&two, &range("5..9"), bug("another-bug"), &pretend).unwrap();
    refused(
        merged(&[&one, &two], false),
        &["was run with --bug another-bug, not with --bug some-bug", "merge them separately"],
    );
    let totals = merged(&[&one], false).unwrap().totals;
    assert_eq!(totals.bug.as_deref(), Some("some-bug"));
    assert!(json(&totals).contains(r#""bug":"some-bug""#));
}
