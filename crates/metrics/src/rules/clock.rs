//! Moments as people and programs read them. UTC only: no clock is asked.

use crate::sample::TimestampMs;

/// Year, month, day of a day counted from 1970-01-01, by the proleptic Gregorian calendar. Howard Hinnant's
/// `civil_from_days` (chrono-compatible low-level date algorithms).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_month)
}

fn parts(at_ms: TimestampMs) -> (String, String, i64) {
    let (day, in_day) = (at_ms.div_euclid(86_400_000), at_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(day);
    let (seconds, ms) = (in_day / 1000, in_day % 1000);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    (format!("{year:04}-{month:02}-{day:02}"), time, ms)
}

/// RFC 3339 with milliseconds where there are any, as the HTTP API shows moments.
#[must_use]
pub fn rfc3339(at_ms: TimestampMs) -> String {
    let (date, time, ms) = parts(at_ms);
    format!("{date}T{time}{}Z", fraction(ms))
}

/// As Go prints a moment; none where milliseconds cannot hold it.
pub(super) fn spoken(seconds: f64) -> Option<String> {
    let ms = (seconds * 1000.0).floor();
    // Ten thousand years around 1970: beyond, no calendar means anything.
    if !ms.is_finite() || ms.abs() > 3.2e14 {
        return None;
    }
    let (date, time, ms) = parts(ms as i64);
    Some(format!("{date} {time}{} +0000 UTC", fraction(ms)))
}

fn fraction(ms: i64) -> String {
    if ms == 0 { String::new() } else { format!(".{ms:03}").trim_end_matches('0').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_as_go_shows_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_164_800_250), "2024-02-29T00:00:00.25Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(4_102_444_799_000), "2099-12-31T23:59:59Z");
        assert_eq!(spoken(1_435_065_584.128).unwrap(), "2015-06-23 13:19:44.128 +0000 UTC");
        assert_eq!(spoken(5.0).unwrap(), "1970-01-01 00:00:05 +0000 UTC");
        assert_eq!((spoken(f64::NAN), spoken(1e300)), (None, None));
    }
}
