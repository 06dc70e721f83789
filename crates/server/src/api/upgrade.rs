//! `POST /v1/upgrade`.

use std::path::Path;

use axum::extract::State;
use axum::{Extension, Json};
use fairway_api::{UpgradeReport, UpgradeRequest};

use super::{Answer, App, Caller};

/// Carried out to its end even where the caller goes away: half of it helps nobody.
pub async fn upgrade(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Json(request): Json<UpgradeRequest>,
) -> Answer<UpgradeReport> {
    let upgrade = tokio::spawn(async move {
        app.upgrades.begin(Path::new(&request.binary), by, app.routes.proxies(), &app.pump).await
    });
    let done = upgrade.await.unwrap_or_else(|error| {
        Err(fairway_api::ApiError::new("server/panic", format!("the upgrade failed: {error}")))
    });
    Ok(Json(done?))
}
