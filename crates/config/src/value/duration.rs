//! `"250ms"`, `"90s"`, `"5m"`, `"24h"`, `"30d"`, `"1h30m"`.

use std::time::Duration;

/// Longer than any hold or retention that makes sense, and far from where milliseconds overflow.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

pub(crate) const EXPECTED: &str = "a duration such as \"250ms\", \"90s\", \"5m\", \"24h\" or \"30d\"";

/// # Errors
/// Why the text is not a duration.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits == 0 {
            return Err(format!("a number is expected at {rest:?}"));
        }
        let number: u64 = rest[..digits].parse().map_err(|_| "the number is too large".to_owned())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "" => return Err(format!("the unit is missing: {number}s? {number}m?")),
            other => return Err(format!("{other:?} is not a unit; ms, s, m, h, d and w are")),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(unit_ms).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= DURATION_MAX)
            .ok_or_else(|| "it is longer than ten years".to_owned())?;
    }
    Ok(total)
}

/// The shortest text that reads back as the same duration.
pub(crate) fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) && !(unit == "d" && ms == unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up_and_read_back() {
        for (text, ms) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse(&show(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)));
        }
        assert_eq!(show(Duration::from_secs(86_400)), "24h");
        assert_eq!(show(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        for bad in
            ["", "5", "m", "5 m", "-5s", "5x", "1.5h", "99999999999999999999s", "9999999d", "5m!", "٣s"]
        {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
