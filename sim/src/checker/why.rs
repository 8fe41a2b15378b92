//! Why a history has no legal order: for a person a sentence, for a page the operations in it.

use std::fmt;

/// A contradiction, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One sentence, which names at most four operations.
    pub sentence: String,
    /// These operations, as indices into the history, in the order of their calls.
    pub ops: Vec<usize>,
}

impl Why {
    pub(super) fn new(sentence: String, ops: impl IntoIterator<Item = usize>) -> Why {
        let mut ops: Vec<usize> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        Why { sentence, ops }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}
