//! Snapshot files: see `properties/snapshot.rs`.
#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::snapshot::check(data));
