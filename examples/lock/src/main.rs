//! The simulator's command line for the lock service: `cargo run -p lock -- run --seeds 1000`.

use std::process::ExitCode;

fn main() -> ExitCode {
    stormkv_sim::main::<lock::LockService>()
}
