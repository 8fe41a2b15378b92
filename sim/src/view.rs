//! One run as data, for whoever wants to look at it: every event, what it did, and what led to the
//! violation.
//!
//! A trace is text for a person who reads from top to bottom. Here the same run is a handful of
//! tables, so that a program can ask what a node held after event 812, where a message went that was
//! sent in it, and which events the violation follows from. A run is filmed only if it is asked for
//! ([`RunOptions::film`](crate::world::RunOptions::film)), and the same run either way.
//!
//! - [`film`] has the tables, as they are filled while the run goes on,
//! - [`past`] finds the events that may have led to the violation,
//!
//! Left out on purpose: the state machine's content, which the log explains; and the bytes on disks.

pub mod film;
pub mod past;

pub use film::Film;
