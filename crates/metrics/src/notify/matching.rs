//! Which alerts are meant.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::select;

/// Longer patterns are typing accidents; labels are short.
const VALUE_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One matcher. Regular expressions are anchored at both ends; a label that an alert does not have is the empty text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Match {
    written: Written,
    compiled: select::Matcher,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    label: String,
    op: MatchOp,
    value: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    #[error("a matcher needs the name of a label")]
    NoLabel,
    #[error("the value for {label:?} has {bytes} bytes; {VALUE_BYTES_MAX} are the most")]
    TooLong { label: String, bytes: usize },
    #[error("the value for {label:?} is no regular expression: {why}")]
    Regex { label: String, why: String },
}

impl Match {
    /// # Errors
    /// When the label is empty, the value too long, or the pattern no regular expression.
    pub fn new(label: &str, op: MatchOp, value: &str) -> Result<Self, MatchError> {
        Self::try_from(Written { label: label.to_owned(), op, value: value.to_owned() })
    }

    #[must_use]
    pub fn label(&self) -> &str {
        &self.written.label
    }

    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.written.op
    }

    #[must_use]
    pub fn value(&self) -> &str {
        &self.written.value
    }

    #[must_use]
    pub fn accepts(&self, labels: &Labels) -> bool {
        self.compiled.accepts(labels)
    }

    /// Whether alerts without the label pass: such a matcher excludes hardly anything.
    #[must_use]
    pub fn accepts_nothing(&self) -> bool {
        self.compiled.matches("")
    }
}

impl PartialEq for Match {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Match {}

/// `severity="critical"`, as Alertmanager writes it.
impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{:?}", self.written.label, self.written.op.sign(), self.written.value)
    }
}

impl TryFrom<Written> for Match {
    type Error = MatchError;

    fn try_from(written: Written) -> Result<Self, MatchError> {
        let Written { label, op, value } = &written;
        if label.is_empty() {
            return Err(MatchError::NoLabel);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(MatchError::TooLong { label: label.clone(), bytes: value.len() });
        }
        // On its own first: a bracket that is closed without being opened would undo the anchors.
        let pattern = || {
            regex::Regex::new(value)
                .and_then(|_| select::Matcher::regex(value))
                .map_err(|error| MatchError::Regex { label: label.clone(), why: error.to_string() })
        };
        let test = match op {
            MatchOp::Equal => select::Test::Equal(value.clone()),
            MatchOp::NotEqual => select::Test::NotEqual(value.clone()),
            MatchOp::Regex => select::Test::Regex(pattern()?),
            MatchOp::NotRegex => select::Test::NotRegex(pattern()?),
        };
        let compiled = select::Matcher { label: label.clone(), test };
        Ok(Self { written, compiled })
    }
}

impl From<Match> for Written {
    fn from(one: Match) -> Self {
        one.written
    }
}

#[must_use]
pub fn accepts_all(matches: &[Match], labels: &Labels) -> bool {
    matches.iter().all(|one| one.accepts(labels))
}

/// `{a="b",c=~"d"}`, sorted, so that the order in a file is no difference.
#[must_use]
pub fn written(matches: &[Match]) -> String {
    let mut texts: Vec<String> = matches.iter().map(ToString::to_string).collect();
    texts.sort();
    format!("{{{}}}", texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(op: MatchOp, value: &str, accepted: &[&str], refused: &[&str]) {
        let one = Match::new("a", op, value).unwrap();
        for text in accepted {
            assert!(one.accepts(&Labels::new([("a", *text)])), "{one} and {text:?}");
        }
        for text in refused {
            assert!(!one.accepts(&Labels::new([("a", *text)])), "{one} and {text:?}");
        }
        let kept = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Match>(&kept).unwrap(), one);
    }

    #[test]
    fn expressions_are_anchored_and_a_missing_label_is_empty() {
        check(MatchOp::Equal, "x", &["x"], &["", "xx"]);
        check(MatchOp::Equal, "", &[""], &["x"]);
        check(MatchOp::NotEqual, "x", &["", "xx"], &["x"]);
        check(MatchOp::Regex, "a|b", &["a", "b"], &["", "ab", "xa", "bx"]);
        check(MatchOp::NotRegex, "a.*", &["", "ba"], &["a", "abc", "a\nb"]);
    }

    #[test]
    fn what_cannot_be_matched_is_refused_also_when_read_back() {
        assert!(matches!(Match::new("", MatchOp::Equal, "x"), Err(MatchError::NoLabel)));
        assert!(matches!(Match::new("a", MatchOp::Regex, "("), Err(MatchError::Regex { .. })));
        assert!(matches!(Match::new("a", MatchOp::Regex, ")|("), Err(MatchError::Regex { .. })));
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert!(matches!(Match::new("a", MatchOp::Equal, &long), Err(MatchError::TooLong { .. })));
        assert!(serde_json::from_str::<Match>(r#"{"label":"a","op":"regex","value":"("}"#).is_err());
    }
}
