//! The content of one file: the bytes that the process sees, the bytes that are durable, and the
//! set of sectors in which the two may differ.

use super::SECTOR;
use super::survival::{Fate, Survival, tear};
use crate::rng::{Chance, Stream};

/// Bytes by which the capacity of a growing file increases, at least.
const GROWTH: usize = 64 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next sync will write.
    dirty: SectorSet,
    /// Sectors that differ although they are marked clean: a failed sync left them behind.
    stray: SectorSet,
    /// Whether the next sync will write the file's size.
    size_dirty: bool,
    /// Bytes written since the last sync. Sectors would be too coarse: at the scale of a run, a
    /// sector is what a megabyte is in production.
    unsynced: u64,
    /// Holds durable bytes that nobody wrote there.
    pub damaged: bool,
    /// The running process sees it under a name.
    pub named: bool,
}

impl File {
    pub fn cached(&self) -> &[u8] {
        &self.cached
    }

    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    pub fn dirty_sectors(&self) -> u64 {
        self.dirty.len()
    }

    /// Empties the file and fills it with `len` zero bytes.
    pub fn refill(&mut self, len: usize) {
        self.cached.clear();
        self.cached.resize(len, 0);
        // Beyond the durable bytes, a sector that was never written is zero anyway.
        self.dirty.insert(0, self.durable.len().div_ceil(SECTOR));
        self.size_dirty = true;
        self.damaged = false;
    }

    pub fn write(&mut self, offset: usize, data: &[u8], writeback: &mut Stream) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        let (first, behind) = (offset / SECTOR, end.div_ceil(SECTOR));
        if self.dirty.contains(first) && Chance::ONE_IN_FOUR.hit(writeback.draw()) {
            self.write_back(first);
        }
        if end > self.cached.len() {
            if end > self.cached.capacity() {
                // Snapshots grow, one piece after the other; segments are created in full.
                self.cached.reserve(GROWTH.max(data.len()));
            }
            self.cached.resize(end, 0);
            self.size_dirty = true;
        }
        self.cached[offset..end].copy_from_slice(data);
        self.dirty.insert(first, behind);
        self.unsynced += data.len() as u64;
    }

    /// The kernel writes this sector to the disk on its own account. It stays dirty: it is about
    /// to be written again.
    fn write_back(&mut self, sector: usize) {
        let end = ((sector + 1) * SECTOR).min(self.cached.len());
        if end > self.durable.len() {
            self.durable.resize(end, 0);
        }
        copy_sector(&mut self.durable, &self.cached, sector);
    }

    /// Makes the content durable, as far as it is known to be dirty.
    pub fn sync(&mut self) {
        let len = if self.size_dirty {
            self.cached.len()
        } else {
            self.durable.len().max(self.dirty.end().min(self.cached.len()))
        };
        if len > self.durable.capacity() {
            self.durable.reserve(self.cached.capacity() - self.durable.len());
        }
        self.durable.resize(len, 0);
        let mut from = 0;
        while let Some(sector) = self.dirty.first_from(from) {
            copy_sector(&mut self.durable, &self.cached, sector);
            self.stray.remove(sector);
            from = sector + 1;
        }
        self.dirty.clear();
        self.size_dirty = false;
        self.unsynced = 0;
    }

    /// Lets chance decide which dirty sectors become durable. Returns how many are lost and torn.
    /// Afterwards the cache must be dropped or marked clean.
    pub fn settle(&mut self, survival: &mut Survival) -> (u64, u64) {
        if self.dirty.is_empty() && !self.size_dirty {
            return (0, 0);
        }
        let (old_len, new_len) = (self.durable.len(), self.cached.len());
        self.durable.resize(old_len.max(new_len), 0);
        let (mut reached, mut lost, mut torn) = (0, 0, 0);
        survival.begin(self.dirty.len());
        let mut from = 0;
        while let Some(sector) = self.dirty.first_from(from) {
            let fate = survival.next_fate();
            match fate {
                Fate::Kept => copy_sector(&mut self.durable, &self.cached, sector),
                Fate::Torn => {
                    torn += 1;
                    let old = sector_of(&self.durable, sector);
                    let new = sector_of(&self.cached, sector);
                    let mixed = tear(survival, &old, &new);
                    put_sector(&mut self.durable, sector, &mixed);
                }
                Fate::Lost => lost += 1,
            }
            from = sector + 1;
            if fate != Fate::Lost {
                reached = (from * SECTOR).min(new_len);
            }
        }
        let len = if self.size_dirty && survival.keeps_size() {
            new_len
        } else {
            // The size grows along with the data that reaches the disk.
            old_len.max(reached)
        };
        self.durable.truncate(len);
        (lost, torn)
    }

    /// Sees nothing but the durable bytes from now on.
    pub fn drop_cache(&mut self) {
        self.cached.resize(self.durable.len(), 0);
        for set in [&mut self.dirty, &mut self.stray] {
            let mut from = 0;
            while let Some(sector) = set.first_from(from) {
                copy_sector(&mut self.cached, &self.durable, sector);
                from = sector + 1;
            }
            set.clear();
        }
        self.size_dirty = false;
        self.unsynced = 0;
        debug_assert!(self.cached == self.durable, "a sector escaped the dirty set");
    }

    /// Goes on to see the new bytes, without ever writing them again.
    pub fn mark_clean(&mut self) {
        let mut from = 0;
        while let Some(sector) = self.dirty.first_from(from) {
            self.stray.insert(sector, sector + 1);
            from = sector + 1;
        }
        self.dirty.clear();
        self.size_dirty = false;
        self.unsynced = 0;
    }

    /// This is the content now, durable.
    pub fn rewrite(&mut self, bytes: &[u8]) {
        let (cached, durable, named) = (bytes.to_vec(), bytes.to_vec(), self.named);
        *self = File { cached, durable, named, ..File::default() };
    }

    /// Overwrites durable bytes, and the same ones in the cache. Returns how many have changed.
    pub fn decay(&mut self, offset: usize, bytes: &[u8]) -> u64 {
        let mut changed = 0;
        for (at, new) in (offset..).zip(bytes) {
            let Some(old) = self.durable.get_mut(at) else { break };
            changed += u64::from(*old != *new);
            *old = *new;
            if let Some(cached) = self.cached.get_mut(at) {
                *cached = *new;
            }
        }
        self.damaged |= changed > 0;
        changed
    }
}

/// Copies one sector, as far as `to` reaches; what `from` lacks is zero.
fn copy_sector(to: &mut [u8], from: &[u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(to.len());
    if start >= end {
        return;
    }
    let have = from.get(start..).unwrap_or_default();
    let len = have.len().min(end - start);
    to[start..start + len].copy_from_slice(&have[..len]);
    to[start + len..end].fill(0);
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut content = [0; SECTOR];
    let rest = bytes.get(sector * SECTOR..).unwrap_or_default();
    let len = rest.len().min(SECTOR);
    content[..len].copy_from_slice(&rest[..len]);
    content
}

fn put_sector(bytes: &mut [u8], sector: usize, content: &[u8; SECTOR]) {
    let rest = bytes.get_mut(sector * SECTOR..).unwrap_or_default();
    let len = rest.len().min(SECTOR);
    rest[..len].copy_from_slice(&content[..len]);
}

/// An ordered set of sector numbers: one bit each, so that a whole segment takes a few words.
#[derive(Clone, Debug, Default)]
struct SectorSet {
    words: Vec<u64>,
    /// The words that may have bits, so that a small set in a large file is cheap.
    low: usize,
    high: usize,
}

impl SectorSet {
    /// Adds the sectors from `first` up to but excluding `behind`.
    fn insert(&mut self, first: usize, behind: usize) {
        if first >= behind {
            return;
        }
        let (low, high) = (first / 64, (behind - 1) / 64 + 1);
        if high > self.words.len() {
            self.words.resize(high, 0);
        }
        for word in low..high {
            let from = first.saturating_sub(word * 64);
            let bits = (behind - word * 64).min(64) - from;
            self.words[word] |= (u64::MAX >> (64 - bits)) << from;
        }
        if self.is_empty() {
            (self.low, self.high) = (low, high);
        } else {
            (self.low, self.high) = (self.low.min(low), self.high.max(high));
        }
    }

    fn remove(&mut self, sector: usize) {
        if let Some(word) = self.words.get_mut(sector / 64) {
            *word &= !(1 << (sector % 64));
        }
    }

    fn contains(&self, sector: usize) -> bool {
        self.words.get(sector / 64).is_some_and(|word| word >> (sector % 64) & 1 == 1)
    }

    /// The first member that is not below `sector`.
    fn first_from(&self, sector: usize) -> Option<usize> {
        let start = (sector / 64).max(self.low);
        for word in start..self.high {
            let mut bits = self.words[word];
            if word == sector / 64 {
                bits &= u64::MAX << (sector % 64);
            }
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
        }
        None
    }

    /// Where the last member ends, in bytes.
    fn end(&self) -> usize {
        let last = (self.low..self.high).rev().find(|&word| self.words[word] != 0);
        last.map_or(0, |word| (word * 64 + 64 - self.words[word].leading_zeros() as usize) * SECTOR)
    }

    fn len(&self) -> u64 {
        self.words[self.low..self.high].iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether nothing was added since it was cleared.
    fn is_empty(&self) -> bool {
        self.low == self.high
    }

    fn clear(&mut self) {
        self.words[self.low..self.high].fill(0);
        (self.low, self.high) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_sector_set_is_an_ordered_set(steps in prop::collection::vec(
            (0u8..8, 0usize..300, 0usize..130), 1..40,
        )) {
            let (mut set, mut model) = (SectorSet::default(), BTreeSet::new());
            for (what, first, len) in steps {
                match what {
                    0 => {
                        set.clear();
                        model.clear();
                    }
                    1 => {
                        set.remove(first);
                        model.remove(&first);
                    }
                    _ => {
                        set.insert(first, first + len);
                        model.extend(first..first + len);
                    }
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert_eq!(set.end(), model.last().map_or(0, |last| (last + 1) * SECTOR));
                prop_assert_eq!(set.contains(first), model.contains(&first));
                prop_assert_eq!(set.first_from(first), model.range(first..).next().copied());
            }
        }
    }
}
