//! `cargo bench -p catchword-benches`: every question, one after the other.

use std::process::ExitCode;

fn main() -> ExitCode {
    catchword_benches::run(std::env::args().skip(1))
}
