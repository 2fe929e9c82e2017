#![no_main]
//! See `catchword_sim::fuzz::import_book`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::import_book(bytes));
