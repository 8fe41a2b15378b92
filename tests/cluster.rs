//! Real processes: nodes of `stormkv` on loopback, killed, paused, cut off, filled up, restarted.
//!
//! The stories are in `tests/cluster/stories`, the harness beside them; see `tests/cluster/mod.rs`.
//! `STORM_CHAOS_SECONDS=600` makes the chaos last ten minutes, `STORM_SEED=S` repeats its choices.

#![allow(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and blocking clients need threads"
)]

#[path = "cluster/mod.rs"]
mod harness;

#[path = "cluster/stories/basics.rs"]
mod basics;
#[path = "cluster/stories/chaos.rs"]
mod chaos;
#[path = "cluster/stories/crashes.rs"]
mod crashes;
#[path = "cluster/stories/damage.rs"]
mod damage;
#[path = "cluster/stories/descriptors.rs"]
mod descriptors;
#[path = "cluster/stories/directory.rs"]
mod directory;
#[path = "cluster/stories/failover.rs"]
mod failover;
#[path = "cluster/stories/identity.rs"]
mod identity;
#[path = "cluster/stories/journal.rs"]
mod journal;
#[path = "cluster/stories/liars.rs"]
mod liars;
#[path = "cluster/stories/membership.rs"]
mod membership;
#[path = "cluster/stories/metrics.rs"]
mod metrics;
#[path = "cluster/stories/operations.rs"]
mod operations;
#[path = "cluster/stories/own.rs"]
mod own;
#[path = "cluster/stories/partitions.rs"]
mod partitions;
#[path = "cluster/stories/recovery.rs"]
mod recovery;
#[path = "cluster/stories/strangers.rs"]
mod strangers;
