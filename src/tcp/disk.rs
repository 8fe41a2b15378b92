//! The disk of a node: real files in its [`Directory`].
//!
//! The thread of the node hands over batches and never waits. Each queue has a *writer* that carries
//! its batches out, one operation after the other, so a snapshot does not stand in the way of the log.
//! A *reader* serves reads beside them, so a snapshot on its way to a follower does not wait for a
//! sync. A *worker* carries out what would keep the node from its heartbeats. One more thread makes
//! the next segment in advance; see [`segments`](super::segments).
//!
//! # What is durable when
//! `Sync` is fdatasync, which includes the length of the file; `SyncDir` is fsync of the directory.
//! Nothing is retried: after the first operation that fails nothing else is carried out, in that
//! batch or any later one of its queue, and every later batch fails with the same error. A failed fsync may have
//! dropped what it should have written, so a second one that succeeds would prove nothing. The
//! exception is a snapshot for which there is no room: the node drops it, and the queue goes on. Only
//! what is no failure is repeated, writes that were cut short and calls that a signal interrupted;
//! the standard library does so within one call; and a file that could not be opened because no file
//! descriptor was free, which changes nothing, see [`descriptors`](super::descriptors).
//!
//! The first batch that creates a segment is reported only after the directory's identity says that
//! the node's life has begun, so from then on a missing log is noticed.

mod handles;
#[cfg(test)]
mod lives;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use crate::env::{Completion, Disk, DiskOp, DiskQueue, FileName, ReadFile, Work};
use crate::error::{DiskError, DiskErrorKind};
use crate::tcp::descriptors::wait_for;
use crate::tcp::directory::{Directory, explain};
use crate::tcp::fs::{self, File};
use crate::tcp::segments::Spares;
use crate::types::Ticket;

pub use stats::DiskStats;

use writer::Writer;

/// Batches that wait for the writer; the driver submits the next one when one is done.
const MAX_BATCHES: usize = 2;

type Batch = (Ticket, Vec<DiskOp>);

/// A read that was asked for.
struct Read {
    ticket: Ticket,
    file: FileName,
    offset: u64,
    len: u32,
}

/// Where completions go, from either thread.
type Report = Arc<Mutex<dyn Fn(Completion) + Send>>;

/// The files of a node. Dropping it finishes what was submitted.
pub struct Files {
    directory: Arc<Directory>,
    /// By number of the queue; empty once the value is dropped.
    batches: Vec<SyncSender<Batch>>,
    reads: Option<Sender<Read>>,
    works: Option<Sender<(Ticket, Work)>>,
    threads: Vec<JoinHandle<()>>,
    stats: Arc<DiskStats>,
}

impl Files {
    /// Starts the threads. Segments of `segment_bytes` are made in advance; it should be the
    /// node's [`segment_bytes`](crate::config::Config::segment_bytes).
    ///
    /// Completions are handed to `report` on one of the threads. It may wait for the thread that
    /// calls [`Disk::submit`], but not for the one that drops this value.
    ///
    /// # Errors
    /// When the system grants no threads.
    pub fn start(
        directory: Arc<Directory>,
        segment_bytes: u64,
        report: impl Fn(Completion) + Send + 'static,
    ) -> Result<Files, DiskError> {
        let failed = |error: io::Error| failure("start of a thread", None, &error);
        let report: Report = Arc::new(Mutex::new(report));
        let stats = Arc::new(DiskStats::default());
        let spares = Spares::start(directory.clone(), segment_bytes).map_err(failed)?;
        let mut files = Files {
            directory: directory.clone(),
            batches: Vec::new(),
            reads: None,
            works: None,
            threads: Vec::new(),
            stats: stats.clone(),
        };
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let mut spares = Some(spares);
        for queue in DiskQueue::ALL {
            let (batches, submitted) = sync_channel::<Batch>(MAX_BATCHES);
            let mut writer = Writer::new(queue, directory.clone(), spares.take(), stats.clone());
            let reports = report.clone();
            let write = move || {
                for (ticket, ops) in submitted {
                    let outcome = survive("write", None, || writer.carry_out(ops));
                    tell(&reports, Completion::Done(queue, ticket, outcome));
                }
            };
            files.batches.push(batches);
            let name = match queue {
                DiskQueue::Log => "stormkv-disk",
                DiskQueue::Snapshot => "stormkv-snap",
            };
            files.threads.push(named(name).spawn(write).map_err(failed)?);
        }
        // Without a bound: a node reads one chunk at a time for each follower.
        let (reads, wanted) = channel::<Read>();
        files.reads = Some(reads);
        let (reports, of) = (report.clone(), directory.clone());
        let read = move || serve(&of, wanted, &reports);
        files.threads.push(named("stormkv-read").spawn(read).map_err(failed)?);
        // Without a bound: a node hands out one piece of each kind of work at a time.
        let (works, handed_out) = channel::<(Ticket, Work)>();
        files.works = Some(works);
        let work = move || {
            for (ticket, work) in handed_out {
                let product = survive("work", None, || Ok(work.run(&mut Reader(&directory))));
                tell(&report, Completion::Worked(ticket, product));
            }
        };
        files.threads.push(named("stormkv-work").spawn(work).map_err(failed)?);
        Ok(files)
    }

    /// Bytes that are free for this process on the file system of the directory; `None` if the system
    /// does not say.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        match rustix::fs::statvfs(self.directory.path()) {
            Ok(found) => Some(found.f_bavail.saturating_mul(found.f_frsize)),
            Err(error) => {
                debug!(path = %self.directory.path().display(), %error, "free space is unknown");
                None
            }
        }
    }

    /// What the disk has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<DiskStats> {
        self.stats.clone()
    }
}

impl Disk for Files {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        self.directory.list().map_err(|error| failure("listing", None, &error))
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        let content = fs::read(self.directory.file(file));
        content.map(Bytes::from).map_err(|error| failure("read", Some(file), &error))
    }

    fn free(&mut self) -> Option<u64> {
        Files::free(self)
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        let batches = &self.batches[queue as usize];
        batches.send((ticket, ops)).expect("the thread survives whatever a batch does");
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        let reads = self.reads.as_ref().expect("only dropping takes it");
        let read = Read { ticket, file, offset, len };
        reads.send(read).expect("the thread survives whatever a read does");
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        let works = self.works.as_ref().expect("only dropping takes it");
        works.send((ticket, work)).expect("the thread survives whatever the work does");
    }
}

/// Reads for work beside the node.
struct Reader<'a>(&'a Directory);

impl ReadFile for Reader<'_> {
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        read(self.0, file, offset, len).map_err(|error| failure("read", Some(file), &error))
    }
}

/// A world whose disk are [`Files`].
pub(super) trait OnFiles {
    /// The files.
    fn files(&mut self) -> &mut Files;
}

impl<W: OnFiles> Disk for W {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        self.files().list()
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.files().load(file)
    }

    fn free(&mut self) -> Option<u64> {
        Files::free(self.files())
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        self.files().submit(queue, ticket, ops);
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        self.files().fetch(ticket, file, offset, len);
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        self.files().work(ticket, work);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Without a sender the threads end after what is queued.
        self.batches.clear();
        self.reads = None;
        self.works = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The thread that reads. It opens a file for each read: a name may mean another file next time.
fn serve(directory: &Directory, wanted: Receiver<Read>, report: &Report) {
    for Read { ticket, file, offset, len } in wanted {
        let found = survive("read", Some(file), || {
            let found = read(directory, file, offset, len);
            found.map_err(|error| failure("read", Some(file), &error))
        });
        tell(report, Completion::Fetched(ticket, found));
    }
}

fn read(directory: &Directory, file: FileName, offset: u64, len: u32) -> io::Result<Bytes> {
    let path = directory.file(file);
    let file = wait_for(&path, || File::open(&path))?;
    // No more than there is, so that nobody can ask for memory.
    let there = file.metadata()?.len().saturating_sub(offset).min(u64::from(len));
    let mut data = vec![0; usize::try_from(there).map_err(io::Error::other)?];
    file.read_exact_at(&mut data, offset)?;
    Ok(Bytes::from(data))
}

/// A panic becomes an error that stops the node: without an answer it would wait for ever, and go on
/// leading meanwhile.
fn survive<T>(
    operation: &'static str,
    file: Option<FileName>,
    work: impl FnOnce() -> Result<T, DiskError>,
) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let error = io::Error::other("a bug: the thread of the disk panicked, see the log");
        Err(failure(operation, file, &error))
    })
}

fn tell(report: &Report, completion: Completion) {
    // A panic in an earlier call is no reason to keep this one from the node.
    let report = report.lock().unwrap_or_else(PoisonError::into_inner);
    report(completion);
}

pub(super) fn failure(
    operation: &'static str,
    file: Option<FileName>,
    error: &io::Error,
) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        _ => DiskErrorKind::Other,
    };
    DiskError { operation, file, kind, reason: explain(error) }
}

#[allow(clippy::disallowed_methods, reason = "the host has real time")]
fn now() -> Instant {
    Instant::now()
}
