//! How series are chosen, and the seam between whoever keeps them and whoever evaluates over them.

use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// A label that a series must have. A label that is missing has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub label: String,
    pub test: Test,
}

#[derive(Clone, Debug)]
pub enum Test {
    Equal(String),
    NotEqual(String),
    /// Anchored at both ends; `.` matches a line end too, as in Prometheus 3.
    Regex(regex::Regex),
    NotRegex(regex::Regex),
}

/// Larger compiled expressions are refused: label matchers are short.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Matcher {
    #[must_use]
    pub fn equal(label: &str, value: &str) -> Self {
        Self { label: label.to_owned(), test: Test::Equal(value.to_owned()) }
    }

    /// The anchored form of `pattern`.
    ///
    /// # Errors
    /// When it is no regular expression, or one that is too large.
    pub fn regex(pattern: &str) -> Result<regex::Regex, regex::Error> {
        regex::RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(REGEX_BYTES_MAX).build()
    }

    /// `value` is empty for a label that the series does not have.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(wanted) => wanted == value,
            Test::NotEqual(unwanted) => unwanted != value,
            Test::Regex(pattern) => pattern.is_match(value),
            Test::NotRegex(pattern) => !pattern.is_match(value),
        }
    }

    #[must_use]
    pub fn accepts(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.label).unwrap_or_default())
    }
}

/// A series with its samples, oldest first, no two at one time. Stale markers are among them.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples { limit: usize },
    #[error("expanding series: {why}")]
    Storage { why: String },
}

/// Something that keeps series.
pub trait Querier {
    /// All series that every matcher accepts and that have a sample in `from_ms..=to_ms`, with those samples, sorted
    /// by labels. At most `samples_max` samples in all.
    ///
    /// # Errors
    /// When there are more, or the series cannot be read.
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        samples_max: usize,
    ) -> Result<Vec<Series>, SelectError>;

    /// The names of those series alone.
    ///
    /// # Errors
    /// When they cannot be read.
    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError>;
}
