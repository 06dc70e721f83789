//! `GET …/logs`: what instances and jobs wrote, oldest first, then as it comes.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use fairway_api::{ApiError, LogLine};
use fairway_engine::Refusal;
use fairway_engine::id::{EnvironmentKey, JobNumber, ReleaseNumber, ServiceName};
use fairway_engine::time::Timestamp;
use fairway_targets::logs::{self, LINES_MAX, LogEntry, LogQuery, Pattern, Selection};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{App, Failure, blocking, key, line, lines};
use crate::error::Refused;

/// A screenful, as `tail` does it, where nobody says how much.
const LIMIT_DEFAULT: usize = 200;

/// Lines on their way to a slow reader.
const READ_AHEAD: usize = 256;

pub async fn logs(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
    Query(wanted): Query<fairway_api::LogQuery>,
) -> Result<Response, Failure> {
    let environment = key(&project, &environment)?;
    let selection = selection(&wanted)?;
    known(&app, &environment, wanted.service.as_deref(), &selection)?;
    let query = LogQuery {
        selection,
        since: wanted.since_ms.map(Timestamp),
        until: None,
        grep: wanted
            .grep
            .as_deref()
            .map(Pattern::regex)
            .transpose()
            .map_err(|error| Failure(ApiError::new("logs/pattern", error.to_string()).exit(2)))?,
        limit: wanted.limit.map_or(LIMIT_DEFAULT, |limit| (limit as usize).min(LINES_MAX)),
        environment,
    };
    if wanted.follow {
        let (entries_in, entries) = mpsc::channel(READ_AHEAD);
        // Ends with an error only when the state directory cannot be read; the stream then ends as well.
        tokio::spawn(async move { logs::follow(&app.state_dir, query, entries_in).await });
        return Ok(lines(ReceiverStream::new(entries).map(|entry| line(&to_api(entry)))));
    }
    let found = blocking(move || {
        logs::read(&app.state_dir, &query)
            .map_err(|error| ApiError::new("logs/unreadable", error.to_string()))
    })
    .await?;
    Ok(lines(futures_util::stream::iter(found.into_iter().map(|entry| line(&to_api(entry))))))
}

/// A name that was never there is a mistake, not an empty log.
fn known(
    app: &App,
    environment: &EnvironmentKey,
    service: Option<&str>,
    selection: &Selection,
) -> Result<(), Failure> {
    let known: Option<(BTreeSet<String>, ReleaseNumber, JobNumber)> = app.pump.shared.read(|state| {
        let env = state.environments.get(environment)?;
        let released = env.releases.values().flat_map(|release| release.spec.services.keys());
        let services = released.chain(env.services().iter()).map(ToString::to_string).collect();
        Some((services, env.last_release, env.last_job))
    });
    let Some((services, newest, newest_job)) = known else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment: environment.clone() }).into());
    };
    let (of_copy, release) = match selection {
        Selection::Of { release, .. } => (None, *release),
        Selection::Instance(instance) => (Some(instance.service.as_str()), Some(instance.release)),
        Selection::Instances | Selection::Job(_) => (None, None),
    };
    if let Some(release) = release.filter(|release| *release > newest || release.0 == 0) {
        let what = format!("there is no release {release} in {environment}: the newest is {newest}");
        let hint = format!("fairway history -e {}", environment.environment);
        return Err(Failure(ApiError::new("release/unknown", what).hint(hint).exit(2)));
    }
    if let Selection::Job(job) = selection
        && (*job > newest_job || job.0 == 0)
    {
        let what = match newest_job.0 {
            0 => format!("there is no job {job} in {environment}: none has run yet"),
            _ => format!("there is no job {job} in {environment}: the newest is {newest_job}"),
        };
        let hint = format!("`fairway status -e {} --json` lists the newest jobs", environment.environment);
        return Err(Failure(ApiError::new("job/unknown", what).hint(hint).exit(2)));
    }
    match service.or(of_copy) {
        Some(service) if !services.contains(service) => {
            let names = services.into_iter().collect::<Vec<_>>().join(", ");
            Err(Failure(
                ApiError::new("service/unknown", format!("there is no service {service} in {environment}"))
                    .hint(format!("services: {names}"))
                    .exit(2),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

fn selection(wanted: &fairway_api::LogQuery) -> Result<Selection, Failure> {
    let bad = |what: String| Failure(ApiError::new("logs/selection", what).exit(2));
    if let Some(job) = wanted.job {
        return Ok(Selection::Job(JobNumber(job)));
    }
    if let Some(instance) = &wanted.instance {
        return instance
            .parse()
            .map(Selection::Instance)
            .map_err(|error: fairway_engine::id::InvalidId| bad(error.to_string()));
    }
    let service = wanted
        .service
        .as_deref()
        .map(ServiceName::new)
        .transpose()
        .map_err(|error| bad(error.to_string()))?;
    let release = wanted
        .release
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: fairway_engine::id::InvalidId| bad(error.to_string()))?;
    Ok(match (service, release) {
        (None, None) => Selection::Instances,
        (service, release) => Selection::Of { service, release },
    })
}

fn to_api(entry: LogEntry) -> LogLine {
    let stream = serde_json::to_value(entry.line.stream)
        .ok()
        .and_then(|stream| stream.as_str().map(str::to_owned))
        .unwrap_or_default();
    LogLine {
        at_ms: entry.line.ts.0,
        source: entry.source.to_string(),
        stream,
        message: entry.line.text(),
        fields: entry.line.fields,
    }
}
