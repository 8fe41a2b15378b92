//! One run as data, for whoever wants to look at it: every event, what it did, and what led to the
//! violation.
//!
//! A trace is text for a person who reads from top to bottom. Here the same run is a handful of
//! tables, so that a program can ask what a node held after event 812, where a message went that was
//! sent in it, and which events the violation follows from. A run is recorded only if it is asked for
//! ([`RunOptions::recording`](crate::simulation::RunOptions::recording)), and the same run either way.
//!
//! - [`recording`](crate::recording) has the tables, as they are filled while the run goes on,
//! - [`curve`] runs continuations, to find the event that sealed it,
//! - [`block`] is the data block: the recording as versioned JSON, and what a reader has to know,
//! - [`html`] puts the block into a page that shows it, with the feature `viewer`,
//! - [`text`] has a line for each event, [`shiviz`] a log for ShiViz, [`perfetto`] a trace for
//!   Perfetto, with `wire.rs` for its encoding; `words.rs` is what they say alike,
//! - [`timeline`] has a few dozen lines for the whole run, which a replay prints.
//!
//! Left out on purpose: the state machine's content, which the log explains; and the bytes on disks.
//!
#![cfg_attr(not(feature = "viewer"), doc = "[`html`]: ./index.html")]

pub mod block;
pub mod curve;
#[cfg(feature = "viewer")]
pub mod html;
pub mod perfetto;
pub mod shiviz;
pub mod text;
pub mod timeline;
mod wire;
mod words;

pub use crate::recording::Recording;
pub use curve::Curve;

use crate::outcome::Violation;

/// What the recording does not know by itself: what was run, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What was run, in a few words, for example `seed 7`.
    pub title: String,
    /// The line to paste that runs it again; with ` --until STEP` behind it, up to an event.
    pub replay: String,
    /// The plan.
    pub plan_hash: u64,
    /// The run.
    pub trace_hash: u64,
    /// The bug that was planted, if one was.
    pub bug: Option<String>,
    /// What is wrong; `None` if the run is clean.
    pub violation: Option<Violation>,
    /// Which of its continuations fail, if somebody wanted to know.
    pub curve: Option<Curve>,
}
