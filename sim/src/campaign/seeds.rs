//! Which seeds a campaign runs: a range, or a list read from a file, or one shard of either.
//!
//! The text forms are those of the command line and of `STORM_SEEDS`: `N` means `0..N`, and `A..B`
//! leaves B out, as Rust's ranges do. Every refusal is one line that names what was wrong and what
//! is accepted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most seeds one campaign takes. Far beyond what one machine finishes, and it keeps a slip of
/// the finger from starting a campaign that never ends.
pub const MAX_SEEDS: u64 = 1_000_000_000;

/// A non-empty sequence of seeds, or one shard of it (which may be empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    source: Source,
    /// Keep the positions `first`, `first + step`, ...
    first: u64,
    step: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Range { start: u64, end: u64 },
    List(Vec<u64>),
}

impl Seeds {
    /// The seeds of `start..end`. Errors if there are none, or more than [`MAX_SEEDS`].
    pub fn range(start: u64, end: u64) -> Result<Seeds, String> {
        if start >= end {
            return Err(format!("{start}..{end} holds no seeds: write A..B with A below B"));
        }
        if end - start > MAX_SEEDS {
            return Err(format!(
                "{start}..{end} holds {} seeds, a campaign takes at most {MAX_SEEDS}: \
                 split the range",
                end - start
            ));
        }
        Ok(Seeds { source: Source::Range { start, end }, first: 0, step: 1 })
    }

    /// Exactly one seed.
    pub fn one(seed: u64) -> Seeds {
        Seeds { source: Source::List(vec![seed]), first: 0, step: 1 }
    }

    /// Reads `N` or `A..B`. Errors with one line that says what is accepted.
    pub fn parse(text: &str) -> Result<Seeds, String> {
        let Some((start, end)) = text.split_once("..") else {
            let count = number(text)
                .ok_or_else(|| format!("`{text}` is not a number of seeds: {ACCEPTED}"))?;
            if count == 0 {
                return Err("0 seeds would test nothing: ask for at least 1".to_string());
            }
            return Seeds::range(0, count);
        };
        match (number(start), number(end)) {
            (Some(start), Some(end)) => Seeds::range(start, end),
            _ => Err(format!("`{text}` is not a range of seeds: {ACCEPTED}")),
        }
    }

    /// Reads a seed file: one seed a line; blank lines and what follows `#` are skipped. `name`
    /// is put in front of errors, as `NAME:LINE: message`.
    pub fn parse_file(name: &str, text: &str) -> Result<Seeds, String> {
        let mut list = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let seed = number(content).ok_or_else(|| {
                format!(
                    "{name}:{}: `{}` is not a seed; write one number from 0 to {} a line",
                    index + 1,
                    content.escape_debug(),
                    u64::MAX
                )
            })?;
            list.push(seed);
        }
        if list.is_empty() {
            return Err(format!("{name}:1: the file holds no seeds; write one a line"));
        }
        Ok(Seeds { source: Source::List(list), first: 0, step: 1 })
    }

    /// Every n-th seed, beginning with the k-th. The shards of one campaign are disjoint and
    /// together cover it; dealing the seeds out in turn keeps the shards of equal cost.
    pub fn shard(self, shard: Shard) -> Seeds {
        assert!(self.step == 1 && self.first == 0, "a shard of a shard");
        Seeds { source: self.source, first: shard.k - 1, step: shard.n }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.source_len().saturating_sub(self.first).div_ceil(self.step)
    }

    /// Whether there are none: a shard of fewer seeds than shards.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The seed at a position below [`len`](Seeds::len). Panics beyond.
    pub fn get(&self, position: u64) -> u64 {
        assert!(position < self.len(), "seed {position} of {}", self.len());
        let index = self.first + position * self.step;
        match &self.source {
            Source::Range { start, .. } => start + index,
            Source::List(list) => list[index as usize],
        }
    }

    /// Which part of the whole this is; 1/1 if it is not split.
    pub fn part(&self) -> Shard {
        Shard { k: self.first + 1, n: self.step }
    }

    /// Of what this is a part.
    pub fn whole(&self) -> Whole {
        match &self.source {
            Source::Range { start, end } => Whole::Range { start: *start, end: *end },
            Source::List(list) => {
                let digest = list.iter().fold(0, |hash, seed| crate::rng::fold_hash(hash, *seed));
                Whole::List { count: list.len() as u64, digest: format!("{digest:016x}") }
            }
        }
    }

    fn source_len(&self) -> u64 {
        match &self.source {
            Source::Range { start, end } => end - start,
            Source::List(list) => list.len() as u64,
        }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Range { start, end } => write!(f, "{start}..{end}")?,
            Source::List(list) if list.len() == 1 => write!(f, "{}", list[0])?,
            Source::List(_) => write!(f, "from a file")?,
        }
        if self.step > 1 {
            write!(f, ", shard {}/{}", self.first + 1, self.step)?;
        }
        Ok(())
    }
}

/// All seeds of a campaign, shards or not, in a form that fits into the first line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Whole {
    /// `start..end`.
    Range {
        /// The first seed.
        start: u64,
        /// The first that is left out.
        end: u64,
    },
    /// The seeds of a file.
    List {
        /// How many.
        count: u64,
        /// A hash over them, in their order.
        digest: String,
    },
}

impl Whole {
    /// How many seeds there are.
    pub fn len(&self) -> u64 {
        match self {
            Whole::Range { start, end } => end.saturating_sub(*start),
            Whole::List { count, .. } => *count,
        }
    }

    /// Whether there are none, which no campaign has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whole::Range { start, end } => write!(f, "{start}..{end}"),
            Whole::List { count, digest } => write!(f, "a file of {count} seeds ({digest})"),
        }
    }
}

const ACCEPTED: &str = "write N (for 0..N) or A..B (B left out)";

/// One part of a campaign that is split over machines: the k-th of n, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    k: u64,
    n: u64,
}

impl Shard {
    /// The k-th of n. `None` unless 1 <= k <= n.
    pub fn new(k: u64, n: u64) -> Option<Shard> {
        (1..=n).contains(&k).then_some(Shard { k, n })
    }

    /// Which it is, from 1.
    pub fn k(self) -> u64 {
        self.k
    }

    /// Of how many.
    pub fn n(self) -> u64 {
        self.n
    }

    /// Reads `K/N` with 1 <= K <= N. Errors with one line that says so.
    pub fn parse(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(k, n)| Some((number(k)?, number(n)?)));
        parts
            .and_then(|(k, n)| Shard::new(k, n))
            .ok_or_else(|| format!("`{text}` is not a shard: write K/N with K from 1 to N"))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.k, self.n)
    }
}

/// Decimal digits only: `u64::from_str` would also take a leading `+`.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seeds: &Seeds) -> Vec<u64> {
        (0..seeds.len()).map(|position| seeds.get(position)).collect()
    }

    #[test]
    fn a_count_means_from_zero_and_a_range_leaves_its_end_out() {
        assert_eq!(all(&Seeds::parse("3").unwrap()), [0, 1, 2]);
        assert_eq!(all(&Seeds::parse("7..10").unwrap()), [7, 8, 9]);
        let top = Seeds::parse("18446744073709551614..18446744073709551615").unwrap();
        assert_eq!(all(&top), [u64::MAX - 1]);
    }

    #[test]
    fn bad_ranges_are_refused_in_one_line() {
        for (text, expected) in [
            ("5..2", "5..2 holds no seeds: write A..B with A below B"),
            ("4..4", "4..4 holds no seeds: write A..B with A below B"),
            ("0", "0 seeds would test nothing: ask for at least 1"),
            (
                "0..1000000001",
                "0..1000000001 holds 1000000001 seeds, a campaign takes at most 1000000000: \
                 split the range",
            ),
        ] {
            assert_eq!(Seeds::parse(text).unwrap_err(), expected);
        }
        for text in ["abc", "", "-1", "+1", "1 2", "99999999999999999999", "1e3"] {
            let expected = format!("`{text}` is not a number of seeds: {ACCEPTED}");
            assert_eq!(Seeds::parse(text).unwrap_err(), expected);
        }
        for text in ["1..=3", "..", "1..", "..4", "a..b", "1...3", "0..99999999999999999999"] {
            let expected = format!("`{text}` is not a range of seeds: {ACCEPTED}");
            assert_eq!(Seeds::parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_seed_file_keeps_order_and_skips_comments() {
        let text = "# found last week\n9\r\n\n  4 # lost entry\n18446744073709551615\n";
        assert_eq!(all(&Seeds::parse_file("seeds", text).unwrap()), [9, 4, u64::MAX]);
    }

    #[test]
    fn a_bad_line_of_a_seed_file_is_named() {
        let error = Seeds::parse_file("bad.txt", "1\n# two\n3 4\n").unwrap_err();
        assert!(error.starts_with("bad.txt:3: `3 4` is not a seed; "), "{error}");
        let error = Seeds::parse_file("bad.txt", "\u{1b}[2J").unwrap_err();
        assert!(error.contains("\\u{1b}"), "control characters must not reach a terminal: {error}");
        let error = Seeds::parse_file("empty.txt", "# nothing yet\n").unwrap_err();
        assert!(error.starts_with("empty.txt:1: the file holds no seeds"), "{error}");
    }

    #[test]
    fn shards_are_disjoint_and_cover_everything() {
        let whole = Seeds::parse("10..21").unwrap();
        let mut seen = Vec::new();
        for k in 1..=4 {
            let part = whole.clone().shard(Shard::parse(&format!("{k}/4")).unwrap());
            assert!((2..=3).contains(&part.len()));
            seen.extend(all(&part));
        }
        seen.sort_unstable();
        assert_eq!(seen, all(&whole));
        assert!(Seeds::one(5).shard(Shard::parse("2/2").unwrap()).is_empty());
    }

    #[test]
    fn bad_shards_are_refused() {
        for text in ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "/", ""] {
            let error = Shard::parse(text).unwrap_err();
            assert_eq!(error, format!("`{text}` is not a shard: write K/N with K from 1 to N"));
        }
    }
}
