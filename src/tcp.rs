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
//!
//! The program `stormkv` is a thin shell around this: [`options::Settings`] are what a person sets,
//! [`options::Options`] what they mean, and a [`Server`] is the node that they describe, of the
//! key-value store or of [any machine](Server::start_with), which can
//! be asked through its [`handle::Handle`], or from outside through the REST API of [`http`], for
//! which [`client`](crate::client) is a client. [`metrics`] lists what can be watched, [`tls`] says
//! who must prove what, and [`certs`] makes certificates for it. [`handshake`] is the first word
//! between peers, for proxies and tools on the wire.
//!
//! ```no_run
//! use stormkv::tcp::Server;
//! use stormkv::tcp::options::Settings;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings {
//!     id: Some(1),
//!     cluster: Some(vec!["http://127.0.0.1:12379".to_owned()]),
//!     port: Some(12380),
//!     ..Settings::default()
//! };
//! let server = Server::start(settings.resolve()?).await?;
//! println!("clients find it at http://{}", server.client_address());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod address;
pub mod answers;
pub mod certs;
#[cfg(test)]
mod choppy;
mod descriptors;
mod directory;
mod disk;
mod frames;
#[cfg(test)]
mod fs;
pub mod handle;
pub mod handshake;
pub mod http;
pub mod identity;
mod joining;
mod journal;
mod link;
mod listener;
mod lives;
mod loss;
pub mod metrics;
mod network;
pub mod options;
mod peers;
mod pending;
#[cfg(test)]
mod power_loss;
mod queue;
#[cfg(test)]
mod queue_tests;
mod recover;
mod refusals;
mod relocation;
mod restore;
mod runner;
#[cfg(test)]
mod scheduled;
#[cfg(test)]
mod scratch;
mod segments;
mod server;
mod stats;
#[cfg(test)]
mod testing;
pub mod tls;

#[cfg(not(test))]
use std::fs;

/// What the host's own queues lock and wait with. The tests in `scheduled` compile these queues a
/// second time, beside another module of this name.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
    pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    pub(super) use std::thread;
}

pub use descriptors::raise_limit;
pub use directory::DirectoryError;
pub use recover::Recovery;
pub use restore::restore;
pub use server::{Ended, Server, ServerError};
