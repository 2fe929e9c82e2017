//! What must hold for all of catchword, as programs.

#[cfg(test)]
mod cloud;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod crash;
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lying;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rot;
mod tidy;

/// Says what a test has covered; `cargo test -- --nocapture` shows it.
fn report(figures: &str) {
    #[expect(clippy::print_stderr, reason = "a test's figures are for whoever runs it")]
    {
        eprintln!("{figures}");
    }
}

/// Returns a size that the environment may set.
fn size(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 300;

/// Returns the seeds to run: as many as `CATCHWORD_SEEDS` says, or the one of `CATCHWORD_SEED`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("CATCHWORD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CATCHWORD_SEEDS").unwrap_or(SEEDS),
    }
}
