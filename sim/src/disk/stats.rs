//! What has happened to a disk, in numbers.

/// Counts which prove that faults had an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Writes carried out.
    pub writes: u64,
    /// Successful syncs, of files and of the directory.
    pub syncs: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Unsynced sectors that power losses took.
    pub sectors_lost: u64,
    /// Sectors of which a power loss left a part.
    pub sectors_torn: u64,
    /// Unsynced creations, renames and removals that power losses took.
    pub entries_lost: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Writes and creations that failed.
    pub failed_writes: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Writes that wrote a part only.
    pub short_writes: u64,
    /// Bytes that rotted or were overwritten by mistake.
    pub bytes_decayed: u64,
    /// Reads that returned what was there before.
    pub stale_reads: u64,
}
