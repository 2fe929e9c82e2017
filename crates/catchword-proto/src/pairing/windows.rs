//! How often a person may open a window after guesses have failed.

use super::host::Ending;
use crate::wire::{Reader, WireError, Writer};

/// Windows in which somebody guessed in vain, within [`FAILED_WINDOWS_PERIOD_MS`], after which a new
/// one must wait.
pub const FAILED_WINDOWS_MAX: usize = 3;

/// The time in which failed windows are counted, in milliseconds: a day.
pub const FAILED_WINDOWS_PERIOD_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long a new window waits after [`FAILED_WINDOWS_MAX`] failed ones, in milliseconds: 15 minutes.
///
/// Whoever guesses all day then has some hundred windows, and a chance of one in two thousand.
pub const WAIT_MS: u64 = 15 * 60 * 1_000;

/// The windows that failed, to be kept durably.
///
/// A window counts from the moment it is opened until it ends well: whoever kills the process has
/// not gained a window. A window in which nobody made an attempt does not count.
///
/// Times are of the wall clock, which may be set. A time that lies ahead is as far away as one that
/// lies back, so a clock that was wrong once holds nobody up for longer than twice [`WAIT_MS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    opened_ms: Option<u64>,
    /// Invariant: the newest [`FAILED_WINDOWS_MAX`] at most, in the order in which they failed.
    failed_ms: Vec<u64>,
}

impl Windows {
    /// Notes that a window opens now. Keep the result durably before the window is shown.
    ///
    /// # Errors
    ///
    /// [`Wait`] says when to try again; nothing is noted then.
    pub fn open(&mut self, now_ms: u64) -> Result<(), Wait> {
        let mut noted = self.clone();
        if let Some(opened_ms) = noted.opened_ms.take() {
            noted.fail(opened_ms);
        }
        let recent = |failed_ms: &&u64| failed_ms.abs_diff(now_ms) < FAILED_WINDOWS_PERIOD_MS;
        let newest_ms = noted.failed_ms.last().copied().unwrap_or_default();
        if noted.failed_ms.iter().filter(recent).count() == FAILED_WINDOWS_MAX
            && newest_ms.abs_diff(now_ms) < WAIT_MS
        {
            return Err(Wait { until_ms: newest_ms.saturating_add(WAIT_MS) });
        }
        noted.opened_ms = Some(now_ms);
        *self = noted;
        Ok(())
    }

    /// Notes how the window ended that was opened last. Keep the result durably.
    pub fn close(&mut self, ending: Ending, now_ms: u64) {
        if self.opened_ms.take().is_some() && ending.has_failed() {
            self.fail(now_ms);
        }
    }

    fn fail(&mut self, failed_ms: u64) {
        if self.failed_ms.len() == FAILED_WINDOWS_MAX {
            self.failed_ms.remove(0);
        }
        self.failed_ms.push(failed_ms);
    }

    /// Returns the bytes to be kept.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for list in [self.opened_ms.as_slice(), &self.failed_ms] {
            writer.byte(u8::try_from(list.len()).unwrap_or(u8::MAX));
            for ms in list {
                writer.u64(*ms);
            }
        }
        writer.finish()
    }

    /// Reads what [`encode`](Self::encode) returned.
    ///
    /// # Errors
    ///
    /// [`WireError`] if these are other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let mut list = |longest: usize| {
            let length = usize::from(reader.byte()?);
            if longest < length {
                return Err(WireError::TooLong { bytes: length, bytes_max: longest });
            }
            (0..length).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()
        };
        let opened_ms = list(1)?.pop();
        let failed_ms = list(FAILED_WINDOWS_MAX)?;
        reader.finish()?;
        Ok(Self { opened_ms, failed_ms })
    }
}

/// Too many windows failed lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{FAILED_WINDOWS_MAX} attempts to pair failed lately; try again in {} minutes", WAIT_MS / 60_000)]
#[non_exhaustive]
pub struct Wait {
    /// When a window may be opened again, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::host::Outcome;

    const FAILED: Ending = Ending { outcome: Outcome::Expired, attempts_spent: 1 };
    const UNTOUCHED: Ending = Ending { outcome: Outcome::Expired, attempts_spent: 0 };
    const START_MS: u64 = 1_780_000_000_000;

    fn failed_at(times_ms: &[u64]) -> Windows {
        let mut windows = Windows::default();
        for time_ms in times_ms {
            windows.open(*time_ms).unwrap();
            windows.close(FAILED, *time_ms);
        }
        windows
    }

    #[test]
    fn after_three_failed_windows_the_fourth_waits_for_a_quarter_of_an_hour() {
        let mut windows = failed_at(&[START_MS, START_MS + 1, START_MS + 2]);
        let free_ms = START_MS + 2 + WAIT_MS;

        assert_eq!(windows.open(free_ms - 1), Err(Wait { until_ms: free_ms }));
        assert_eq!(windows.open(free_ms), Ok(()));
        windows.close(FAILED, free_ms);
        assert_eq!(windows.open(free_ms + 1), Err(Wait { until_ms: free_ms + WAIT_MS }));
    }

    #[test]
    fn two_failed_windows_or_three_in_more_than_a_day_hold_nobody_up() {
        assert_eq!(failed_at(&[START_MS; 2]).open(START_MS), Ok(()));

        let last_ms = START_MS + FAILED_WINDOWS_PERIOD_MS;
        let times_ms = [START_MS, last_ms - 2, last_ms - 2];
        assert!(failed_at(&times_ms).open(last_ms - 1).is_err());
        assert_eq!(failed_at(&times_ms).open(last_ms), Ok(()));
    }

    #[test]
    fn a_window_that_nobody_tried_or_that_paired_does_not_count() {
        let mut windows = failed_at(&[START_MS; 2]);
        let paired = Outcome::Paired(catchword_model::identity::Fingerprint([1; 32]));
        for ending in [UNTOUCHED, Ending { outcome: paired, attempts_spent: 2 }] {
            windows.open(START_MS).unwrap();
            windows.close(ending, START_MS);
        }
        assert_eq!(windows.open(START_MS), Ok(()));
    }

    #[test]
    fn a_window_whose_process_died_counts_as_failed() {
        let mut windows = failed_at(&[START_MS; 2]);
        windows.open(START_MS + 5).unwrap();
        let mut windows = Windows::decode(&windows.encode()).unwrap();

        let free_ms = START_MS + 5 + WAIT_MS;
        assert_eq!(windows.open(free_ms - 1), Err(Wait { until_ms: free_ms }));
        assert_eq!(windows.open(free_ms), Ok(()));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody_up_for_long() {
        let windows = failed_at(&[START_MS; 3]);
        let back_ms = START_MS - WAIT_MS;
        assert_eq!(windows.clone().open(back_ms), Ok(()));
        assert!(windows.clone().open(back_ms + 1).is_err());
        assert_eq!(windows.clone().open(START_MS + WAIT_MS), Ok(()));
    }

    #[test]
    fn what_was_kept_is_read_again_and_damage_is_not() {
        let mut windows = failed_at(&[1, 2, 3 + WAIT_MS]);
        windows.open(3 + 2 * WAIT_MS).unwrap();
        let bytes = windows.encode();
        assert_eq!(Windows::decode(&bytes), Ok(windows));
        for wrong in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat(), &[2], &[0, 4]]
        {
            assert!(Windows::decode(wrong).is_err());
        }
    }
}
