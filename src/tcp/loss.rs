//! Reports to raft that messages to a peer were dropped: once until the queue has been empty.
//!
//! The report may find no room in the node's inbox. Then it is owed, and one task tries again until
//! there is room. A drop after a report that was delivered, and after the queue was empty, is a new
//! one, wherever that task stands.

use super::sync::{Mutex, MutexGuard, PoisonError};

/// What the producer of a queue, its writer and the retrying task share.
#[derive(Debug, Default)]
pub(super) struct LossReport {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Raft knows, or will, and the queue has not been empty since.
    reported: bool,
    /// A task tries to report it.
    owed: bool,
}

impl LossReport {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages were dropped. `offer` hands the report to the node, unless there is no room; it must
    /// not wait. Returns whether the caller must start a task that calls [`retry`](Self::retry)
    /// until that returns true.
    pub fn dropped(&self, offer: impl FnOnce() -> bool) -> bool {
        // Offers happen under the lock: whether one is owed never lags behind.
        let mut state = self.state();
        if state.reported {
            return false;
        }
        state.reported = true;
        if offer() {
            state.owed = false;
            return false;
        }
        !std::mem::replace(&mut state.owed, true)
    }

    /// Tries again. Returns whether nothing is owed any more.
    pub fn retry(&self, offer: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        state.owed = state.owed && !offer();
        !state.owed
    }

    /// Stops to try: there is no queue any more.
    pub fn give_up(&self) {
        self.state().owed = false;
    }

    /// The queue is empty: the next message that is dropped is reported again.
    pub fn rearm(&self) {
        self.state().reported = false;
    }
}
