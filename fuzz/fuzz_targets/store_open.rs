#![no_main]
//! See `catchword_sim::fuzz::store_open`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::store_open(bytes));
