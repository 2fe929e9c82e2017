//! Programs that show the engine in use.
//!
//! `cargo run -p catchword-examples --example quickstart [BOOK]`: one library, one book, one reader.
