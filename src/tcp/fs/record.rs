//! Records what changes the files below one directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A file or directory, whatever its name is. Unlike the number of an inode, no other file has the
/// same one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tcp) struct FileId {
    number: u64,
    directory: bool,
}

impl FileId {
    pub(super) fn is_directory(self) -> bool {
        self.directory
    }
}

/// The root of the recorder.
pub(super) const ROOT: FileId = FileId { number: 0, directory: true };

/// One step of a record. Names of entries are those within the directory `parent`.
#[derive(Clone, Debug)]
pub(in crate::tcp) enum Event {
    MakeDirectory {
        parent: FileId,
        name: String,
        made: FileId,
    },
    Create {
        parent: FileId,
        name: String,
        file: FileId,
    },
    Rename {
        parent: FileId,
        file: FileId,
        from: String,
        to: String,
    },
    Remove {
        parent: FileId,
        file: FileId,
        name: String,
    },
    Write {
        file: FileId,
        offset: u64,
        data: Vec<u8>,
    },
    SetLen {
        file: FileId,
        len: u64,
    },
    SyncBegins,
    /// The sync that began with the event number `since` has returned.
    SyncEnds {
        file: FileId,
        since: usize,
    },
}

/// Syncs that are to fail silently: those of a file or directory that last had this path below
/// the root, after these events. Shows that a test notices a sync that the code forgets.
pub(in crate::tcp) type Saboteur = fn(path: &str, file: FileId, events: &[Event]) -> bool;

/// What a recorder starts with.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    pub(super) entries: Vec<(FileId, String, FileId)>,
    pub(super) contents: BTreeMap<FileId, Vec<u8>>,
}

struct State {
    events: Vec<Event>,
    /// The present paths, below the root.
    paths: BTreeMap<PathBuf, FileId>,
    next: u64,
    /// For the pauses of syncs, if there are any.
    draws: Option<StdRng>,
}

/// Records, while it lives, what changes the files below its root.
pub(in crate::tcp) struct Recorder {
    root: PathBuf,
    base: Base,
    state: Mutex<State>,
    sabotage: Option<Saboteur>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("root", &self.root).finish_non_exhaustive()
    }
}

static RECORDERS: Mutex<Vec<Weak<Recorder>>> = Mutex::new(Vec::new());

fn recorders() -> MutexGuard<'static, Vec<Weak<Recorder>>> {
    RECORDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Records what happens below `root`, which exists. What it holds now counts as durable. Syncs
    /// take a time that is drawn from the seed `pauses`, or none.
    pub(in crate::tcp) fn start(
        root: &Path,
        pauses: Option<u64>,
        sabotage: Option<Saboteur>,
    ) -> io::Result<Arc<Recorder>> {
        let root = fs::canonicalize(root)?;
        let mut base = Base::default();
        let mut paths = BTreeMap::from([(root.clone(), ROOT)]);
        let mut next = ROOT.number + 1;
        let mut directories = vec![(root.clone(), ROOT)];
        while let Some((directory, parent)) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let id = FileId { number: next, directory: path.is_dir() };
                next += 1;
                base.entries.push((parent, name_of(&path), id));
                if id.directory {
                    directories.push((path.clone(), id));
                } else {
                    base.contents.insert(id, fs::read(&path)?);
                }
                paths.insert(path, id);
            }
        }
        let draws = pauses.map(StdRng::seed_from_u64);
        let state = Mutex::new(State { events: Vec::new(), paths, next, draws });
        let recorder = Arc::new(Recorder { root, base, state, sabotage });
        recorders().push(Arc::downgrade(&recorder));
        Ok(recorder)
    }

    /// The recorder below whose root `path` is.
    pub(super) fn of(path: &Path) -> Option<Arc<Recorder>> {
        let found = |recorder: Arc<Recorder>| {
            // A parent of the root is opened, too, when a directory is created.
            let below = path.starts_with(&recorder.root);
            below.then_some(recorder)
        };
        recorders().iter().filter_map(Weak::upgrade).find_map(found)
    }

    /// How many events there are.
    pub(in crate::tcp) fn position(&self) -> usize {
        self.state().events.len()
    }

    /// What it started with, and the events so far.
    pub(super) fn take(&self) -> (Base, Vec<Event>) {
        (self.base.clone(), self.state().events.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a change and records it, if it succeeded, before any other change.
    pub(super) fn apply<T>(
        &self,
        change: impl FnOnce() -> io::Result<T>,
        event: impl FnOnce(&T) -> Event,
    ) -> io::Result<T> {
        let mut state = self.state();
        let changed = change()?;
        state.events.push(event(&changed));
        Ok(changed)
    }

    /// Makes what was changed in a file, or in the names of a directory, count as durable. Takes
    /// as long as a quick device would, so that whoever does not wait for it gets ahead.
    pub(super) fn sync(&self, file: FileId) {
        let (since, pause) = {
            let mut state = self.state();
            if let Some(sabotage) = self.sabotage {
                let path = state.paths.iter().find(|(_, id)| **id == file);
                let path = path.and_then(|(path, _)| path.strip_prefix(&self.root).ok());
                let path = path.map(|path| path.to_string_lossy().into_owned());
                if sabotage(&path.unwrap_or_default(), file, &state.events) {
                    return;
                }
            }
            state.events.push(Event::SyncBegins);
            let pause = state.draws.as_mut().map_or(0, |draws| draws.gen_range(0..1000));
            (state.events.len() - 1, pause)
        };
        if pause > 0 {
            pause_for(Duration::from_micros(pause));
        }
        self.state().events.push(Event::SyncEnds { file, since });
    }

    pub(super) fn open(
        &self,
        path: &Path,
        open: impl FnOnce() -> io::Result<fs::File>,
    ) -> io::Result<(fs::File, FileId)> {
        let mut state = self.state();
        let file = open()?;
        if let Some(id) = state.paths.get(path) {
            return Ok((file, *id));
        }
        let (id, parent) = state.add(path, false);
        state.events.push(Event::Create { parent, name: name_of(path), file: id });
        Ok((file, id))
    }

    pub(super) fn make_directory(
        &self,
        path: &Path,
        make: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        make()?;
        let (made, parent) = state.add(path, true);
        state.events.push(Event::MakeDirectory { parent, name: name_of(path), made });
        Ok(())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
        let mut state = self.state();
        fs::rename(from, to)?;
        let file = state.paths.remove(from).expect("what is there is known");
        state.paths.insert(to.to_owned(), file);
        let parent = state.parent(to);
        state.events.push(Event::Rename { parent, file, from: name_of(from), to: name_of(to) });
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        fs::remove_file(path)?;
        let file = state.paths.remove(path).expect("what is there is known");
        let parent = state.parent(path);
        state.events.push(Event::Remove { parent, file, name: name_of(path) });
        Ok(())
    }
}

impl State {
    /// Notes a new path. Returns what is there and its directory.
    fn add(&mut self, path: &Path, directory: bool) -> (FileId, FileId) {
        let id = FileId { number: self.next, directory };
        self.next += 1;
        self.paths.insert(path.to_owned(), id);
        (id, self.parent(path))
    }

    fn parent(&self, path: &Path) -> FileId {
        let parent = path.parent().and_then(|parent| self.paths.get(parent));
        *parent.expect("a directory below the root, made through this module")
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a path below the root has a name");
    name.to_str().expect("names are text").to_owned()
}

#[allow(clippy::disallowed_methods, reason = "the host has real time")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}
