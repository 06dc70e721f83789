//! Alerts for an Alertmanager that groups, routes and silences them itself.

use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{Alert, Batch};
use serde::Serialize;

use super::{Sending, judge, stamp};
use crate::outgoing::Outgoing;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a Labels,
    annotations: &'a Labels,
    starts_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(rename = "generatorURL", skip_serializing_if = "str::is_empty")]
    generator_url: &'a str,
}

impl<'a> Posted<'a> {
    fn of(alert: &'a Alert) -> Self {
        Self {
            labels: &alert.labels,
            annotations: &alert.annotations,
            starts_at: stamp::rfc3339(alert.starts_at_ms),
            // One that ends before it starts is refused, and all others of the request with it.
            ends_at: alert.ends_at_ms.map(|end_ms| stamp::rfc3339(end_ms.max(alert.starts_at_ms))),
            generator_url: &alert.generator_url,
        }
    }
}

/// `url` is the Alertmanager's, with its path prefix if it has one.
pub(super) async fn send(outgoing: &Outgoing, url: &str, batch: &Batch) -> Sending {
    let alerts: Vec<Posted<'_>> = batch.alerts.iter().map(Posted::of).collect();
    let body = serde_json::to_vec(&alerts).expect("maps of text to text are JSON");
    let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
    judge(outgoing.post(&url, "application/json", body).await, &[])
}
