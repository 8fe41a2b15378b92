//! Segments of the log made in advance, so that the log never waits for the file system to find
//! room.
//!
//! A write into blocks that a file has already, and that were written before, changes no metadata,
//! so its fdatasync costs one flush instead of a commit of the file system's journal. That takes a
//! file full of real zeros. Writing those takes long, so a thread keeps one such file ready, the
//! *spare*, and the next segment is the spare under a new name.
//!
//! A segment that is removed becomes the material for a later spare. It is deleted only when no
//! spare was wanted for a while, and not by the thread of the log: to free the blocks of a file
//! takes milliseconds, tens of them if the file system discards them on the device, and one
//! snapshot makes up to 16 segments superfluous at once. So a busy log lives in the same blocks.
//!
//! # Crashes
//! What a directory shows after a crash may lack the last renames. So:
//!
//! - A removed segment may come back. It must come back as it was, so it is renamed, the directory
//!   is synced, and only then it is overwritten. The rename is the removal as far as the log is
//!   concerned: it is durable with the next sync of the directory. A start deletes what is left.
//! - A spare that became a segment may be back under the spare's name, with the segment's first
//!   bytes in it. So after a start the spare is used only if it is found to be zero throughout.
//! - The spare gets its name only after its zeros are durable, so no segment ever shows what the
//!   file held in an earlier life.
//!
//! # Trouble
//! A spare that cannot be made, on a full disk above all, is no more than a warning: the segment
//! is then made when it is needed, and only if that fails the node stops. (A sync of the directory
//! that fails here is not forgotten: the directory lets no later one succeed.)

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::directory::{self, Directory, REMOVED, SPARE, SPARE_FILLING, SPARE_RETIRED, explain};
use super::fs::{self, File};
use super::sync::thread::{self, JoinHandle};
use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes written in one go. Small, so that a sync of the log has little to wait for.
const PIECE: usize = 1 << 20;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Time without need for a spare after which one removed segment is deleted. A log that fills more
/// than four segments per second reuses all of them; an idle one has its room back within seconds.
const LINGER: Duration = Duration::from_millis(250);

/// The spare and the thread that makes it. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Spares {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: Arc<Directory>,
    len: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The spare, if there is one. Open already: the log needs no file descriptor to go on with it.
    ready: Option<File>,
    /// There is none, and the thread is making one or about to.
    wanted: bool,
    /// Removed segments under their new names, oldest first: material for spares.
    removed: VecDeque<PathBuf>,
    /// Somebody waits for the spare.
    hurry: bool,
    closing: bool,
}

impl Spares {
    /// Begins to make a spare of `len` bytes, of what an earlier life left if possible.
    ///
    /// # Errors
    /// When the system grants no thread.
    pub(super) fn start(directory: Arc<Directory>, len: u64) -> io::Result<Spares> {
        let state = State {
            ready: None,
            wanted: true,
            removed: VecDeque::new(),
            hurry: false,
            closing: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { directory, len, state, changed });
        let maker = shared.clone();
        let builder = thread::Builder::new().name("stormkv-spare".to_owned());
        let thread = Some(builder.spawn(move || maker.run())?);
        Ok(Spares { shared, thread })
    }

    /// Gives the spare the name `to`, if it has `len` bytes. Waits for one that is being made: that
    /// is quicker than to make another. Returns the file, open for writing, if there was one; if not,
    /// make the file and then call [`retry`](Self::retry).
    pub(super) fn take(&self, to: &Path, len: u64) -> io::Result<Option<File>> {
        if len != self.shared.len {
            return Ok(None);
        }
        let mut state = self.shared.state();
        state.hurry = true;
        self.shared.changed.notify_all();
        let waits = |state: &mut State| state.wanted && state.ready.is_none();
        let waited = self.shared.changed.wait_while(state, waits);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        if state.ready.is_none() {
            return Ok(None);
        }
        fs::rename(self.shared.path(SPARE), to)?;
        let file = state.ready.take();
        state.wanted = true;
        self.shared.changed.notify_all();
        Ok(file)
    }

    /// Tries again to make a spare, if that has failed.
    pub(super) fn retry(&self) {
        let mut state = self.shared.state();
        state.wanted = state.ready.is_none();
        self.shared.changed.notify_all();
    }

    /// Removes the segment at `path`: its name is free afterwards. The file becomes a spare or is
    /// deleted later.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(REMOVED);
        let removed = PathBuf::from(name);
        fs::rename(path, &removed)?;
        self.shared.state().removed.push_back(removed);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it panicked it has said so, and there is just no spare.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is a single assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The thread.
    fn run(&self) {
        let found = self.look_around();
        self.conclude(found);
        loop {
            let idle =
                |state: &mut State| !state.closing && !state.wanted && state.removed.is_empty();
            let waited = self.changed.wait_while(self.state(), idle);
            let state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closing {
                return;
            }
            if !state.wanted {
                self.delete_one(state);
                continue;
            }
            drop(state);
            let made = self.make();
            let failed = made.is_err();
            if self.conclude(made) || !failed {
                continue;
            }
            // What was written of it would only be in the way on a full disk.
            let _ = fs::remove_file(self.path(SPARE_FILLING));
        }
    }

    /// Deletes the oldest removed segment, unless a spare is wanted soon.
    fn delete_one(&self, state: MutexGuard<'_, State>) {
        let idle = |state: &mut State| !state.closing && !state.wanted;
        let waited = self.changed.wait_timeout_while(state, LINGER, idle);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            return;
        }
        let Some(file) = state.removed.pop_front() else { return };
        drop(state);
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The log does not need it any more: only its room is lost until the next start.
            warn!(file = %file.display(), "a removed segment is left: {}", explain(&error));
        }
    }

    /// Takes note of an attempt to have a spare; `Ok(None)` leaves things as they are. Returns
    /// whether there is one.
    fn conclude(&self, attempt: io::Result<Option<File>>) -> bool {
        let mut state = self.state();
        match attempt {
            Ok(Some(spare)) => {
                state.ready = Some(spare);
                state.wanted = false;
            }
            Ok(None) => {}
            Err(error) => {
                warn!(
                    path = %self.directory.path().display(),
                    "no spare segment of {} bytes could be made in advance: {}",
                    self.len,
                    explain(&error)
                );
                state.wanted = false;
            }
        }
        self.changed.notify_all();
        state.ready.is_some()
    }

    /// Finds out what an earlier life has left. Returns the spare, if that is one.
    fn look_around(&self) -> io::Result<Option<File>> {
        let (spare, filling) = (self.path(SPARE), self.path(SPARE_FILLING));
        let removed = self.removed_earlier()?;
        self.state().removed.extend(removed);
        if !spare.try_exists()? {
            return Ok(None);
        }
        let file = directory::open(&spare)?;
        if file.metadata()?.len() == self.len && self.is_zero(&file)? {
            debug!("the spare segment of an earlier start is used");
            return Ok(Some(file));
        }
        // It is filled again from its beginning.
        fs::rename(spare, filling)?;
        Ok(None)
    }

    /// The removed segments that an earlier life has left.
    fn removed_earlier(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.directory.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name == SPARE_RETIRED || directory::is_removed(&name) {
                found.push(self.path(&name));
            }
        }
        Ok(found)
    }

    /// Whether the file is all zeros. Cut short if the host is closing: the next start looks again.
    fn is_zero(&self, file: &File) -> io::Result<bool> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.len {
            let len = (self.len - at).min(PIECE as u64) as usize;
            file.read_exact_at(&mut piece[..len], at)?;
            if self.state().closing {
                return Ok(true);
            }
            if piece[..len] != ZEROS[..len] {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }

    /// Makes a spare. Returns none if the host is closing; what there is of it serves the next start.
    fn make(&self) -> io::Result<Option<File>> {
        let (spare, filling) = (self.path(SPARE), self.path(SPARE_FILLING));
        let removed = self.state().removed.pop_front();
        if let Some(removed) = removed {
            // Only after this sync it cannot come back under its old name, so it may change.
            self.directory.sync()?;
            match fs::rename(removed, &filling) {
                // It was in the list twice: a start finds names, too, while the log adds some.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        let file = directory::open(&filling)?;
        if file.metadata()?.len() > self.len {
            file.set_len(self.len)?;
        }
        let mut at = 0;
        while at < self.len {
            let begun = now();
            let len = (self.len - at).min(PIECE as u64) as usize;
            file.write_all_at(&ZEROS[..len], at)?;
            at += len as u64;
            if !self.pause(&file, begun)? {
                return Ok(None);
            }
        }
        file.sync_all()?;
        fs::rename(filling, spare)?;
        Ok(Some(file))
    }

    /// Between two pieces: lets the log have the disk for half of the time, unless somebody waits
    /// for the spare. Says whether to go on.
    fn pause(&self, file: &File, begun: Instant) -> io::Result<bool> {
        if !self.state().hurry {
            // What has piled up would have to be written in one go by the next sync of the log.
            file.sync_data()?;
        }
        let spent = begun.elapsed();
        let idle = |state: &mut State| !state.hurry && !state.closing;
        let waited = self.changed.wait_timeout_while(self.state(), spent, idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Ok(!state.closing)
    }
}

/// Writes `len` zeros, for a file that cannot wait for a spare.
pub(super) fn fill(file: &File, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(PIECE as u64) as usize;
        file.write_all_at(&ZEROS[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the host has real time")]
fn now() -> Instant {
    Instant::now()
}
