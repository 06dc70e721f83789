//! `POST …/jobs`, `GET …/jobs/N`: commands that run once.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{Accepted, ApiError, JobInfo, JobRequest};
use fairway_engine::id::{JobNumber, ServiceName};
use fairway_engine::{Command, Input, JobKind};

use super::command::accepted;
use super::{Answer, App, Caller, Failure, key};
use crate::status;

pub async fn run(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Path<(String, String)>,
    Json(request): Json<JobRequest>,
) -> Answer<Accepted> {
    let environment = key(&project, &environment)?;
    let kind = match request {
        JobRequest::Expand => JobKind::Expand,
        JobRequest::Contract => JobKind::Contract,
        JobRequest::Smoke => JobKind::Smoke,
        JobRequest::Seed => JobKind::Seed,
        JobRequest::OneOff { service, command } => {
            if command.is_empty() {
                return Err(Failure(ApiError::new("run/no-command", "there is no command to run").exit(2)));
            }
            let service = service
                .as_deref()
                .map(ServiceName::new)
                .transpose()
                .map_err(|error| Failure(ApiError::new("service/invalid", error.to_string()).exit(2)))?;
            JobKind::OneOff { service, command }
        }
    };
    let command = Command::RunJob { kind };
    let recorded = app.pump.command(Input::Command { environment: environment.clone(), by, command }).await?;
    Ok(Json(accepted(&app, &environment, &recorded)))
}

pub async fn one(
    State(app): State<App>,
    Path((project, environment, number)): Path<(String, String, u32)>,
) -> Answer<JobInfo> {
    let key = key(&project, &environment)?;
    let found = app.pump.shared.read(|state| {
        state.environments.get(&key).and_then(|env| env.jobs.get(&JobNumber(number))).map(status::job)
    });
    found.map(Json).ok_or_else(|| {
        Failure(
            ApiError::new(
                "job/unknown",
                format!("there is no job j{number} in {key}, or it is too long ago"),
            )
            .exit(2),
        )
    })
}
