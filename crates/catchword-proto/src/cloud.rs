//! The account-cloud lane: a library that also lives on a server which its owner may run.
//!
//! [`api`] is what client and server say to each other, [`codec`] how it is written down. A
//! [`Replicator`](replicator::Replicator) is the client: [`outbox`] says what it sends first.
//!
//! # What is not here
//!
//! HTTP, and what a change means: the server judges changes by the rules of `catchword-model`.

pub mod api;
pub mod codec;
pub mod outbox;
mod problem;
pub mod replicator;
