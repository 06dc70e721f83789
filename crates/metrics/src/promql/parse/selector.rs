//! `name{label="value"}`

use super::{Kind, Parsed, Parser};
use crate::labels::NAME;
use crate::promql::ast::{BinaryOp, Edge, Expr, Node, Selector, Shift, Span, Type};
use crate::promql::lex::{Token, quote};
use crate::promql::{literal, regex_go};
use crate::select::{Matcher, Test};

const CONTEXT: &str = "label matching";

impl<'a> Parser<'a> {
    pub(super) fn selector(&mut self) -> Parsed<Expr> {
        let start = self.now.start;
        let mut end = self.now.span().end;
        let mut name = None;
        let is_word = matches!(
            self.now.kind,
            Kind::Identifier
                | Kind::MetricIdentifier
                | Kind::Aggregator
                | Kind::Preprocessor
                | Kind::Keyword
                | Kind::Operator
        );
        let named =
            |text: &str| text.starts_with(|char: char| char.is_ascii_alphabetic() || "_:".contains(char));
        if is_word && named(self.now.text) {
            name = Some(self.take()?.text);
        } else if self.now.kind != Kind::LeftBrace {
            return Err(self.unexpected("", ""));
        }
        let mut matchers = Vec::new();
        self.name_in_braces = None;
        if self.now.kind == Kind::LeftBrace {
            self.take()?;
            (matchers, end) = self.matchers()?;
        }
        let span = Span { start, end };
        if let Some(name) = name {
            if let Some(other) = self.name_in_braces.take() {
                let message =
                    format!("metric name must not be set twice: {} or {}", quote(name), quote(&other));
                self.blame(span, message);
            }
            matchers.push(Matcher::equal(NAME, name));
        } else if matchers.iter().all(|matcher| matcher.matches("")) {
            self.blame(span, EMPTY);
        }
        let node = Node::Selector(Selector { matchers, shift: Shift::default(), edge: Edge::Plain });
        Ok(Expr { node, span, ty: Type::InstantVector, pinned: false })
    }

    /// After the `{`; says where the `}` ends.
    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, usize)> {
        let mut matchers = Vec::new();
        loop {
            if self.now.kind == Kind::RightBrace {
                let close = self.take()?;
                return Ok((matchers, close.span().end));
            }
            matchers.push(self.matcher()?);
            if self.now.kind == Kind::Comma {
                self.take()?;
            } else if self.now.kind != Kind::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let word = self.now;
        let label = if word.kind == Kind::String {
            literal::unquote(word.text)
        } else if word.kind == Kind::Identifier {
            word.text.to_owned()
        } else {
            return Err(self.unexpected(CONTEXT, "identifier or \"}\""));
        };
        self.take()?;
        let operator = self.now;
        let known = matches!(operator.kind, Kind::Assign | Kind::EqualRegex | Kind::NotRegex)
            || operator.text == BinaryOp::NotEqual.sign();
        if !known {
            if word.kind == Kind::String && matches!(operator.kind, Kind::Comma | Kind::RightBrace) {
                self.name_in_braces.get_or_insert_with(|| label.clone());
                return Ok(Matcher::equal(NAME, &label));
            }
            let expected =
                if word.kind == Kind::String { "\",\" or \"}\"" } else { "label matching operator" };
            return Err(self.unexpected(CONTEXT, expected));
        }
        self.take()?;
        let value = self.now;
        if value.kind != Kind::String {
            return Err(self.unexpected(CONTEXT, "string"));
        }
        if label == NAME {
            self.name_in_braces.get_or_insert_with(|| literal::unquote(value.text));
        }
        let test = self.test(operator, word.span().to(value.span()), literal::unquote(value.text))?;
        self.take()?;
        Ok(Matcher { label, test })
    }

    fn test(&self, operator: Token<'_>, span: Span, value: String) -> Parsed<Test> {
        let compile = |value: &str| {
            let compiled = regex_go::translate(value).and_then(|pattern| {
                // By itself first: `a)|(b` would be whole between the parentheses that anchor it.
                regex::Regex::new(&pattern).and_then(|_| Matcher::regex(&pattern)).map_err(|error| {
                    let error = error.to_string();
                    error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
                })
            });
            compiled.map_err(|why| self.error(span, format!("error parsing regexp: {why}")))
        };
        Ok(if operator.kind == Kind::EqualRegex {
            Test::Regex(compile(&value)?)
        } else if operator.kind == Kind::NotRegex {
            Test::NotRegex(compile(&value)?)
        } else if operator.kind == Kind::Assign {
            Test::Equal(value)
        } else {
            Test::NotEqual(value)
        })
    }
}

/// So that a slip of the finger does not select everything.
pub(super) const EMPTY: &str = "vector selector must contain at least one non-empty matcher";
