//! Scenario files: a [`Plan`] as TOML, a story that can be kept, read and run again.
//!
//! Reading is strict, because a misspelt key that is silently ignored would leave a test that
//! tests nothing. Every error is one line, `FILE:LINE: what is wrong; what to do`.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::checker::check_names;
use crate::outcome::{Outcome, Skipped};
use crate::plan::{Expect, FaultRow, Place, Plan, Problem, SCHEMA, nearest};
use crate::service::{Service, check_fault, checked};
use crate::simulation::waypoints;

/// Why a scenario cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file, as it was named.
    pub file: String,
    /// The line, counted from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}; {}", self.message, self.remedy)
    }
}

impl std::error::Error for ScenarioError {}

/// Reads a scenario file.
///
/// # Errors
/// When the file cannot be read, and for everything that [`parse`] refuses.
pub fn load<S: Service>(path: impl AsRef<Path>) -> Result<Plan, ScenarioError> {
    let path = path.as_ref();
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse::<S>(&file, &text),
        Err(error) => Err(ScenarioError {
            file,
            line: None,
            message: format!("cannot read the scenario: {error}"),
            remedy: "check the path, and that it is a text file".to_string(),
        }),
    }
}

/// Reads a scenario from its text; `file` is only named in errors.
///
/// # Errors
/// When the text is not TOML, has unknown keys or wrong values, when a `do` does not follow its
/// grammar, when something is referred to that is not there, when a checker or waypoint is expected
/// that does not exist, and when a limit is exceeded.
pub fn parse<S: Service>(file: &str, text: &str) -> Result<Plan, ScenarioError> {
    let error = |span: Option<Range<usize>>, message: String, remedy: String| ScenarioError {
        file: file.to_string(),
        line: span.map(|span| line_of(text, span.start)),
        message,
        remedy,
    };
    let root = DeTable::parse(text).map_err(|damage| {
        let message = format!("damaged TOML: {}", damage.message());
        error(damage.span(), message, "mend the syntax here".to_string())
    })?;
    // Asked first: the keys of another schema would only be reported as unknown.
    if let Some(schema) = root.get_ref().get("schema")
        && let Some(number) = schema.get_ref().as_integer()
        && number.as_str() != SCHEMA.to_string()
    {
        let message = format!("schema {} is unknown", number.as_str());
        let remedy = format!("this build reads schema {SCHEMA}");
        return Err(error(Some(schema.span()), message, remedy));
    }
    let mut plan: Plan = toml::from_str(text).map_err(|wrong| {
        let (message, remedy) = explain(wrong.message());
        error(wrong.span(), message, remedy)
    })?;
    // First: what no service has cannot be anyone's operation.
    let checked = check_words::<S>(&mut plan).and_then(|()| plan.check());
    checked.and_then(|()| check_expected::<S>(&plan.expect)).map_err(
        |Problem { place, message, remedy }| {
            error(find(root.get_ref(), place).or(Some(0..0)), message, remedy)
        },
    )?;
    Ok(plan)
}

/// Checks the words of operations and faults that only the service understands, and gives the operations
/// their usual form.
fn check_words<S: Service>(plan: &mut Plan) -> Result<(), Problem> {
    let problem = |section, row, error: String| {
        let (message, remedy) = error.split_once("; ").unwrap_or((&error, "correct it"));
        let place = Place { section, row: Some(row), key: "do" };
        Problem { place, message: message.to_owned(), remedy: remedy.to_owned() }
    };
    for (row, op) in plan.ops.iter_mut().enumerate() {
        op.call = checked::<S>(op.client, &op.call).map_err(|error| problem("op", row, error))?;
    }
    for (row, FaultRow { fault, .. }) in plan.faults.iter().enumerate() {
        check_fault::<S>(fault).map_err(|error| problem("fault", row, error))?;
    }
    Ok(())
}

/// Whether there are checkers and waypoints of the names that are expected. A misspelt one could
/// never be met.
fn check_expected<S: Service>(expect: &Expect) -> Result<(), Problem> {
    let (checks, waypoints) = (check_names::<S>(), waypoints::<S>());
    if let Some(name) = expect.violation.as_ref().filter(|name| !checks.contains(&name.as_str())) {
        return unknown("violation", "checker", name, &checks);
    }
    match expect.waypoints.iter().find(|name| !waypoints.contains(&name.as_str())) {
        Some(name) => unknown("waypoints", "waypoint", name, &waypoints),
        None => Ok(()),
    }
}

fn unknown(
    key: &'static str,
    what: &str,
    name: &str,
    known: &[&'static str],
) -> Result<(), Problem> {
    let remedy = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("use one of {}", known.join(", ")),
    };
    let place = Place { section: "expect", row: None, key };
    Err(Problem { place, message: format!("there is no {what} `{}`", name.escape_debug()), remedy })
}

/// What of the expectation of a plan its run has not met, one sentence each.
pub fn unmet(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let expect = &plan.expect;
    let mut unmet = Vec::new();
    match (&expect.violation, &outcome.violation) {
        (None, None) => {}
        (Some(expected), Some(found)) if expected == found.checker => {}
        (None, Some(found)) => {
            unmet.push(format!("no violation is expected, but {} fails", found.checker));
        }
        (Some(expected), None) => {
            unmet.push(format!("{expected} is expected to fail, but the run is clean"));
        }
        (Some(expected), Some(found)) => {
            unmet.push(format!("{expected} is expected to fail, but {} fails", found.checker));
        }
    }
    // A run that broke off early has no later waypoints to show.
    if unmet.is_empty() {
        let reached = |name: &str| outcome.waypoints.get(name).is_some_and(|count| *count > 0);
        for name in expect.waypoints.iter().filter(|name| !reached(name)) {
            unmet.push(format!("the waypoint `{name}` is expected, but was not reached"));
        }
    }
    if expect.no_skipped_faults {
        for Skipped { fault, why, .. } in &outcome.skipped {
            let what = &plan.faults[*fault].fault;
            unmet.push(format!("fault {fault} (`{what}`) is expected to hit something, but {why}"));
        }
    }
    unmet
}

/// The canonical text of a plan; [`parse`] turns it into an equal plan.
pub fn save(plan: &Plan) -> String {
    plan.to_toml()
}

/// The number of the line in which this byte stands.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

/// Says in the words of a scenario what the deserializer says in its own.
fn explain(message: &str) -> (String, String) {
    let message = message.trim_end();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let Some((unknown, known)) = names.split_first() {
        if message.starts_with("unknown field") {
            let remedy = match nearest(unknown, known.iter().copied()) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            return (format!("unknown key `{unknown}`"), remedy);
        }
        if message.starts_with("unknown variant") {
            let remedy = format!("write one of {}", known.join(", "));
            return (format!("unknown value `{unknown}`"), remedy);
        }
        if message.starts_with("missing field") {
            return (format!("the key `{unknown}` is missing"), format!("add `{unknown} = ..`"));
        }
    }
    match message.split_once("; ") {
        Some((what, remedy)) => (what.to_string(), remedy.to_string()),
        None => (message.to_string(), "correct the value".to_string()),
    }
}

/// Where this place of the plan stands in the file; the nearest thing around it, if the file
/// leaves it to a default.
fn find(root: &DeTable<'_>, place: Place) -> Option<Range<usize>> {
    if place.section.is_empty() {
        return root.get(place.key).map(|value| value.span());
    }
    let mut value = root.get(place.section)?;
    if let Some(row) = place.row {
        value = value.get_ref().as_array()?.get(row)?;
    }
    match value.get_ref() {
        DeValue::Table(table) => table.get(place.key).map(|inner| inner.span()),
        _ => None,
    }
    .or(Some(value.span()))
}
