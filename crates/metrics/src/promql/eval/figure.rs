//! Floats in the forms in which Go prints them.

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// `%g`: the shortest digits that read back as `value`, with an exponent below 1e-4 and from 1e6 on.
pub fn go_g(value: f64) -> String {
    scientific(value, format!("{value:e}"), 6)
}

/// `%.2g`
pub fn go_g2(value: f64) -> String {
    let text = format!("{value:.1e}");
    // Trailing zeros go, as `%g` drops them.
    let text = match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        Some(_) | None => text,
    };
    scientific(value, text, 2)
}

fn scientific(value: f64, text: String, exponent_from: i32) -> String {
    if let Some(word) = special(value) {
        return word.to_owned();
    }
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..exponent_from).contains(&exponent) {
        // The digits are those of the mantissa; only the point moves.
        return format!("{mantissa}e{exponent}")
            .parse::<f64>()
            .map_or(text.clone(), |value| value.to_string());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The shortest digits without an exponent: `count_values` labels.
pub fn go_f(value: f64) -> String {
    special(value).map_or_else(|| value.to_string(), str::to_owned)
}

/// As OpenMetrics writes the values of `le` and `quantile`: whole numbers with `.0`.
pub fn open_metrics(value: f64) -> String {
    if let Some(word) = special(value) {
        return word.to_owned();
    }
    let text = go_g(value);
    if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
}

/// The larger one, but infinity before NaN before the rest, as Go's `math.Max` has it.
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller one, with the same order of exceptions.
pub fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_as_go_prints_them() {
        for (value, wanted) in [
            (1.0, "1"),
            (-0.1, "-0.1"),
            (1e6, "1e+06"),
            (123_456.0, "123456"),
            (1.5e21, "1.5e+21"),
            (0.000_01, "1e-05"),
            (0.000_1, "0.0001"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (1.01, "1.01"),
        ] {
            assert_eq!(go_g(value), wanted);
        }
        assert_eq!((go_g2(123.0), go_g2(1.0), go_g2(0.0123)), ("1.2e+02".into(), "1".into(), "0.012".into()));
        assert_eq!((go_f(1e21), go_f(0.5)), ("1000000000000000000000".to_owned(), "0.5".to_owned()));
        assert_eq!((open_metrics(0.0), open_metrics(0.25)), ("0.0".to_owned(), "0.25".to_owned()));
    }
}
