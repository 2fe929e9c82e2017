//! The session machines: their messages, single conversations, and a search over random traces.

mod conversations;
mod machine;
mod messages;
mod search;
mod store;
mod world;
