//! The median of values some of which are only known to be larger than all others.
//!
//! A repeat that is cut off before it has found anything is such a value: it would have taken more
//! seeds than any that has found something, as all repeats go forward seed by seed together. So the
//! median can be told as long as half of the repeats end by themselves.
//!
//! The interval assumes nothing about the distribution. The k-th smallest of n independent values
//! lies above the true median if fewer than k of them lie below it, and that number is a binomial
//! one with n trials and the chance 1/2. So the interval from the k-th smallest to the k-th largest
//! misses the median with the chance 2 P(Bin(n, 1/2) < k); k is the largest for which that is at most
//! 5 percent. (Conover, Practical Nonparametric Statistics, 3.2.)

/// A median, and where the true one lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The middle value, or the mean of the two in the middle. `None` if one of them is cut off.
    pub value: Option<f64>,
    /// Contains the true median with a chance of at least 95 percent. `None` with fewer than six
    /// values, of which no interval can be so sure.
    pub interval: Option<Interval>,
}

/// A range. An end is `None` if the value there is cut off: no bound is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

impl Median {
    /// The median of these values, and of so many more that are larger than all of them.
    #[must_use]
    pub fn of(known: impl IntoIterator<Item = f64>, cut_off: usize) -> Median {
        let mut known: Vec<f64> = known.into_iter().collect();
        known.sort_unstable_by(f64::total_cmp);
        let count = known.len() + cut_off;
        // The k-th smallest, from 1.
        let nth = |k: usize| known.get(k - 1).copied();
        let value = match count {
            0 => None,
            _ if count.is_multiple_of(2) => {
                nth(count / 2).zip(nth(count / 2 + 1)).map(|(low, high)| f64::midpoint(low, high))
            }
            _ => nth(count.div_ceil(2)),
        };
        let interval = rank(count).map(|k| Interval { low: nth(k), high: nth(count + 1 - k) });
        Median { value, interval }
    }
}

/// The largest k for which P(Bin(n, 1/2) < k) is at most 2.5 percent; `None` if not even 1 is.
fn rank(n: usize) -> Option<usize> {
    // Far beyond this the first term is no number any more, and nobody waits for so many repeats.
    let n = n.min(1000);
    let mut term = 0.5f64.powi(n as i32);
    let mut below = 0.0;
    let mut k = 0;
    while below + term <= 0.025 {
        below += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    (k > 0).then_some(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(range: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = f64> {
        range.rev().map(f64::from)
    }

    fn interval(low: f64, high: impl Into<Option<f64>>) -> Option<Interval> {
        Some(Interval { low: Some(low), high: high.into() })
    }

    /// From tables of the binomial distribution: for n = 10, P(< 2) = 11/1024 and P(< 3) = 56/1024.
    #[test]
    fn ranks_are_those_of_the_tables() {
        for (n, k) in [
            (0, None),
            (1, None),
            (5, None),
            (6, Some(1)),
            (8, Some(1)),
            (9, Some(2)),
            (10, Some(2)),
            (11, Some(2)),
            (12, Some(3)),
            (20, Some(6)),
            (30, Some(10)),
            (100, Some(40)),
        ] {
            assert_eq!(rank(n), k, "n = {n}");
        }
    }

    #[test]
    fn ten_values_have_a_median_between_the_fifth_and_the_sixth() {
        let median = Median::of(values(1..=10), 0);
        assert_eq!(median, Median { value: Some(5.5), interval: interval(2.0, 9.0) });
        let median = Median::of([7.0, 1.0, 3.0], 0);
        assert_eq!(median, Median { value: Some(3.0), interval: None });
    }

    #[test]
    fn what_was_cut_off_is_larger_than_all_others() {
        let median = Median::of(values(1..=9), 1);
        assert_eq!(median, Median { value: Some(5.5), interval: interval(2.0, 9.0) });
        // The ninth smallest is cut off: there is no upper bound.
        let median = Median::of(values(1..=8), 2);
        assert_eq!(median, Median { value: Some(5.5), interval: interval(2.0, None) });
        let median = Median::of(values(1..=6), 4);
        assert_eq!(median, Median { value: Some(5.5), interval: interval(2.0, None) });
        // The sixth is cut off, and with it the median.
        let median = Median::of(values(1..=5), 5);
        assert_eq!(median, Median { value: None, interval: interval(2.0, None) });
        let median = Median::of(values(1..=5), 4);
        assert_eq!(median, Median { value: Some(5.0), interval: interval(2.0, None) });
        let median = Median::of([4.0], 9);
        assert_eq!(median.interval, Some(Interval { low: None, high: None }));
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Median::of([], 0), Median { value: None, interval: None });
        let none = Interval { low: None, high: None };
        assert_eq!(Median::of([], 10), Median { value: None, interval: Some(none) });
    }
}
