//! Writing an exposition.

use std::fmt::Write as _;

use crate::exposition::format::Format;
use crate::exposition::metadata::MetricType;
use crate::exposition::number;
use crate::exposition::parse::Exemplar;
use crate::labels::{Labels, NAME};
use crate::sample::TimestampMs;

/// A metric with all of its series.
#[derive(Clone, Debug)]
pub struct Family {
    /// As the text format has it: a counter's ends with `_total`.
    pub name: String,
    pub kind: MetricType,
    /// Not written when it is empty.
    pub help: String,
    /// OpenMetrics alone has one; then the name must end with it. Not written when it is empty.
    pub unit: String,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug)]
pub struct Point {
    /// After the family's name: empty, or `_bucket`, `_sum`, `_count`.
    pub suffix: &'static str,
    /// Without name.
    pub labels: Labels,
    pub value: f64,
    pub at_ms: Option<TimestampMs>,
    /// OpenMetrics alone has them, at counters and buckets.
    pub exemplar: Option<Exemplar>,
}

impl Point {
    #[must_use]
    pub fn new(labels: Labels, value: f64) -> Self {
        Self { suffix: "", labels, value, at_ms: None, exemplar: None }
    }
}

impl Family {
    #[must_use]
    pub fn new(name: &str, kind: MetricType, help: &str) -> Self {
        Self { name: name.to_owned(), kind, help: help.to_owned(), unit: String::new(), points: Vec::new() }
    }

    #[must_use]
    pub fn counter(name: &str, help: &str) -> Self {
        Self::new(name, MetricType::Counter, help)
    }

    #[must_use]
    pub fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, MetricType::Gauge, help)
    }

    /// One more series.
    #[must_use]
    pub fn with(mut self, labels: Labels, value: f64) -> Self {
        self.points.push(Point::new(labels, value));
        self
    }

    /// One more histogram: `buckets` are upper bounds with the cumulative count up to each, `count` the count of all.
    pub fn push_histogram(&mut self, labels: &Labels, buckets: &[(f64, f64)], sum: f64, count: f64) {
        let finite = buckets.iter().copied().filter(|(bound, _)| bound.is_finite());
        for (bound, cumulative) in finite.chain([(f64::INFINITY, count)]) {
            let labels = labels.with("le", &number::openmetrics(bound));
            self.points.push(Point { suffix: "_bucket", ..Point::new(labels, cumulative) });
        }
        self.points.push(Point { suffix: "_sum", ..Point::new(labels.clone(), sum) });
        self.points.push(Point { suffix: "_count", ..Point::new(labels.clone(), count) });
    }
}

/// The body; its `Content-Type` is the format's.
#[must_use]
pub fn write(families: &[Family], format: Format) -> String {
    let mut out = String::new();
    for family in families {
        write_family(&mut out, family, format);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, family: &Family, format: Format) {
    let openmetrics = format == Format::OpenMetrics;
    let name = match format {
        Format::Text => underscored(&family.name, true),
        Format::TextUtf8 | Format::OpenMetrics => family.name.clone(),
    };
    // In OpenMetrics the `_total` is of the sample, not of the family; and every counter's sample has it.
    let is_counter = openmetrics && family.kind == MetricType::Counter;
    let base = if is_counter { name.strip_suffix("_total").unwrap_or(&name) } else { &name };
    let mut shown = String::new();
    push_name(&mut shown, base);
    if !family.help.is_empty() {
        let _ = write!(out, "# HELP {shown} ");
        push_escaped(out, &family.help, openmetrics);
        out.push('\n');
    }
    let kind = match family.kind {
        MetricType::Unknown if !openmetrics => "untyped",
        MetricType::Info | MetricType::StateSet if !openmetrics => "gauge",
        MetricType::GaugeHistogram if !openmetrics => "histogram",
        MetricType::Counter
        | MetricType::Gauge
        | MetricType::Histogram
        | MetricType::GaugeHistogram
        | MetricType::Summary
        | MetricType::Info
        | MetricType::StateSet
        | MetricType::Unknown => family.kind.as_str(),
    };
    let _ = writeln!(out, "# TYPE {shown} {kind}");
    if openmetrics && !family.unit.is_empty() && base.ends_with(&format!("_{}", family.unit)) {
        let _ = writeln!(out, "# UNIT {shown} {}", family.unit);
    }
    let total = if is_counter { "_total" } else { "" };
    for point in &family.points {
        write_point(out, &format!("{base}{total}{}", point.suffix), point, format);
    }
}

fn write_point(out: &mut String, name: &str, point: &Point, format: Format) {
    let openmetrics = format == Format::OpenMetrics;
    let labels: Vec<(&str, &str)> = point.labels.iter().filter(|(name, _)| *name != NAME).collect();
    write_series(out, name, &labels, point.value, point.at_ms, format);
    if let Some(exemplar) = point.exemplar.as_ref().filter(|_| openmetrics) {
        out.push_str(" # {");
        for (index, (label, value)) in exemplar.labels.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            push_name(out, label);
            out.push('=');
            push_quoted(out, value);
        }
        out.push_str("} ");
        push_value(out, exemplar.value, true);
        if let Some(at_ms) = exemplar.at_ms {
            push_time(out, at_ms, true);
        }
    }
    out.push('\n');
}

/// One line without its end. Labels stay in their order, and those with empty values too.
pub(crate) fn write_series(
    out: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    value: f64,
    at_ms: Option<TimestampMs>,
    format: Format,
) {
    let openmetrics = format == Format::OpenMetrics;
    let old_name = is_old_name(name, true);
    if old_name {
        out.push_str(name);
    }
    if !labels.is_empty() || !old_name {
        out.push('{');
        if !old_name {
            push_name(out, name);
        }
        for (index, (label, value)) in labels.iter().enumerate() {
            if index > 0 || !old_name {
                out.push(',');
            }
            match format {
                Format::Text => out.push_str(&underscored(label, false)),
                Format::TextUtf8 | Format::OpenMetrics if is_old_name(label, false) => out.push_str(label),
                Format::TextUtf8 | Format::OpenMetrics => push_quoted(out, label),
            }
            out.push('=');
            push_quoted(out, value);
        }
        out.push('}');
    }
    out.push(' ');
    push_value(out, value, openmetrics);
    if let Some(at_ms) = at_ms {
        push_time(out, at_ms, openmetrics);
    }
}

fn push_value(out: &mut String, value: f64, openmetrics: bool) {
    // Neither format has a zero below zero: Go's encoders write all zeros alike.
    let value = if value == 0.0 { 0.0 } else { value };
    out.push_str(&if openmetrics { number::openmetrics(value) } else { number::general(value) });
}

fn push_time(out: &mut String, at_ms: TimestampMs, openmetrics: bool) {
    if openmetrics {
        let sign = if at_ms < 0 { "-" } else { "" };
        let _ = write!(out, " {sign}{}.{:03}", at_ms.unsigned_abs() / 1000, at_ms.unsigned_abs() % 1000);
    } else {
        let _ = write!(out, " {at_ms}");
    }
}

/// In quotes unless it is of the old characters.
pub(crate) fn push_name(out: &mut String, name: &str) {
    if is_old_name(name, true) { out.push_str(name) } else { push_quoted(out, name) }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text, true);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(char),
        }
    }
}

pub(crate) fn is_old_name(name: &str, colons: bool) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || (colons && char == ':'))
}

pub(crate) fn underscored(name: &str, colons: bool) -> String {
    let kept = |char: char| char.is_ascii_alphanumeric() || char == '_' || (colons && char == ':');
    let first_digit = name.starts_with(|first: char| first.is_ascii_digit());
    let rest = name.chars().map(|char| if kept(char) { char } else { '_' });
    if first_digit {
        rest.enumerate().map(|(at, char)| if at == 0 { '_' } else { char }).collect()
    } else {
        rest.collect()
    }
}

#[cfg(test)]
mod tests;
