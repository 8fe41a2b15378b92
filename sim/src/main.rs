//! `cargo sim`: the command line of the simulator.
//!
//! All of it lives in [`cli`]; what it drives is the library, where runs neither print nor read a
//! clock.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
