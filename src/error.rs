//! Everything that can go wrong for good, in one flat enum.
//!
//! An [`Error`] stops a node or refuses to start one. What merely refuses one request is a
//! [`Refusal`](crate::api::Refusal), and reaches the client as a reply.

use std::fmt;

use crate::env::FileName;
use crate::types::{LogIndex, SnapshotId};

/// A disk operation that failed. A node never retries one: after a failed fsync the page cache may
/// have dropped the data, so a second fsync that succeeds would prove nothing (ATC'20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What was tried, for example `fsync`.
    pub operation: &'static str,
    /// On which file; `None` for the directory itself.
    pub file: Option<FileName>,
    /// Kind of the failure.
    pub kind: DiskErrorKind,
    /// What the system said.
    pub reason: String,
}

/// Kind of a [`DiskError`], as far as a node treats them in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskErrorKind {
    /// No room is left on the device, or a quota is used up (`ENOSPC`, `EDQUOT`).
    Full,
    /// Any other failure.
    #[default]
    Other,
}

impl DiskError {
    /// Returns whether there was no room for the operation.
    pub fn is_full(&self) -> bool {
        self.kind == DiskErrorKind::Full
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            Some(file) => write!(f, "{} of {file} failed: {}", self.operation, self.reason),
            None => write!(f, "{} of the data directory failed: {}", self.operation, self.reason),
        }
    }
}

impl std::error::Error for DiskError {}

/// Why a node stopped, or would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense; says which setting and what it may be.
    Config(String),
    /// A disk operation failed; the node stops rather than guess what is durable.
    Disk(DiskError),
    /// Bytes that were once made durable are damaged.
    Corrupt {
        /// The damaged file.
        file: FileName,
        /// Where in it the damage begins, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file was written by a newer version of stormkv.
    NewerVersion {
        /// The file.
        file: FileName,
        /// Its format version.
        found: u32,
        /// The newest one this build reads.
        supported: u32,
    },
    /// The leader counts on entries that this member has acknowledged, but does not hold any more.
    /// What else it has forgotten, such as votes, nobody knows.
    DataLost {
        /// This member has acknowledged all up to here.
        acknowledged: LogIndex,
        /// The last entry of its log.
        last: LogIndex,
    },
    /// Part of what this member held durably is damaged, and nobody gave it back in time; see
    /// [`Config::repair_ticks`](crate::config::Config::repair_ticks). Started again, the member
    /// tries again.
    BeyondRepair {
        /// The damaged file.
        file: FileName,
        /// Where in it the damage begins, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
        /// The member is whole when its log reaches this entry, or one of a later term.
        floor: SnapshotId,
    },
    /// This member was removed from the cluster.
    Removed,
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Error::Disk(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(what) => write!(f, "invalid configuration: {what}"),
            Error::Disk(error) => write!(
                f,
                "{error}; the node stops, because what is durable is no longer known: \
                 fix the disk and start the node again"
            ),
            Error::Corrupt { file, offset, reason } => write!(
                f,
                "{file} is damaged at byte {offset}: {reason}; nothing was changed: restore the \
                 file, or remove this member and add a new one with an empty disk"
            ),
            Error::NewerVersion { file, found, supported } => write!(
                f,
                "{file} has format version {found}, this build reads up to {supported}: \
                 start the newer version of stormkv that wrote it"
            ),
            Error::DataLost { acknowledged, last } => write!(
                f,
                "this member has acknowledged all entries up to {acknowledged}, but its log ends \
                 at {last}: its data was lost, or replaced by an old copy; remove this member \
                 and add a new one, with a new id and an empty data directory"
            ),
            Error::BeyondRepair { file, offset, reason, floor } => write!(
                f,
                "{file} is damaged at byte {offset}: {reason}; no leader has given this member \
                 back its log up to entry {} of term {}: start the members that have it and then \
                 this one again, or remove this member and add a new one, with a new id and an \
                 empty data directory",
                floor.index, floor.term
            ),
            Error::Removed => write!(f, "this member was removed from the cluster"),
        }
    }
}

impl std::error::Error for Error {}
