//! Facts. The log is a sequence of these and nothing else; state is what they add up to.
//!
//! This is the stored form: a field may be added with a default, never renamed or given another meaning.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{
    EnvironmentKey, Generation, InstanceId, JobNumber, ReleaseNumber, RolloutNumber, ServiceName,
};
use crate::instance::{Failure, InstanceEnd};
use crate::job::{Job, JobEnd};
use crate::release::{Release, ReleaseSpec};
use crate::rollout::{Phase, Rollout, RolloutOutcome};
use crate::routes::RouteTable;
use crate::time::{Timestamp, duration_ms};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    /// Who caused it: a person, or `fairway` for what follows by itself.
    pub actor: String,
    pub environment: EnvironmentKey,
    pub fact: Fact,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// Tagged from outside: `{"instance_ready":{…}}`. A tag among the fields would make every replay read each event twice.
#[serde(rename_all = "snake_case")]
pub enum Fact {
    EnvironmentCreated,
    ReleaseCreated {
        release: Arc<Release>,
    },
    /// Removed from the retained ones; it can no longer be rolled back to.
    ReleaseDropped {
        release: ReleaseNumber,
        why: String,
    },

    RolloutPlanned {
        rollout: Box<Rollout>,
    },
    Approved,
    PhaseEntered {
        phase: Phase,
        deadline: Option<Timestamp>,
    },
    /// Public traffic is on the new version in full.
    Switched,
    Paused,
    /// Holds, bake and deadline move by the length of the pause.
    Resumed {
        #[serde(with = "duration_ms")]
        paused_for: Duration,
    },
    /// On `Completed` the new release becomes stable and the old one warm until `warm_until`.
    RolloutEnded {
        rollout: RolloutNumber,
        outcome: RolloutOutcome,
        warm_until: Option<Timestamp>,
    },
    /// The warm release's time is over, or its schema is about to go.
    Cooled {
        release: ReleaseNumber,
    },
    DeployQueued {
        spec: Arc<ReleaseSpec>,
        reason: Option<String>,
    },
    DeployDequeued,

    InstancePlanned {
        instance: InstanceId,
        epoch: u32,
        deadline: Timestamp,
    },
    InstanceStarted {
        instance: InstanceId,
        address: Option<Box<str>>,
    },
    InstanceReady {
        instance: InstanceId,
    },
    InstanceSuspect {
        instance: InstanceId,
        why: String,
    },
    /// The process ended by itself; its shim starts it again.
    InstanceDown {
        instance: InstanceId,
        why: String,
    },
    InstanceDraining {
        instance: InstanceId,
        deadline: Timestamp,
        cut: Generation,
    },
    InstanceStopping {
        instance: InstanceId,
        deadline: Timestamp,
    },
    InstanceEnded {
        instance: InstanceId,
        how: InstanceEnd,
    },
    /// A copy that failed outside a rollout is replaced, but not before this time.
    ReplacementDelayed {
        service: ServiceName,
        failures: u32,
        not_before: Timestamp,
    },

    RoutesSet {
        generation: Generation,
        table: Box<RouteTable>,
    },
    RoutesApplied {
        generation: Generation,
    },
    RoutesRefused {
        generation: Generation,
        why: String,
    },

    JobPlanned {
        job: Job,
    },
    JobEnded {
        job: JobNumber,
        end: JobEnd,
    },
    ContractScheduled {
        release: ReleaseNumber,
        due: Timestamp,
    },
    ContractCancelled {
        release: ReleaseNumber,
        why: String,
    },
    /// From here on releases older than this one cannot run.
    SchemaContracted {
        release: ReleaseNumber,
    },

    Scaled {
        service: ServiceName,
        replicas: u32,
    },
    RestartRequested {
        service: ServiceName,
    },
    /// The replacement copy failed: the old copies stay.
    RestartAbandoned {
        service: ServiceName,
        failure: Failure,
    },
    MaintenanceOn {
        message: String,
    },
    MaintenanceOff,
    TakenDown,
}

impl Fact {
    /// The stable name under which the fact is stored and listed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fact::EnvironmentCreated => "environment_created",
            Fact::ReleaseCreated { .. } => "release_created",
            Fact::ReleaseDropped { .. } => "release_dropped",
            Fact::RolloutPlanned { .. } => "rollout_planned",
            Fact::Approved => "approved",
            Fact::PhaseEntered { .. } => "phase_entered",
            Fact::Switched => "switched",
            Fact::Paused => "paused",
            Fact::Resumed { .. } => "resumed",
            Fact::RolloutEnded { .. } => "rollout_ended",
            Fact::Cooled { .. } => "cooled",
            Fact::DeployQueued { .. } => "deploy_queued",
            Fact::DeployDequeued => "deploy_dequeued",
            Fact::InstancePlanned { .. } => "instance_planned",
            Fact::InstanceStarted { .. } => "instance_started",
            Fact::InstanceReady { .. } => "instance_ready",
            Fact::InstanceSuspect { .. } => "instance_suspect",
            Fact::InstanceDown { .. } => "instance_down",
            Fact::InstanceDraining { .. } => "instance_draining",
            Fact::InstanceStopping { .. } => "instance_stopping",
            Fact::InstanceEnded { .. } => "instance_ended",
            Fact::ReplacementDelayed { .. } => "replacement_delayed",
            Fact::RoutesSet { .. } => "routes_set",
            Fact::RoutesApplied { .. } => "routes_applied",
            Fact::RoutesRefused { .. } => "routes_refused",
            Fact::JobPlanned { .. } => "job_planned",
            Fact::JobEnded { .. } => "job_ended",
            Fact::ContractScheduled { .. } => "contract_scheduled",
            Fact::ContractCancelled { .. } => "contract_cancelled",
            Fact::SchemaContracted { .. } => "schema_contracted",
            Fact::Scaled { .. } => "scaled",
            Fact::RestartRequested { .. } => "restart_requested",
            Fact::RestartAbandoned { .. } => "restart_abandoned",
            Fact::MaintenanceOn { .. } => "maintenance_on",
            Fact::MaintenanceOff => "maintenance_off",
            Fact::TakenDown => "taken_down",
        }
    }
}
