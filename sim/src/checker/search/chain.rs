//! Takes apart the values that were read on a key with puts and appends: which put, followed by
//! which appends, must have produced each?
//!
//! If every appended text is used once, as in most tests, the answer is often unique. An append is
//! then *pinned* by every value that contains it: there is only one place for it.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::super::compile::{Cells, CompiledOp, Effect};
use crate::history::Value;

/// How all values that were read came about.
pub struct Chain {
    /// Stands for every state that no pending read needs.
    pub garbage: u32,
    /// For each operation, the cells that were read and contain what it appended.
    pub pins: Vec<Vec<u32>>,
}

/// What taking the values apart showed.
pub enum Parsed {
    /// Each value can only have come about in one way.
    Unique(Chain),
    /// Some value cannot have come about.
    Impossible,
    /// Neither: the search has to find out.
    Ambiguous,
}

/// The appended texts, without quotes, and who appended them.
struct Tokens<'a> {
    ops: FxHashMap<&'a str, usize>,
    lengths: Vec<usize>,
}

impl Chain {
    /// For the operations of a partition with one key. `writes` are the cells that each may write.
    pub fn take_apart(cells: &mut Cells, ops: &[CompiledOp], writes: &[Box<[u32]>]) -> Parsed {
        // Without overwrites the next get alone tells what must come next.
        let Some(mut written) = overwrites(ops, writes) else { return Parsed::Ambiguous };
        written.push(0);
        written.sort_unstable();
        written.dedup();
        let Some(tokens) = Tokens::new(cells, ops) else { return Parsed::Ambiguous };
        let mut read: Vec<u32> = ops.iter().flat_map(CompiledOp::reads).copied().collect();
        read.sort_unstable();
        read.dedup();
        let is_other = |&cell: &u32| cells.value(cell).as_ref().is_some_and(|v| !v.is_text());
        if read.iter().chain(&written).any(is_other) {
            return Parsed::Ambiguous;
        }
        let mut pins = vec![Vec::new(); ops.len()];
        for &cell in &read {
            let Some(value) = cells.value(cell) else { continue };
            let origins = written.iter().filter(|&&from| cells.may_grow_into(from, cell));
            let starts = origins.map(|&from| match cells.value(from) {
                None => 1,
                Some(from) => from.stem().len(),
            });
            match tokens.parse(value, starts) {
                Ok(path) => path.into_iter().for_each(|op| pins[op].push(cell)),
                Err(failure) => return failure,
            }
        }
        drop(tokens);
        Parsed::Unique(Chain { garbage: cells.intern_garbage(), pins })
    }
}

/// The cells written, if there are only gets, puts, unchecked deletes and appends, and not only
/// gets and appends.
fn overwrites(ops: &[CompiledOp], writes: &[Box<[u32]>]) -> Option<Vec<u32>> {
    let simple = ops.iter().all(|op| {
        matches!(
            op.effect,
            Effect::Read(_) | Effect::Append(_) | Effect::Write { if_present: false, .. }
        )
    });
    let written: Vec<u32> = writes.iter().flatten().copied().collect();
    (simple && !written.is_empty()).then_some(written)
}

impl<'a> Tokens<'a> {
    /// `None` if two appends are alike or one appends nothing.
    fn new(cells: &'a Cells, ops: &[CompiledOp]) -> Option<Tokens<'a>> {
        let mut tokens = Tokens { ops: FxHashMap::default(), lengths: Vec::new() };
        for (index, op) in ops.iter().enumerate() {
            let Effect::Append(suffix) = op.effect else { continue };
            let json = cells.value(suffix).as_ref()?.as_json();
            let text = &json[1..json.len() - 1];
            tokens.lengths.push(text.len());
            if text.is_empty() || tokens.ops.insert(text, index).is_some() {
                return None;
            }
        }
        tokens.lengths.sort_unstable();
        tokens.lengths.dedup();
        Some(tokens)
    }

    /// The only sequence of appends that leads from one of the `starts`, which are positions in the
    /// JSON text of the value, to its end.
    fn parse(
        &self,
        value: &Value,
        starts: impl Iterator<Item = usize>,
    ) -> Result<Vec<usize>, Parsed> {
        let json = value.as_json();
        let end = json.len() - 1;
        // By position: in how many ways it is reached (at most 2 matters), and by which last step.
        let mut reached: BTreeMap<usize, (u8, Option<(usize, usize)>)> = BTreeMap::new();
        for start in starts {
            reached.entry(start).or_default().0 += 1;
        }
        let mut next = reached.first_key_value().map(|(&position, _)| position);
        while let Some(position) = next {
            let ways = reached[&position].0.min(2);
            for &length in &self.lengths {
                let after = position + length;
                let text = if after <= end { json.get(position..after) } else { None };
                if let Some(&op) = text.and_then(|text| self.ops.get(text)) {
                    let entry = reached.entry(after).or_default();
                    *entry = ((entry.0 + ways).min(2), Some((position, op)));
                }
            }
            next = reached.range(position + 1..).next().map(|(&position, _)| position);
        }
        match reached.get(&end) {
            None => return Err(Parsed::Impossible),
            Some((1, _)) => {}
            Some(_) => return Err(Parsed::Ambiguous),
        }
        let (mut path, mut position) = (Vec::new(), end);
        while let (_, Some((previous, op))) = reached[&position] {
            path.push(op);
            position = previous;
        }
        Ok(path)
    }
}
