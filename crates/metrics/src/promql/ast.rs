//! What a query says, once read and type-checked.

use std::fmt;

use super::functions::Function;
use crate::select::Matcher;

/// Bytes of the query's text, end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }

    /// `line:column` of the start, both from 1, the column in bytes, as Prometheus counts them.
    #[must_use]
    pub fn place(self, text: &str) -> Place {
        if text.is_empty() {
            return Place { line: 0, column: 0 };
        }
        let before = text.as_bytes().get(..self.start).unwrap_or(text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Place { line, column }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 in a text without any.
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str("unknown position"),
            line => write!(f, "{line}:{}", self.column),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Scalar,
    String,
    InstantVector,
    RangeVector,
}

impl Type {
    /// The short name, as the HTTP API and some errors have it.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::InstantVector => "vector",
            Self::RangeVector => "matrix",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::InstantVector => "instant vector",
            Self::RangeVector => "range vector",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub node: Node,
    pub span: Span,
    pub ty: Type,
    /// Its value is the same at every step, because each selector in it is pinned with `@`: evaluating once is enough.
    pub pinned: bool,
}

#[derive(Clone, Debug)]
pub enum Node {
    Number(f64),
    Text(String),
    Selector(Selector),
    Range(Range),
    Subquery(Box<Subquery>),
    Call(Call),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Expr>),
    /// Changes nothing, but what stands behind it is no bare selector any more.
    Plus(Box<Expr>),
    Paren(Box<Expr>),
}

/// `name{label="value"} offset 5m @ 1234`
#[derive(Clone, Debug)]
pub struct Selector {
    /// Those in the braces first, then that of a name before the braces, as Prometheus keeps them.
    pub matchers: Vec<Matcher>,
    pub shift: Shift,
    pub edge: Edge,
}

/// When a selector or a subquery looks, seen from the evaluation's time.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    pub at: Option<At>,
    pub offset: Option<Length>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    Ms(i64),
    Start,
    End,
}

/// How a range treats its two ends. The last two are experimental.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// Only what lies in it.
    #[default]
    Plain,
    /// With the last sample before it.
    Anchored,
    /// With values interpolated at both ends.
    Smoothed,
}

#[derive(Clone, Debug)]
pub struct Range {
    pub selector: Selector,
    pub range: Length,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub inner: Expr,
    pub range: Length,
    pub step: Option<Length>,
    pub shift: Shift,
}

/// A length of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    /// Nanoseconds, because Prometheus rounds to these.
    Fixed(i64),
    /// Known once the query's step and range are.
    Computed(Box<Arithmetic>),
}

/// An experimental duration expression. Values are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Arithmetic {
    Seconds(f64),
    Step,
    Range,
    Negate(Box<Arithmetic>),
    Two(DurationOp, Box<Arithmetic>, Box<Arithmetic>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Min,
    Max,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub function: &'static Function,
    pub args: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    CountValues,
    Quantile,
    LimitK,
    LimitRatio,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub inner: Expr,
    pub param: Option<Expr>,
    pub grouping: Grouping,
}

#[derive(Clone, Debug)]
pub enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
    /// `</` and `>/`, which cut native histograms and do nothing to floats.
    TrimUpper,
    TrimLower,
}

impl BinaryOp {
    #[must_use]
    pub fn compares(self) -> bool {
        matches!(
            self,
            Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterEqual | Self::LessEqual
        )
    }

    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterEqual => ">=",
            Self::LessEqual => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub left: Expr,
    pub right: Expr,
    /// A comparison gives 0 or 1 instead of filtering.
    pub returns_bool: bool,
    pub matching: Matching,
}

/// Which elements of two instant vectors belong together.
#[derive(Clone, Debug)]
pub struct Matching {
    pub labels: MatchOn,
    pub group: Group,
    /// Values that stand in for elements missing on the left and on the right; experimental.
    pub fill: (Option<f64>, Option<f64>),
}

impl Default for Matching {
    fn default() -> Self {
        Self { labels: MatchOn::Ignoring(Vec::new()), group: Group::None, fill: (None, None) }
    }
}

#[derive(Clone, Debug)]
pub enum MatchOn {
    On(Vec<String>),
    Ignoring(Vec<String>),
}

impl MatchOn {
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::On(names) | Self::Ignoring(names) => names,
        }
    }
}

/// Which side may have several elements for one of the other; with the labels taken over from the one.
#[derive(Clone, Debug)]
pub enum Group {
    None,
    Left(Vec<String>),
    Right(Vec<String>),
}

impl Node {
    /// The selector of an instant vector or of a range vector that comes from storage as it is.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Selector(selector) => Some(selector),
            Self::Range(range) => Some(&range.selector),
            Self::Number(_)
            | Self::Text(_)
            | Self::Subquery(_)
            | Self::Call(_)
            | Self::Aggregate(_)
            | Self::Binary(_)
            | Self::Negate(_)
            | Self::Plus(_)
            | Self::Paren(_) => None,
        }
    }

    /// What modifiers behind it change: selectors and subqueries can be shifted in time, and selectors alone reach
    /// beyond their ends.
    pub fn modified(&mut self) -> Option<(&mut Shift, Option<&mut Edge>)> {
        match self {
            Self::Selector(selector) => Some((&mut selector.shift, Some(&mut selector.edge))),
            Self::Range(range) => Some((&mut range.selector.shift, Some(&mut range.selector.edge))),
            Self::Subquery(subquery) => Some((&mut subquery.shift, None)),
            Self::Number(_)
            | Self::Text(_)
            | Self::Call(_)
            | Self::Aggregate(_)
            | Self::Binary(_)
            | Self::Negate(_)
            | Self::Plus(_)
            | Self::Paren(_) => None,
        }
    }
}

impl Expr {
    /// Without the parentheses around it.
    #[must_use]
    pub fn bare(&self) -> &Self {
        let mut expr = self;
        while let Node::Paren(inner) = &expr.node {
            expr = inner;
        }
        expr
    }
}
