//! The world that catchword is tested in: simulated disks, and one seed for each run.
//!
//! Nothing here ships. Tests, fuzzers and benches put the real parts of catchword into a world that
//! is worse than the real one and can be repeated from its seed.
//!
//! # What is not here
//!
//! Doubles of our own parts: what is simulated is what catchword does not control.

pub mod action;
mod call;
pub mod device;
pub mod disk;
pub mod fuzz;
pub mod memory;
pub mod oracle;

pub use call::annotate;
