#![no_main]
//! See `catchword_sim::fuzz::discovery_txt`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::discovery_txt(bytes));
