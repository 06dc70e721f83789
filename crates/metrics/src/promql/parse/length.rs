//! `[5m]`, `[1h:30s]`, `offset -5m`, and the experimental arithmetic in them.

use super::{Dialect, Kind, MULTIPLY, POWER, Parsed, Parser};
use crate::promql::ast::{Arithmetic, DurationOp, Expr, Length, Node, Range, Shift, Span, Subquery, Type};

/// Seconds beyond which nanoseconds would not fit, as Prometheus compares them.
const SECONDS_MAX: f64 = 9_223_372_036.854_775;

impl Parser<'_> {
    /// After an expression, at `[`.
    pub(super) fn brackets(&mut self, inner: Expr) -> Parsed<Expr> {
        let open = self.take()?;
        if !self.starts_length() {
            return Err(self.unexpected("subquery or range selector", "number, duration, step(), or range()"));
        }
        let range = self.positive_length()?;
        if self.now.kind == Kind::RightBracket {
            let close = self.take()?;
            return self.range(inner, range, open.span().to(close.span()));
        }
        if self.now.kind != Kind::Colon {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        self.take()?;
        let step = if self.now.kind == Kind::RightBracket {
            None
        } else if self.starts_length() {
            Some(self.positive_length()?)
        } else {
            return Err(self.unexpected("subquery selector", "number, duration, step(), range(), or \"]\""));
        };
        let close = self.expect(Kind::RightBracket, "subquery selector", "\"]\"")?;
        let span = inner.span.to(close.span());
        if inner.ty != Type::InstantVector {
            let message =
                format!("subquery is only allowed on instant vector, got {} instead", inner.ty.short());
            self.blame(span, message);
        }
        let node = Node::Subquery(Box::new(Subquery { inner, range, step, shift: Shift::default() }));
        Ok(Expr { node, span, ty: Type::RangeVector, pinned: false })
    }

    fn range(&mut self, inner: Expr, range: Length, brackets: Span) -> Parsed<Expr> {
        let span = Span { start: inner.span.start, end: brackets.end };
        let Node::Selector(selector) = inner.node else {
            return Err(self.error(brackets, "ranges only allowed for vector selectors"));
        };
        if selector.shift.offset.is_some() {
            return Err(self.error(brackets, "no offset modifiers allowed before range"));
        }
        if selector.shift.at.is_some() {
            return Err(self.error(brackets, "no @ modifiers allowed before range"));
        }
        Ok(Expr { node: Node::Range(Range { selector, range }), span, ty: Type::RangeVector, pinned: false })
    }

    fn starts_length(&self) -> bool {
        matches!(self.now.kind, Kind::Number | Kind::Duration | Kind::LeftParen)
            || (self.now.kind == Kind::Preprocessor && !self.now.is("start") && !self.now.is("end"))
            || matches!(self.now.text, "+" | "-")
    }

    fn positive_length(&mut self) -> Parsed<Length> {
        let start = self.now.span();
        let value = self.arithmetic(0)?;
        if matches!(value, Arithmetic::Seconds(seconds) if seconds <= 0.0) {
            return Err(self.error(start, "duration must be greater than 0"));
        }
        Ok(fixed(value))
    }

    /// After `offset`: a sign binds to the first figure alone, so that `offset -2 ^ 2` is `(offset -2) ^ 2`.
    pub(super) fn offset_length(&mut self) -> Parsed<Length> {
        if !self.starts_length() {
            return Err(self.unexpected("offset", "number, duration, step(), or range()"));
        }
        let sign = self.now;
        let signed = sign.kind == Kind::Operator;
        if signed {
            self.take()?;
            if !self.starts_length() {
                return Err(self.unexpected("offset", "number, duration, step(), or range()"));
            }
        }
        let in_parens = self.now.kind == Kind::LeftParen;
        let mut value = if self.now.kind == Kind::Operator {
            self.nested(|parser| parser.arithmetic(MULTIPLY + 1))?
        } else {
            self.arithmetic_leaf()?
        };
        if in_parens && !signed {
            value = self.arithmetic_after(value, 0)?;
        }
        if signed && sign.text == "-" {
            value = negate(value);
        }
        Ok(fixed(value))
    }

    fn arithmetic(&mut self, strength_min: u8) -> Parsed<Arithmetic> {
        let left = if self.now.kind == Kind::Operator && matches!(self.now.text, "+" | "-") {
            self.count_operator()?;
            let sign = self.take()?;
            let inner = self.nested(|parser| parser.arithmetic(MULTIPLY + 1))?;
            if sign.text == "-" { negate(inner) } else { inner }
        } else {
            self.arithmetic_leaf()?
        };
        self.arithmetic_after(left, strength_min)
    }

    fn arithmetic_after(&mut self, mut left: Arithmetic, strength_min: u8) -> Parsed<Arithmetic> {
        while self.now.kind == Kind::Operator {
            let (op, strength) = match self.now.text {
                "+" => (DurationOp::Add, 4),
                "-" => (DurationOp::Subtract, 4),
                "*" => (DurationOp::Multiply, MULTIPLY),
                "/" => (DurationOp::Divide, MULTIPLY),
                "%" => (DurationOp::Modulo, MULTIPLY),
                "^" => (DurationOp::Power, POWER),
                _ => break,
            };
            if strength < strength_min {
                break;
            }
            self.count_operator()?;
            self.experimental()?;
            let sign = self.take()?;
            let right = if op == DurationOp::Power {
                self.nested(|parser| parser.arithmetic(POWER))?
            } else {
                self.nested(|parser| parser.arithmetic(strength + 1))?
            };
            if right == Arithmetic::Seconds(0.0) {
                match op {
                    DurationOp::Divide => return Err(self.error(sign.span(), "division by zero")),
                    DurationOp::Modulo => return Err(self.error(sign.span(), "modulo by zero")),
                    DurationOp::Add
                    | DurationOp::Subtract
                    | DurationOp::Multiply
                    | DurationOp::Power
                    | DurationOp::Min
                    | DurationOp::Max => {}
                }
            }
            left = Arithmetic::Two(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn arithmetic_leaf(&mut self) -> Parsed<Arithmetic> {
        let token = self.now;
        if matches!(token.kind, Kind::Number | Kind::Duration) {
            let seconds = self.seconds()?;
            if !(-SECONDS_MAX..=SECONDS_MAX).contains(&seconds) && !seconds.is_nan() {
                return Err(self.error(token.span(), "duration out of range"));
            }
            return Ok(Arithmetic::Seconds(seconds));
        }
        if !matches!(token.kind, Kind::LeftParen | Kind::Preprocessor) {
            return Err(self.unexpected("", ""));
        }
        self.experimental()?;
        self.take()?;
        if token.kind == Kind::LeftParen {
            let inner = self.nested(|parser| parser.arithmetic(0))?;
            self.expect(Kind::RightParen, "", "")?;
            return Ok(inner);
        }
        self.expect(Kind::LeftParen, "", "")?;
        let value = if token.is("step") {
            Arithmetic::Step
        } else if token.is("range") {
            Arithmetic::Range
        } else {
            let op = if token.is("min_of") { DurationOp::Min } else { DurationOp::Max };
            let left = self.nested(|parser| parser.arithmetic(0))?;
            self.expect(Kind::Comma, "", "")?;
            let right = self.nested(|parser| parser.arithmetic(0))?;
            Arithmetic::Two(op, Box::new(left), Box::new(right))
        };
        self.expect(Kind::RightParen, "", "")?;
        Ok(value)
    }

    fn experimental(&self) -> Parsed<()> {
        match self.dialect {
            Dialect::Experimental => Ok(()),
            Dialect::Stable => {
                Err(self.error(self.now.span(), "experimental duration expression is not enabled"))
            }
        }
    }
}

fn negate(value: Arithmetic) -> Arithmetic {
    match value {
        Arithmetic::Seconds(seconds) => Arithmetic::Seconds(-seconds),
        Arithmetic::Negate(inner) => *inner,
        Arithmetic::Step | Arithmetic::Range | Arithmetic::Two(..) => Arithmetic::Negate(Box::new(value)),
    }
}

fn fixed(value: Arithmetic) -> Length {
    match value {
        Arithmetic::Seconds(seconds) => Length::Fixed((seconds * 1e9).round() as i64),
        Arithmetic::Step | Arithmetic::Range | Arithmetic::Negate(_) | Arithmetic::Two(..) => {
            Length::Computed(Box::new(value))
        }
    }
}
