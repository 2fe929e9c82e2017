//! How long to wait before something is tried again: full jitter, so that many devices that failed
//! together do not come back together.

use std::time::Duration;

/// The longest wait after a first failure.
pub const FIRST_MAX: Duration = Duration::from_secs(1);
/// The longest wait after any number of failures.
pub const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Returns a wait between nothing and twice as long for each failure before, at most [`WAIT_MAX`].
///
/// `failures` are those in a row, the last one included; `random` is uniform over all its values.
pub fn wait(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = FIRST_MAX.saturating_mul(1 << doublings).min(WAIT_MAX);
    let ceiling_ms = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % (ceiling_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_up_to_five_minutes() {
        let longest = |failures: u32| {
            let waits = (0..400_000).map(|random| wait(failures, random));
            waits.max().unwrap()
        };
        let seconds = [1, 2, 3, 9, 10, u32::MAX].map(|failures| longest(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
        assert_eq!(wait(1, 0), Duration::ZERO);
    }
}
