//! Makes operations plainer: fewer words, fewer keys, smaller values, shorter names.

use std::collections::BTreeMap;

use super::search::Search;
use super::text;
use crate::plan::{Call, Condition, Op, Plan, Step, Value};

/// Makes operations, keys and values plainer.
pub(super) fn data(search: &mut Search<'_>) {
    search.repeat(&fewer_keys);
    search.repeat(&smaller_values);
    search.repeat(&shorter_names);
    for at in 0..search.best().ops.len() {
        search.repeat(&|plan| plainer_at(plan, at));
    }
}

fn plainer_at(plan: &Plan, at: usize) -> Vec<Plan> {
    let call = &plan.ops[at].call;
    let mut plain: Vec<Call> = alone(&call.op);
    plain.extend(text::plainer(call));
    let with = |call| {
        let mut candidate = plan.clone();
        candidate.ops[at].call = call;
        candidate
    };
    plain.into_iter().map(with).collect()
}

/// Single writes and reads in the place of what does several things, or only some of them.
fn alone(op: &Op) -> Vec<Call> {
    let single = |step: &Step| match step.clone() {
        Step::Put { key, value } => Op::Put { key, value },
        Step::Delete { key } => Op::Delete { key },
        Step::Get { key } => Op::Get { key },
    };
    let ops = match op {
        Op::Txn { then, otherwise, .. } => then.iter().chain(otherwise).map(single).collect(),
        Op::Cas { key, new, .. } => vec![Op::Put { key: key.clone(), value: new.clone() }],
        Op::Guarded { key, value: Some(value), .. } => {
            vec![Op::Put { key: key.clone(), value: value.clone() }]
        }
        Op::Guarded { key, value: None, .. } => vec![Op::Delete { key: key.clone() }],
        Op::Scan { prefix, limit } if !prefix.is_empty() => {
            vec![Op::Scan { prefix: String::new(), limit: *limit }]
        }
        Op::Replace { old, new } => vec![Op::Add(*new), Op::Remove(*old)],
        _ => Vec::new(),
    };
    ops.into_iter().map(Call::from).collect()
}

/// All keys in one, then any two.
fn fewer_keys(plan: &Plan) -> Vec<Plan> {
    let keys = words(plan).0;
    let mut candidates = Vec::new();
    if let Some(first) = keys.first() {
        candidates.push(rename(plan, &|_| first.clone(), &Value::clone));
    }
    for (at, one) in keys.iter().enumerate() {
        for other in &keys[..at] {
            let merged = |key: &str| if key == one { other.clone() } else { key.to_owned() };
            candidates.push(rename(plan, &merged, &Value::clone));
        }
    }
    candidates
}

/// Values without what they are padded with.
fn smaller_values(plan: &Plan) -> Vec<Plan> {
    let values = words(plan).1;
    let bare = |value: &Value| {
        let text = value.to_string();
        Value::new(text.split('*').next().unwrap_or(&text))
    };
    let mut candidates = vec![rename(plan, &str::to_owned, &bare)];
    for one in &values {
        let less = |value: &Value| if value == one { bare(value) } else { value.clone() };
        candidates.push(rename(plan, &str::to_owned, &less));
    }
    candidates
}

/// Keys are `a`, `b` and so on, values `1`, `2` and so on, in the order in which they come.
fn shorter_names(plan: &Plan) -> Vec<Plan> {
    let (keys, values) = words(plan);
    let letters = |at: usize| match u8::try_from(at) {
        Ok(at) if at < 26 => char::from(b'a' + at).to_string(),
        _ => format!("k{at}"),
    };
    let short_keys: BTreeMap<String, String> =
        keys.into_iter().enumerate().map(|(at, key)| (key, letters(at))).collect();
    let short_values: BTreeMap<Value, Value> = values
        .into_iter()
        .zip(1..)
        .map(|(value, number)| {
            let word = format!("{number}");
            let short = match value.to_string().split_once('*') {
                Some((_, len)) => len.parse().map(|len| Value::padded(word, len)),
                None => Ok(Value::new(word)),
            };
            let short = short.unwrap_or_else(|_| value.clone());
            (value, short)
        })
        .collect();
    let key = |key: &str| short_keys.get(key).cloned().unwrap_or_else(|| key.to_owned());
    let value = |value: &Value| short_values.get(value).unwrap_or(value).clone();
    vec![
        rename(plan, &key, &value),
        rename(plan, &key, &Value::clone),
        rename(plan, &str::to_owned, &value),
    ]
}

/// All keys and values, in the order in which they come first.
fn words(plan: &Plan) -> (Vec<String>, Vec<Value>) {
    let keys = std::cell::RefCell::new(Vec::new());
    let values = std::cell::RefCell::new(Vec::new());
    rename(
        plan,
        &|key| {
            let mut keys = keys.borrow_mut();
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
            key.to_owned()
        },
        &|value| {
            let mut values = values.borrow_mut();
            if !values.contains(value) {
                values.push(value.clone());
            }
            value.clone()
        },
    );
    (keys.into_inner(), values.into_inner())
}

/// The plan with other keys and values. A scan whose prefix stood for keys reads them all.
fn rename(plan: &Plan, key: &dyn Fn(&str) -> String, value: &dyn Fn(&Value) -> Value) -> Plan {
    let step = |step: &Step| match step {
        Step::Put { key: k, value: v } => Step::Put { key: key(k), value: value(v) },
        Step::Delete { key: k } => Step::Delete { key: key(k) },
        Step::Get { key: k } => Step::Get { key: key(k) },
    };
    let steps = |steps: &[Step]| steps.iter().map(step).collect();
    let op = |op: &Op| match op {
        Op::Put { key: k, value: v } => Op::Put { key: key(k), value: value(v) },
        Op::Get { key: k } => Op::Get { key: key(k) },
        Op::Delete { key: k } => Op::Delete { key: key(k) },
        Op::Cas { key: k, old, new } => {
            Op::Cas { key: key(k), old: old.as_ref().map(value), new: value(new) }
        }
        Op::Guarded { key: k, guard, value: v } => {
            Op::Guarded { key: key(k), guard: *guard, value: v.as_ref().map(value) }
        }
        Op::Txn { conditions, then, otherwise } => Op::Txn {
            conditions: conditions
                .iter()
                .map(|c| Condition { key: key(&c.key), value: c.value.as_ref().map(value) })
                .collect(),
            then: steps(then),
            otherwise: steps(otherwise),
        },
        other => other.clone(),
    };
    let mut renamed = plan.clone();
    for row in &mut renamed.ops {
        row.call.op = op(&row.call.op);
    }
    renamed
}
