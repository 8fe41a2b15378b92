//! Tidiness is tested: a file keeps to one thing and says which, and a room stays free of what
//! does not belong there.
//!
//! What a lint can say is said in `clippy.toml` and `[workspace.lints]`; this is the rest. Left out
//! on purpose: the length of functions, which a reader judges better than a count of lines.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const MAX_LINES: usize = 600;

/// Files that are longer, and how long they may be at most. An entry is a debt: it may shrink or
/// go, and nothing new should need one.
const LONGER: &[(&str, usize)] = &[("sim/src/checker/raft.rs", 630)];

/// What a node must not know, because its host is the only one who does: a wall clock, a socket, a
/// file, a thread. (`std::time::Duration` is a number and allowed.)
const BANNED_IN_SRC: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "stormkv_sim",
];

/// The rooms that are a host, or talk to one: they have a clock, sockets, files and threads.
const HOSTS: &[&str] =
    &["src/tcp.rs", "src/tcp/", "src/client.rs", "src/client/", "src/main.rs", "src/program"];

/// What changes the data directory. `std::fs` would do so without a record, and the tests of power
/// loss would not see it.
const RECORDED: &[&str] = &[
    "src/tcp/directory.rs",
    "src/tcp/directory/",
    "src/tcp/disk.rs",
    "src/tcp/disk/",
    "src/tcp/segments.rs",
];

/// Code of one platform, which neither a node nor the simulator needs.
const BANNED_PLATFORM: &[&str] =
    &["std::os::", "cfg(unix", "cfg(windows", "target_os", "libc::", "rustix", "tokio"];

/// What nobody but those may mention: nothing points outwards.
const BANNED_OUTSIDE_HOSTS: &[&str] = &["tokio", "crate::tcp", "crate::client"];

/// The modules of the simulator by layer: a module may use those of the layers before it, and itself. Those
/// of one layer may use each other only where that is listed in [`PAIRS`].
const LAYERS: &[&[&str]] = &[
    &["names"],
    &["rng", "schedule", "parallel", "histogram", "history", "plan", "version"],
    &["outcome", "kernel", "clock", "network", "disk", "recording"],
    &["caught", "port", "service", "swarm"],
    &["words", "explore"],
    &["checker"],
    &["simulation"],
    &["scenario", "determinism", "campaign", "bugs"],
    &["report"],
    &["shrink"],
    &["view"],
    &["kv", "testing"],
    &["cli"],
];

/// Modules that belong together: the usual workload of a service is the swarm's, and the swarm draws the
/// operations of a service.
const PAIRS: &[(&str, &str)] = &[("service", "swarm"), ("swarm", "service")];

/// A file without the module of its unit tests, which stands at the end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The modules of its own crate that a file mentions, with the lines, outside of its tests.
fn mentioned(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(without_tests(text).lines()) {
        let mut rest = code(line);
        while let Some((_, behind)) = rest.split_once("crate::") {
            rest = behind;
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let names: Vec<&str> = match behind.strip_prefix('{') {
                // `crate::{a, b::{c, d}}`: what stands before the first `::` or comma is enough here,
                // because groups of modules are rare and short.
                Some(group) => group.split([',', '}']).map(str::trim).collect(),
                None => vec![behind],
            };
            for name in names {
                let name: String = name.chars().take_while(|c| is_name(*c)).collect();
                found.extend((!name.is_empty()).then_some((number, name)));
            }
        }
    }
    found
}

/// The parts of the TCP host that know the key-value store: its routes, and its node. The others serve
/// any state machine.
const KV_IN_HOST: &[&str] = &["src/tcp/http/kv.rs", "src/tcp/http/kv/", "src/tcp/server/kv.rs"];

/// Tests of the TCP host that need some machine, and take the key-value store.
const KV_IN_TESTS: &[&str] = &[
    "src/tcp/disk/lives.rs",
    "src/tcp/http/tests/",
    "src/tcp/power_loss/",
    "src/tcp/server/tests.rs",
];

fn is_host(name: &str) -> bool {
    HOSTS.iter().any(|host| name.starts_with(host))
}

/// Every Rust file of the workspace, as a path from the root with `/`, and its text.
fn sources(rooms: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut rooms: Vec<PathBuf> = rooms.iter().map(|room| root.join(room)).collect();
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).expect("a room of this repository") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                rooms.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root");
                let name = name.to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).expect("it is text")));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source was found below {}", root.display());
    found
}

/// Fails with every complaint at once, so that they can all be mended in one go.
#[track_caller]
fn no_complaint(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// A line without its comment. A `//` inside a string cuts too much, which only hides the rest of
/// that line.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// What a line of a node's source mentions, although it must not. `use std::{fs, ..}` counts too.
fn banned(line: &str) -> Vec<&'static str> {
    let code: String = code(line).chars().filter(|c| !c.is_whitespace()).collect();
    let grouped = code.strip_prefix("usestd::{").unwrap_or_default();
    let is_banned = |banned: &&&str| {
        let room = banned.strip_prefix("std::");
        code.contains(**banned)
            || room.is_some_and(|room| {
                grouped.split([',', '{', '}', ';']).any(|part| part.starts_with(room))
            })
    };
    BANNED_IN_SRC.iter().filter(is_banned).copied().collect()
}

#[test]
fn no_file_is_too_long() {
    let mut complaints = Vec::new();
    let sources = sources(&["src", "sim/src"]);
    for (name, text) in &sources {
        let lines = text.lines().count();
        let allowed = LONGER.iter().find(|(longer, _)| longer == name);
        match allowed {
            Some((_, _)) if lines <= MAX_LINES => {
                complaints.push(format!("{name} has {lines} lines: take it off the list LONGER"));
            }
            Some((_, limit)) if lines <= *limit => {}
            None if lines <= MAX_LINES => {}
            _ => complaints.push(format!("{name} has {lines} lines: give a part its own file")),
        }
    }
    for (longer, _) in LONGER {
        if !sources.iter().any(|(name, _)| name == longer) {
            complaints.push(format!("{longer} is gone: take it off the list LONGER"));
        }
    }
    no_complaint(&complaints);
}

#[test]
fn every_file_says_what_it_is_for() {
    let rooms = ["src", "sim/src", "tests", "sim/tests", "examples"];
    let silent = sources(&rooms).into_iter().filter(|(_, text)| !text.starts_with("//! "));
    let complaints: Vec<_> =
        silent.map(|(name, _)| format!("{name} does not open with `//! `")).collect();
    no_complaint(&complaints);
}

#[test]
fn a_node_knows_no_clock_no_file_no_thread_and_no_simulator() {
    let mut complaints = Vec::new();
    for (name, text) in sources(&["src"]) {
        for (number, line) in (1..).zip(text.lines()) {
            let mut found = if is_host(&name) { Vec::new() } else { banned(line) };
            let outwards = BANNED_OUTSIDE_HOSTS.iter().filter(|what| code(line).contains(**what));
            found.extend(outwards.filter(|_| !is_host(&name)));
            found.extend(code(line).contains("stormkv_sim").then_some("stormkv_sim"));
            for what in found {
                complaints.push(format!("{name}:{number} mentions {what}: ask the host instead"));
            }
        }
    }
    no_complaint(&complaints);
}

#[test]
fn core_and_simulator_portable() {
    let mut complaints = Vec::new();
    for (name, text) in sources(&["src", "sim/src"]) {
        for (number, line) in (1..).zip(text.lines()).filter(|_| !is_host(&name)) {
            let found = BANNED_PLATFORM.iter().filter(|what| code(line).contains(**what));
            complaints.extend(found.map(|what| format!("{name}:{number} mentions {what}")));
        }
    }
    no_complaint(&complaints);
}

#[test]
fn data_directory_changes_through_recorded_functions() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (name, text) in sources(&["src/tcp"]) {
        if !RECORDED.iter().any(|recorded| name.starts_with(recorded)) {
            continue;
        }
        seen += 1;
        for (number, line) in (1..).zip(text.lines()) {
            if banned(line).contains(&"std::fs") {
                complaints.push(format!("{name}:{number} mentions std::fs: use crate::tcp::fs"));
            }
        }
    }
    assert!(seen > RECORDED.len(), "only {seen} files");
    no_complaint(&complaints);
}

#[test]
fn tcp_host_serves_any_machine() {
    let mut complaints = Vec::new();
    let sources = sources(&["src/tcp"]);
    let among = |rooms: &[&str], name: &str| rooms.iter().any(|room| name.starts_with(room));
    for (name, text) in &sources {
        if among(KV_IN_HOST, name) || among(KV_IN_TESTS, name) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if code(line).contains("crate::kv") {
                complaints.push(format!(
                    "{name}:{number} mentions crate::kv: only the key-value store's own routes may"
                ));
            }
        }
    }
    for room in KV_IN_HOST.iter().chain(KV_IN_TESTS) {
        if !sources.iter().any(|(name, text)| name.starts_with(room) && text.contains("crate::kv"))
        {
            complaints.push(format!("{room} does not mention crate::kv: take it off its list"));
        }
    }
    no_complaint(&complaints);
}

#[test]
fn there_is_a_host_and_a_core() {
    let sources = sources(&["src"]);
    let hosts = sources.iter().filter(|(name, _)| is_host(name)).count();
    assert!(hosts > 10 && sources.len() - hosts > 20, "{hosts} of {}", sources.len());
    for host in HOSTS {
        assert!(sources.iter().any(|(name, _)| name.starts_with(host)), "{host} is gone");
    }
}

#[test]
fn modules_of_the_simulator_use_only_lower_layers() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut complaints = Vec::new();
    let mut edges = 0;
    for (file, text) in sources(&["sim/src"]) {
        let inner = file.strip_prefix("sim/src/").expect("it is of the simulator");
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if matches!(inner, "lib.rs" | "main.rs") || inner.contains("/tests") {
            continue;
        }
        let Some(from) = layer(module) else {
            complaints.push(format!("{file}: `{module}` has no layer: add it to LAYERS"));
            continue;
        };
        for (number, used) in mentioned(&text) {
            let Some(to) = layer(&used) else { continue };
            edges += 1;
            if used != module && to >= from && !PAIRS.contains(&(module, used.as_str())) {
                complaints.push(format!("{file}:{number} uses `{used}`, which is not below it"));
            }
        }
    }
    assert!(edges > 300, "only {edges} uses were found");
    no_complaint(&complaints);
}

#[test]
fn only_the_key_value_service_knows_its_verbs() {
    let mut complaints = Vec::new();
    for (file, text) in sources(&["sim/src"]) {
        let knows = ["sim/src/kv", "sim/src/cli", "sim/src/main.rs", "sim/src/lib.rs"];
        if knows.iter().any(|place| file.starts_with(place)) || file.contains("/tests") {
            continue;
        }
        for (number, line) in (1..).zip(without_tests(&text).lines()) {
            if code(line).contains("stormkv::kv") || code(line).contains("crate::kv") {
                complaints.push(format!("{file}:{number} mentions the key-value service"));
            }
        }
    }
    no_complaint(&complaints);
}

#[test]
fn mentioned_modules_are_found_in_paths_and_groups() {
    let text = "use crate::plan::{self, Op};\nuse crate::{swarm, view::Curve};\n// crate::cli\n\
                let x = crate::rng::mix(1);\n#[cfg(test)]\nmod tests {\nuse crate::cli;\n}\n";
    let names: Vec<(usize, String)> = mentioned(text);
    let names: Vec<(usize, &str)> =
        names.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "plan"), (2, "swarm"), (2, "view"), (4, "rng")]);
}

#[test]
fn the_ban_sees_through_groups_and_past_comments() {
    assert_eq!(banned("use std::fs::File;"), ["std::fs"]);
    assert_eq!(banned("use std::{fmt, net};"), ["std::net"]);
    assert_eq!(banned("use std::{time::{Duration, Instant}, fmt};"), Vec::<&str>::new());
    assert_eq!(banned("use stormkv_sim::simulation;"), ["stormkv_sim"]);
    assert_eq!(banned("use std::time::Duration; // not std::time::Instant"), Vec::<&str>::new());
}
