#![no_main]
//! See `catchword_sim::fuzz::change_reader`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::change_reader(bytes));
