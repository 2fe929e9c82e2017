#![no_main]
//! See `catchword_sim::fuzz::cloud_json`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::cloud_json(bytes));
