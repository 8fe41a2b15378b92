//! Silent damage: what is durable changes, or a read returns what was there before, and the disk
//! says nothing.
//!
//! What is hit is the simulation's choice, because only it knows what a cluster can repair. The disk
//! shows it what is durable, and remembers which files are no longer what was written.

use std::ops::Range;

use bytes::Bytes;
use stormkv::env::FileName;

use super::{Inode, SimDisk};

/// Bytes that the next load returns as they were before they were written.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    file: FileName,
    bytes: Range<u64>,
    pub(super) fault: u32,
}

impl SimDisk {
    /// The files whose names are durable, and of each what is durable of it. Files that the running
    /// process knows by another name, or not at all, are left out.
    pub fn durable(&self) -> impl Iterator<Item = (FileName, &[u8])> {
        self.durable_names
            .iter()
            .filter(|(name, inode)| self.names.get(name) == Some(inode))
            .map(|(name, inode)| (*name, self.inodes[inode].durable()))
    }

    /// Puts other bytes in the place of durable ones, on the disk and in the cache; what lies beyond
    /// the durable end is left out. Returns false, and does nothing, if there is no such file.
    pub fn decay(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> bool {
        let Some(content) = self.durable_inode(file).and_then(|inode| self.inodes.get_mut(&inode))
        else {
            return false;
        };
        let changed = content.decay(offset as usize, bytes);
        self.stats.bytes_decayed += changed;
        changed > 0
    }

    /// Lets the next load of `file` return zeros for `bytes`, as they were before they were written.
    /// `fault` is the plan's number for it.
    pub fn stale_next(&mut self, file: FileName, bytes: Range<u64>, fault: u32) {
        self.stale.push(Stale { file, bytes, fault });
    }

    /// Whether any file that a directory still shows, or may show after a crash, holds damage.
    pub fn is_damaged(&self) -> bool {
        self.inodes.values().any(|file| file.damaged)
    }

    pub(super) fn disarm_stale(&mut self, fault: Option<u32>) {
        self.stale.retain(|stale| fault.is_some_and(|fault| stale.fault != fault));
    }

    /// What a load of the whole of `file` returns.
    pub(super) fn aged(&mut self, file: FileName, bytes: Bytes) -> Bytes {
        if self.stale.iter().all(|stale| stale.file != file) {
            return bytes;
        }
        let mut aged = bytes.to_vec();
        for stale in self.stale.extract_if(.., |stale| stale.file == file) {
            let end = (stale.bytes.end as usize).min(aged.len());
            let start = (stale.bytes.start as usize).min(end);
            aged[start..end].fill(0);
            self.stats.stale_reads += 1;
        }
        aged.into()
    }

    fn durable_inode(&self, file: FileName) -> Option<Inode> {
        let inode = *self.durable_names.get(&file)?;
        (self.names.get(&file) == Some(&inode)).then_some(inode)
    }
}
