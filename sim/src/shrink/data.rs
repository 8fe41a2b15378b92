//! Makes operations plainer, as far as their service knows how, and by leaving out words.

use super::search::Search;
use super::text;
use crate::plan::{Call, Fault, Op, OpRow, Plan};
use crate::service::{Service, call, check_fault, checked, parsed};

/// The part of shrinking that depends on the service.
#[derive(Clone, Copy)]
pub(super) struct Plainer {
    /// Counts the different names in the operations of a plan.
    pub names: fn(&Plan) -> u64,
    /// The number of passes over all operations, and the candidates of one of them.
    passes: usize,
    pass: fn(&Plan, usize) -> Vec<Plan>,
    /// The candidates for one row.
    row: fn(&Plan, usize) -> Vec<Plan>,
    /// Returns whether a text that reads as a fault is one that the service has.
    pub has_fault: fn(&Fault) -> bool,
}

impl Plainer {
    /// That of a service.
    pub fn of<S: Service>() -> Plainer {
        Plainer {
            names: names::<S>,
            passes: S::PASSES.len(),
            pass: pass::<S>,
            row: row::<S>,
            has_fault: |fault| check_fault::<S>(fault).is_ok(),
        }
    }
}

/// Makes operations and their names plainer.
pub(super) fn data(search: &mut Search<'_>) {
    let Plainer { passes, pass, row, .. } = search.plainer();
    for number in 0..passes {
        search.repeat(&|plan| pass(plan, number));
    }
    for at in 0..search.best().ops.len() {
        search.repeat(&|plan| row(plan, at));
    }
}

/// The operations of the service, in the order of their rows.
fn operations<S: Service>(plan: &Plan) -> Vec<S::Op> {
    plan.ops.iter().filter_map(|row| parsed::<S>(&row.call.op)).collect()
}

pub(super) fn names<S: Service>(plan: &Plan) -> u64 {
    S::names(&operations::<S>(plan))
}

fn pass<S: Service>(plan: &Plan, number: usize) -> Vec<Plan> {
    let lists = S::PASSES[number](&operations::<S>(plan));
    let with = |ops: Vec<S::Op>| {
        let mut candidate = plan.clone();
        let calls = candidate.ops.iter_mut().map(|row| &mut row.call);
        let calls = calls.filter(|call| matches!(call.op, Op::Service(_)));
        for (place, op) in calls.zip(ops) {
            place.op = call::<S>(&op).op;
        }
        candidate
    };
    lists.into_iter().map(with).collect()
}

fn row<S: Service>(plan: &Plan, at: usize) -> Vec<Plan> {
    let OpRow { client, call, .. } = &plan.ops[at];
    let mut plain = simpler::<S>(&call.op);
    // Any words make an operation of a service, but few make one that it has.
    let checked = |call: &Call| checked::<S>(*client, call).ok();
    plain.extend(text::plainer(call).iter().filter_map(checked));
    let with = |call| {
        let mut candidate = plan.clone();
        candidate.ops[at].call = call;
        candidate
    };
    plain.into_iter().map(with).collect()
}

/// Operations that do less than this one.
fn simpler<S: Service>(op: &Op) -> Vec<Call> {
    match (parsed::<S>(op), op) {
        (Some(op), _) => S::simpler(&op).iter().map(call::<S>).collect(),
        (None, Op::Replace { old, new }) => {
            [Op::Add(*new), Op::Remove(*old)].map(Call::from).into()
        }
        _ => Vec::new(),
    }
}
