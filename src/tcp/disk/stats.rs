//! What the disk has done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

use crate::tcp::journal::LineLimit;

/// A sync that takes longer is logged: a disk that does so now and then costs elections.
pub const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Upper bounds of the buckets for the time of a sync, in microseconds. Slower ones are in a last
/// bucket without a bound.
pub const SYNC_BUCKETS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000,
];

/// Counters of one [`Files`](super::Files), to be read while it works. They only grow.
#[derive(Debug, Default)]
pub struct DiskStats {
    bytes_written: AtomicU64,
    sync_nanos: AtomicU64,
    buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
    slow_lines: LineLimit,
}

impl DiskStats {
    pub(super) fn written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, took: Duration) {
        let micros = took.as_micros();
        let bucket = SYNC_BUCKETS_US.partition_point(|&bound| u128::from(bound) < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        if took >= SLOW_SYNC
            && let Some(more) = self.slow_lines.admit()
        {
            let seconds = took.as_secs_f64();
            warn!(seconds, more, "slow disk: a sync took long; writes wait for it");
        }
    }

    /// Bytes written for the node, without the zeros of new segments.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Syncs that succeeded, of files and of the directory.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The time that they took together.
    #[must_use]
    pub fn sync_time(&self) -> Duration {
        Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed))
    }

    /// How many syncs took at most as long as the bound of each bucket, each bucket including the
    /// ones before it, as Prometheus wants it. The last one has no bound: `None`.
    #[must_use]
    pub fn sync_buckets(&self) -> Vec<(Option<Duration>, u64)> {
        let bounds = SYNC_BUCKETS_US.iter().map(|&bound| Some(Duration::from_micros(bound)));
        let counts = self.buckets.iter().scan(0, |sum, bucket| {
            *sum += bucket.load(Ordering::Relaxed);
            Some(*sum)
        });
        bounds.chain([None]).zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::testing::logged;

    #[test]
    fn a_slow_sync_is_a_warning_and_many_are_one() {
        let stats = DiskStats::default();
        let said = logged(|| {
            stats.synced(SLOW_SYNC - Duration::from_millis(1));
            for _ in 0..100 {
                stats.synced(Duration::from_millis(1500));
            }
        });
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("WARN") && said.contains("slow disk"), "{said}");
        assert!(said.contains("seconds=1.5"), "{said}");
    }

    #[test]
    fn a_sync_counts_in_its_bucket_and_all_above() {
        let stats = DiskStats::default();
        for micros in [100, 101, 1_024_000, 1_024_001] {
            stats.synced(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = stats.sync_buckets().iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4]);
        assert_eq!(stats.syncs(), 4);
        assert_eq!(stats.sync_time(), Duration::from_micros(2_048_202));
        assert_eq!(stats.sync_buckets().last(), Some(&(None, 4)));
    }
}
