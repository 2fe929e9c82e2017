//! Programs that show the engine in use.
//!
//! `cargo run -p catchword-examples --example quickstart [BOOK]`: one library, one book, one reader.
//!
//! `cargo run -p catchword-examples --example pair_by_code`: two devices that never met come to know each
//! other.
//!
//! `cargo run -p catchword-examples --example two_devices`: one library on two devices, apart and
//! together.
