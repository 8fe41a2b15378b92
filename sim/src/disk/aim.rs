//! Failures that are aimed: at an operation on a kind of file, and at one of the next of these.
//!
//! Most operations of a disk are writes and syncs of the log. A failure that takes whichever comes next
//! therefore seldom hits a snapshot, the directory, or a record behind another one of its batch.

use stormkv::env::{DiskOp, FileName};

use crate::plan::{DiskAim, DiskOperation, FileKind};

/// Failures to come, each with the number of its fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Aims(Vec<(DiskAim, u32)>);

impl Aims {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, aim: DiskAim, fault: u32) {
        self.0.push((aim, fault));
    }

    /// The fault of each.
    pub fn faults(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(_, fault)| *fault)
    }

    /// Takes back the failures of this fault, or all.
    pub fn disarm(&mut self, fault: Option<u32>) {
        self.0.retain(|(_, armed)| fault.is_some_and(|fault| *armed != fault));
    }

    /// Counts an operation, and returns the fault by which it fails.
    pub fn hit(&mut self, operation: DiskOperation, files: &[FileKind]) -> Option<u32> {
        let mut struck = None;
        for (at, (aim, _)) in self.0.iter_mut().enumerate() {
            if aim.operation == operation && files.contains(&aim.files) {
                aim.number -= 1;
                if aim.number == 0 && struck.is_none() {
                    struck = Some(at);
                }
                aim.number = aim.number.max(1);
            }
        }
        struck.map(|at| self.0.remove(at).1)
    }
}

/// The kind of a file.
pub(super) fn kind(file: FileName) -> FileKind {
    match file {
        FileName::Segment(_) => FileKind::Log,
        FileName::Snapshot(..) => FileKind::Snapshot,
        FileName::Partial(..) => FileKind::Partial,
    }
}

/// What an operation does, and to which kinds of files.
pub(super) fn target(op: &DiskOp) -> (DiskOperation, [FileKind; 2]) {
    let one = |file: &FileName| [kind(*file); 2];
    match op {
        DiskOp::Create { file, .. } => (DiskOperation::Create, one(file)),
        DiskOp::Write { file, .. } => (DiskOperation::Write, one(file)),
        DiskOp::Sync { file } => (DiskOperation::Sync, one(file)),
        DiskOp::Rename { from, to } => (DiskOperation::Rename, [kind(*from), kind(*to)]),
        DiskOp::Remove { file } => (DiskOperation::Remove, one(file)),
        DiskOp::SyncDir => (DiskOperation::Sync, [FileKind::Directory; 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aim_counts_only_what_it_is_aimed_at() {
        let mut aims = Aims::default();
        let aim = DiskAim { operation: DiskOperation::Write, files: FileKind::Log, number: 2 };
        aims.add(aim, 7);
        assert_eq!(aims.hit(DiskOperation::Write, &[FileKind::Partial]), None);
        assert_eq!(aims.hit(DiskOperation::Sync, &[FileKind::Log]), None);
        assert_eq!(aims.hit(DiskOperation::Write, &[FileKind::Log]), None);
        assert_eq!(aims.hit(DiskOperation::Write, &[FileKind::Log]), Some(7));
        assert!(aims.is_empty());
    }

    #[test]
    fn aim_of_two_faults_strikes_one_after_the_other() {
        let mut aims = Aims::default();
        let aim = DiskAim { operation: DiskOperation::Sync, files: FileKind::Directory, number: 1 };
        aims.add(aim, 1);
        aims.add(aim, 2);
        let sync = |aims: &mut Aims| {
            let (operation, files) = target(&DiskOp::SyncDir);
            aims.hit(operation, &files)
        };
        assert_eq!([sync(&mut aims), sync(&mut aims), sync(&mut aims)], [Some(1), Some(2), None]);
        aims.add(aim, 3);
        aims.disarm(Some(3));
        assert!(aims.is_empty());
    }
}
