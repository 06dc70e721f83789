//! Numbers, durations and strings as they are written in a query.

use super::lex::quote;

const MS: i128 = 1_000_000;

/// The longest duration Prometheus can hold, in nanoseconds.
const DURATION_MAX_NS: i128 = i64::MAX as i128;

/// A number: decimal, with exponent, hexadecimal, octal (`010` is 8), binary, `Inf`, `NaN`, underscores between digits.
///
/// # Errors
/// What Prometheus says of text that is none.
pub fn number(text: &str) -> Result<f64, String> {
    if let Some(whole) = whole(text) {
        return Ok(whole as f64);
    }
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(text));
    if text.eq_ignore_ascii_case("inf") {
        return Ok(f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Ok(f64::NAN);
    }
    let bytes = text.as_bytes();
    if !bytes.iter().all(|byte| byte.is_ascii_digit() || b"+-._eE".contains(byte))
        || !underscores_part_digits(text)
    {
        return Err(syntax());
    }
    let value: f64 = text.replace('_', "").parse().map_err(|_| syntax())?;
    if value.is_infinite() {
        return Err(format!("strconv.ParseFloat: parsing {}: value out of range", quote(text)));
    }
    Ok(value)
}

fn whole(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if !underscores_part_digits(&lower) || digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// An underscore stands between two digits, or between a prefix such as `0x` and a digit.
fn underscores_part_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hexadecimal = bytes.len() > 1 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X');
    let prefixed = bytes.len() > 1 && bytes[0] == b'0' && matches!(bytes[1] | 32, b'x' | b'o' | b'b');
    let digit = |byte: u8| if hexadecimal { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    bytes.iter().enumerate().all(|(index, byte)| {
        *byte != b'_'
            || (index > 0
                && (digit(bytes[index - 1]) || (prefixed && index == 2))
                && bytes.get(index + 1).is_some_and(|next| digit(*next)))
    })
}

/// Units, longest first, each at most once: `1h30m`, `500ms`, `0`. In nanoseconds.
///
/// # Errors
/// What Prometheus says of text that is none.
pub fn duration(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i128); 7] = [
        ("y", 365 * 24 * 3_600_000 * MS),
        ("w", 7 * 24 * 3_600_000 * MS),
        ("d", 24 * 3_600_000 * MS),
        ("h", 3_600_000 * MS),
        ("m", 60_000 * MS),
        ("s", 1_000 * MS),
        ("ms", MS),
    ];
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let mut rest = text;
    let mut total: i128 = 0;
    let mut last_unit = None;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(invalid());
        }
        let (figure, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (unit, after) = after.split_at(letters);
        let index = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| format!("unknown unit {} in duration {}", quote(unit), quote(text)))?;
        if last_unit.is_some_and(|last| index <= last) {
            return Err(invalid());
        }
        last_unit = Some(index);
        let figure: u64 = figure.parse().map_err(|_| "duration out of range".to_owned())?;
        total += i128::from(figure) * UNITS[index].1;
        if total > DURATION_MAX_NS {
            return Err("duration out of range".to_owned());
        }
        rest = after;
    }
    i64::try_from(total).map_err(|_| "duration out of range".to_owned())
}

/// What is in the quotes, with its escapes resolved. The lexer has checked the form. Bytes that are no UTF-8, which
/// escapes such as `\xff` can make, become replacement characters.
#[must_use]
pub fn unquote(text: &str) -> String {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    if text.starts_with('`') || !inner.contains('\\') {
        return inner.to_owned();
    }
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(index) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..index]);
        rest = &rest[index + 1..];
        let Some(char) = rest.chars().next() else { break };
        let code = |from: usize, digits: usize, radix: u32| {
            rest.get(from..from + digits)
                .and_then(|text| u32::from_str_radix(text, radix).ok())
                .unwrap_or(0xfffd)
        };
        let mut push = |code: u32| {
            let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        };
        let used = match char {
            'a' => (push(7), 1).1,
            'b' => (push(8), 1).1,
            'f' => (push(12), 1).1,
            'n' => (push(10), 1).1,
            'r' => (push(13), 1).1,
            't' => (push(9), 1).1,
            'v' => (push(11), 1).1,
            'x' => {
                out.push((code(1, 2, 16) & 0xff) as u8);
                3
            }
            'u' => (push(code(1, 4, 16)), 5).1,
            'U' => (push(code(1, 8, 16)), 9).1,
            '0'..='7' => {
                out.push((code(0, 3, 8) & 0xff) as u8);
                3
            }
            other => (push(other as u32), other.len_utf8()).1,
        };
        rest = rest.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_prometheus_reads_them() {
        for (text, wanted) in [
            ("1", 1.0),
            ("010", 8.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("0x_1F", 31.0),
            ("1_000", 1000.0),
            (".5e-3", 0.0005),
            ("1e3", 1000.0),
            ("2.", 2.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("inF", f64::INFINITY),
        ] {
            assert_eq!(number(text), Ok(wanted), "{text}");
        }
        assert!(number("NaN").is_ok_and(f64::is_nan));
        for text in ["1e999", "0x", "1__0", "_1", "1_", "0x1.8"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_prometheus_reads_them() {
        assert_eq!(duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(duration("1y2w3d4h5m6s7ms"), Ok(33_019_506_007_000_000));
        for text in ["", "1", "1m1h", "1m1m", "1x", "300y", "1.5m", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(unquote(r#""a\n\t\\\"b\x41\101\u00e9""#), "a\n\t\\\"bAA\u{e9}");
        assert_eq!(unquote(r"`a\n`"), r"a\n");
        assert_eq!(unquote(r#""\xff""#), "\u{fffd}");
        assert_eq!(unquote("'it\\'s'"), "it's");
    }
}
