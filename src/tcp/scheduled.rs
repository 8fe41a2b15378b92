//! The host's own queues under a scheduler that decides which thread runs next.
//!
//! A wakeup that is lost in one of many interleavings shows in no ordinary test: here it is a
//! deadlock, which `shuttle` reports together with the schedule that leads to it. The sources are
//! the real ones, compiled a second time with the locks and threads of `shuttle`. Only what has
//! wakeups of its own is here; the other queues of the host are channels of the standard library
//! and tokio, without any logic beside them.
//!
//! `Notify` of tokio stays what it is: each call is a single step. Time does not pass, so no timeout
//! hides a lost wakeup.

#![allow(dead_code, clippy::duplicate_mod, reason = "compiled again, for what waits in them")]

#[path = "loss.rs"]
mod loss;
#[path = "queue.rs"]
mod queue;
#[path = "segments.rs"]
mod segments;

/// What `super::sync` is to the ordinary build.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(super) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    pub(super) use shuttle::thread;
}

use std::collections::VecDeque;
use std::io::Read;

use shuttle::future::block_on;
use shuttle::rand::Rng;
use shuttle::{check_pct, check_random};

use super::directory::{self, Directory, Expected, SPARE_FILLING};
use super::fs::{self, Recorder};
use super::scratch::Scratch;
use crate::types::NodeId;
use crate::wire::Message;

use loss::LossReport;
use queue::{Pushed, Queue};
use segments::Spares;
use sync::{Arc, Mutex, thread};

/// Schedules that are tried in each of two ways.
const SCHEDULES: usize = 1000;

/// Tries random schedules, and some that let a thread run until it waits.
fn explore(schedules: usize, test: impl Fn() + Copy + Send + Sync + 'static) {
    check_random(test, schedules);
    check_pct(test, schedules, 3);
}

#[test]
fn writer_of_a_queue_misses_no_message() {
    explore(SCHEDULES, || {
        let queue = Arc::new(Queue::new(100, 1 << 20));
        let producers = [1, 2].map(|producer| {
            let queue = queue.clone();
            thread::spawn(move || {
                for id in 0..3 {
                    let message = Message::ReadIndex { id: 10 * producer + id };
                    assert_eq!(queue.push(message), Pushed::Queued(0));
                }
            })
        });
        let writer = {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut taken = Vec::new();
                while block_on(queue.ready()) {
                    queue.take(1, &mut taken);
                }
                taken
            })
        };
        for producer in producers {
            producer.join().unwrap();
        }
        queue.close();
        let mut taken = writer.join().unwrap();
        taken.sort_by_key(|message| match message {
            Message::ReadIndex { id } => *id,
            _ => unreachable!("it was not sent"),
        });
        let sent = [10, 11, 12, 20, 21, 22].map(|id| Message::ReadIndex { id });
        assert_eq!(taken, sent);
    });
}

#[test]
fn writer_that_gives_up_waiting_misses_no_message() {
    explore(SCHEDULES, || {
        let queue = Arc::new(Queue::new(100, 1 << 20));
        let producer = {
            let queue = queue.clone();
            thread::spawn(move || {
                for id in 0..3 {
                    queue.push(Message::ReadIndex { id });
                }
                queue.clear();
                queue.push(Message::ReadIndex { id: 3 });
            })
        };
        // As when a ping is due at the same time: the wait is dropped and begins anew.
        let mut taken = Vec::new();
        while taken.last() != Some(&Message::ReadIndex { id: 3 }) {
            let _ = super::choppy::poll_and_drop(queue.ready(), 1);
            assert!(block_on(queue.ready()));
            queue.take(1, &mut taken);
        }
        producer.join().unwrap();
        queue.close();
        assert!(!block_on(queue.ready()));
    });
}

/// What happened to one peer's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happened {
    Dropped,
    /// The queue is empty; the report is about to be rearmed.
    Empties,
    /// It is rearmed.
    Emptied,
    Reported,
}

#[test]
fn every_drop_after_an_empty_queue_is_reported() {
    explore(SCHEDULES, || {
        let loss = Arc::new(LossReport::default());
        let happened = Arc::new(Mutex::new(Vec::new()));
        let offer = {
            let happened = happened.clone();
            move || {
                // The node's inbox has room, or not.
                let room = shuttle::rand::thread_rng().gen_bool(0.5);
                if room {
                    happened.lock().unwrap().push(Happened::Reported);
                }
                room
            }
        };
        let writer = {
            let (loss, happened) = (loss.clone(), happened.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    happened.lock().unwrap().push(Happened::Empties);
                    loss.rearm();
                    happened.lock().unwrap().push(Happened::Emptied);
                }
            })
        };
        let mut tasks = VecDeque::new();
        for _ in 0..3 {
            happened.lock().unwrap().push(Happened::Dropped);
            if loss.dropped(&offer) {
                let (loss, offer) = (loss.clone(), offer.clone());
                tasks.push_back(thread::spawn(move || {
                    while !loss.retry(&offer) {
                        thread::yield_now();
                    }
                }));
            }
        }
        writer.join().unwrap();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        let happened = happened.lock().unwrap().clone();
        let last = |what, events: &[Happened]| events.iter().rposition(|seen| *seen == what);
        let dropped = last(Happened::Dropped, &happened).unwrap();
        let (before, after) = happened.split_at(dropped);
        // Reported before, and not rearmed since.
        let is_known = last(Happened::Reported, before).is_some_and(|reported| {
            let emptied = last(Happened::Emptied, before).unwrap_or(0);
            let empties = last(Happened::Empties, &before[..emptied]).unwrap_or(0);
            empties < reported
        });
        let is_reported = after.contains(&Happened::Reported);
        assert!(is_known || is_reported, "{happened:?}");
    });
}

/// Segments of the smallest size: more would only take longer.
const SEGMENT: u64 = 4096;

#[test]
fn log_never_waits_for_a_spare_that_does_not_come() {
    explore(40, || {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        // Nothing is synced, which would take long.
        let _recorder = Recorder::start(&root, None, None).unwrap();
        let expected = Expected { node: NodeId(1), cluster: None };
        let directory = std::sync::Arc::new(Directory::open(&root, expected).unwrap());
        let segment = |number: u64| root.join(format!("wal-{number:016x}"));
        let spares = Spares::start(directory.clone(), SEGMENT).unwrap();
        for number in 1..=4 {
            let path = segment(number);
            if spares.take(&path, SEGMENT).unwrap().is_none() {
                segments::fill(&directory::create(&path).unwrap(), SEGMENT).unwrap();
                spares.retry();
            }
            let mut content = Vec::new();
            fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, [0; SEGMENT as usize], "segment {number}");
            if number == 2 {
                // From here on no spare can be made, unless that has begun.
                fs::create_dir(root.join(SPARE_FILLING)).unwrap_or_default();
            }
            if number > 1 {
                spares.remove(&segment(number - 1)).unwrap();
            }
        }
    });
}
