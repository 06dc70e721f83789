//! The part of Go's `text/template` that annotations and labels of alerts are written in, with the functions of
//! Prometheus.
//!
//! Known: text, comments, `{{-` and `-}}`, `if`, `else if`, `with`, `range`, `break`, `continue`, variables, pipes,
//! parentheses, all constants, Go's own functions except `call`, and Prometheus' functions except `tmpl`. Not known:
//! `define`, `block` and `template`; they are refused when the rules are read, as is a function nobody knows.
//!
//! One difference to Go: a whole number and a float can be compared, so `gt $value 5` is what its author meant instead
//! of an error.

mod eval;
mod functions;
mod number;
mod parse;
mod printf;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use number::exponential;

use super::evaluate::Found;
use crate::labels::Labels;
use crate::sample::TimestampMs;
use value::Value;

/// Larger results are cut off with an error: an annotation is read by people and sent by mail.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// A template that can be expanded.
#[derive(Clone, Debug)]
pub struct Template {
    text: Arc<str>,
    body: Vec<parse::Piece>,
}

/// What a template can see.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// Of the element that the alert's query gave, with its `__name__`.
    pub labels: &'a Labels,
    pub value: f64,
    pub external_labels: &'a BTreeMap<String, String>,
    /// Where people reach this server; empty when nobody said.
    pub external_url: &'a str,
    pub at_ms: TimestampMs,
}

/// What `query` in a template asks.
pub type Ask<'a> = dyn FnMut(&str) -> Result<Vec<Found>, String> + 'a;

impl Template {
    /// # Errors
    /// What Go would say, without the template's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.into(), body: parse::parse(text)? })
    }

    /// A text that stands for itself, braces and all.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self { text: text.into(), body: vec![parse::Piece::Text(text.to_owned())] }
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// Why it cannot be expanded.
    pub fn expand(&self, scene: &Scene<'_>, ask: &mut Ask<'_>) -> Result<String, String> {
        if let [] | [parse::Piece::Text(_)] = &*self.body {
            // Most labels have nothing to expand.
            return Ok(self.body.iter().map(|piece| piece.text().unwrap_or_default()).collect());
        }
        eval::run(&self.body, scene, ask)
    }
}

fn pairs(labels: &Labels) -> Value {
    Value::Labels(labels.clone())
}

#[cfg(test)]
mod tests;
