//! Annotations: what Prometheus tells besides a result.

use std::collections::BTreeMap;

use super::figure::{go_g, go_g2};
use crate::promql::ast::Span;
use crate::promql::date::rfc3339;
use crate::promql::lex::quote;
use crate::sample::TimestampMs;

/// One note per text, whatever its place; the last place is shown.
#[derive(Debug, Default)]
pub struct Notes {
    list: BTreeMap<String, Noted>,
}

#[derive(Debug)]
struct Noted {
    severity: Severity,
    span: Span,
    forced: Option<Forced>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Warning,
    Info,
}

/// How counts of a classic histogram had to be raised so that none falls below that of a smaller bucket.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    pub from: f64,
    pub to: f64,
    pub difference: f64,
    pub first_ms: TimestampMs,
    pub last_ms: TimestampMs,
    pub count: usize,
}

impl Forced {
    fn join(self, other: Self) -> Self {
        Self {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            difference: self.difference.max(other.difference),
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            count: self.count + other.count,
        }
    }
}

fn of_metric(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", quote(metric)) }
}

impl Notes {
    fn warn(&mut self, span: Span, text: String) {
        self.list.insert(text, Noted { severity: Severity::Warning, span, forced: None });
    }

    fn inform(&mut self, span: Span, text: String) {
        self.list.insert(text, Noted { severity: Severity::Info, span, forced: None });
    }

    pub fn invalid_quantile(&mut self, span: Span, quantile: f64) {
        self.warn(span, format!("quantile value should be between 0 and 1, got {}", go_g(quantile)));
    }

    pub fn invalid_ratio(&mut self, span: Span, ratio: f64, capped: f64) {
        let (ratio, capped) = (go_g(ratio), go_g(capped));
        self.warn(span, format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
    }

    pub fn bad_bucket(&mut self, span: Span, metric: &str, label: &str) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quote(label));
        self.warn(span, of_metric(&text, metric));
    }

    pub fn sort_in_range(&mut self, span: Span) {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        self.warn(span, text.to_owned());
    }

    pub fn not_a_counter(&mut self, span: Span, metric: &str) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        self.inform(span, format!("{text} {}", quote(metric)));
    }

    pub fn forced_monotonic(&mut self, span: Span, metric: &str, forced: Forced) {
        let text = of_metric(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            metric,
        );
        let before = self.list.get(&text).and_then(|noted| noted.forced);
        let forced = before.map_or(forced, |before| before.join(forced));
        self.list.insert(text, Noted { severity: Severity::Info, span, forced: Some(forced) });
    }

    /// Warnings and infos with their places in the query.
    pub fn texts(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let (mut warnings, mut infos) = (Vec::new(), Vec::new());
        for (text, noted) in &self.list {
            let place = noted.span.place(query);
            let more = noted.forced.map_or_else(String::new, |forced| {
                format!(
                    ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                    go_g(forced.from),
                    go_g(forced.to),
                    go_g2(forced.difference),
                    forced.count,
                    rfc3339(forced.first_ms),
                    rfc3339(forced.last_ms)
                )
            });
            match noted.severity {
                Severity::Warning => warnings.push(format!("PromQL warning: {text}{more} ({place})")),
                Severity::Info => infos.push(format!("PromQL info: {text}{more} ({place})")),
            }
        }
        (warnings, infos)
    }
}
