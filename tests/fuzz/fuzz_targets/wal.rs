//! The write-ahead log on damaged disks: see `properties/wal.rs`.
#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::wal::check(data));
