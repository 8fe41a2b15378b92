//! What an operator does: who may do what, certificates, backups, and a cluster made of one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::nodes::PROGRAM;
use crate::harness::{turn, until};

/// Runs a subcommand of the program to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program runs")
}

/// As [`run`]; it must succeed.
#[track_caller]
pub(super) fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As [`run`]; it must fail, and say this.
#[track_caller]
pub(super) fn refused(arguments: &[&str], words: &str) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} should fail");
    assert!(said.contains(words), "`{words}` is missing in: {said}");
}

/// Where clients reach the nodes.
fn endpoints(fleet: &Fleet, scheme: &str) -> String {
    let urls: Vec<String> =
        fleet.nodes.values().map(|node| format!("{scheme}://{}", node.http)).collect();
    urls.join(",")
}

fn write_secret(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// With a token file, everybody needs a token, and a token opens no more doors than its role has.
#[test]
fn tokens_say_who_may_do_what() {
    let _turn = turn();
    let mut fleet = Fleet::prepare(1, &[]);
    let path = fleet.folder().join("tokens");
    write_secret(&path, "client reader\nadmin boss\nmetrics scraper\n", 0o644);
    let shown = path.display().to_string();
    fleet.node(1).arguments.extend(["--token-file".to_owned(), shown.clone()]);
    // Others could read the file: the node does not even start.
    fleet.start_all();
    let status = fleet.node(1).exit();
    assert!(!status.success() && fleet.node(1).printed().contains(&shown), "{status}");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    fleet.start_all();
    let with =
        |request: Request, token: &str| request.header("authorization", format!("Bearer {token}"));
    let put = || Request::new("PUT", "/key").body("value");
    let get = |target: &str| Request::new("GET", target);
    fleet.ask(1, &with(put(), "reader"), 204);
    let removal = || Request::new("DELETE", "/7");
    for (request, status) in [
        (put(), 401),
        (with(put(), "guess"), 401),
        (get("/key"), 401),
        (with(get("/key"), "reader"), 200),
        (with(get("/key"), "boss"), 200),
        (with(get("/key"), "scraper"), 403),
        (with(get("/metrics"), "scraper"), 200),
        (get("/metrics"), 401),
        (with(removal(), "reader"), 403),
        (with(removal(), "boss"), 404),
        (with(get("/v1/backup"), "reader"), 403),
        (get("/health"), 200),
        (get("/ready"), 200),
    ] {
        let answer = fleet.node(1).ask(&request).expect("an answer");
        let (method, target) = (request.method, &request.target);
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    }
    let url = endpoints(&fleet, "http");
    assert_eq!(
        done(&["ctl", "--endpoints", &url, "--token", "reader", "get", "key"]).trim(),
        "value"
    );
    refused(&["ctl", "--endpoints", &url, "get", "key"], "token");
}

/// A backup of a busy cluster founds another one, which has all of it: entries, and the sessions
/// that make retries harmless.
#[test]
fn a_backup_becomes_a_new_cluster() {
    let _turn = turn();
    let fleet = Fleet::found(3);
    for number in 0..50 {
        fleet.put(1 + number % 3, &format!("key-{number:02}"), &"x".repeat(1000));
    }
    let opened = fleet.ask(1, &Request::new("POST", "/v1/sessions"), 201).json();
    let session = opened["session"].as_u64().expect("a session");
    let cas = Request::new("POST", "/v1/cas")
        .json(&json!({ "key": "once", "expected": null, "new": "1" }))
        .header("idempotency-key", format!("{session}-1"));
    assert_eq!(fleet.ask(2, &cas, 200).json()["swapped"], true);

    let file = fleet.folder().join("backup");
    let shown = file.display().to_string();
    let url = endpoints(&fleet, "http");
    done(&["backup", "--endpoints", &url, "-o", &shown]);
    let mode = fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it holds everything");
    refused(&["backup", "--endpoints", &url, "-o", &shown], "exists");
    fleet.put(1, "later", "is not part of it");

    let mut other = Fleet::prepare(3, &[]);
    let damaged = other.folder().join("damaged");
    let mut bytes = fs::read(&file).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).expect("written");
    for (path, good) in [(damaged.display().to_string(), false), (shown, true)] {
        let mut restore: Option<String> = None;
        for node in other.nodes.values() {
            let mut arguments = vec!["restore", path.as_str()];
            arguments.extend(restore.iter().flat_map(|id| ["--restore-id", id.as_str()]));
            arguments.extend(node.arguments.iter().map(String::as_str));
            if good {
                let said = done(&arguments);
                let id = said.split_once("--restore-id ").map(|(_, id)| id.trim().to_owned());
                assert_ne!(id.is_some(), restore.is_some(), "the first one draws it: {said}");
                restore = restore.or(id);
            } else {
                refused(&arguments, "copy it again, or use another backup");
                assert!(!node.data.join("identity.toml").exists(), "nothing was begun");
            }
        }
    }
    other.start_all();
    other.leader();
    for number in [0, 25, 49] {
        let value = other.get(1, &format!("key-{number:02}"));
        assert_eq!(value.map(|value| value.len()), Some(1000), "key {number}");
    }
    assert_eq!(other.get(2, "later"), None);
    let again = other.ask(3, &cas, 200).json();
    assert_eq!(again["swapped"], true, "the first answer, from another cluster's session");
    other.put(2, "new", "and it goes on");
    other.converge(&[1, 2, 3]);
}

/// A program's arguments, one after the other.
fn list<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// Peers with certificates of one CA form a cluster. A node that shows another's certificate does
/// not even start; one with certificates of a foreign CA talks to nobody. Clients that need
/// certificates are served with one and turned away without.
#[test]
fn certificates_admit_peers_and_clients() {
    let _turn = turn();
    let mut fleet = Fleet::prepare_with("https", 3, &[]);
    for name in ["certs", "foreign"] {
        let output = fleet.folder().join(name).display().to_string();
        done(&["certs", "--output", &output, "--hosts", "127.0.0.1", "--clients", "alice"]);
    }
    let folder = fleet.folder().to_owned();
    let file = |name: &str| folder.join(name).display().to_string();
    // What a node shows to its peers, from which set; clients are met with the right set always.
    let identity = |set: &str, shown: u64, id: u64| {
        [
            ("--peer-ca", file(&format!("{set}/peer-ca.pem"))),
            ("--peer-cert", file(&format!("{set}/node-{shown}.pem"))),
            ("--peer-key", file(&format!("{set}/node-{shown}.key"))),
            ("--cert", file(&format!("certs/server-{id}.pem"))),
            ("--key", file(&format!("certs/server-{id}.key"))),
            ("--client-ca", file("certs/client-ca.pem")),
        ]
        .map(|(flag, path)| [flag.to_owned(), path])
        .concat()
    };
    let plain = fleet.node(3).arguments.clone();
    for id in 1..=2 {
        fleet.node(id).arguments.extend(identity("certs", id, id));
        fleet.node(id).start();
    }
    let (ca, cert, key) =
        (file("certs/server-ca.pem"), file("certs/alice.pem"), file("certs/alice.key"));
    let known = ["--ca-file", &ca, "--cert-file", &cert, "--key-file", &key];
    let two = endpoints(&fleet, "https").rsplit_once(',').expect("three").0.to_owned();
    let at = |url| ["ctl", "--timeout", "20", "--endpoints", url];
    done(&list(&[&at(&two), &known, &["put", "key", "value"]]));
    assert_eq!(done(&list(&[&at(&two), &known, &["get", "key"]])).trim(), "value");
    let stranger = ["--ca-file", &ca, "--timeout", "3"];
    let without = ["ctl", "--endpoints", &two];
    refused(&list(&[&without, &stranger, &["get", "key"]]), "CertificateRequired");

    fleet.node(3).arguments = [plain.clone(), identity("certs", 2, 3)].concat();
    fleet.node(3).start();
    let status = fleet.node(3).exit();
    let said = fleet.node(3).printed();
    assert!(!status.success() && said.contains("node-3.stormkv"), "{status}: {said}");

    fleet.node(3).arguments = [plain.clone(), identity("foreign", 3, 3)].concat();
    fleet.node(3).start();
    until("both sides complain of each other's certificate", || {
        let complains = |id: &u64| fleet.nodes[id].printed().contains("certificate");
        (complains(&1) && complains(&3)).then_some(())
    });
    let alone = format!("https://{}", fleet.node(3).http);
    refused(&list(&[&at(&alone), &known, &["get", "--stale", "key"]]), "");

    fleet.node(3).kill();
    fleet.node(3).arguments = [plain, identity("certs", 3, 3)].concat();
    fleet.node(3).start();
    assert_eq!(done(&list(&[&at(&alone), &known, &["get", "key"]])).trim(), "value");
}

/// SIGHUP reads certificates and tokens again, at once and without an end to any connection. What is
/// wrong changes nothing, and is an error in the log.
#[test]
fn a_hangup_reloads_certificates_and_tokens() {
    let _turn = turn();
    let mut fleet = Fleet::prepare(1, &["--log", "json"]);
    let folder = fleet.folder().to_owned();
    let file = |name: &str| folder.join(name).display().to_string();
    for name in ["certs", "other"] {
        done(&["certs", "--output", &file(name), "--hosts", "127.0.0.1", "--nodes", "1"]);
    }
    let tokens = folder.join("tokens");
    write_secret(&tokens, "client first\n", 0o600);
    fleet.node(1).arguments.extend([
        "--cert".to_owned(),
        file("certs/server-1.pem"),
        "--key".to_owned(),
        file("certs/server-1.key"),
        "--token-file".to_owned(),
        tokens.display().to_string(),
    ]);
    fleet.node(1).start();
    let url = endpoints(&fleet, "https");
    let (ca, other_ca) = (file("certs/server-ca.pem"), file("other/server-ca.pem"));
    let ctl = |ca: &str, token: &str, rest: &[&str]| {
        let common = ["ctl", "--timeout", "20", "--endpoints", &url, "--ca-file", ca];
        run(&list(&[&common, &["--token", token], rest]))
    };
    until("it serves", || ctl(&ca, "first", &["put", "k", "v"]).status.success().then_some(()));

    // All at once, so that only a signal can have made it known: the files are looked at by time, too,
    // but then nothing is said about what has not changed.
    let lines = |fleet: &Fleet, what: &str, words: &str| {
        let printed = fleet.nodes[&1].printed();
        let is_it = |line: &&str| line.contains(what) && line.contains(words);
        printed.lines().filter(is_it).count()
    };
    fleet.node(1).hang_up();
    until("nothing has changed", || {
        (lines(&fleet, "\"tokens\"", "nothing has changed") == 1).then_some(())
    });
    write_secret(&tokens, "root first\n", 0o600);
    fs::copy(file("certs/server-ca.pem"), file("certs/server-1.pem")).expect("copied");
    for count in 1..=2 {
        fleet.node(1).hang_up();
        until("both are errors, each time", || {
            let errors = |what| lines(&fleet, what, "\"ERROR\"");
            (errors("\"tokens\"") == count && errors("\"certificates for clients\"") == count)
                .then_some(())
        });
    }
    let kept = ctl(&ca, "first", &["get", "k"]);
    assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));

    write_secret(&tokens, "client second\n", 0o600);
    for name in ["server-1.pem", "server-1.key"] {
        fs::copy(file(&format!("other/{name}")), file(&format!("certs/{name}"))).expect("copied");
    }
    fleet.node(1).hang_up();
    until("the new ones are used", || {
        ctl(&other_ca, "second", &["get", "k"]).status.success().then_some(())
    });
    let old = ctl(&other_ca, "first", &["get", "k"]);
    assert!(String::from_utf8_lossy(&old.stderr).contains("token"), "the old token is gone");
    fleet.node(1).terminate();
    assert!(fleet.node(1).exit().success());
}

/// One endpoint is enough to see all members: they tell each other where they serve clients.
#[test]
fn the_status_of_one_endpoint_shows_all_members() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let one = format!("http://{}", fleet.node(1).http);
    let rows = || -> Vec<serde_json::Value> {
        let said = done(&["ctl", "--endpoints", &one, "--json", "status"]);
        serde_json::from_str(&said).expect("JSON")
    };
    let all = until("all three are seen", || {
        let rows = rows();
        rows.iter()
            .all(|row| row["status"]["id"].is_u64())
            .then_some(rows)
            .filter(|rows| rows.len() == 3)
    });
    for row in &all {
        let (id, endpoint) = (row["status"]["id"].as_u64().expect("an id"), &row["endpoint"]);
        assert_eq!(*endpoint, format!("http://{}", fleet.nodes[&id].http), "{row}");
        assert_eq!(row["member"]["client_url"], *endpoint, "{row}");
        assert_eq!(row["status"]["version"], env!("CARGO_PKG_VERSION"), "{row}");
    }
    fleet.node(3).kill();
    let dead = rows().into_iter().find(|row| row["error"].is_string()).expect("one that is dead");
    assert_eq!(dead["member"]["id"], 3, "{dead}");
    fleet.node(2).pause();
    let began = std::time::Instant::now();
    let table = done(&["ctl", "--endpoints", &one, "status"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let unreachable = table.lines().filter(|line| line.contains("unreachable")).count();
    assert_eq!(unreachable, 2, "{table}");
}
