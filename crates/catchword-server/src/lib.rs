//! The cloud of catchword: admits changes, folds places, and numbers a feed for each account.
//!
//! # Invariants
//!
//! 1. The server builds no document: a change is judged by the strict reader and by what it names.
//! 2. Every rule about a change is one of `catchword-model`.
//!
//! # What is not here
//!
//! The engine and its store: a server keeps what devices made, and writes no change of its own.

mod docket;
pub mod entry;
mod fold;
pub mod ledger;
