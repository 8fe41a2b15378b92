//! The sessions that make a repeated command take effect once.
//!
//! A session has one command on its way at a time, so concurrent commands need several. They are
//! opened when needed and used again and again. A number is used for one command only, however
//! that ended: if an earlier one is still on its way when the next is applied, it never will be.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// An open session and the number of its next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    id: u64,
    next: u64,
}

/// The open sessions that are not in use, and how many may be.
pub(super) struct Sessions {
    limit: usize,
    places: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Sessions {
    pub fn new(limit: usize) -> Sessions {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Sessions { limit, places: Semaphore::new(limit), idle: Mutex::new(Vec::new()) }
    }

    /// Whether commands are to be sent with sessions at all.
    pub fn are_used(&self) -> bool {
        self.limit > 0
    }

    /// A place for a session, once there is one.
    pub async fn place(&self) -> Lease<'_> {
        let permit = self.places.acquire().await.expect("it is never closed");
        let session = self.idle().pop();
        Lease { sessions: self, session, _permit: permit }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        // A panic between push and pop cannot leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have one command on its way, and a session to send it with, once that is open.
pub(super) struct Lease<'a> {
    sessions: &'a Sessions,
    session: Option<Session>,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// The key of the command, the same for all of its attempts; `None` if no session is open.
    pub fn idempotency_key(&self) -> Option<String> {
        self.session.map(|session| format!("{}-{}", session.id, session.next))
    }

    pub fn opened(&mut self, id: u64) {
        self.session = Some(Session { id, next: 1 });
    }

    /// The cluster has forgotten the session.
    pub fn expired(&mut self) {
        self.session = None;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(Session { id, next }) = self.session {
            self.sessions.idle().push(Session { id, next: next + 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_has_one_command_at_a_time_and_never_a_number_twice() {
        let sessions = Sessions::new(2);
        let mut first = sessions.place().await;
        assert_eq!(first.idempotency_key(), None);
        first.opened(7);
        let mut second = sessions.place().await;
        assert_eq!(second.idempotency_key(), None, "the first one is in use");
        second.opened(9);
        assert_eq!(first.idempotency_key().as_deref(), Some("7-1"));
        assert_eq!(first.idempotency_key().as_deref(), Some("7-1"), "the same for every attempt");
        assert_eq!(sessions.places.available_permits(), 0);
        drop(first);
        let first = sessions.place().await;
        assert_eq!(first.idempotency_key().as_deref(), Some("7-2"));
        second.expired();
        drop(second);
        assert_eq!(sessions.place().await.idempotency_key(), None, "9 is forgotten");
    }
}
