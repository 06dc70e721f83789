//! `GET /v1/status` and `GET …/status`.

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{EnvironmentStatus, ProxyStatus, ServerInfo, Status};
use fairway_engine::Refusal;

use super::{Answer, App, key};
use crate::error::Refused;
use crate::routes::ProxyState;
use crate::status::{self, Live};

/// The figures of a proxy that does not answer in this time are not waited for: status must come at 3 a.m.
const STATS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

pub async fn all(State(app): State<App>) -> Answer<Status> {
    let (proxy, live) = live(&app).await;
    let environments = app
        .pump
        .shared
        .read(|state| state.environments.values().map(|env| status::environment(env, &live)).collect());
    Ok(Json(Status { server: server(&app, proxy), environments }))
}

pub async fn environment(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<EnvironmentStatus> {
    let key = key(&project, &environment)?;
    let (_, live) = live(&app).await;
    let found =
        app.pump.shared.read(|state| state.environments.get(&key).map(|env| status::environment(env, &live)));
    match found {
        Some(found) => Ok(Json(found)),
        None => Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into()),
    }
}

fn server(app: &App, proxy: ProxyStatus) -> ServerInfo {
    ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_ms: app.pump.shared.clock.started_at().0,
        now_ms: app.pump.shared.clock.now().0,
        state_dir: app.state_dir.display().to_string(),
        seq: app.pump.shared.seq(),
        proxy,
    }
}

async fn live(app: &App) -> (ProxyStatus, Live) {
    let (pids, not_enforced) = app.drivers.known();
    let mut live = Live { stats: None, pids, not_enforced };
    let proxy = match app.routes.proxy() {
        ProxyState::Unreachable { why } => ProxyStatus::Unreachable { why },
        ProxyState::Serving { client, generation } => {
            match tokio::time::timeout(STATS_TIMEOUT, client.stats()).await {
                Ok(Ok(stats)) => {
                    let pid = stats.pid;
                    live.stats = Some(stats);
                    ProxyStatus::Serving { pid, generation }
                }
                Ok(Err(error)) => ProxyStatus::Unreachable { why: error.to_string() },
                Err(_) => ProxyStatus::Unreachable { why: format!("no answer in {STATS_TIMEOUT:?}") },
            }
        }
    };
    (proxy, live)
}
