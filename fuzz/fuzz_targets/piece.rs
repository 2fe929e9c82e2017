#![no_main]
//! See `catchword_sim::fuzz::piece`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::piece(bytes));
