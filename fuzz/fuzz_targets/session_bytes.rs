#![no_main]
//! See `catchword_sim::fuzz::session_bytes`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::session_bytes(bytes));
