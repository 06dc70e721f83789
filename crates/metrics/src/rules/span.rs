//! Lengths of time as rule files write them: `1d2h30m`, `5m`, `100ms`.

use std::fmt::Write as _;
use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units from large to small, each at most once; a bare `0` needs none. Prometheus' rules and words.
///
/// # Errors
/// What is wrong with `text`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("not a valid duration string: {text:?}");
    match text {
        "" => return Err("empty duration string".to_owned()),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        // The bytes of one character never look like a digit, so this is a boundary.
        let (unit, after) = after.split_at(letters);
        if number.is_empty() || unit.is_empty() {
            return Err(bad());
        }
        let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {unit:?} in duration {text:?}"));
        };
        if index < next_unit {
            return Err(bad());
        }
        next_unit = index + 1;
        // Prometheus counts in 63 bits of nanoseconds; more is refused.
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(UNITS[index].1));
        total_ms = part
            .and_then(|part| total_ms.checked_add(part))
            .filter(|total| *total <= i64::MAX as u64 / 1_000_000)
            .ok_or_else(|| "duration out of range".to_owned())?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// The shortest form that Prometheus prints. Parts of a millisecond are dropped.
#[must_use]
pub fn show(length: Duration) -> String {
    let mut left = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, ms) in UNITS {
        // Years and weeks only when nothing else is left: 90 days are not "12w6d".
        if matches!(unit, "y" | "w") && !left.is_multiple_of(ms) {
            continue;
        }
        if left >= ms {
            let _ = write!(text, "{}{unit}", left / ms);
            left %= ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_shown_as_prometheus_does() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("5m", 300_000, "5m"),
            ("90m", 5_400_000, "1h30m"),
            ("1d2h3m4s5ms", 93_784_005, "1d2h3m4s5ms"),
            ("30d", 2_592_000_000, "30d"),
            ("14d", 1_209_600_000, "2w"),
            ("1y", 31_536_000_000, "1y"),
        ] {
            let length = parse(text).unwrap();
            assert_eq!((length.as_millis(), show(length).as_str()), (ms, shown), "{text}");
            assert_eq!(parse(&show(length)), Ok(length));
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for (text, expect) in [
            ("", "empty duration string"),
            ("5", "not a valid duration string: \"5\""),
            ("-5m", "not a valid duration string: \"-5m\""),
            ("5x", "unknown unit \"x\" in duration \"5x\""),
            ("5m1h", "not a valid duration string: \"5m1h\""),
            ("1m1m", "not a valid duration string: \"1m1m\""),
            ("300y", "duration out of range"),
            ("99999999999999999999m", "duration out of range"),
            ("5µ", "unknown unit \"µ\" in duration \"5µ\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), expect, "{text}");
        }
    }
}
