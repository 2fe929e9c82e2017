//! What must hold of the protocols, whatever arrives.

#[cfg(test)]
mod blob;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod pairing_attacks;
#[cfg(test)]
mod pairing_chaos;
#[cfg(test)]
mod pairing_crash;
#[cfg(test)]
mod pairing_guesses;
#[cfg(test)]
mod pairing_limits;
#[cfg(test)]
mod pairing_support;
#[cfg(test)]
mod replicator;
#[cfg(test)]
mod request;
#[cfg(test)]
mod session;

/// Says what a test has covered; `cargo test -- --nocapture` shows it.
#[cfg(test)]
fn report(figures: &str) {
    #[expect(clippy::print_stderr, reason = "a test's figures are for whoever runs it")]
    {
        eprintln!("{figures}");
    }
}

/// Machines take instants as arguments, and only their differences count.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
fn any_instant() -> std::time::Instant {
    std::time::Instant::now()
}
