//! The simulated disk of one node: a write cache, and behind it what is durable.
//!
//! The disk is passive: it knows no time, and the simulation decides when an operation takes effect.
//! Every operation takes effect in the cache at once; only `Sync` and `SyncDir` make it durable.
//!
//! The fault model follows "Can Applications Recover from fsync Failures?" (ATC'20) and "All File
//! Systems Are Not Created Equal" (OSDI'14):
//! - At a power loss any subset of the unsynced sectors survives, and one may be torn. The kernel
//!   may also have written back an older version of a sector in the meantime.
//! - Any subset of the unsynced creations, renames and removals survives. Each one is atomic, and
//!   content belongs to the file and not to its name: a renamed file may come back empty.
//! - A failed fsync drops what was dirty: the cache falls back to the durable bytes (btrfs), or
//!   goes on to show the new ones, marked clean (ext4, XFS). A second fsync succeeds either way.
//!   Names stay pending after a failed sync of the directory, as in a journal.
//! - A failed write may have written a part; a short one certainly has.
//! - Durable bytes rot, and end up in other places than they were meant for; a read returns what was
//!   there before. Where is for the caller to say: see `rot.rs`.
//!
//! A byte that is rewritten with the value it had is never damaged by a torn write ("powersafe
//! overwrite", as SQLite calls it), so synced bytes stay intact beside an append to their sector.
//! Reads return what the running process sees.
//!
//! A disk may have a size. What counts is what the process sees: the room of a removed file is free at
//! once, as `statfs` has it, although a crash may bring the file back. A write that needs that room
//! makes the removal durable first, as file systems commit their journal before they give up.

mod aim;
mod file;
mod old_format;
mod rot;
mod stats;
mod survival;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use stormkv::env::{DiskOp, FileName, ReadFile};
use stormkv::error::{DiskError, DiskErrorKind};

use crate::plan::{DiskAim, DiskOperation};
use crate::rng::{self, Purpose, Stream};
use aim::Aims;
use file::File;
use rot::Stale;
use survival::{Fate, Survival};

pub(crate) use old_format::older;
#[cfg(test)]
pub(crate) use old_format::with_version;
pub use stats::DiskStats;

/// What a disk writes in one go, in bytes.
pub const SECTOR: usize = 512;

/// No file grows beyond this, in bytes. It keeps a wild offset from exhausting the host's memory.
pub const MAX_FILE: u64 = 1 << 30;

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The machine stops: the cache is lost, apart from what happened to reach the disk.
    PowerLoss,
    /// As a power loss that comes before anything of the directory has reached the disk: all its
    /// unsynced changes are lost.
    LosesEntries,
    /// The process dies: the cache is the kernel's, and survives as it is.
    Kill,
}

/// A way in which one operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The next `Sync` or `SyncDir` fails, and the dirty state it covers is dropped.
    SyncFails,
    /// The next `Write` or `Create` fails, possibly after writing a part.
    WriteFails,
    /// The next `load` or `read` fails.
    ReadFails,
    /// The next `Write` or `Create` finds no space, possibly after writing a part.
    NoSpace,
    /// The next `Write` of more than one byte writes a part, but not all, and fails.
    ShortWrite,
}

/// A file's identity, which renaming does not change.
type Inode = u64;
type Directory = BTreeMap<FileName, Inode>;

/// A change of the directory that is not durable yet.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The inode is now known by this name, and by no other.
    Name(FileName, Inode),
    /// The inode is no longer known by this name.
    Unname(FileName, Inode),
}

/// The disk of one node.
#[derive(Clone, Debug)]
pub struct SimDisk {
    seed: u64,
    node: u64,
    inodes: BTreeMap<Inode, File>,
    next_inode: Inode,
    /// The directory as the running process sees it.
    names: Directory,
    durable_names: Directory,
    /// What turns `durable_names` into `names`, apart from changes that a failed sync dropped.
    changes: Vec<Change>,
    /// Failures to come, with the fault each belongs to.
    armed: Vec<(FaultKind, u32)>,
    aims: Aims,
    stale: Vec<Stale>,
    /// How often each fault has drawn from each of its streams.
    occurrences: BTreeMap<(Purpose, u32), u64>,
    writeback: Stream,
    /// Bytes that all files together may have; `None` if there is no limit.
    size: Option<u64>,
    stats: DiskStats,
}

impl SimDisk {
    /// An empty disk. `node` and `seed` decide all that is left to chance.
    pub fn new(seed: u64, node: u64) -> Self {
        SimDisk {
            seed,
            node,
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: Directory::new(),
            durable_names: Directory::new(),
            changes: Vec::new(),
            armed: Vec::new(),
            aims: Aims::default(),
            stale: Vec::new(),
            occurrences: BTreeMap::new(),
            writeback: Stream::new(seed, Purpose::DiskWriteback, [node]),
            size: None,
            stats: DiskStats::default(),
        }
    }

    /// Gives the disk this size in bytes, or no limit.
    pub fn set_size(&mut self, size: Option<u64>) {
        self.size = size;
    }

    /// Bytes that are free; `None` if the disk has no limit.
    pub fn free(&self) -> Option<u64> {
        Some(self.size?.saturating_sub(self.bytes_used()))
    }

    /// From now on, chance decides as in the fork with this salt; see [`rng::fork`].
    pub(crate) fn fork(&mut self, salt: u64) {
        self.seed = rng::fork(self.seed, salt);
        self.writeback.fork(salt);
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// When the file does not exist, when it would grow beyond [`MAX_FILE`], when the disk is full, or
    /// when a fault says so. A failed write or creation may have had a part of its effect.
    pub fn execute(&mut self, op: &DiskOp) -> Result<(), DiskError> {
        if self.aims.is_empty() {
            return self.carry_out(op);
        }
        let (operation, files) = aim::target(op);
        let Some(fault) = self.aims.hit(operation, &files) else { return self.carry_out(op) };
        let kind = match op {
            DiskOp::Create { .. } | DiskOp::Write { .. } => FaultKind::WriteFails,
            DiskOp::Sync { .. } | DiskOp::SyncDir => FaultKind::SyncFails,
            // They are atomic, so nothing has happened.
            DiskOp::Rename { from: file, .. } | DiskOp::Remove { file } => {
                self.stats.failed_writes += 1;
                return Err(error(operation.name(), Some(*file), IO_ERROR));
            }
        };
        self.armed.insert(0, (kind, fault));
        let result = self.carry_out(op);
        // An operation that fails for another reason does not pass it on.
        self.armed.retain(|(_, armed)| *armed != fault);
        result
    }

    fn carry_out(&mut self, op: &DiskOp) -> Result<(), DiskError> {
        match op {
            DiskOp::Create { file, len } => self.create(*file, *len),
            DiskOp::Write { file, offset, data } => self.write(*file, *offset, data),
            DiskOp::Sync { file } => self.sync(*file),
            DiskOp::Rename { from, to } => self.rename(*from, *to),
            DiskOp::Remove { file } => {
                if let Some(inode) = self.names.remove(file) {
                    self.set_named(inode, false);
                    self.changes.push(Change::Unname(*file, inode));
                }
                Ok(())
            }
            DiskOp::SyncDir => self.sync_directory(),
        }
    }

    /// Which files exist, in order of their names.
    pub fn list(&self) -> Vec<FileName> {
        self.files().collect()
    }

    /// The same, one by one.
    pub fn files(&self) -> impl Iterator<Item = FileName> {
        self.names.keys().copied()
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// When the file does not exist, or when a fault says so.
    pub fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        let bytes = self.read(file, 0, usize::MAX)?;
        Ok(self.aged(file, bytes))
    }

    /// Up to `len` bytes from `offset`, fewer at the end of the file.
    ///
    /// # Errors
    /// When the file does not exist, or when a fault says so.
    pub fn read(&mut self, file: FileName, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let aimed = self.aims.hit(DiskOperation::Read, &[aim::kind(file)]);
        if aimed.is_some() || self.take_fault(FaultKind::ReadFails).is_some() {
            self.stats.failed_reads += 1;
            return Err(error("read", Some(file), IO_ERROR));
        }
        let bytes = self.file(file, "read")?.cached();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(len).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[start..end]))
    }

    /// Takes the node down. `fault` is the plan's number for the fault that does it: what survives
    /// is drawn from it, so it stays the same when other faults are removed from the plan.
    pub fn crash(&mut self, crash: Crash, fault: u32) {
        if crash == Crash::Kill {
            return;
        }
        self.stats.power_losses += 1;
        let mut survival = Survival::draw(self.draws(Purpose::DiskCrash, fault));
        survival.begin(self.changes.len() as u64);
        for change in std::mem::take(&mut self.changes) {
            if crash != Crash::LosesEntries && survival.next_fate() == Fate::Kept {
                make_durable(&mut self.durable_names, change);
            } else {
                self.stats.entries_lost += 1;
            }
        }
        self.names.clone_from(&self.durable_names);
        for file in self.inodes.values_mut() {
            file.named = false;
        }
        for inode in self.names.values() {
            self.inodes.get_mut(inode).expect("every name has its file").named = true;
        }
        self.forget_unnamed_files();

        let dirty = self.inodes.values().map(File::dirty_sectors).sum();
        survival.tear_one_of(dirty);
        for file in self.inodes.values_mut() {
            let (lost, torn) = file.settle(&mut survival);
            file.drop_cache();
            self.stats.sectors_lost += lost;
            self.stats.sectors_torn += torn;
        }
    }

    /// Lets the next operation of this kind fail, once. `fault` is the plan's number for it.
    pub fn fail_next(&mut self, kind: FaultKind, fault: u32) {
        self.armed.push((kind, fault));
    }

    /// Lets an operation that this is aimed at fail, once.
    pub fn fail_at(&mut self, aim: DiskAim, fault: u32) {
        self.aims.add(aim, fault);
    }

    /// The faults that have armed something that has not happened yet.
    pub fn armed(&self) -> impl Iterator<Item = u32> {
        let stale = self.stale.iter().map(|stale| stale.fault);
        self.armed.iter().map(|(_, fault)| *fault).chain(self.aims.faults()).chain(stale)
    }

    /// Takes back what this fault has armed and what has not happened yet.
    pub fn disarm(&mut self, fault: u32) {
        self.armed.retain(|(_, armed)| *armed != fault);
        self.aims.disarm(Some(fault));
        self.disarm_stale(Some(fault));
    }

    /// As [`disarm`](Self::disarm), for all faults.
    pub fn disarm_all(&mut self) {
        self.armed.clear();
        self.aims.disarm(None);
        self.disarm_stale(None);
    }

    /// Whether a crash may still take names back.
    pub fn has_pending_names(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The content of a file as the process sees it, if there is such a file. No fault strikes.
    pub fn look(&self, file: FileName) -> Option<Bytes> {
        let file = self.inodes.get(self.names.get(&file)?)?;
        Some(Bytes::copy_from_slice(file.cached()))
    }

    /// Somebody else, while the node is down, gives a file this content, and makes it durable.
    pub fn rewrite(&mut self, file: FileName, bytes: &[u8]) {
        if let Some(file) = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)) {
            file.rewrite(bytes);
        }
    }

    /// A new, empty disk takes the place of this one.
    pub fn wipe(&mut self) {
        self.inodes.clear();
        self.names.clear();
        self.durable_names.clear();
        self.changes.clear();
        self.armed.clear();
        self.aims.disarm(None);
    }

    /// Bytes that the next sync of this file transfers; 0 if there is no such file.
    pub fn unsynced_bytes(&self, file: FileName) -> u64 {
        let inode = self.names.get(&file).and_then(|inode| self.inodes.get(inode));
        inode.map_or(0, File::unsynced)
    }

    /// The sizes of all files together, in bytes.
    pub fn bytes_used(&self) -> u64 {
        let named = self.inodes.values().filter(|file| file.named);
        named.map(|file| file.cached().len() as u64).sum()
    }

    /// What has happened so far.
    pub fn stats(&self) -> &DiskStats {
        &self.stats
    }

    fn create(&mut self, name: FileName, len: u64) -> Result<(), DiskError> {
        check_size("create", name, len)?;
        let now = self.names.get(&name).map_or(0, |inode| self.inodes[inode].cached().len() as u64);
        self.make_room("create", name, len.saturating_sub(now))?;
        let failure = self.write_failure("create", name);
        let made = match &failure {
            // It fails before it begins, or with the file there but not at its full size.
            Some((_, draws)) if draws.at(0).0 & 1 == 0 => None,
            Some((_, draws)) => Some(draws.at(1).below(len + 1)),
            None => Some(len),
        };
        if let Some(len) = made {
            let inode = match self.names.get(&name) {
                Some(&inode) => inode,
                None => self.new_file(name),
            };
            let file = self.inodes.get_mut(&inode).expect("every name has its file");
            file.refill(len as usize);
        }
        failure.map_or(Ok(()), |(error, _)| Err(error))
    }

    fn new_file(&mut self, name: FileName) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, File::default());
        self.names.insert(name, inode);
        self.set_named(inode, true);
        self.changes.push(Change::Name(name, inode));
        inode
    }

    fn write(&mut self, name: FileName, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        check_size("write", name, offset.saturating_add(data.len() as u64))?;
        let now = self.file(name, "write")?.cached().len() as u64;
        let end = offset.saturating_add(data.len() as u64);
        self.make_room("write", name, end.saturating_sub(now))?;
        let short = if data.len() > 1 { self.take_fault(FaultKind::ShortWrite) } else { None };
        let (len, failure) = match short {
            Some(fault) => {
                self.stats.short_writes += 1;
                let len = 1 + self.draws(Purpose::DiskFault, fault).below(data.len() as u64 - 1);
                (len as usize, Some(error("write", Some(name), SHORT_WRITE)))
            }
            None => match self.write_failure("write", name) {
                Some((error, draws)) => {
                    (draws.at(0).below(data.len() as u64 + 1) as usize, Some(error))
                }
                None => (data.len(), None),
            },
        };
        let file = self.inodes.get_mut(&self.names[&name]).expect("every name has its file");
        file.write(offset as usize, &data[..len], &mut self.writeback);
        match failure {
            Some(error) => Err(error),
            None => {
                self.stats.writes += 1;
                Ok(())
            }
        }
    }

    /// Sees to it that a file can grow by so many bytes.
    fn make_room(
        &mut self,
        operation: &'static str,
        name: FileName,
        more: u64,
    ) -> Result<(), DiskError> {
        let Some(size) = self.size.filter(|_| more > 0) else { return Ok(()) };
        if self.bytes_used() + more > size {
            self.stats.failed_writes += 1;
            return Err(error(operation, Some(name), DISK_FULL));
        }
        let held = self.inodes.values().map(|file| file.cached().len() as u64).sum::<u64>();
        if held + more > size {
            self.commit_names();
        }
        Ok(())
    }

    fn sync(&mut self, name: FileName) -> Result<(), DiskError> {
        let Some(file) = self.names.get(&name).and_then(|inode| self.inodes.get_mut(inode)) else {
            return Err(error("fsync", Some(name), NO_SUCH_FILE));
        };
        if self.armed.is_empty() {
            file.sync();
            self.stats.syncs += 1;
            return Ok(());
        }
        self.sync_or_fail(name)
    }

    fn sync_or_fail(&mut self, name: FileName) -> Result<(), DiskError> {
        let fault = self.take_fault(FaultKind::SyncFails);
        let draws = fault.map(|fault| self.draws(Purpose::DiskFault, fault));
        let file = self.inodes.get_mut(&self.names[&name]).expect("every name has its file");
        let Some(mut draws) = draws else {
            file.sync();
            self.stats.syncs += 1;
            return Ok(());
        };
        self.stats.failed_syncs += 1;
        let cache_falls_back = draws.chance(0.5);
        // Some of the sectors may have reached the disk before one failed.
        file.settle(&mut Survival::draw(draws));
        if cache_falls_back {
            file.drop_cache();
        } else {
            file.mark_clean();
        }
        Err(error("fsync", Some(name), IO_ERROR))
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), DiskError> {
        let Some(inode) = self.names.remove(&from) else {
            return Err(error("rename", Some(from), NO_SUCH_FILE));
        };
        if let Some(displaced) = self.names.insert(to, inode) {
            self.set_named(displaced, false);
        }
        self.changes.push(Change::Name(to, inode));
        Ok(())
    }

    fn set_named(&mut self, inode: Inode, named: bool) {
        self.inodes.get_mut(&inode).expect("every name has its file").named = named;
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        if self.take_fault(FaultKind::SyncFails).is_some() {
            self.stats.failed_syncs += 1;
            // The changes stay pending, as in a journal: each may survive a power loss or not, and
            // a later sync that succeeds covers them.
            return Err(error("fsync", None, IO_ERROR));
        }
        self.stats.syncs += 1;
        self.commit_names();
        Ok(())
    }

    fn commit_names(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            make_durable(&mut self.durable_names, change);
        }
        self.forget_unnamed_files();
    }

    /// Drops the files that no directory can show any more.
    fn forget_unnamed_files(&mut self) {
        assert!(self.changes.is_empty(), "a pending change may still name a file");
        let durable = &self.durable_names;
        // Few files at a time are without a name, so that the scan is rare.
        self.inodes
            .retain(|inode, file| file.named || durable.values().any(|named| named == inode));
    }

    fn file(&self, name: FileName, operation: &'static str) -> Result<&File, DiskError> {
        self.names
            .get(&name)
            .and_then(|inode| self.inodes.get(inode))
            .ok_or_else(|| error(operation, Some(name), NO_SUCH_FILE))
    }

    /// The error of a write or creation that a fault lets fail, and the draws for how far it gets.
    fn write_failure(
        &mut self,
        operation: &'static str,
        name: FileName,
    ) -> Option<(DiskError, Stream)> {
        let (fault, reason) = match self.take_fault(FaultKind::WriteFails) {
            Some(fault) => (fault, IO_ERROR),
            None => (self.take_fault(FaultKind::NoSpace)?, NO_SPACE),
        };
        self.stats.failed_writes += 1;
        Some((error(operation, Some(name), reason), self.draws(Purpose::DiskFault, fault)))
    }

    fn take_fault(&mut self, kind: FaultKind) -> Option<u32> {
        let position = self.armed.iter().position(|(armed, _)| *armed == kind)?;
        Some(self.armed.remove(position).1)
    }

    /// A fresh stream for one occurrence of a fault.
    fn draws(&mut self, purpose: Purpose, fault: u32) -> Stream {
        let occurrence = self.occurrences.entry((purpose, fault)).or_default();
        *occurrence += 1;
        Stream::new(self.seed, purpose, [self.node, u64::from(fault), *occurrence])
    }
}

impl ReadFile for SimDisk {
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        SimDisk::read(self, file, offset, len as usize)
    }
}

/// Applies one change. Earlier changes may be missing, so it relies on none of them: a file has
/// one name, and a name that meanwhile belongs to another file is left alone.
fn make_durable(names: &mut Directory, change: Change) {
    match change {
        Change::Name(name, inode) => {
            names.retain(|_, named| *named != inode);
            names.insert(name, inode);
        }
        Change::Unname(name, inode) => {
            if names.get(&name) == Some(&inode) {
                names.remove(&name);
            }
        }
    }
}

/// Whether this error is a fault of the disk. Any other one is the node's own doing: it asked for a
/// file that it never made, or that it removed itself, or it used up the room that it has.
pub fn is_fault(error: &DiskError) -> bool {
    [IO_ERROR, NO_SPACE, SHORT_WRITE].contains(&error.reason.as_str())
}

const IO_ERROR: &str = "input/output error";
const NO_SPACE: &str = "no space left on device";
const DISK_FULL: &str = "the disk is full";
const SHORT_WRITE: &str = "only a part was written";
const NO_SUCH_FILE: &str = "no such file";

fn error(operation: &'static str, file: Option<FileName>, reason: &str) -> DiskError {
    let kind = match reason {
        NO_SPACE | DISK_FULL => DiskErrorKind::Full,
        _ => DiskErrorKind::Other,
    };
    DiskError { operation, file, kind, reason: reason.to_owned() }
}

fn check_size(operation: &'static str, name: FileName, len: u64) -> Result<(), DiskError> {
    if len > MAX_FILE {
        return Err(error(operation, Some(name), "file too large"));
    }
    Ok(())
}
