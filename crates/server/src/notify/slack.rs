//! Slack's incoming webhooks.

use fairway_metrics::notify::Status;
use serde_json::{Value, json};

use super::text::{Paragraph, Severity, Text};
use super::{Origin, Secret, Sending, judge};
use crate::outgoing::Outgoing;

/// Red, amber, blue, and green when it is over; the word says it, too.
fn colour(text: &Text) -> &'static str {
    match (text.status, text.severity) {
        (Status::Resolved, _) => "#2eb67d",
        (Status::Firing, Severity::Critical) => "#e01e5a",
        (Status::Firing, Severity::Warning) => "#ecb22e",
        (Status::Firing, Severity::Info) => "#36a3eb",
    }
}

/// The three characters that Slack reads as its own; escaped, `<!channel>` in a label wakes nobody.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn section(paragraph: &Paragraph) -> Value {
    let mut text = format!("*{}*", escape(&paragraph.headline));
    if !paragraph.text.is_empty() {
        text = format!("{text}\n{}", escape(&paragraph.text));
    }
    for (name, fact) in &paragraph.facts {
        let fact = match *name {
            // Ready to be copied.
            "next" => format!("`{}`", escape(&fact.replace('`', "'"))),
            _ => escape(fact),
        };
        text = format!("{text}\n*{name}*: {fact}");
    }
    let links: Vec<String> =
        paragraph.links.iter().map(|link| format!("<{}|{}>", escape(&link.url), link.name)).collect();
    if !links.is_empty() {
        text = format!("{text}\n{}", links.join("  "));
    }
    // Slack refuses the whole message when one text is longer.
    let text: String = text.chars().take(3_000).collect();
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

pub(super) async fn send(outgoing: &Outgoing, url: &Secret, origin: &Origin, text: &Text) -> Sending {
    let mut blocks: Vec<Value> = text.paragraphs.iter().map(section).collect();
    let mut footer = escape(&text.footer);
    if let Some(more) = text.more_line() {
        footer = format!("{more}\n{footer}");
    }
    if !origin.url.is_empty() {
        footer = format!("{footer} (<{}|open>)", escape(&origin.url));
    }
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]}));
    let message = json!({
        // What a phone shows.
        "text": escape(&text.title),
        "attachments": [{
            "color": colour(text),
            "fallback": escape(&text.title),
            "blocks": blocks,
        }],
    });
    judge(outgoing.post(url.expose(), "application/json", message.to_string()).await, &[url])
}
