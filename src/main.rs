//! The program `stormkv`: a node of a cluster, and what goes with it.
//!
//! Without a subcommand it runs a node, with the flags of etcd's raftexample. Exit codes: 0 all is
//! well (a member that was removed stops so, too), 64 the command line or the configuration is
//! wrong, 70 an invariant of the node broke, 74 the disk failed; `ctl` has some of its own.

#![forbid(unsafe_code)]

// `--features bugs` for both packages in one command would put the mistakes into this program, too.
#[cfg(all(feature = "bugs", not(debug_assertions)))]
compile_error!(
    "a real node has no planted bugs: build it without the feature `bugs`, as in `cargo build \
     --release --features tcp`; `cargo sim` builds the simulator with it"
);

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
