//! `cargo run --release -p catchword-benches -- [question…] [--json] [--quick] [--judge] [--dir DIR]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    catchword_benches::run(std::env::args().skip(1))
}
