//! Tests of the command line as a process: one module for each group of commands.
#![expect(clippy::print_stderr, reason = "tests say how much they tried")]

#[cfg(test)]
mod books;
#[cfg(test)]
mod care;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod cloud_guest;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod first_sync;
#[cfg(test)]
mod help;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod support;
