#![no_main]
//! See `catchword_sim::fuzz::cloud_cbor`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::cloud_cbor(bytes));
