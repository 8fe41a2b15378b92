//! What the search computes once, before it starts: which operations can be left out, which are
//! interchangeable, which overwrites can lead to which reads, and the constants of the hash.

use rustc_hash::FxHashMap;

use super::super::compile::{Cells, CompiledOp, Effect, OPEN};
use super::list::END;

/// Which overwrites can lead to which reads, if only appends come between. By cell.
pub struct Sources {
    /// The cells that are read and can grow from this one.
    pub feeds: Vec<Vec<u32>>,
    /// Pending overwrites that this cell can grow from.
    pub left: Vec<u32>,
}

impl Sources {
    /// `None` if there are so many values that it would not pay.
    pub fn new(cells: &Cells, ops: &[CompiledOp], writes: &[Box<[u32]>]) -> Option<Sources> {
        const WORTHWHILE: usize = 4_000_000;
        let mut read: Vec<u32> = ops.iter().flat_map(CompiledOp::reads).copied().collect();
        // Cell 0 is the initial one: absent.
        let mut written: Vec<u32> = writes.iter().flatten().copied().chain([0]).collect();
        for list in [&mut read, &mut written] {
            list.sort_unstable();
            list.dedup();
        }
        if read.len() * written.len() > WORTHWHILE {
            return None;
        }
        let mut sources =
            Sources { feeds: vec![Vec::new(); cells.len()], left: vec![0; cells.len()] };
        for &from in &written {
            let fed = read.iter().copied().filter(|&to| cells.may_grow_into(from, to));
            sources.feeds[from as usize] = fed.collect();
        }
        for &from in writes.iter().flatten() {
            for &fed in &sources.feeds[from as usize] {
                sources.left[fed as usize] += 1;
            }
        }
        Some(sources)
    }
}

/// True if values are only written blindly and observed by being read.
pub fn is_plain(ops: &[CompiledOp]) -> bool {
    ops.iter().all(|op| {
        matches!(
            op.effect,
            Effect::Read(_) | Effect::ReadMany(_) | Effect::Write { if_present: false, .. }
        )
    })
}

/// Where values are only observed by being read, a write of unknown outcome whose value nobody
/// read may as well not have happened.
pub fn drop_unread_unknowns(ops: &mut Vec<CompiledOp>, cells: usize) {
    if !is_plain(ops) {
        return;
    }
    let mut read = vec![false; cells];
    ops.iter().flat_map(CompiledOp::reads).for_each(|&cell| read[cell as usize] = true);
    ops.retain(|op| match op.effect {
        Effect::Write { cell, .. } => op.ret != OPEN || read[cell as usize],
        _ => true,
    });
}

/// For each operation of unknown outcome, the nearest earlier one that is equal, or [`END`].
pub fn twins(ops: &[CompiledOp]) -> Vec<u32> {
    let mut last: FxHashMap<(u8, u32, u32), u32> = FxHashMap::default();
    let mut twins = vec![END; ops.len()];
    for (index, op) in ops.iter().enumerate().filter(|(_, op)| op.ret == OPEN) {
        let identity = match op.effect {
            Effect::Write { cell, .. } => (0, cell, 0),
            Effect::Append(cell) => (1, cell, 0),
            Effect::Swap { expected, new } => (2, expected, new),
            _ => continue,
        };
        if let Some(earlier) = last.insert(identity, index as u32) {
            twins[index] = earlier;
        }
    }
    twins
}

/// What placing an operation contributes to the hash of a configuration.
pub fn op_hash(op: usize) -> u128 {
    spread(2 * op as u64)
}

/// What a cell of the state contributes to the hash of a configuration.
pub fn cell_hash(cell: u32) -> u128 {
    spread(2 * u64::from(cell) + 1)
}

/// A fixed random-looking constant for each number.
fn spread(number: u64) -> u128 {
    // The lowest bit is left free for a flag.
    u128::from(mix(number)) << 64 | u128::from(mix(!number) & !1)
}

/// The finaliser of SplitMix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
