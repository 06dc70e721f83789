//! `POST …/purge`: nothing that was kept is given any more, by our own proxy and by what stands before it.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{ApiError, PurgeReport, PurgeRequest};
use fairway_engine::{Command, Input, Refusal};

use super::{Answer, App, Caller, PROXY_TIMEOUT, key};
use crate::error::Refused;
use crate::routes::service_key;

pub async fn purge(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Path<(String, String)>,
    Json(request): Json<PurgeRequest>,
) -> Answer<PurgeReport> {
    let environment = key(&project, &environment)?;
    let known = app.pump.shared.read(|state| {
        let env = state.environments.get(&environment)?;
        let services = env.routes.table.services.keys().cloned().collect::<Vec<_>>();
        let stable = env.stable.and_then(|stable| env.release(stable));
        Some((services, stable.is_some_and(|release| release.spec.deploy.purge.is_some())))
    });
    let Some((services, hook)) = known else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment }).into());
    };
    if let Some(path) = request.paths.iter().find(|path| !path.starts_with('/')) {
        let error =
            ApiError::new("purge/path", format!("{path:?} is no path: it does not begin with a slash"));
        return Err(error.exit(2).hint("fairway purge /assets -e ENV").into());
    }
    if let Some(name) = &request.service
        && !services.iter().any(|service| service.as_str() == name)
    {
        let error = ApiError::new("service/unknown", format!("{environment} routes to no service {name:?}"));
        let names: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
        return Err(error.exit(2).hint(format!("the services are {}", names.join(", "))).into());
    }
    let wanted =
        services.iter().filter(|one| request.service.as_ref().is_none_or(|name| one.as_str() == name));
    let keys: Vec<String> = wanted.map(|service| service_key(&environment, service)).collect();
    // First our own: what a CDN asks for anew must not be the old answer.
    let proxy = app.routes.proxy();
    let Some(client) = proxy.client() else {
        let error = ApiError::new("purge/no-proxy", "the proxy does not answer, and nothing was emptied");
        return Err(error.hint("fairway status").into());
    };
    let failed =
        |why: String| ApiError::new("purge/failed", "the proxy has not emptied its cache").cause(why);
    let answers = match tokio::time::timeout(PROXY_TIMEOUT, client.purge(&keys, &request.paths)).await {
        Ok(purged) => purged.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("no answer in {PROXY_TIMEOUT:?}")).into()),
    };
    let seq = app.pump.shared.seq();
    if hook {
        app.pump.command(Input::Command { environment, by, command: Command::Purge }).await?;
    }
    Ok(Json(PurgeReport { answers, hook, seq }))
}
