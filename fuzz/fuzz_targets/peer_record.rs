#![no_main]
//! See `catchword_sim::fuzz::peer_record`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::peer_record(bytes));
