//! Histories for the checkers' tests: made by random clients of a correct store, then damaged; and
//! a checker that is too simple to be wrong.

use std::collections::BTreeMap;

use stormkv_sim::checker::model;
use stormkv_sim::checker::witness::Applied;
use stormkv_sim::history::{Action, Answer, History, Key, Model, Op, Outcome, Txn, TxnOp, Value};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What the clients do.
#[derive(Clone, Copy)]
pub struct Shape {
    pub model: Model,
    pub ops: usize,
    pub processes: u64,
    pub keys: u64,
    /// Number of distinct values; 0 for a new one with each write.
    pub values: u64,
    /// Names of the actions, chosen with equal chances.
    pub actions: &'static [&'static str],
    /// Chance in percent that an operation's outcome is unknown, and that it fails.
    pub unknown: u64,
    pub failed: u64,
}

/// A legal history and the order of its writes.
pub struct Generated {
    pub history: History,
    pub applied: Vec<Applied>,
}

enum Client {
    Idle,
    Called(usize),
    Done(usize, Answer),
}

pub fn generate(rng: &mut Rng, shape: Shape) -> Generated {
    let mut history = History::new(shape.model);
    let mut applied = Vec::new();
    let mut store: BTreeMap<Key, Value> = BTreeMap::new();
    let mut clients: Vec<Client> = (0..shape.processes).map(|_| Client::Idle).collect();
    let mut late: Vec<usize> = Vec::new();
    let mut now = 0;
    let mut effect = |history: &History, op: usize| {
        let action = &history.ops()[op].action;
        if !action.is_read() {
            applied.push(Applied { index: 10 + applied.len() as u64, op });
        }
        model::apply(&mut store, action)
    };
    while clients.iter().any(|client| !matches!(client, Client::Idle))
        || history.ops().len() < shape.ops
    {
        now += rng.below(1_000);
        if !late.is_empty() && rng.percent(10) {
            let op = late.swap_remove(rng.below(late.len() as u64) as usize);
            effect(&history, op);
        }
        let process = rng.below(shape.processes);
        let client = &mut clients[process as usize];
        *client = match std::mem::replace(client, Client::Idle) {
            Client::Idle if history.ops().len() == shape.ops => Client::Idle,
            Client::Idle => {
                let action = random_action(rng, shape, history.ops().len());
                Client::Called(history.invoke(process, action, now))
            }
            Client::Called(op) if rng.percent(shape.failed) => {
                history.complete(op, Outcome::Fail, now);
                Client::Idle
            }
            Client::Called(op) if rng.percent(shape.unknown) => {
                history.complete(op, Outcome::Info, now);
                late.push(op);
                Client::Idle
            }
            Client::Called(op) => {
                let answer = effect(&history, op);
                Client::Done(op, answer)
            }
            Client::Done(op, answer) => {
                let unknown = rng.percent(shape.unknown);
                let outcome = if unknown { Outcome::Info } else { Outcome::Ok(answer) };
                history.complete(op, outcome, now);
                Client::Idle
            }
        };
    }
    Generated { history, applied }
}

fn random_action(rng: &mut Rng, shape: Shape, unique: usize) -> Action {
    let mut key = || match shape.model {
        Model::Kv => Key::from(format!("k{}", rng.below(shape.keys))),
        Model::Register => Key::from(""),
    };
    let (key, other) = (key(), key());
    let mut value = || match shape.values {
        0 => Value::text(&format!("v{unique} ")),
        values => Value::text(&rng.below(values).to_string()),
    };
    let (one, two) = (value(), value());
    let maybe = if rng.percent(30) { None } else { Some(one.clone()) };
    match shape.actions[rng.below(shape.actions.len() as u64) as usize] {
        "get" => Action::Get { key },
        "put" => Action::Put { key, value: one },
        "append" => Action::Append { key, value: one },
        "cas" => Action::Cas { key, expected: maybe, new: two },
        "delete" => Action::Delete { key },
        "scan" => {
            let prefix = if rng.percent(50) { Key::from("k") } else { key };
            Action::Scan { prefix }
        }
        "txn" => Action::Txn(Box::new(Txn {
            conditions: vec![(key.clone(), maybe)],
            then: vec![TxnOp::Put(other.clone(), two), TxnOp::Get(key.clone())],
            otherwise: match rng.below(3) {
                0 => vec![],
                1 => vec![TxnOp::Get(other)],
                _ => vec![TxnOp::Get(key), TxnOp::Delete(other)],
            },
        })),
        unknown => panic!("no action {unknown}"),
    }
}

/// Changes one answer (or one outcome) at random; the history may stay legal.
pub fn damage(rng: &mut Rng, history: &mut History, values: u64) {
    let count = history.ops().len() as u64;
    // Unique values are mistaken for one that was read or written elsewhere.
    let known: Vec<Value> = history.ops().iter().filter_map(some_value).collect();
    let pick = |rng: &mut Rng| match values {
        0 if known.is_empty() => Value::text("v0 "),
        0 => known[rng.below(known.len() as u64) as usize].clone(),
        values => Value::text(&rng.below(values).to_string()),
    };
    for _ in 0..20 {
        let op = &mut history.ops_mut()[rng.below(count) as usize];
        let Outcome::Ok(answer) = &mut op.outcome else { continue };
        let value = pick(rng);
        if damage_answer(rng, answer, value) {
            return;
        }
        if rng.percent(20) {
            op.outcome = Outcome::Fail;
            return;
        }
    }
}

/// Takes away what some compare-and-swaps and transactions were told; the history stays legal if it
/// was.
pub fn hush(rng: &mut Rng, history: &mut History) {
    for op in history.ops_mut() {
        if let Outcome::Ok(answer @ (Answer::Swapped(_) | Answer::Txn { .. })) = &mut op.outcome
            && rng.percent(25)
        {
            *answer = Answer::Unsaid;
        }
    }
}

fn some_value(op: &Op) -> Option<Value> {
    match (&op.action, &op.outcome) {
        (_, Outcome::Ok(Answer::Value(value))) => value.clone(),
        (Action::Put { value, .. } | Action::Append { value, .. }, _) => Some(value.clone()),
        _ => None,
    }
}

fn damage_answer(rng: &mut Rng, answer: &mut Answer, value: Value) -> bool {
    match answer {
        Answer::Value(told) => *told = if rng.percent(30) { None } else { Some(value) },
        Answer::Swapped(told) | Answer::Deleted(Some(told)) => *told = !*told,
        Answer::Pairs(pairs) if rng.percent(50) && !pairs.is_empty() => {
            pairs.remove(rng.below(pairs.len() as u64) as usize);
        }
        Answer::Pairs(pairs) => match pairs.last_mut() {
            Some((_, told)) => *told = value,
            None => pairs.push(("k0".into(), value)),
        },
        Answer::Txn { results: Some(results), .. } => match results.first_mut() {
            Some(result) => return damage_answer(rng, result, value),
            None => return false,
        },
        _ => return false,
    }
    true
}

/// Tries every order.
pub fn brute_force(history: &History) -> bool {
    let ops: Vec<&Op> = history.ops().iter().filter(|op| op.outcome != Outcome::Fail).collect();
    assert!(ops.len() <= 9, "too many orders");
    some_order(&ops, &mut vec![false; ops.len()], &BTreeMap::new())
}

fn some_order(ops: &[&Op], placed: &mut Vec<bool>, store: &BTreeMap<Key, Value>) -> bool {
    let pending: Vec<usize> = (0..ops.len()).filter(|&op| !placed[op]).collect();
    if pending.iter().all(|&op| ops[op].outcome == Outcome::Info) {
        return true;
    }
    for &op in &pending {
        let overtakes = pending
            .iter()
            .any(|&other| ops[other].returned().is_some_and(|ret| ret < ops[op].call));
        if overtakes {
            continue;
        }
        let mut after = store.clone();
        let answer = model::apply(&mut after, &ops[op].action);
        if let Outcome::Ok(told) = &ops[op].outcome
            && !model::agrees(told, &answer)
        {
            continue;
        }
        placed[op] = true;
        if some_order(ops, placed, &after) {
            return true;
        }
        placed[op] = false;
    }
    false
}
