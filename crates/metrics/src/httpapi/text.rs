//! Texts as Go shows them in errors.

use std::fmt::Write as _;

/// In double quotes, as `%q` has it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(out, "\\x{:02x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// A metric's or label's name out of the form that has only old characters: `U__foo_2e_bar` is `foo.bar`. What is not
/// in that form stays as it is.
pub(super) fn unescaped_name(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescaped).unwrap_or_else(|| name.to_owned())
}

/// More than a code point needs: six digits.
const DIGITS_MAX: usize = 6;

fn unescaped(mut escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    while let Some((plain, rest)) = escaped.split_once('_') {
        name.push_str(plain);
        let (code, rest) = rest.split_once('_')?;
        if code.is_empty() {
            name.push('_');
        } else if code.len() <= DIGITS_MAX && code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            name.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        } else {
            return None;
        }
        escaped = rest;
    }
    name.push_str(escaped);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        assert_eq!(quoted("a\"\\\n\t\u{1}é\u{7f}"), r#""a\"\\\n\t\x01é\x7f""#);
    }

    #[test]
    fn names_are_unescaped() {
        for (escaped, name) in [
            ("U__foo_2e_bar", "foo.bar"),
            ("U__no:change", "no:change"),
            ("U__under__score", "under_score"),
            ("U___1f600_", "\u{1f600}"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__cut_2e", "U__cut_2e"),
            ("U__large_1234567_", "U__large_1234567_"),
            ("U__surrogate_d800_", "U__surrogate_d800_"),
            ("plain", "plain"),
            ("U__", ""),
        ] {
            assert_eq!(unescaped_name(escaped), name, "{escaped}");
        }
    }
}
