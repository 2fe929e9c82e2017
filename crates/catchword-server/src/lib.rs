//! The cloud of catchword: admits changes, folds places, and numbers a feed for each account.
//!
//! [`entry`] reads what a device brings, [`ledger`] decides and keeps it, [`app`] is the calls over
//! HTTP, [`serve`] the connections.
//!
//! # Invariants
//!
//! 1. The server builds no document: a change is judged by the strict reader and by what it names.
//! 2. Every rule about a change is one of `catchword-model`.
//! 3. What is answered as taken is durable.
//!
//! # What is not here
//!
//! The engine and its store: a server keeps what devices made, and writes no change of its own.

pub mod app;
mod auth;
pub mod config;
mod desk;
mod docket;
pub mod entry;
pub mod files;
mod fold;
mod forks;
pub mod ledger;
mod limits;
mod live;
mod metrics;
mod problem;
mod projection;
pub mod serve;
