//! Tests of the store on real files.
#![expect(clippy::print_stderr, reason = "tests say how much they tried")]

#[cfg(test)]
mod backup;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod check;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod compact;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod exchange_disk;
#[cfg(test)]
mod exchange_forged;
#[cfg(test)]
mod exchange_search;
#[cfg(test)]
mod exchange_support;
#[cfg(test)]
mod forks;
#[cfg(test)]
mod generation;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod purge;
#[cfg(test)]
mod salvage;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
