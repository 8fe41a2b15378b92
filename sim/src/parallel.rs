//! Judges many things on several threads. The threads are host code: no run sees them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Judges each item, `None` for those that need not be judged: all behind the first one that
/// `serves`, if another thread was quick enough to find it.
pub fn judge<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    judge: &(dyn Fn(&T) -> R + Sync),
    serves: &(dyn Fn(&R) -> bool + Sync),
) -> Vec<Option<R>> {
    let jobs = jobs.min(items.len());
    let next = AtomicUsize::new(0);
    let first = AtomicUsize::new(usize::MAX);
    let results = Mutex::new(Vec::new());
    results.lock().unwrap_or_else(PoisonError::into_inner).resize_with(items.len(), || None);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= items.len() || at > first.load(Ordering::Relaxed) {
                break;
            }
            let result = judge(&items[at]);
            if serves(&result) {
                first.fetch_min(at, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
