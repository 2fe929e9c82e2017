//! The protocols of catchword as state machines: pure, without IO.
//!
//! A **machine** is protocol logic as a plain struct. It performs no IO, starts no task, reads no
//! clock and draws no random number. A **driver** does all of that and decides nothing. Every
//! machine has the same five verbs, so whoever knows one knows all:
//!
//! | verb | meaning |
//! |---|---|
//! | `handle_input(input, now)` | this happened |
//! | `handle_timeout(now)` | time has reached `now`; early calls do nothing |
//! | `poll_transmit()` | what to send next, until `None` |
//! | `poll_event()` | what to tell the owner, or to ask of the store, until `None` |
//! | `poll_timeout()` | when to call `handle_timeout`, if at all |
//!
//! The driver is always the same loop:
//!
//! ```text
//! wait for the first of: something arrived, the deadline, a command
//! handle_input or handle_timeout
//! poll_event until None      -> act on it, tell the application
//! poll_transmit until None   -> send
//! poll_timeout               -> next deadline
//! ```
//!
//! `now` is an instant of the driver's monotonic clock. Wall time is another argument, with `_ms`
//! in its name, and only where people or peers see it.
//!
//! # Invariants
//!
//! 1. The same inputs at the same instants give the same outputs.
//! 2. No input of a peer makes a machine panic, loop, or hold more memory than its limits say.
//! 3. Machines do not know each other. They share [`wire`], [`secret`] and [`mac`].
//! 4. What a machine asks to be kept is durable before it sends anything that depends on it.
//!
//! # What is not here
//!
//! Sockets, TLS and clocks (the drivers in `catchword`), and what changes and documents mean:
//! their bytes are carried unread.

pub mod blob;
pub mod cloud;
pub mod discovery;
pub mod mac;
pub mod pairing;
pub mod request;
pub mod secret;
pub mod session;
pub mod trust;
pub mod wire;
