//! The program `stormkv`.
fn main() {}
