#![no_main]
//! See `catchword_sim::fuzz::file_part`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::file_part(bytes));
