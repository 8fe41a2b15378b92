//! Checkers and marks of a service.

use bytes::Bytes;
use stormkv::kv::Kv;

use super::*;
use crate::campaign::Totals;
use crate::history::{Action, History};
use crate::kv::{KeyValue, Memory, Model, Op};
use crate::plan::Grammar;
use crate::scenario;
use crate::service::{CheckContext, Checker, End, Finding, Invariant, Observation, Service};
use crate::shrink::{Options, Progress, shrink};
use crate::swarm::Dice;

/// Counts what it sees, and compares it with the history; fails as soon as a node has applied so many commands.
struct Limit<const APPLIED: usize> {
    committed: Vec<Bytes>,
    applied: usize,
    acknowledged: usize,
}

impl<const APPLIED: usize> Checker<Watched<APPLIED>> for Limit<APPLIED> {
    fn name(&self) -> &'static str {
        "applied-limit"
    }

    fn observe(
        &mut self,
        seen: &Observation<'_, Watched<APPLIED>>,
        context: &mut CheckContext<'_>,
    ) -> Result<(), Finding> {
        match seen {
            Observation::Committed(command) => {
                self.committed.push(Bytes::copy_from_slice(command.command));
            }
            Observation::Applied { node, command } => {
                context.checked();
                assert!(self.committed.iter().any(|known| known == command.command));
                self.applied += 1;
                if self.applied == APPLIED {
                    let message = format!("{node} has applied {APPLIED} commands");
                    return Err(Finding::new(message).at(*node).shown_by([0]));
                }
            }
            Observation::State { machine, .. } => {
                context.sometimes("has-keys", !machine.is_empty())
            }
            Observation::Response { response, .. } => assert!(!response.is_empty()),
            Observation::Returned { end: End::Acknowledged, op: Op::Put { .. }, .. } => {
                self.acknowledged += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, history: &History, context: &mut CheckContext<'_>) -> Result<(), Finding> {
        assert_eq!(self.acknowledged, self.committed.len());
        assert_eq!(history.ops().len(), self.acknowledged + 1, "and one read");
        context.reach("finished");
        Ok(())
    }
}

/// The key-value service with that checker.
#[derive(Debug)]
struct Watched<const APPLIED: usize>;

impl<const APPLIED: usize> Service for Watched<APPLIED> {
    type Machine = Kv;
    type Model = Model;
    type Op = Op;
    type Client = Memory;

    const GRAMMAR: &'static Grammar = KeyValue::GRAMMAR;
    const MARKS: &'static [&'static str] = &["has-keys", "finished", "invariant-asked", "never"];
    const INVARIANT: Option<Invariant<Kv>> = Some(|_, reach| {
        // A service of no limit reports what it has not declared.
        reach(if APPLIED == 0 { "undeclared" } else { "invariant-asked" });
        Ok(())
    });

    fn checkers() -> Vec<Box<dyn Checker<Self>>> {
        vec![Box::new(Limit::<APPLIED> { committed: Vec::new(), applied: 0, acknowledged: 0 })]
    }

    fn parse(words: &str) -> Result<Op, String> {
        KeyValue::parse(words)
    }

    fn is_read(op: &Op) -> bool {
        KeyValue::is_read(op)
    }

    fn action(op: &Op) -> Option<Action> {
        KeyValue::action(op)
    }

    fn generate(dice: &mut Dice, number: u32) -> Op {
        KeyValue::generate(dice, number)
    }
}

const STORY: &str = "schema = 1
name = \"watched\"
op = [
    { at_ms = 500, client = 1, do = \"put a 1\" },
    { at_ms = 600, client = 1, do = \"put b 2\" },
    { at_ms = 700, client = 1, do = \"get a\" },
]
";

#[test]
fn checkers_see_commands_responses_and_history() {
    let plan = scenario::parse::<Watched<100>>("watched.toml", STORY).expect("a scenario");
    let outcome = run::<Watched<100>>(&plan, &mut RunOptions::default());
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.checks["applied-limit"], 6, "two commands on three nodes");
    assert_eq!(outcome.waypoints["finished"], 1);
    assert!(outcome.waypoints["has-keys"] >= 3);
    assert!(outcome.waypoints["invariant-asked"] > 0);
    let plain = run::<KeyValue>(&plan, &mut RunOptions::default());
    assert_eq!(outcome.trace_hash, plain.trace_hash, "checkers do not change a run");
    assert!(!plain.checks.contains_key("applied-limit"));
    let mut totals = Totals::default();
    totals.fold(1, outcome);
    let never = crate::report::never_reached(&totals, &waypoints::<Watched<100>>());
    assert!(never.contains(&"never") && never.contains(&"leader-deposed"), "{never:?}");
    assert!(!never.contains(&"finished"), "{never:?}");
}

#[test]
fn finding_fails_the_run_under_the_name_of_its_checker() {
    let text = STORY.replace("op =", "expect = { violation = \"applied-limit\" }\nop =");
    let plan = scenario::parse::<Watched<2>>("watched.toml", &text).expect("a known check");
    let outcome = run::<Watched<2>>(&plan, &mut RunOptions::default());
    assert_eq!(scenario::unmet(&plan, &outcome), [""; 0]);
    let violation = outcome.violation.expect("it is found");
    assert_eq!(violation.checker, "applied-limit");
    assert!(violation.message.ends_with("has applied 2 commands"), "{}", violation.message);
    let unknown = scenario::parse::<KeyValue>("watched.toml", &text).expect_err("not known here");
    assert!(unknown.message.contains("there is no checker `applied-limit`"), "{unknown}");
    let text = STORY.replace("op =", "expect = { waypoints = [\"finished\"] }\nop =");
    scenario::parse::<Watched<2>>("watched.toml", &text).expect("a known mark");
    scenario::parse::<KeyValue>("watched.toml", &text).expect_err("not known here");

    let mut go_on = |_: &Progress<'_>| std::ops::ControlFlow::Continue(());
    let shrunk = shrink::<Watched<2>>(&plan, &Options::default(), &mut go_on).expect("it fails");
    assert_eq!(shrunk.plan.expect.violation.as_deref(), Some("applied-limit"));
    assert!(shrunk.plan.ops.len() < 3, "{:?}", shrunk.plan.ops);
}

#[test]
#[should_panic(expected = "`undeclared` is no mark of the service")]
fn mark_that_is_not_declared_panics() {
    let plan = scenario::parse::<Watched<0>>("watched.toml", STORY).expect("a scenario");
    run::<Watched<0>>(&plan, &mut RunOptions::default());
}
