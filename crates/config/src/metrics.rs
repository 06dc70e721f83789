//! `[metrics]`: where the figures come from and where they go.

use std::collections::BTreeMap;

use fairway_engine::monitoring::{MetricsSource, Scrape};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::monitoring::{public_url, public_urls, text_map, texts};
use crate::reader::Reader;
use crate::span::Span;
use crate::tree::Value;
use crate::value::{path, url};

/// `[metrics]` of one environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub source: MetricsSource,
    pub remote_write: Vec<String>,
    pub rules: Vec<RulePattern>,
    pub without: Vec<String>,
    pub scrapes: BTreeMap<String, Scrape>,
}

/// Rule files of the project: a path below it, in whose parts `*` and `?` stand for text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePattern {
    pub pattern: String,
    pub at: Span,
}

/// Labels that Fairway sets itself; another value would make two things look like one.
const OWN_LABELS: [&str; 4] = ["job", "instance", "environment", "le"];

pub(crate) fn read(root: &Reader<'_>) -> Metrics {
    let reader = root.table("metrics", &keys::METRICS);
    let source = match public_url(&reader, "prometheus") {
        Some(url) => MetricsSource::Prometheus { url: url.trim_end_matches('/').to_owned() },
        None => MetricsSource::BuiltIn,
    };
    let scrapes = reader.map_of_tables("scrape", &keys::SCRAPE);
    let scrapes = scrapes.iter().filter_map(|(name, reader)| Some(((*name).to_owned(), scrape(reader)?)));
    Metrics {
        source,
        remote_write: public_urls(&reader, "remote_write"),
        rules: rules(&reader),
        without: texts(&reader, "without").unwrap_or_default(),
        scrapes: scrapes.collect(),
    }
}

fn rules(reader: &Reader<'_>) -> Vec<RulePattern> {
    let Some(node) = reader.node("rules") else { return Vec::new() };
    reader.cx.record(reader.path_of("rules"), node);
    let pattern = |item: &crate::tree::Node| {
        // A bad one was told by the first pass.
        let pattern = path::pattern(item.value.as_text()?).ok()?;
        Some(RulePattern { pattern, at: reader.cx.source.span(item.at) })
    };
    match &node.value {
        Value::Array(items) => items.iter().filter_map(pattern).collect(),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float { .. }
        | Value::Bool(_)
        | Value::Datetime(_)
        | Value::Table(_) => Vec::new(),
    }
}

fn scrape(reader: &Reader<'_>) -> Option<Scrape> {
    let labels = text_map(reader, "labels");
    for (name, _) in &labels {
        if OWN_LABELS.contains(name) || name.starts_with("__") {
            let message = format!("the label {name} is set by Fairway itself");
            let at = reader.entries("labels").find(|(other, _)| other == name);
            reader.cx.push_at(
                Diagnostic::error(code::CONFLICT, message).hint("choose another name for the label"),
                at.map_or(reader.at, |(_, entry)| entry.key_at),
            );
        }
    }
    let every = reader.fixed("every");
    Some(Scrape {
        url: url::with_path(&public_url(reader, "url")?, "/metrics"),
        every,
        labels: labels.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect(),
    })
}
