//! The files that the writer holds open.

use std::io;

use crate::env::FileName;
use crate::tcp::descriptors::wait_for;
use crate::tcp::directory::Directory;
use crate::tcp::fs::{File, OpenOptions};

/// Files held open. A node writes to one segment and one or two snapshots at a time.
const MAX_OPEN: usize = 8;

struct Handle {
    name: FileName,
    file: File,
    /// Something was written that was not synced.
    dirty: bool,
}

/// Open files, the one used last at the end.
#[derive(Default)]
pub(super) struct Handles {
    open: Vec<Handle>,
}

impl Handles {
    /// The file, for writing, which makes it dirty.
    pub(super) fn write(&mut self, directory: &Directory, name: FileName) -> io::Result<&File> {
        let handle = self.get(directory, name)?;
        handle.dirty = true;
        Ok(&handle.file)
    }

    /// The file, for a sync; call [`clean`](Self::clean) after it.
    pub(super) fn sync(&mut self, directory: &Directory, name: FileName) -> io::Result<&File> {
        Ok(&self.get(directory, name)?.file)
    }

    /// The file was synced.
    pub(super) fn clean(&mut self, name: FileName) {
        if let Some(handle) = self.open.iter_mut().find(|handle| handle.name == name) {
            handle.dirty = false;
        }
    }

    /// Adds a file that was just created.
    pub(super) fn add(&mut self, name: FileName, file: File) -> io::Result<()> {
        self.forget(name);
        self.push(Handle { name, file, dirty: true })
    }

    /// The name means another file from now on, or none.
    pub(super) fn forget(&mut self, name: FileName) {
        self.open.retain(|handle| handle.name != name);
    }

    /// The file has a new name, which may have been another's.
    pub(super) fn rename(&mut self, from: FileName, to: FileName) {
        if from == to {
            return;
        }
        self.forget(to);
        if let Some(handle) = self.open.iter_mut().find(|handle| handle.name == from) {
            handle.name = to;
        }
    }

    fn get(&mut self, directory: &Directory, name: FileName) -> io::Result<&mut Handle> {
        let handle = match self.open.iter().position(|handle| handle.name == name) {
            Some(at) => self.open.remove(at),
            None => {
                let path = directory.file(name);
                let file = wait_for(&path, || OpenOptions::new().write(true).open(&path))?;
                Handle { name, file, dirty: false }
            }
        };
        self.push(handle)?;
        Ok(self.open.last_mut().expect("it was just pushed"))
    }

    fn push(&mut self, handle: Handle) -> io::Result<()> {
        if self.open.len() >= MAX_OPEN {
            let old = self.open.remove(0);
            // An error of its write-back might be told to this handle only.
            if old.dirty {
                old.file.sync_data()?;
            }
        }
        self.open.push(handle);
        Ok(())
    }
}
