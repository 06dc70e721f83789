//! `severity!=critical`: a matcher as it is typed.

use fairway_api::{Matcher, MatcherOp};

/// The longer signs first: `a=~b` is not `a` equal to `~b`.
const SIGNS: [(&str, MatcherOp); 4] = [
    ("!=", MatcherOp::NotEqual),
    ("=~", MatcherOp::Regex),
    ("!~", MatcherOp::NotRegex),
    ("=", MatcherOp::Equal),
];

/// # Errors
/// With what is accepted, for clap to show.
pub fn parse(text: &str) -> Result<Matcher, String> {
    let bad = || {
        format!(
            "{text:?} is not a matcher such as alertname=HighCpu, severity!=critical or service=~\"api|web\""
        )
    };
    let at = text.find(['=', '!']).ok_or_else(bad)?;
    let (label, rest) = text.split_at(at);
    let label = label.trim();
    let (sign, op) = SIGNS.into_iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(bad)?;
    let value = rest[sign.len()..].trim();
    // As Alertmanager shows them, and as they are copied from there.
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if label.is_empty() || label.contains(char::is_whitespace) {
        return Err(bad());
    }
    Ok(Matcher { label: label.to_owned(), op, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_as_alertmanager_writes_them() {
        let read = |text| parse(text).map(|one| (one.label, one.op, one.value)).unwrap();
        let expected = |op, value: &str| ("a".to_owned(), op, value.to_owned());
        assert_eq!(read("a=b"), expected(MatcherOp::Equal, "b"));
        assert_eq!(read("a = \"b c\""), expected(MatcherOp::Equal, "b c"));
        assert_eq!(read("a!=b=c"), expected(MatcherOp::NotEqual, "b=c"));
        assert_eq!(read("a=~b|c"), expected(MatcherOp::Regex, "b|c"));
        assert_eq!(read("a!~b"), expected(MatcherOp::NotRegex, "b"));
        assert_eq!(read("a="), expected(MatcherOp::Equal, ""));
        for bad in ["", "a", "=b", "a!b", "a b=c", "!"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
