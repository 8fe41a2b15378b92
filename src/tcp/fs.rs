//! The file system, as tests see it: the standard library's functions, which also record what
//! changes the files below a [`Recorder`]'s root.
//!
//! Whatever changes the data directory takes its functions and types from `crate::tcp::fs`. In an
//! ordinary build that is another name of `std::fs`; in a test build it is this module. From a
//! record one can build what the files may look like after a loss of power at any moment of it: see
//! [`Image`](image::Image). No test with real processes shows that, because the page cache
//! survives them.
//!
//! Outside of a recorder's root this is `std::fs`. Below it, a sync does not reach the device: it
//! only records that it was asked for and when it returned, after a pause in which other threads
//! may run ahead.

pub(super) mod image;
mod record;

use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

// Whatever is not defined below changes nothing, or is only used by tests that record nothing.
pub(super) use std::fs::*;

pub(super) use record::{Event, FileId, Recorder, Saboteur};

/// A [`std::fs::File`] whose changes are recorded.
#[derive(Debug)]
pub(super) struct File {
    file: std::fs::File,
    record: Option<(Arc<Recorder>, FileId)>,
}

impl File {
    /// Opens a file or a directory for reading.
    pub(super) fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// As [`std::fs::File::set_len`].
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let Some((recorder, id)) = &self.record else { return self.file.set_len(len) };
        recorder.apply(|| self.file.set_len(len), |()| Event::SetLen { file: *id, len })
    }

    /// As [`std::fs::File::sync_all`].
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.sync(std::fs::File::sync_all)
    }

    /// As [`std::fs::File::sync_data`].
    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.sync(std::fs::File::sync_data)
    }

    fn sync(&self, real: impl Fn(&std::fs::File) -> io::Result<()>) -> io::Result<()> {
        match &self.record {
            None => real(&self.file),
            Some((recorder, id)) => {
                recorder.sync(*id);
                Ok(())
            }
        }
    }
}

impl Deref for File {
    type Target = std::fs::File;

    fn deref(&self) -> &std::fs::File {
        &self.file
    }
}

impl FileExt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let Some((recorder, id)) = &self.record else { return self.file.write_at(data, offset) };
        let write = || self.file.write_at(data, offset);
        recorder.apply(write, |written| Event::Write {
            file: *id,
            offset,
            data: data[..*written].to_vec(),
        })
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let offset = io::Seek::stream_position(&mut self.file)?;
        let written = self.write_at(data, offset)?;
        io::Seek::seek(&mut self.file, io::SeekFrom::Current(written as i64))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// [`std::fs::OpenOptions`], as far as they are used.
#[derive(Clone, Debug)]
pub(super) struct OpenOptions {
    options: std::fs::OpenOptions,
}

impl OpenOptions {
    pub(super) fn new() -> OpenOptions {
        OpenOptions { options: std::fs::OpenOptions::new() }
    }

    pub(super) fn read(&mut self, read: bool) -> &mut Self {
        self.options.read(read);
        self
    }

    pub(super) fn write(&mut self, write: bool) -> &mut Self {
        self.options.write(write);
        self
    }

    pub(super) fn create(&mut self, create: bool) -> &mut Self {
        self.options.create(create);
        self
    }

    /// Only `false`: what truncates must be seen, see [`File::set_len`].
    pub(super) fn truncate(&mut self, truncate: bool) -> &mut Self {
        assert!(!truncate, "not recorded: use set_len");
        self
    }

    pub(super) fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let open = || self.options.open(path);
        match Recorder::of(path) {
            None => Ok(File { file: open()?, record: None }),
            Some(recorder) => {
                let (file, id) = recorder.open(path, open)?;
                Ok(File { file, record: Some((recorder, id)) })
            }
        }
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.options.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.options.custom_flags(flags);
        self
    }
}

/// [`std::fs::DirBuilder`], as far as it is used.
#[derive(Debug)]
pub(super) struct DirBuilder(std::fs::DirBuilder);

impl DirBuilder {
    pub(super) fn new() -> DirBuilder {
        DirBuilder(std::fs::DirBuilder::new())
    }

    pub(super) fn create(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        match Recorder::of(path) {
            None => self.0.create(path),
            Some(recorder) => recorder.make_directory(path, || self.0.create(path)),
        }
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }
}

/// As [`std::fs::rename`].
pub(super) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    match Recorder::of(from) {
        None => std::fs::rename(from, to),
        Some(recorder) => recorder.rename(from, to),
    }
}

/// As [`std::fs::remove_file`].
pub(super) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    match Recorder::of(path) {
        None => std::fs::remove_file(path),
        Some(recorder) => recorder.remove(path),
    }
}
