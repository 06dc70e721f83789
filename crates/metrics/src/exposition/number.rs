//! Numbers as text, in the forms that Go's `strconv` reads and writes: both sides of every wire here are Go programs.

/// A value as the exposition formats have it: decimal, `NaN`, `Inf`; none with `p`, `P` or `_`, none out of range.
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    if text.contains(['p', 'P', '_']) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    let unsigned = text.trim_start_matches(['+', '-']);
    // A sign before NaN, and a number that is too large, are errors in Go and not in Rust.
    let signed_nan = value.is_nan() && unsigned.len() != text.len();
    let too_large =
        value.is_infinite() && unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    (!signed_nan && !too_large).then_some(value)
}

/// Digits without exponent, as few as give the value back: Go's `'f', -1`.
#[must_use]
pub fn plain(value: f64) -> String {
    special(value).map_or_else(|| format!("{value}"), str::to_owned)
}

/// With exponent: Go's `'e', -1`.
#[must_use]
pub fn exponent(value: f64) -> String {
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    let text = format!("{value:e}");
    let Some((digits, power)) = text.split_once('e') else { return text };
    match power.strip_prefix('-') {
        Some(power) => format!("{digits}e-{power:0>2}"),
        None => format!("{digits}e+{power:0>2}"),
    }
}

/// Go's `'g', -1`: an exponent below 1e-4 and from 1e6 on.
#[must_use]
pub fn general(value: f64) -> String {
    if special(value).is_some() || value == 0.0 {
        return plain(value);
    }
    let text = exponent(value);
    let Some((_, power)) = text.split_once('e') else { return text };
    match power.parse::<i32>() {
        Ok(power) if !GENERAL_PLAIN.contains(&power) => text,
        Ok(_) | Err(_) => plain(value),
    }
}

/// The powers of ten that Go's shortest `'g'` writes without exponent.
const GENERAL_PLAIN: std::ops::Range<i32> = -4..6;

/// As Prometheus' JSON has values: plain, with an exponent only for the tiny and the huge.
#[must_use]
pub fn json(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) { exponent(value) } else { plain(value) }
}

/// As OpenMetrics has them, so that `le="1"` and `le="1.0"` are one: always with a point or an exponent.
#[must_use]
pub fn openmetrics(value: f64) -> String {
    let text = general(value);
    if special(value).is_some() || text.contains(['e', '.']) { text } else { text + ".0" }
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_go_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("+Inf", f64::INFINITY),
            ("-infinity", f64::NEG_INFINITY),
            ("iNf", f64::INFINITY),
            ("1e-999", 0.0),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        assert!(parse("NaN").is_some_and(f64::is_nan) && parse("nan").is_some_and(f64::is_nan));
        for text in
            ["", ".", "1e", "0x1", "0x1p3", "1_000", "+NaN", "-nan", "1e999", "-1e999", "infin", " 1", "1 "]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        let check = |value: f64, forms: [&str; 4]| {
            assert_eq!([plain(value), exponent(value), general(value), json(value)], forms, "{value:e}");
        };
        check(0.0, ["0", "0e+00", "0", "0"]);
        check(-0.0, ["-0", "-0e+00", "-0", "-0"]);
        check(1.0, ["1", "1e+00", "1", "1"]);
        check(123_456.0, ["123456", "1.23456e+05", "123456", "123456"]);
        check(1e6, ["1000000", "1e+06", "1e+06", "1000000"]);
        check(1_234_567.5, ["1234567.5", "1.2345675e+06", "1.2345675e+06", "1234567.5"]);
        check(1e-4, ["0.0001", "1e-04", "0.0001", "0.0001"]);
        check(1e-5, ["0.00001", "1e-05", "1e-05", "0.00001"]);
        check(1.5e-7, ["0.00000015", "1.5e-07", "1.5e-07", "1.5e-07"]);
        check(1e21, ["1000000000000000000000", "1e+21", "1e+21", "1e+21"]);
        check(f64::INFINITY, ["+Inf"; 4]);
        check(f64::NEG_INFINITY, ["-Inf"; 4]);
        check(f64::NAN, ["NaN"; 4]);
        assert_eq!(exponent(1e300), "1e+300");
        assert_eq!(
            [1.0, 0.25, 1e6, -3.0, f64::INFINITY, 0.0].map(openmetrics),
            ["1.0", "0.25", "1e+06", "-3.0", "+Inf", "0.0"]
        );
    }
}
