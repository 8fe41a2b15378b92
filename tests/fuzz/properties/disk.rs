//! A disk in memory, on which everything is durable at once.

use std::collections::BTreeMap;

use bytes::Bytes;

use stormkv::env::{Disk, DiskOp, DiskQueue, FileName, ReadFile, Work};
use stormkv::error::{DiskError, DiskErrorKind};
use stormkv::types::Ticket;

/// The files and their contents.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(pub BTreeMap<FileName, Vec<u8>>);

impl MemoryDisk {
    pub fn run(&mut self, ops: &[DiskOp]) {
        for op in ops {
            match op {
                DiskOp::Create { file, len } => {
                    self.0.insert(*file, vec![0; usize::try_from(*len).expect("a small file")]);
                }
                DiskOp::Write { file, offset, data } => {
                    let bytes = self.0.get_mut(file).expect("a file is created before");
                    let begin = usize::try_from(*offset).expect("a small file");
                    let end = begin + data.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[begin..end].copy_from_slice(data);
                }
                DiskOp::Rename { from, to } => {
                    let bytes = self.0.remove(from).expect("what is renamed exists");
                    self.0.insert(*to, bytes);
                }
                DiskOp::Remove { file } => {
                    self.0.remove(file);
                }
                DiskOp::Sync { file } => assert!(self.0.contains_key(file), "{file} is gone"),
                DiskOp::SyncDir => {}
            }
        }
    }

    /// A part of a file, as a fetch gets it.
    pub fn read(&self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        let missing = || DiskError {
            operation: "read",
            file: Some(file),
            kind: DiskErrorKind::Other,
            reason: "gone".into(),
        };
        let bytes = self.0.get(&file).ok_or_else(missing)?;
        let begin = bytes.len().min(offset as usize);
        let end = bytes.len().min(begin + len as usize);
        Ok(Bytes::copy_from_slice(&bytes[begin..end]))
    }
}

impl ReadFile for MemoryDisk {
    fn read(&mut self, file: FileName, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        MemoryDisk::read(self, file, offset, len)
    }
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> Result<Vec<FileName>, DiskError> {
        Ok(self.0.keys().copied().collect())
    }

    fn load(&mut self, file: FileName) -> Result<Bytes, DiskError> {
        self.read(file, 0, u32::MAX)
    }

    fn work(&mut self, _: Ticket, _: Work) {
        unreachable!("nothing hands out work here")
    }

    fn submit(&mut self, _: DiskQueue, _: Ticket, _: Vec<DiskOp>) {
        unreachable!("whoever starts submits nothing");
    }

    fn fetch(&mut self, _: Ticket, _: FileName, _: u64, _: u32) {
        unreachable!("whoever starts fetches nothing");
    }
}
