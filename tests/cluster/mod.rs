//! Real nodes for tests: processes, files, sockets, and a network that a test can break.
//!
//! ```text
//!   clients (threads) --HTTP--> node 1 ... node n      each a process of `stormkv`
//!        |                        |  peers                \
//!        v                        v                        logs, data: a temporary folder
//!   [record: history]       [net: one proxy per node]
//!        |
//!        v
//!   the simulator's own linearizability checker
//! ```
//!
//! The simulator proves the core with faults that no test of real processes can place as well.
//! What is proven here is the rest: sockets, files, signals, flags. So a test tells a story with
//! real faults (kill -9, SIGSTOP, a cut network, a full disk), and what the clients saw meanwhile
//! is judged by the same checker that judges the simulator's clients.
//!
//! Nothing here sleeps for a fixed time and hopes: a test waits until a condition holds, and fails
//! with the condition's name, the logs of all nodes and the folder of their data. Tests of one
//! program take turns ([`turn`]), because timeouts mean little on a machine that is too busy.
//!
//! Left out: packet loss and reordering inside a connection (TCP hides them), and power loss
//! (a killed process keeps its page cache); both are the simulator's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod clients;
pub mod disks;
pub mod fleet;
pub mod guests;
pub mod http;
pub mod kv;
pub mod nemesis;
pub mod net;
pub mod nodes;
pub mod record;

/// How long a test waits for what should take a fraction of a second.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One test at a time: hold it as long as processes run.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // The test before may have failed; that says nothing about this one.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `look` finds something. Fails the test after [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// As [`until`], with a limit of its own.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(LOOK);
    }
}
