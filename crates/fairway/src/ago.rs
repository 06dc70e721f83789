//! Moments as people read them. UTC: on call, two people in two zones read the same line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::duration;

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `3m 10s ago`
#[must_use]
pub fn ago(at_ms: u64, now_ms: u64) -> String {
    if now_ms.saturating_sub(at_ms) < 1000 {
        return "just now".to_owned();
    }
    format!("{} ago", duration::show_ms(at_ms, now_ms))
}

/// `2026-11-21 05:57:30`
#[must_use]
pub fn utc(at_ms: u64) -> String {
    let (year, month, day) = civil(at_ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02} {}", &clock(at_ms)[..8])
}

/// `05:57:30.250`
#[must_use]
pub fn clock(at_ms: u64) -> String {
    let ms = at_ms % 86_400_000;
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// The date of a day since the epoch, after Howard Hinnant's `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_240_650_250), "2026-11-21 05:57:30");
        assert_eq!(clock(1_795_240_650_250), "05:57:30.250");
    }

    #[test]
    fn the_future_is_not_an_age() {
        assert_eq!(ago(5000, 4000), "just now");
        assert_eq!(ago(5000, 195_000), "3m 10s ago");
    }

    #[test]
    fn a_garbage_moment_does_not_panic() {
        let _ = utc(u64::MAX);
        let _ = clock(u64::MAX);
    }
}
