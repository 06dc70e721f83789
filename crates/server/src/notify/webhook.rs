//! Alertmanager's webhook, version 4: what scripts and other services already understand.

use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{Delivery, ToldAlert};
use serde::Serialize;

use super::{Origin, Secret, Sending, judge, stamp};
use crate::outgoing::Outgoing;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: usize,
    status: &'static str,
    receiver: &'a str,
    group_labels: &'a Labels,
    common_labels: &'a Labels,
    common_annotations: &'a Labels,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<Alert<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: &'static str,
    labels: &'a Labels,
    annotations: &'a Labels,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: String,
}

/// How Go writes a time that is not set.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl<'a> Alert<'a> {
    fn of(alert: &'a ToldAlert) -> Self {
        Self {
            status: alert.status.word(),
            labels: &alert.labels,
            annotations: &alert.annotations,
            starts_at: stamp::rfc3339(alert.starts_at_ms),
            ends_at: alert.ends_at_ms.map_or_else(|| NEVER.to_owned(), stamp::rfc3339),
            generator_url: &alert.generator_url,
            fingerprint: alert.fingerprint.to_string(),
        }
    }
}

pub(super) async fn send(outgoing: &Outgoing, url: &Secret, origin: &Origin, delivery: &Delivery) -> Sending {
    let message = Message {
        version: "4",
        group_key: &delivery.group_key,
        truncated_alerts: delivery.truncated,
        status: delivery.status.word(),
        receiver: &delivery.channel,
        group_labels: &delivery.group_labels,
        common_labels: &delivery.common_labels,
        common_annotations: &delivery.common_annotations,
        external_url: &origin.url,
        alerts: delivery.alerts.iter().map(Alert::of).collect(),
    };
    let body = serde_json::to_vec(&message).expect("maps of text to text are JSON");
    judge(outgoing.post(url.expose(), "application/json", body).await, &[url])
}
