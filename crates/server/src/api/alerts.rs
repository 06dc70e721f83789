//! `…/alerts`, `…/alerts/silences`, `…/alerts/channels`.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{AlertList, ChannelInfo, ChannelTest, SilenceInfo, SilenceRequest};

use super::{Answer, App, Caller, key};

type Place = Path<(String, String)>;

pub async fn list(State(app): State<App>, Path((project, environment)): Place) -> Answer<AlertList> {
    let key = key(&project, &environment)?;
    Ok(Json(app.watching.alerting.list(&key, app.watching.now_ms())?))
}

pub async fn silences(
    State(app): State<App>,
    Path((project, environment)): Place,
) -> Answer<Vec<SilenceInfo>> {
    let key = key(&project, &environment)?;
    Ok(Json(app.watching.alerting.silences(&key, app.watching.now_ms())?))
}

pub async fn silence(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Place,
    Json(request): Json<SilenceRequest>,
) -> Answer<SilenceInfo> {
    let key = key(&project, &environment)?;
    let now_ms = app.watching.now_ms();
    Ok(Json(app.watching.alerting.silence(&key, &request, &by, now_ms).await?))
}

pub async fn unsilence(
    State(app): State<App>,
    Path((project, environment, id)): Path<(String, String, String)>,
) -> Answer<SilenceInfo> {
    let key = key(&project, &environment)?;
    Ok(Json(app.watching.alerting.unsilence(&key, &id, app.watching.now_ms()).await?))
}

pub async fn channels(
    State(app): State<App>,
    Path((project, environment)): Place,
) -> Answer<Vec<ChannelInfo>> {
    let key = key(&project, &environment)?;
    Ok(Json(app.watching.alerting.channels(&key)?))
}

pub async fn test(
    State(app): State<App>,
    Path((project, environment, name)): Path<(String, String, String)>,
) -> Answer<ChannelTest> {
    let key = key(&project, &environment)?;
    Ok(Json(app.watching.alerting.test(&key, &name, app.watching.now_ms()).await?))
}
