//! `GET …/export/WHAT`: what serves, as files for other programs.

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{ApiError, Exported};
use fairway_engine::Refusal;

use super::{Answer, App, Failure, blocking, key};
use crate::error::Refused;
use crate::export::{self, What};
use crate::watching::serving;

pub async fn files(
    State(app): State<App>,
    Path((project, environment, what)): Path<(String, String, String)>,
) -> Answer<Exported> {
    let key = key(&project, &environment)?;
    let what: What = what.parse().map_err(|()| {
        Failure(ApiError::new("export/unknown", format!("{what} is nothing that can be exported")).exit(2))
    })?;
    let found = app.pump.shared.read(|state| {
        let env = state.environments.get(&key)?;
        Some(serving(env).map(|release| release.spec.monitoring.clone()).unwrap_or_default())
    });
    let Some(monitoring) = found else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into());
    };
    blocking(move || {
        export::files(what, Some((&key, &monitoring))).map_err(|problems| {
            ApiError::new("export/rules", "rules cannot be exported").cause(problems.join("; "))
        })
    })
    .await
    .map(Json)
}
