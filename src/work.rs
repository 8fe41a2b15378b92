//! Work that takes too long for the thread of the node: a host carries it out beside the node.
//!
//! To restore or encode a state takes time in proportion to its size, a second or more for a gigabyte,
//! and a leader that answers no heartbeat for a second is deposed. So the node hands such work out as
//! a value. It needs nothing of the node meanwhile, may read files, and gives back a value that only
//! the node can open. The simulator carries it out at one moment and lets its time pass first.

use std::any::Any;
use std::fmt;

use bytes::Bytes;

use crate::env::FileName;
use crate::error::DiskError;

/// Reads files for [`Work`]. Blocks, unlike [`Disk::fetch`](crate::env::Disk::fetch).
pub trait ReadFile {
    /// Returns up to `len` bytes of `file` from `offset`, in bytes; fewer at its end.
    ///
    /// # Errors
    /// When the file does not exist or cannot be read.
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError>;
}

type Run = Box<dyn FnOnce(&mut dyn ReadFile) -> Product + Send>;

/// A piece of work for another thread. See the module.
pub struct Work {
    reads: u64,
    bytes: u64,
    run: Run,
}

impl Work {
    /// Work on about `bytes` bytes, of which it reads `reads` from files.
    pub(crate) fn new<T: Any + Send>(
        reads: u64,
        bytes: u64,
        run: impl FnOnce(&mut dyn ReadFile) -> T + Send + 'static,
    ) -> Self {
        Work { reads, bytes, run: Box::new(move |files| Product(Box::new(run(files)))) }
    }

    /// Bytes that it reads from files.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Bytes that it encodes, decodes or drops, roughly: what its time is in proportion to.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Carries it out.
    pub fn run(self, files: &mut dyn ReadFile) -> Product {
        (self.run)(files)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("reads", &self.reads).field("bytes", &self.bytes).finish()
    }
}

/// The result of [`Work`], for the node that handed it out.
pub struct Product(Box<dyn Any + Send>);

impl Product {
    /// Opens the result of work that gives a `T`.
    ///
    /// # Panics
    /// If the work gives something else: a bug of the node, or a host that mixed up two tickets.
    pub(crate) fn open<T: Any>(self) -> T {
        *self.0.downcast().expect("the product of other work than this ticket names")
    }
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Product")
    }
}
