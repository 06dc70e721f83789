//! Calendar figures of a moment, in UTC.

use crate::sample::TimestampMs;

/// Seconds from the year -292277022399, where Go begins to count, to 1970.
const GO_EPOCH_S: i128 = 62_135_596_800 + (292_277_022_400 * 3_652_425 / 10_000 + 306) * 86_400;

/// A moment, to the second.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    seconds: i128,
}

/// A day of the proleptic Gregorian calendar.
struct Day {
    year: i128,
    /// From 1.
    month: i128,
    /// From 1.
    day: i128,
}

impl Moment {
    /// Of a sample's value. What is no whole number of seconds of 64 bits becomes the smallest one, and that wraps in
    /// Go's calendar, as on the machines Prometheus runs on.
    pub fn of_value(value: f64) -> Self {
        let whole = value.trunc();
        // Both bounds are powers of two, so that the comparison is exact.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole);
        let seconds = if fits { whole as i64 } else { i64::MIN };
        let counted = (i128::from(seconds) + GO_EPOCH_S).rem_euclid(1 << 64);
        Self { seconds: counted - GO_EPOCH_S }
    }

    pub fn of_ms(at_ms: TimestampMs) -> Self {
        Self { seconds: i128::from(at_ms / 1000) }
    }

    fn days(self) -> i128 {
        self.seconds.div_euclid(86_400)
    }

    /// Howard Hinnant's `civil_from_days`.
    fn day(self) -> Day {
        let shifted = self.days() + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i128::from(month <= 2);
        Day { year, month, day: day_of_year - (153 * shifted_month + 2) / 5 + 1 }
    }

    pub fn year(self) -> f64 {
        self.day().year as f64
    }

    pub fn month(self) -> f64 {
        self.day().month as f64
    }

    pub fn day_of_month(self) -> f64 {
        self.day().day as f64
    }

    /// Sunday is 0.
    pub fn day_of_week(self) -> f64 {
        (self.days() + 4).rem_euclid(7) as f64
    }

    /// From 1.
    pub fn day_of_year(self) -> f64 {
        const BEFORE: [i128; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let Day { year, month, day } = self.day();
        let before = BEFORE.get((month - 1) as usize).copied().unwrap_or_default();
        (before + day + i128::from(month > 2 && is_leap(year))) as f64
    }

    pub fn days_in_month(self) -> f64 {
        let Day { year, month, .. } = self.day();
        match month {
            4 | 6 | 9 | 11 => 30.0,
            2 if is_leap(year) => 29.0,
            2 => 28.0,
            _ => 31.0,
        }
    }

    pub fn hour(self) -> f64 {
        (self.seconds.rem_euclid(86_400) / 3_600) as f64
    }

    pub fn minute(self) -> f64 {
        (self.seconds.rem_euclid(3_600) / 60) as f64
    }
}

fn is_leap(year: i128) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// `2026-11-21T09:00:00Z`
pub fn rfc3339(at_ms: TimestampMs) -> String {
    let moment = Moment::of_ms(at_ms);
    let Day { year, month, day } = moment.day();
    let second = moment.seconds.rem_euclid(60);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{second:02}Z", moment.hour(), moment.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_gregorian() {
        let leap = Moment::of_value(1_709_164_800.0);
        assert_eq!((leap.year(), leap.month(), leap.day_of_month()), (2024.0, 2.0, 29.0));
        assert_eq!((leap.day_of_week(), leap.day_of_year(), leap.days_in_month()), (4.0, 60.0, 29.0));
        let before = Moment::of_value(-1.0);
        assert_eq!(
            (before.year(), before.month(), before.hour(), before.minute()),
            (1969.0, 12.0, 23.0, 59.0)
        );
        assert_eq!(Moment::of_value(951_868_800.0).day_of_year(), 61.0);
        assert_eq!(rfc3339(1_709_164_800_000), "2024-02-29T00:00:00Z");
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, f64::MAX] {
            assert!(Moment::of_value(value).days_in_month() >= 28.0);
        }
    }
}
