//! The bounded queue between the node's thread and the writer of one lane.
//!
//! Pushing never waits: what does not fit is handed back. Raft repeats what matters, and a peer
//! that is slow must not make others slow. A queue is bounded twice, in messages and in bytes,
//! because a message can be anything from a heartbeat to megabytes of entries.
//!
//! A request of a client that is passed on does not wait for a connection that is broken: the client is
//! better off if it is refused, which says that it had no effect, and can be tried again elsewhere.
//! So a queue whose connection was lost gives back the requests that it holds, and takes none until
//! there is a connection again.
//!
//! Chunks of snapshots get a closer look. The writer paces them, so they may wait here for longer
//! than the sender's patience; it then sends them anew. A chunk that is in the queue already is not
//! queued twice, and a new transfer takes the place of an old one: so impatience costs nothing.

use std::collections::VecDeque;

use tokio::sync::Notify;

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering::SeqCst, PoisonError};
use crate::wire::Message;

/// What became of a pushed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits for the writer. So many older chunks were dropped for it.
    Queued(usize),
    /// It is a chunk that waits there already.
    Twice,
    /// There was no room.
    Full,
    /// It is a request, and the connection for it is broken.
    Broken,
    /// The lane has ended.
    Closed,
}

#[derive(Default)]
struct Inner {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The last connection, or attempt to make one, has failed.
    broken: bool,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Changes only while `inner` is locked.
    closed: AtomicBool,
    /// Something was pushed, or the queue was closed.
    stirred: Notify,
    max_messages: usize,
    max_bytes: usize,
}

impl Queue {
    pub fn new(max_messages: usize, max_bytes: usize) -> Queue {
        let (closed, stirred) = (AtomicBool::new(false), Notify::new());
        Queue { inner: Mutex::default(), closed, stirred, max_messages, max_bytes }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `message` if there is room. A message of any size fits into an empty queue.
    pub fn push(&self, message: Message) -> Pushed {
        let size = message.weight();
        let mut inner = self.inner();
        if self.is_closed() {
            return Pushed::Closed;
        }
        if inner.broken && matches!(message, Message::Forward { .. }) {
            return Pushed::Broken;
        }
        let mut dropped = 0;
        if let Message::Chunk(new) = &message {
            let known = |old: &Message| match old {
                Message::Chunk(old) => old.transfer == new.transfer && old.offset == new.offset,
                _ => false,
            };
            if inner.messages.iter().any(known) {
                return Pushed::Twice;
            }
            let before = inner.messages.len();
            inner
                .messages
                .retain(|old| !matches!(old, Message::Chunk(old) if old.transfer != new.transfer));
            dropped = before - inner.messages.len();
            if dropped > 0 {
                inner.bytes = inner.messages.iter().map(Message::weight).sum();
            }
        }
        let full = inner.messages.len() >= self.max_messages
            || (inner.bytes + size > self.max_bytes && !inner.messages.is_empty());
        if full {
            return Pushed::Full;
        }
        inner.bytes += size;
        inner.messages.push_back(message);
        drop(inner);
        self.stirred.notify_one();
        Pushed::Queued(dropped)
    }

    /// Moves messages of about `bytes` (at least one, if there is one) to `into`. Says whether the
    /// queue is empty now.
    pub fn take(&self, bytes: usize, into: &mut Vec<Message>) -> bool {
        let mut inner = self.inner();
        let mut taken = 0;
        while taken < bytes
            && let Some(message) = inner.messages.pop_front()
        {
            let size = message.weight();
            inner.bytes -= size;
            taken += size;
            into.push(message);
        }
        inner.messages.is_empty()
    }

    /// Waits until there is something to take (`true`), or the queue is closed and empty (`false`).
    pub async fn ready(&self) -> bool {
        loop {
            let stirred = self.stirred.notified();
            {
                let inner = self.inner();
                if !inner.messages.is_empty() {
                    return true;
                }
                if self.is_closed() {
                    return false;
                }
            }
            stirred.await;
        }
    }

    /// Takes nothing more.
    pub fn close(&self) {
        let inner = self.inner();
        self.closed.store(true, SeqCst);
        drop(inner);
        self.stirred.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// The connection was lost, or could not be made. Removes the requests that wait, which were never
    /// sent, and returns their ids.
    pub fn disconnected(&self) -> Vec<u64> {
        let mut inner = self.inner();
        inner.broken = true;
        let forwards = inner.messages.iter().filter_map(|message| match message {
            Message::Forward { id, .. } => Some(*id),
            _ => None,
        });
        let unsent: Vec<u64> = forwards.collect();
        if !unsent.is_empty() {
            inner.messages.retain(|message| !matches!(message, Message::Forward { .. }));
            inner.bytes = inner.messages.iter().map(Message::weight).sum();
        }
        unsent
    }

    /// There is a connection, or an address to try for the first time.
    pub fn connected(&self) {
        self.inner().broken = false;
    }

    /// Drops what waits, and says how much that was.
    pub fn clear(&self) -> usize {
        let mut inner = self.inner();
        inner.bytes = 0;
        std::mem::take(&mut inner.messages).len()
    }
}
