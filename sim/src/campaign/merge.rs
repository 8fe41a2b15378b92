//! Adds up the files of many shards: the totals of one run over the same seeds.
//!
//! Rows are folded in the order of the campaign, whichever file they are in, so that the trace hash
//! and the order of failures are those of a single run. All files are read side by side, one row
//! each in memory. A row that is in several files counts once if all say the same. If they do not,
//! one seed had two outcomes, and that is a finding, not something to average.
//!
//! A missing row would let a failure that nobody ran pass for clean. It is refused, unless the
//! caller asks for a part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::file::{Row, damaged, difference, read_row, unreadable};
use super::lines::Lines;
use super::{BEYOND_QUORUM, BUG, FileError, Manifest, Totals, Whole};

/// What came of merging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// As if one run had run all seeds.
    pub totals: Totals,
    /// Which seeds, and in how many files.
    pub label: String,
    /// What is missing, in one sentence; only with `partial`.
    pub missing: Option<String>,
}

/// Adds up all rows in these directories, or files. With `partial`, missing seeds are told of and
/// not refused.
///
/// # Errors
/// When a file cannot be read, is damaged, was written by another build or with other settings than
/// the first; when rows of one seed differ; when seeds are missing.
pub fn merge(paths: &[PathBuf], partial: bool) -> Result<Merged, FileError> {
    let mut sources = Vec::new();
    for path in files(paths)? {
        sources.push(Source::open(path)?);
    }
    demand_comparable(&sources)?;
    let first = sources.first().ok_or_else(|| FileError::Refused("there is no file".to_owned()))?;
    let mut totals = Totals {
        canary: first.manifest.canary()?,
        beyond_quorum: first.manifest.settings().contains_key(BEYOND_QUORUM),
        bug: first.manifest.settings().get(BUG).cloned(),
        ..Totals::default()
    };
    let wholes: BTreeSet<Whole> = sources.iter().map(|s| s.manifest.whole().clone()).collect();

    let mut expected = Expected::new(&wholes);
    fold_in_order(&mut sources, |key, row| {
        expected.came(key);
        totals.fold(row.seed, row.outcome);
        totals.read_back += 1;
    })?;

    let short = sources.iter().find_map(Source::shortage);
    let missing = expected.missing().map(|missing| match short {
        Some(short) => format!("{missing}; {short}"),
        None => missing,
    });
    if let (Some(missing), false) = (&missing, partial) {
        return Err(FileError::Refused(format!(
            "{missing}; finish the shards, name all their directories, or add up what is there with \
             --partial"
        )));
    }
    let plural = if sources.len() == 1 { "" } else { "s" };
    let mut label = format!("{} file{plural}", sources.len());
    if let (1, Some(whole)) = (wholes.len(), wholes.first()) {
        label = format!("{whole}, {label}");
    }
    Ok(Merged { totals, label, missing })
}

/// The files of these directories, in a fixed order.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_file() {
            files.push(path.clone());
            continue;
        }
        let cannot = |error: std::io::Error| {
            let name = path.display();
            FileError::Refused(format!("{name}: {error}; name a directory that `run --out` wrote"))
        };
        let before = files.len();
        for entry in fs::read_dir(path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?.path();
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("seeds-") && name.ends_with(".jsonl") {
                files.push(entry);
            }
        }
        if files.len() == before {
            return Err(FileError::Refused(format!(
                "{} holds no seeds-K-of-N.jsonl; name a directory that `run --out` wrote",
                path.display()
            )));
        }
        files[before..].sort();
    }
    Ok(files)
}

/// One file, of which the manifest is read.
struct Source {
    path: PathBuf,
    lines: Lines,
    manifest: Manifest,
}

impl Source {
    /// Opens a file and reads its manifest.
    fn open(path: PathBuf) -> Result<Source, FileError> {
        let again = path.clone();
        let mut lines = Lines::new(Box::new(move || File::open(&again)));
        let first = read_line(&path, &mut lines)?;
        let Some(first) = first else {
            let name = path.display();
            let text = format!("{name} is empty: its run was stopped at once; start it again");
            return Err(FileError::Refused(text));
        };
        let manifest = Manifest::read(&path, &first)?;
        manifest.demand_build(&path, "merge only what this one wrote")?;
        Ok(Source { path, lines, manifest })
    }

    /// Says how short it is, once it is read.
    fn shortage(&self) -> Option<String> {
        let (rows, due) = (self.lines.number() - 1, self.manifest.due());
        let (name, part) = (self.path.display(), self.manifest.part());
        (rows < due).then(|| format!("{name} has {rows} of the {due} rows of shard {part}"))
    }

    /// The next row, and where it belongs.
    fn next(&mut self) -> Result<Option<(u64, Row)>, FileError> {
        let Some(line) = read_line(&self.path, &mut self.lines)? else { return Ok(None) };
        let number = self.lines.number();
        let row = read_row(&self.path, number, &line)?;
        let position = self.manifest.position(number - 2);
        let key = match self.manifest.whole() {
            Whole::List { count, .. } if position < *count => position,
            Whole::Range { start, end }
                if position < end - start && start + position == row.seed =>
            {
                row.seed
            }
            _ => {
                let what = format!("seed {} does not belong there", row.seed);
                return Err(damaged(&self.path, number, &what));
            }
        };
        Ok(Some((key, row)))
    }
}

fn read_line(path: &Path, lines: &mut Lines) -> Result<Option<Vec<u8>>, FileError> {
    match lines.next() {
        Ok(line) => Ok(line.map(<[u8]>::to_vec)),
        Err(error) => Err(unreadable(path, lines, &error)),
    }
}

/// Refuses what cannot be added up.
fn demand_comparable(sources: &[Source]) -> Result<(), FileError> {
    let Some(first) = sources.first() else { return Ok(()) };
    for source in &sources[1..] {
        let (name, other) = (source.path.display(), first.path.display());
        let (here, there) = (source.manifest.settings(), first.manifest.settings());
        if let Some(difference) = difference(here, there) {
            return Err(FileError::Refused(format!(
                "{name} was run {difference}, as {other} was; merge them separately"
            )));
        }
        let (here, there) = (source.manifest.whole(), first.manifest.whole());
        let ranges = matches!((here, there), (Whole::Range { .. }, Whole::Range { .. }));
        if !ranges && here != there {
            return Err(FileError::Refused(format!(
                "{name} belongs to {here}, {other} to {there}: only shards of the same seed file \
                 have an order in common; merge them separately"
            )));
        }
    }
    Ok(())
}

/// Hands over every row once, in the order of the keys.
fn fold_in_order(sources: &mut [Source], mut fold: impl FnMut(u64, Row)) -> Result<(), FileError> {
    // The next row of each source, by its key and the number of the source.
    let mut heads = BTreeMap::new();
    for (at, source) in sources.iter_mut().enumerate() {
        heads.extend(source.next()?.map(|(key, row)| ((key, at), row)));
    }
    while let Some(((key, at), row)) = heads.pop_first() {
        heads.extend(sources[at].next()?.map(|(key, row)| ((key, at), row)));
        while let Some(entry) = heads.first_entry()
            && entry.key().0 == key
        {
            let ((_, other), twin) = entry.remove_entry();
            if twin != row {
                return Err(contradiction(&row, &twin, &sources[at], &sources[other]));
            }
            heads.extend(sources[other].next()?.map(|(key, row)| ((key, other), row)));
        }
        fold(key, row);
    }
    Ok(())
}

fn contradiction(row: &Row, twin: &Row, source: &Source, other: &Source) -> FileError {
    let seed = row.seed;
    FileError::Contradiction(format!(
        "seed {seed} has two outcomes, trace hash {:016x} in {} and {:016x} in {}, from one build: a \
         run is not determined by its seed; see where with `cargo sim run --seeds {seed}..{} \
         --check-determinism`",
        row.outcome.trace_hash,
        source.path.display(),
        twin.outcome.trace_hash,
        other.path.display(),
        seed.saturating_add(1)
    ))
}

/// Which keys are due, and which of them did not come.
struct Expected {
    /// Disjoint ranges of keys, in order.
    due: Vec<(u64, u64)>,
    /// The first missing key, and how many are missing.
    first: Option<u64>,
    count: u64,
    total: u64,
    /// The key that is due next, in the range with this number.
    next: (usize, u64),
    list: bool,
}

impl Expected {
    fn new(wholes: &BTreeSet<Whole>) -> Expected {
        let mut due: Vec<(u64, u64)> = Vec::new();
        // In the order of their starts, so that those that touch become one.
        for whole in wholes {
            let (start, end) = match whole {
                Whole::Range { start, end } => (*start, *end),
                Whole::List { count, .. } => (0, *count),
            };
            match due.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => due.push((start, end)),
            }
        }
        let total = due.iter().map(|(start, end)| end - start).sum();
        let next = (0, due.first().map_or(0, |range| range.0));
        let list = wholes.iter().any(|whole| matches!(whole, Whole::List { .. }));
        Expected { due, first: None, count: 0, total, next, list }
    }

    /// This key came: those that were due before it did not.
    fn came(&mut self, key: u64) {
        self.skip_to(key);
        self.next.1 = key.saturating_add(1);
    }

    fn skip_to(&mut self, key: u64) {
        while let Some((_, end)) = self.due.get(self.next.0).copied() {
            let (at, until) = (self.next.1, key.min(end));
            if at < until {
                self.first.get_or_insert(at);
                self.count += until - at;
            }
            if key < end {
                return;
            }
            let at = self.next.0 + 1;
            self.next = (at, self.due.get(at).map_or(u64::MAX, |range| range.0));
        }
    }

    fn missing(mut self) -> Option<String> {
        self.skip_to(u64::MAX);
        let first = self.first?;
        let what = if self.list { format!("number {}", first + 1) } else { format!("{first}") };
        let (count, total) = (self.count, self.total);
        Some(format!("{count} of {total} seeds are missing, the first is {what}"))
    }
}
