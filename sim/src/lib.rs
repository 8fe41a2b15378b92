//! The storm: stormkv's deterministic simulator.
//!
//! # What a run is
//! A run is a pure function of its [`Plan`](plan::Plan): the cluster, what the clients do, which
//! faults strike and when, how it ends. A seed only generates a plan ([`swarm`]); a scenario file is
//! one ([`scenario`]). Nodes are the product's own drivers, unchanged. What is simulated is what
//! they touch: clocks, links and disks. There is one thread, one queue of events and virtual time,
//! so a day passes in seconds, and the same plan gives the same events on every machine. The trace
//! hash covers each of them; [`determinism`] runs a plan twice to prove it. Chances that the plan
//! leaves open are drawn by name ([`rng`]), so that taking out one fault does not shift the others.
//!
//! # Any service
//! A plan has words for what clients do. A [`service::Service`] makes operations of them, and brings a
//! reference that each answer is compared with, invariants and a workload. [`kv::KeyValue`] is one of
//! them; plans, faults, checkers and shrinking are the same for all.
//!
//! # Two phases
//! First the storm: faults strike and are mended, and nothing may be violated, however bad it gets.
//! Then it stops. The *core*, a quorum or more, is healed; the others are lost for good, each in a
//! way of its own. The core must have a leader, answer what was asked before, and agree, each
//! within a bound. Otherwise the run ends as a stall, and says what is missing. A cluster that is
//! safe because it stands still is found out here.
//!
//! # The atlas
//! Disks may damage what they hold, and no log survives the damage of every copy. The atlas knows
//! who holds damage, and allows more only while, in every membership in force, those without damage
//! are a quorum: then nothing committed may be lost, and everyone must get well. A campaign beyond a
//! quorum lifts that rule. The cluster may then stop with a clear error, but not tell anything wrong.
//!
//! # The checkers
//! They look at every event, from outside: at what nodes write, send and say ([`checker`]). Some hold
//! the invariants of Raft, some compare each replica with a reference model, some bound what a node
//! keeps. In the end the history of the clients must be linearizable. Each counts how often it
//! really compared something, and each kind of fault and each waypoint how often it came about:
//! a clean run in which nothing happened proves nothing.
//!
//! # Where things are
//! - [`service`] is what a service brings, [`kv`] the key-value store as one,
//! - [`plan`] is a run as data and [`swarm`] draws one; [`scenario`] reads a file and its expectation,
//! - [`simulation`] carries it out, on [`schedule`], [`network`], [`disk`] and `clock.rs`; `port.rs` is
//!   what a node sees of them,
//! - [`checker`] judges, with [`history`] for what clients were told, which reads histories from
//!   elsewhere, too,
//! - [`outcome`] is what came of a run, [`campaign`] runs many and adds them up, [`caught`] turns a
//!   panic into a finding, [`names`] and [`histogram`] help to count, [`parallel`] is for who judges
//!   many runs,
//! - [`bugs`] measures how soon mistakes that are planted on purpose are found, and [`explore`] has
//!   other ways to choose plans, to compare them by that,
//! - [`shrink`] turns a failing plan into a small one,
//! - [`testing`] makes tests of `cargo test` of scenario files and seeds,
//! - [`recording`] is a run as data, event by event, and [`view`] shows it,
//! - [`version`] names the build,
//! - [`report`] says it in words or as JSON, `words` what requests and answers are; [`main`] is the command line.
//!
//! # Features
//! None is on by default: seeds as tests need few dependencies.
//! - `harness`: [`testing::Scenarios`], scenario files as tests,
//! - `viewer`: [`view::html`], the page that shows a run,
//! - `cli`: [`main`], with `viewer`,
//! - `bugs`: mistakes that are planted in the node on purpose, with `cli`.
//!
#![cfg_attr(not(feature = "cli"), doc = "[`main`]: ./index.html")]
#![cfg_attr(not(feature = "harness"), doc = "[`testing::Scenarios`]: ./index.html")]
#![cfg_attr(not(feature = "viewer"), doc = "[`view::html`]: ./index.html")]
#![forbid(unsafe_code)]

pub mod bugs;
pub mod campaign;
pub mod caught;
pub mod checker;
#[cfg(feature = "cli")]
mod cli;
mod clock;
pub mod determinism;
pub mod disk;
pub mod explore;
pub mod histogram;
pub mod history;
mod kernel;
pub mod kv;
pub mod names;
pub mod network;
pub mod outcome;
pub mod parallel;
pub mod plan;
mod port;
pub mod recording;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod schedule;
pub mod service;
pub mod shrink;
pub mod simulation;
pub mod swarm;
pub mod testing;
pub mod version;
pub mod view;
mod words;

/// Runs the whole command line for a service, with the arguments and streams of the process: seeds,
/// replay, shrinking, the page, soak. For the `main` of a program of the user's own.
///
/// ```no_run
/// # use stormkv_sim::kv::KeyValue as MyService;
/// fn main() -> std::process::ExitCode {
///     stormkv_sim::main::<MyService>()
/// }
/// ```
///
/// Exit codes: 0 clean, 1 safety violation, 2 liveness, 3 unknown, 64 usage, 70 internal error.
///
/// Needs the feature `cli`.
#[cfg(feature = "cli")]
pub fn main<S: service::Service>() -> std::process::ExitCode {
    cli::main::<S>()
}
