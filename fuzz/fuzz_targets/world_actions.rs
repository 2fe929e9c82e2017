#![no_main]
//! See `catchword_sim::fuzz::world_actions`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catchword_sim::fuzz::world_actions(bytes));
