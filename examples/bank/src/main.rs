//! The simulator's command line for the ledger: `cargo run -p bank -- run --seeds 1000`.

use std::process::ExitCode;

fn main() -> ExitCode {
    stormkv_sim::main::<bank::Ledger>()
}
