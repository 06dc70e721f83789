//! `GET /api/v1/http_sd`: what there is to scrape, as Prometheus' HTTP service discovery reads it.
//!
//! For whoever has a Prometheus in the built-in store's place: copies get other ports with every release, so that no
//! list of them can be written down. <https://prometheus.io/docs/prometheus/latest/http_sd/>

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use serde::Serialize;

use super::App;
use crate::watching::{SCRAPE_EVERY, SCRAPE_TIMEOUT, Target, all_targets};

pub const PATH: &str = "/api/v1/http_sd";

/// Each target has its own labels, and so a group of its own.
#[derive(Debug, Serialize)]
pub struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Every ready copy of a service that shows metrics, and every `[metrics.scrape.NAME]`. Without any the list is empty,
/// which ends the targets that were; it is never a part of what there is.
pub async fn targets(State(app): State<App>) -> Json<Vec<Group>> {
    let targets = app.pump.shared.read(all_targets);
    Json(targets.values().filter_map(group).collect())
}

/// With the labels that the built-in store gives its series, so that one query fits both.
fn group(target: &Target) -> Option<Group> {
    let uri: Uri = target.url.parse().ok()?;
    let own = target.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut labels: BTreeMap<String, String> = own.collect();
    let mut set = |name: &str, value: &str| {
        labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    set("__scheme__", uri.scheme_str()?);
    set("__metrics_path__", uri.path());
    // Otherwise whoever asks decides.
    if target.every != SCRAPE_EVERY {
        set("__scrape_interval__", &format!("{}ms", target.every.as_millis()));
        // A longer one than the interval makes a Prometheus drop the target.
        set("__scrape_timeout__", &format!("{}ms", target.every.min(SCRAPE_TIMEOUT).as_millis()));
    }
    let asked = Query::<Vec<(String, String)>>::try_from_uri(&uri);
    for (name, value) in asked.map(|Query(asked)| asked).unwrap_or_default() {
        // Another name makes a Prometheus before 3 refuse the whole list.
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            set(&format!("__param_{name}"), &value);
        }
    }
    Some(Group { targets: [uri.authority()?.to_string()], labels })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairway_metrics::labels::Labels;
    use serde_json::json;

    use super::*;

    fn shown(url: &str, every: Duration) -> serde_json::Value {
        let labels = Labels::new([("instance", "api.r3.1"), ("job", "service")]);
        let target = Target { url: url.to_owned(), every, labels };
        serde_json::to_value(group(&target)).unwrap()
    }

    #[test]
    fn a_copy_is_a_target_with_the_labels_of_its_series() {
        let labels = json!({
            "instance": "api.r3.1", "job": "service", "__scheme__": "http", "__metrics_path__": "/metrics",
        });
        let expected = json!({ "targets": ["127.0.0.1:4000"], "labels": labels });
        assert_eq!(shown("http://127.0.0.1:4000/metrics", SCRAPE_EVERY), expected);
    }

    #[test]
    fn a_path_with_a_query_is_taken_apart() {
        let shown =
            shown("https://[::1]:9/probe?module=a%2Fb&module=c&bad-name=x", Duration::from_millis(1_500));
        assert_eq!(shown["targets"], json!(["[::1]:9"]));
        let labels = &shown["labels"];
        assert_eq!((&labels["__scheme__"], &labels["__metrics_path__"]), (&json!("https"), &json!("/probe")));
        assert_eq!(labels["__param_module"], "a/b");
        assert_eq!(
            (&labels["__scrape_interval__"], &labels["__scrape_timeout__"]),
            (&json!("1500ms"), &json!("1500ms"))
        );
        assert_eq!(labels.as_object().unwrap().len(), 7);
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        assert!(shown("metrics", SCRAPE_EVERY).is_null() && shown("http://a b/", SCRAPE_EVERY).is_null());
    }
}
