//! Removes as many elements of a list as possible: ddmin (Zeller and Hildebrandt, IEEE TSE 2002),
//! by complements only, which is what makes progress in practice.

/// Makes a candidate: the positions that it keeps.
pub type Candidates<'a> = &'a dyn Fn(usize) -> Vec<usize>;

/// Finds the first of so many candidates that still serves.
pub type First<'a> = &'a mut dyn FnMut(usize, Candidates<'_>) -> Option<usize>;

/// What is left of `count` elements, as their positions in order: no single one of them can be
/// removed any more.
///
/// The list as a whole must serve.
pub fn ddmin(count: usize, first: First<'_>) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    if kept.is_empty() || first(1, &|_| Vec::new()).is_some() {
        return Vec::new();
    }
    let mut size = kept.len().div_ceil(2);
    // Those behind the last one that was removed come first: those before it were just tried.
    let mut start = 0;
    while !kept.is_empty() {
        let chunks = kept.len().div_ceil(size);
        let chunk = |at: usize| {
            let begin = (start + at) % chunks * size;
            begin..(begin + size).min(kept.len())
        };
        let without = |at| {
            let gone = chunk(at);
            [&kept[..gone.start], &kept[gone.end..]].concat()
        };
        match first(chunks, &without) {
            Some(at) => {
                let next = without(at);
                start = chunk(at).start / size;
                kept = next;
                size = size.min(kept.len().div_ceil(2)).max(1);
            }
            None if size == 1 => break,
            None => {
                start = 0;
                size = size.div_ceil(2);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Shrinks against `fails`; returns what is left and how often it was asked.
    fn shrink(count: usize, fails: &dyn Fn(&BTreeSet<usize>) -> bool) -> (BTreeSet<usize>, usize) {
        let mut asked = 0;
        let mut first = |count: usize, make: Candidates<'_>| {
            (0..count).find(|at| {
                asked += 1;
                fails(&make(*at).into_iter().collect())
            })
        };
        let kept = ddmin(count, &mut first).into_iter().collect();
        (kept, asked)
    }

    #[test]
    fn few_that_matter_are_found_with_few_questions() {
        let needed = BTreeSet::from([17, 400, 401, 999]);
        let (kept, asked) = shrink(1000, &|kept| needed.is_subset(kept));
        assert_eq!(kept, needed);
        assert!(asked < 150, "{asked}");
        assert_eq!(shrink(50, &|_| true).0, BTreeSet::new());
        assert_eq!(shrink(0, &|_| true).1, 0);
    }

    proptest! {
        #[test]
        fn what_is_left_fails_and_no_single_element_can_be_removed(
            count in 1_usize..60,
            seed: u64,
            share in 0_u64..100,
        ) {
            // Fails at random, so not monotone: the hardest case. The whole list fails.
            let fails = |kept: &BTreeSet<usize>| {
                let hash = kept.iter().fold(seed, |hash, at| {
                    (hash ^ *at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
                });
                kept.len() == count || hash % 100 < share
            };
            let (kept, _) = shrink(count, &fails);
            prop_assert!(fails(&kept));
            for at in &kept {
                let mut less = kept.clone();
                less.remove(at);
                prop_assert!(!fails(&less), "{at} is not needed in {kept:?}");
            }
        }
    }
}
