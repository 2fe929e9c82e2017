//! Identities, time, the book schema and the merge rules of catchword: pure, without IO.
//!
//! Start with [`schema`] (what a document holds), [`edit`] (what an application may write),
//! [`change`] (what travels) and [`position`] (how the one place is found). Everything here is a
//! function of its arguments: no clock, no randomness, no disk.
//!
//! # Invariants
//!
//! 1. What a set of changes means does not depend on the order in which they arrived.
//! 2. Whether a change is admitted depends on its bytes and its own past alone.
//! 3. A change has one spelling: what is read, encoded again, has the same bytes.
//!
//! # What is not here
//!
//! Keeping changes ([`catchword-store`](../catchword_store/index.html)) and moving them.

pub mod annotation;
pub mod cfi;
pub mod change;
pub mod diff;
pub mod document;
pub mod edit;
pub mod event;
pub mod exchange;
pub mod genesis;
pub mod history;
pub mod hlc;
pub mod id;
pub mod identity;
pub mod locator;
pub mod merge;
pub mod meta;
pub mod oracle;
pub mod position;
pub mod schema;
pub mod shelf;
pub mod work;
