//! `GET …/history`: rollouts that are over, newest first.

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::RolloutInfo;
use fairway_engine::Refusal;

use super::{Answer, App, key};
use crate::error::Refused;
use crate::status::rollout_info;

pub async fn history(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<Vec<RolloutInfo>> {
    let key = key(&project, &environment)?;
    let found = app.pump.shared.read(|state| {
        state
            .environments
            .get(&key)
            .map(|env| env.history.iter().rev().map(|one| rollout_info(env, one)).collect::<Vec<_>>())
    });
    match found {
        Some(found) => Ok(Json(found)),
        None => Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into()),
    }
}
