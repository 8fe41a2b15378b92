//! Medians of several rounds, and how the two compare.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// Throughput, median latency, 99th and 99.9th percentile of each round.
type Rounds = BTreeMap<&'static str, Vec<[f64; 4]>>;

/// Case of a comparison: the mix, the bytes of a value and the number of clients.
type Case = (String, u64, u64);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rounds of each of the two systems, by case.
fn rounds(lines: impl Iterator<Item = String>) -> Result<BTreeMap<Case, Rounds>, String> {
    let mut all = BTreeMap::<Case, Rounds>::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let report: Value =
            serde_json::from_str(&line).map_err(|error| format!("no report: {error}"))?;
        let is_etcd = report["target"].as_str().is_some_and(|target| target.starts_with("etcd"));
        let who = if is_etcd { "etcd" } else { "stormkv" };
        let mix = report["mix"].as_str().unwrap_or_default().to_owned();
        let value_bytes = report["value_bytes"].as_u64().unwrap_or(0);
        for result in report["results"].as_array().into_iter().flatten() {
            let number = |field: &str| result[field].as_f64().unwrap_or(f64::NAN);
            let round = ["ops_per_s", "p50_ms", "p99_ms", "p99_9_ms"].map(number);
            let clients = result["clients"].as_u64().unwrap_or(0);
            let rounds = all.entry((mix.clone(), value_bytes, clients));
            rounds.or_default().entry(who).or_default().push(round);
        }
    }
    Ok(all)
}

fn rendered(all: &BTreeMap<Case, Rounds>) -> String {
    let mut text = format!(
        "{:<4} {:>7} {:>7} {:>20} {:>6} {:>17} {:>17} {:>17}\n",
        "mix", "bytes", "clients", "per second", "", "p50 ms", "p99 ms", "p99.9 ms"
    );
    text.push_str(&format!(
        "{:<20} {:>10}{:>10} {:>6}{}\n",
        "",
        "etcd",
        "stormkv",
        "ratio",
        format!(" {:>8} {:>8}", "etcd", "stormkv").repeat(3)
    ));
    for ((mix, value_bytes, clients), rounds) in all {
        let of = |who: &str, field: usize| {
            let rounds = rounds.get(who).into_iter().flatten();
            median(rounds.map(|round| round[field]).collect())
        };
        let (etcd, stormkv) = (of("etcd", 0), of("stormkv", 0));
        let ratio = stormkv / etcd;
        text.push_str(&format!(
            "{mix:<4} {value_bytes:>7} {clients:>7} {etcd:>10.0}{stormkv:>10.0} {ratio:>6.2}"
        ));
        for field in 1..4 {
            text.push_str(&format!(" {:>8.2} {:>8.2}", of("etcd", field), of("stormkv", field)));
        }
        text.push('\n');
    }
    text
}

/// The table of what is in these files.
///
/// # Errors
/// If a file cannot be read or is none of ours.
pub fn table(files: &[PathBuf]) -> Result<String, String> {
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        lines.extend(text.lines().map(ToOwned::to_owned));
    }
    rounds(lines.into_iter()).map(|all| rendered(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared() {
        let report = |who: &str, ops: u64| {
            format!(
                r#"{{"target":"{who} x","mix":"put","value_bytes":128,"results":[{{"clients":32,
                "ops_per_s":{ops},"p50_ms":1.5,"p99_ms":3,"p99_9_ms":7}}]}}"#
            )
            .replace('\n', "")
        };
        let lines =
            [report("etcd", 100), report("etcd", 900), report("etcd", 200), report("stormkv", 600)];
        let table = rendered(&rounds(lines.into_iter()).unwrap());
        let cells: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "put", "128", "32", "200", "600", "3.00", "1.50", "1.50", "3.00", "3.00", "7.00",
                "7.00"
            ]
        );
        assert!(rounds(["nonsense".to_owned()].into_iter()).is_err());
    }
}
