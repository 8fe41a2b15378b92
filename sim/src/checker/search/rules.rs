//! The rules that spare the search most of its choices; see the head of the parent module.

use super::super::compile::{Effect, OPEN};
use super::Search;
use super::list::END;

impl Search {
    /// Rule 5.
    pub(super) fn can_satisfy_next_get(&self) -> bool {
        let Some((goal, ret)) = self.goal() else { return true };
        if self.cells.may_grow_into(self.state[0], goal) {
            return true;
        }
        let mut op = self.overwrites.first();
        while op != END && self.ops[op as usize].call < ret {
            let mut writes = self.writes[op as usize].iter();
            if writes.any(|&cell| self.cells.may_grow_into(cell, goal)) {
                return true;
            }
            op = self.overwrites.after(op);
        }
        false
    }

    /// What the pending get that returns first saw, and when it returned.
    pub(super) fn goal(&self) -> Option<(u32, u64)> {
        let op = self.ops.get(self.gets.first() as usize)?;
        match op.effect {
            Effect::Read(cell) => Some((cell, op.ret)),
            _ => unreachable!("only gets are in this list"),
        }
    }

    /// Rules 2 and 4, and on keys with appends the order of trying: what leads to the value that
    /// the next get saw first, all else in a second pass.
    pub(super) fn worth_trying(&mut self, op: usize) -> bool {
        let twin = self.twin[op];
        if twin != END && !self.placed[twin as usize] {
            return false;
        }
        let open = self.ops[op].ret == OPEN;
        if let Effect::Write { cell, if_present: false } = self.ops[op].effect
            && self.state.len() == 1
            && (self.last_was_open || self.plain && open && self.reads_left[cell as usize] == 0)
        {
            return false;
        }
        if !self.growing {
            return true;
        }
        let result = match self.ops[op].effect {
            Effect::Append(suffix) => self.append(suffix),
            Effect::Write { cell, .. } => cell,
            _ => return self.second_pass,
        };
        if let Some(chain) = &self.chain {
            if self.is_useless(op) {
                return self.second_pass && op as u32 == self.waste;
            }
            let wanted = match self.writes[op].is_empty() {
                true => chain.pins[op].iter().all(|&cell| {
                    self.reads_left[cell as usize] == 0 || self.cells.may_grow_into(result, cell)
                }),
                false => self.waste == END,
            };
            if !wanted {
                return false;
            }
        }
        let leads = self.goal().is_none_or(|(goal, _)| self.cells.may_grow_into(result, goal));
        leads != self.second_pass
    }

    /// True if a pending read needs this cell, which is not the present one and cannot come back.
    pub(super) fn is_lost(&self, cell: u32) -> bool {
        let slot = self.cells.slot(cell);
        self.reads_left[cell as usize] > 0
            && self.state[slot] != cell
            && match self.has_appends[slot] {
                true => {
                    self.overwriters_left[slot] == 0
                        && !self.cells.may_grow_into(self.state[slot], cell)
                }
                false => self.writers_left[cell as usize] == 0,
            }
    }

    /// Rule 3 for a key with appends: true if a pending read needs a value that could only grow
    /// from the overwrite before the present one.
    pub(super) fn leaves_a_reader_behind(&self) -> bool {
        let Some(sources) = &self.sources else { return false };
        sources.feeds.get(self.origin as usize).is_some_and(|fed| {
            fed.iter().any(|&cell| {
                self.reads_left[cell as usize] > 0
                    && sources.left[cell as usize] == 0
                    && !self.cells.may_grow_into(self.state[0], cell)
            })
        })
    }
    /// Keeps track of where the value of a key with appends comes from, after it changed. True if
    /// a pending read can never be satisfied now.
    pub(super) fn follow_growth(&mut self, overwritten: bool) -> bool {
        let origin = if overwritten { self.state[0] } else { self.origin };
        let discarded = self.is_garbage(origin);
        let lost = (overwritten || discarded) && self.leaves_a_reader_behind();
        self.origin = origin;
        if discarded {
            self.discard();
        }
        lost
    }

    /// Rule 6: recognises garbage, and places the useless operations that may come next, or notes
    /// the first of them if the state is still needed.
    pub(super) fn dispose_of_useless(&mut self) {
        if self.is_garbage(self.origin) {
            self.discard();
        }
        let discarded = self.chain.as_ref().is_some_and(|chain| chain.garbage == self.state[0]);
        self.waste = END;
        let mut op = self.effect_calls.first();
        while op != END && self.ops[op as usize].call < self.limit() {
            self.steps += 1;
            if self.ops[op as usize].ret != OPEN && self.is_useless(op as usize) {
                if !discarded {
                    self.waste = op;
                    return;
                }
                let placed = self.place(op as usize, true);
                assert!(placed, "nothing is lost by adding to garbage");
            }
            op = self.effect_calls.after(op);
        }
    }

    /// True if no pending read can be satisfied by the present value or its growth.
    fn is_garbage(&self, origin: u32) -> bool {
        let (Some(_), Some(sources)) = (&self.chain, &self.sources) else { return false };
        sources.feeds.get(origin as usize).is_none_or(|fed| {
            !fed.iter().any(|&cell| {
                self.reads_left[cell as usize] > 0 && self.cells.may_grow_into(self.state[0], cell)
            })
        })
    }

    fn discard(&mut self) {
        let garbage = self.chain.as_ref().expect("only a chain has garbage").garbage;
        self.set(garbage);
        self.origin = garbage;
    }

    fn is_useless(&self, op: usize) -> bool {
        let (Some(chain), Some(sources)) = (&self.chain, &self.sources) else { return false };
        let wanted_by = match self.ops[op].effect {
            Effect::Write { cell, .. } => &sources.feeds[cell as usize],
            _ => &chain.pins[op],
        };
        wanted_by.iter().all(|&cell| self.reads_left[cell as usize] == 0)
    }
}
