//! Prepares a history for the search: independent partitions, and operations on small integers.
//!
//! Operations on different keys commute, so a history is linearizable exactly if it is for each key
//! alone (Herlihy and Wing: linearizability is local). A scan or a transaction ties its keys into
//! one partition. Within a partition, keys become *slots*, and each (slot, value) pair becomes a
//! *cell*; a state is then one cell for each slot, and comparing values is comparing integers.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::history::{Action, Answer, History, Key, Outcome, Txn, TxnOp, Value};

/// The return of an operation whose outcome is unknown: never.
pub(super) const OPEN: u64 = u64::MAX;

/// Keys that must be checked together, and the operations on them.
pub(super) struct Partition {
    pub keys: Vec<Key>,
    /// Indices into the history, in the order of the calls.
    pub ops: Vec<usize>,
}

/// Splits a history into its independent partitions. Operations that certainly had no effect, and
/// reads without an answer, constrain nothing and are left out; so are those that no model knows.
pub(super) fn partition(history: &History) -> Vec<Partition> {
    let mut ids: BTreeMap<Key, usize> = BTreeMap::new();
    for op in history.ops() {
        for key in named_keys(&op.action, &op.outcome) {
            let next = ids.len();
            ids.entry(key.clone()).or_insert(next);
        }
    }
    let mut parent: Vec<usize> = (0..ids.len()).collect();
    let mut anchors: Vec<(usize, Option<usize>)> = Vec::new();
    for (index, op) in history.ops().iter().enumerate() {
        let unanswered = !matches!(op.outcome, Outcome::Ok(_));
        let is_opaque = matches!(op.action, Action::Other { .. });
        if op.outcome == Outcome::Fail || unanswered && op.action.is_read() || is_opaque {
            continue;
        }
        let mut anchor = None;
        let mut touch = |id: usize| match anchor {
            None => anchor = Some(id),
            Some(other) => {
                let (a, b) = (find(&mut parent, id), find(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        };
        named_keys(&op.action, &op.outcome).for_each(|key| touch(ids[key]));
        if let Action::Scan { prefix } = &op.action {
            let in_prefix = ids.range(prefix.clone()..);
            in_prefix
                .take_while(|(key, _)| key.starts_with(&**prefix))
                .for_each(|(_, &id)| touch(id));
        }
        anchors.push((index, anchor));
    }
    gather(&ids, &mut parent, &anchors)
}

fn gather(
    ids: &BTreeMap<Key, usize>,
    parent: &mut [usize],
    anchors: &[(usize, Option<usize>)],
) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::new();
    let mut of_root: FxHashMap<usize, usize> = FxHashMap::default();
    for &(op, anchor) in anchors {
        // An operation without keys (an empty scan of an unused prefix) stands alone.
        let place = match anchor {
            None => partitions.len(),
            Some(id) => *of_root.entry(find(parent, id)).or_insert(partitions.len()),
        };
        if place == partitions.len() {
            partitions.push(Partition { keys: Vec::new(), ops: Vec::new() });
        }
        partitions[place].ops.push(op);
    }
    for (key, &id) in ids {
        if let Some(&place) = of_root.get(&find(parent, id)) {
            partitions[place].keys.push(key.clone());
        }
    }
    partitions
}

fn find(parent: &mut [usize], mut id: usize) -> usize {
    while parent[id] != id {
        parent[id] = parent[parent[id]];
        id = parent[id];
    }
    id
}

/// The keys an operation names. (A scan touches all keys of its prefix, named or not.)
fn named_keys<'a>(
    action: &'a Action,
    outcome: &'a Outcome,
) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
    match (action, outcome) {
        (
            Action::Get { key }
            | Action::Put { key, .. }
            | Action::Append { key, .. }
            | Action::Cas { key, .. }
            | Action::Delete { key },
            _,
        ) => Box::new(std::iter::once(key)),
        (Action::Scan { .. }, Outcome::Ok(Answer::Pairs(pairs))) => {
            Box::new(pairs.iter().map(|(key, _)| key))
        }
        (Action::Scan { .. } | Action::Other { .. }, _) => Box::new(std::iter::empty()),
        (Action::Txn(txn), _) => Box::new(txn.conditions.iter().map(|(key, _)| key).chain(
            txn.then.iter().chain(&txn.otherwise).map(|op| match op {
                TxnOp::Get(key) | TxnOp::Put(key, _) | TxnOp::Delete(key) => key,
            }),
        )),
    }
}

/// All (slot, value) pairs of a partition, numbered.
#[derive(Default)]
pub(super) struct Cells {
    ids: FxHashMap<(u32, Option<Value>), u32>,
    values: Vec<Option<Value>>,
    slots: Vec<u32>,
    appended: FxHashMap<(u32, u32), u32>,
    garbage: Option<u32>,
}

impl Cells {
    pub fn intern(&mut self, slot: u32, value: Option<Value>) -> u32 {
        if let Some(&cell) = self.ids.get(&(slot, value.clone())) {
            return cell;
        }
        let cell = self.values.len() as u32;
        self.values.push(value.clone());
        self.slots.push(slot);
        self.ids.insert((slot, value), cell);
        cell
    }

    /// A cell of slot 0 that stands for every value that nobody will read. Appends do not change it.
    pub fn intern_garbage(&mut self) -> u32 {
        let cell = self.values.len() as u32;
        self.values.push(None);
        self.slots.push(0);
        self.garbage = Some(cell);
        cell
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn slot(&self, cell: u32) -> usize {
        self.slots[cell as usize] as usize
    }

    pub fn value(&self, cell: u32) -> &Option<Value> {
        &self.values[cell as usize]
    }

    /// The cell after the value of the cell `suffix` is appended to the value of `base`.
    pub fn append(&mut self, base: u32, suffix: u32) -> u32 {
        if self.garbage == Some(base) {
            return base;
        }
        if let Some(&cell) = self.appended.get(&(base, suffix)) {
            return cell;
        }
        let suffix_value = self.value(suffix).as_ref().expect("an appended value is present");
        let value = Value::append(self.value(base).as_ref(), suffix_value);
        let cell = self.intern(self.slots[base as usize], Some(value));
        self.appended.insert((base, suffix), cell);
        cell
    }

    /// False only if no appends whatsoever lead from the value of `from` to that of `to`.
    pub fn may_grow_into(&self, from: u32, to: u32) -> bool {
        if from == to {
            return true;
        }
        match (self.value(from), self.value(to)) {
            _ if self.garbage == Some(from) => false,
            (_, None) => false,
            (None, Some(to)) => to.is_text(),
            (Some(from), Some(to)) => to.as_json().starts_with(&*from.stem()),
        }
    }
}

/// What an operation does to the state, and demands of it.
pub(super) enum Effect {
    /// No state allows it.
    Never,
    /// Changes nothing; demands this cell (a get, a delete that found nothing).
    Read(u32),
    /// Changes nothing; demands all these cells (a scan).
    ReadMany(Box<[u32]>),
    /// Changes nothing; demands any other cell (a cas that was refused).
    Unlike(u32),
    /// Writes a cell; `if_present` demands that the key exists before (a delete that found it).
    Write { cell: u32, if_present: bool },
    /// Appends the value of this cell to the slot's value.
    Append(u32),
    /// Demands one cell and writes another (a cas that swapped).
    Swap { expected: u32, new: u32 },
    /// A transaction.
    Txn(Box<CompiledTxn>),
}

pub(super) struct CompiledTxn {
    pub conditions: Vec<u32>,
    /// Which branch was taken, if that is known.
    pub succeeded: Option<bool>,
    /// `then` and `otherwise`.
    pub branches: [Vec<Step>; 2],
}

/// One operation of a transaction.
pub(super) enum Step {
    /// Demands a cell.
    Expect(u32),
    /// Demands that the key of this slot is present (true) or absent (false).
    Presence { slot: u32, absent: u32, present: bool },
    /// Writes a cell.
    Write(u32),
}

/// One operation of a partition.
pub(super) struct CompiledOp {
    pub call: u64,
    /// [`OPEN`] if it may still take effect at any time.
    pub ret: u64,
    pub effect: Effect,
}

impl CompiledOp {
    /// True if the operation never changes the state.
    pub fn is_pure(&self) -> bool {
        match &self.effect {
            Effect::Never | Effect::Read(_) | Effect::ReadMany(_) | Effect::Unlike(_) => true,
            Effect::Write { .. } | Effect::Append(_) | Effect::Swap { .. } => false,
            Effect::Txn(txn) => match txn.succeeded {
                None => false,
                Some(taken) => {
                    !txn.branches[usize::from(!taken)].iter().any(|s| matches!(s, Step::Write(_)))
                }
            },
        }
    }

    /// The cells it may write, appends aside.
    pub fn writes(&self) -> Vec<u32> {
        match &self.effect {
            Effect::Write { cell, .. } => vec![*cell],
            Effect::Swap { new, .. } => vec![*new],
            Effect::Txn(txn) => {
                let steps = txn.branches.iter().flatten();
                steps.filter_map(|s| if let Step::Write(c) = s { Some(*c) } else { None }).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The cells that must be in the state when it takes effect; none if it may never do so.
    pub fn reads(&self) -> &[u32] {
        match &self.effect {
            _ if self.ret == OPEN => &[],
            Effect::Read(cell) | Effect::Swap { expected: cell, .. } => std::slice::from_ref(cell),
            Effect::ReadMany(cells) => cells,
            _ => &[],
        }
    }
}

/// Translates the operations of one partition. `open` says which of them are to be taken as
/// unknown whatever they were told.
pub(super) fn compile(
    history: &History,
    keys: &[Key],
    ops: &[usize],
    open: impl Fn(usize) -> bool,
) -> (Cells, Vec<CompiledOp>) {
    let slots: FxHashMap<&Key, u32> = keys.iter().zip(0..).collect();
    let mut compiler = Compiler { keys, slots, cells: Cells::default() };
    for slot in 0..keys.len() as u32 {
        // So that cell number `slot` is the absent one.
        compiler.cells.intern(slot, None);
    }
    let mut compiled = Vec::with_capacity(ops.len());
    for &source in ops {
        let op = &history.ops()[source];
        let answer = match &op.outcome {
            Outcome::Ok(answer) if !open(source) => Some(answer),
            _ => None,
        };
        let Some(effect) = compiler.effect(&op.action, answer) else { continue };
        let ret =
            if answer.is_some() { op.ret.expect("an answered operation has ended") } else { OPEN };
        assert!(op.call < ret, "an operation returned before it was called");
        compiled.push(CompiledOp { call: op.call, ret, effect });
    }
    (compiler.cells, compiled)
}

struct Compiler<'a> {
    keys: &'a [Key],
    slots: FxHashMap<&'a Key, u32>,
    cells: Cells,
}

impl Compiler<'_> {
    fn cell(&mut self, key: &Key, value: Option<&Value>) -> u32 {
        self.cells.intern(self.slots[key], value.cloned())
    }

    /// `None` for an operation that constrains nothing.
    fn effect(&mut self, action: &Action, answer: Option<&Answer>) -> Option<Effect> {
        Some(match (action, answer) {
            (Action::Cas { key, expected, new }, Some(Answer::Unsaid)) => {
                self.swap_or_not(key, expected.as_ref(), new)
            }
            (Action::Txn(txn), Some(Answer::Unsaid)) => self.txn(txn, None, None),
            (Action::Get { .. } | Action::Scan { .. }, None) => return None,
            (Action::Get { key }, Some(Answer::Value(value))) => {
                Effect::Read(self.cell(key, value.as_ref()))
            }
            (Action::Put { key, value }, None | Some(Answer::Done)) => {
                Effect::Write { cell: self.cell(key, Some(value)), if_present: false }
            }
            (Action::Append { key, value }, None | Some(Answer::Done)) => {
                Effect::Append(self.cell(key, Some(value)))
            }
            (Action::Cas { key, expected, new }, None | Some(Answer::Swapped(_))) => {
                let (expected, new) =
                    (self.cell(key, expected.as_ref()), self.cell(key, Some(new)));
                match answer {
                    Some(Answer::Swapped(false)) => Effect::Unlike(expected),
                    Some(_) if expected == new => Effect::Read(expected),
                    None if expected == new => return None,
                    _ => Effect::Swap { expected, new },
                }
            }
            (Action::Delete { key }, None | Some(Answer::Deleted(_))) => {
                let cell = self.cell(key, None);
                match answer {
                    Some(Answer::Deleted(Some(false))) => Effect::Read(cell),
                    Some(Answer::Deleted(Some(true))) => Effect::Write { cell, if_present: true },
                    _ => Effect::Write { cell, if_present: false },
                }
            }
            (Action::Scan { prefix }, Some(Answer::Pairs(pairs))) => self.scan(prefix, pairs),
            (Action::Txn(txn), None) => self.txn(txn, None, None),
            (Action::Txn(txn), Some(Answer::Txn { succeeded, results })) => {
                self.txn(txn, Some(*succeeded), results.as_deref())
            }
            // An answer of the wrong kind.
            _ => Effect::Never,
        })
    }

    /// A compare-and-swap that took effect without a known result: unlike one of unknown outcome it
    /// must have its place, even where it does nothing.
    fn swap_or_not(&mut self, key: &Key, expected: Option<&Value>, new: &Value) -> Effect {
        let (expected, new) = (self.cell(key, expected), self.cell(key, Some(new)));
        let branches = [vec![Step::Write(new)], Vec::new()];
        Effect::Txn(Box::new(CompiledTxn { conditions: vec![expected], succeeded: None, branches }))
    }

    fn scan(&mut self, prefix: &Key, pairs: &[(Key, Value)]) -> Effect {
        let ascending = pairs.is_sorted_by(|(a, _), (b, _)| a < b);
        if !ascending || pairs.iter().any(|(key, _)| !key.starts_with(&**prefix)) {
            return Effect::Never;
        }
        let mut found = pairs.iter().peekable();
        let keys = self.keys;
        let in_prefix = keys.iter().filter(|key| key.starts_with(&**prefix));
        let cells = in_prefix.map(|key| {
            let pair = found.next_if(|(name, _)| name == key);
            self.cell(key, pair.map(|(_, value)| value))
        });
        Effect::ReadMany(cells.collect())
    }

    fn txn(&mut self, txn: &Txn, succeeded: Option<bool>, results: Option<&[Answer]>) -> Effect {
        let conditions =
            txn.conditions.iter().map(|(key, value)| self.cell(key, value.as_ref())).collect();
        let mut branches = [Vec::new(), Vec::new()];
        for (which, ops) in [&txn.then, &txn.otherwise].into_iter().enumerate() {
            let taken = succeeded == Some(which == 0);
            let results = if taken { results } else { None };
            if results.is_some_and(|results| results.len() != ops.len()) {
                return Effect::Never;
            }
            for (nth, op) in ops.iter().enumerate() {
                match (op, results.map(|results| &results[nth])) {
                    (TxnOp::Get(_), None) => {}
                    (TxnOp::Get(key), Some(Answer::Value(value))) => {
                        branches[which].push(Step::Expect(self.cell(key, value.as_ref())));
                    }
                    (TxnOp::Put(key, value), None | Some(Answer::Done)) => {
                        branches[which].push(Step::Write(self.cell(key, Some(value))));
                    }
                    (TxnOp::Delete(key), None | Some(Answer::Deleted(_))) => {
                        let (slot, absent) = (self.slots[key], self.cell(key, None));
                        if let Some(Answer::Deleted(Some(present))) = results.map(|r| &r[nth]) {
                            branches[which].push(Step::Presence {
                                slot,
                                absent,
                                present: *present,
                            });
                        }
                        branches[which].push(Step::Write(absent));
                    }
                    _ => return Effect::Never,
                }
            }
        }
        Effect::Txn(Box::new(CompiledTxn { conditions, succeeded, branches }))
    }
}
