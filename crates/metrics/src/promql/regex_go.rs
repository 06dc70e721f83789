//! Regular expressions as Prometheus reads them (Go's RE2 syntax), in the words of the crate `regex`.

/// The same expression for the crate `regex`: there `\d`, `\w`, `\s` and `\b` look at all of Unicode, a lone `{` and
/// `[` in a class are errors, `&&` and `--` in a class cut sets, and `\<` is a word's begin.
///
/// # Errors
/// For `\C`, which can split a character.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    // The repetition that ends here.
    let mut repeated: Option<&str> = None;
    while let Some(char) = rest.chars().next() {
        let repeats = match char {
            '*' | '+' | '?' => Some(1),
            '{' if !out.is_empty() => repetition(rest)?,
            _ => None,
        };
        if let Some(length) = repeats {
            let length = length + usize::from(rest[length..].starts_with('?'));
            if let Some(before) = repeated {
                let both = &pattern[pattern.len() - rest.len() - before.len()..][..before.len() + length];
                return Err(format!("invalid nested repetition operator: `{both}`"));
            }
            repeated = Some(&rest[..length]);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        repeated = None;
        rest = match char {
            '\\' => escape(rest, &mut out, false)?,
            '[' => class(rest, &mut out)?,
            // The mark after a parenthesis begins its flags and repeats nothing.
            '(' if rest.starts_with("(?") => {
                out.push_str("(?");
                &rest[2..]
            }
            '{' | '}' => {
                out.push('\\');
                out.push(char);
                &rest[1..]
            }
            char => {
                out.push(char);
                &rest[char.len_utf8()..]
            }
        };
    }
    Ok(out)
}

/// More repetitions are refused, as in Go.
const REPEATS_MAX: usize = 1000;

/// The length of `{3}`, `{3,}` or `{3,5}`; nothing when the brace stands for itself.
fn repetition(text: &str) -> Result<Option<usize>, String> {
    let Some(end) = text.find('}') else { return Ok(None) };
    let inner = &text[1..end];
    let (from, to) = inner.split_once(',').unwrap_or((inner, inner));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if from.is_empty() || !digits(from) || !digits(to) {
        return Ok(None);
    }
    let from: usize = from.parse().unwrap_or(usize::MAX);
    let to = if to.is_empty() { from } else { to.parse().unwrap_or(usize::MAX) };
    if from > REPEATS_MAX || to > REPEATS_MAX || from > to {
        return Err(format!("invalid repeat count: `{}`", &text[..=end]));
    }
    Ok(Some(end + 1))
}

fn escape<'a>(text: &'a str, out: &mut String, in_class: bool) -> Result<&'a str, String> {
    let Some(char) = text[1..].chars().next() else {
        return Err("trailing backslash at end of expression".to_owned());
    };
    let rest = &text[1 + char.len_utf8()..];
    let set =
        |out: &mut String, inside: &str, whole: &str| out.push_str(if in_class { inside } else { whole });
    match char {
        'Q' if !in_class => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return Ok(rest);
        }
        'd' => set(out, "0-9", "[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => set(out, "0-9A-Za-z_", "[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => set(out, "\\t\\n\\x0C\\r ", "[\\t\\n\\x0C\\r ]"),
        'S' => out.push_str("[^\\t\\n\\x0C\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        // `\p{Greek}`, `\x{41}`: the braces belong to the escape.
        'p' | 'P' | 'x' if rest.starts_with('{') => {
            let length = rest.find('}').map_or(rest.len(), |end| end + 1);
            out.push('\\');
            out.push(char);
            out.push_str(&rest[..length]);
            return Ok(&rest[length..]);
        }
        'C' => return Err("invalid escape sequence: `\\C`".to_owned()),
        '0'..='7' => {
            let digits = text[1..].bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            if char != '0' && digits == 1 {
                return Err(format!("invalid escape sequence: `\\{char}`"));
            }
            let code = u32::from_str_radix(&text[1..=digits], 8).unwrap_or_default();
            out.push_str(&format!("\\x{{{code:x}}}"));
            return Ok(&text[1 + digits..]);
        }
        char if char.is_ascii() && !char.is_ascii_alphanumeric() => {
            out.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
        }
        char => {
            out.push('\\');
            out.push(char);
        }
    }
    Ok(rest)
}

fn class<'a>(text: &'a str, out: &mut String) -> Result<&'a str, String> {
    out.push('[');
    let mut rest = &text[1..];
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let mut first = true;
    while let Some(char) = rest.chars().next() {
        let after = &rest[char.len_utf8()..];
        match char {
            ']' if !first => {
                out.push(']');
                return Ok(after);
            }
            '\\' => {
                rest = escape(rest, out, true)?;
                first = false;
                continue;
            }
            '[' if after.starts_with(':') && after.contains(":]") => {
                let end = after.find(":]").map_or(after.len(), |index| index + 2);
                out.push('[');
                out.push_str(&after[..end]);
                rest = &after[end..];
                first = false;
                continue;
            }
            '[' | ']' | '&' | '~' | '^' => {
                out.push('\\');
                out.push(char);
            }
            '-' if first || after.starts_with(']') || out.ends_with('-') => out.push_str("\\-"),
            char => out.push(char),
        }
        first = false;
        rest = after;
    }
    Err(format!("missing closing ]: `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::Matcher;

    fn matches(pattern: &str, text: &str) -> bool {
        Matcher::regex(&translate(pattern).unwrap()).unwrap().is_match(text)
    }

    #[test]
    fn what_go_reads_differently_is_translated() {
        for (pattern, yes, no) in [
            (r"\d+", "12", "\u{0663}"),
            (r"\w+", "ab_1", "\u{e9}"),
            (r"[\w-]+", "a-b", "a b"),
            (r"[^\d]", "x", "1"),
            ("{foo}", "{foo}", "foo"),
            ("a{2}", "aa", "a{2}"),
            ("a{2,}b{1,3}", "aaabb", "ab"),
            ("a{,2}", "a{,2}", "aa"),
            ("[a&&b]+", "a&b", "c"),
            ("[[a]", "[", "b"),
            ("[]a]", "]", "b"),
            ("[[:alpha:]]+", "ab", "1"),
            ("[a-]+", "a-", "b"),
            ("[-a]+", "a-", "b"),
            (r"\<a\>", "<a>", "a"),
            (r"\Qa.b\E.", "a.bc", "axbc"),
            (r"a\.b", "a.b", "axb"),
            (r"\101", "A", "1"),
            (r"\p{Greek}\x{41}\pL", "\u{3b1}Ab", "aAb"),
            (r"(?P<name>a)?(?:b)", "ab", "a"),
            ("a*?b+?c{2}?", "aabbcc", "abc"),
            ("a.b", "a\nb", "ab"),
            ("(?i)ABC", "abc", "abd"),
            ("a|b", "b", "ab"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
        for pattern in ["[a", "\\", r"\1", "a**", "a+*", "a??*", "a{2}{3}", "a{1001}", "a{3,2}"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
