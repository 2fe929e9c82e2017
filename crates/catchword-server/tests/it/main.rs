//! What every ledger must do, and what the server does over HTTP.
#![expect(clippy::print_stderr, reason = "tests say what was left out")]

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod files;
#[cfg(test)]
mod http;
#[cfg(test)]
mod lost_update;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod projector;
#[cfg(test)]
mod server;
