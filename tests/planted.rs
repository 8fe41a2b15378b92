//! The program `stormkv` has no planted bugs, unless a test build asked for them by name.

use std::fs;

/// Three names of the catalogue. Split, so that this file is not what is found.
const NAMES: [(&str, &str); 3] =
    [("failed-on-", "step-down"), ("checksum-", "ignored"), ("read-at-", "once")];

/// In both builds, so that a search that finds nothing anywhere would be noticed.
#[test]
fn a_node_knows_bugs_only_in_a_build_with_the_feature() {
    let program = fs::read(env!("CARGO_BIN_EXE_stormkv")).expect("the program is there");
    let contains = |name: &str| program.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(contains("raft"), "the search finds what is there");
    for (start, end) in NAMES {
        let name = [start, end].concat();
        assert!(cfg!(feature = "bugs") || !contains(&name), "{name} is in the program");
    }
}
