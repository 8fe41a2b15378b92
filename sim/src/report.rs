//! What a campaign or a replay tells its reader: a summary a person can take in at a glance, and
//! the JSON objects that scripts read.
//!
//! Everything here turns values into text and writes nothing, so the text is tested as it is. What
//! was *not* reached is printed beside what was: a waypoint never seen or a check that never bit
//! means that passing proves less than it seems to.

mod brief;
mod json;
mod page;
mod text;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

pub use brief::{brief, verdict_line};
pub use json::{Json, JsonFailure, campaign_json, rounded, seconds};
pub use page::page;
pub use text::{Paint, Table, duration, one_line, thousands};

use crate::campaign::{CANARY, Canaries, Failure, RecoveryTimes, Totals};
use crate::determinism;
use crate::outcome::{Class, Violation};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision of this build, or of the package that it is built from, `-dirty` if the sources
/// differed from it; `unknown` without git.
pub const REVISION: &str = env!("STORMKV_REVISION");

/// Version and revision, as `--version` and every failure print them.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("STORMKV_REVISION"), ")");

/// A hash of all sources of this build. It tells builds apart that have no revision of their own:
/// those from sources with changes, and those without git.
pub const SOURCES: &str = env!("STORMKV_SOURCES");

/// How many failing seeds the summary of a campaign lists; `--json` lists them all.
pub const LISTED_FAILURES: usize = 10;

/// One word for a verdict, as `--json` prints it.
pub fn verdict(violation: Option<&Violation>) -> &'static str {
    match violation.map(|violation| violation.class) {
        None => "clean",
        Some(Class::Safety) => "violation",
        Some(Class::Liveness) => "liveness",
        Some(Class::Unknown) => "unknown",
    }
}

/// The full report of a campaign: how much was run, what was done to it, and what of it counts.
/// `label` says which seeds and how; `waypoints` are all there are, to name those never reached.
pub fn summary(label: &str, totals: &Totals, waypoints: &[&str], paint: Paint) -> String {
    let wall = totals.wall.as_secs_f64();
    // Nobody knows how long the rows of a file took.
    let rate = |count: u64| match totals.read_back {
        0 => format!("{} per second", thousands((count as f64 / wall.max(1e-9)) as u128)),
        _ => String::new(),
    };

    let mut table = Table::default();
    table.row("seeds", totals.seeds, label);
    table.row("passed", totals.passed(), "");
    table.row("failed", totals.failed.len() as u64, "");
    if let Some(canaries) = totals.canaries() {
        let Canaries { due, reported, own } = canaries;
        table.row(
            "canaries",
            due,
            &format!("due, {reported} reported, {own} failed by themselves"),
        );
    }
    table.row("events", totals.events, &rate(totals.events));
    table.row("messages", totals.messages, &rate(totals.messages));
    table.row("operations", totals.acknowledged, "acknowledged");
    table.words("time", &time(totals));
    table.words("trace hash", &format!("{:016x}", totals.trace_hash));
    recovery(&mut table, &totals.recovery);
    coverage(&mut table, totals, waypoints);
    let mut text = table.render(paint);
    text.push_str(&failures(totals, paint));
    text
}

/// Simulated time, and the time on this machine as far as it is known.
fn time(totals: &Totals) -> String {
    let simulated = totals.sim_ns as f64 / 1e9;
    let wall = totals.wall.as_secs_f64();
    let new = totals.seeds - totals.read_back;
    match (totals.read_back, new) {
        (0, _) => {
            let ratio = thousands((simulated / wall.max(1e-9)).round() as u128);
            let (simulated, wall) = (duration(simulated), duration(wall));
            format!("{simulated} simulated in {wall}, {ratio} times as fast")
        }
        (_, 0) => format!("{} simulated", duration(simulated)),
        (read_back, new) => {
            let (read_back, new) = (thousands(read_back.into()), thousands(new.into()));
            let (simulated, wall) = (duration(simulated), duration(wall));
            format!("{simulated} simulated; {read_back} seeds before, {new} now in {wall}")
        }
    }
}

/// Appends how long the clusters took to recover, if any had to.
fn recovery(table: &mut Table, times: &RecoveryTimes) {
    if times.named().iter().all(|(_, times)| times.count() == 0) {
        return;
    }
    table.heading("recovery after the faults had stopped");
    for (name, times) in times.named() {
        let (Some(max_ns), Some(p50), Some(p90), Some(p99)) = (
            times.max_ns(),
            times.percentile_ns(50),
            times.percentile_ns(90),
            times.percentile_ns(99),
        ) else {
            continue;
        };
        let [p50, p90, p99, max] = [p50, p90, p99, max_ns].map(|ns| duration(ns as f64 / 1e9));
        table.row(name, times.count(), &format!("p50 {p50}, p90 {p90}, p99 {p99}, max {max}"));
    }
}

/// Appends the blocks that prove that something was tested.
pub fn coverage(table: &mut Table, totals: &Totals, waypoints: &[&str]) {
    table.heading("faults injected");
    for (name, count) in totals.faults.iter().filter(|(_, count)| **count > 0) {
        table.row(name, *count, "");
    }
    if !waypoints.is_empty() {
        table.never(&never_injected(totals));
    }
    table.heading("waypoints reached");
    for (name, count) in totals.waypoints.iter().filter(|(_, count)| **count > 0) {
        table.row(name, *count, "");
    }
    table.never(&never_reached(totals, waypoints));
    table.heading("checks that bit");
    for (name, count) in totals.checks.iter().filter(|(_, count)| **count > 0) {
        table.row(name, *count, "");
    }
    let idle = totals.checks.iter().filter(|(_, count)| **count == 0);
    table.never(&idle.map(|(name, _)| *name).collect::<Vec<_>>());
    table.heading("peaks of a node");
    for (name, peak) in totals.peaks.iter().filter(|(_, peak)| **peak > 0) {
        table.row(name, *peak, "");
    }
}

/// The known kinds of faults that no run injected.
pub fn never_injected(totals: &Totals) -> Vec<&'static str> {
    totals.faults.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect()
}

/// The known waypoints that no run reached.
pub fn never_reached<'a>(totals: &Totals, waypoints: &[&'a str]) -> Vec<&'a str> {
    let reached = |name: &str| totals.waypoints.get(name).is_some_and(|count| *count > 0);
    waypoints.iter().copied().filter(|name| !reached(name)).collect()
}

/// The first few failing seeds, one line each; empty if all passed.
fn failures(totals: &Totals, paint: Paint) -> String {
    let mut text = String::new();
    if totals.failed.is_empty() {
        return text;
    }
    let listed = &totals.failed[..totals.failed.len().min(LISTED_FAILURES)];
    let width = listed.iter().map(|failure| failure.seed.to_string().len()).max().unwrap_or(0);
    text.push_str(&format!("\n{}\n", paint.bold("failed seeds")));
    for Failure { seed, violation } in listed {
        let checker = paint.red(violation.checker);
        let message = sentence(&violation.message);
        writeln!(text, "  {seed:>width$}  {checker}: {message}").expect("a string takes all");
    }
    let more = totals.failed.len() - listed.len();
    if more > 0 {
        let more = thousands(more as u128);
        writeln!(text, "  and {more} more: --json lists them all").expect("a string takes all");
    }
    text
}

/// The sentence with which a message of a violation begins.
pub fn sentence(message: &str) -> String {
    one_line(message.split_once("\n\n").map_or(message, |(sentence, _)| sentence))
}

/// What a message says below its sentence, indented; empty if that is nothing.
fn detail(message: &str) -> String {
    let (_, detail) = message.split_once("\n\n").unwrap_or_default();
    // Leading spaces line up the columns of a trace.
    let clean = |line: &str| line.replace(|c: char| c.is_control(), " ");
    detail.lines().map(|line| format!("    {}\n", clean(line).trim_end())).collect()
}

/// What was run: enough to run it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A seed, whose plan is generated.
    Seed(u64),
    /// A seed, whose plan is generated with damage beyond what a quorum can repair.
    BeyondQuorum(u64),
    /// A seed, with a bug planted.
    Planted {
        /// The seed.
        seed: u64,
        /// Whether there is damage beyond what a quorum can repair.
        beyond_quorum: bool,
        /// The bug, by its name.
        bug: String,
    },
    /// A scenario file, by the path the user gave.
    File(String),
}

impl Subject {
    /// What a campaign has run.
    pub fn of_seed(seed: u64, beyond_quorum: bool, bug: Option<&str>) -> Subject {
        match bug {
            Some(bug) => Subject::Planted { seed, beyond_quorum, bug: bug.to_string() },
            None if beyond_quorum => Subject::BeyondQuorum(seed),
            None => Subject::Seed(seed),
        }
    }

    /// The seed, if it is one.
    pub fn seed(&self) -> Option<u64> {
        match self {
            Subject::Seed(seed) | Subject::BeyondQuorum(seed) | Subject::Planted { seed, .. } => {
                Some(*seed)
            }
            Subject::File(_) => None,
        }
    }

    /// The line to paste that runs it again.
    pub fn replay_command(&self) -> String {
        self.command("replay", None)
    }

    /// A command about it. With the hash of its plan, a seed is refused by a version in which it means
    /// another plan; a scenario says itself what it means.
    fn command(&self, verb: &str, plan_hash: Option<u64>) -> String {
        let (beyond_quorum, seed, bug) = match self {
            Subject::File(path) => {
                return format!("{} {verb} {}", program(), text::shell_word(path));
            }
            Subject::Seed(seed) => (false, seed, None),
            Subject::BeyondQuorum(seed) => (true, seed, None),
            Subject::Planted { seed, beyond_quorum, bug } => (*beyond_quorum, seed, Some(bug)),
        };
        let beyond = if beyond_quorum { "--beyond-quorum " } else { "" };
        let bug = bug.map_or(String::new(), |bug| format!(" --bug {}", text::shell_word(bug)));
        let plan = plan_hash.map_or(String::new(), |hash| format!(" --plan {hash:016x}"));
        format!("{} {verb} {beyond}--seed {seed}{bug}{plan}", program())
    }

    /// The line that makes a small scenario of it. A scenario is small already.
    fn shrink_command(&self, plan_hash: Option<u64>) -> Option<String> {
        let seed = self.seed()?;
        Some(format!("{} -o seed-{seed}.toml", self.command("shrink", plan_hash)))
    }

    /// The line that makes a page of the run, to look at.
    fn view_command(&self, plan_hash: Option<u64>) -> String {
        let name = match self {
            Subject::File(path) => {
                Path::new(path).file_stem().unwrap_or_default().to_string_lossy()
            }
            seed => format!("seed-{}", seed.seed().unwrap_or_default()).into(),
        };
        let view = self.command("view", plan_hash);
        format!("{view} -o {}", text::shell_word(&format!("{name}.html")))
    }
}

/// Whether the plan alone broke it, so that its run shows it again: not so of canaries, and of
/// differences between two runs.
pub fn is_by_plan(violation: &Violation) -> bool {
    ![CANARY, determinism::CHECKER].contains(&violation.checker)
}

/// The command line of this repository.
const DEFAULT_PROGRAM: &str = "cargo sim";

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Sets what a user types to start this program, which the lines to paste begin with. An empty text stands
/// for the name of the program itself. Only the first call counts.
pub(crate) fn set_program(command: &str) {
    let own = || std::env::args().next().unwrap_or_else(|| DEFAULT_PROGRAM.to_owned());
    PROGRAM.get_or_init(|| match command.is_empty() {
        true => text::shell_word(&own()),
        false => command.to_owned(),
    });
}

/// What a user types to start this program.
pub(crate) fn program() -> &'static str {
    PROGRAM.get().map_or(DEFAULT_PROGRAM, String::as_str)
}

/// The last lines about a failure: what broke, in one sentence, and all it takes to see it again.
/// `plan_hash` is `None` if the plan itself could not be made.
pub fn last_words(
    subject: &Subject,
    plan_hash: Option<u64>,
    violation: &Violation,
    paint: Paint,
) -> String {
    let kind = match violation.class {
        Class::Safety => paint.red("safety violation"),
        Class::Liveness => paint.red("liveness violation"),
        Class::Unknown => paint.yellow("undecided"),
    };
    let (name, value) = match subject {
        Subject::File(path) => ("file", one_line(path)),
        seed => ("seed", seed.seed().unwrap_or_default().to_string()),
    };
    let plan = plan_hash.map_or_else(|| "unknown".to_string(), |hash| format!("{hash:016x}"));
    let by_plan = is_by_plan(violation);
    let shrink = subject.shrink_command(plan_hash).filter(|_| by_plan);
    let shrink = shrink.map_or(String::new(), |line| format!("  shrink   {line}\n"));
    let view = match by_plan {
        true => format!("  view     {}\n", subject.view_command(plan_hash)),
        false => String::new(),
    };
    format!(
        "{kind} ({}): {}\n{}  {name}     {value}\n  plan     {plan}\n  version  {BUILD}\n{shrink}{view}  \
         replay   {}\n",
        violation.checker,
        sentence(&violation.message),
        detail(&violation.message),
        paint.bold(&subject.command("replay", plan_hash)),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::outcome::Recovery;

    pub(super) fn violation(class: Class, message: &str) -> Violation {
        let message = message.to_string();
        Violation { class, checker: "election-safety", message, step: 4_567, at_ns: 1_500_000_000 }
    }

    pub(super) fn totals(failed: Vec<Failure>) -> Totals {
        Totals {
            seeds: 1_000,
            failed,
            trace_hash: 0x0123_4567_89ab_cdef,
            events: 12_345_678,
            messages: 3_456_789,
            acknowledged: 123_456,
            sim_ns: 12_300_000_000_000,
            faults: BTreeMap::from([("crash", 1_234), ("partition", 56), ("bit-rot", 0)]),
            waypoints: BTreeMap::from([("snapshot-installed", 34), ("torn-tail", 0)]),
            checks: BTreeMap::from([("election-safety", 7_000_000), ("snapshot-prefix", 0)]),
            peaks: BTreeMap::from([("log-entries", 310), ("reads", 0)]),
            recovery: RecoveryTimes::default(),
            wall: Duration::from_millis(12_400),
            ..Totals::default()
        }
    }

    const CLEAN: &str = "\
seeds                      1,000  0..1000, 2 jobs
passed                     1,000
failed                         0
events                12,345,678  995,619 per second
messages               3,456,789  278,773 per second
operations               123,456  acknowledged
time                  3 h 25 min simulated in 12.4 s, 992 times as fast
trace hash            0123456789abcdef

faults injected
  crash                    1,234
  partition                   56
  never: bit-rot

waypoints reached
  snapshot-installed          34
  never: torn-tail, leader-removed

checks that bit
  election-safety      7,000,000
  never: snapshot-prefix

peaks of a node
  log-entries                310
";

    #[test]
    fn a_clean_summary_reads_well() {
        let known = ["snapshot-installed", "torn-tail", "leader-removed"];
        let text = summary("0..1000, 2 jobs", &totals(Vec::new()), &known, Paint::plain());
        assert_eq!(text, CLEAN);
    }

    fn recovered() -> Totals {
        let mut totals = totals(Vec::new());
        for n in 1..=100 {
            let (leader_ns, converged_ns) = (Some(n * 1_000_000), Some(n * 100_000_000));
            let recovery = Recovery { leader_ns, converged_ns, ..Recovery::default() };
            totals.recovery.record(&recovery);
        }
        totals
    }

    #[test]
    fn recovery_times_are_told_as_percentiles() {
        let text = summary("0..1000", &recovered(), &[], Paint::plain());
        let (_, block) = text.split_once("recovery after the faults had stopped\n").unwrap();
        let mut lines = block.lines();
        let leader = lines.next().unwrap();
        assert!(leader.starts_with("  leader ") && leader.contains(" 100  p50 50 ms"), "{leader}");
        let converged = lines.next().unwrap();
        assert!(converged.starts_with("  converged "), "{converged}");
        assert!(converged.ends_with("p99 9.9 s, max 10.0 s"), "{converged}");
        assert_eq!(lines.next(), Some(""), "nothing was open, so nothing is said of answers");
    }

    #[test]
    fn recovery_times_are_numbers_in_the_json() {
        let totals = recovered();
        let value = serde_json::to_value(campaign_json(&totals, &[])).unwrap();
        let leader = &value["recovery"]["leader_ms"];
        assert_eq!((&leader["count"], &leader["max"]), (&100.into(), &100.0.into()));
        let p50 = leader["p50"].as_f64().unwrap();
        assert!((50.0..=51.7).contains(&p50), "{p50}");
        assert_eq!(value["recovery"]["answered_ms"]["p99"], serde_json::Value::Null);
        assert_eq!(value["recovery"]["converged_ms"]["max"], 10_000.0);
    }

    #[test]
    fn a_summary_of_nothing_says_so() {
        let text = summary("5, shard 2/2, 1 job", &Totals::default(), &["elected"], Paint::plain());
        assert!(text.starts_with("seeds       0  5, shard 2/2, 1 job\n"), "{text}");
        assert!(text.contains("faults injected\n  none\n"), "{text}");
        assert!(text.contains("waypoints reached\n  none\n  never: elected\n"), "{text}");
        assert!(text.contains("checks that bit\n  none\n"), "{text}");
    }

    #[test]
    fn only_the_first_failures_are_listed() {
        let failed = (0..12).map(|n| Failure {
            seed: n * 10,
            violation: violation(Class::Safety, "two leaders\nin term 4"),
        });
        let text = summary("0..1000, 2 jobs", &totals(failed.collect()), &[], Paint::plain());
        let (_, block) = text.split_once("failed seeds\n").unwrap();
        assert!(
            block.starts_with("   0  election-safety: two leaders in term 4\n  10  "),
            "{block}"
        );
        assert!(block.ends_with("  and 2 more: --json lists them all\n"), "{block}");
        assert_eq!(block.lines().count(), LISTED_FAILURES + 1);
    }

    #[test]
    fn the_last_words_hold_all_it_takes_to_replay() {
        let broken = violation(Class::Safety, "n2 was elected in term 4, which n1 already led");
        let text = last_words(&Subject::Seed(17), Some(0xabc), &broken, Paint::plain());
        let expected = format!(
            "safety violation (election-safety): n2 was elected in term 4, which n1 already led\n  \
             seed     17\n  plan     0000000000000abc\n  version  {BUILD}\n  \
             shrink   cargo sim shrink --seed 17 --plan 0000000000000abc -o seed-17.toml\n  \
             view     cargo sim view --seed 17 --plan 0000000000000abc -o seed-17.html\n  \
             replay   cargo sim replay --seed 17 --plan 0000000000000abc\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_follows_the_sentence_is_shown_below_it_and_not_in_the_list() {
        let broken = violation(Class::Safety, "two runs\ndiffer\n\nboth:\n     1 \u{1b}[2Jn1\n");
        let text = last_words(&Subject::Seed(3), None, &broken, Paint::plain());
        let start =
            "safety violation (election-safety): two runs differ\n    both:\n         1  [2Jn1\n";
        assert!(text.starts_with(&format!("{start}  seed     3\n")), "{text}");
        let totals = totals(vec![Failure { seed: 3, violation: broken }]);
        let text = summary("0..1000, 2 jobs", &totals, &[], Paint::plain());
        assert!(text.ends_with("\n  3  election-safety: two runs differ\n"), "{text}");
    }

    #[test]
    fn a_rate_is_only_told_of_what_was_run_now() {
        let line = |read_back| {
            let totals = Totals { read_back, ..totals(Vec::new()) };
            let text = summary("0..1000, 2 jobs", &totals, &[], Paint::plain());
            assert_eq!(text.contains("per second"), read_back == 0);
            text.lines().find(|line| line.starts_with("time")).unwrap()[22..].to_owned()
        };
        assert_eq!(line(0), "3 h 25 min simulated in 12.4 s, 992 times as fast");
        assert_eq!(line(400), "3 h 25 min simulated; 400 seeds before, 600 now in 12.4 s");
        assert_eq!(line(1_000), "3 h 25 min simulated");
    }

    #[test]
    fn a_file_is_quoted_for_the_shell() {
        let broken = violation(Class::Liveness, "no leader for 10 s");
        let subject = Subject::File("my scenarios/it's.toml".to_string());
        let text = last_words(&subject, None, &broken, Paint::plain());
        assert!(text.starts_with("liveness violation (election-safety): no leader"), "{text}");
        assert!(text.ends_with("cargo sim replay 'my scenarios/it'\\''s.toml'\n"), "{text}");
        assert!(text.contains("plan     unknown\n"), "{text}");
    }

    #[test]
    fn colours_only_when_asked_for() {
        let failed = vec![Failure { seed: 3, violation: violation(Class::Safety, "broken") }];
        let totals = totals(failed);
        assert!(!summary("0..1000, 2 jobs", &totals, &[], Paint::plain()).contains('\u{1b}'));
        assert!(summary("0..1000, 2 jobs", &totals, &[], Paint::coloured()).contains("\u{1b}[31m"));
    }

    #[test]
    fn the_campaign_json_has_the_promised_fields() {
        let failed = vec![Failure { seed: 3, violation: violation(Class::Liveness, "stuck") }];
        let totals = totals(failed);
        let value = serde_json::to_value(campaign_json(&totals, &["torn-tail"])).unwrap();
        assert_eq!(value["seeds"], 1_000);
        assert_eq!(value["passed"], 999);
        assert_eq!(value["events"], 12_345_678);
        assert_eq!(value["messages"], 3_456_789);
        assert_eq!(value["sim_s"], 12_300.0);
        assert_eq!(value["wall_s"], 12.4);
        assert_eq!(value["trace_hash"], "0123456789abcdef");
        assert_eq!(value["waypoints_never"], serde_json::json!(["torn-tail"]));
        assert_eq!(value["faults_never"], serde_json::json!(["bit-rot"]));
        assert_eq!(value["peaks"]["log-entries"], 310);
        let failure = &value["failed"][0];
        assert_eq!(failure["seed"], 3);
        assert_eq!(failure["checker"], "election-safety");
        assert_eq!(failure["message"], "stuck");
        assert_eq!(failure["verdict"], "liveness");
    }
}
