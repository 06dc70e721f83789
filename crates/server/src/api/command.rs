//! `POST …/commands`: an operator's word becomes an input to the engine.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{Accepted, ApiError, Command as Asked};
use fairway_engine::id::{EnvironmentKey, ReleaseNumber, ServiceName};
use fairway_engine::{Command, Fact, Input};

use super::{Answer, App, Caller, Failure, key};
use crate::describe;
use crate::pump::Recorded;

pub async fn command(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Path<(String, String)>,
    Json(asked): Json<Asked>,
) -> Answer<Accepted> {
    let environment = key(&project, &environment)?;
    let command = translate(asked)?;
    let is_promotion = matches!(command, Command::Promote { .. });
    let recorded = app.pump.command(Input::Command { environment: environment.clone(), by, command }).await?;
    let mut accepted = accepted(&app, &environment, &recorded);
    // One that was paused goes on first; what was asked for is the step.
    let is_step = |one: &&Recorded| matches!(one.event.fact, Fact::PhaseEntered { .. });
    if let Some(step) = recorded.iter().find(is_step).filter(|_| is_promotion) {
        accepted.summary = describe::summary(&environment, &step.event.actor, &step.event.fact);
    }
    Ok(Json(accepted))
}

fn translate(asked: Asked) -> Result<Command, Failure> {
    let service = |name: &str| {
        ServiceName::new(name)
            .map_err(|error| Failure(ApiError::new("service/invalid", error.to_string()).exit(2)))
    };
    Ok(match asked {
        Asked::Promote { full } => Command::Promote { full },
        Asked::Pause => Command::Pause,
        Asked::Resume => Command::Resume,
        Asked::Abort { reason } => Command::Abort { reason },
        Asked::Retry => Command::Retry,
        Asked::Rollback { release, reason } => {
            Command::Rollback { to: release.as_deref().map(parse_release).transpose()?, reason }
        }
        Asked::Approve => Command::Approve,
        Asked::Reject { reason } => Command::Reject { reason },
        Asked::Scale { service: name, replicas } => Command::Scale { service: service(&name)?, replicas },
        Asked::Autoscale { service: name } => Command::Autoscale { service: service(&name)? },
        Asked::Restart { service: name } => {
            Command::Restart { service: name.as_deref().map(service).transpose()? }
        }
        Asked::MaintenanceOn { message } => Command::MaintenanceOn { message },
        Asked::MaintenanceOff => Command::MaintenanceOff,
        Asked::Down => Command::Down,
    })
}

/// # Errors
/// When it is not a release's name.
pub fn parse_release(name: &str) -> Result<ReleaseNumber, Failure> {
    name.parse().map_err(|error: fairway_engine::id::InvalidId| {
        Failure(ApiError::new("release/invalid", error.to_string()).exit(2).hint("fairway history -e ENV"))
    })
}

/// What came of a command, from the events that it caused.
#[must_use]
pub fn accepted(app: &App, environment: &EnvironmentKey, recorded: &[Recorded]) -> Accepted {
    let mut release = None;
    let mut job = None;
    for one in recorded {
        if let Fact::ReleaseCreated { release: made } = &one.event.fact {
            release = Some(made.number.to_string());
        } else if let Fact::RolloutPlanned { rollout } = &one.event.fact {
            release = Some(rollout.to.to_string());
        } else if let Fact::JobPlanned { job: planned } = &one.event.fact {
            job = Some(planned.number.0);
        }
    }
    let summary =
        recorded.iter().map(|one| &one.event).find(|event| event.fact.name() != "environment_created");
    Accepted {
        seq: recorded.first().map_or_else(|| app.pump.shared.seq() + 1, |one| one.seq),
        rollout: rollout_of(app, environment, recorded),
        release,
        job,
        summary: summary.map_or_else(
            || "nothing to do".to_owned(),
            |event| describe::summary(environment, &event.actor, &event.fact),
        ),
        warnings: Vec::new(),
    }
}

/// The rollout that the events are about: the last one planned or ended, else the one under way.
fn rollout_of(app: &App, environment: &EnvironmentKey, recorded: &[Recorded]) -> Option<u32> {
    let named = recorded.iter().rev().find_map(|one| {
        if let Fact::RolloutPlanned { rollout } = &one.event.fact {
            Some(rollout.number.0)
        } else if let Fact::RolloutEnded { rollout, .. } = &one.event.fact {
            Some(rollout.0)
        } else {
            None
        }
    });
    named.or_else(|| {
        app.pump.shared.read(|state| {
            state
                .environments
                .get(environment)
                .and_then(|env| env.rollout.as_ref())
                .map(|rollout| rollout.number.0)
        })
    })
}
