//! The checkers. Those of the cluster's inside ([`Safety`]) look at every event; those of client
//! histories look at the whole: was everything that clients were told consistent with one
//! copy of the data, changed by one operation at a time?
//!
//! Two tiers, because they trade knowledge for speed. [`witness`] is told the order in which the
//! log applied the writes and only has to confirm it: O(n log n), for every run of the simulator.
//! [`linearizable`] knows nothing but the history and searches for an order: exponential in the
//! worst case, for external histories, for all failures and for a sample of the passes. They share
//! the vocabulary of [`crate::history`] but no code that decides, so that each checks the other.

pub mod black_box;
mod bounds;
mod by_node;
mod check;
mod compile;
mod explain;
mod forget;
mod ledger;
pub mod linearizable;
mod machine;
pub mod model;
mod raft;
mod repeats;
mod safety;
mod search;
mod shadow;
mod snapshot_rate;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod why;
pub mod witness;

pub use self::bounds::{BOUNDED, Bounds, Peaks};
use self::check::Checks;
pub use self::check::{Check, check_names};
pub use self::safety::{Broken, Safety};
pub use self::snapshot_rate::SnapshotRate;
pub use self::view::View;
pub use self::why::Why;
