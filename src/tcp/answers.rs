//! Long answers on their way from the node's thread to the tasks of its clients, bounded in bytes.
//!
//! The thread makes answers faster than the tasks can write them out, and small requests may have
//! answers of megabytes. So a long answer takes up room from when the node gives it until the task
//! takes it; what the task makes of it counts against the memory for bodies, see `http`. Without
//! room, a query is refused as busy, and a command, which was applied, is answered with
//! [`Reply::NotKept`].

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{Refusal, Reply};
use crate::session::MAX_KEPT_RESPONSE;

/// Bytes of all long answers on their way.
const MAX_BYTES: usize = 64 << 20;

/// A reply, and its room until it is taken.
#[derive(Debug)]
pub struct Answer {
    reply: Reply,
    _room: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// The reply. It takes up no more room here.
    #[must_use]
    pub fn take(self) -> Reply {
        self.reply
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, _room: None }
    }
}

/// The room for long answers.
pub struct Answers {
    /// One permit per KiB.
    room: Arc<Semaphore>,
    kib: usize,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers::new(MAX_BYTES)
    }
}

impl Answers {
    fn new(bytes: usize) -> Answers {
        let kib = bytes >> 10;
        Answers { room: Arc::new(Semaphore::new(kib)), kib }
    }

    /// The reply as it may go on its way. One of any size may go alone.
    pub fn admit(&self, reply: Reply) -> Answer {
        let (Reply::Applied { response, .. } | Reply::Value { response, .. }) = &reply else {
            return reply.into();
        };
        if response.len() <= MAX_KEPT_RESPONSE {
            return reply.into();
        }
        let kib = response.len().div_ceil(1 << 10).min(self.kib);
        let kib = u32::try_from(kib).expect("the room is below 4 TiB");
        match Arc::clone(&self.room).try_acquire_many_owned(kib) {
            Ok(room) => Answer { reply, _room: Some(room) },
            Err(_) => without(reply).into(),
        }
    }
}

/// What is said instead of a long answer.
fn without(reply: Reply) -> Reply {
    match reply {
        Reply::Applied { index, response } => {
            Reply::NotKept { index, bytes: response.len() as u64 }
        }
        _ => Reply::Refused(Refusal::Busy),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn applied(bytes: usize) -> Reply {
        Reply::Applied { index: 5, response: Bytes::from(vec![7; bytes]) }
    }

    fn value(bytes: usize) -> Reply {
        Reply::Value { index: 5, response: Bytes::from(vec![7; bytes]) }
    }

    #[test]
    fn long_answers_have_room_until_they_are_taken() {
        let answers = Answers::new(10 << 10);
        let waiting = [answers.admit(applied(4000)), answers.admit(value(6 << 10))];
        let refused = answers.admit(value(2000)).take();
        assert_eq!(refused, Reply::Refused(Refusal::Busy));
        assert_eq!(answers.admit(applied(2000)).take(), Reply::NotKept { index: 5, bytes: 2000 });
        // Short ones always pass.
        assert_eq!(answers.admit(applied(1024)).take(), applied(1024));
        assert_eq!(answers.admit(Reply::Unknown).take(), Reply::Unknown);
        assert_eq!(waiting.map(Answer::take), [applied(4000), value(6 << 10)]);
        assert_eq!(answers.admit(applied(20 << 10)).take(), applied(20 << 10));
    }
}
