//! `GET|PUT|DELETE …/secrets`.

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{SecretInfo, SecretValue};

use super::{Answer, App, blocking, key};

pub async fn list(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<Vec<SecretInfo>> {
    let key = key(&project, &environment)?;
    blocking(move || app.vault.list(&key)).await.map(Json)
}

pub async fn set(
    State(app): State<App>,
    Path((project, environment, name)): Path<(String, String, String)>,
    Json(value): Json<SecretValue>,
) -> Answer<SecretInfo> {
    let key = key(&project, &environment)?;
    let now = app.pump.shared.clock.now().0;
    blocking(move || app.vault.set(&key, &name, &value.value, now)).await.map(Json)
}

pub async fn unset(
    State(app): State<App>,
    Path((project, environment, name)): Path<(String, String, String)>,
) -> Answer<()> {
    let key = key(&project, &environment)?;
    let now = app.pump.shared.clock.now().0;
    blocking(move || app.vault.unset(&key, &name, now)).await.map(Json)
}
