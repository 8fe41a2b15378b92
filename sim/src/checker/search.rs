//! The search for a legal order of the operations of one partition (Wing and Gong 1993, Lowe 2017).
//!
//! Depth first: among the operations that may come next (those called before the earliest return of
//! an operation not yet placed) choose one that the state allows, remove it from the lists, go on;
//! when nothing fits, take the last choice back. A configuration, that is the set of placed
//! operations and the state, is explored once: it is remembered by a 128-bit hash that is updated
//! with each step. (Two of a thousand million configurations collide with a probability of 1e-21.)
//!
//! What keeps it fast is that few steps are real choices. Each rule is safe because any legal order
//! with the fewest unknown operations can be rearranged to obey all of them:
//! 1. An operation that never changes the state is placed as soon as the state allows it.
//! 2. An operation of unknown outcome is placed only if it changes the state; of two equal ones the
//!    earlier goes first; and a blind overwrite of it makes it useless, so it is not tried (on
//!    partitions of one key).
//! 3. A state may be left only if no pending read still needs it, or something can bring it back.
//! 4. On a key with only gets, puts and deletes, a write whose value no pending read needs is
//!    placed at once: what follows it is a blind overwrite.
//! 5. On a key with appends, the value must be able to grow into what the next get to return saw,
//!    unless an overwrite can still come before it.
//! 6. On a key with only gets, puts, unchecked deletes and appends, where each value that was read
//!    can only have come about in one way: an append is tried only where all pending reads that
//!    contain it want it. An operation that no pending read needs is *useless*: it goes right
//!    before an overwrite, and a state that no pending read needs is *garbage*, all alike; while it
//!    lasts, useless operations are placed at once.

mod chain;
mod effects;
mod list;
mod prepare;
mod rules;

use rustc_hash::FxHashSet;

use self::chain::{Chain, Parsed};
use self::list::{END, List};
use self::prepare::{Sources, drop_unread_unknowns, is_plain, op_hash, twins};
use super::compile::{Cells, CompiledOp, Effect, OPEN};

/// How far a search got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is a legal order.
    Legal,
    /// There is none.
    Illegal,
    /// The budget is used up; call again.
    Undecided,
}

/// One placed operation.
struct Frame {
    op: u32,
    /// Placed by a rule: there is no alternative to come back to.
    forced: bool,
    second_pass: bool,
    last_was_open: bool,
    undo_mark: u32,
    origin: u32,
    waste: u32,
}

/// A search under way.
pub(super) struct Search {
    ops: Vec<CompiledOp>,
    /// What each operation may write, appends aside.
    writes: Vec<Box<[u32]>>,
    cells: Cells,
    /// The cell of each slot.
    state: Vec<u32>,
    hash: u128,
    undo: Vec<u32>,
    stack: Vec<Frame>,
    placed: Vec<bool>,
    /// The earlier equal operation of unknown outcome, or `END`.
    twin: Vec<u32>,
    pure_calls: List,
    effect_calls: List,
    returns: List,
    /// For rule 5: completed gets by return, and overwrites by call.
    gets: List,
    overwrites: List,
    /// Pending completed operations that demand a cell; pending operations that may write it.
    reads_left: Vec<u32>,
    writers_left: Vec<u32>,
    /// By slot: pending operations that overwrite it, and whether there are appends to it.
    overwriters_left: Vec<u32>,
    has_appends: Vec<bool>,
    /// On a key with appends: where its values can come from.
    sources: Option<Sources>,
    /// On a key with appends: the cell that the last overwrite left.
    origin: u32,
    /// Rule 6, where it applies, and the one useless operation that may come next, or `END`.
    chain: Option<Chain>,
    waste: u32,
    completed_left: usize,
    /// One key with only gets, puts and unchecked deletes.
    plain: bool,
    /// One key, with appends.
    growing: bool,
    last_was_open: bool,
    cursor: u32,
    second_pass: bool,
    arrived: bool,
    doomed: bool,
    seen: FxHashSet<u128>,
    steps: u64,
}

impl Search {
    pub fn new(slots: usize, mut cells: Cells, mut ops: Vec<CompiledOp>) -> Search {
        drop_unread_unknowns(&mut ops, cells.len());
        let size = ops.len();
        let writes: Vec<Box<[u32]>> = ops.iter().map(|op| op.writes().into()).collect();
        let has_appends = slots_with_appends(slots, &cells, &ops);
        let growing = slots == 1 && has_appends[0];
        let sources = if growing { Sources::new(&cells, &ops, &writes) } else { None };
        let parsed = match &sources {
            Some(_) => Chain::take_apart(&mut cells, &ops, &writes),
            None => Parsed::Ambiguous,
        };
        let by_ret = |wanted: &dyn Fn(&CompiledOp) -> bool| {
            let mut order: Vec<usize> =
                (0..size).filter(|&op| ops[op].ret != OPEN && wanted(&ops[op])).collect();
            order.sort_unstable_by_key(|&op| ops[op].ret);
            List::new(size, order.into_iter())
        };
        let returns = by_ret(&|_| true);
        let gets = by_ret(&|op| growing && matches!(op.effect, Effect::Read(_)));
        let by_call =
            |wanted: &dyn Fn(usize) -> bool| List::new(size, (0..size).filter(|&op| wanted(op)));
        let mut search = Search {
            state: (0..slots as u32).collect(),
            hash: 0,
            undo: Vec::new(),
            stack: Vec::new(),
            placed: vec![false; size],
            twin: twins(&ops),
            pure_calls: by_call(&|op| ops[op].is_pure()),
            effect_calls: by_call(&|op| !ops[op].is_pure()),
            returns,
            gets,
            overwrites: by_call(&|op| growing && !writes[op].is_empty()),
            reads_left: vec![0; cells.len()],
            writers_left: vec![0; cells.len()],
            overwriters_left: vec![0; slots],
            has_appends,
            sources,
            origin: 0,
            doomed: matches!(parsed, Parsed::Impossible),
            chain: if let Parsed::Unique(chain) = parsed { Some(chain) } else { None },
            waste: END,
            completed_left: ops.iter().filter(|op| op.ret != OPEN).count(),
            plain: slots == 1 && is_plain(&ops),
            growing,
            last_was_open: false,
            cursor: END,
            second_pass: false,
            arrived: true,
            seen: FxHashSet::default(),
            steps: 0,
            ops,
            writes,
            cells,
        };
        search.count();
        search
    }

    /// Counts readers and writers, and notices answers that nothing can explain.
    fn count(&mut self) {
        for (op, writes) in self.ops.iter().zip(&self.writes) {
            op.reads().iter().for_each(|&cell| self.reads_left[cell as usize] += 1);
            for &cell in writes {
                self.writers_left[cell as usize] += 1;
                self.overwriters_left[self.cells.slot(cell)] += 1;
            }
            self.doomed |= op.ret != OPEN && matches!(op.effect, Effect::Never);
        }
        // The first cells are the initial ones.
        self.doomed |= (self.state.len()..self.cells.len()).any(|cell| {
            let appends = self.has_appends[self.cells.slot(cell as u32)];
            self.reads_left[cell] > 0 && self.writers_left[cell] == 0 && !appends
        });
    }

    /// Goes on for about `budget` steps. `room` is how many more configurations may be remembered;
    /// without room the search stays right but may repeat itself.
    pub fn run(&mut self, budget: u64, room: &mut u64) -> Progress {
        if self.doomed {
            return Progress::Illegal;
        }
        let until = self.steps + budget;
        while self.steps < until {
            self.steps += 1;
            if self.arrived {
                self.arrived = false;
                let viable = self.settle(room);
                if self.completed_left == 0 {
                    return Progress::Legal;
                }
                if viable {
                    self.cursor = self.effect_calls.first();
                    self.second_pass = false;
                } else if !self.backtrack() {
                    return Progress::Illegal;
                }
            }
            let op = self.cursor;
            if op != END && self.ops[op as usize].call < self.limit() {
                self.cursor = self.effect_calls.after(op);
                self.arrived = self.worth_trying(op as usize) && self.place(op as usize, false);
            } else if self.growing && !self.second_pass {
                self.second_pass = true;
                self.cursor = self.effect_calls.first();
            } else if !self.backtrack() {
                return Progress::Illegal;
            }
        }
        Progress::Undecided
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The earliest return among the operations not yet placed: what is called later must wait.
    fn limit(&self) -> u64 {
        match self.returns.first() {
            END => OPEN,
            op => self.ops[op as usize].ret,
        }
    }

    /// Applies the rules that leave no choice; false if there is no way on from here.
    fn settle(&mut self, room: &mut u64) -> bool {
        let mut op = self.pure_calls.first();
        while op != END && self.ops[op as usize].call < self.limit() {
            self.steps += 1;
            if self.admits(op as usize) {
                let placed = self.place(op as usize, true);
                assert!(placed, "an operation without effect changes nothing");
            }
            op = self.pure_calls.after(op);
        }
        if self.plain && self.completed_left > 0 {
            if self.last_was_open {
                return false;
            }
            let mut op = self.effect_calls.first();
            while op != END && self.ops[op as usize].call < self.limit() {
                self.steps += 1;
                let Effect::Write { cell, .. } = self.ops[op as usize].effect else {
                    unreachable!("a plain partition has no other effects")
                };
                let unread = self.reads_left[cell as usize] == 0;
                if unread && self.ops[op as usize].ret != OPEN && !self.place(op as usize, true) {
                    return false;
                }
                op = self.effect_calls.after(op);
            }
        }
        if self.completed_left > 0 && self.chain.is_some() {
            self.dispose_of_useless();
        }
        if self.completed_left == 0 {
            return true;
        }
        if self.growing && !self.can_satisfy_next_get() {
            return false;
        }
        // What may follow depends on the last operation too (rule 2), so it is part of the key.
        let key = self.hash ^ u128::from(self.last_was_open);
        if *room == 0 {
            return !self.seen.contains(&key);
        }
        let new = self.seen.insert(key);
        *room -= u64::from(new);
        new
    }

    /// Places an operation next, if the state allows it and rules 2 and 3 do not exclude it.
    fn place(&mut self, op: usize, forced: bool) -> bool {
        let undo_mark = self.undo.len();
        let open = self.ops[op].ret == OPEN;
        if !self.ops[op].is_pure() && (!self.execute(op) || open && self.undo.len() == undo_mark) {
            self.roll_back(undo_mark);
            return false;
        }
        self.stack.push(Frame {
            op: op as u32,
            forced,
            second_pass: self.second_pass,
            last_was_open: self.last_was_open,
            undo_mark: undo_mark as u32,
            origin: self.origin,
            waste: self.waste,
        });
        self.last_was_open = open;
        self.account(op, true);
        let mut lost = self.undo[undo_mark..].iter().any(|&old| self.is_lost(old));
        if self.growing && self.undo.len() > undo_mark {
            lost |= self.follow_growth(!self.writes[op].is_empty());
        }
        if lost {
            self.take_back();
        }
        !lost
    }

    /// Takes back choices until one has alternatives; false if there are none left.
    fn backtrack(&mut self) -> bool {
        while !self.stack.is_empty() {
            let frame = self.take_back();
            if !frame.forced {
                self.second_pass = frame.second_pass;
                self.waste = frame.waste;
                self.cursor = self.effect_calls.after(frame.op);
                return true;
            }
        }
        false
    }

    fn take_back(&mut self) -> Frame {
        let frame = self.stack.pop().expect("something was placed");
        self.account(frame.op as usize, false);
        self.roll_back(frame.undo_mark as usize);
        self.last_was_open = frame.last_was_open;
        self.origin = frame.origin;
        frame
    }

    /// Updates lists, counters and hash when an operation is placed or taken back.
    fn account(&mut self, op: usize, placing: bool) {
        let Search { ops, pure_calls, effect_calls, returns, gets, overwrites, .. } = self;
        for list in [pure_calls, effect_calls, returns, gets, overwrites] {
            if placing { list.lift(op) } else { list.unlift(op) }
        }
        let change = if placing { u32::MAX } else { 1 };
        let adjust = |count: &mut u32| *count = count.wrapping_add(change);
        for &cell in ops[op].reads() {
            adjust(&mut self.reads_left[cell as usize]);
        }
        for &cell in &self.writes[op] {
            adjust(&mut self.writers_left[cell as usize]);
            adjust(&mut self.overwriters_left[self.cells.slot(cell)]);
            if let Some(sources) = &mut self.sources {
                for &fed in &sources.feeds[cell as usize] {
                    adjust(&mut sources.left[fed as usize]);
                }
            }
        }
        if ops[op].ret != OPEN {
            self.completed_left =
                self.completed_left.wrapping_add_signed(if placing { -1 } else { 1 });
        }
        self.placed[op] = placing;
        self.hash ^= op_hash(op);
    }
}

fn slots_with_appends(slots: usize, cells: &Cells, ops: &[CompiledOp]) -> Vec<bool> {
    let mut found = vec![false; slots];
    for op in ops {
        if let Effect::Append(cell) = op.effect {
            found[cells.slot(cell)] = true;
        }
    }
    found
}
