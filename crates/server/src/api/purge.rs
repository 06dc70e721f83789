//! `POST …/purge`: nothing that was kept is given any more, by our own proxy and by what stands before it.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{ApiError, PurgeReport, PurgeRequest};
use fairway_engine::id::{EnvironmentKey, ServiceName};
use fairway_engine::{Command, Fact, Input, Outcome, Refusal};
use fairway_proxy::control::Client;

use super::{Answer, App, Caller, PROXY_TIMEOUT, key};
use crate::error::Refused;
use crate::pump::Pump;
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
        Some(env.routes.table.services.keys().cloned().collect::<Vec<_>>())
    });
    let Some(services) = known else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment }).into());
    };
    if let Some(path) = request.paths.iter().find(|path| !path.starts_with('/')) {
        let error =
            ApiError::new("purge/path", format!("{path:?} is no path: it does not begin with a slash"));
        return Err(error.exit(2).hint("fairway purge /assets -e ENV").into());
    }
    let service = request.service.as_ref().map(|name| services.iter().find(|one| one.as_str() == name));
    if let (Some(name), Some(None)) = (&request.service, service) {
        let error = ApiError::new("service/unknown", format!("{environment} routes to no service {name:?}"));
        let names: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
        return Err(error.exit(2).hint(format!("the services are {}", names.join(", "))).into());
    }
    let service = service.flatten().cloned();
    let wanted = services.iter().filter(|one| service.as_ref().is_none_or(|service| *one == service));
    let keys: Vec<String> = wanted.map(|service| service_key(&environment, service)).collect();
    let proxy = app.routes.proxy();
    let Some(client) = proxy.client().cloned() else {
        let error = ApiError::new("purge/no-proxy", "the proxy does not answer, and nothing was emptied");
        return Err(error.hint("fairway status").into());
    };
    let asked = Asked { pump: app.pump, environment, service, paths: request.paths, keys, client };
    // Whoever asked may go away meanwhile: what came of it is on the record all the same.
    match tokio::spawn(asked.carry_out(by)).await {
        Ok(answer) => answer,
        Err(_) => Err(failed("it could not be asked".to_owned()).into()),
    }
}

/// A purge that was looked at, and can be asked for.
struct Asked {
    pump: Pump,
    environment: EnvironmentKey,
    service: Option<ServiceName>,
    paths: Vec<String>,
    /// What the proxy calls the services.
    keys: Vec<String>,
    client: Client,
}

impl Asked {
    async fn carry_out(self, by: String) -> Answer<PurgeReport> {
        let Self { pump, environment, service, paths, keys, client } = self;
        let seq = pump.shared.seq();
        let command = Command::Purge { service, paths: paths.clone() };
        let recorded = pump.command(Input::Command { environment: environment.clone(), by, command }).await?;
        let number = recorded.iter().find_map(|recorded| {
            if let Fact::PurgeAsked { purge, .. } = recorded.event.fact { Some(purge) } else { None }
        });
        let Some(purge) = number else { return Err(failed("it was not recorded".to_owned()).into()) };
        let answers = match tokio::time::timeout(PROXY_TIMEOUT, client.purge(&keys, &paths)).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {PROXY_TIMEOUT:?}")),
        };
        let (count, failure) = match &answers {
            Ok(count) => (*count, None),
            Err(why) => (0, Some(why.clone())),
        };
        let outcome = Outcome::CachePurged { purge, answers: count, failure };
        let recorded = pump.recorded_outcome(Input::Outcome { environment, outcome }).await?;
        let answers = answers.map_err(failed)?;
        let hook = recorded.iter().any(|recorded| matches!(recorded.event.fact, Fact::PurgeDue { .. }));
        Ok(Json(PurgeReport { answers, hook, seq }))
    }
}

fn failed(why: String) -> ApiError {
    ApiError::new("purge/failed", "the proxy has not emptied its cache").cause(why)
}
