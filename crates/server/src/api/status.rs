//! `GET /v1/status` and `GET …/status`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{EnvironmentStatus, ProxyStatus, ServerInfo, Status};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::{Environment, Refusal};
use fairway_proxy::control::{Client, Stats};

use super::{Answer, App, PROXY_TIMEOUT, key};
use crate::error::Refused;
use crate::routes::{ProxyState, sharing};
use crate::status::{self, Live, Routing};
use crate::upgrade;

/// The proxy takes a table within some ten milliseconds: who asks in between, as right after a deploy, is answered
/// after that. A table that takes longer than this is missing, and what the proxy does is said to be unknown.
const TABLE_WITHIN: Duration = Duration::from_millis(300);
const TABLE_ASK: Duration = Duration::from_millis(10);

/// Waits for tables that are on their way to the proxy.
async fn settled(app: &App, is_asked: impl Fn(&EnvironmentKey) -> bool) {
    let is_settled = |state: &fairway_engine::State| {
        let mut asked = state.environments.values().filter(|env| is_asked(&env.key));
        asked.all(|env| env.routes.is_applied() || env.routes.refused.is_some())
    };
    let until = tokio::time::Instant::now() + TABLE_WITHIN;
    while matches!(app.routes.proxy(), ProxyState::Serving { behind: None, .. })
        && !app.pump.shared.read(is_settled)
        && tokio::time::Instant::now() < until
    {
        tokio::time::sleep(TABLE_ASK).await;
    }
}

pub async fn all(State(app): State<App>) -> Answer<Status> {
    settled(&app, |_| true).await;
    let (proxy, live) = live(&app).await;
    let environments = app
        .pump
        .shared
        .read(|state| state.environments.values().map(|env| described(env, state, &live)).collect());
    Ok(Json(Status { server: server(&app, proxy), environments }))
}

pub async fn environment(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<EnvironmentStatus> {
    let key = key(&project, &environment)?;
    settled(&app, |other| *other == key).await;
    let (_, live) = live(&app).await;
    let found =
        app.pump.shared.read(|state| state.environments.get(&key).map(|env| described(env, state, &live)));
    match found {
        Some(found) => Ok(Json(found)),
        None => Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into()),
    }
}

fn described(env: &Environment, state: &fairway_engine::State, live: &Live) -> EnvironmentStatus {
    EnvironmentStatus {
        shared: sharing::of_environment(env, state.environments.values()),
        ..status::environment(env, live)
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
        binary: std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string()),
        upgraded: app.upgraded.clone(),
        older_shims: upgrade::older_shims(&app.drivers.known()),
    }
}

async fn live(app: &App) -> (ProxyStatus, Live) {
    let told = app.drivers.known();
    let unknown = |why: String, stats: Option<Stats>| {
        let routing = Routing::Unknown { why: why.clone() };
        (ProxyStatus::Unreachable { why }, routing, stats)
    };
    let (status, routing, stats) = match app.routes.proxy() {
        ProxyState::Unreachable { why } => unknown(why, None),
        ProxyState::Connected { client, why } => unknown(why, figures(&client).await.ok()),
        ProxyState::Serving { client, generation, behind } => match figures(&client).await {
            Err(why) => unknown(why, None),
            Ok(stats) => {
                let routing = behind.map_or(Routing::InForce, |why| Routing::Behind { why });
                let version = client.hello().version.clone();
                (ProxyStatus::Serving { pid: stats.pid, generation, version }, routing, Some(stats))
            }
        },
    };
    let certificates = app.routes.certificates().status();
    (status, Live { routing, stats, told, certificates, now: app.pump.shared.clock.now() })
}

async fn figures(client: &Client) -> Result<Stats, String> {
    match tokio::time::timeout(PROXY_TIMEOUT, client.stats()).await {
        Ok(stats) => stats.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {PROXY_TIMEOUT:?}")),
    }
}
