//! What a label must match: `"api"`, `"!=api"`, `"=~a.*"`, `"!~a.*"`.

use fairway_engine::monitoring::AlertMatchOp;
use regex::RegexBuilder;

/// A label is compared with it for every alert. What people write compiles to a few kilobytes; one of this size takes
/// a millisecond, and a file may hold thousands.
const REGEX_BYTES_MAX: usize = 128 << 10;
const LEN_MAX: usize = 1000;

/// How a label is compared, and with what.
pub(crate) fn split(text: &str) -> (AlertMatchOp, &str) {
    const OPS: [(&str, AlertMatchOp); 4] = [
        ("=~", AlertMatchOp::Regex),
        ("!~", AlertMatchOp::NotRegex),
        ("!=", AlertMatchOp::NotEqual),
        ("=", AlertMatchOp::Equal),
    ];
    OPS.iter()
        .find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?)))
        .unwrap_or((AlertMatchOp::Equal, text))
}

pub(crate) fn is_expression(text: &str) -> bool {
    matches!(split(text).0, AlertMatchOp::Regex | AlertMatchOp::NotRegex)
}

/// # Errors
/// Why the text says nothing that a label could match.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.len() > LEN_MAX || text.contains('\0') {
        return Err(format!("it has more than {LEN_MAX} bytes, or a NUL character"));
    }
    let (op, value) = split(text);
    match op {
        AlertMatchOp::Equal | AlertMatchOp::NotEqual => {}
        AlertMatchOp::Regex | AlertMatchOp::NotRegex => {
            RegexBuilder::new(value).size_limit(REGEX_BYTES_MAX).build().map_err(|error| why(&error))?;
        }
    }
    Ok(())
}

/// A regular expression that matches one of the texts and nothing else.
pub(crate) fn any_of(texts: &[String]) -> String {
    texts.iter().map(|text| regex::escape(text)).collect::<Vec<_>>().join("|")
}

/// The last line of the message; the ones before it draw the expression over several lines.
fn why(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    let reason = last.strip_prefix("error: ").unwrap_or(last);
    format!("it is no regular expression: {}", reason.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_before_the_text_says_how_it_is_compared() {
        for (text, op, value) in [
            ("api", AlertMatchOp::Equal, "api"),
            ("=api", AlertMatchOp::Equal, "api"),
            ("!=api", AlertMatchOp::NotEqual, "api"),
            ("=~a.*", AlertMatchOp::Regex, "a.*"),
            ("!~a|b", AlertMatchOp::NotRegex, "a|b"),
            ("", AlertMatchOp::Equal, ""),
        ] {
            assert_eq!(split(text), (op, value), "{text}");
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_broken_or_a_huge_expression_is_refused() {
        for bad in ["=~(", "=~[z-a]", "!~*", "=~(a{1000}){1000}", "=~(?=a)", "a\0"] {
            let why = check(bad).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
        assert!(check(&"a".repeat(LEN_MAX + 1)).is_err());
    }

    #[test]
    fn several_texts_become_one_expression() {
        let any = any_of(&["critical".to_owned(), "a.b".to_owned()]);
        assert_eq!(any, r"critical|a\.b");
    }
}
