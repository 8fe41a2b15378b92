//! What must hold for any bytes, as functions that panic if it does not.
//!
//! Each is the whole of a fuzz target, and a part of the test `fuzz_corpus`. Inputs are read by
//! [`input::Input`], which has an answer for every question however short the bytes are, so that
//! nearly all mutations of an input are inputs too.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

pub mod frame;
pub mod input;
#[cfg(feature = "tcp")]
pub mod key;
pub mod node;
pub mod peer;
pub mod snapshot;
pub mod wal;
pub mod wal_model;
