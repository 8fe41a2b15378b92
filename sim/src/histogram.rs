//! Times on a logarithmic scale: small, mergeable, and exact enough for percentiles.
//!
//! Each doubling is cut into 32 buckets of equal width, so a bucket is at most 1/32 of its lower
//! end wide; below 32 ns each value has its own. A percentile is the upper end of the bucket in
//! which it lies, and the largest value is kept as it is: what is reported is never too small, and
//! at most 3.2 percent too large. Two histograms add up bucket by bucket, so the percentiles of a
//! campaign do not depend on how its seeds were shared out.

use std::collections::BTreeMap;

/// Buckets per doubling, as a power of two.
const PRECISION: u32 = 5;

/// How often which times were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; buckets in the order of their times.
    counts: BTreeMap<u64, u64>,
    count: u64,
    max_ns: u64,
}

impl Histogram {
    /// Adds a time, in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        *self.counts.entry(bucket(ns)).or_default() += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all times of another one.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many times were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest time, in nanoseconds, exactly; `None` if there is none.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The least time, in nanoseconds, that so many percent of the times do not exceed; up to 3.2
    /// percent too large. `None` if there is none.
    ///
    /// # Panics
    /// If `percent` is not from 1 to 100.
    pub fn percentile_ns(&self, percent: u64) -> Option<u64> {
        assert!((1..=100).contains(&percent), "{percent} is not a percentage from 1 to 100");
        let rank = (self.count * percent).div_ceil(100);
        let mut below = 0;
        self.counts.iter().find_map(|(bucket, count)| {
            below += count;
            (below >= rank).then(|| upper_end(*bucket).min(self.max_ns))
        })
    }
}

/// The number of the bucket of `ns`; larger times have larger numbers.
fn bucket(ns: u64) -> u64 {
    let exponent = ns.checked_ilog2().unwrap_or(0).saturating_sub(PRECISION);
    (u64::from(exponent) << PRECISION) + (ns >> exponent)
}

/// The largest time in a bucket.
fn upper_end(bucket: u64) -> u64 {
    let exponent = (bucket >> PRECISION).saturating_sub(1);
    let lower = u128::from(bucket - (exponent << PRECISION)) << exponent;
    u64::try_from(lower + (1 << exponent) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_its_bucket_and_the_bucket_is_narrow() {
        let mut times: Vec<u64> = (0..5000).collect();
        times.extend((0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, (1u64 << bit) / 3 * 4]));
        times.push(u64::MAX);
        times.sort_unstable();
        for pair in times.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        for ns in times {
            let end = upper_end(bucket(ns));
            assert!(end >= ns, "{ns} is beyond the end {end} of its bucket");
            assert_eq!(bucket(end), bucket(ns));
            assert!(end - ns <= ns / 32, "{ns} is reported as {end}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        // A wide range, in no order.
        let times: Vec<u64> = (0..1000u64).map(|n| n * 7919 % 1000 * n * 100_000).collect();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let mut histogram = Histogram::default();
        times.iter().for_each(|ns| histogram.record(*ns));
        for percent in [1, 50, 90, 99] {
            let exact = sorted[(percent * 10 - 1) as usize];
            let found = histogram.percentile_ns(percent).unwrap();
            assert!((exact..=exact + exact / 32).contains(&found), "p{percent}: {found}, {exact}");
        }
        assert_eq!(histogram.percentile_ns(100), histogram.max_ns());
        assert_eq!(histogram.max_ns(), sorted.last().copied());
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn few_times_have_percentiles_too() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile_ns(50), histogram.max_ns()), (None, None));
        histogram.record(1_000_000);
        assert_eq!(histogram.percentile_ns(1), Some(1_000_000), "never beyond the largest");
        histogram.record(0);
        assert_eq!(histogram.percentile_ns(50), Some(0));
        assert_eq!(histogram.percentile_ns(51), Some(1_000_000));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (mut whole, mut parts) = (Histogram::default(), [(); 3].map(|()| Histogram::default()));
        for n in 0..300u64 {
            whole.record(n * n * n);
            parts[(n % 3) as usize].record(n * n * n);
        }
        let mut sum = Histogram::default();
        parts.iter().for_each(|part| sum.merge(part));
        assert_eq!(sum, whole);
    }
}
