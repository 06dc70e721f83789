//! Durations on the command line and in what is shown: `90s`, `1h30m`.

use std::time::Duration;

/// Ten years: longer is a slip of the finger, and keeps sums of milliseconds far from their limit.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `500ms`, `90s`, `10m`, `1h30m`, `2d`.
///
/// # Errors
/// With what is accepted, for clap to show.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration such as 500ms, 90s, 10m, 1h30m or 2d");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(expected());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
        let number: u64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(expected)?;
        total = total.checked_add(part).filter(|total| *total <= DURATION_MAX).ok_or_else(expected)?;
    }
    Ok(total)
}

/// Two units at most: `340ms`, `4.2s`, `2m 05s`, `3h 10m`, `6d 2h`.
#[must_use]
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match s {
        0 => format!("{ms}ms"),
        1..10 => format!("{}.{}s", s, (ms % 1000) / 100),
        10..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// The time from one moment to a later one; zero when the clock stepped back.
#[must_use]
pub fn show_ms(from_ms: u64, to_ms: u64) -> String {
    show(Duration::from_millis(to_ms.saturating_sub(from_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let ms = |text| parse(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("10m"), Ok(600_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("2d"), Ok(172_800_000));
        for bad in
            ["", "10", "m", "10 m", "-3s", "1.5h", "10x", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_has_two_units_at_most() {
        let shown = |ms| show(Duration::from_millis(ms));
        assert_eq!(shown(0), "0ms");
        assert_eq!(shown(340), "340ms");
        assert_eq!(shown(4270), "4.2s");
        assert_eq!(shown(59_999), "59s");
        assert_eq!(shown(125_000), "2m 05s");
        assert_eq!(shown(11_400_000), "3h 10m");
        assert_eq!(shown(525_600_000), "6d 2h");
    }
}
