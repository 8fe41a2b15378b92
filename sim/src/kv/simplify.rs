//! Makes the operations of a failing plan plainer: fewer keys, smaller values, shorter names.

use std::collections::{BTreeMap, BTreeSet};

use super::{Condition, Op, Step, Value};
use crate::service::Pass;

/// The passes, in the order in which they are made.
pub const PASSES: [Pass<Op>; 3] = [fewer_keys, smaller_values, shorter_names];

/// Single writes and reads in the place of an operation that does several things, or only some of them.
pub fn simpler(op: &Op) -> Vec<Op> {
    let single = |step: &Step| match step.clone() {
        Step::Put { key, value } => Op::Put { key, value },
        Step::Delete { key } => Op::Delete { key },
        Step::Get { key } => Op::Get { key },
    };
    match op {
        Op::Txn { then, otherwise, .. } => then.iter().chain(otherwise).map(single).collect(),
        Op::Cas { key, new, .. } => vec![Op::Put { key: key.clone(), value: new.clone() }],
        Op::Guarded { key, value: Some(value), .. } => {
            vec![Op::Put { key: key.clone(), value: value.clone() }]
        }
        Op::Guarded { key, value: None, .. } => vec![Op::Delete { key: key.clone() }],
        Op::Scan { prefix, limit } if !prefix.is_empty() => {
            vec![Op::Scan { prefix: String::new(), limit: *limit }]
        }
        _ => Vec::new(),
    }
}

/// The keys that an operation is about, each once; a prefix ends in `*`.
pub fn keys(op: &Op) -> Vec<String> {
    let mut keys = match op {
        Op::Put { key, .. }
        | Op::Get { key }
        | Op::Delete { key }
        | Op::Cas { key, .. }
        | Op::Guarded { key, .. } => vec![key.clone()],
        Op::Scan { prefix, .. } => vec![format!("{prefix}*")],
        Op::Txn { conditions, then, otherwise } => {
            let of = |step: &Step| match step {
                Step::Put { key, .. } | Step::Delete { key } | Step::Get { key } => key.clone(),
            };
            let asked = conditions.iter().map(|condition| condition.key.clone());
            asked.chain(then.iter().chain(otherwise).map(of)).collect()
        }
    };
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Different keys, and values; a padded value counts as two.
pub fn names(ops: &[Op]) -> u64 {
    let mut names = BTreeSet::new();
    let mut padded = 0;
    for op in ops {
        let words = match op {
            Op::Put { key, value } => vec![key.clone(), value.to_string()],
            Op::Get { key } | Op::Delete { key } => vec![key.clone()],
            Op::Cas { key, old, new } => {
                let old = old.as_ref().map(ToString::to_string);
                [Some(key.clone()), old, Some(new.to_string())].into_iter().flatten().collect()
            }
            Op::Guarded { key, value, .. } => {
                let value = value.as_ref().map(ToString::to_string);
                [Some(key.clone()), value].into_iter().flatten().collect()
            }
            Op::Txn { conditions, then, otherwise } => {
                let mut words: Vec<String> = conditions.iter().map(|c| c.key.clone()).collect();
                for step in then.iter().chain(otherwise) {
                    match step {
                        Step::Put { key, value } => words.extend([key.clone(), value.to_string()]),
                        Step::Get { key } | Step::Delete { key } => words.push(key.clone()),
                    }
                }
                words
            }
            Op::Scan { .. } => Vec::new(),
        };
        padded += words.iter().filter(|word| word.contains('*')).count();
        names.extend(words);
    }
    (names.len() + padded) as u64
}

/// All keys in one, then any two.
fn fewer_keys(ops: &[Op]) -> Vec<Vec<Op>> {
    let keys = words(ops).0;
    let mut candidates = Vec::new();
    if let Some(first) = keys.first() {
        candidates.push(rename(ops, &|_| first.clone(), &Value::clone));
    }
    for (at, one) in keys.iter().enumerate() {
        for other in &keys[..at] {
            let merged = |key: &str| if key == one { other.clone() } else { key.to_owned() };
            candidates.push(rename(ops, &merged, &Value::clone));
        }
    }
    candidates
}

/// Values without what they are padded with.
fn smaller_values(ops: &[Op]) -> Vec<Vec<Op>> {
    let values = words(ops).1;
    let bare = |value: &Value| {
        let text = value.to_string();
        Value::new(text.split('*').next().unwrap_or(&text))
    };
    let mut candidates = vec![rename(ops, &str::to_owned, &bare)];
    for one in &values {
        let less = |value: &Value| if value == one { bare(value) } else { value.clone() };
        candidates.push(rename(ops, &str::to_owned, &less));
    }
    candidates
}

/// Keys are `a`, `b` and so on, values `1`, `2` and so on, in the order in which they come.
fn shorter_names(ops: &[Op]) -> Vec<Vec<Op>> {
    let (keys, values) = words(ops);
    let messages = |at: usize| match u8::try_from(at) {
        Ok(at) if at < 26 => char::from(b'a' + at).to_string(),
        _ => format!("k{at}"),
    };
    let short_keys: BTreeMap<String, String> =
        keys.into_iter().enumerate().map(|(at, key)| (key, messages(at))).collect();
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
        rename(ops, &key, &value),
        rename(ops, &key, &Value::clone),
        rename(ops, &str::to_owned, &value),
    ]
}

/// All keys and values, in the order in which they come first.
fn words(ops: &[Op]) -> (Vec<String>, Vec<Value>) {
    let keys = std::cell::RefCell::new(Vec::new());
    let values = std::cell::RefCell::new(Vec::new());
    rename(
        ops,
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

/// The operations with other keys and values. A scan whose prefix stood for keys reads them all.
fn rename(ops: &[Op], key: &dyn Fn(&str) -> String, value: &dyn Fn(&Value) -> Value) -> Vec<Op> {
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
    ops.iter().map(op).collect()
}
