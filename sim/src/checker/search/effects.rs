//! What operations do to the state of a search, and how that is undone.

use super::super::compile::{Effect, Step};
use super::Search;
use super::prepare::cell_hash;
use crate::history::Value;

impl Search {
    /// Whether a pure operation may take effect now.
    pub(super) fn admits(&self, op: usize) -> bool {
        let holds = |cell: u32| self.state[self.cells.slot(cell)] == cell;
        match &self.ops[op].effect {
            Effect::Read(cell) => holds(*cell),
            Effect::ReadMany(cells) => cells.iter().all(|&cell| holds(cell)),
            Effect::Unlike(cell) => !holds(*cell),
            Effect::Txn(txn) => {
                let taken = txn.conditions.iter().all(|&cell| holds(cell));
                let steps = &txn.branches[usize::from(!taken)];
                txn.succeeded == Some(taken)
                    && steps.iter().all(|step| match *step {
                        Step::Expect(cell) => holds(cell),
                        Step::Presence { slot, absent, present } => {
                            (self.state[slot as usize] != absent) == present
                        }
                        Step::Write(_) => unreachable!("a pure transaction writes nothing"),
                    })
            }
            _ => false,
        }
    }

    /// Performs the effect; false if the state does not allow it (it may then be half done).
    pub(super) fn execute(&mut self, op: usize) -> bool {
        match self.ops[op].effect {
            Effect::Write { cell, if_present } => {
                let slot = self.cells.slot(cell);
                let allowed = !if_present || self.state[slot] != slot as u32;
                allowed && self.set(cell)
            }
            Effect::Append(suffix) => {
                let cell = self.append(suffix);
                self.set(cell)
            }
            Effect::Swap { expected, new } => self.holds(expected) && self.set(new),
            Effect::Txn(_) => self.execute_txn(op),
            _ => unreachable!("pure operations are not executed"),
        }
    }

    pub(super) fn execute_txn(&mut self, op: usize) -> bool {
        let Effect::Txn(txn) = std::mem::replace(&mut self.ops[op].effect, Effect::Never) else {
            unreachable!("the caller saw a transaction")
        };
        let taken = txn.conditions.iter().all(|&cell| self.holds(cell));
        let allowed = txn.succeeded.is_none_or(|succeeded| succeeded == taken)
            && txn.branches[usize::from(!taken)].iter().all(|step| match *step {
                Step::Expect(cell) => self.holds(cell),
                Step::Presence { slot, absent, present } => {
                    (self.state[slot as usize] != absent) == present
                }
                Step::Write(cell) => self.set(cell),
            });
        self.ops[op].effect = Effect::Txn(txn);
        allowed
    }

    pub(super) fn holds(&self, cell: u32) -> bool {
        self.state[self.cells.slot(cell)] == cell
    }

    pub(super) fn set(&mut self, cell: u32) -> bool {
        let slot = self.cells.slot(cell);
        let old = std::mem::replace(&mut self.state[slot], cell);
        if old != cell {
            self.undo.push(old);
            self.hash ^= cell_hash(old) ^ cell_hash(cell);
        }
        true
    }

    pub(super) fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let old = self.undo.pop().expect("longer than the mark");
            let slot = self.cells.slot(old);
            let present = std::mem::replace(&mut self.state[slot], old);
            self.hash ^= cell_hash(old) ^ cell_hash(present);
        }
    }

    pub(super) fn append(&mut self, suffix: u32) -> u32 {
        let cell = self.cells.append(self.state[self.cells.slot(suffix)], suffix);
        self.reads_left.resize(self.cells.len(), 0);
        self.writers_left.resize(self.cells.len(), 0);
        cell
    }

    /// After `Legal`: the value of a slot at the end of the order that was found.
    pub(in super::super) fn final_value(&self, slot: usize) -> Option<Value> {
        let mut value = self.cells.value(self.state[slot]).clone();
        if self.chain.is_some() {
            // The search does not keep values that nobody reads, so they are worked out here.
            value = None;
            for frame in &self.stack {
                match self.ops[frame.op as usize].effect {
                    Effect::Write { cell, .. } => value = self.cells.value(cell).clone(),
                    Effect::Append(suffix) => {
                        let suffix = self.cells.value(suffix).as_ref();
                        value = suffix.map(|suffix| Value::append(value.as_ref(), suffix));
                    }
                    _ => {}
                }
            }
        }
        value
    }
}
