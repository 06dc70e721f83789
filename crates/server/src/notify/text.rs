//! What a message says, to somebody who was asleep a minute ago. One rendering for all channels; each only dresses it.

use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{Delivery, Reason, Status, TimestampMs, ToldAlert};

use super::stamp;

/// More are a number: nobody reads on, and channels have limits.
const SHOWN_MAX: usize = 10;

/// Of one paragraph; ten of them stay below what Slack takes.
const TEXT_CHARS_MAX: usize = 600;

/// Of the subject; phones show less.
const TITLE_CHARS_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// What does not say how bad it is must not be slept through.
    fn of(labels: &Labels) -> Self {
        match labels.get("severity").unwrap_or_default().to_ascii_lowercase().as_str() {
            "info" | "information" | "none" | "notice" => Self::Info,
            "" | "warning" | "warn" | "ticket" | "minor" => Self::Warning,
            _ => Self::Critical,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) url: String,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paragraph {
    pub(super) status: Status,
    /// `CRITICAL HighErrorRate: production / api / v12`
    pub(super) headline: String,
    /// What is wrong, in a sentence or two.
    pub(super) text: String,
    /// `since`, `value`, `changed`, `next`: name and text.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) title: String,
    pub(super) status: Status,
    /// The worst that fires; of what ended, when nothing does.
    pub(super) severity: Severity,
    pub(super) paragraphs: Vec<Paragraph>,
    /// Alerts beyond those shown.
    pub(super) more: usize,
    pub(super) footer: String,
}

/// What Fairway's rules put into annotations, and what is shown of those of others.
const SUMMARY: &str = "summary";
const DESCRIPTION: &str = "description";
const VALUE: &str = "value";
const CHANGED: &str = "changed";
const NEXT: &str = "next";
const LINKS: [(&str, &str); 3] =
    [("runbook", "runbook_url"), ("dashboard", "dashboard_url"), ("look", "link_url")];

pub(super) fn render(delivery: &Delivery, sender: &str, test: bool, now_ms: TimestampMs) -> Text {
    let of_status = delivery.alerts.iter().filter(|alert| alert.status == delivery.status);
    let severity = of_status.map(|alert| Severity::of(&alert.labels)).max().unwrap_or(Severity::Warning);
    let shown = delivery.alerts.len().min(SHOWN_MAX);
    let more = delivery.alerts.len() - shown + delivery.truncated;
    Text {
        title: title(delivery, severity, test),
        status: delivery.status,
        severity,
        paragraphs: delivery.alerts.iter().take(SHOWN_MAX).map(|alert| paragraph(alert, now_ms)).collect(),
        more,
        footer: footer(delivery, sender, test),
    }
}

fn title(delivery: &Delivery, severity: Severity, test: bool) -> String {
    let firing = delivery.firing().count();
    let cut = if delivery.truncated > 0 { "+" } else { "" };
    let state = match delivery.status {
        Status::Firing if firing > 1 => format!("{} × {firing}{cut}", severity.word().to_uppercase()),
        Status::Firing => severity.word().to_uppercase(),
        Status::Resolved => "RESOLVED".to_owned(),
    };
    let mut names: Vec<&str> = delivery.alerts.iter().map(|alert| name(&alert.labels)).collect();
    names.sort_unstable();
    names.dedup();
    let others = names.len().saturating_sub(3);
    names.truncate(3);
    let mut what = names.join(", ");
    if others > 0 {
        what = format!("{what} and {others} more");
    }
    let at = place(&delivery.common_labels);
    let at = if at.is_empty() { String::new() } else { format!(": {at}") };
    let mark = if test { "[TEST, nothing is wrong] " } else { "" };
    let again = if delivery.reason == Reason::Repeat { " (still)" } else { "" };
    line(&format!("{mark}[{state}] {what}{at}{again}"), TITLE_CHARS_MAX)
}

fn name(labels: &Labels) -> &str {
    labels.get("alertname").unwrap_or("alert without a name")
}

/// `production / api / v12`
pub(super) fn place(labels: &Labels) -> String {
    let version = labels.get("release").or_else(|| labels.get("version"));
    let parts = [labels.get("environment"), labels.get("service"), version, labels.get("instance")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" / ")
}

fn paragraph(alert: &ToldAlert, now_ms: TimestampMs) -> Paragraph {
    let (labels, annotations) = (&alert.labels, &alert.annotations);
    let state = match alert.status {
        Status::Firing => Severity::of(labels).word(),
        Status::Resolved => "resolved",
    };
    let at = place(labels);
    let at = if at.is_empty() { String::new() } else { format!(": {at}") };
    let sentences = [annotations.get(SUMMARY), annotations.get(DESCRIPTION)];
    let mut sentences: Vec<String> =
        sentences.into_iter().flatten().map(|text| lines(text, TEXT_CHARS_MAX)).collect();
    sentences.dedup();
    Paragraph {
        status: alert.status,
        headline: line(&format!("{} {}{at}", state.to_uppercase(), name(labels)), TITLE_CHARS_MAX),
        text: sentences.join("\n"),
        facts: facts(alert, now_ms),
        links: links(alert),
    }
}

fn facts(alert: &ToldAlert, now_ms: TimestampMs) -> Vec<(&'static str, String)> {
    let annotations = &alert.annotations;
    let since = stamp::for_people(alert.starts_at_ms);
    let mut facts = match alert.ends_at_ms {
        Some(end_ms) => {
            let lasted = stamp::span(alert.starts_at_ms, end_ms);
            vec![("ended", format!("{} after {lasted}, since {since}", stamp::for_people(end_ms)))]
        }
        None => vec![("since", format!("{since}, {} ago", stamp::span(alert.starts_at_ms, now_ms)))],
    };
    let mut add = |fact: &'static str, text: Option<&str>| {
        if let Some(text) = text {
            facts.push((fact, line(text, TEXT_CHARS_MAX)));
        }
    };
    add("value", annotations.get(VALUE));
    add("changed", annotations.get(CHANGED));
    if alert.status == Status::Firing {
        let status = alert.labels.get("environment").map(|name| format!("fairway status -e {name}"));
        add("next", annotations.get(NEXT).or(status.as_deref()));
    }
    facts
}

fn links(alert: &ToldAlert) -> Vec<Link> {
    let annotated = LINKS.iter().filter_map(|(name, key)| Some((*name, alert.annotations.get(key)?)));
    let query = Some(("query", alert.generator_url.as_str()));
    annotated
        .chain(query)
        .filter(|(_, url)| is_link(url))
        .map(|(name, url)| Link { name, url: url.to_owned() })
        .collect()
}

/// Channels refuse or misread anything else.
fn is_link(url: &str) -> bool {
    let web = url.starts_with("http://") || url.starts_with("https://");
    web && url.len() <= 2_000
        && !url.contains(|c: char| c.is_whitespace() || c.is_control() || "<>|\"".contains(c))
}

fn footer(delivery: &Delivery, sender: &str, test: bool) -> String {
    let attempt =
        if delivery.attempt > 1 { format!(", attempt {}", delivery.attempt) } else { String::new() };
    let why = if test { "a test of the channel" } else { "an alert" };
    line(&format!("Fairway on {sender}, {why}, channel {}{attempt}", delivery.channel), TITLE_CHARS_MAX)
}

/// One line: no break that would end a header or a heading.
pub(super) fn line(text: &str, chars_max: usize) -> String {
    cut(
        &text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).fold(
            String::new(),
            |line, word| if line.is_empty() { word.to_owned() } else { line + " " + word },
        ),
        chars_max,
    )
}

/// Several lines, without the characters that steer a terminal.
fn lines(text: &str, chars_max: usize) -> String {
    let kept: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    cut(kept.trim(), chars_max)
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Text {
    pub(super) fn more_line(&self) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more", self.more))
    }

    /// For mail, and for whatever shows plain text.
    pub(super) fn plain(&self) -> String {
        let mut text = String::new();
        for paragraph in &self.paragraphs {
            text.push_str(&paragraph.headline);
            text.push('\n');
            for sentence in paragraph.text.lines() {
                text.push_str(&format!("  {sentence}\n"));
            }
            for (name, fact) in &paragraph.facts {
                text.push_str(&format!("  {:<10}{fact}\n", format!("{name}:")));
            }
            for link in &paragraph.links {
                text.push_str(&format!("  {:<10}{}\n", format!("{}:", link.name), link.url));
            }
            text.push('\n');
        }
        if let Some(more) = self.more_line() {
            text.push_str(&more);
            text.push_str("\n\n");
        }
        text.push_str("-- \n");
        text.push_str(&self.footer);
        text.push('\n');
        text
    }
}
