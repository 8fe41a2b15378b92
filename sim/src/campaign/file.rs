//! The file of a campaign, or of one shard of it: `DIR/seeds-K-of-N.jsonl`.
//!
//! The first line is the [`Manifest`]: which build ran which seeds, how. Each line after it is the
//! row of one seed, in the order of the campaign: the whole [`Outcome`], so that adding up rows gives
//! what a single run over the same seeds gives. A row is written with one write, and the file is
//! synced every second, every [`SYNC_ROWS`] rows, and at the end. What that means:
//!
//! - kill -9 loses nothing but the row that was being written; a power loss at most a second.
//! - A last line without its end is such a row. It is dropped, and its seed is run again.
//! - Any other damage is an error that names the line. Everything before it can be kept.
//!
//! A file is only gone on with by the build that began it, with the same seeds and settings, because
//! a seed means something else to another build. A lock keeps two processes from writing one file;
//! the system drops it when the process ends, however it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{Canary, PROGRAM, Seeds, Shard, Whole};
use crate::outcome::Outcome;
use crate::version;

/// The longest that a row may be lost by a power loss.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The most rows that may be.
const SYNC_ROWS: u64 = 1000;

/// What kind of file this is.
const FORMAT: &str = "stormkv campaign";
/// The version of the format.
const SCHEMA: u64 = 1;

/// Why a file cannot be used. The text is one line: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The file does not fit what is asked for: another build, other settings, damage.
    Refused(String),
    /// What had to be written could not be.
    Lost(String),
    /// Two rows contradict each other: a run is not determined by its seed.
    Contradiction(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (FileError::Refused(text) | FileError::Lost(text) | FileError::Contradiction(text)) =
            self;
        f.write_str(text)
    }
}

impl std::error::Error for FileError {}

/// What of the command line changes a row, by the name of the option and its value. What is left
/// out has its default.
pub type Settings = BTreeMap<String, String>;

/// The first line of a file: all that must be equal for rows to belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    schema: u64,
    version: String,
    revision: String,
    sources: String,
    seeds: Whole,
    shard: u64,
    shards: u64,
    settings: Settings,
}

impl Manifest {
    /// That of a campaign of this build.
    pub fn new(seeds: &Seeds, settings: Settings) -> Manifest {
        Manifest {
            format: FORMAT.to_owned(),
            schema: SCHEMA,
            version: version::VERSION.to_owned(),
            revision: version::REVISION.to_owned(),
            sources: version::SOURCES.to_owned(),
            seeds: seeds.whole(),
            shard: seeds.part().k(),
            shards: seeds.part().n(),
            settings,
        }
    }

    /// The name of the file in its directory.
    pub fn file_name(&self) -> String {
        format!("seeds-{}-of-{}.jsonl", self.shard, self.shards)
    }

    /// Reads the first line of a file.
    pub(super) fn read(path: &Path, line: &[u8]) -> Result<Manifest, FileError> {
        let name = path.display();
        let foreign = || {
            FileError::Refused(format!(
                "{name}: the first line is not that of a campaign; name what `run --out` wrote"
            ))
        };
        #[derive(Deserialize)]
        struct Start {
            format: String,
            schema: u64,
        }
        let start: Start = serde_json::from_slice(line).map_err(|_| foreign())?;
        if start.format != FORMAT {
            return Err(foreign());
        }
        if start.schema != SCHEMA {
            return Err(FileError::Refused(format!(
                "{name} has the format {}, this build reads {SCHEMA}; use the build that wrote it",
                start.schema
            )));
        }
        serde_json::from_slice::<Manifest>(line)
            .ok()
            .filter(|read| Shard::new(read.shard, read.shards).is_some() && !read.seeds.is_empty())
            .ok_or_else(foreign)
    }

    pub(super) fn whole(&self) -> &Whole {
        &self.seeds
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The position within the whole campaign of the row at this place of the file, from 0.
    pub(super) fn position(&self, row: u64) -> u64 {
        row.saturating_mul(self.shards).saturating_add(self.shard - 1)
    }

    /// How many rows there are in the end.
    pub(super) fn due(&self) -> u64 {
        self.seeds.len().saturating_sub(self.shard - 1).div_ceil(self.shards)
    }

    pub(super) fn part(&self) -> String {
        format!("{}/{}", self.shard, self.shards)
    }

    /// The share of seeds that fail on purpose.
    pub fn canary(&self) -> Result<Canary, FileError> {
        let share = self.settings.get("canary");
        share
            .map_or(Ok(Canary::default()), |share| Canary::parse(share).map_err(FileError::Refused))
    }

    /// Refuses rows of another build: they cannot be added up with ours, and `then` says what else
    /// there is to do than to take that build.
    pub(super) fn demand_build(&self, path: &Path, then: &str) -> Result<(), FileError> {
        let name = path.display();
        let build = format!("{} ({})", self.version, self.revision);
        if build != version::BUILD {
            return Err(FileError::Refused(format!(
                "{name} was written by version {build}, this is {}, and a seed means another run \
                 there; use that build, or {then}",
                version::BUILD
            )));
        }
        if self.sources != version::SOURCES {
            return Err(FileError::Refused(format!(
                "{name} was written by version {build} from other sources ({}, these are {}), and \
                 a seed may mean another run there; use that build, or {then}",
                self.sources,
                version::SOURCES
            )));
        }
        Ok(())
    }

    /// Refuses to go on with what was begun in another way.
    fn demand_same(&self, path: &Path, wanted: &Manifest) -> Result<(), FileError> {
        let elsewhere = "name another directory with --out";
        self.demand_build(path, elsewhere)?;
        let name = path.display();
        if self.seeds != wanted.seeds {
            return Err(FileError::Refused(format!(
                "{name} belongs to the seeds {}, not to {}; ask for those to go on with it, or \
                 {elsewhere} (`merge` adds up both)",
                self.seeds, wanted.seeds
            )));
        }
        if (self.shard, self.shards) != (wanted.shard, wanted.shards) {
            return Err(FileError::Refused(format!(
                "{name} is shard {}, not {}: it was renamed; give it its name back, or {elsewhere}",
                self.part(),
                wanted.part()
            )));
        }
        if let Some(difference) = difference(&self.settings, &wanted.settings) {
            return Err(FileError::Refused(format!(
                "{name} was begun {difference}; use the same options to go on with it, or \
                 {elsewhere}"
            )));
        }
        Ok(())
    }
}

/// In which option two campaigns differ, as words: `with --canary 0.1, not without it`.
pub(super) fn difference(begun: &Settings, wanted: &Settings) -> Option<String> {
    let written = |option: &str, value: &str| match value {
        value if option == PROGRAM => format!("the {PROGRAM} {value}"),
        "true" => format!("--{option}"),
        value => format!("--{option} {value}"),
    };
    let options = begun.keys().chain(wanted.keys());
    let option = options.into_iter().find(|option| begun.get(*option) != wanted.get(*option))?;
    Some(match (begun.get(option), wanted.get(option)) {
        (Some(begun), Some(wanted)) => {
            format!("with {}, not with {}", written(option, begun), written(option, wanted))
        }
        (Some(begun), None) => format!("with {}, not without it", written(option, begun)),
        (None, wanted) => {
            let wanted = wanted.map_or("", String::as_str);
            format!("without --{option}, not with {}", written(option, wanted))
        }
    })
}

/// One line of the file: one seed and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub seed: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Reads a row; `number` is that of its line.
pub(super) fn read_row(path: &Path, number: u64, line: &[u8]) -> Result<Row, FileError> {
    serde_json::from_slice(line).map_err(|error| damaged(path, number, &error.to_string()))
}

pub(super) fn damaged(path: &Path, number: u64, what: &str) -> FileError {
    FileError::Refused(format!(
        "{}:{number}: the line is damaged: {what}; keep the {} lines before it (head -n {}) and run \
         the same command again for the others",
        path.display(),
        number - 1,
        number - 1
    ))
}

pub(super) fn unreadable(path: &Path, lines: &Lines, error: &std::io::Error) -> FileError {
    match error.kind() {
        std::io::ErrorKind::InvalidData => damaged(path, lines.number() + 1, &error.to_string()),
        _ => FileError::Refused(format!(
            "{}: {error}; check the path and its permissions",
            path.display()
        )),
    }
}

/// The file of a campaign that is running.
#[derive(Debug)]
pub struct Kept {
    file: File,
    path: PathBuf,
    /// Where the whole rows end.
    end: u64,
    rows: u64,
    unsynced: u64,
    synced: Instant,
    /// Whether a torn last line was dropped.
    torn: bool,
}

impl Kept {
    /// Opens or begins the file of this campaign in a directory, which is made if need be. `fold`
    /// gets every row that is there, in order.
    ///
    /// # Errors
    /// When it cannot be written, is locked by another process, belongs to other seeds, settings or
    /// another build, or is damaged.
    pub fn open(
        directory: &Path,
        manifest: &Manifest,
        seeds: &Seeds,
        fold: &mut dyn FnMut(u64, Outcome),
    ) -> Result<Kept, FileError> {
        let path = directory.join(manifest.file_name());
        let cannot = |error: std::io::Error| {
            FileError::Refused(format!(
                "{}: {error}; name a directory with --out that can be written",
                path.display()
            ))
        };
        fs::create_dir_all(directory).map_err(cannot)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            let name = path.display();
            let text = format!("{name} is not a regular file; name another directory with --out");
            return Err(FileError::Refused(text));
        }
        lock(&file, &path)?;
        let mut kept =
            Kept { file, path, end: 0, rows: 0, unsynced: 0, synced: now(), torn: false };
        kept.read(manifest, seeds, fold)?;
        if kept.end == 0 {
            kept.begin(directory, manifest)?;
        }
        Ok(kept)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the last line was torn, and dropped.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// Reads what is there, and cuts off a torn last line.
    fn read(
        &mut self,
        manifest: &Manifest,
        seeds: &Seeds,
        fold: &mut dyn FnMut(u64, Outcome),
    ) -> Result<(), FileError> {
        let again = self.file.try_clone().map_err(|error| self.lost(&error))?;
        let mut lines = Lines::new(Box::new(move || again.try_clone()));
        while let Some(line) = match lines.next() {
            Ok(line) => line.map(<[u8]>::to_vec),
            Err(error) => return Err(unreadable(&self.path, &lines, &error)),
        } {
            let number = lines.number();
            if number == 1 {
                Manifest::read(&self.path, &line)?.demand_same(&self.path, manifest)?;
                continue;
            }
            let Row { seed, outcome } = read_row(&self.path, number, &line)?;
            let due = (self.rows < seeds.len()).then(|| seeds.get(self.rows));
            if due != Some(seed) {
                let due = due.map_or("no more row".to_owned(), |seed| format!("seed {seed}"));
                let what = format!("seed {seed} is there where {due} is due");
                return Err(damaged(&self.path, number, &what));
            }
            fold(seed, outcome);
            self.rows += 1;
        }
        self.end = lines.end();
        let length = self.file.metadata().map_err(|error| self.lost(&error))?.len();
        self.torn = length > self.end;
        if self.torn {
            self.file.set_len(self.end).map_err(|error| self.lost(&error))?;
        }
        self.file.seek(SeekFrom::Start(self.end)).map_err(|error| self.lost(&error))?;
        Ok(())
    }

    fn begin(&mut self, directory: &Path, manifest: &Manifest) -> Result<(), FileError> {
        self.write(manifest)?;
        self.sync()?;
        // Elsewhere a directory cannot be opened, and its entries need no sync.
        if cfg!(unix) {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| self.lost(&error))?;
        }
        Ok(())
    }

    /// Appends the row of a seed.
    ///
    /// # Errors
    /// When it could not be written. The rows before it are whole.
    pub fn append(&mut self, seed: u64, outcome: &Outcome) -> Result<(), FileError> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            seed: u64,
            #[serde(flatten)]
            outcome: &'a Outcome,
        }
        self.write(&Borrowed { seed, outcome })?;
        self.rows += 1;
        self.unsynced += 1;
        if self.unsynced >= SYNC_ROWS || self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes one line with one write.
    fn write(&mut self, line: &impl Serialize) -> Result<(), FileError> {
        let mut bytes = serde_json::to_vec(line).expect("our objects have string keys");
        bytes.push(b'\n');
        if let Err(error) = self.file.write_all(&bytes) {
            // What remains of the line would be dropped as torn; without it the file is tidy.
            let _ = self.file.set_len(self.end);
            return Err(self.lost(&error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Makes all rows durable.
    ///
    /// # Errors
    /// When the system could not. Which rows are durable is then unknown.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|error| self.lost(&error))?;
        (self.unsynced, self.synced) = (0, now());
        Ok(())
    }

    fn lost(&self, error: &std::io::Error) -> FileError {
        FileError::Lost(format!(
            "{}: {error}; {} rows are kept; mend the disk and run the same command again, it goes \
             on from there",
            self.path.display(),
            self.rows
        ))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    let name = path.display();
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(FileError::Refused(format!(
            "{name} is being written by another process; wait for it, or give each process its own \
             --shard or --out"
        ))),
        Err(TryLockError::Error(error)) => Err(FileError::Refused(format!(
            "{name} cannot be locked: {error}; name a directory with --out whose file system has \
             locks, such as a local one, and merge it afterwards"
        ))),
    }
}

/// The clock of this machine decides when to sync, and nothing else.
fn now() -> Instant {
    Instant::now()
}
