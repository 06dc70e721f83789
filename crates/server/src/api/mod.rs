//! The API: HTTP on a unix socket, where the caller is who the kernel says, and figures on loopback.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use fairway_api::{ApiError, Upgraded};
use fairway_engine::id::EnvironmentKey;
use fairway_store::Trees;

use crate::drivers::Drivers;
use crate::error::Refused;
use crate::pump::Pump;
use crate::routes::Routes;
use crate::secrets::Vault;
use crate::upgrade::Upgrades;
use crate::watching::Watching;

mod alerts;
mod blobs;
mod certificates;
mod check;
mod command;
mod deploy;
mod discovery;
mod events;
mod exec;
mod export;
mod gc;
mod history;
mod jobs;
mod logs;
mod metrics;
mod plan;
mod prometheus;
mod purge;
mod secrets;
mod slo;
mod status;
mod upgrade;

pub use deploy::monitoring::check as check_monitoring;
pub use deploy::to_api as config_error;
pub use prometheus::Writes;

/// A blob is one file of an artifact; larger files than this do not belong in a release.
const BLOB_BYTES_MAX: usize = 2 << 30;

/// A proxy that does not answer in this time is not waited for: status must come at 3 a.m.
const PROXY_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that a handler may need.
#[derive(Clone, Debug)]
pub struct App {
    pub pump: Pump,
    pub routes: Routes,
    pub drivers: Drivers,
    pub trees: Trees,
    pub vault: Arc<Vault>,
    pub state_dir: PathBuf,
    pub log_path: PathBuf,
    pub watching: Arc<Watching>,
    pub upgrades: Upgrades,
    /// How this server took over from an earlier one.
    pub upgraded: Option<Upgraded>,
}

/// Who calls, put beside the request when its connection is accepted.
#[derive(Clone, Debug)]
pub struct Caller(pub String);

/// Commands and queries, for callers that the socket lets in.
pub fn router(app: App) -> Router {
    let environment = Router::new()
        .route("/status", get(status::environment))
        .route("/plan", post(plan::plan))
        .route("/deploy", post(deploy::deploy))
        .route("/purge", post(purge::purge))
        .route("/commands", post(command::command))
        .route("/history", get(history::history))
        .route("/events", get(events::events))
        .route("/logs", get(logs::logs))
        .route("/exec", post(exec::exec))
        .route("/jobs", post(jobs::run))
        .route("/jobs/{number}", get(jobs::one))
        .route("/check", get(check::check))
        .route("/alerts", get(alerts::list))
        .route("/alerts/silences", get(alerts::silences).post(alerts::silence))
        .route("/alerts/silences/{id}", delete(alerts::unsilence))
        .route("/alerts/channels", get(alerts::channels))
        .route("/alerts/channels/{name}/test", post(alerts::test))
        .route("/certificates/{name}/retry", post(certificates::retry))
        .route("/slo", get(slo::list))
        .route("/export/{what}", get(export::files))
        .route("/secrets", get(secrets::list))
        .route("/secrets/{name}", put(secrets::set).delete(secrets::unset));
    Router::new()
        .route("/v1/status", get(status::all))
        .nest("/v1/projects/{project}/environments/{environment}", environment)
        .route("/v1/gc", post(gc::gc))
        .route("/v1/upgrade", post(upgrade::upgrade))
        .route("/v1/blobs/missing", post(blobs::missing))
        .route("/v1/blobs/{digest}", put(blobs::put).layer(DefaultBodyLimit::max(BLOB_BYTES_MAX)))
        .route("/metrics", get(metrics::metrics))
        .route(discovery::PATH, get(discovery::targets))
        .merge(prometheus::router(app.clone(), Writes::Taken))
        .fallback(not_found)
        .with_state(app)
}

/// Figures only: what may be read without a name.
pub fn public_router(app: App, writes: Writes) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route(discovery::PATH, get(discovery::targets))
        .merge(prometheus::router(app.clone(), writes))
        .fallback(not_found)
        .with_state(app)
}

async fn not_found(uri: axum::http::Uri) -> Failure {
    Failure(ApiError::new("api/unknown-path", format!("{} is not part of the API", uri.path())).exit(2))
}

/// An error on its way out. The status is for strangers; Fairway's own client reads the body.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.exit {
            2 => StatusCode::BAD_REQUEST,
            4 => StatusCode::FORBIDDEN,
            7 => StatusCode::CONFLICT,
            _ if self.0.code.starts_with("server/") || self.0.code.starts_with("log/") => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::CONFLICT,
        };
        (status, axum::Json(self.0)).into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure(error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Failure(refused.to_api())
    }
}

pub type Answer<T> = Result<axum::Json<T>, Failure>;

/// The environment that a path names.
///
/// # Errors
/// When a part of it is not a name.
pub fn key(project: &str, environment: &str) -> Result<EnvironmentKey, Failure> {
    let bad = |error: fairway_engine::id::InvalidName| {
        Failure(ApiError::new("api/invalid-name", error.to_string()).exit(2))
    };
    Ok(EnvironmentKey {
        project: project.parse().map_err(bad)?,
        environment: environment.parse().map_err(bad)?,
    })
}

/// A stream of JSON lines as a response.
pub fn lines(
    stream: impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static,
) -> Response {
    ([(CONTENT_TYPE, "application/x-ndjson")], axum::body::Body::from_stream(stream)).into_response()
}

/// One line of such a stream.
pub fn line<T: serde::Serialize>(item: &T) -> Result<bytes::Bytes, std::io::Error> {
    let mut line = serde_json::to_vec(item)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Blocking work (disk, SQLite) off the threads that serve connections.
///
/// # Errors
/// What the work says, or that it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ApiError::new("server/panic", format!("the work failed: {error}"))))
        .map_err(Failure)
}
