//! Scenario files and seeds as ordinary tests of `cargo test` and `cargo nextest`.
//!
//! # Scenario files
//! Each file below a folder is a test, named after its path: `scenarios/membership/members-move.toml`
//! is `membership::members-move`. Filters, `--exact`, `--list` and the listing protocol of nextest work,
//! so that its JUnit report has one case per file. The target brings its own `main`:
//!
//! ```toml
//! [[test]]                # Cargo.toml
//! name = "scenarios"
//! harness = false
//! ```
//! ```no_run
//! // tests/scenarios.rs
//! use std::process::ExitCode;
//! use stormkv_sim::kv::KeyValue;
//!
//! fn main() -> ExitCode {
//!     stormkv_sim::testing::scenarios::<KeyValue>("scenarios")
//! }
//! ```
//!
//! [`Scenarios`] adds further tests to such a target. Both need the feature `harness`.
//!
//! # Seeds
//! ```no_run
//! // tests/swarm.rs
//! use stormkv_sim::kv::KeyValue;
//! use stormkv_sim::testing;
//!
//! #[test]
//! fn swarm_clean() {
//!     testing::swarm::<KeyValue>(400);
//! }
//!
//! #[test]
//! fn seed_34_clean() {
//!     testing::assert_clean::<KeyValue>(34);
//! }
//! ```
//!
//! Environment variables choose other seeds without a rebuild:
//!
//! | variable | |
//! |---|---|
//! | `STORM_SEED=S` | exactly this seed, without the regressions |
//! | `STORM_SEEDS=N`, `STORM_SEEDS=A..B` | the seeds `0..N`, or A to B without B |
//! | `STORM_JOBS=J` | the number of threads; one per processor unless given |
//!
//! A failure reports the violation and the lines to paste that shrink, view and replay it. Its plan is
//! saved as a scenario file in the folder `stormkv-failures` of the target directory.
//!
//! # Regressions
//! A swarm first runs the plans in `tests/regressions`, each of which failed once, and requires that
//! they are clean now. `expect.violation`, which a saved or shrunk file has, is the failure that was
//! found and is not required; `cargo sim replay` still judges the file by it.
//!
//! proptest keeps seeds for this. Here a seed means a plan only within one version of the swarm: any
//! change to the generator turns it into another plan, which most likely passes, and the test is lost
//! without a trace. A file holds the plan itself, keeps its meaning, and can be read in a review. A file
//! is not added to the folder by the test: the plan of a seed has hundreds of rows, and the one to keep
//! is what `cargo sim shrink` makes of it.
//!
//! The lines to paste begin with [`Service::COMMAND`].
//!
#![cfg_attr(not(feature = "harness"), doc = "[`Scenarios`]: ./index.html")]

mod failure;
mod files;
#[cfg(feature = "harness")]
mod scenarios;
mod source;
mod swarm;
mod variables;

#[cfg(feature = "harness")]
use std::path::PathBuf;
#[cfg(feature = "harness")]
use std::process::ExitCode;

use crate::service::Service;

#[cfg(feature = "harness")]
pub use scenarios::Scenarios;
pub use swarm::Swarm;

/// Runs each scenario file below the folder as a test, for the `main` of a target with `harness = false`.
/// A relative folder begins at the root of the package. The arguments are those of the process.
///
/// See [`Scenarios`] for what is checked.
#[cfg(feature = "harness")]
pub fn scenarios<S: Service>(folder: impl Into<PathBuf>) -> ExitCode {
    Scenarios::of::<S>(folder).run()
}

/// Runs the regressions, then the seeds `0..seeds` or those that `STORM_SEED` or `STORM_SEEDS` names.
///
/// # Panics
/// With a report if a run fails, and if a variable or a regression cannot be read.
#[track_caller]
pub fn swarm<S: Service>(seeds: u64) {
    Swarm::of::<S>(seeds).run();
}

/// Runs one seed.
///
/// # Panics
/// With a report if the run fails.
#[track_caller]
pub fn assert_clean<S: Service>(seed: u64) {
    if let Err(report) = Swarm::of::<S>(1).check_seed(seed) {
        panic!("{report}");
    }
}
