//! What was measured, for people and for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Load, Tally};

/// The percentiles that are reported, and their names.
const PERCENTILES: [(f64, &str); 4] =
    [(0.5, "p50_ms"), (0.9, "p90_ms"), (0.99, "p99_ms"), (0.999, "p99_9_ms")];

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn per_second(tally: &Tally) -> f64 {
    tally.latencies.total() as f64 / tally.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// One object: what was done, and a result for each number of clients.
pub fn json(target: &str, load: &Load, results: &[(usize, Tally)]) -> Value {
    let result = |(clients, tally): &(usize, Tally)| {
        let mut result = json!({
            "clients": clients,
            "operations": tally.latencies.total(),
            "ops_per_s": per_second(tally).round(),
            "max_ms": millis(tally.latencies.longest()),
            "refused": tally.refused,
            "unknown": tally.unknown,
            "unanswered": tally.unanswered,
        });
        for (share, name) in PERCENTILES {
            result[name] = millis(tally.latencies.quantile(share)).into();
        }
        result
    };
    json!({
        "target": target,
        "mix": load.mix.to_string(),
        "value_bytes": load.value_bytes,
        "keys": load.keys,
        "warmup_s": load.warmup.as_secs_f64(),
        "measured_s": load.measured.as_secs_f64(),
        "results": results.iter().map(result).collect::<Vec<_>>(),
    })
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:>7} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
        "clients", "ops/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "failed"
    )
}

/// A line of the table; below it what failed, if anything did.
pub fn line(clients: usize, tally: &Tally) -> String {
    let mut line = format!("{clients:>7} {:>10.0}", per_second(tally));
    for (share, _) in PERCENTILES {
        write!(line, " {:>9.3}", millis(tally.latencies.quantile(share))).expect("a String grows");
    }
    let longest = millis(tally.latencies.longest());
    writeln!(line, " {longest:>9.3} {:>8}", tally.failures()).expect("a String grows");
    let mut causes: Vec<String> =
        tally.refused.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    if tally.unknown > 0 {
        causes.push(format!("{} puts of unknown outcome (they may have happened)", tally.unknown));
    }
    if tally.unanswered > 0 {
        causes.push(format!("{} gets not answered", tally.unanswered));
    }
    if !causes.is_empty() {
        writeln!(line, "{:>7} {}", "", causes.join(", ")).expect("a String grows");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::load::Mix;
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally { elapsed: Duration::from_secs(2), ..Tally::default() };
        for _ in 0..3000 {
            tally.latencies.record(Duration::from_micros(1500));
        }
        tally.refused.insert("busy".to_owned(), 2);
        tally.unknown = 1;
        tally
    }

    #[test]
    fn the_table_lines_up_and_tells_what_failed() {
        let (head, lines) = (head(), line(32, &tally()));
        let mut lines = lines.lines();
        let first = lines.next().unwrap();
        assert_eq!(first.len(), head.trim_end_matches('\n').len());
        assert_eq!(
            first.split_whitespace().collect::<Vec<_>>(),
            ["32", "1500", "1.500", "1.500", "1.500", "1.500", "1.500", "3"]
        );
        let below = lines.next().unwrap();
        assert!(below.contains("2 busy") && below.contains("1 puts of unknown outcome"));
        assert_eq!(line(1, &Tally::default()).lines().count(), 1);
    }

    #[test]
    fn json_has_a_result_for_each_number_of_clients() {
        let load = Load {
            mix: Mix::Mixed(0.8),
            keys: 10,
            value_bytes: 128,
            warmup: Duration::from_secs(1),
            measured: Duration::from_secs(2),
        };
        let report = json("stormkv", &load, &[(32, tally()), (1, Tally::default())]);
        assert_eq!(report["mix"], "mixed:0.8");
        assert_eq!(report["results"][0]["ops_per_s"], 1500.0);
        assert_eq!(report["results"][0]["p99_9_ms"], 1.5);
        assert_eq!(report["results"][0]["refused"]["busy"], 2);
        assert_eq!(report["results"][1]["operations"], 0);
    }
}
