//! Nodes of the tree with their types, and what is wrong with these.

use super::selector::EMPTY;
use super::{Dialect, Parsed, Parser};
use crate::labels::NAME;
use crate::promql::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Edge, Expr, Group, Grouping, Length, MatchOn,
    Matching, Node, Shift, Span, Type,
};
use crate::promql::functions::{Extra, Function, Other};
use crate::promql::lex::quote;

impl Parser<'_> {
    pub(super) fn sign(&mut self, start: usize, negative: bool, inner: Expr) -> Expr {
        let span = Span { start, end: inner.span.end };
        let (ty, pinned) = (inner.ty, inner.pinned);
        if let Node::Number(value) = inner.node {
            let value = if negative { -value } else { value };
            return Expr { node: Node::Number(value), span, ty, pinned };
        }
        if !matches!(ty, Type::Scalar | Type::InstantVector) {
            let message = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got \"{ty}\""
            );
            self.blame(span, message);
        }
        let node = if negative { Node::Negate(Box::new(inner)) } else { Node::Plus(Box::new(inner)) };
        Expr { node, span, ty, pinned }
    }

    pub(super) fn binary(
        &mut self,
        op: BinaryOp,
        sign: Span,
        left: Expr,
        right: Expr,
        returns_bool: bool,
        matching: Matching,
    ) -> Parsed<Expr> {
        let span = left.span.to(right.span);
        if matching.fill != (None, None) && self.dialect == Dialect::Stable {
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        if returns_bool && !op.compares() {
            self.blame(sign, "bool modifier can only be used on comparison operators");
        }
        let scalars = [left.ty, right.ty].iter().filter(|ty| **ty == Type::Scalar).count();
        if op.compares() && !returns_bool && scalars == 2 {
            self.blame(sign, "comparisons between scalars must use BOOL modifier");
        }
        if let (MatchOn::On(names), Group::Left(include) | Group::Right(include)) =
            (&matching.labels, &matching.group)
            && let Some(name) = names.iter().find(|name| include.contains(name))
        {
            let message = format!("label {} must not occur in ON and GROUP clause at once", quote(name));
            self.blame(sign, message);
        }
        for side in [&left, &right] {
            if !matches!(side.ty, Type::Scalar | Type::InstantVector) {
                self.blame(side.span, "binary expression must contain only scalar and instant vector types");
            }
        }
        if left.ty != Type::InstantVector || right.ty != Type::InstantVector {
            if !matching.labels.names().is_empty() {
                self.blame(span, "vector matching only allowed between instant vectors");
            }
            if matching.fill != (None, None) {
                self.blame(span, "filling in missing series only allowed between instant vectors");
            }
        } else if op.is_set() {
            if !matches!(matching.group, Group::None) {
                self.blame(span, format!("no grouping allowed for \"{}\" operation", op.sign()));
            }
            if matching.fill != (None, None) {
                self.blame(span, "filling in missing series not allowed for set operators");
            }
        }
        if scalars > 0 && op.is_set() {
            self.blame(
                span,
                format!("set operator \"{}\" not allowed in binary scalar expression", op.sign()),
            );
        }
        let ty = if scalars == 2 { Type::Scalar } else { Type::InstantVector };
        let pinned = left.pinned && right.pinned;
        let node = Node::Binary(Box::new(Binary { op, left, right, returns_bool, matching }));
        Ok(Expr { node, span, ty, pinned })
    }

    pub(super) fn checked_call(
        &mut self,
        function: &'static Function,
        args: Vec<Expr>,
        span: Span,
        blamed_before: bool,
    ) -> Expr {
        let declared = function.args.len();
        let (least, most) = match function.extra {
            Extra::None => (declared, declared),
            Extra::UpTo(count) => (declared - 1, declared - 1 + count),
            Extra::Any => (declared - 1, usize::MAX),
        };
        let name = quote(function.name);
        let given = args.len();
        let miscounted = if function.extra == Extra::None && given != declared {
            Some(format!("expected {declared} argument(s) in call to {name}, got {given}"))
        } else if given < least {
            Some(format!("expected at least {least} argument(s) in call to {name}, got {given}"))
        } else if given > most {
            Some(format!("expected at most {most} argument(s) in call to {name}, got {given}"))
        } else {
            None
        };
        if let Some(message) = miscounted {
            // The count is looked at before the arguments are.
            if !blamed_before {
                self.type_error = None;
            }
            self.blame(span, message);
        }
        if function.is(Other::Info) && given > 1 {
            self.check_info(&args[1]);
        }
        for (index, arg) in args.iter().enumerate() {
            let Some(wanted) = function.args.get(index).or(match function.extra {
                Extra::None => None,
                Extra::UpTo(_) | Extra::Any => function.args.last(),
            }) else {
                break;
            };
            if arg.ty != *wanted {
                let message = format!("expected type {wanted} in call to function {name}, got {}", arg.ty);
                self.blame(arg.span, message);
            }
        }
        let ty = function.returns;
        // The time of a sample that a pinned selector finds is as fixed as its value.
        let fixed_time = function.is(Other::Timestamp)
            && args.first().is_some_and(|arg| arg.pinned && matches!(arg.bare().node, Node::Selector(_)));
        let pinned = fixed_time || (!function.looks_at_the_clock() && args.iter().all(|arg| arg.pinned));
        Expr { node: Node::Call(Call { function, args }), span, ty, pinned }
    }

    /// The second argument of `info` is no selector of series but of their labels: it may match everything.
    fn check_info(&mut self, arg: &Expr) {
        let Node::Selector(selector) = &arg.node else {
            if arg.ty == Type::InstantVector {
                self.blame(arg.span, "expected label selectors only");
            }
            return;
        };
        let named = self.text.as_bytes().get(arg.span.start) != Some(&b'{');
        if self.type_error.as_ref().is_some_and(|error| error.span == arg.span && error.message == EMPTY) {
            self.type_error = None;
        }
        if named && selector.matchers.iter().any(|matcher| matcher.label == NAME) {
            self.blame(arg.span, "expected label selectors only, got vector selector instead");
        }
    }

    pub(super) fn checked_aggregate(
        &mut self,
        op: AggregateOp,
        mut args: Vec<Expr>,
        grouping: Grouping,
        span: Span,
    ) -> Parsed<Expr> {
        if args.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        let experimental = match op {
            AggregateOp::LimitK => Some("limitk"),
            AggregateOp::LimitRatio => Some("limit_ratio"),
            AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Count
            | AggregateOp::Group
            | AggregateOp::Stddev
            | AggregateOp::Stdvar
            | AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::CountValues
            | AggregateOp::Quantile => None,
        };
        if let (Some(name), Dialect::Stable) = (experimental, self.dialect) {
            let message = format!(
                "{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
            );
            return Err(self.error(span, message));
        }
        let param_type = match op {
            AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::Quantile
            | AggregateOp::LimitK
            | AggregateOp::LimitRatio => Some(Type::Scalar),
            AggregateOp::CountValues => Some(Type::String),
            AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Count
            | AggregateOp::Group
            | AggregateOp::Stddev
            | AggregateOp::Stdvar => None,
        };
        let wanted = 1 + usize::from(param_type.is_some());
        let given = args.len();
        let inner = args.pop();
        let (Some(inner), true) = (inner, given == wanted) else {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {given}"
            );
            return Err(self.error(span, message));
        };
        let param = args.pop();
        if inner.ty != Type::InstantVector {
            let message = format!("expected type instant vector in aggregation expression, got {}", inner.ty);
            self.blame(inner.span, message);
        }
        if let (Some(param), Some(wanted)) = (&param, param_type)
            && param.ty != wanted
        {
            let message = format!("expected type {wanted} in aggregation parameter, got {}", param.ty);
            self.blame(param.span, message);
        }
        let pinned = inner.pinned;
        let node = Node::Aggregate(Box::new(Aggregate { op, inner, param, grouping }));
        Ok(Expr { node, span, ty: Type::InstantVector, pinned })
    }

    fn shift<'e>(&self, expr: &'e mut Expr, what: &str) -> Parsed<&'e mut Shift> {
        let span = expr.span;
        let modified = expr.node.modified().map(|(shift, _)| shift);
        modified.ok_or_else(|| {
            let message = format!(
                "{what} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
            );
            self.error(span, message)
        })
    }

    pub(super) fn offset(&self, expr: &mut Expr, offset: Length) -> Parsed<()> {
        let span = expr.span;
        let shift = self.shift(expr, "offset")?;
        if shift.offset.is_some() {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        // An offset of nothing counts as none, so that a second one may follow.
        shift.offset = Some(offset).filter(|offset| *offset != Length::Fixed(0));
        expr.span.end = self.last_closing;
        Ok(())
    }

    pub(super) fn pin(&self, expr: &mut Expr, at: At) -> Parsed<()> {
        let span = expr.span;
        let shift = self.shift(expr, "@")?;
        if shift.at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        shift.at = Some(at);
        expr.pinned = true;
        expr.span.end = self.last_closing;
        Ok(())
    }

    pub(super) fn extend(&self, expr: &mut Expr, edge: Edge) -> Parsed<()> {
        let word = if edge == Edge::Anchored { "anchored" } else { "smoothed" };
        if self.dialect == Dialect::Stable {
            return Err(self.error(expr.span, format!("{word} modifier is experimental and not enabled")));
        }
        let span = expr.span;
        let known = match expr.node.modified() {
            Some((_, Some(edge))) => edge,
            Some((_, None)) => {
                return Err(self.error(span, format!("{word} modifier is not supported for subqueries")));
            }
            None => return Err(self.error(span, format!("{word} modifier not implemented"))),
        };
        if *known != Edge::Plain && *known != edge {
            return Err(self.error(span, "anchored and smoothed modifiers cannot be used together"));
        }
        *known = edge;
        Ok(())
    }
}
