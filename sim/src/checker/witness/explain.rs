//! Sentences about reads that the witness order does not explain: the read, what sets its floor,
//! who wrote what it should have seen, and what sets its limit.

use std::collections::BTreeMap;

use super::{Applied, Bound, Context, Why, started, value_at};
use crate::history::{Key, Value, show};

/// Why a get fits nowhere between its bounds.
pub(super) fn get(
    context: &Context<'_>,
    read: usize,
    (key, value): (&Key, &Option<Value>),
    floor: Bound,
    limit: Bound,
) -> Why {
    let versions = context.store.of(key);
    let current = value_at(versions, floor.gap).cloned();
    let started = started(versions, floor.gap);
    let writer = started.checked_sub(1).map(|nth| &context.applied[versions[nth].gap as usize - 1]);
    let mut text = context.history.describe(read);
    let ever = value.is_none() || versions.iter().any(|version| version.value == *value);
    if !ever {
        text += &format!(", a value that {} never had in the log's order", name(key));
    }
    text += &since(context, floor);
    text += &format!(", where {} is {}", name(key), show(&current));
    if let Some(writer) = writer.filter(|writer| Some(writer.op) != floor.by) {
        text += &format!(" by {}", at(context, writer));
    }
    let named = [Some(read), floor.by, writer.map(|writer| writer.op), limit.by];
    Why::new(text + &until(context, limit), named.into_iter().flatten())
}

/// Why a scan fits nowhere between its bounds.
pub(super) fn scan(
    context: &Context<'_>,
    read: usize,
    (prefix, pairs): (&Key, &[(Key, Value)]),
    floor: Bound,
    limit: Bound,
) -> Why {
    let mut text = context.history.describe(read) + &since(context, floor);
    let told: BTreeMap<&Key, &Value> = pairs.iter().map(|(key, value)| (key, value)).collect();
    let mut keys: Vec<&Key> = context.store.with_prefix(prefix).map(|(key, _)| key).collect();
    keys.extend(told.keys());
    keys.sort_unstable();
    let mut named = vec![Some(read), floor.by, limit.by];
    let value = |key| value_at(context.store.of(key), floor.gap);
    if let Some(key) = keys.into_iter().find(|&key| value(key) != told.get(key).copied()) {
        let current = show(&value(key).cloned());
        text += &format!(", where {} is {current}", name(key));
        let versions = context.store.of(key);
        let writer = started(versions, floor.gap).checked_sub(1);
        let writer = writer.map(|nth| &context.applied[versions[nth].gap as usize - 1]);
        if let Some(writer) = writer.filter(|writer| Some(writer.op) != floor.by) {
            text += &format!(" by {}", at(context, writer));
            named.push(Some(writer.op));
        }
    }
    text += " and no later moment has exactly these pairs";
    Why::new(text + &until(context, limit), named.into_iter().flatten())
}

fn since(context: &Context<'_>, floor: Bound) -> String {
    match floor.by {
        None => " must see a state not older than the initial one".to_string(),
        Some(op) => {
            let seen = match context.history.ops()[op].action.is_read() {
                true => "which had seen the log up to",
                false => "which took effect at",
            };
            let index = context.applied[floor.gap as usize - 1].index;
            format!(
                " must see a state not older than {}, {seen} index {index}",
                context.history.describe(op)
            )
        }
    }
}

fn until(context: &Context<'_>, limit: Bound) -> String {
    match limit.by {
        None => String::new(),
        Some(op) => format!(
            "; it returned before {} was called, which took effect at index {}",
            context.history.describe(op),
            context.applied[limit.gap as usize].index
        ),
    }
}

fn at(context: &Context<'_>, applied: &Applied) -> String {
    format!("{} at index {}", context.history.describe(applied.op), applied.index)
}

fn name(key: &Key) -> &str {
    if key.is_empty() { "the register" } else { key }
}
