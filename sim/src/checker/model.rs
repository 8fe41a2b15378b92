//! What each action means: the reference model, written for being obviously right.
//!
//! It is independent of the state machine under test, on purpose. It works on anything that can
//! get and set a key and list a prefix: a plain map, or the versioned store of the witness checker.

use std::collections::BTreeMap;

use crate::history::{Action, Answer, Key, Txn, TxnOp, Value};

/// What the model needs from a store.
pub trait Store {
    /// The value of a key, `None` if absent.
    fn get(&self, key: &Key) -> Option<Value>;
    /// Changes a key; `None` removes it.
    fn set(&mut self, key: &Key, value: Option<Value>);
    /// All present keys that start with `prefix`, ascending.
    fn scan(&self, prefix: &str) -> Vec<(Key, Value)>;
}

impl Store for BTreeMap<Key, Value> {
    fn get(&self, key: &Key) -> Option<Value> {
        BTreeMap::get(self, key).cloned()
    }

    fn set(&mut self, key: &Key, value: Option<Value>) {
        match value {
            Some(value) => self.insert(key.clone(), value),
            None => self.remove(key),
        };
    }

    fn scan(&self, prefix: &str) -> Vec<(Key, Value)> {
        self.range(Key::from(prefix)..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Executes an action and returns its answer.
pub fn apply(store: &mut impl Store, action: &Action) -> Answer {
    match action {
        Action::Get { key } => Answer::Value(store.get(key)),
        Action::Put { key, value } => {
            store.set(key, Some(value.clone()));
            Answer::Done
        }
        Action::Append { key, value } => {
            let value = Value::append(store.get(key).as_ref(), value);
            store.set(key, Some(value));
            Answer::Done
        }
        Action::Cas { key, expected, new } => {
            let swapped = store.get(key) == *expected;
            if swapped {
                store.set(key, Some(new.clone()));
            }
            Answer::Swapped(swapped)
        }
        Action::Delete { key } => {
            let existed = store.get(key).is_some();
            store.set(key, None);
            Answer::Deleted(Some(existed))
        }
        Action::Scan { prefix } => Answer::Pairs(store.scan(prefix)),
        Action::Txn(txn) => apply_txn(store, txn),
        Action::Other { .. } => Answer::Unsaid,
    }
}

fn apply_txn(store: &mut impl Store, txn: &Txn) -> Answer {
    let succeeded = txn.conditions.iter().all(|(key, expected)| store.get(key) == *expected);
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut results = Vec::with_capacity(branch.len());
    for op in branch {
        results.push(match op {
            TxnOp::Get(key) => Answer::Value(store.get(key)),
            TxnOp::Put(key, value) => {
                store.set(key, Some(value.clone()));
                Answer::Done
            }
            TxnOp::Delete(key) => {
                let existed = store.get(key).is_some();
                store.set(key, None);
                Answer::Deleted(Some(existed))
            }
        });
    }
    Answer::Txn { succeeded, results: Some(results) }
}

/// True if what a client was told is what the model says, as far as the client was told.
pub fn agrees(told: &Answer, model: &Answer) -> bool {
    match (told, model) {
        // Only what a read is told is all that it is about.
        (Answer::Unsaid, model) => !matches!(model, Answer::Value(_) | Answer::Pairs(_)),
        (Answer::Deleted(None), Answer::Deleted(_)) => true,
        (Answer::Txn { succeeded, results: None }, Answer::Txn { succeeded: model, .. }) => {
            succeeded == model
        }
        (
            Answer::Txn { succeeded: told, results: Some(told_results) },
            Answer::Txn { succeeded: model, results: Some(model_results) },
        ) => {
            told == model
                && told_results.len() == model_results.len()
                && told_results.iter().zip(model_results).all(|(told, model)| agrees(told, model))
        }
        _ => told == model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_answers_and_changes_as_documented() {
        let (x, one, two) = (Key::from("x"), Value::text("1"), Value::text("2"));
        let mut store: BTreeMap<Key, Value> = BTreeMap::new();
        let mut run = |action| apply(&mut store, &action);
        let get = || Action::Get { key: x.clone() };
        let delete = || Action::Delete { key: x.clone() };
        let cas = |expected: Option<&Value>| Action::Cas {
            key: x.clone(),
            expected: expected.cloned(),
            new: two.clone(),
        };
        assert_eq!(run(get()), Answer::Value(None));
        assert_eq!(run(cas(Some(&one))), Answer::Swapped(false));
        assert_eq!(run(cas(None)), Answer::Swapped(true));
        assert_eq!(run(Action::Append { key: x.clone(), value: one.clone() }), Answer::Done);
        assert_eq!(run(get()), Answer::Value(Some(Value::text("21"))));
        assert_eq!(run(Action::Put { key: "xy".into(), value: one.clone() }), Answer::Done);
        let pairs = vec![(x.clone(), Value::text("21")), ("xy".into(), one.clone())];
        assert_eq!(run(Action::Scan { prefix: "x".into() }), Answer::Pairs(pairs));
        assert_eq!(run(Action::Scan { prefix: "y".into() }), Answer::Pairs(vec![]));
        assert_eq!(run(delete()), Answer::Deleted(Some(true)));
        assert_eq!(run(delete()), Answer::Deleted(Some(false)));
    }

    #[test]
    fn a_transaction_sees_its_own_writes() {
        let mut store: BTreeMap<Key, Value> = BTreeMap::new();
        let (x, one) = (Key::from("x"), Value::text("1"));
        let txn = Txn {
            conditions: vec![(x.clone(), None)],
            then: vec![
                TxnOp::Put(x.clone(), one.clone()),
                TxnOp::Get(x.clone()),
                TxnOp::Delete("y".into()),
            ],
            otherwise: vec![TxnOp::Get(x.clone())],
        };
        let action = Action::Txn(Box::new(txn));
        let results =
            vec![Answer::Done, Answer::Value(Some(one.clone())), Answer::Deleted(Some(false))];
        let first = apply(&mut store, &action);
        assert_eq!(first, Answer::Txn { succeeded: true, results: Some(results) });
        assert!(agrees(&Answer::Txn { succeeded: true, results: None }, &first));
        assert!(!agrees(&Answer::Txn { succeeded: false, results: None }, &first));
        let results = vec![Answer::Value(Some(one))];
        let second = apply(&mut store, &action);
        assert_eq!(second, Answer::Txn { succeeded: false, results: Some(results) });
    }
}
