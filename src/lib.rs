//! stormkv: a Raft key-value store raised in a storm.
//!
//! This crate is the product: a node of a replicated, durable key-value store. It is written so
//! that the same code runs in two worlds: in production, and in the deterministic simulator of the
//! crate `stormkv-sim`, which loses its messages, tears its writes and crashes it between any two
//! steps, checks every promise, and replays any failure from a seed.
//!
//! That works because nothing in here waits. A [`node::Node`] is a value: inputs go in (a tick, a
//! message, a request, a finished disk operation), outputs come out (send, write, reply). It reads
//! no clock, opens no file, spawns no thread. Who may say what before what is durable is decided in
//! here, once; a [`driver::Driver`] carries the outputs to the world and the completions back.
//!
//! ```text
//! client request -> propose -> Ready -+-> send (leader, at once)
//!                                     +-> write-ahead log + sync (ticket)
//! ticket done -> held messages -> commit -> apply -> reply
//! ```
//!
//! The rooms, from the edge inwards; nothing points back out:
//!
//! - [`driver`] moves outputs and completions between a node and its [`mod@env`] (clock, transport,
//!   disk),
//! - [`memory`] is that environment for tests: a disk, a host and a cluster in memory,
//! - [`node`] is one member: it drives the `raft` crate and keeps that crate's contract,
//! - [`wal`] makes records durable, tells a torn tail from corruption; [`snapshot`] is the format
//!   of state files; `log` is what raft reads,
//! - [`machine`] is the state machine as a trait, [`kv`] the reference one, [`session`] makes
//!   retries take effect once,
//! - [`api`] is what clients say, [`wire`] what nodes say to each other,
//! - [`types`], [`config`], [`error`], [`digest`] are the vocabulary.
//!
//! With the feature `tcp`, on Unix, there are two more: [`tcp`] is the production host (sockets,
//! files, threads, the REST API), [`client`] talks to it. Nothing else knows them. Who wants to
//! run a node, or to use one, begins there; who wants to build one for another world, with
//! [`driver`]; who wants to test a state machine, with [`memory`].
//!
#![cfg_attr(not(feature = "tcp"), doc = "[`tcp`]: ./index.html")]
#![cfg_attr(not(feature = "tcp"), doc = "[`client`]: ./index.html")]
#![forbid(unsafe_code)]

// One sentence instead of an error at each use of `std::os::unix`.
#[cfg(all(feature = "tcp", not(unix)))]
compile_error!(
    "the feature `tcp` of stormkv builds on Unix only, because it uses Unix file modes and signals; \
     leave it out for the node itself, its tests and the simulator"
);

pub mod api;
pub mod bugs;
mod chunks;
#[cfg(all(feature = "tcp", unix))]
pub mod client;
pub mod config;
pub mod digest;
pub mod driver;
pub mod env;
pub mod error;
pub mod kv;
mod log;
pub mod machine;
pub mod memory;
pub mod node;
pub mod session;
pub mod snapshot;
mod take;
#[cfg(all(feature = "tcp", unix))]
pub mod tcp;
pub mod types;
pub mod wal;
pub mod wire;
mod work;
