//! Times and durations of parameters, and times of answers.

use super::text::quoted;
use crate::exposition::number;
use crate::promql::parse_duration_ns;
use crate::sample::TimestampMs;

const NS: i128 = 1_000_000_000;

/// A moment in nanoseconds since the epoch: the resolution in which Prometheus compares the ends of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) i128);

impl Moment {
    /// When no start is given, and written out, as clients do.
    pub(super) const MIN: Self = Self((i64::MIN / 1000 + 62_135_596_801) as i128 * NS);
    /// When no end is given.
    pub(super) const MAX: Self = Self((i64::MAX / 1000 - 62_135_596_801) as i128 * NS + 999_999_999);

    pub(super) fn of_ms(at_ms: TimestampMs) -> Self {
        Self(i128::from(at_ms) * 1_000_000)
    }

    pub(super) fn ms(self) -> TimestampMs {
        let ms = self.0.div_euclid(1_000_000);
        // Out of range is beyond every sample, which the ends are too.
        i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Seconds as a number, or RFC 3339.
///
/// # Errors
/// In Prometheus' words.
pub(super) fn parse_time(text: &str) -> Result<Moment, String> {
    let cannot = || format!("cannot parse {} to a valid timestamp", quoted(text));
    if let Some(seconds) = number::parse(text) {
        // NaN, and what does not fit a time, are nonsense in Prometheus too; there they become some time.
        if !seconds.is_finite() || seconds.abs() > 9e15 {
            return Err(cannot());
        }
        let whole = seconds.trunc();
        let fraction = ((seconds - whole) * 1000.0).round() / 1000.0;
        #[allow(clippy::cast_possible_truncation)]
        return Ok(Moment(whole as i128 * NS + (fraction * 1e9) as i128));
    }
    match text {
        "-292273086-05-16T16:47:06Z" => Ok(Moment::MIN),
        "292277025-08-18T07:12:54.999999999Z" => Ok(Moment::MAX),
        _ => rfc3339(text).ok_or_else(cannot),
    }
}

/// Seconds as a number, or a duration such as `5m`; in nanoseconds.
///
/// # Errors
/// In Prometheus' words.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    if let Some(seconds) = number::parse(text) {
        let ns = seconds * 1e9;
        if ns > i64::MAX as f64 || ns < i64::MIN as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", quoted(text)));
        }
        // As on the machines that Prometheus runs on: what is no number is the least one.
        #[allow(clippy::cast_possible_truncation)]
        return Ok(if ns.is_nan() { i64::MIN } else { ns as i64 });
    }
    parse_duration_ns(text).map_err(|_| format!("cannot parse {} to a valid duration", quoted(text)))
}

fn rfc3339(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i64>().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| bytes.get(*at) != Some(separator)) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ns = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if end == 0 {
            return None;
        }
        // Go reads nine digits and lets the others be.
        let nine: String = fraction[..end].chars().chain(std::iter::repeat('0')).take(9).collect();
        ns = nine.parse::<i64>().ok()?;
        rest = &fraction[end..];
    }
    let offset = match rest.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) =>
        {
            let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 24 || minutes > 60 {
                return None;
            }
            (hours * 60 + minutes) * 60 * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_of(year, month, day) * 86_400 + (hour * 60 + minute) * 60 + second - offset;
    Some(Moment(i128::from(seconds) * NS + i128::from(ns)))
}

/// Days since 1970-01-01, after Howard Hinnant's `days_from_civil`.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// RFC 3339 in UTC, with as many digits as are needed. `None` is Go's zero time.
pub(super) fn formatted(at_ms: Option<TimestampMs>) -> String {
    let Some(at_ms) = at_ms else { return "0001-01-01T00:00:00Z".to_owned() };
    let (days, ms) = (at_ms.div_euclid(86_400_000), at_ms.rem_euclid(86_400_000));
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!(".{ms:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_prometheus_reads_them() {
        let check = |text: &str, ms: i64| assert_eq!(parse_time(text).map(Moment::ms), Ok(ms), "{text}");
        check("0", 0);
        check("1700000000", 1_700_000_000_000);
        check("1700000000.1234", 1_700_000_000_123);
        check("-1.5", -1_500);
        check("1e9", 1_000_000_000_000);
        check("2015-06-03T13:21:58.555Z", 1_433_337_718_555);
        check("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555);
        check("2016-02-29T00:00:00Z", 1_456_704_000_000);
        check("1969-12-31T23:59:59.9Z", -100);
        check("-292273086-05-16T16:47:06Z", Moment::MIN.ms());
        for text in
            ["", "foo", "30s", "2015-06-03", "2015-02-29T00:00:00Z", "2015-06-03T24:00:00Z", "NaN", "1e300"]
        {
            assert_eq!(parse_time(text), Err(format!("cannot parse {text:?} to a valid timestamp")));
        }
    }

    #[test]
    fn durations_are_read_as_prometheus_reads_them() {
        assert_eq!(parse_duration("15"), Ok(15_000_000_000));
        assert_eq!(parse_duration("0.5"), Ok(500_000_000));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("x"), Err("cannot parse \"x\" to a valid duration".to_owned()));
        let overflow = "cannot parse \"1e300\" to a valid duration. It overflows int64".to_owned();
        assert_eq!(parse_duration("1e300"), Err(overflow));
    }

    #[test]
    fn times_are_written_with_as_many_digits_as_they_need() {
        assert_eq!(formatted(Some(1_433_337_718_550)), "2015-06-03T13:21:58.55Z");
        assert_eq!(formatted(Some(1_456_704_000_000)), "2016-02-29T00:00:00Z");
        assert_eq!(formatted(Some(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(formatted(None), "0001-01-01T00:00:00Z");
        let _ = (formatted(Some(i64::MIN)), formatted(Some(i64::MAX)));
    }
}
