//! The command line from outside: exit codes, what goes to which stream, and the shape of the JSON
//! that scripts rely on. Runs the real binary with the real simulator.

#![allow(clippy::disallowed_methods, reason = "a test of the host's command line")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkv-sim"));
    command.args(arguments);
    command
}

fn sim(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn object(output: &Output) -> Value {
    let out = text(&output.stdout);
    assert_eq!(out.lines().count(), 1, "one object on one line: {out}");
    serde_json::from_str(out).expect("JSON")
}

/// A file for one test, in a directory that cargo keeps for this package.
fn file(name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the temporary directory can be written");
    path.into_os_string().into_string().expect("UTF-8")
}

#[test]
fn a_clean_campaign_exits_0_with_all_promised_fields() {
    let output = sim(&["run", "--seeds", "3", "--jobs", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let object = object(&output);
    assert_eq!(object["seeds"], 3);
    assert_eq!(object["passed"], 3);
    assert_eq!(object["failed"], serde_json::json!([]));
    for field in ["events", "messages"] {
        assert!(object[field].as_u64().unwrap() > 0, "{field}: {object}");
    }
    for field in ["sim_s", "wall_s"] {
        assert!(object[field].as_f64().unwrap() > 0.0, "{field}: {object}");
    }
    let hash = object["trace_hash"].as_str().unwrap();
    assert!(hash.len() == 16 && u64::from_str_radix(hash, 16).is_ok(), "{hash}");
    assert_eq!(text(&output.stderr), "", "no progress bar without a terminal");
}

#[test]
fn jobs_and_processes_do_not_change_a_campaign() {
    let run = |jobs: &str| {
        let mut object = object(&sim(&["run", "--seeds", "5..9", "--jobs", jobs, "--json"]));
        object.as_object_mut().unwrap().remove("wall_s").expect("a field");
        object
    };
    assert_eq!(run("1"), run("3"));
}

#[test]
fn a_seed_file_names_its_bad_line() {
    let good = file("good-seeds.txt", "# twice the same\n4\n4 # again\n");
    let output = sim(&["run", "--seed-file", &good, "--json"]);
    assert_eq!(object(&output)["seeds"], 2);
    let bad = file("bad-seeds.txt", "1\n\ntwo\n");
    let output = sim(&["run", "--seed-file", &bad]);
    assert_eq!(output.status.code(), Some(64));
    let message = text(&output.stderr);
    assert!(message.contains("bad-seeds.txt:3: `two` is not a seed"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn usage_errors_exit_64_and_print_nothing_on_standard_output() {
    for arguments in [
        &["run", "--seeds", "5..2"][..],
        &["run", "--seeds", "abc"],
        &["run", "--jobs", "0"],
        &["replay"],
        &["replay", "no-such-scenario.toml"],
        &["check", "no-such-history.jsonl"],
        &["fly"],
        &[],
    ] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_replay_is_the_run_again() {
    let first = object(&sim(&["replay", "--seed", "7", "--json"]));
    let output = sim(&["replay", "--seed", "7", "--json", "--trace"]);
    assert_eq!(output.status.code(), Some(0));
    let second = object(&output);
    assert_eq!(first["trace_hash"], second["trace_hash"], "tracing changes nothing");
    assert_eq!(first["verdict"], "clean");
    assert_eq!(first["checker"], Value::Null);
    let steps = second["steps"].as_u64().unwrap();
    let numbered = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let lines = text(&output.stderr).lines().filter(numbered).count() as u64;
    assert_eq!(lines, steps, "one line for each event, on standard error");
}

#[test]
fn a_replay_stops_where_it_is_told_to() {
    let cut = object(&sim(&["replay", "--seed", "7", "--until", "20", "--json"]));
    assert_eq!(cut["steps"], 20);
    assert_eq!(cut["stopped"], true);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["replay", "--seed", "7", "--trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{errors}");
    assert_eq!((line.as_str(), errors.as_str()), ("seed 7\n", ""));
}

#[test]
fn check_tells_linearizable_from_violation() {
    let put = r#"{"process":1,"type":"invoke","f":"put","key":"x","value":"1"}
{"process":1,"type":"ok","f":"put","key":"x","value":"1"}
{"process":2,"type":"invoke","f":"get","key":"x"}
"#;
    let fresh = r#"{"process":2,"type":"ok","f":"get","key":"x","value":"1"}"#;
    let stale = r#"{"process":2,"type":"ok","f":"get","key":"x","value":null}"#;
    let good = file("good.jsonl", &format!("{put}{fresh}\n"));
    let output = sim(&["check", &good, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let verdict = object(&output);
    assert_eq!(verdict["verdict"], "linearizable");
    assert_eq!(verdict["operations"], 2);
    assert!(verdict["wall_s"].is_f64() && verdict["explanation"].is_string(), "{verdict}");

    let bad = file("bad.jsonl", &format!("{put}{stale}\n"));
    let output = sim(&["check", &bad, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let verdict = object(&output);
    assert_eq!(verdict["verdict"], "violation");
    assert!(!verdict["explanation"].as_str().unwrap().is_empty());
    let output = sim(&["check", &bad]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("bad.jsonl: violation, 2 operations checked in "));

    let garbled = file("garbled.jsonl", "{\"process\":1\n");
    let output = sim(&["check", &garbled]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("garbled.jsonl:1: "), "{}", text(&output.stderr));
}

#[test]
fn the_version_names_the_revision() {
    let output = sim(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = text(&output.stdout);
    let start = format!("stormkv-sim {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&start) && version.ends_with(")\n"), "{version}");
}

#[test]
fn a_soak_tells_its_peaks_by_quarter() {
    let output = sim(&["soak", "--days", "0.03", "--seed", "5", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let object = object(&output);
    assert_eq!((&object["seed"], &object["windows"]), (&5.into(), &5.into()));
    assert_eq!(object["verdict"], "clean");
    for field in ["checker", "message"] {
        assert!(object[field].is_null(), "{field}: {object}");
    }
    for field in ["events", "operations"] {
        assert!(object[field].as_u64().unwrap() > 0, "{field}: {object}");
    }
    assert!(object["sim_s"].as_f64().unwrap() > 0.03 * 86_400.0, "{object}");
    assert!(object["wall_s"].as_f64().unwrap() > 0.0, "{object}");
    for field in ["peaks_first_quarter", "peaks_last_quarter", "peaks"] {
        for name in ["disk-bytes", "log-entries", "unsynced-bytes"] {
            assert!(object[field][name].as_u64().unwrap() > 0, "{field}.{name}: {object}");
        }
    }
    for field in ["faults", "waypoints", "checks"] {
        assert!(!object[field].as_object().unwrap().is_empty(), "{field}: {object}");
    }
    let progress = text(&output.stderr);
    assert!(progress.contains("100 %  ") && progress.contains(" simulated, "), "{progress}");
}

/// A scenario in which a client asks after these faults, and is not answered in time.
fn stall(name: &str, faults: &[&str]) -> String {
    let faults: String = faults
        .iter()
        .map(|fault| format!("[[fault]]\nat_ms = 400\ndo = \"{fault}\"\n\n"))
        .collect();
    let scenario = format!(
        r#"
schema = 1
name = "{name}"
seed = 1

[end]
bound_ms = 1

[[op]]
at_ms = 500
client = 1
do = "put a 1"

{faults}"#
    );
    file(&format!("{name}.toml"), &scenario)
}

/// A scenario in which nothing goes wrong, with these lines more.
fn calm(name: &str, lines: &str) -> String {
    let scenario = format!(
        "schema = 1\nname = \"{name}\"\nseed = 1\n{lines}\n\n[[op]]\nat_ms = 100\nclient = 1\n\
         do = \"put a 1\"\n"
    );
    file(&format!("{name}.toml"), &scenario)
}

#[test]
fn a_scenario_is_judged_by_what_it_expects() {
    let fine = calm("fine", "expect.waypoints = [\"leader-elected\"]");
    let output = sim(&["replay", &fine]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).ends_with("\nas expected\n"), "{}", text(&output.stdout));

    let missed = calm("missed", "expect.waypoints = [\"all-nodes-down\"]");
    let output = sim(&["replay", &missed]);
    assert_eq!(output.status.code(), Some(1));
    let sentence =
        "not as expected: the waypoint `all-nodes-down` is expected, but was not reached\n";
    assert!(text(&output.stdout).ends_with(sentence), "{}", text(&output.stdout));
    let output = sim(&["replay", &missed, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let object = object(&output);
    assert_eq!((&object["verdict"], &object["as_expected"]), (&"clean".into(), &false.into()));
    assert_eq!(object["unmet"].as_array().map(Vec::len), Some(1), "{object}");
    // Cut short before its end, it is not judged.
    assert_eq!(sim(&["replay", &missed, "--until", "20"]).status.code(), Some(0));

    let lucky = calm("lucky", "expect.violation = \"read-index\"");
    let output = sim(&["replay", &lucky]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = "not as expected: read-index is expected to fail, but the run is clean\n";
    assert!(text(&output.stdout).ends_with(sentence), "{}", text(&output.stdout));

    let unknown = calm("unknown", "expect.waypoints = [\"leader-electd\"]");
    let output = sim(&["replay", &unknown]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""));
    let message = text(&output.stderr);
    assert!(message.ends_with("did you mean `leader-elected`?\n"), "{message}");
}

#[test]
fn a_violation_that_a_scenario_expects_is_no_failure() {
    let path = stall("expected", &["crash 1", "crash 2"]);
    let scenario = std::fs::read_to_string(&path).expect("just written");
    let expecting = |checker: &str| {
        let line = format!("seed = 1\nexpect.violation = \"{checker}\"\n");
        file("expecting.toml", &scenario.replace("seed = 1\n", &line))
    };
    let output = sim(&["replay", &expecting("convergence")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(
        text(&output.stdout).contains("\nas expected: the scenario expects convergence to fail\n")
    );
    let output = sim(&["replay", &expecting("one-vote")]);
    assert_eq!(output.status.code(), Some(2), "it is another one");
    let sentence = "\nnot as expected: one-vote is expected to fail, but convergence fails\n";
    assert!(text(&output.stdout).contains(sentence), "{}", text(&output.stdout));
}

#[test]
fn a_fault_that_hits_nothing_is_reported_and_may_be_forbidden() {
    let fault = "fault = [{ at_ms = 1, until_ms = 90, do = \"isolate leader\" }]";
    let output = sim(&["replay", &calm("early", fault)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let out = text(&output.stdout);
    assert!(out.contains("  fault 0: isolate leader at 1 ms: there is no leader\n"), "{out}");
    assert!(out.contains("ms  fault 0: isolate leader is skipped: there is no leader\n"), "{out}");
    let strict = calm("strict", &format!("{fault}\nexpect.no_skipped_faults = true"));
    let output = sim(&["replay", &strict]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = "not as expected: fault 0 (`isolate leader`) is expected to hit something, but there \
                    is no leader\n";
    assert!(text(&output.stdout).contains(sentence), "{}", text(&output.stdout));
    // One that waits for its moment in vain is skipped, too.
    let waits = "fault = [{ at_ms = 50, until_ms = 60, do = \"crash 1 disk 1000\" }]";
    let output = sim(&["replay", &calm("waits", waits), "--json"]);
    let object = object(&output);
    let why = &object["skipped_faults"][0]["why"];
    assert_eq!(*why, "its moment did not come", "{object}");
}

#[test]
fn a_replay_has_a_timeline_of_bounded_length() {
    let fault = "fault = [{ at_ms = 1000, until_ms = 3000, do = \"isolate leader\" }, \
                 { at_ms = 3500, until_ms = 4000, do = \"crash same\" }]\n\
                 op = [{ at_ms = 1100, client = 1, do = \"put k 1\" }]";
    let scenario = format!("schema = 1\nname = \"told\"\n{fault}\n");
    let output = sim(&["replay", &file("told.toml", &scenario)]);
    let out = text(&output.stdout);
    let (_, rest) = out.split_once("\ntimeline\n").expect("a timeline");
    let (timeline, _) = rest.split_once("\n\n").expect("its end");
    let at = |what: &str| {
        timeline.find(what).unwrap_or_else(|| panic!("{what:?} is missing in\n{timeline}"))
    };
    let order = [
        at(" leads in term "),
        at("1000.000 ms  fault 0: isolate leader (hits n"),
        at("3000.000 ms  fault 0 ends: isolate leader"),
        at("3500.000 ms  fault 1: crash same (hits n"),
        at(" loses its power"),
        at("all faults end: "),
        at(" ms  the cluster is at rest"),
    ];
    assert!(order.is_sorted(), "{order:?}: {timeline}");
    assert!(at(" tried again (c1)") > order[1], "{timeline}");
    for seed in ["3", "17", "114"] {
        let output = sim(&["replay", "--seed", seed]);
        assert!(text(&output.stdout).lines().count() < 100, "{}", text(&output.stdout));
    }
}

#[test]
fn check_compares_numbers_exactly() {
    let history = |written: &str, read: &str| {
        let lines = format!(
            "{{\"process\":1,\"type\":\"invoke\",\"f\":\"put\",\"key\":\"x\",\"value\":{written}}}\n\
             {{\"process\":1,\"type\":\"ok\"}}\n\
             {{\"process\":2,\"type\":\"invoke\",\"f\":\"get\",\"key\":\"x\"}}\n\
             {{\"process\":2,\"type\":\"ok\",\"value\":{read}}}\n"
        );
        sim(&["check", &file("numbers.jsonl", &lines)]).status.code()
    };
    for (written, read, code) in [
        ("18446744073709551616", "18446744073709551617", 1),
        ("18446744073709551616", "18446744073709551616.0", 0),
        ("-9223372036854775809", "-9223372036854775810", 1),
        ("340282366920938463463374607431768211456", "340282366920938463463374607431768211457", 1),
        ("0.1000000000000000055", "0.1000000000000000056", 1),
        ("1", "1.0", 0),
        ("1", "10e-1", 0),
        ("1e400", "1e401", 1),
        ("[1e400,{\"n\":-0.0}]", "[10e399,{\"n\":0}]", 0),
        ("1", "\"1\"", 1),
        ("1e999999999999999999", "1e999999999999999998", 1),
    ] {
        assert_eq!(history(written, read), Some(code), "{written} and {read}");
    }
}

#[test]
fn check_warns_of_time_that_runs_backwards() {
    let lines = "{\"process\":1,\"type\":\"invoke\",\"f\":\"get\",\"key\":\"x\",\"time\":9}\n\
                 {\"process\":1,\"type\":\"ok\",\"value\":null,\"time\":8}\n";
    let output = sim(&["check", &file("backwards.jsonl", lines), "--json"]);
    assert_eq!(
        (output.status.code(), &object(&output)["verdict"]),
        (Some(0), &"linearizable".into())
    );
    let warning = text(&output.stderr);
    assert!(warning.starts_with("warning: ") && warning.lines().count() == 1, "{warning}");
    assert!(warning.contains("backwards.jsonl:2: \"time\" runs backwards, from 9"), "{warning}");
}

#[test]
fn a_failure_ends_with_a_page_and_the_line_that_replays_it() {
    let path = stall("majority-down", &["crash 1", "crash 2"]);
    let output = sim(&["replay", &path]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let (_, page) = out.split_once("\nthe operation that was open\n").expect("the page");
    let (page, words) = page.rsplit_once("\n\n").expect("the last words");
    for block in ["put a 1    open, asks n", "\n\nthe last faults before it\n", "\n  n3  "] {
        assert!(page.contains(block), "{block:?} is missing: {page}");
    }
    let lines = || page.lines().filter(|line| line.starts_with("    "));
    assert!(lines().any(|line| line.ends_with("n1 is down")), "{page}");
    assert!(!lines().any(|line| line.contains("ticks")), "{page}");
    assert!(words.starts_with("liveness violation (convergence): for 0.0 s after "), "{words}");
    assert!(words.ends_with(&format!("  replay   cargo sim replay {path}\n")), "{words}");
    // With --json the page goes where it does not disturb the object.
    let output = sim(&["replay", &path, "--json"]);
    assert_eq!(object(&output)["checker"], "convergence");
    assert!(text(&output.stderr).starts_with("the operation that was open\n"));
}

#[test]
fn a_view_is_written_to_a_file_and_tells_the_verdict() {
    let out = file("view.out", "what was there before");
    for (format, beginning) in [
        ("html", "<!"),
        ("text", "      1      0.000 ms  n1 "),
        ("shiviz", "(?<host>"),
        ("perfetto", "\n"),
        ("json", "{\"format\":\"stormkv-view\",\"version\":1,"),
    ] {
        let output = sim(&["view", "--seed", "7", "--format", format, "-o", &out]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.starts_with("seed 7: clean, ") && said.lines().count() == 1, "{said}");
        let written = std::fs::read(&out).expect("it is written");
        assert!(written.starts_with(beginning.as_bytes()), "{format}");
    }
    assert!(!PathBuf::from(format!("{out}.part")).exists());
}

#[test]
fn a_view_on_standard_output_leaves_it_to_the_file() {
    let output = sim(&["view", "--seed", "7", "--format", "json", "-o", "-"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let block = object(&output);
    let replayed = object(&sim(&["replay", "--seed", "7", "--json"]));
    for (field, same) in
        [("trace_hash", "trace_hash"), ("plan_hash", "plan_hash"), ("steps", "steps")]
    {
        assert_eq!(block["about"][field], replayed[same], "{field}");
    }
    assert_eq!(block["about"]["replay"], "cargo sim replay --seed 7");
    assert_eq!((&block["violation"], &block["curve"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_failure_is_continued_in_other_ways_as_often_as_is_asked() {
    let path = stall("continued", &["isolate leader"]);
    let view = |more: &[&str]| {
        let output = sim(&[&["view", &path, "--format", "json", "-o", "-"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        object(&output)
    };
    let block = view(&["--continuations", "2", "--jobs", "1"]);
    let curve = &block["curve"];
    let column = |name: &str| -> Vec<u64> {
        let numbers = curve[name].as_array().expect("a column").iter();
        numbers.map(|number| number.as_u64().expect("a number")).collect()
    };
    assert_eq!((&curve["runs"], column("step").len()), (&2.into(), 50));
    assert!(column("step").is_sorted() && column("step")[0] == 0);
    // After the last event there is nothing left to chance.
    assert_eq!(column("step").last(), block["violation"]["step"].as_u64().as_ref());
    assert_eq!((column("failed").last(), column("same").last()), (Some(&2), Some(&2)));
    assert_eq!(view(&["--continuations", "2", "--jobs", "2"])["curve"], *curve);
    assert_eq!(view(&["--continuations", "0"])["curve"], Value::Null);
}

#[test]
fn a_clean_run_is_continued_if_asked() {
    let scenario = "schema = 1\nname = \"calm\"\nseed = 1\n\n[[op]]\nat_ms = 100\nclient = 1\ndo = \"put a 1\"\n";
    let path = file("calm.toml", scenario);
    let output = sim(&["view", &path, "--format", "json", "--continuations", "1", "-o", "-"]);
    let block = object(&output);
    let steps = block["curve"]["step"].as_array().expect("a column");
    assert_eq!((steps.len(), steps.last()), (50, Some(&block["about"]["steps"])));
    assert_eq!(block["curve"]["same"][0], 0);
}

#[test]
fn a_view_of_a_failure_ends_like_one() {
    let path = stall("unheard", &["isolate leader"]);
    let output = sim(&["view", &path, "--format", "text", "--past", "-o", "-"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fault 0: isolate leader\n"));
    let words = text(&output.stderr);
    assert!(words.starts_with("liveness violation (convergence): "), "{words}");
    assert!(words.ends_with(&format!("  replay   cargo sim replay {path}\n")), "{words}");
}

#[test]
fn a_view_that_cannot_be_says_what_to_do() {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let seed = ["view", "--seed", "7"];
    for (arguments, expected) in [
        (&["--format", "text", "--past", "-o", "-"][..], "seed 7 is clean, so there is nothing to"),
        (&["--format", "json", "--past", "-o", "-"], "leave out --past"),
        (&["--format", "text", "--continuations", "0", "-o", "-"], "take --format html or json"),
        (&["--continuations", "1001", "-o", "-"], "1001 is not in 0..=1000"),
        (&["--past", "-o", "-"], "the page has all events"),
        (&["--format", "text", "-o", directory], "name a file in another directory"),
        (&["--format", "dot", "-o", "-"], "invalid value 'dot'"),
        (&["--format", "text"], "--output <OUT>"),
    ] {
        let output = sim(&[&seed[..], arguments].concat());
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let output = sim(&["view", "no-such-scenario.toml", "--format", "text", "-o", "-"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("no-such-scenario.toml"));
}
