//! The world as a node sees it: three small traits, implemented by the simulator, by the `tcp`
//! feature and, for tests, by [`memory`](crate::memory).
//!
//! A node never waits. It hands work to its host through these traits, and what comes of the work
//! is handed back to it as an input. So the same node code runs in virtual time and in real time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Reply, RequestId};
use crate::error::DiskError;
use crate::types::{LogIndex, NodeId, Term, Ticket};
use crate::wire::Message;
pub use crate::work::{Product, ReadFile, Work};

/// Tells the time.
pub trait Clock {
    /// Time since some fixed point in the past. It should never go backwards, but virtual machines
    /// have been seen to set even monotonic clocks back. No promise of a node rests on its clock:
    /// one that runs fast or slow, jumps or stops costs time at most, see
    /// [`Driver::wake`](crate::driver::Driver::wake).
    fn now(&self) -> Duration;
}

/// Carries messages to other nodes and replies to clients.
pub trait Transport {
    /// Sends `message` to the node `to`, or drops it: delivery is never certain, and this never
    /// blocks. Messages may be lost, delayed, duplicated and reordered; only a
    /// [`Message::Forward`] must arrive at most once (as it does on a connection that never
    /// resends), because a refusal speaks for one copy of a request.
    fn send(&mut self, to: NodeId, message: Message);

    /// Answers a request that was handed to the driver of this node.
    fn reply(&mut self, request: RequestId, reply: Reply);
}

/// One file in a node's data directory. Each has one fixed name on a real disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `wal-<number>`: a segment of the write-ahead log, numbered upwards from 1.
    Segment(u64),
    /// `snap-<index>-<term>`: a complete, durable snapshot.
    Snapshot(LogIndex, Term),
    /// `snap-<index>-<term>.part`: a snapshot that is being written or received.
    Partial(LogIndex, Term),
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Segment(n) => write!(f, "wal-{n:016x}"),
            FileName::Snapshot(index, term) => write!(f, "snap-{index:016x}-{term:016x}"),
            FileName::Partial(index, term) => write!(f, "snap-{index:016x}-{term:016x}.part"),
        }
    }
}

/// A text that is not the name of a file of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFileNameError {
    name: String,
}

impl fmt::Display for ParseFileNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not the name of a file of a data directory: expected wal-NUMBER, \
             snap-INDEX-TERM or snap-INDEX-TERM.part, each number with 16 lower-case hexadecimal \
             digits",
            self.name
        )
    }
}

impl std::error::Error for ParseFileNameError {}

impl FromStr for FileName {
    type Err = ParseFileNameError;

    /// The inverse of `Display`. Other spellings of a number are refused, so that no two names on a
    /// disk mean the same file.
    fn from_str(name: &str) -> Result<Self, ParseFileNameError> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parse = || {
            if let Some(text) = name.strip_prefix("wal-") {
                return number(text).map(FileName::Segment);
            }
            let text = name.strip_prefix("snap-")?;
            let (ids, partial) = match text.strip_suffix(".part") {
                Some(ids) => (ids, true),
                None => (text, false),
            };
            let (index, term) = ids.split_once('-')?;
            let (index, term) = (number(index)?, number(term)?);
            Some(match partial {
                true => FileName::Partial(index, term),
                false => FileName::Snapshot(index, term),
            })
        };
        parse()
            .filter(|file| file.to_string() == name)
            .ok_or_else(|| ParseFileNameError { name: name.to_owned() })
    }
}

/// One step of a batch for the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Creates the file with `len` zero bytes, or empties and refills it if it exists. The file's
    /// name is durable only after [`DiskOp::SyncDir`].
    Create {
        /// Which file.
        file: FileName,
        /// Its length, in bytes.
        len: u64,
    },
    /// Writes at `offset`, growing the file if needed. Durable only after [`DiskOp::Sync`].
    Write {
        /// Which file; it exists.
        file: FileName,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// Makes the content of `file` durable (fdatasync).
    Sync {
        /// Which file.
        file: FileName,
    },
    /// Renames atomically, replacing `to`. Durable only after [`DiskOp::SyncDir`].
    Rename {
        /// The file's name so far.
        from: FileName,
        /// Its new name.
        to: FileName,
    },
    /// Removes the file if it exists. Durable only after [`DiskOp::SyncDir`].
    Remove {
        /// Which file.
        file: FileName,
    },
    /// Makes the directory durable: creations, renames and removals.
    SyncDir,
}

impl DiskOp {
    /// Bytes that it writes.
    pub fn bytes(&self) -> u64 {
        match self {
            DiskOp::Write { data, .. } => data.len() as u64,
            _ => 0,
        }
    }

    /// Bytes by which it makes files larger, at most. What is written to a segment of the log goes to
    /// where its creation has made room.
    pub fn room(&self) -> u64 {
        match self {
            DiskOp::Create { len, .. } => *len,
            DiskOp::Write { file: FileName::Segment(_), .. } => 0,
            op => op.bytes(),
        }
    }
}

/// The two queues of a disk. Each carries out its batches in order; nothing is promised about the
/// order between them, so a large snapshot never stands in the way of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskQueue {
    /// The write-ahead log: small batches that clients and other members wait for.
    Log,
    /// Snapshot files: large pieces that can wait.
    Snapshot,
}

impl DiskQueue {
    /// Both queues, in the order of their numbers.
    pub const ALL: [DiskQueue; 2] = [DiskQueue::Log, DiskQueue::Snapshot];
}

/// Keeps files.
pub trait Disk {
    /// Which files exist, in any order. Used only while a node starts, so it may block.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&mut self) -> Result<Vec<FileName>, DiskError>;

    /// The whole content of a file. Used only while a node starts, so it may block.
    ///
    /// # Errors
    /// When the file does not exist or cannot be read.
    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError>;

    /// Bytes that are free for files; `None` if that is not known. Used only while a node starts, so
    /// it may block; later the host reports it with
    /// [`Driver::report_free`](crate::driver::Driver::report_free).
    fn free(&mut self) -> Option<u64> {
        None
    }

    /// Begins to carry out `ops`, in order, stopping at the first that fails. Afterwards the host
    /// hands the driver a [`Completion::Done`] with this queue and ticket. The driver submits one
    /// batch at a time to each queue. A batch of the queue for snapshots that fails because the disk
    /// is full must not keep later ones from being carried out.
    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>);

    /// Begins to read up to `len` bytes (fewer at the end of the file). Afterwards the host hands
    /// the driver a [`Completion::Fetched`]. Reads may overtake batches.
    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32);

    /// Begins to carry out `work` beside the node. Afterwards the host hands the driver a
    /// [`Completion::Worked`] with this ticket.
    fn work(&mut self, ticket: Ticket, work: Work);
}

/// What became of work given to the [`Disk`].
#[derive(Debug)]
pub enum Completion {
    /// The batch of this queue with this ticket is done and durable as far as it asked for, or it
    /// failed.
    Done(DiskQueue, Ticket, Result<(), DiskError>),
    /// The read with this ticket is done.
    Fetched(Ticket, Result<Bytes, DiskError>),
    /// The work with this ticket is done, or the host could not carry it out.
    Worked(Ticket, Result<Product, DiskError>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn file_name_round_trip(one: u64, other: u64) {
            for file in [
                FileName::Segment(one),
                FileName::Snapshot(one, other),
                FileName::Partial(one, other),
            ] {
                prop_assert_eq!(file.to_string().parse(), Ok(file));
            }
        }
    }

    #[test]
    fn file_name_other_spelling_refused() {
        let segment = "wal-00000000000000ab";
        let snapshot = "snap-00000000000000ab-0000000000000002";
        for name in [
            "".to_owned(),
            "lock".to_owned(),
            "wal-ab".to_owned(),
            segment.to_uppercase(),
            segment.replace("ab", "AB"),
            segment.replace("wal-0", "wal-+"),
            format!("{segment}.part"),
            format!("{segment}.removed"),
            format!(" {segment}"),
            format!("{snapshot}.part.part"),
            format!("{snapshot}-0000000000000003"),
            snapshot[..22].to_owned(),
        ] {
            let error = name.parse::<FileName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?} is not the name of a file")), "{error}");
        }
    }
}
