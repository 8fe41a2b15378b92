//! What can go wrong on the disk of one node.

use std::fmt;

use super::super::grammar::{GrammarError, Tokens};
use super::{Fault, Kind, Who, parse_who};

/// One thing that goes wrong on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFault {
    /// `fsync-fail N`: the next sync fails, and what it should have made durable may be lost. The
    /// node stops; started again at until.
    Sync,
    /// `disk-error N write`: the next write fails with an I/O error. Started again at until.
    Write,
    /// `disk-error N read`: the next read fails with an I/O error. Started again at until.
    Read,
    /// `disk-error N space`: the next write fails because the disk is full. Started again at until.
    Space,
    /// `disk-error N OPERATION FILES [K]`: of the next operations of this kind on such files, the K-th
    /// fails with an I/O error: the first one, unless K is given. Started again at until.
    Aimed(DiskAim),
    /// `slow-disk N F`: every disk operation takes this many times as long.
    Slow(u32),
    /// `short-write N`: of the next write only a part reaches the disk, and it fails. Started again
    /// at until.
    ShortWrite,
    /// `stall-disk N`: no disk operation ends before until; the node itself goes on.
    Stall,
    /// `lose-entry N`: a power loss in which all unsynced changes of the directory are lost, at one
    /// of the next moments at which there are some. Started again at until.
    LoseEntry,
    /// `rot N log|snapshot HOW`: durable bytes change, and nothing says so. Only bytes that are
    /// vouched for are hit, so that it can be told from a torn tail.
    Rot(DiskPart, Rot),
    /// `misdirect N log|snapshot`: a write that was acknowledged has gone elsewhere: a record of the
    /// log has never reached its place, but stands in another one, in the log or in a snapshot.
    Misdirect(DiskPart),
    /// `stale-read N log|snapshot`: at its next start the node reads some sectors as they were
    /// before they were written. Disarmed at until.
    StaleRead(DiskPart),
}

/// Which operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskAim {
    /// What is done.
    pub operation: DiskOperation,
    /// To which files.
    pub files: FileKind,
    /// Counted from 1, from the time of the fault on.
    pub number: u32,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// Its word in a plan.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// An operation of a disk.
    DiskOperation {
        /// A file is created, or emptied and filled with zeros.
        Create = "create",
        /// Bytes are written.
        Write = "write",
        /// Content, or the directory, is made durable.
        Sync = "sync",
        /// A file gets another name. Aimed at either.
        Rename = "rename",
        /// A file is removed.
        Remove = "remove",
        /// Bytes are read.
        Read = "read",
    }
}

words! {
    /// A kind of file.
    FileKind {
        /// A segment of the write-ahead log.
        Log = "log",
        /// A complete snapshot.
        Snapshot = "snapshot",
        /// A snapshot that is being written or received.
        Partial = "partial",
        /// The directory, which is only synced.
        Directory = "directory",
    }
}

impl DiskAim {
    /// Whether a disk ever does this.
    fn is_possible(self) -> bool {
        let (operation, files) = (self.operation, self.files);
        match files {
            FileKind::Directory => operation == DiskOperation::Sync,
            FileKind::Log => operation != DiskOperation::Rename,
            // Written under its other name.
            FileKind::Snapshot => {
                use DiskOperation::{Read, Remove, Rename};
                matches!(operation, Read | Remove | Rename)
            }
            FileKind::Partial => true,
        }
    }

    fn parse(operation: DiskOperation, tokens: &mut Tokens<'_>) -> Result<Self, GrammarError> {
        let word = tokens.need("the kind of files")?;
        let Some(files) = FileKind::ALL.iter().copied().find(|files| files.name() == word) else {
            return tokens.fail(format!("`{word}` is not a kind of files"));
        };
        let number = match tokens.peek() {
            Some(_) => tokens.number("a count of operations", 1, MAX_COUNT)?,
            None => 1,
        };
        let aim = DiskAim { operation, files, number };
        match aim.is_possible() {
            true => Ok(aim),
            false => tokens.fail(format!("no disk ever does `{} {word}`", operation.name())),
        }
    }
}

/// Which files silent damage hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPart {
    /// The segments of the write-ahead log.
    Log,
    /// The newest snapshot.
    Snapshot,
}

/// How bytes rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// `1` to `1000`: so many bits flip, close to each other.
    Bits(u32),
    /// `zeros`: a sector reads as zeros.
    Zeros,
    /// `garbage`: a sector reads as garbage.
    Garbage,
}

/// The most bits that flip at once.
const MAX_BITS: u32 = 1000;
/// The most operations that an aimed failure waits for.
const MAX_COUNT: u32 = 1000;

/// The kinds of this family.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        verb: "fsync-fail",
        form: "fsync-fail N|leader|same",
        names: &["fsync-fail"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, DiskFault::Sync)),
    },
    Kind {
        verb: "disk-error",
        form: "disk-error N|leader|same write|read|space` or `disk-error N|leader|same \
               create|write|sync|rename|remove|read log|snapshot|partial|directory [K]",
        names: &["disk-error"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, parse_error(tokens)?)),
    },
    Kind {
        verb: "slow-disk",
        form: "slow-disk N|leader|same FACTOR",
        names: &["slow-disk"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, parse_slow(tokens)?)),
    },
    Kind {
        verb: "short-write",
        form: "short-write N|leader|same",
        names: &["short-write"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, DiskFault::ShortWrite)),
    },
    Kind {
        verb: "stall-disk",
        form: "stall-disk N|leader|same",
        names: &["stall-disk"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, DiskFault::Stall)),
    },
    Kind {
        verb: "lose-entry",
        form: "lose-entry N|leader|same",
        names: &["lose-entry"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, DiskFault::LoseEntry)),
    },
    Kind {
        verb: "rot",
        form: "rot N|leader|same log|snapshot BITS|zeros|garbage",
        names: &["rot"],
        parse: |tokens| Ok(Fault::Disk(parse_who(tokens)?, parse_rot(tokens)?)),
    },
    Kind {
        verb: "misdirect",
        form: "misdirect N|leader|same log|snapshot",
        names: &["misdirect"],
        parse: |tokens| {
            Ok(Fault::Disk(parse_who(tokens)?, DiskFault::Misdirect(DiskPart::parse(tokens)?)))
        },
    },
    Kind {
        verb: "stale-read",
        form: "stale-read N|leader|same log|snapshot",
        names: &["stale-read"],
        parse: |tokens| {
            Ok(Fault::Disk(parse_who(tokens)?, DiskFault::StaleRead(DiskPart::parse(tokens)?)))
        },
    },
];

impl DiskFault {
    /// The name under which it is counted.
    pub(super) fn kind(self) -> &'static str {
        match self {
            DiskFault::Sync => "fsync-fail",
            DiskFault::Write | DiskFault::Read | DiskFault::Space | DiskFault::Aimed(_) => {
                "disk-error"
            }
            DiskFault::Slow(_) => "slow-disk",
            DiskFault::ShortWrite => "short-write",
            DiskFault::Stall => "stall-disk",
            DiskFault::LoseEntry => "lose-entry",
            DiskFault::Rot(..) => "rot",
            DiskFault::Misdirect(_) => "misdirect",
            DiskFault::StaleRead(_) => "stale-read",
        }
    }

    /// Whether it is only armed at its time, and waits for its moment to strike.
    pub(super) fn waits(self) -> bool {
        self.stops() || matches!(self, DiskFault::StaleRead(_))
    }

    /// Whether a node may be down by it until it is mended.
    pub(crate) fn stops(self) -> bool {
        match self {
            DiskFault::Sync
            | DiskFault::Write
            | DiskFault::Read
            | DiskFault::Space
            | DiskFault::Aimed(_)
            | DiskFault::ShortWrite
            | DiskFault::LoseEntry => true,
            DiskFault::Slow(_) | DiskFault::Stall => false,
            DiskFault::Rot(..) | DiskFault::Misdirect(_) | DiskFault::StaleRead(_) => false,
        }
    }

    /// Whether it damages what is durable (or seems to) without a word, and so needs the atlas.
    pub fn is_silent(self) -> bool {
        matches!(self, DiskFault::Rot(..) | DiskFault::Misdirect(_) | DiskFault::StaleRead(_))
    }

    /// The files that it hits; of those that are not silent, that is the log.
    pub fn part(self) -> DiskPart {
        match self {
            DiskFault::Rot(part, _) | DiskFault::Misdirect(part) | DiskFault::StaleRead(part) => {
                part
            }
            _ => DiskPart::Log,
        }
    }

    /// Writes the whole text, given whom it hits.
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>, who: Who) -> fmt::Result {
        write!(f, "{} {who}", self.kind())?;
        match self {
            DiskFault::Write => f.write_str(" write"),
            DiskFault::Read => f.write_str(" read"),
            DiskFault::Space => f.write_str(" space"),
            DiskFault::Aimed(DiskAim { operation, files, number }) => {
                write!(f, " {} {}", operation.name(), files.name())?;
                if number > 1 { write!(f, " {number}") } else { Ok(()) }
            }
            DiskFault::Slow(factor) => write!(f, " {factor}"),
            DiskFault::Rot(part, Rot::Bits(bits)) => write!(f, " {} {bits}", part.name()),
            DiskFault::Rot(part, Rot::Zeros) => write!(f, " {} zeros", part.name()),
            DiskFault::Rot(part, Rot::Garbage) => write!(f, " {} garbage", part.name()),
            DiskFault::Misdirect(part) | DiskFault::StaleRead(part) => {
                write!(f, " {}", part.name())
            }
            DiskFault::Sync | DiskFault::ShortWrite | DiskFault::Stall | DiskFault::LoseEntry => {
                Ok(())
            }
        }
    }
}

fn parse_error(tokens: &mut Tokens<'_>) -> Result<DiskFault, GrammarError> {
    match tokens.need("the kind of error")? {
        "write" if tokens.peek().is_none() => Ok(DiskFault::Write),
        "read" if tokens.peek().is_none() => Ok(DiskFault::Read),
        "space" => Ok(DiskFault::Space),
        word => match DiskOperation::ALL.iter().find(|known| known.name() == word) {
            Some(operation) => Ok(DiskFault::Aimed(DiskAim::parse(*operation, tokens)?)),
            None => tokens.fail(format!("`{word}` is not a kind of error")),
        },
    }
}

fn parse_slow(tokens: &mut Tokens<'_>) -> Result<DiskFault, GrammarError> {
    Ok(DiskFault::Slow(tokens.number("a factor", 2, 10_000)?))
}

fn parse_rot(tokens: &mut Tokens<'_>) -> Result<DiskFault, GrammarError> {
    let part = DiskPart::parse(tokens)?;
    let how = if tokens.take_if("zeros") {
        Rot::Zeros
    } else if tokens.take_if("garbage") {
        Rot::Garbage
    } else {
        Rot::Bits(tokens.number("a count of bits", 1, MAX_BITS)?)
    };
    Ok(DiskFault::Rot(part, how))
}

impl DiskPart {
    fn parse(tokens: &mut Tokens<'_>) -> Result<Self, GrammarError> {
        match tokens.need("the part of the disk")? {
            "log" => Ok(DiskPart::Log),
            "snapshot" => Ok(DiskPart::Snapshot),
            word => tokens.fail(format!("`{word}` is not a part of the disk")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            DiskPart::Log => "log",
            DiskPart::Snapshot => "snapshot",
        }
    }
}
