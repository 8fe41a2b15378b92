//! A data directory in memory, with a write cache that a crash loses.
//!
//! A file has a name and a content, and each is durable by itself: [`DiskOp::Sync`] is for the
//! content, [`DiskOp::SyncDir`] for names. So the disk keeps, for each content, the writes since its
//! last sync together with the bytes that they replaced, and for the directory the names as of its
//! last sync and the changes since. A crash undoes both. Keeping the replaced bytes instead of a
//! second copy makes a sync as cheap as the writes before it, whatever the size of the file.
//!
//! Left out on purpose: a disk that lies about a sync, a failed sync that drops what it should have
//! written (it stays readable until the crash), and creating a file again in place (it gets a new
//! content, and a crash before the next [`DiskOp::SyncDir`] brings the old one back).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;

use bytes::Bytes;

use crate::env::{Completion, Disk, DiskOp, DiskQueue, FileName, ReadFile, Work};
use crate::error::{DiskError, DiskErrorKind};
use crate::types::Ticket;

/// Bytes that a disk writes in one piece: a crash leaves all or nothing of a write to one sector.
const SECTOR: usize = 512;

/// An operation that was handed to a [`MemDisk`] and is not carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A batch of this queue, from [`Disk::submit`].
    Batch(DiskQueue, Ticket),
    /// A read, from [`Disk::fetch`].
    Fetch(Ticket),
    /// Work beside the node, from [`Disk::work`].
    Work(Ticket),
}

/// An in-memory [`Disk`] for tests. See the [module](crate::memory).
///
/// Nothing that is handed over with [`Disk::submit`], [`Disk::fetch`] or [`Disk::work`] happens before
/// the owner asks for it: [`poll`](Self::poll) carries out the oldest operation, and
/// [`finish`](Self::finish) a particular one. What both return goes to
/// [`Driver::complete`](crate::driver::Driver::complete).
///
/// [`Disk::list`], [`Disk::load`] and [`ReadFile::read`] answer at once, and so do the methods for
/// tests that look at files or change them behind the back of the node.
#[derive(Default)]
pub struct MemDisk {
    files: Files,
    pending: VecDeque<Job>,
    /// Most bytes of all files together.
    capacity: Option<u64>,
    fault: Option<Fault>,
}

/// A failure that was ordered.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// Operations that succeed before.
    after: u64,
    kind: DiskErrorKind,
}

enum Job {
    Batch(DiskQueue, Ticket, Vec<DiskOp>),
    Fetch(Ticket, FileName, u64, u32),
    Work(Ticket, Work),
}

impl Job {
    fn name(&self) -> Pending {
        match self {
            Job::Batch(queue, ticket, _) => Pending::Batch(*queue, *ticket),
            Job::Fetch(ticket, ..) => Pending::Fetch(*ticket),
            Job::Work(ticket, _) => Pending::Work(*ticket),
        }
    }
}

impl MemDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with the same files, durable and not, and the same capacity. Nothing is pending on it,
    /// and no failure is ordered.
    #[must_use]
    pub fn image(&self) -> Self {
        MemDisk { files: self.files.clone(), capacity: self.capacity, ..Self::default() }
    }

    // ---- Completions ----

    /// Operations that are not carried out yet, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.pending.iter().map(Job::name)
    }

    /// Carries out the oldest pending operation. `None` if nothing is pending.
    pub fn poll(&mut self) -> Option<Completion> {
        let job = self.pending.pop_front()?;
        Some(self.carry_out(job))
    }

    /// Carries out one pending operation before older ones: reads, work and the two queues may
    /// overtake each other. `None` if it is not pending.
    ///
    /// # Panics
    /// If an older batch of the same queue is pending: each queue carries out its batches in order.
    pub fn finish(&mut self, operation: Pending) -> Option<Completion> {
        let at = self.pending.iter().position(|job| job.name() == operation)?;
        if let Pending::Batch(queue, ticket) = operation {
            let older = self
                .pending()
                .take(at)
                .find(|name| matches!(name, Pending::Batch(other, _) if *other == queue));
            assert!(older.is_none(), "{older:?} is before {ticket:?} in the same queue");
        }
        let job = self.pending.remove(at)?;
        Some(self.carry_out(job))
    }

    fn carry_out(&mut self, job: Job) -> Completion {
        match job {
            Job::Batch(queue, ticket, ops) => Completion::Done(queue, ticket, self.run(&ops)),
            Job::Fetch(ticket, file, offset, len) => {
                Completion::Fetched(ticket, self.read(file, offset, len))
            }
            Job::Work(ticket, work) => Completion::Worked(ticket, Ok(work.run(self))),
        }
    }

    /// Carries out `ops` at once, in order, for tests without a driver.
    ///
    /// # Errors
    /// The first failure: of an operation on a file that does not exist, for lack of room, or as
    /// ordered by [`fail_next`](Self::fail_next). What came before it has happened, nothing behind
    /// it.
    pub fn run(&mut self, ops: &[DiskOp]) -> Result<(), DiskError> {
        ops.iter().try_for_each(|op| self.execute(op))
    }

    fn execute(&mut self, op: &DiskOp) -> Result<(), DiskError> {
        let (operation, file) = match op {
            DiskOp::Create { file, .. } => ("create", Some(*file)),
            DiskOp::Write { file, .. } => ("write", Some(*file)),
            DiskOp::Sync { file } => ("fsync", Some(*file)),
            DiskOp::Rename { from, .. } => ("rename", Some(*from)),
            DiskOp::Remove { file } => ("remove", Some(*file)),
            DiskOp::SyncDir => ("fsync", None),
        };
        self.fail_if_ordered(operation, file)?;
        let missing = || missing(operation, file);
        match op {
            DiskOp::Create { file, len } => {
                let freed = self.content(*file).map_or(0, |content| content.len() as u64);
                self.check_room(operation, *file, *len, freed)?;
                self.files.create(*file, vec![0; size(*len)]);
            }
            DiskOp::Write { file, offset, data } => {
                let old = self.content(*file).ok_or_else(missing)?.len() as u64;
                let new = old.max(offset + data.len() as u64);
                self.check_room(operation, *file, new, old)?;
                self.files.inode(*file).ok_or_else(missing)?.write(size(*offset), data);
            }
            DiskOp::Sync { file } => self.files.inode(*file).ok_or_else(missing)?.sync(),
            DiskOp::Rename { from, to } => {
                if !self.files.rename(*from, *to) {
                    return Err(missing());
                }
            }
            DiskOp::Remove { file } => self.files.remove(*file),
            DiskOp::SyncDir => self.files.sync_names(),
        }
        Ok(())
    }

    // ---- Faults ----

    /// Loses power: all that was not synced is gone, and so is all that is pending. The disk can be
    /// used again at once, as after the restart of the machine.
    pub fn crash(&mut self) {
        self.crash_with(|_| 0);
    }

    /// Loses power, but some of what was not synced has reached the disk: each sector of 512 bytes
    /// has the content after any of the writes to it since the last sync, each file any length
    /// between the old one and the new one, and any changes of names have happened.
    ///
    /// `choose(n)` returns a number from 0 to `n`, `n` at least 1. All zeros are a
    /// [`crash`](Self::crash); always `n` loses nothing.
    ///
    /// # Panics
    /// If `choose` returns more than it was asked for.
    pub fn crash_with(&mut self, mut choose: impl FnMut(usize) -> usize) {
        self.pending.clear();
        self.files.crash(&mut |most| {
            let chosen = choose(most);
            assert!(chosen <= most, "{chosen} is more than {most}");
            chosen
        });
    }

    /// Ends the process but not the machine: what is pending never happens, and what was written
    /// stays, synced or not.
    pub fn abandon_pending(&mut self) {
        self.pending.clear();
    }

    /// Makes the next operation fail: a step of a batch, or a read. It has no effect then.
    pub fn fail_next(&mut self, kind: DiskErrorKind) {
        self.fail_after(0, kind);
    }

    /// Makes an operation fail after this many that succeed. An order replaces the one before it.
    ///
    /// A batch that appends to the log consists of a write and a sync, so `fail_after(1, ..)` lets
    /// the sync fail. Bytes whose sync has failed are lost in a crash unless a later one succeeds,
    /// which a node never relies on.
    pub fn fail_after(&mut self, operations: u64, kind: DiskErrorKind) {
        self.fault = Some(Fault { after: operations, kind });
    }

    /// Limits the bytes of all files together; `None` for no limit, which is the default. What is
    /// there already stays. Operations that would exceed it fail with [`DiskErrorKind::Full`], and
    /// [`Disk::free`] reports what is left.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    fn fail_if_ordered(
        &mut self,
        operation: &'static str,
        file: Option<FileName>,
    ) -> Result<(), DiskError> {
        match &mut self.fault {
            None => Ok(()),
            Some(fault) if fault.after > 0 => {
                fault.after -= 1;
                Ok(())
            }
            Some(Fault { kind, .. }) => {
                let kind = *kind;
                self.fault = None;
                let reason = match kind {
                    DiskErrorKind::Full => "no space left on device",
                    DiskErrorKind::Other => "input/output error",
                };
                Err(DiskError { operation, file, kind, reason: reason.to_owned() })
            }
        }
    }

    /// Refuses to let a file have `new` bytes instead of `old` if the disk is too small for that.
    fn check_room(
        &self,
        operation: &'static str,
        file: FileName,
        new: u64,
        old: u64,
    ) -> Result<(), DiskError> {
        let room = self.capacity.map(|most| most.saturating_add(old).saturating_sub(self.used()));
        // A disk that was made smaller than its files still takes writes that do not grow them.
        if new <= old || room.is_none_or(|room| new <= room) {
            return Ok(());
        }
        let reason = "no space left on device".to_owned();
        Err(DiskError { operation, file: Some(file), kind: DiskErrorKind::Full, reason })
    }

    // ---- Files ----

    /// Bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.files().filter_map(|file| self.content(file)).map(|content| content.len() as u64).sum()
    }

    /// The files that exist, in the order of their names, synced or not.
    pub fn files(&self) -> impl Iterator<Item = FileName> {
        self.files.current.keys().copied()
    }

    /// The content of a file, synced or not; `None` if it does not exist.
    #[must_use]
    pub fn content(&self, file: FileName) -> Option<&[u8]> {
        let inode = self.files.current.get(&file)?;
        Some(&self.files.inodes[inode].content)
    }

    /// Direct access to the content of a file, to damage it; `None` if it does not exist. All of it
    /// counts as durable from then on.
    pub fn content_mut(&mut self, file: FileName) -> Option<&mut Vec<u8>> {
        let inode = self.files.inode(file)?;
        inode.sync();
        Some(&mut inode.content)
    }

    /// Puts a file on the disk, in the place of one of that name. It is durable at once, and so are
    /// all names.
    pub fn insert(&mut self, file: FileName, content: impl Into<Vec<u8>>) {
        self.files.create(file, content.into());
        self.files.sync_names();
        self.files.inode(file).expect("just created").sync();
    }

    /// Takes a file off the disk and makes all names durable. Returns whether it existed.
    pub fn remove(&mut self, file: FileName) -> bool {
        let existed = self.files.current.contains_key(&file);
        self.files.remove(file);
        self.files.sync_names();
        existed
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes =
            self.files().map(|file| (file.to_string(), self.content(file).map(<[u8]>::len)));
        f.debug_struct("MemDisk")
            .field("files", &sizes.collect::<BTreeMap<_, _>>())
            .field("pending", &self.pending().collect::<Vec<_>>())
            .field("capacity", &self.capacity)
            .finish()
    }
}

impl Disk for MemDisk {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        self.fail_if_ordered("listing", None)?;
        Ok(self.files().collect())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.fail_if_ordered("read", Some(file))?;
        let content = self.content(file).ok_or_else(|| missing("read", Some(file)))?;
        Ok(Bytes::copy_from_slice(content))
    }

    fn free(&mut self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }

    fn submit(&mut self, queue: DiskQueue, ticket: Ticket, ops: Vec<DiskOp>) {
        for name in self.pending() {
            let in_order = !matches!(name, Pending::Batch(other, older)
                if other == queue && older >= ticket);
            assert!(
                in_order,
                "{ticket:?} comes after {name:?}, but tickets of a queue count upwards"
            );
        }
        self.pending.push_back(Job::Batch(queue, ticket, ops));
    }

    fn fetch(&mut self, ticket: Ticket, file: FileName, offset: u64, len: u32) {
        self.pending.push_back(Job::Fetch(ticket, file, offset, len));
    }

    fn work(&mut self, ticket: Ticket, work: Work) {
        self.pending.push_back(Job::Work(ticket, work));
    }
}

impl ReadFile for MemDisk {
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        self.fail_if_ordered("read", Some(file))?;
        let content = self.content(file).ok_or_else(|| missing("read", Some(file)))?;
        let begin = content.len().min(size(offset));
        let end = content.len().min(begin + len as usize);
        Ok(Bytes::copy_from_slice(&content[begin..end]))
    }
}

fn missing(operation: &'static str, file: Option<FileName>) -> DiskError {
    let reason = "no such file".to_owned();
    DiskError { operation, file, kind: DiskErrorKind::Other, reason }
}

/// Bytes as a size in memory. What has none could not be allocated anyway.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a file that fits into memory")
}

/// Contents and their names.
#[derive(Clone, Default)]
struct Files {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// The directory as of its last sync.
    durable: BTreeMap<FileName, u64>,
    current: BTreeMap<FileName, u64>,
    /// From `durable` to `current`, in order.
    changes: Vec<NameChange>,
}

#[derive(Clone, Copy)]
enum NameChange {
    /// The name means this content from now on.
    Named(FileName, u64),
    Renamed(FileName, FileName, u64),
    Removed(FileName),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<FileName, u64>) {
        match self {
            NameChange::Named(file, inode) => {
                names.insert(file, inode);
            }
            NameChange::Renamed(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
            NameChange::Removed(file) => {
                names.remove(&file);
            }
        }
    }
}

impl Files {
    fn inode(&mut self, file: FileName) -> Option<&mut Inode> {
        self.inodes.get_mut(self.current.get(&file)?)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }

    fn create(&mut self, file: FileName, content: Vec<u8>) {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode { content, durable_len: Some(0), unsynced: Vec::new() });
        self.change(NameChange::Named(file, inode));
    }

    fn rename(&mut self, from: FileName, to: FileName) -> bool {
        let Some(inode) = self.current.get(&from).copied() else { return false };
        self.change(NameChange::Renamed(from, to, inode));
        true
    }

    fn remove(&mut self, file: FileName) {
        if self.current.contains_key(&file) {
            self.change(NameChange::Removed(file));
        }
    }

    fn sync_names(&mut self) {
        self.durable.clone_from(&self.current);
        self.changes.clear();
        self.drop_unnamed();
    }

    fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for inode in self.inodes.values_mut() {
            inode.crash(choose);
        }
        for change in mem::take(&mut self.changes) {
            if choose(1) == 1 {
                change.apply(&mut self.durable);
            }
        }
        self.current.clone_from(&self.durable);
        self.drop_unnamed();
    }

    /// Drops contents that have no name and cannot get one back. Requires that no change is open.
    fn drop_unnamed(&mut self) {
        debug_assert!(self.changes.is_empty(), "a change may name a content again");
        let Files { inodes, current, .. } = self;
        inodes.retain(|inode, _| current.values().any(|named| named == inode));
    }
}

/// The content of a file.
#[derive(Clone)]
struct Inode {
    content: Vec<u8>,
    /// Its length as of the last sync; `None` for the present one.
    durable_len: Option<usize>,
    /// Writes since the last sync, in order, none of which crosses a sector.
    unsynced: Vec<SectorWrite>,
}

#[derive(Clone)]
struct SectorWrite {
    offset: usize,
    replaced: Vec<u8>,
    written: Vec<u8>,
}

impl Inode {
    fn write(&mut self, mut offset: usize, mut data: &[u8]) {
        let end = offset + data.len();
        if end > self.content.len() {
            self.durable_len.get_or_insert(self.content.len());
            self.content.resize(end, 0);
        }
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(SECTOR - offset % SECTOR));
            let place = &mut self.content[offset..offset + piece.len()];
            let (replaced, written) = (place.to_vec(), piece.to_vec());
            place.copy_from_slice(piece);
            self.unsynced.push(SectorWrite { offset, replaced, written });
            offset += piece.len();
            data = rest;
        }
    }

    fn sync(&mut self) {
        self.durable_len = None;
        self.unsynced.clear();
    }

    fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut sectors: BTreeMap<usize, Vec<SectorWrite>> = BTreeMap::new();
        for write in mem::take(&mut self.unsynced) {
            sectors.entry(write.offset / SECTOR).or_default().push(write);
        }
        for writes in sectors.into_values() {
            let kept = choose(writes.len());
            // From the newest on, since writes may overlap.
            for SectorWrite { offset, replaced, written } in writes[kept..].iter().rev() {
                self.content[*offset..offset + written.len()].copy_from_slice(replaced);
            }
        }
        if let Some(durable) = self.durable_len.take()
            && durable < self.content.len()
        {
            self.content.truncate(durable + choose(self.content.len() - durable));
        }
    }
}
