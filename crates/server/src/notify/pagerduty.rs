//! PagerDuty's Events API v2.

use fairway_metrics::notify::{Delivery, Status};
use serde_json::{Value, json};

use super::text::{Severity, Text, line, place};
use super::{Origin, Secret, Sending, judge, stamp};
use crate::outgoing::Outgoing;

const URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// PagerDuty's own bound.
const SUMMARY_CHARS_MAX: usize = 1_024;

/// The key by which PagerDuty merges: the same for every message about a group, so that one that is sent twice is one
/// incident. Hashed, because it may have 255 characters.
pub(super) fn dedup_key(origin: &Origin, delivery: &Delivery) -> String {
    blake3::hash(format!("{}\0{}", origin.name, delivery.group_key).as_bytes()).to_hex().to_string()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

pub(super) async fn send(
    outgoing: &Outgoing,
    key: &Secret,
    url: Option<&str>,
    origin: &Origin,
    delivery: &Delivery,
    text: &Text,
) -> Sending {
    let mut event = json!({
        "routing_key": key.expose(),
        "event_action": match delivery.status { Status::Firing => "trigger", Status::Resolved => "resolve" },
        "dedup_key": dedup_key(origin, delivery),
    });
    if delivery.status == Status::Firing {
        event["client"] = json!(format!("Fairway on {}", origin.name));
        if !origin.url.is_empty() {
            event["client_url"] = json!(origin.url);
        }
        event["payload"] = payload(origin, delivery, text);
        let links: Vec<Value> = text
            .paragraphs
            .iter()
            .flat_map(|paragraph| &paragraph.links)
            .map(|link| json!({"href": link.url, "text": link.name}))
            .collect();
        event["links"] = json!(links);
    }
    let answer = outgoing.post(url.unwrap_or(URL), "application/json", event.to_string()).await;
    judge(answer, &[key])
}

fn payload(origin: &Origin, delivery: &Delivery, text: &Text) -> Value {
    let labels = &delivery.common_labels;
    let at = place(labels);
    let mut payload = json!({
        "summary": line(&text.title, SUMMARY_CHARS_MAX - 1),
        "source": if at.is_empty() { origin.name.clone() } else { at },
        "severity": severity(text.severity),
        "custom_details": {
            "firing": delivery.firing().count(),
            "resolved": delivery.resolved().count(),
            "truncated": delivery.truncated,
            "group": delivery.group_labels,
            "labels": labels,
            "text": text.plain(),
        },
    });
    if let Some(oldest) = delivery.firing().map(|alert| alert.starts_at_ms).min() {
        payload["timestamp"] = json!(stamp::rfc3339(oldest));
    }
    for (field, label) in [("component", "service"), ("group", "environment"), ("class", "alertname")] {
        if let Some(value) = labels.get(label) {
            payload[field] = json!(value);
        }
    }
    payload
}
