//! `cargo sim`: the command line of the simulator, for the key-value service.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stormkv_sim::kv::main()
}
