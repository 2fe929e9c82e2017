//! Tests against automerge itself, which is the oracle of everything this crate encodes and reads.
#![expect(clippy::print_stderr, reason = "tests say how much they compared and what they left out")]

#[cfg(test)]
mod admission;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod equal_hashes;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod reader;
#[cfg(test)]
mod support;
#[cfg(test)]
mod writer;
