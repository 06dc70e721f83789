//! Times as others read them.

use fairway_metrics::notify::TimestampMs;

/// Four-digit years: what every reader of RFC 3339 takes.
const FIRST_MS: TimestampMs = -62_135_596_800_000;
const LAST_MS: TimestampMs = 253_402_300_799_999;

struct Parts {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    millis: i64,
}

/// Days to the proleptic Gregorian date, after Howard Hinnant's `civil_from_days`.
fn parts(at_ms: TimestampMs) -> Parts {
    let at_ms = at_ms.clamp(FIRST_MS, LAST_MS);
    let (seconds, millis) = (at_ms.div_euclid(1000), at_ms.rem_euclid(1000));
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_based = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 { march_based + 3 } else { march_based - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Parts { year, month, day, second_of_day, millis }
}

/// `2026-11-21T03:04:05.678Z`
pub(super) fn rfc3339(at_ms: TimestampMs) -> String {
    let Parts { year, month, day, second_of_day, millis } = parts(at_ms);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// `2026-11-21 03:04 UTC`
pub(super) fn for_people(at_ms: TimestampMs) -> String {
    let Parts { year, month, day, second_of_day, .. } = parts(at_ms);
    let (hour, minute) = (second_of_day / 3600, second_of_day / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// `12 min`, `3 h 5 min`, `2 d 4 h`
pub(super) fn span(from_ms: TimestampMs, to_ms: TimestampMs) -> String {
    let seconds = to_ms.saturating_sub(from_ms).max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if seconds < 60 {
        format!("{seconds} s")
    } else if minutes < 60 {
        format!("{minutes} min")
    } else if hours < 24 {
        format!("{hours} h {} min", minutes % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(TimestampMs::MIN), "0001-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(TimestampMs::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(for_people(951_827_696_789), "2000-02-29 12:34 UTC");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let texts = [59, 60, 3_599, 3_600, 11_100, 187_200].map(|seconds| span(0, seconds * 1000));
        assert_eq!(texts, ["59 s", "1 min", "59 min", "1 h 0 min", "3 h 5 min", "2 d 4 h"]);
        assert_eq!(span(TimestampMs::MAX, TimestampMs::MIN), "0 s");
    }
}
