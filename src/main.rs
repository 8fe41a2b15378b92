//! The program `stormkv`: a node of a cluster, and what goes with it.
//!
//! Without a subcommand it runs a node, with the flags of etcd's raftexample. Exit codes: 0 all is
//! well (a member that was removed stops so, too), 64 the command line or the configuration is
//! wrong, 70 an invariant of the node broke, 74 the disk failed; `ctl` has some of its own.

#![forbid(unsafe_code)]

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
