//! Why a command was not carried out. CLI, API and UI show these words unchanged.

use thiserror::Error;

use crate::id::{EnvironmentKey, ReleaseNumber, RolloutNumber, ServiceName};
use crate::state::IllegalTransition;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("environment {environment} does not exist")]
    UnknownEnvironment { environment: EnvironmentKey },
    #[error("there is no service {service} in {release}")]
    UnknownService { service: ServiceName, release: ReleaseNumber, known: Vec<ServiceName> },
    #[error("there is no release {release} to go to")]
    UnknownRelease { release: ReleaseNumber, known: Vec<ReleaseNumber> },
    #[error("nothing has been deployed to {environment} yet")]
    NothingDeployed { environment: EnvironmentKey },
    #[error("no rollout is under way in {environment}")]
    NoRollout { environment: EnvironmentKey },
    #[error("rollout {rollout} is {phase}: there is nothing to promote")]
    NothingToPromote { rollout: RolloutNumber, phase: &'static str },
    #[error("rollout {rollout} is being aborted: {cause}")]
    Aborting { rollout: RolloutNumber, cause: String },
    #[error("rollout {rollout} to {to} is under way")]
    RolloutUnderWay { rollout: RolloutNumber, to: ReleaseNumber },
    #[error("{release} has never served: its rollout did not complete")]
    NeverServed { release: ReleaseNumber },
    #[error("rollout {rollout} is paused already, by {by}")]
    AlreadyPaused { rollout: RolloutNumber, by: String },
    #[error("rollout {rollout} is not paused")]
    NotPaused { rollout: RolloutNumber },
    #[error("the plan is stale: it was made against {planned}, but {} serves now", match .actual { Some(actual) => actual.to_string(), None => "nothing".to_owned() })]
    StalePlan { planned: ReleaseNumber, actual: Option<ReleaseNumber> },
    #[error("a rollback has nowhere to go: no earlier release is kept")]
    NoEarlierRelease { known: Vec<ReleaseNumber> },
    #[error("{release} serves already")]
    AlreadyServing { release: ReleaseNumber },
    #[error(
        "{release} cannot run any more: {contracted_by} has contracted the schema past it; restore a backup or roll forward"
    )]
    SchemaContracted { release: ReleaseNumber, contracted_by: ReleaseNumber },
    #[error("there is nothing to retry: the last rollout {}", match .last { Some(last) => format!("{last} completed"), None => "does not exist".to_owned() })]
    NothingToRetry { last: Option<RolloutNumber> },
    #[error("rollout {rollout} does not wait for an approval")]
    NoApprovalNeeded { rollout: RolloutNumber },
    #[error("{by} asked for rollout {rollout} or wrote part of it, and cannot approve it")]
    OwnApproval { by: String, rollout: RolloutNumber },
    #[error("{by} has approved rollout {rollout} already")]
    ApprovedAlready { by: String, rollout: RolloutNumber },
    #[error("the release has no {kind}")]
    NoSuchJob { kind: &'static str },
    #[error("{kind} {job} is running already")]
    JobRunning { kind: &'static str, job: String },
    #[error("{service} holds data: it has exactly one copy")]
    NotScalable { service: ServiceName },
    #[error("{}", match .follows_load {
        true => format!("{service} was not scaled by hand: the load decides already"),
        false => format!("{service} was not scaled by hand: the number of its release holds already"),
    })]
    NotScaledByHand { service: ServiceName, follows_load: bool },
    #[error("{replicas} copies are more than the {max} that one service may have")]
    TooManyReplicas { replicas: u32, max: u32 },
    #[error("seed data is refused in production")]
    SeedInProduction,
    #[error("{environment} has {count} deploys waiting already")]
    QueueFull { environment: EnvironmentKey, count: usize },
    #[error("maintenance is {state} already")]
    MaintenanceAlready { state: &'static str },
    #[error("the release is not valid: {why}")]
    InvalidRelease { why: String },
    /// A defect of the engine, reported instead of a panic.
    #[error("internal: {0}")]
    Illegal(#[from] IllegalTransition),
    #[error("internal: decisions did not settle after {rounds} rounds")]
    Unsettled { rounds: u32 },
}

impl Refusal {
    /// Stable code, `rollout/none`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UnknownEnvironment { .. } => "environment/unknown",
            Refusal::UnknownService { .. } => "service/unknown",
            Refusal::UnknownRelease { .. } => "release/unknown",
            Refusal::NothingDeployed { .. } => "environment/nothing-deployed",
            Refusal::NoRollout { .. } => "rollout/none",
            Refusal::NothingToPromote { .. } => "rollout/nothing-to-promote",
            Refusal::Aborting { .. } => "rollout/aborting",
            Refusal::RolloutUnderWay { .. } => "rollout/under-way",
            Refusal::NeverServed { .. } => "rollback/never-served",
            Refusal::AlreadyPaused { .. } => "rollout/already-paused",
            Refusal::NotPaused { .. } => "rollout/not-paused",
            Refusal::StalePlan { .. } => "plan/stale",
            Refusal::NoEarlierRelease { .. } => "rollback/no-earlier-release",
            Refusal::AlreadyServing { .. } => "rollback/already-serving",
            Refusal::SchemaContracted { .. } => "rollback/schema-contracted",
            Refusal::NothingToRetry { .. } => "retry/nothing",
            Refusal::NoApprovalNeeded { .. } => "approval/not-needed",
            Refusal::OwnApproval { .. } => "approval/own",
            Refusal::ApprovedAlready { .. } => "approval/twice",
            Refusal::NoSuchJob { .. } => "job/none",
            Refusal::JobRunning { .. } => "job/running",
            Refusal::NotScalable { .. } => "scale/not-scalable",
            Refusal::NotScaledByHand { .. } => "scale/not-by-hand",
            Refusal::TooManyReplicas { .. } => "scale/too-many",
            Refusal::SeedInProduction => "seed/production",
            Refusal::QueueFull { .. } => "deploy/queue-full",
            Refusal::MaintenanceAlready { .. } => "maintenance/already",
            Refusal::InvalidRelease { .. } => "release/invalid",
            Refusal::Illegal(_) => "internal/illegal-transition",
            Refusal::Unsettled { .. } => "internal/unsettled",
        }
    }

    /// What to do next, as a command or a fact.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Refusal::UnknownService { known, .. } => Some(format!("services: {}", join(known))),
            Refusal::UnknownRelease { known, .. } if !known.is_empty() => {
                Some(format!("releases that can come back: {}", join(known)))
            }
            Refusal::UnknownEnvironment { .. } | Refusal::NothingDeployed { .. } => {
                Some("fairway deploy -e ENV".to_owned())
            }
            Refusal::NeverServed { .. } => Some("fairway retry -e ENV, or deploy it again".to_owned()),
            Refusal::NothingToPromote { .. } | Refusal::Aborting { .. } | Refusal::RolloutUnderWay { .. } => {
                Some("fairway watch -e ENV".to_owned())
            }
            Refusal::AlreadyPaused { .. } => Some("fairway resume -e ENV".to_owned()),
            Refusal::StalePlan { .. } => Some("fairway plan -e ENV".to_owned()),
            Refusal::NoEarlierRelease { known } if !known.is_empty() => {
                Some(format!("name one that can come back: {}", join(known)))
            }
            Refusal::SchemaContracted { .. } | Refusal::NoEarlierRelease { .. } => {
                Some("fairway history -e ENV marks with * the releases that can come back".to_owned())
            }
            Refusal::JobRunning { .. } => Some("fairway migrate status -e ENV".to_owned()),
            Refusal::OwnApproval { .. } => Some("somebody else runs: fairway approve -e ENV".to_owned()),
            Refusal::Illegal(_) | Refusal::Unsettled { .. } => Some(
                "this is a defect of Fairway; nothing was changed; please report it with this text"
                    .to_owned(),
            ),
            Refusal::UnknownRelease { .. } => Some("fairway history -e ENV".to_owned()),
            Refusal::NoRollout { .. } => Some("fairway deploy -e ENV starts one".to_owned()),
            Refusal::NotPaused { .. } | Refusal::AlreadyServing { .. } | Refusal::NoApprovalNeeded { .. } => {
                Some("fairway status -e ENV shows where it stands".to_owned())
            }
            Refusal::NothingToRetry { .. } => {
                Some("fairway deploy -e ENV brings in what is in the work tree".to_owned())
            }
            Refusal::ApprovedAlready { .. } => Some("another person runs: fairway approve -e ENV".to_owned()),
            Refusal::NoSuchJob { .. } => Some("name its command under [release] in fairway.toml".to_owned()),
            Refusal::NotScalable { .. } => Some("scale the services that use it".to_owned()),
            Refusal::NotScaledByHand { follows_load: true, .. } => {
                Some("fairway status -e ENV shows its copies".to_owned())
            }
            Refusal::NotScaledByHand { service, follows_load: false } => Some(format!(
                "for copies that follow the load, set `autoscale = {{ min = 1, max = 10, cpu = 70 }}` under \
                 [service.{service}] in fairway.toml, and deploy it"
            )),
            Refusal::TooManyReplicas { .. } => Some("past that, move the service to a cluster".to_owned()),
            Refusal::SeedInProduction => {
                Some("fairway run -e production -- COMMAND, if it must be".to_owned())
            }
            Refusal::QueueFull { .. } => Some("fairway watch -e ENV, then deploy again".to_owned()),
            Refusal::MaintenanceAlready { .. } => Some("fairway status -e ENV".to_owned()),
            Refusal::InvalidRelease { .. } => Some("fairway validate".to_owned()),
        }
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_without_a_target_names_the_releases_that_can_come_back() {
        let hint = |known: &[u32]| {
            let known = known.iter().copied().map(ReleaseNumber).collect();
            Refusal::NoEarlierRelease { known }.hint().unwrap()
        };
        assert_eq!(hint(&[2, 4]), "name one that can come back: r2, r4");
        assert_eq!(hint(&[]), "fairway history -e ENV marks with * the releases that can come back");
    }
}
