//! What every ledger must do, and what the server does over HTTP.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod embedded;
