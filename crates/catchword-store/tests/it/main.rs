//! Tests of the store on real files.
#![expect(clippy::print_stderr, reason = "tests say how much they tried")]

#[cfg(test)]
mod backup;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod check;
#[cfg(test)]
mod compact;
#[cfg(test)]
mod generation;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
