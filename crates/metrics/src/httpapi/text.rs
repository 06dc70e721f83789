//! Texts as Go shows them in errors.

pub(super) use crate::promql::quote as quoted;

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
