//! Looks into the data directory of a member that does not run, and changes nothing there.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::identity_file::Identity;
use super::{DirectoryError, IDENTITY, LOCK, MAX_SMALL_FILE, list, read_small};
use crate::env::{Disk, DiskOp, DiskQueue, FileName, Work};
use crate::error::DiskError;
use crate::tcp::disk::failure;
use crate::tcp::fs::{self, File, TryLockError};
use crate::tcp::identity::ClusterId;
use crate::types::{NodeId, Ticket};

/// A data directory that is only read. No node can start in it as long as this value lives.
#[derive(Debug)]
pub(in crate::tcp) struct Survey {
    path: PathBuf,
    identity: Identity,
    /// Closing it releases the lock. A copy of a directory may have none.
    _lock: Option<File>,
}

impl Survey {
    /// Opens the directory at `path`. Blocks.
    ///
    /// # Errors
    /// When a node runs in it, or it is no data directory, or cannot be read.
    pub fn open(path: &Path) -> Result<Survey, DirectoryError> {
        let failed = |operation| move |error| DirectoryError::io(operation, path, &error);
        if !fs::metadata(path).map_err(failed("look-up"))?.is_dir() {
            return Err(DirectoryError::NotADirectory { path: path.to_owned() });
        }
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("locking")(error)),
        };
        match lock.as_ref().map(|lock| lock.try_lock()) {
            None | Some(Ok(())) => {}
            Some(Err(TryLockError::WouldBlock)) => {
                return Err(DirectoryError::Locked { path: path.to_owned(), pid: None });
            }
            Some(Err(TryLockError::Error(error))) => return Err(failed("locking")(error)),
        }
        let identity = read_small(path, IDENTITY, MAX_SMALL_FILE, Identity::decode)?;
        let Some(identity) = identity else {
            return Err(DirectoryError::NoNode { path: path.to_owned() });
        };
        Ok(Survey { path: path.to_owned(), identity, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster
    }
}

impl Disk for Survey {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        list(&self.path).map_err(|error| failure("listing", None, &error))
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        let content = fs::read(self.path.join(file.to_string()));
        content.map(Bytes::from).map_err(|error| failure("read", Some(file), &error))
    }

    fn submit(&mut self, _: DiskQueue, _: Ticket, _: Vec<DiskOp>) {
        unreachable!("a survey writes nothing");
    }

    fn fetch(&mut self, _: Ticket, _: FileName, _: u64, _: u32) {
        unreachable!("a survey runs no node");
    }

    fn work(&mut self, _: Ticket, _: Work) {
        unreachable!("a survey runs no node");
    }
}
