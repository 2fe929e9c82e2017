#![no_main]
//! See `catchword_sim::fuzz::request_header`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::request_header(bytes));
