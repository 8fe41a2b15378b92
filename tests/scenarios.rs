//! Runs every file under `scenarios/` as a test named after its path.
//!
//! A scenario lists the waypoints that prove that its story took place. Without them a file would
//! stay green after a change that makes its fault miss its moment. `cargo sim replay FILE --trace`
//! shows a run event by event.
//!
//! A scenario that names a planted bug must fail as it expects with the bug, and must be clean
//! without it. A build without the feature `bugs` can only see the latter.

use std::process::{Command, ExitCode};

use stormkv_sim::kv::KeyValue;
use stormkv_sim::testing::Scenarios;

fn main() -> ExitCode {
    let scenarios =
        Scenarios::of::<KeyValue>("scenarios").test("harness_like_libtest", harness_like_libtest);
    #[cfg(feature = "bugs")]
    let scenarios = scenarios.test("bugs_all_have_scenarios", bugs_all_have_scenarios);
    scenarios.run()
}

/// Runs this executable as cargo and nextest do.
fn harness_like_libtest() {
    let run = |arguments: &[&str]| {
        let program = std::env::current_exe().expect("this executable has a path");
        let output = Command::new(program).args(arguments).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("it prints text"))
    };
    let (code, listed) = run(&["--list", "--format", "terse"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(code, Some(0));
    assert!(lines.len() > 100 && lines.iter().all(|line| line.ends_with(": test")), "{listed}");
    assert!(lines.contains(&"membership::members-move: test"), "{listed}");
    assert_eq!(run(&["--list", "--format", "terse", "--ignored"]), (Some(0), String::new()));
    let (code, text) = run(&["--exact", "membership::members-move", "--nocapture"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("test membership::members-move ... ok"), "{text}");
    assert!(text.contains("1 passed; 0 failed"), "{text}");
}

/// Each bug that is known to be found has a scenario.
#[cfg(feature = "bugs")]
fn bugs_all_have_scenarios() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/bugs");
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let planted: std::collections::BTreeSet<String> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter_map(|path| stormkv_sim::scenario::load::<KeyValue>(path).expect("a scenario").bug)
        .collect();
    let names = stormkv::bugs::ALL.iter().map(|info| info.name);
    let missing: Vec<&str> = names.filter(|name| !planted.contains(*name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
