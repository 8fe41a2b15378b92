//! Carries out batches, in order, until something fails.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use super::handles::Handles;
use super::{DiskStats, failure, now};
use crate::env::{DiskOp, DiskQueue, FileName};
use crate::error::DiskError;
use crate::tcp::directory::{self, Directory};
use crate::tcp::fs;
use crate::tcp::segments::{self, Spares};

/// Writes that follow on each other are copied together up to so many bytes: one call for a group
/// of small records. Longer ones gain nothing by that.
const MAX_JOINED: usize = 256 << 10;

pub(super) struct Writer {
    queue: DiskQueue,
    directory: Arc<Directory>,
    /// Segments made in advance, for the writer of the log.
    spares: Option<Spares>,
    stats: Arc<DiskStats>,
    handles: Handles,
    /// For joining writes.
    joined: Vec<u8>,
    /// What failed; nothing is done any more.
    failed: Option<DiskError>,
}

impl Writer {
    pub(super) fn new(
        queue: DiskQueue,
        directory: Arc<Directory>,
        spares: Option<Spares>,
        stats: Arc<DiskStats>,
    ) -> Writer {
        let (handles, joined) = (Handles::default(), Vec::new());
        Writer { queue, directory, spares, stats, handles, joined, failed: None }
    }

    /// Carries out a batch, unless something has failed before.
    pub(super) fn carry_out(&mut self, ops: Vec<DiskOp>) -> Result<(), DiskError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let result = self.all(&ops);
        if let Err(failed) = &result {
            error!(path = %self.directory.path().display(), "{failed}");
            // Nothing relies on the files of a snapshot that is not complete.
            if self.queue != DiskQueue::Snapshot || !failed.is_full() {
                self.failed = Some(failed.clone());
            }
        }
        result
    }

    fn all(&mut self, mut ops: &[DiskOp]) -> Result<(), DiskError> {
        let is_segment =
            |op: &DiskOp| matches!(op, DiskOp::Create { file: FileName::Segment(_), .. });
        let begins = ops.iter().any(is_segment);
        while let Some(op) = ops.first() {
            let mut done = 1;
            let fails = |operation, file| move |error| failure(operation, file, &error);
            match *op {
                DiskOp::Create { file, len } => {
                    self.create(file, len).map_err(fails("creation", Some(file)))?;
                }
                DiskOp::Write { file, offset, ref data } => {
                    done = joinable(ops);
                    self.write(file, offset, data, &ops[1..done])
                        .map_err(fails("write", Some(file)))?;
                }
                DiskOp::Sync { file } => self.sync(file).map_err(fails("fsync", Some(file)))?,
                DiskOp::Rename { from, to } => {
                    self.rename(from, to).map_err(fails("rename", Some(from)))?;
                }
                DiskOp::Remove { file } => {
                    self.remove(file).map_err(fails("removal", Some(file)))?;
                }
                DiskOp::SyncDir => self.sync_directory().map_err(fails("fsync", None))?,
            }
            ops = &ops[done..];
        }
        if begins {
            let failed = |error| failure("writing of identity.toml", None, &error);
            self.directory.begin().map_err(failed)?;
        }
        Ok(())
    }

    fn create(&mut self, name: FileName, len: u64) -> io::Result<()> {
        self.handles.forget(name);
        let path = self.directory.file(name);
        let spares = self.spares.as_mut().filter(|_| matches!(name, FileName::Segment(_)));
        if let Some(spares) = spares
            && let Some(file) = spares.take(&path, len)?
        {
            return self.handles.add(name, file);
        }
        let file = directory::create(&path)?;
        let filled = segments::fill(&file, len);
        self.handles.add(name, file)?;
        let spares = self.spares.as_mut().filter(|_| matches!(name, FileName::Segment(_)));
        if let Some(spares) = spares {
            spares.retry();
        }
        filled
    }

    /// Writes `data`, and behind it what `more` writes say.
    fn write(
        &mut self,
        name: FileName,
        offset: u64,
        data: &Bytes,
        more: &[DiskOp],
    ) -> io::Result<()> {
        let mut data = &data[..];
        if !more.is_empty() {
            self.joined.clear();
            self.joined.extend_from_slice(data);
            for op in more {
                if let DiskOp::Write { data, .. } = op {
                    self.joined.extend_from_slice(data);
                }
            }
            data = &self.joined;
        }
        self.handles.write(&self.directory, name)?.write_all_at(data, offset)?;
        self.stats.written(data.len());
        Ok(())
    }

    fn sync(&mut self, name: FileName) -> io::Result<()> {
        let file = self.handles.sync(&self.directory, name)?;
        let begun = now();
        file.sync_data()?;
        self.stats.synced(begun.elapsed());
        self.handles.clean(name);
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> io::Result<()> {
        fs::rename(self.directory.file(from), self.directory.file(to))?;
        self.handles.rename(from, to);
        Ok(())
    }

    fn remove(&mut self, name: FileName) -> io::Result<()> {
        self.handles.forget(name);
        let path = self.directory.file(name);
        let removed = match (name, &mut self.spares) {
            (FileName::Segment(_), Some(spares)) => spares.remove(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let begun = now();
        self.directory.sync()?;
        self.stats.synced(begun.elapsed());
        Ok(())
    }
}

/// How many operations at the beginning are writes that follow on each other in one file, and
/// small enough to be joined. At least 1, for the first operation.
fn joinable(ops: &[DiskOp]) -> usize {
    let DiskOp::Write { file, offset, data } = &ops[0] else { return 1 };
    let (mut end, mut len) = (offset.saturating_add(data.len() as u64), data.len());
    let follows = |op: &&DiskOp| {
        let DiskOp::Write { file: next, offset, data } = op else { return false };
        len = len.saturating_add(data.len());
        let fits = next == file && *offset == end && len <= MAX_JOINED;
        end = end.saturating_add(data.len() as u64);
        fits
    };
    1 + ops[1..].iter().take_while(follows).count()
}
