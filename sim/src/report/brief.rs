//! A campaign on one screen: the verdict first, then how much was run and exercised, in a line each,
//! and what was not covered. The full report has every count.

use std::collections::BTreeMap;

use super::text::wrapped;
use super::{Paint, duration, failures, never_injected, never_reached, thousands, time};
use crate::campaign::{Canaries, Totals};
use crate::plan::Fault;

/// How many names of what was not covered are listed of each kind.
const LISTED: usize = 16;

/// How many of the most frequent things are named.
const NAMED: usize = 2;

/// The verdict in one line: `clean: 3,000 seeds, no violation`.
pub fn verdict_line(totals: &Totals, paint: Paint) -> String {
    let seeds = match totals.seeds {
        1 => "1 seed".to_owned(),
        count => format!("{} seeds", thousands(count.into())),
    };
    let so_far = if totals.interrupted { ", interrupted before the end" } else { "" };
    match totals.failed.len() {
        0 if totals.seeds == 0 && !totals.interrupted => {
            format!("{}: no seed falls to this shard, so nothing was tested", paint.green("clean"))
        }
        0 => format!("{}: {seeds}, no violation{so_far}", paint.green("clean")),
        failed => {
            let failed = thousands(failed as u128);
            format!("{}: {failed} of {seeds}{so_far}", paint.red("failed"))
        }
    }
}

/// The summary of a campaign, its verdict first. `label` names the seeds. All waypoints are given, to name those
/// never reached, and the faults that the service declares.
pub fn brief(
    label: &str,
    totals: &Totals,
    (waypoints, custom_faults): (&[&str], &[&str]),
    paint: Paint,
) -> String {
    let mut text = format!("{}\n\n", verdict_line(totals, paint));
    let mut row = |name: &str, words: String| text.push_str(&format!("{name:<10}  {words}\n"));
    row("seeds", format!("{label}, trace hash {:016x}", totals.trace_hash));
    row("time", time(totals));
    if let Some(Canaries { due, reported, own }) = totals.canaries() {
        row("canaries", format!("{due} due, {reported} reported, {own} failed by themselves"));
    }
    row("work", work(totals));
    row("faults", faults(totals, custom_faults));
    let reached = totals.waypoints.values().filter(|count| **count > 0).count();
    row("waypoints", format!("{reached} of {} reached", waypoints.len().max(reached)));
    row("checks", checks(totals));
    if let Some(recovery) = recovery(totals) {
        row("recovery", recovery);
    }
    text.push_str(&not_covered(totals, waypoints, paint));
    text.push_str(&failures(totals, paint));
    text
}

fn work(totals: &Totals) -> String {
    let wall = totals.wall.as_secs_f64();
    let rate = match totals.read_back {
        0 => format!(
            ", {} events per second",
            thousands((totals.events as f64 / wall.max(1e-9)) as u128)
        ),
        _ => String::new(),
    };
    format!(
        "{} operations acknowledged, {} messages{rate}",
        thousands(totals.acknowledged.into()),
        thousands(totals.messages.into())
    )
}

/// The faults of the plans. What else happens to messages and sectors, by chance and because of these,
/// is far more frequent and says less.
fn faults(totals: &Totals, custom: &[&str]) -> String {
    let planned =
        |name: &&'static str| Fault::kinds().any(|kind| kind == *name) || custom.contains(name);
    let counts = totals.faults.iter().filter(|(name, _)| planned(name));
    let counts: BTreeMap<&'static str, u64> = counts.map(|(name, count)| (*name, *count)).collect();
    let kinds = counts.values().filter(|count| **count > 0).count();
    let (all, count) = (counts.len(), thousands(counts.values().sum::<u64>().into()));
    format!("{count} injected, {kinds} of {all} kinds{}", most(&counts))
}

fn checks(totals: &Totals) -> String {
    let count: u64 = totals.checks.values().sum();
    let kinds = totals.checks.values().filter(|count| **count > 0).count();
    let (all, count) = (totals.checks.len(), thousands(count.into()));
    format!("{count} by {kinds} of {all} checkers{}", most(&totals.checks))
}

/// The most frequent of them: `; most often crash 1,234, partition 56`.
fn most(counts: &BTreeMap<&'static str, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named = counts.iter().take(NAMED);
    let named: Vec<String> =
        named.map(|(name, count)| format!("{name} {}", thousands((**count).into()))).collect();
    match named.is_empty() {
        true => String::new(),
        false => format!("; most often {}", named.join(", ")),
    }
}

/// How long it took after the faults until there was a leader, and until all was well.
fn recovery(totals: &Totals) -> Option<String> {
    let parts = totals.recovery.named().into_iter().filter_map(|(name, times)| {
        if !matches!(name, "leader" | "converged") {
            return None;
        }
        let seconds = |ns: u64| duration(ns as f64 / 1e9);
        let (p50, p99) = (seconds(times.percentile_ns(50)?), seconds(times.percentile_ns(99)?));
        Some(format!("{name} after p50 {p50}, p99 {p99}, max {}", seconds(times.max_ns()?)))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What no run has done, reached or checked: passing says nothing about it.
fn not_covered(totals: &Totals, waypoints: &[&str], paint: Paint) -> String {
    let idle = totals.checks.iter().filter(|(_, count)| **count == 0);
    let mut text = String::new();
    for (what, names) in [
        ("faults", never_injected(totals)),
        ("waypoints", never_reached(totals, waypoints)),
        ("checks", idle.map(|(name, _)| *name).collect()),
    ] {
        if names.is_empty() {
            continue;
        }
        let mut listed: Vec<String> =
            names.iter().take(LISTED).map(|name| (*name).to_owned()).collect();
        if names.len() > LISTED {
            let rest = names.len() - LISTED;
            let last = listed.last_mut().expect("some are listed");
            last.push_str(&format!(" and {rest} more"));
        }
        text.push_str(&wrapped(&format!("  {what}: "), &listed, paint));
    }
    if text.is_empty() { text } else { format!("\n{}\n{text}", paint.bold("not covered")) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{totals, violation};
    use super::*;
    use crate::campaign::Failure;
    use crate::outcome::{Class, Recovery};

    const KNOWN: [&str; 3] = ["snapshot-installed", "torn-tail", "leader-removed"];

    const BRIEF: &str = "\
clean: 1,000 seeds, no violation

seeds       0..1000, 2 jobs, trace hash 0123456789abcdef
time        3 h 25 min simulated in 12.4 s, 992 times as fast
work        123,456 operations acknowledged, 3,456,789 messages, 995,619 events per second
faults      1,290 injected, 2 of 2 kinds; most often crash 1,234, partition 56
waypoints   1 of 3 reached
checks      7,000,000 by 1 of 2 checkers; most often election-safety 7,000,000

not covered
  faults: bit-rot
  waypoints: torn-tail, leader-removed
  checks: snapshot-prefix
";

    #[test]
    fn a_clean_campaign_fits_on_a_screen_with_its_verdict_first() {
        let text = brief("0..1000, 2 jobs", &totals(Vec::new()), (&KNOWN, &[]), Paint::plain());
        assert_eq!(text, BRIEF);
    }

    #[test]
    fn a_campaign_that_covered_nothing_fits_on_a_screen_too() {
        let names: Vec<&'static str> =
            (0..200).map(|n| &*Box::leak(format!("a-long-name-{n}").into_boxed_str())).collect();
        let zero = || names.iter().map(|name| (*name, 0)).collect();
        let mut totals = Totals { faults: zero(), checks: zero(), ..totals(Vec::new()) };
        totals.waypoints.clear();
        totals.recovery.record(&Recovery { leader_ns: Some(1), ..Recovery::default() });
        let text = brief("0..1000", &totals, (&names, &[]), Paint::plain());
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(text.matches(" and 184 more\n").count(), 3, "{text}");
    }

    #[test]
    fn the_verdict_counts_what_failed_and_says_if_it_was_cut_short() {
        let failed = vec![Failure { seed: 7, violation: violation(Class::Safety, "broke") }];
        let line = |totals: &Totals| verdict_line(totals, Paint::plain());
        let mut some = totals(failed);
        assert_eq!(line(&some), "failed: 1 of 1,000 seeds");
        some.interrupted = true;
        assert_eq!(line(&some), "failed: 1 of 1,000 seeds, interrupted before the end");
        let none = Totals { seeds: 1, interrupted: true, ..Totals::default() };
        assert_eq!(line(&none), "clean: 1 seed, no violation, interrupted before the end");
        let text = brief("7", &some, (&KNOWN, &[]), Paint::plain());
        assert!(text.ends_with("\nfailed seeds\n  7  election-safety: broke\n"), "{text}");
    }
}
