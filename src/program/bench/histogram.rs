//! Latencies in a bounded number of buckets.
//!
//! A bucket is 1/64 of a power of two wide, so a percentile is at most 1.6 % too high, from a
//! nanosecond to an hour, in 19 KiB. The longest of all is kept as it is.

use std::time::Duration;

/// Each power of two has this many buckets, as a power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;

/// The last buckets begin at 2^41 ns, 36 minutes, and the last one takes all that is longer.
const POWERS: usize = 41 - FINE_BITS as usize + 1;

/// How often which latency was seen.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; (POWERS + 1) * FINE], total: 0, longest: Duration::ZERO }
    }
}

/// The bucket of a number of nanoseconds: one each below 64, then 64 for each power of two.
fn bucket(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0).saturating_sub(FINE_BITS) as usize;
    let fine = (nanos >> power) as usize;
    // `fine` counts from 64 on beyond the first 64, which makes up for the power counted from 0.
    (power * FINE + fine).min((POWERS + 1) * FINE - 1)
}

/// The largest number of nanoseconds in a bucket.
fn upper(bucket: usize) -> u64 {
    let power = (bucket / FINE).saturating_sub(1);
    let fine = (bucket - power * FINE) as u64;
    ((fine + 1) << power) - 1
}

impl Histogram {
    /// Counts one more.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.longest = self.longest.max(latency);
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest of all.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// A latency that this share of all (0 to 1) does not exceed; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(bucket)).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let last = (POWERS + 1) * FINE - 1;
        for number in 0..last {
            assert_eq!(bucket(upper(number)), number);
            assert_eq!(bucket(upper(number) + 1), number + 1);
        }
        assert_eq!(bucket(u64::MAX), last);
    }

    #[test]
    fn quantiles_are_within_two_percent_and_never_too_low() {
        let mut histogram = Histogram::default();
        for micros in 1..=100_000_u64 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in
            [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0), (0.999, 99_900.0)]
        {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!(found >= micros && found <= micros * 1.02, "{share}: {found} for {micros}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(100));
        assert_eq!(histogram.longest(), Duration::from_millis(100));
        assert_eq!(histogram.total(), 100_000);
    }

    #[test]
    fn an_empty_one_and_extremes_do_no_harm() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!((histogram.total(), histogram.longest()), (2, Duration::MAX));
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        assert!(histogram.quantile(1.0) > Duration::from_secs(2000));
    }
}
