//! `GET /metrics`: the proxy's figures and the control plane's own, as Prometheus text.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use fairway_metrics::exposition::Format;

use super::App;

pub async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, Format::Text.content_type())], app.watching.exposition().await).into_response()
}
