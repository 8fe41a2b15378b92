//! The `check` command as a function: a history file in, a verdict out.
//!
//! The clock is an argument. The command line passes the real one; tests pass a fake one.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use crate::checker::linearizable::{self, Limits, Verdict};
use crate::history::{Model, jsonl};

/// The exit code of a usage or syntax error, that is whenever a check returns `Err`.
pub const EXIT_USAGE: u8 = 64;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// Whether the history is linearizable, and if not, why.
    pub verdict: Verdict,
    /// Operations in the history.
    pub operations: usize,
    /// Time spent on reading and checking, by the caller's clock.
    pub wall: Duration,
}

impl CheckReport {
    /// 0 linearizable, 1 violation, 3 unknown.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Linearizable => 0,
            Verdict::Violation(_) => 1,
            Verdict::Unknown(_) => 3,
        }
    }

    /// `linearizable`, `violation` or `unknown`.
    pub fn verdict_name(&self) -> &'static str {
        match self.verdict {
            Verdict::Linearizable => "linearizable",
            Verdict::Violation(_) => "violation",
            Verdict::Unknown(_) => "unknown",
        }
    }

    /// Why; empty if the history is linearizable.
    pub fn explanation(&self) -> &str {
        match &self.verdict {
            Verdict::Linearizable => "",
            Verdict::Violation(why) => &why.sentence,
            Verdict::Unknown(why) => why,
        }
    }

    /// The object that `check --json` prints.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "verdict": self.verdict_name(),
            "operations": self.operations,
            "wall_s": self.wall.as_secs_f64(),
            "explanation": self.explanation(),
        })
        .to_string()
    }
}

/// Checks a history file. `elapsed` is the time since the caller started; the check gives up with
/// `unknown` when it exceeds `timeout`.
///
/// # Errors
/// One line for people: the file cannot be opened, or where its first syntax error is and how to
/// mend it. The exit code is then [`EXIT_USAGE`].
pub fn check(
    path: &Path,
    model: Model,
    timeout: Option<Duration>,
    elapsed: &mut dyn FnMut() -> Duration,
) -> Result<CheckReport, String> {
    let name = path.display().to_string();
    let file = File::open(path)
        .map_err(|error| format!("{name}: cannot be opened ({error}); give a history file"))?;
    check_lines(BufReader::new(file), &name, model, timeout, elapsed)
}

/// As [`check`], for any input; `name` is what error messages call it.
///
/// # Errors
/// As [`check`].
pub fn check_lines(
    input: impl BufRead,
    name: &str,
    model: Model,
    timeout: Option<Duration>,
    elapsed: &mut dyn FnMut() -> Duration,
) -> Result<CheckReport, String> {
    let history = jsonl::read(input, name, model)?;
    // Only the clock limits the steps; the memory stays below about 1 GB.
    let limits = Limits { steps: u64::MAX, states: 24_000_000 };
    let mut expired = || timeout.is_some_and(|timeout| elapsed() >= timeout);
    let verdict = linearizable::check(&history, limits, &mut expired);
    Ok(CheckReport { verdict, operations: history.ops().len(), wall: elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: &str = r#"{"process":1,"type":"invoke","f":"put","key":"x","value":"1"}
{"process":1,"type":"ok","f":"put","key":"x","value":"1"}
{"process":2,"type":"invoke","f":"get","key":"x"}
{"process":2,"type":"ok","f":"get","key":"x","value":null}
"#;

    fn run(text: &str, timeout: Option<Duration>) -> Result<CheckReport, String> {
        let mut clock = || Duration::from_millis(1500);
        check_lines(text.as_bytes(), "h.jsonl", Model::Kv, timeout, &mut clock)
    }

    #[test]
    fn verdicts_have_their_exit_codes_and_json() {
        let legal = run(&STALE.replace("null", "\"1\""), None).expect("valid");
        assert_eq!(legal.exit_code(), 0);
        assert_eq!(
            legal.to_json(),
            r#"{"explanation":"","operations":2,"verdict":"linearizable","wall_s":1.5}"#
        );
        let stale = run(STALE, None).expect("valid");
        assert_eq!((stale.exit_code(), stale.verdict_name()), (1, "violation"));
        assert_eq!(
            stale.explanation(),
            "get x -> null by process 2 (lines 3 to 4) fits into no order after or beside \
             put x \"1\" by process 1 (lines 1 to 2); without it the value can be \"1\" by then"
        );
    }

    #[test]
    fn a_violation_found_in_time_is_not_hidden_by_the_clock() {
        assert_eq!(run(STALE, Some(Duration::from_secs(1))).expect("valid").exit_code(), 1);
    }

    #[test]
    fn syntax_errors_and_missing_files_are_errors() {
        assert!(run("{}", None).expect_err("no process").starts_with("h.jsonl:1: "));
        let mut clock = || Duration::ZERO;
        let missing = check(Path::new("/no/such/file"), Model::Kv, None, &mut clock);
        assert!(missing.expect_err("missing").starts_with("/no/such/file: cannot be opened"));
    }
}
