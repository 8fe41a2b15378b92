//! The storm: stormkv's deterministic simulator.

#![forbid(unsafe_code)]

pub mod campaign;
pub mod caught;
pub mod check;
pub mod checker;
pub mod disk;
pub mod history;
pub mod network;
pub mod outcome;
pub mod plan;
mod port;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod schedule;
pub mod swarm;
pub mod world;
