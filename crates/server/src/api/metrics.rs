//! `GET /metrics`: the proxy's figures and the control plane's own, as Prometheus text.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::{App, PROXY_TIMEOUT};

pub async fn metrics(State(app): State<App>) -> Response {
    let (up, mut text) = match app.routes.proxy().client() {
        Some(client) => match tokio::time::timeout(PROXY_TIMEOUT, client.metrics()).await {
            Ok(Ok(text)) => (1, text),
            Ok(Err(_)) | Err(_) => (0, String::new()),
        },
        None => (0, String::new()),
    };
    let mut add = |help: &str, kind: &str, name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    add("1 when the proxy answers the control plane.", "gauge", "fairway_proxy_up", up.to_string());
    add("Events on the record.", "counter", "fairway_events_total", app.pump.shared.seq().to_string());
    let (ready, rollouts) = app.pump.shared.read(|state| {
        let environments = state.environments.values();
        let ready: usize =
            environments.clone().map(|env| env.instances.values().filter(|i| i.is_ready()).count()).sum();
        (ready, environments.filter(|env| env.rollout.is_some()).count())
    });
    add("Instances that are ready.", "gauge", "fairway_instances_ready", ready.to_string());
    add("Rollouts under way.", "gauge", "fairway_rollouts_active", rollouts.to_string());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
