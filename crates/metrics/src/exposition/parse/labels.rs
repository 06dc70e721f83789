//! What stands between braces.

use std::sync::Arc;

use super::{Parser, Problem, cursor};
use crate::exposition::metadata::MetricType;
use crate::exposition::number;
use crate::labels::NAME;

/// Whose labels they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A name in quotes may stand among them.
    Series,
    Exemplar,
}

pub(super) type Pairs = Vec<(Arc<str>, Arc<str>)>;

impl Parser<'_> {
    /// After the opening brace, up to and with the closing one.
    pub(super) fn label_pairs(&mut self, pairs: &mut Pairs, of: Of) -> Result<(), Problem> {
        loop {
            self.skip_blanks();
            if self.cursor.eat(b'}') {
                return Ok(());
            }
            let name = self.label_name(pairs, of)?;
            let Some(name) = name else {
                // The metric's name, in quotes.
                if self.cursor.eat(b',') {
                    continue;
                }
                return if self.cursor.eat(b'}') { Ok(()) } else { Err(self.cursor.unexpected(", or }")) };
            };
            if !self.cursor.eat(b'=') {
                return Err(self.cursor.unexpected("="));
            }
            self.skip_blanks();
            let value = self.label_value(&name, of)?;
            if name == NAME && of == Of::Series && !pairs.iter().any(|(known, _)| &**known == NAME) {
                // A name that is given as a label is none, as in Prometheus.
                return Err(Problem::NoName);
            }
            self.keep(pairs, name, value)?;
            self.skip_blanks();
            let parted = self.cursor.eat(b',');
            // The text format's own parser lets a missing comma pass; OpenMetrics' does not.
            if self.openmetrics() && !parted && self.cursor.peek() != Some(b'}') {
                return Err(self.cursor.unexpected(", or }"));
            }
        }
    }

    /// `None` when it was the metric's name, which is among the pairs then. Blanks after it are taken.
    fn label_name(&mut self, pairs: &mut Pairs, of: Of) -> Result<Option<String>, Problem> {
        if let Some(name) = self.cursor.name(false) {
            let name = self.utf8_within(name, "a label's name", self.limits.name_bytes_max)?.to_owned();
            self.skip_blanks();
            return Ok(Some(name));
        }
        let line_ends = of == Of::Series;
        let quoted =
            self.cursor.quoted(line_ends).ok_or_else(|| self.cursor.unexpected("a label's name or }"))?;
        let raw = self.utf8_within(quoted, "a name in quotes", self.limits.name_bytes_max)?;
        let name = cursor::unescaped(raw, true).into_owned();
        if name.contains('\0') {
            return Err(Problem::Unexpected { expected: "a name without NUL", found: format!("{name:?}") });
        }
        self.skip_blanks();
        if matches!(self.cursor.peek(), Some(b',' | b'}')) && of == Of::Series {
            if pairs.iter().any(|(known, _)| &**known == NAME) {
                return Err(Problem::TwoNames);
            }
            if name.is_empty() {
                return Err(Problem::Empty { what: "the metric's name" });
            }
            pairs.push((NAME.into(), name.into()));
            return Ok(None);
        }
        if name.is_empty() {
            return Err(Problem::Empty { what: "a label's name" });
        }
        Ok(Some(name))
    }

    fn label_value(&mut self, name: &str, of: Of) -> Result<String, Problem> {
        let line_ends = !self.openmetrics();
        let quoted =
            self.cursor.quoted(line_ends).ok_or_else(|| self.cursor.unexpected("a label's value"))?;
        let raw = self.utf8_within(quoted, "a label's value", self.limits.value_bytes_max)?;
        let value = cursor::unescaped(raw, true).into_owned();
        let is_bound = match self.kind {
            MetricType::Histogram => name == "le",
            MetricType::Summary => name == "quantile",
            MetricType::Counter
            | MetricType::Gauge
            | MetricType::GaugeHistogram
            | MetricType::Info
            | MetricType::StateSet
            | MetricType::Unknown => false,
        };
        let bound = if is_bound && of == Of::Series { number::parse(&value) } else { None };
        Ok(bound.map_or(value, number::openmetrics))
    }

    fn keep(&self, pairs: &mut Pairs, name: String, value: String) -> Result<(), Problem> {
        if pairs.len() >= self.limits.labels_max {
            return Err(Problem::TooManyLabels { limit: self.limits.labels_max });
        }
        // Few labels: looking through them is cheaper than anything that would remember them.
        if pairs.iter().any(|(known, _)| **known == *name) {
            return Err(Problem::LabelTwice { name });
        }
        pairs.push((name.into(), value.into()));
        Ok(())
    }
}
