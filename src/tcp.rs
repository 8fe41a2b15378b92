//! The production host: a node on real sockets, real files and real time.
//!
//! ```text
//!            clients                     peers
//!               | HTTP                     | frames
//!   tokio:   [http] --- requests -->   [listener] -- messages --+
//!               ^                                               v
//!   a thread:   +---- replies ----  [runner: the driver and its node]  --> [peers] --> frames
//!                                        | batches    ^
//!   a thread:                            v            | completions
//!                                   [disk: write, sync, rename]
//! ```
//!
//! All that decides anything runs on one thread, the runner's, which never waits for a disk or a
//! socket. Everything around it moves bytes.

pub mod handle;
pub mod identity;
