//! What a query evaluates to.

use super::ast::Type;
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};
use crate::select::{SelectError, Series};

/// A value, and what is to be said about how it came to be.
#[derive(Clone, Debug)]
pub struct Answer {
    pub value: Value,
    /// In Prometheus' words, with the place in the query, sorted: `PromQL warning: … (1:5)`.
    pub warnings: Vec<String>,
    /// Likewise: `PromQL info: …`.
    pub infos: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Value {
    Scalar(Sample),
    Text {
        at_ms: TimestampMs,
        text: String,
    },
    /// In the order the query asks for (`sort`, `topk`); otherwise without a meaning.
    Vector(Vec<Element>),
    /// Sorted by labels.
    Matrix(Vec<Series>),
}

/// A series at one moment.
#[derive(Clone, Debug)]
pub struct Element {
    pub labels: Labels,
    pub sample: Sample,
}

/// Why there is no answer. The texts are those of Prometheus.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples { limit: usize },
    #[error(
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    )]
    TooManySteps { steps: u64, limit: usize },
    #[error("zero or negative query resolution step widths are not accepted. Try a positive integer")]
    NoStep { step_ms: i64 },
    #[error("end timestamp must not be before start time")]
    EndBeforeStart { start_ms: TimestampMs, end_ms: TimestampMs },
    #[error("invalid expression type \"{ty}\" for range query, must be Scalar or instant Vector")]
    NotForRange { ty: Type },
    #[error("query timed out in expression evaluation")]
    Stopped,
    #[error("vector cannot contain metrics with the same labelset")]
    SameLabels,
    #[error(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}]\
         ;many-to-many matching not allowed: matching labels must be unique on one side", series[0], series[1]
    )]
    ManyToMany { group: String, side: &'static str, series: [String; 2] },
    #[error("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")]
    ManyToOne,
    #[error("multiple matches for labels: grouping labels must ensure unique matches")]
    GroupingNotUnique,
    #[error("invalid label name {name}")]
    CountValuesLabel { name: String },
    #[error("invalid destination label name in {function}(): {name}")]
    DestinationLabel { function: &'static str, name: String },
    #[error("invalid source label name in {function}(): {name}")]
    SourceLabel { function: &'static str, name: String },
    #[error("invalid regular expression in label_replace(): {pattern}")]
    Pattern { pattern: String },
    #[error("{what} value is NaN")]
    ParameterNan { what: &'static str },
    #[error("Scalar value {value} {way} int64")]
    ParameterRange { value: String, way: &'static str },
    #[error("invalid {which} factor. Expected: 0 < {short} < 1, got: {value:.6}")]
    Smoothing { which: &'static str, short: &'static str, value: f64 },
    #[error("{edge} modifier can only be used with: {allowed} - not with {function}")]
    Edge { edge: &'static str, allowed: &'static str, function: &'static str },
    #[error("duration must be greater than 0")]
    NoDuration,
    #[error("{what} in duration expression")]
    Duration { what: &'static str },
    #[error("{why}")]
    Info { why: String },
    #[error(transparent)]
    Select(#[from] SelectError),
}
