//! Log lines that a stranger can cause, few enough to be read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const PERIOD: Duration = Duration::from_secs(10);

/// Admits a line now and then, and counts those that it holds back.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl LineLimit {
    /// Returns how many lines were held back since the last one that was admitted, if one is now.
    pub fn admit(&self) -> Option<u64> {
        #[allow(clippy::disallowed_methods, reason = "a host knows the time")]
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "only the beginning of a count")]
    fn lines_are_admitted_once_per_period_and_counted() {
        let (limit, began) = (LineLimit::default(), Instant::now());
        let at = |ms| limit.admit_at(began + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(9_999), None);
        assert_eq!(at(10_000), Some(2));
        assert_eq!(at(20_000), Some(0));
    }
}
