//! The key-value service in the simulator: what its operations are called, and what they mean.
//!
//! It is a service like any other: plans, the simulation and the swarm know nothing of keys and values.

mod client;
mod model;
mod op;
mod past;
mod simplify;
mod words;
mod workload;

#[cfg(feature = "cli")]
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use stormkv::kv::{Command, Kv, Query};

pub use client::{Memory, Pending};
pub use model::Model;
pub use op::{Condition, Guard, Op, Step, Value};

use crate::history::{self, Action, History, Txn, TxnOp};
use crate::outcome::Outcome;
use crate::plan::{Clients, Cluster, Grammar, GrammarError, OpRow, Plan};
use crate::service::{Pass, Service, Shown};
use crate::shrink::{self, DoesNotFail, Options, Report, Shrunk};
use crate::simulation::{self, RunOptions, SoakProgress, Soaked};
use crate::swarm::Dice;

// Simulations of this service that other crates start are compiled here, once: a generic function is
// compiled anew in each crate that names its parameters.

/// The command line of this service; needs the feature `cli`.
#[cfg(feature = "cli")]
pub fn main() -> ExitCode {
    crate::main::<KeyValue>()
}

/// See [`simulation::run`].
pub fn run(plan: &Plan, options: &mut RunOptions) -> Outcome {
    simulation::run::<KeyValue>(plan, options)
}

/// See [`simulation::recorded`].
pub fn recorded(plan: &Plan) -> (Outcome, History) {
    simulation::recorded::<KeyValue>(plan)
}

/// See [`simulation::soak`].
///
/// # Panics
/// If there are fewer than 4 windows.
pub fn soak(
    windows: u64,
    window: &dyn Fn(u64) -> Plan,
    progress: &mut dyn FnMut(&SoakProgress),
) -> Soaked {
    simulation::soak::<KeyValue>(windows, window, progress)
}

/// See [`shrink::shrink`].
///
/// # Errors
/// If the plan does not fail.
pub fn shrink(plan: &Plan, options: &Options, report: Report<'_>) -> Result<Shrunk, DoesNotFail> {
    shrink::shrink::<KeyValue>(plan, options, report)
}

/// The key-value service.
#[derive(Debug)]
pub struct KeyValue;

impl Service for KeyValue {
    type Machine = Kv;
    type Model = Model;
    type Op = Op;
    type Client = Memory;

    const COMMAND: &'static str = "cargo sim";
    const GRAMMAR: &'static Grammar = op::GRAMMAR;
    const MARKS: &'static [&'static str] = &[
        "cas-refused",
        "guard-refused",
        "written-at-revision",
        "page-turned",
        "page-turned-during-changes",
    ];
    const PASSES: &'static [Pass<Op>] = &simplify::PASSES;

    fn parse(words: &str) -> Result<Op, String> {
        words.parse().map_err(|error: GrammarError| error.to_string())
    }

    fn is_read(op: &Op) -> bool {
        op.is_read()
    }

    fn describe(shown: Shown<'_>) -> String {
        match shown {
            Shown::Command(bytes) => words::command(bytes),
            Shown::Query(bytes) => words::query(bytes),
            Shown::Response(bytes) => words::response(bytes),
            Shown::Exact(bytes) => words::exact_response(bytes),
        }
    }

    fn subjects(op: &Op) -> Vec<String> {
        simplify::keys(op)
    }

    fn generate(dice: &mut Dice, number: u32) -> Op {
        let key = format!("k{}", dice.between(1, 4));
        match dice.below(2) {
            0 => Op::Get { key },
            _ => Op::Put { key, value: Value::new(format!("v{number}")) },
        }
    }

    fn workload(seed: u64, times: &[u64], cluster: &Cluster, clients: &Clients) -> Vec<OpRow> {
        workload::operations(seed, times, cluster, clients.count)
    }

    fn strain(seed: u64, ops: &mut Vec<OpRow>, cluster: &mut Cluster, clients: &Clients) {
        workload::large_answers(seed, ops, cluster, clients);
    }

    fn vary(seed: u64, ops: &mut [OpRow]) {
        workload::vary(seed, ops);
    }

    fn even_out(op: &mut Op, number: usize) {
        workload::even_out(op, number);
    }

    fn write(place: &str, word: &str, bytes: u32) -> Option<Op> {
        Some(Op::Put { key: place.to_owned(), value: Value::padded(word, bytes) })
    }

    fn erase(place: &str) -> Option<Op> {
        Some(Op::Delete { key: place.to_owned() })
    }

    fn read(place: &str) -> Option<Op> {
        Some(Op::Get { key: place.to_owned() })
    }

    fn written_bytes(op: &Op) -> u64 {
        workload::written_bytes(op)
    }

    fn simpler(op: &Op) -> Vec<Op> {
        simplify::simpler(op)
    }

    fn names(ops: &[Op]) -> u64 {
        simplify::names(ops)
    }

    fn action(op: &Op) -> Option<Action> {
        client::action(op)
    }

    fn state_as_action(model: &Model) -> Action {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let puts = model.contents().map(|(key, value)| {
            TxnOp::Put(Arc::from(text(key).as_str()), history::Value::text(&text(value)))
        });
        Action::Txn(Box::new(Txn { then: puts.collect(), ..Txn::default() }))
    }

    fn whole_state() -> Option<Bytes> {
        Some(Query::Scan { prefix: Bytes::new(), after: None, limit: 0 }.encode())
    }

    fn backup_command(number: u32) -> Option<Bytes> {
        let (key, value) = (format!("k{number}").into(), format!("b{number}").into());
        Some(Command::Put { key, value }.encode())
    }
}
