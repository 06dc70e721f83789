//! Text to a type-checked [`Query`].
//!
//! An own lexer and a precedence parser instead of the crate `promql-parser`: that one keeps no positions, and every
//! annotation and error of Prometheus names `line:column`; its time grows with the square of a chain's length; and it
//! recurses without a bound. Types are checked while the tree is built from the leaves up, so that no pass over the
//! tree is needed whose recursion would have to be bounded again.

mod build;
mod length;
mod selector;

use super::ast::{
    AggregateOp, At, BinaryOp, Edge, Expr, Group, Grouping, MatchOn, Matching, Node, Place, Span, Type,
};
use super::functions::Function;
use super::lex::{Kind, LexError, Lexer, Token, quote};
use super::literal;
use crate::select::Matcher;

/// Longer queries are refused. Dashboards with long lists of alternatives reach some ten thousand bytes.
pub const QUERY_BYTES_MAX: usize = 256 << 10;

/// Operators, calls and modifiers of one query. The tree leans as deep as a chain `a or b or …` is long, and what
/// frees it recurses that deep.
pub const OPERATORS_MAX: usize = 2_000;

/// Parentheses, calls and signs in one another. Reading and evaluating recurse so deep, on stacks of 2 MiB.
pub const NESTING_MAX: usize = 80;

/// Why a text is no query. Shown as Prometheus shows it: `1:5: parse error: unexpected end of input`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: parse error: {message}")]
pub struct ParseError {
    pub message: String,
    pub span: Span,
    pub place: Place,
}

/// What may be written besides stable PromQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// What Prometheus takes without feature flags.
    #[default]
    Stable,
    /// Also experimental functions, duration expressions, extended ranges and `fill` modifiers.
    Experimental,
}

/// A query that can be evaluated.
#[derive(Clone, Debug)]
pub struct Query {
    text: String,
    expr: Expr,
}

impl Query {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn expr(&self) -> &Expr {
        &self.expr
    }

    #[must_use]
    pub fn ty(&self) -> Type {
        self.expr.ty
    }
}

/// Reads stable PromQL.
///
/// # Errors
/// When `text` is none, or longer or deeper than the limits above.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    parse_as(text, Dialect::Stable)
}

/// Reads PromQL of a dialect.
///
/// # Errors
/// As [`parse`].
pub fn parse_as(text: &str, dialect: Dialect) -> Result<Query, ParseError> {
    let mut parser = Parser::new(text, dialect)?;
    if parser.now.kind == Kind::End {
        return Err(parser.error(Span::default(), "no expression found in input"));
    }
    let expr = parser.expr(0)?;
    if parser.now.kind != Kind::End {
        return Err(parser.unexpected("", ""));
    }
    match parser.type_error {
        Some(error) => Err(error),
        None => Ok(Query { text: text.to_owned(), expr }),
    }
}

/// Reads an instant selector alone: `up{job="api"}`, as `match[]` parameters have it.
///
/// # Errors
/// As [`parse`], and when it is anything else.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, Dialect::Stable)?;
    let expr = parser.selector()?;
    if parser.now.kind != Kind::End {
        return Err(parser.unexpected("", ""));
    }
    if let Some(error) = parser.type_error {
        return Err(error);
    }
    if let Node::Selector(selector) = expr.node { Ok(selector.matchers) } else { Ok(Vec::new()) }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    now: Token<'a>,
    /// Where the last closing bracket, number or duration ended: there what it belongs to ends.
    last_closing: usize,
    dialect: Dialect,
    nesting: usize,
    /// Those around the current place.
    aggregations: usize,
    operators: usize,
    /// What a matcher in braces says of the metric's name.
    name_in_braces: Option<String>,
    /// The first one; said only when the whole text can be read, as Prometheus does.
    type_error: Option<ParseError>,
}

type Parsed<T> = Result<T, ParseError>;

const MULTIPLY: u8 = 5;
const POWER: u8 = 6;

impl<'a> Parser<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Parsed<Self> {
        let mut parser = Self {
            text,
            lexer: Lexer::new(text),
            now: Token { kind: Kind::End, text: "", start: 0 },
            last_closing: 0,
            dialect,
            nesting: 0,
            aggregations: 0,
            operators: 0,
            name_in_braces: None,
            type_error: None,
        };
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("query of {} bytes is longer than {QUERY_BYTES_MAX}", text.len());
            return Err(parser.error(Span::default(), message));
        }
        parser.now = parser.lex()?;
        Ok(parser)
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError { message: message.into(), span, place: span.place(self.text) }
    }

    fn lex(&mut self) -> Parsed<Token<'a>> {
        self.lexer.next().map_err(|LexError { span, message }| self.error(span, message))
    }

    /// The current token; the next one becomes current.
    fn take(&mut self) -> Parsed<Token<'a>> {
        let token = self.now;
        self.now = self.lex()?;
        if matches!(
            token.kind,
            Kind::RightBrace | Kind::RightParen | Kind::RightBracket | Kind::Duration | Kind::Number
        ) {
            self.last_closing = token.span().end;
        }
        Ok(token)
    }

    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let mut message = format!("unexpected {}", self.now.describe());
        let context = if context.is_empty() && self.aggregations > 0 { "aggregation" } else { context };
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error(self.now.span(), message)
    }

    fn expect(&mut self, kind: Kind, context: &str, expected: &str) -> Parsed<Token<'a>> {
        if self.now.kind == kind { self.take() } else { Err(self.unexpected(context, expected)) }
    }

    fn blame(&mut self, span: Span, message: impl Into<String>) {
        if self.type_error.is_none() {
            self.type_error = Some(self.error(span, message));
        }
    }

    fn count_operator(&mut self) -> Parsed<()> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(self.error(self.now.span(), format!("more than {OPERATORS_MAX} operators and calls")));
        }
        Ok(())
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == NESTING_MAX {
            return Err(self.error(self.now.span(), format!("nested deeper than {NESTING_MAX}")));
        }
        self.nesting += 1;
        let read = read(self);
        self.nesting -= 1;
        read
    }

    /// Everything that binds at least as tightly as `strength_min`.
    fn expr(&mut self, strength_min: u8) -> Parsed<Expr> {
        let mut left = self.signed()?;
        while self.now.kind == Kind::Operator {
            let Some((op, strength)) = binary_op(self.now) else { break };
            if strength < strength_min {
                break;
            }
            self.count_operator()?;
            let sign = self.take()?;
            let (returns_bool, matching) = self.matching()?;
            let right = if strength == POWER {
                self.nested(|parser| parser.expr(POWER))?
            } else {
                self.expr(strength + 1)?
            };
            left = self.binary(op, sign.span(), left, right, returns_bool, matching)?;
        }
        Ok(left)
    }

    fn signed(&mut self) -> Parsed<Expr> {
        if !(self.now.kind == Kind::Operator && matches!(self.now.text, "+" | "-")) {
            return self.with_modifiers();
        }
        self.count_operator()?;
        let sign = self.take()?;
        let inner = self.nested(|parser| parser.expr(MULTIPLY + 1))?;
        Ok(self.sign(sign.start, sign.text == "-", inner))
    }

    fn with_modifiers(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        loop {
            let keyword = self.now.kind == Kind::Keyword;
            if self.now.kind == Kind::LeftBracket {
                self.count_operator()?;
                expr = self.brackets(expr)?;
            } else if self.now.kind == Kind::At {
                self.count_operator()?;
                self.take()?;
                let at = self.at_time(&expr)?;
                self.pin(&mut expr, at)?;
            } else if keyword && self.now.is("offset") {
                self.count_operator()?;
                self.take()?;
                let offset = self.offset_length()?;
                self.offset(&mut expr, offset)?;
            } else if keyword && self.now.is("anchored") {
                self.count_operator()?;
                self.extend(&mut expr, Edge::Anchored)?;
                self.take()?;
            } else if keyword && self.now.is("smoothed") {
                self.count_operator()?;
                self.extend(&mut expr, Edge::Smoothed)?;
                self.take()?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn at_time(&mut self, of: &Expr) -> Parsed<At> {
        if self.now.kind == Kind::Preprocessor && (self.now.is("start") || self.now.is("end")) {
            let word = self.take()?;
            self.expect(Kind::LeftParen, "@", "timestamp")?;
            self.expect(Kind::RightParen, "@", "timestamp")?;
            return Ok(if word.is("start") { At::Start } else { At::End });
        }
        let negative = self.now.kind == Kind::Operator && self.now.text == "-";
        if negative || (self.now.kind == Kind::Operator && self.now.text == "+") {
            self.take()?;
        }
        if !matches!(self.now.kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("@", "timestamp"));
        }
        let seconds = self.seconds()? * if negative { -1.0 } else { 1.0 };
        // Both ends are of the next power of two; what lies between fits.
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
            let shown = if seconds.is_finite() { format!("{seconds:.6}") } else { show_go(seconds) };
            return Err(self.error(of.span, format!("timestamp out of bounds for @ modifier: {shown}")));
        }
        Ok(At::Ms((seconds * 1000.0).round() as i64))
    }

    /// A number or a duration in seconds.
    fn seconds(&mut self) -> Parsed<f64> {
        let token = self.take()?;
        if token.kind == Kind::Duration {
            let nanoseconds =
                literal::duration(token.text).map_err(|message| self.error(token.span(), message))?;
            // As Go splits a duration: the whole seconds and the rest apart.
            return Ok((nanoseconds / 1_000_000_000) as f64 + (nanoseconds % 1_000_000_000) as f64 / 1e9);
        }
        literal::number(token.text)
            .map_err(|message| self.error(token.span(), format!("error parsing number: {message}")))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.now;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let value = self.seconds()?;
                Ok(Expr { node: Node::Number(value), span: token.span(), ty: Type::Scalar, pinned: true })
            }
            Kind::String => {
                self.take()?;
                let node = Node::Text(literal::unquote(token.text));
                Ok(Expr { node, span: token.span(), ty: Type::String, pinned: true })
            }
            Kind::LeftParen => {
                self.take()?;
                let inner = self.nested(|parser| parser.expr(0))?;
                let close = self.expect(Kind::RightParen, "", "")?;
                let span = token.span().to(close.span());
                let (ty, pinned) = (inner.ty, inner.pinned);
                Ok(Expr { node: Node::Paren(Box::new(inner)), span, ty, pinned })
            }
            Kind::LeftBrace => self.selector(),
            Kind::Identifier | Kind::Preprocessor => {
                // A selector begins with the same word, and its brace changes how the lexer reads on.
                if self.next_is_paren() { self.call() } else { self.selector() }
            }
            Kind::Aggregator => self.aggregate(),
            Kind::MetricIdentifier => self.selector(),
            Kind::Keyword if METRIC_KEYWORDS.iter().any(|word| token.is(word)) => self.selector(),
            Kind::Operator if ["and", "or", "unless"].iter().any(|word| token.is(word)) => self.selector(),
            Kind::End
            | Kind::Comma
            | Kind::Colon
            | Kind::RightParen
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Assign
            | Kind::EqualRegex
            | Kind::NotRegex
            | Kind::Operator
            | Kind::At
            | Kind::Keyword => Err(self.unexpected("", "")),
        }
    }

    /// What follows the current word, over spaces and comments.
    fn next_is_paren(&self) -> bool {
        let mut rest = self.text.get(self.now.span().end..).unwrap_or_default();
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
            let Some(comment) = rest.strip_prefix('#') else { return rest.starts_with('(') };
            rest = comment.trim_start_matches(|char| char != '\n' && char != '\r');
        }
    }

    /// `(a, b`, up to the `)`.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(Kind::LeftParen, "", "")?;
        let mut args = Vec::new();
        if self.now.kind != Kind::RightParen {
            loop {
                args.push(self.nested(|parser| parser.expr(0))?);
                if self.now.kind != Kind::Comma {
                    break;
                }
                let comma = self.take()?;
                if !self.starts_expr() {
                    return Err(self.error(comma.span(), "trailing commas not allowed in function call args"));
                }
            }
        }
        if self.now.kind == Kind::RightParen { Ok(args) } else { Err(self.unexpected("", "")) }
    }

    fn starts_expr(&self) -> bool {
        match self.now.kind {
            Kind::Number
            | Kind::Duration
            | Kind::String
            | Kind::LeftParen
            | Kind::LeftBrace
            | Kind::Identifier
            | Kind::MetricIdentifier
            | Kind::Aggregator
            | Kind::Preprocessor => true,
            Kind::Operator => ["+", "-", "and", "or", "unless"].iter().any(|word| self.now.is(word)),
            Kind::Keyword => METRIC_KEYWORDS.iter().any(|word| self.now.is(word)),
            Kind::End
            | Kind::Comma
            | Kind::Colon
            | Kind::RightParen
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Assign
            | Kind::EqualRegex
            | Kind::NotRegex
            | Kind::At => false,
        }
    }

    fn call(&mut self) -> Parsed<Expr> {
        self.count_operator()?;
        let name = self.take()?;
        let blamed_before = self.type_error.is_some();
        let args = self.arguments()?;
        let found = if name.kind == Kind::Preprocessor {
            Function::find(&name.text.to_ascii_lowercase())
        } else {
            Function::find(name.text)
        };
        let Some(function) = found else {
            return Err(self.error(name.span(), format!("unknown function with name {}", quote(name.text))));
        };
        if function.experimental && self.dialect == Dialect::Stable {
            return Err(self.error(name.span(), format!("function {} is not enabled", quote(name.text))));
        }
        self.take()?;
        let span = Span { start: name.start, end: self.last_closing };
        Ok(self.checked_call(function, args, span, blamed_before))
    }

    fn aggregate(&mut self) -> Parsed<Expr> {
        let word = self.now;
        let rest = self.text.get(word.span().end..).unwrap_or_default();
        let after = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let grouped = ["by", "without"].iter().any(|keyword| {
            after.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword))
                && !after[keyword.len()..]
                    .starts_with(|char: char| char.is_ascii_alphanumeric() || "_:".contains(char))
        });
        if !grouped && !self.next_is_paren() {
            return self.selector();
        }
        self.count_operator()?;
        self.take()?;
        let op = aggregate_op(word.text);
        let before = self.grouping()?;
        if before.is_some() && self.now.kind != Kind::LeftParen {
            return Err(self.unexpected("aggregation", ""));
        }
        self.aggregations += 1;
        let args = self.arguments()?;
        self.take()?;
        self.aggregations -= 1;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.grouping()?.unwrap_or(Grouping::By(Vec::new())),
        };
        let span = Span { start: word.start, end: self.last_closing };
        self.checked_aggregate(op, args, grouping, span)
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        if self.now.kind != Kind::Keyword {
            return Ok(None);
        }
        if self.now.is("by") {
            self.take()?;
            return Ok(Some(Grouping::By(self.label_names()?)));
        }
        if self.now.is("without") {
            self.take()?;
            return Ok(Some(Grouping::Without(self.label_names()?)));
        }
        Ok(None)
    }

    /// `(a, "b.c",)`
    fn label_names(&mut self) -> Parsed<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect(Kind::LeftParen, CONTEXT, "\"(\"")?;
        let mut names = Vec::new();
        while self.now.kind != Kind::RightParen {
            let token = self.now;
            let name = match token.kind {
                Kind::String => literal::unquote(token.text),
                Kind::Identifier
                | Kind::MetricIdentifier
                | Kind::Aggregator
                | Kind::Keyword
                | Kind::Preprocessor => token.text.to_owned(),
                Kind::Operator if token.text.starts_with(|char: char| char.is_ascii_alphabetic()) => {
                    token.text.to_owned()
                }
                Kind::End
                | Kind::Comma
                | Kind::Colon
                | Kind::LeftParen
                | Kind::RightParen
                | Kind::LeftBrace
                | Kind::RightBrace
                | Kind::LeftBracket
                | Kind::RightBracket
                | Kind::Assign
                | Kind::EqualRegex
                | Kind::NotRegex
                | Kind::Operator
                | Kind::At
                | Kind::Number
                | Kind::Duration => return Err(self.unexpected(CONTEXT, "label")),
            };
            self.take()?;
            if name.is_empty() {
                let message = format!("invalid label name for grouping: {}", quote(&name));
                return Err(self.error(token.span(), message));
            }
            names.push(name);
            if self.now.kind == Kind::Comma {
                self.take()?;
            } else if self.now.kind != Kind::RightParen {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
        self.take()?;
        Ok(names)
    }

    /// `bool on (a) group_left (b)`
    fn matching(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        let keyword = |parser: &Self, word: &str| parser.now.kind == Kind::Keyword && parser.now.is(word);
        let returns_bool = keyword(self, "bool");
        if returns_bool {
            self.take()?;
        }
        let on = keyword(self, "on");
        if on || keyword(self, "ignoring") {
            self.take()?;
            let names = self.label_names()?;
            matching.labels = if on { MatchOn::On(names) } else { MatchOn::Ignoring(names) };
            let left = keyword(self, "group_left");
            if left || keyword(self, "group_right") {
                self.take()?;
                let include = if self.now.kind == Kind::LeftParen { self.label_names()? } else { Vec::new() };
                matching.group = if left { Group::Left(include) } else { Group::Right(include) };
            }
        }
        while let Some(side) = ["fill", "fill_left", "fill_right"].iter().find(|word| keyword(self, word)) {
            self.take()?;
            let value = Some(self.fill_value()?);
            match *side {
                "fill" if matching.fill == (None, None) => matching.fill = (value, value),
                "fill_left" if matching.fill.0.is_none() => matching.fill.0 = value,
                "fill_right" if matching.fill.1.is_none() => matching.fill.1 = value,
                _ => return Err(self.unexpected("", "")),
            }
        }
        Ok((returns_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen, "", "")?;
        let negative = self.now.kind == Kind::Operator && self.now.text == "-";
        if negative || (self.now.kind == Kind::Operator && self.now.text == "+") {
            self.take()?;
        }
        if !matches!(self.now.kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("", ""));
        }
        let value = self.seconds()?;
        self.expect(Kind::RightParen, "", "")?;
        Ok(if negative { -value } else { value })
    }
}

/// Words with a meaning that are names of metrics all the same.
const METRIC_KEYWORDS: [&str; 8] =
    ["by", "without", "offset", "fill", "fill_left", "fill_right", "anchored", "smoothed"];

/// A float as Go's `%f` shows what is not finite.
fn show_go(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value > 0.0 {
        "+Inf".to_owned()
    } else {
        "-Inf".to_owned()
    }
}

fn binary_op(token: Token<'_>) -> Option<(BinaryOp, u8)> {
    let word = token.text.to_ascii_lowercase();
    Some(match word.as_str() {
        "or" => (BinaryOp::Or, 1),
        "and" => (BinaryOp::And, 2),
        "unless" => (BinaryOp::Unless, 2),
        "==" => (BinaryOp::Equal, 3),
        "!=" => (BinaryOp::NotEqual, 3),
        ">" => (BinaryOp::Greater, 3),
        "<" => (BinaryOp::Less, 3),
        ">=" => (BinaryOp::GreaterEqual, 3),
        "<=" => (BinaryOp::LessEqual, 3),
        "</" => (BinaryOp::TrimUpper, 3),
        ">/" => (BinaryOp::TrimLower, 3),
        "+" => (BinaryOp::Add, 4),
        "-" => (BinaryOp::Subtract, 4),
        "*" => (BinaryOp::Multiply, MULTIPLY),
        "/" => (BinaryOp::Divide, MULTIPLY),
        "%" => (BinaryOp::Modulo, MULTIPLY),
        "atan2" => (BinaryOp::Atan2, MULTIPLY),
        "^" => (BinaryOp::Power, POWER),
        _ => return None,
    })
}

fn aggregate_op(word: &str) -> AggregateOp {
    match word.to_ascii_lowercase().as_str() {
        "avg" => AggregateOp::Avg,
        "min" => AggregateOp::Min,
        "max" => AggregateOp::Max,
        "count" => AggregateOp::Count,
        "group" => AggregateOp::Group,
        "stddev" => AggregateOp::Stddev,
        "stdvar" => AggregateOp::Stdvar,
        "topk" => AggregateOp::TopK,
        "bottomk" => AggregateOp::BottomK,
        "count_values" => AggregateOp::CountValues,
        "quantile" => AggregateOp::Quantile,
        "limitk" => AggregateOp::LimitK,
        "limit_ratio" => AggregateOp::LimitRatio,
        // The lexer calls only the words above and this one aggregators.
        _ => AggregateOp::Sum,
    }
}

#[cfg(test)]
mod tests;
