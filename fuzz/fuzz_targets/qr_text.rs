#![no_main]
//! See `catchword_sim::fuzz::qr_text`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::qr_text(bytes));
