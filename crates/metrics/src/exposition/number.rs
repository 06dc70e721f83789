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
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    let Decimal { sign, digits, power } = Decimal::of(value);
    // Zeros before the point, or between it and the first digit.
    let zeros = "0".repeat(power.unsigned_abs() as usize);
    match usize::try_from(power) {
        Err(_) => format!("{sign}0.{}{digits}", &zeros[1..]),
        Ok(power) if power + 1 >= digits.len() => format!("{sign}{digits}{}", &zeros[digits.len() - 1..]),
        Ok(power) => format!("{sign}{}.{}", &digits[..=power], &digits[power + 1..]),
    }
}

/// With exponent: Go's `'e', -1`.
#[must_use]
pub fn exponent(value: f64) -> String {
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    let Decimal { sign, digits, power } = Decimal::of(value);
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let of_power = if power < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{of_power}{:02}", power.unsigned_abs())
}

/// The fewest digits that give a value back; of two that are as near, the even one, as in Go. The standard library takes
/// the larger.
struct Decimal {
    sign: &'static str,
    /// ASCII, without zeros around them; `0` alone for zero.
    digits: String,
    /// Of ten, that the first digit stands for.
    power: i32,
}

impl Decimal {
    fn of(value: f64) -> Self {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format(value.abs());
        let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let significant = all.trim_start_matches('0');
        // Both are bounded by the 17 digits and the powers of a double.
        let leading = i32::try_from(all.len() - significant.len()).unwrap_or(0);
        let before = i32::try_from(whole.len()).unwrap_or(0);
        let digits = significant.trim_end_matches('0');
        let sign = if value.is_sign_negative() { "-" } else { "" };
        if digits.is_empty() {
            return Self { sign, digits: "0".to_owned(), power: 0 };
        }
        let power = power.parse::<i32>().unwrap_or(0) + before - 1 - leading;
        Self { sign, digits: digits.to_owned(), power }
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

/// What is smaller has an exponent in JSON.
const JSON_PLAIN_MIN: f64 = 1e-6;

/// As Prometheus' JSON has values: plain, with an exponent only for the tiny and the huge.
#[must_use]
pub fn json(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(JSON_PLAIN_MIN..1e21).contains(&size) { exponent(value) } else { plain(value) }
}

/// The same at the end of a text, at once: a range query has hundreds of thousands.
pub fn push_json(out: &mut String, value: f64) {
    // Integers up to here are exact, as they are in Go's text.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX && (value != 0.0 || value.is_sign_positive()) {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and below 2^53")]
        let whole = value as i64;
        out.push_str(itoa::Buffer::new().format(whole));
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    // The digits are the same; where there is an exponent, its form is not.
    if value.is_finite() && !text.contains('e') && value.abs() >= JSON_PLAIN_MIN {
        out.push_str(text.strip_suffix(".0").unwrap_or(text));
    } else {
        out.push_str(&json(value));
    }
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
    fn of_two_texts_that_are_as_near_the_even_one_is_written() {
        // As a Prometheus 3 answers it.
        // Exactly between two texts of 17 digits.
        let halfway = 1_338_175_457_053_173.0 / 8.0;
        assert_eq!(json(halfway), "167271932131646.62");
        assert_eq!(exponent(halfway), "1.6727193213164662e+14");
    }

    #[test]
    fn what_is_written_gives_the_value_back() {
        let mut random = fastrand::Rng::with_seed(3);
        for value in (0..20_000).map(|_| f64::from_bits(random.u64(..))).filter(|value| value.is_finite()) {
            for text in [plain(value), exponent(value)] {
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            }
            assert_eq!(plain(value).len(), format!("{value}").len());
        }
    }

    #[test]
    fn json_at_the_end_of_a_text_is_the_same_json() {
        let mut random = fastrand::Rng::with_seed(7);
        let edges = [
            0.0,
            1.0,
            1e-6,
            9.999_999e-7,
            1e-5,
            1e15,
            1e16,
            1e17,
            9e20,
            1e21,
            9_007_199_254_740_991.0,
            9_007_199_254_740_992.0,
            9_007_199_254_740_994.0,
            0.1,
            0.3,
            1.0 / 3.0,
            123.456,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::EPSILON,
            f64::INFINITY,
            f64::NAN,
        ];
        let bits = (0..20_000).map(|_| f64::from_bits(random.u64(..)));
        let mut other = fastrand::Rng::with_seed(8);
        let usual = (0..20_000).map(|_| other.f64() * 10f64.powi(other.i32(-9..24)));
        let mut third = fastrand::Rng::with_seed(9);
        let short = (0..20_000).map(|_| third.i64(-9_999_999..9_999_999) as f64 / 1000.0);
        let mut out = String::new();
        for value in edges.into_iter().chain(bits).chain(usual).chain(short) {
            for value in [value, -value] {
                out.clear();
                push_json(&mut out, value);
                assert_eq!(out, json(value), "{value:e}");
            }
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
