//! Medians of several rounds, and how the two compare.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// Throughput, median latency and 99th percentile of each round.
type Rounds = BTreeMap<&'static str, Vec<[f64; 3]>>;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What each of the two did in each round, by what was done and by how many clients.
fn rounds(lines: impl Iterator<Item = String>) -> Result<BTreeMap<(String, u64), Rounds>, String> {
    let mut all = BTreeMap::<(String, u64), Rounds>::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let report: Value =
            serde_json::from_str(&line).map_err(|error| format!("no report: {error}"))?;
        let is_etcd = report["target"].as_str().is_some_and(|target| target.starts_with("etcd"));
        let who = if is_etcd { "etcd" } else { "stormkv" };
        let mix = report["mix"].as_str().unwrap_or_default().to_owned();
        for result in report["results"].as_array().into_iter().flatten() {
            let number = |field: &str| result[field].as_f64().unwrap_or(f64::NAN);
            let round = [number("ops_per_s"), number("p50_ms"), number("p99_ms")];
            let place = all.entry((mix.clone(), result["clients"].as_u64().unwrap_or(0)));
            place.or_default().entry(who).or_default().push(round);
        }
    }
    Ok(all)
}

fn rendered(all: &BTreeMap<(String, u64), Rounds>) -> String {
    let mut text = format!(
        "{:<10} {:>7} {:>10} {:>10} {:>10} {:>10} {:>7} {:>11} {:>11}\n",
        "mix",
        "clients",
        "etcd op/s",
        "storm op/s",
        "etcd p50",
        "storm p50",
        "op/s x",
        "etcd p99",
        "storm p99"
    );
    for ((mix, clients), rounds) in all {
        let of = |who: &str, field: usize| {
            let rounds = rounds.get(who).into_iter().flatten();
            median(rounds.map(|round| round[field]).collect())
        };
        let ratio = of("stormkv", 0) / of("etcd", 0);
        text.push_str(&format!(
            "{mix:<10} {clients:>7} {:>10.0} {:>10.0} {:>10.2} {:>10.2} {ratio:>7.2} {:>11.2} \
             {:>11.2}\n",
            of("etcd", 0),
            of("stormkv", 0),
            of("etcd", 1),
            of("stormkv", 1),
            of("etcd", 2),
            of("stormkv", 2),
        ));
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
                r#"{{"target":"{who} x","mix":"put","results":[{{"clients":32,"ops_per_s":{ops},
                "p50_ms":1.5,"p99_ms":3}}]}}"#
            )
            .replace('\n', "")
        };
        let lines =
            [report("etcd", 100), report("etcd", 900), report("etcd", 200), report("stormkv", 600)];
        let table = rendered(&rounds(lines.into_iter()).unwrap());
        let cells: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[..7], ["put", "32", "200", "600", "1.50", "1.50", "3.00"]);
        assert!(rounds(["nonsense".to_owned()].into_iter()).is_err());
    }
}
