//! Libraries and a real server, over real HTTP on loopback.

mod lane;
mod search;
mod support;
