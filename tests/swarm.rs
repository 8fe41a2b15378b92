//! Runs a swarm of seeds, each a random cluster in a random storm.
//!
//! `STORM_SEEDS=N` or `A..B` chooses the seeds, `STORM_SEED=S` replays one, and `STORM_JOBS=N` sets
//! the number of threads. For long campaigns and statistics there is `cargo sim run`.

use stormkv_sim::kv::KeyValue;
use stormkv_sim::testing::{self, Swarm};

/// Few enough for a build without optimization of the test itself to take seconds.
#[test]
fn swarm_clean() {
    testing::swarm::<KeyValue>(400);
}

/// Damage to disks beyond what a quorum can repair may stop a cluster, but it must not make it lie.
#[test]
fn swarm_beyond_quorum_safe() {
    const SEEDS: u64 = 100;
    let totals = Swarm::of::<KeyValue>(SEEDS).beyond_quorum().run();
    for ended in ["stopped-beyond-quorum", "recovered-beyond-quorum"] {
        let count = totals.faults.get(ended).copied().unwrap_or(0);
        // A few seeds that a variable asks for need not show both.
        assert!(count > 10 || totals.seeds < SEEDS, "{ended} only in {count} runs");
    }
}
