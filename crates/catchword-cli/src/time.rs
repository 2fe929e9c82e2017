//! Times as people read them: UTC, since the machine's time zone is not known here.

const MS_PER_SECOND: u64 = 1_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// Days in 400 years: the calendar repeats after them.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_EPOCH: u64 = 719_468;
/// First instant that is not shown: 1 January of the year 10000.
const SHOWN_MS_MAX: u64 = 253_402_300_800_000;

/// Writes an instant as `2026-01-31 23:59:58 UTC`; `-` for 0, which stands for "never".
///
/// `wall_ms` is in milliseconds since the Unix epoch; what lies beyond the year 9999 is shown as its
/// last second.
///
/// # Source
///
/// Days to a civil date as in Howard Hinnant, "chrono-compatible low-level date algorithms", for days
/// since the epoch that are not negative.
pub(crate) fn utc(wall_ms: u64) -> String {
    if wall_ms == 0 {
        return "-".to_owned();
    }
    let seconds = wall_ms.min(SHOWN_MS_MAX - 1) / MS_PER_SECOND;
    let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Writes a length of time: `45 s`, `18 min`, `3 h 05 min`.
pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}

fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + DAYS_BEFORE_EPOCH;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The year begins in March here, so that the leap day is its last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc() {
        assert_eq!(utc(0), "-");
        assert_eq!(utc(1_000), "1970-01-01 00:00:01 UTC");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_709_251_200_000), "2024-03-01 00:00:00 UTC");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
        assert_eq!(utc(u64::MAX), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn lengths_of_time_are_rounded_down_to_minutes() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(18 * 60 + 59), "18 min");
        assert_eq!(duration(3 * 3_600 + 5 * 60), "3 h 05 min");
    }
}
