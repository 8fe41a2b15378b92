//! `/metrics` of real nodes: in a form that Prometheus takes, and with all that the dashboard and the
//! alerts of `docs/operations` ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::{turn, until};

/// The families of a scrape: name and type.
type Families = BTreeMap<String, String>;

/// The name of a metric at the beginning of a line.
fn name(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap_or_default()
}

/// Checks the text format 0.0.4 and the rules of `promtool check metrics`.
#[track_caller]
fn checked(text: &str) -> Families {
    let (mut families, mut helped) = (Families::new(), BTreeSet::new());
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help text");
            assert!(!words.trim().is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "two help texts: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(helped.contains(name), "no help before {line}");
            let again = families.insert(name.to_owned(), kind.to_owned());
            assert_eq!(again, None, "two types: {line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            for word in ["_milliseconds", "_ms", "_kib", "_mib", "_kilobytes", "_minutes"] {
                assert!(!name.contains(word), "no base unit: {line}");
            }
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "what is this? {line}");
            let (of, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(of.to_owned()), "a series twice: {line}");
            let name = name(line);
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|base| families.get(*base).is_some_and(|k| k == "histogram"));
            assert!(families.contains_key(base.unwrap_or(name)), "no type before {line}");
        }
    }
    families
}

/// All metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| word.starts_with("stormkv_") || word.starts_with("process_");
    words.filter(is_metric).map(ToOwned::to_owned).collect()
}

fn documents() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations");
    ["dashboard.json", "alerts.yaml", "monitoring.md"]
        .map(|name| (name.to_owned(), std::fs::read_to_string(folder.join(name)).expect(name)))
        .to_vec()
}

#[test]
fn prometheus_takes_the_metrics_and_the_documents_name_real_ones() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let leader = fleet.leader();
    let scrape = |id, accept: &str| {
        let request = Request::new("GET", "/metrics").header("accept", accept);
        fleet.ask(id, &request, 200)
    };
    until("the followers are connected", || {
        scrape(leader, "*/*").text().contains("stormkv_raft_member_lag_entries{").then_some(())
    });
    let mut families = Families::new();
    for id in fleet.ids() {
        let answer = scrape(id, "*/*");
        let kind = answer.header("content-type").unwrap_or_default();
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        families.append(&mut checked(&answer.text()));
        let open = scrape(id, "application/openmetrics-text;version=1.0.0,text/plain;q=0.3");
        assert!(open.header("content-type").is_some_and(|kind| kind.contains("openmetrics")));
        assert!(open.text().ends_with("# EOF\n"));
        promtool(&answer.body);
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"] {
        assert!(families.contains_key(&format!("process_{name}")), "{families:?}");
    }
    let text = scrape(leader, "").text();
    let value = |name: &str| {
        let line = text.lines().find(|line| self::name(line) == name);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    assert_eq!((value("stormkv_keys"), value("stormkv_state_bytes")), (1.0, 8.0));
    assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
    assert!(value("process_start_time_seconds") > 1.6e9, "{text}");
    assert!((4.0..value("process_max_fds")).contains(&value("process_open_fds")), "{text}");
    assert!(value("stormkv_disk_free_bytes") > 0.0 && value("stormkv_log_bytes") > 0.0, "{text}");

    for (document, text) in documents() {
        let named = named(&text);
        assert!(named.len() > 5, "{document} names {named:?}");
        for name in named {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known =
                families.contains_key(&name) || base.is_some_and(|b| families.contains_key(b));
            assert!(known, "{document} names {name}, which no node shows");
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&documents()[0].1).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 5));
}

/// Prometheus' own opinion, where its tool is installed.
#[track_caller]
fn promtool(text: &[u8]) {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().expect("a pipe").write_all(text).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
