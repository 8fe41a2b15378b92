//! The data directory of a node: whose it is, who may look into it, and that only one process
//! writes to it.
//!
//! A node that votes twice in one term breaks the cluster, and a data directory in the wrong hands
//! is the easiest way to get there: two processes on one directory, node 2 started on the files of
//! node 1, a log that was deleted to free some space. So whatever looks odd is refused before a
//! byte is changed, with a message that says what to do:
//!
//! - `lock` is held exclusively while the process lives, and names its process id;
//! - `identity.toml` names the node and its cluster. It is durable before the first file of the
//!   log exists, and is exchanged atomically when it changes;
//! - it also gives the directory a number of its own, its *life*, which it keeps wherever it is
//!   moved, and which an emptied one does not get again;
//! - it says whether that life has *begun*. That becomes durable after the first batch of the log,
//!   but before that batch is reported as done, and no node promises anything before: so if a life
//!   has begun and there is no log, promises were lost, and if it has not, the first start was
//!   interrupted and may be repeated;
//! - `peers.toml` has the lives of the peers, as they were first met, and no peer is talked to
//!   before its life is in there.
//!
//! # Permissions
//! The directory is made with mode 0700 and files with 0600, whatever the umask. An existing
//! directory that others can look into is tightened, because `mkdir` makes them so. A first start
//! in a directory that holds something else is refused, so that nobody's home or `/tmp` is ever
//! tightened or filled. A directory of another user is refused too, even for root: the files that
//! root would leave there could not be opened by that user later.
//!
//! # What only the others know
//! A directory that was emptied altogether, identity included, or a mount point whose disk is
//! missing, looks like a new one. But it has another life, and the peers remember the one they met
//! first: they neither listen nor talk to a member that comes with another, and say so. When those who
//! do are so many that the others are no quorum, it stops (see [`lives`](super::lives) and
//! [`refusals`](super::refusals)). A node that lost its disk must be removed from
//! the cluster, and may come back under a new id.
//!
//! The order makes it safe at a loss of power. The life is durable before this node says a word, so
//! nobody remembers one that is gone. And a peer's life is durable before its first message is
//! delivered, so whoever counts a member's vote or acknowledgement also knows whose it was.
//!
//! # What cannot be known
//! A peer that has never met the old directory takes the new one for the only one there is: a
//! member that has just joined, or one that lost its own disk too. It then refuses the old
//! directory, should that be put back. Where it is certain that the old one is right,
//! `peers.toml` of such a peer may be removed while that peer is stopped: it meets everybody anew.
//! A directory that was copied, or set back to an older state, has the life of its original, so
//! nobody notices.

mod error;
mod identity_file;
mod peers_file;
mod sealed;
mod survey;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use crate::env::FileName;
use crate::tcp::descriptors::wait_for;
use crate::tcp::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use crate::tcp::identity::{ClusterId, Life};
use crate::types::NodeId;

pub use error::DirectoryError;
pub(super) use error::explain;
pub(super) use survey::Survey;

use identity_file::Identity;
use peers_file::{PEERS, PEERS_NEW};
use sealed::Unreadable;

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.toml";
const IDENTITY_NEW: &str = "identity.toml.tmp";
const PROBE: &str = "probe.tmp";
/// The names of [`segments`](super::segments).
pub(super) const SPARE: &str = "spare";
pub(super) const SPARE_FILLING: &str = "spare-filling.tmp";
/// A removed segment, in earlier releases.
pub(super) const SPARE_RETIRED: &str = "spare-retired.tmp";
/// What follows the name of a segment that was removed.
pub(super) const REMOVED: &str = ".removed";
/// What may be in a directory before it has an identity: an interrupted first start leaves some,
/// and the root of a file system has the last.
const HARMLESS: &[&str] =
    &[LOCK, IDENTITY_NEW, PEERS_NEW, PROBE, SPARE, SPARE_FILLING, SPARE_RETIRED, "lost+found"];
/// Bytes of the lock file and of the identity that are read: each is far smaller.
const MAX_SMALL_FILE: u64 = 4096;

/// Whose directory it must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The node that is about to use it.
    pub node: NodeId,
    /// The cluster that the node belongs to; `None` for one that joins and learns it later, or
    /// that takes the directory's word for it.
    pub cluster: Option<ClusterId>,
}

/// For fsync of the directory.
#[derive(Debug)]
struct Handle {
    file: File,
    /// The error of the sync that failed. The kernel tells it to one caller only, but it may concern
    /// what another one did, so it is told to all that come later.
    failed: Option<i32>,
}

/// An open data directory, locked as long as this value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: Mutex<Handle>,
    _lock: Lock,
    identity: Mutex<Identity>,
}

/// The lock of a data directory, held until it is dropped. To close the file would not always do:
/// a process that is being started has copies of all descriptors until it executes its program, and
/// the kernel's lock lives as long as any of them.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            warn!("the lock of the data directory ends with the process only: {error}");
        }
    }
}

impl Directory {
    /// Opens the data directory at `path`, which is created if it does not exist. Blocks.
    ///
    /// # Errors
    /// When it is in use, is not the one expected, lacks something that it should have, or cannot
    /// be read and written; see [`DirectoryError`].
    pub fn open(path: &Path, expected: Expected) -> Result<Directory, DirectoryError> {
        create_missing(path).map_err(|error| DirectoryError::io("creation", path, &error))?;
        let path =
            &fs::canonicalize(path).map_err(|error| DirectoryError::io("look-up", path, &error))?;
        let failed = |operation| move |error| DirectoryError::io(operation, path, &error);
        if !fs::metadata(path).map_err(failed("look-up"))?.is_dir() {
            return Err(DirectoryError::NotADirectory { path: path.clone() });
        }
        let identified = path.join(IDENTITY).try_exists().map_err(failed("look-up"))?;
        if !identified {
            refuse_strangers(path)?;
        }
        secure(path)?;
        let lock = lock(path)?;
        let handle = File::open(path).map_err(failed("opening"))?;
        let handle = Mutex::new(Handle { file: handle, failed: None });
        let files = list(path).map_err(failed("listing"))?;
        // Looked at again, now that nobody else can be writing it.
        let found = read_small(path, IDENTITY, MAX_SMALL_FILE, Identity::decode)?;
        let met = path.join(PEERS).try_exists().map_err(failed("look-up"))?;
        let identity = judge(path, expected, found, &files, met)?;
        let directory =
            Directory { path: path.clone(), handle, _lock: lock, identity: Mutex::new(identity) };
        if found != Some(identity) {
            directory.write_identity(identity).map_err(failed("writing of identity.toml"))?;
        }
        // The name of the identity may be in a cache only, if the process died before its fsync.
        directory.sync().map_err(failed("fsync"))?;
        info!(path = %path.display(), node = %identity.node, "data directory is open");
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster that the node belongs to, if it knows it yet.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity().cluster
    }

    /// The directory's own number, which it keeps wherever it is moved.
    #[must_use]
    pub fn life(&self) -> Life {
        self.identity().life
    }

    /// Whether the node has ever been ready to make promises. False until the first batch of the
    /// first start is durable.
    #[cfg(test)]
    pub fn begun(&self) -> bool {
        self.identity().begun
    }

    /// Notes, durably, that the node belongs to `cluster`. Blocks.
    ///
    /// # Errors
    /// When it belongs to another one already, or the identity cannot be written.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), DirectoryError> {
        let mut identity = self.identity();
        match identity.cluster {
            Some(found) if found == cluster => return Ok(()),
            Some(found) => {
                let path = self.path.clone();
                return Err(DirectoryError::WrongCluster { path, found, expected: cluster });
            }
            None => {}
        }
        let new = Identity { cluster: Some(cluster), ..*identity };
        self.write_identity(new)
            .map_err(|error| DirectoryError::io("writing of identity.toml", &self.path, &error))?;
        *identity = new;
        Ok(())
    }

    /// Whether a backup was to be restored into it, and that did not come to its end.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.identity().restoring
    }

    /// Notes, durably, that a backup is being restored, and removes what an earlier attempt left:
    /// nobody was promised anything with that. Blocks.
    ///
    /// # Errors
    /// When the node has lived with this directory, or it cannot be written.
    pub fn begin_restore(&self) -> Result<(), DirectoryError> {
        let failed =
            |operation| move |error: io::Error| DirectoryError::io(operation, &self.path, &error);
        let mut identity = self.identity();
        if !identity.restoring && (identity.begun || identity.restored.is_some()) {
            return Err(DirectoryError::Used { path: self.path.clone() });
        }
        let new = Identity { restoring: true, ..*identity };
        self.write_identity(new).map_err(failed("writing of identity.toml"))?;
        *identity = new;
        for file in list(&self.path).map_err(failed("listing"))? {
            fs::remove_file(self.file(file)).map_err(failed("removal of a file"))?;
        }
        self.sync().map_err(failed("fsync"))
    }

    /// Notes, durably, that the backup with this digest is restored, and with it the node's cluster
    /// is another one. Blocks.
    ///
    /// # Errors
    /// When the identity cannot be written.
    pub fn end_restore(&self, state: u64) -> Result<(), DirectoryError> {
        let mut identity = self.identity();
        let cluster = identity.cluster.map(|cluster| cluster.restored(state));
        let restored = Some(state);
        let new = Identity { cluster, restored, restoring: false, begun: true, ..*identity };
        self.write_identity(new)
            .map_err(|error| DirectoryError::io("writing of identity.toml", &self.path, &error))?;
        *identity = new;
        Ok(())
    }

    /// Notes, durably, that from now on the log must not be missing.
    pub(super) fn begin(&self) -> io::Result<()> {
        let mut identity = self.identity();
        if !identity.begun {
            let new = Identity { begun: true, ..*identity };
            self.write_identity(new)?;
            *identity = new;
        }
        Ok(())
    }

    /// Makes creations, renames and removals durable. Once it failed it always fails.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = handle.failed {
            return Err(io::Error::from_raw_os_error(code));
        }
        let result = handle.file.sync_all();
        if let Err(error) = &result {
            handle.failed = Some(error.raw_os_error().unwrap_or(error::EIO));
        }
        result
    }

    /// The files of the node that are there, in any order.
    pub(super) fn list(&self) -> io::Result<Vec<FileName>> {
        list(&self.path)
    }

    /// Where the file of this name is.
    pub(super) fn file(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        // Whoever panicked with the lock changed the value last of all, or not at all.
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the identity: after a crash there is the old one or the new one.
    fn write_identity(&self, identity: Identity) -> io::Result<()> {
        self.replace(IDENTITY, IDENTITY_NEW, &identity.encode())
    }

    /// Exchanges a small file for one with this text, durably. It is called `new` until it is
    /// whole.
    fn replace(&self, name: &str, new: &str, text: &str) -> io::Result<()> {
        let new = self.path.join(new);
        let mut file = create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(name))?;
        self.sync()
    }
}

/// Opens a file, creating it if it does not exist, so that only its owner can read it, whatever the
/// umask says.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = wait_for(path, || options.open(path))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The same, with nothing in it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// Creates the directory and those above it that are missing, and makes their names durable.
fn create_missing(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.try_exists()? {
        missing.push(at);
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for new in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(new) {
            // Another process was faster; the lock will tell who may stay.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            result => result?,
        }
        fs::set_permissions(new, Permissions::from_mode(0o700))?;
        let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Refuses a directory without an identity that holds what is not ours.
fn refuse_strangers(path: &Path) -> Result<(), DirectoryError> {
    let failed = |error| DirectoryError::io("listing", path, &error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        // The identity itself, if another process has just written it. The others without it are
        // refused later, with a better reason.
        let ours = name == IDENTITY || name == PEERS || HARMLESS.contains(&name.as_str());
        if !ours && name.parse::<FileName>().is_err() && !is_removed(&name) {
            return Err(DirectoryError::Strangers { path: path.to_owned(), name });
        }
    }
    Ok(())
}

/// Makes sure that we own the directory, can write to it, and that nobody else can look into it.
fn secure(path: &Path) -> Result<(), DirectoryError> {
    let failed = |operation| move |error| DirectoryError::io(operation, path, &error);
    // The owner of a new file is the one that the system takes us for.
    let probe = path.join(PROBE);
    let file = create(&probe).map_err(failed("creation of a file"))?;
    let us = file.metadata().map_err(failed("look-up"))?.uid();
    match fs::remove_file(&probe) {
        // Another process probes at the same time; the lock will tell who may stay.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.map_err(failed("removal of a file"))?,
    }

    let found = fs::metadata(path).map_err(failed("look-up"))?;
    if found.uid() != us {
        return Err(DirectoryError::NotOurs { path: path.to_owned(), owner: found.uid(), us });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(
            path = %path.display(),
            "the data directory had mode {mode:04o} and is now closed to other users (0700)"
        );
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("chmod"))?;
    }
    Ok(())
}

/// Takes the lock. It is the kernel's, so it ends with the process, however that ends.
fn lock(path: &Path) -> Result<Lock, DirectoryError> {
    let failed = |error| DirectoryError::io("locking", path, &error);
    let mut file = open(&path.join(LOCK)).map_err(failed)?;
    let mut lock = match file.try_lock() {
        Ok(()) => Lock(file),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only for the message.
            let _ = Read::by_ref(&mut file).take(MAX_SMALL_FILE).read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(DirectoryError::Locked { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    };
    lock.0.set_len(0).map_err(failed)?;
    // On a full disk the lock holds all the same; only its message will be poorer.
    if let Err(error) = writeln!(lock.0, "{}", std::process::id()) {
        warn!(path = %path.display(), "the lock file cannot say who holds it: {error}");
    }
    Ok(lock)
}

/// Reads a small file of the directory, if it is there.
fn read_small<T>(
    path: &Path,
    file: &'static str,
    limit: u64,
    decode: impl Fn(&[u8]) -> Result<T, Unreadable>,
) -> Result<Option<T>, DirectoryError> {
    let operation = match file {
        PEERS => "reading of peers.toml",
        _ => "reading of identity.toml",
    };
    let failed = |error| DirectoryError::io(operation, path, &error);
    let opened = match File::open(path.join(file)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    opened.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let path = path.to_owned();
    match decode(&bytes) {
        Ok(read) => Ok(Some(read)),
        Err(Unreadable::Newer(found)) => {
            Err(DirectoryError::NewerVersion { path, file, found, supported: sealed::VERSION })
        }
        Err(Unreadable::Damaged(reason)) => Err(DirectoryError::Damaged { path, file, reason }),
    }
}

/// Compares what is there with what should be. Returns the identity as it should be from now on.
/// `met`: there is a `peers.toml`.
fn judge(
    path: &Path,
    expected: Expected,
    found: Option<Identity>,
    files: &[FileName],
    met: bool,
) -> Result<Identity, DirectoryError> {
    let path = path.to_owned();
    let Some(found) = found else {
        let left = files.iter().min().map(ToString::to_string);
        return match left.or_else(|| met.then(|| PEERS.to_owned())) {
            Some(file) => Err(DirectoryError::IdentityMissing { path, file }),
            None => {
                let Expected { node, cluster } = expected;
                Ok(Identity {
                    node,
                    cluster,
                    life: Life::random(),
                    begun: false,
                    restored: None,
                    restoring: false,
                })
            }
        };
    };
    if found.node != expected.node {
        let expected = expected.node;
        return Err(DirectoryError::WrongNode { path, found: found.node, expected });
    }
    if let (Some(id), Some(expected)) = (found.cluster, expected.cluster)
        && id != expected
        && found.restored.is_none_or(|state| id != expected.restored(state))
    {
        let found = id;
        return Err(DirectoryError::WrongCluster { path, found, expected });
    }
    let log = files.iter().any(|file| matches!(file, FileName::Segment(_)));
    if found.begun && !log && !found.restoring {
        return Err(DirectoryError::LogMissing { path, node: found.node });
    }
    // Without a cluster the node has never talked to anyone, so it may still be given one. And a
    // log without the note that it was begun is a crash between the two.
    Ok(Identity { cluster: found.cluster.or(expected.cluster), begun: found.begun || log, ..found })
}

fn list(path: &Path) -> io::Result<Vec<FileName>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        files.extend(entry?.file_name().to_str().and_then(|name| name.parse::<FileName>().ok()));
    }
    Ok(files)
}

/// Returns whether it is the name of a segment that was removed.
pub(super) fn is_removed(name: &str) -> bool {
    let segment = name.strip_suffix(REMOVED).map(str::parse);
    matches!(segment, Some(Ok(FileName::Segment(_))))
}
