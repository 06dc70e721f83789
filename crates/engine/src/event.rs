//! Facts. The log is a sequence of these and nothing else; state is what they add up to.
//!
//! This is the stored form: a field may be added with a default, never renamed or given another meaning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::certificate::CertificateGain;
use crate::evidence::Number;
use crate::id::{
    EnvironmentKey, Generation, InstanceId, JobNumber, ReleaseNumber, RolloutNumber, ServiceName,
};
use crate::instance::{Address, Failure, InstanceEnd};
use crate::job::{Job, JobEnd};
use crate::observation::{Observation, Reading};
use crate::release::{Release, ReleaseSpec};
use crate::rollout::{Phase, Rollout, RolloutOutcome};
use crate::routes::RouteTable;
use crate::time::{Timestamp, duration_ms};
use crate::upgrade::{Upgrade, UpgradeEnd};
use crate::verdict::{ArmReport, Finding, GateId};

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
    /// Public traffic is in full on the release that the rollout leads to.
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

    /// The proxy's counters while a rollout is judged, as they are: absolute, of the two releases alone.
    Observed {
        observation: Observation,
    },
    /// What the source of a gate said; `gate` is its place in the release's list.
    Measured {
        gate: u32,
        reading: Reading,
    },
    /// From here on answers slower than this count as slow in this rollout: the p99 of stable over `requests`.
    BaselineFrozen {
        service: ServiceName,
        slow_above_ms: u64,
        requests: u64,
    },
    /// A test says something else than before; with its numbers.
    GateChanged {
        finding: Box<Finding>,
    },
    /// The time of the step or bake is over, but not enough was seen to go on. At `until` the gate's own rule for want
    /// of data holds.
    StepHeld {
        until: Timestamp,
        finding: Box<Finding>,
    },
    /// There was nothing to judge, and the gate passes without: until the step is over, as the release says; or for
    /// the rest of the rollout, as a person decided who was asked.
    GateWaived {
        gate: GateId,
        name: String,
        #[serde(default)]
        for_rollout: bool,
    },
    /// Waits for a person: nothing can be judged, or nothing is there to go back to.
    PausedOnEvidence {
        finding: Box<Finding>,
    },
    /// How the two sides of an A/B step fared, when the step ended.
    ExperimentReported {
        experiment: String,
        step: u32,
        arms: BTreeMap<ServiceName, Vec<ArmReport>>,
    },
    /// A critical alert began or ceased to fire.
    AlertChanged {
        alert: String,
        firing: bool,
        why: String,
    },

    InstancePlanned {
        instance: InstanceId,
        epoch: u32,
        deadline: Timestamp,
    },
    InstanceStarted {
        instance: InstanceId,
        address: Option<Address>,
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
        table: Arc<RouteTable>,
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

    /// By hand. On an autoscaled service it holds until the time given, and the load decides again after that.
    Scaled {
        service: ServiceName,
        replicas: u32,
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// What was scaled by hand is not any more: the load decides again how many copies there are, or the release does.
    ScaleFreed {
        service: ServiceName,
    },
    /// How many copies the load alone asks for, when that changes.
    ScaleAdvised {
        service: ServiceName,
        replicas: u32,
    },
    /// The load changed the number of copies. `values` are in the order of the service's scaling metrics.
    AutoScaled {
        service: ServiceName,
        from: u32,
        to: u32,
        advised: u32,
        values: Vec<Option<Number>>,
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
    /// Somebody wants answers not to be given any more that were kept: of one service or of all, of paths and below them
    /// or of all. `paths_more` is how many paths are not listed.
    PurgeAsked {
        purge: u32,
        service: Option<ServiceName>,
        paths: Vec<String>,
        paths_more: u32,
    },
    /// How many of them the proxy had, or why it has them still.
    CachePurged {
        purge: u32,
        answers: u64,
        failure: Option<String>,
    },
    /// What stands before the environment, as a CDN, is to be emptied by the hook of this release.
    PurgeDue {
        release: ReleaseNumber,
        /// The `purge_asked` that it belongs to.
        #[serde(default)]
        purge: Option<u32>,
        /// The rollout that it follows from.
        #[serde(default)]
        rollout: Option<RolloutNumber>,
    },
    /// How that went. A failure undoes nothing.
    Purged {
        release: ReleaseNumber,
        attempts: u32,
        failure: Option<String>,
    },
    TakenDown,

    /// There is a certificate for these names, the first one or another one; or one that was there works (again).
    CertificateObtained {
        names: Vec<String>,
        /// The authority's host, a file, or `self-signed`.
        source: String,
        how: CertificateGain,
        until: Timestamp,
        digest: String,
        /// Since when that had failed.
        failing_since: Option<Timestamp>,
        /// Who asked for another attempt.
        asked_by: Option<String>,
    },
    /// There is none, or no newer one. Told when that begins, when the cause is another one, and when somebody had asked
    /// for the attempt; never of each attempt. `until` is the end of the one that serves meanwhile.
    CertificateFailed {
        names: Vec<String>,
        source: String,
        code: String,
        why: String,
        until: Option<Timestamp>,
        since: Timestamp,
        retry_at: Timestamp,
        asked_by: Option<String>,
    },
    /// Somebody wants it to be tried again at once.
    CertificateRetried {
        names: Vec<String>,
    },
    /// The environment has no use for it any more.
    CertificateLetGo {
        names: Vec<String>,
    },

    /// Another Fairway is to take the place of the one that runs; it was tried, and can.
    UpgradeBegun {
        upgrade: Upgrade,
        program: String,
    },
    /// The new proxy has the sockets of the one before.
    ProxyHandedOver {
        upgrade: String,
        took_ms: u64,
    },
    UpgradeEnded {
        upgrade: Upgrade,
        end: UpgradeEnd,
    },
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
            Fact::Observed { .. } => "observed",
            Fact::Measured { .. } => "measured",
            Fact::BaselineFrozen { .. } => "baseline_frozen",
            Fact::GateChanged { .. } => "gate_changed",
            Fact::StepHeld { .. } => "step_held",
            Fact::GateWaived { .. } => "gate_waived",
            Fact::PausedOnEvidence { .. } => "paused_on_evidence",
            Fact::ExperimentReported { .. } => "experiment_reported",
            Fact::AlertChanged { .. } => "alert_changed",
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
            Fact::ScaleFreed { .. } => "scale_freed",
            Fact::ScaleAdvised { .. } => "scale_advised",
            Fact::AutoScaled { .. } => "auto_scaled",
            Fact::RestartRequested { .. } => "restart_requested",
            Fact::RestartAbandoned { .. } => "restart_abandoned",
            Fact::MaintenanceOn { .. } => "maintenance_on",
            Fact::MaintenanceOff => "maintenance_off",
            Fact::PurgeAsked { .. } => "purge_asked",
            Fact::CachePurged { .. } => "cache_purged",
            Fact::PurgeDue { .. } => "purge_due",
            Fact::Purged { .. } => "purged",
            Fact::TakenDown => "taken_down",
            Fact::CertificateObtained { .. } => "certificate_obtained",
            Fact::CertificateFailed { .. } => "certificate_failed",
            Fact::CertificateRetried { .. } => "certificate_retried",
            Fact::CertificateLetGo { .. } => "certificate_let_go",
            Fact::UpgradeBegun { .. } => "upgrade_begun",
            Fact::ProxyHandedOver { .. } => "proxy_handed_over",
            Fact::UpgradeEnded { .. } => "upgrade_ended",
        }
    }
}
