//! Numbers in the forms of Go's `strconv` and `fmt`, because annotations are written against these.

/// Digits after the point that anyone can read; a larger wish is cut to this, so that no output grows without bound.
const PRECISION_MAX: usize = 100;

/// `%v`: the shortest digits that read back to the same value, with an exponent below 1e-4 and from 1e6 on.
#[must_use]
pub fn shortest(value: f64) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    general(&format!("{value:e}"), 6)
}

/// `%.4g`: this many significant digits, trailing zeros dropped.
#[must_use]
pub fn significant(value: f64, digits: usize) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    let digits = digits.clamp(1, PRECISION_MAX);
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let nd = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let threshold = if digits > nd && i32::try_from(nd).unwrap_or(i32::MAX) >= point { nd } else { digits };
    general(&format!("{mantissa}e{exponent}"), i32::try_from(threshold).unwrap_or(i32::MAX))
}

/// `%.2f`.
#[must_use]
pub fn fixed(value: f64, digits: usize) -> String {
    special(value).map_or_else(|| format!("{value:.*}", digits.min(PRECISION_MAX)), str::to_owned)
}

/// `%.2e`; the shortest digits without a precision. At least two digits of exponent.
#[must_use]
pub fn exponential(value: f64, digits: Option<usize>) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    let text = match digits {
        Some(digits) => format!("{value:.*e}", digits.min(PRECISION_MAX)),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{mantissa}e{}", signed_exponent(exponent.parse().unwrap_or(0)))
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        return Some("NaN");
    }
    value.is_infinite().then_some(if value > 0.0 { "+Inf" } else { "-Inf" })
}

fn signed_exponent(exponent: i32) -> String {
    format!("{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// From `d.ddde±x` to the form without exponent, where the exponent is at least -4 and below `threshold`.
fn general(text: &str, threshold: i32) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= threshold {
        return format!("{mantissa}e{}", signed_exponent(exponent));
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_go_prints_them() {
        for (value, expect) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.05, "0.05"),
            (-12.5, "-12.5"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(shortest(value), expect);
        }
        for (value, expect) in [
            (0.0, "0"),
            (100.0, "100"),
            (1000.0, "1000"),
            (12_345.0, "1.234e+04"),
            (0.123_456, "0.1235"),
            (99.996, "100"),
            (1234.56, "1235"),
            (0.000_012_345, "1.234e-05"),
            (5.5, "5.5"),
            (10_000.0, "1e+04"),
        ] {
            assert_eq!(significant(value, 4), expect);
        }
        assert_eq!(fixed(2.005, 2), "2.00");
        assert_eq!(fixed(-0.5, 0), "-0");
        assert_eq!(exponential(1.0, None), "1e+00");
        assert_eq!(exponential(0.055, None), "5.5e-02");
        assert_eq!(exponential(1234.5, Some(2)), "1.23e+03");
        assert!(fixed(1.0, usize::MAX).len() < 200);
    }
}
