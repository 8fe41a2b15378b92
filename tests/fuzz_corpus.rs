//! The committed corpus of the fuzz targets, run through the same functions: what a fuzzer found
//! once stays found, without a fuzzer. See `tests/fuzz/`.

use std::fs;
use std::path::Path;

#[path = "fuzz/properties/mod.rs"]
mod properties;

/// Runs `check` on every input of the corpus of this name. A panic names the input.
fn replay(name: &str, check: fn(&[u8])) {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut inputs: Vec<_> = fs::read_dir(&room)
        .expect("each target has a corpus")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "the corpus of {name} is nearly empty");
    check(&[]);
    for input in inputs {
        let data = fs::read(&input).expect("it can be read");
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "the property {name} fails for {}", input.display());
    }
}

#[test]
fn any_bytes_are_a_message_or_an_error() {
    replay("frame", properties::frame::check);
}

#[test]
fn a_damaged_log_is_recovered_or_refused() {
    replay("wal", properties::wal::check);
}

#[test]
fn any_snapshot_file_is_restored_or_refused() {
    replay("snapshot", properties::snapshot::check);
}

#[test]
fn no_peer_can_make_a_node_panic() {
    replay("node", properties::node::check);
}

#[cfg(feature = "tcp")]
#[test]
fn any_path_is_a_key_or_an_error() {
    replay("key", properties::key::check);
}
