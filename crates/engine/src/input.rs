//! What comes in: people's commands, drivers' outcomes, and the passing of time.

use crate::certificate::CertificateStep;
use crate::id::{
    EnvironmentKey, Generation, InstanceId, JobNumber, ReleaseNumber, RolloutNumber, ServiceName,
};
use crate::instance::{Address, Failure};
use crate::job::{JobEnd, JobKind};
use crate::observation::{Observation, Reading, ScaleReading};
use crate::release::ReleaseSpec;
use crate::time::Timestamp;
use crate::upgrade::{Upgrade, UpgradeStep};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Command {
        environment: EnvironmentKey,
        by: String,
        command: Command,
    },
    Outcome {
        environment: EnvironmentKey,
        outcome: Outcome,
    },
    /// The proxy's counters, while a rollout shifts or bakes.
    Observed {
        environment: EnvironmentKey,
        observation: Observation,
    },
    /// What the source of a gate said that was due ([`crate::Environment::gates_due`]); by its place in the list.
    /// A program answers after minutes, when another rollout may be under way, or another step: the answer is taken only
    /// where the same question is still open.
    Measured {
        environment: EnvironmentKey,
        rollout: RolloutNumber,
        gate: u32,
        /// [`crate::verdict::GateDue::due`], as it was when the source was asked.
        due: Timestamp,
        reading: Reading,
    },
    /// An alert began or ceased to fire.
    Alert {
        environment: EnvironmentKey,
        alert: String,
        critical: bool,
        firing: bool,
        why: String,
    },
    /// What an autoscaled service measures.
    Sized {
        environment: EnvironmentKey,
        service: ServiceName,
        reading: ScaleReading,
    },
    /// What becomes of a certificate. May be told again and again: what is no news is not written down.
    Certificate {
        environment: EnvironmentKey,
        names: Vec<String>,
        /// The authority's host, a file, or `self-signed`.
        source: String,
        step: CertificateStep,
    },
    /// What becomes of the server itself, for all that it runs.
    Upgrade {
        upgrade: Upgrade,
        step: UpgradeStep,
    },
    /// Time has passed: whatever is due happens.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Deploy {
        spec: Box<ReleaseSpec>,
        reason: Option<String>,
        /// Refuse unless this release is the one that serves (the plan was made against it).
        if_release: Option<ReleaseNumber>,
        /// Queue behind the running rollout instead of superseding it.
        wait: bool,
    },
    Promote {
        full: bool,
    },
    Pause,
    Resume,
    Abort {
        reason: Option<String>,
    },
    /// The last rollout that did not complete, once more.
    Retry,
    Rollback {
        to: Option<ReleaseNumber>,
        reason: Option<String>,
    },
    Approve,
    Reject {
        reason: Option<String>,
    },
    /// On an autoscaled service the number holds for an hour ([`crate::PIN_LASTS`]).
    Scale {
        service: ServiceName,
        replicas: u32,
    },
    /// Takes a `Scale` back: the load decides again, before the hour is over, or the release does.
    Autoscale {
        service: ServiceName,
    },
    /// One service, or all of them.
    Restart {
        service: Option<ServiceName>,
    },
    RunJob {
        kind: JobKind,
    },
    MaintenanceOn {
        message: String,
    },
    MaintenanceOff,
    /// The proxy is asked, and then the hook of the release that serves, if it has one. Without a service all of them,
    /// without a path all answers.
    Purge {
        service: Option<ServiceName>,
        paths: Vec<String>,
    },
    /// The certificate of these names is tried again at once.
    RetryCertificate {
        names: Vec<String>,
    },
    /// Stop everything that the environment runs. The record and the releases stay.
    Down,
}

/// What a driver says about the world. A late or doubled one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
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
    /// Ended by itself and will be started again by its shim.
    InstanceDown {
        instance: InstanceId,
        why: String,
    },
    /// Ended for good though nobody asked.
    InstanceFailed {
        instance: InstanceId,
        failure: Failure,
    },
    /// Ended as asked.
    InstanceStopped {
        instance: InstanceId,
        exit: String,
    },
    InstanceUnverifiable {
        instance: InstanceId,
        why: String,
    },
    /// No request is left in a removed instance and its connections are closed.
    InstanceDrained {
        instance: InstanceId,
    },
    RoutesApplied {
        generation: Generation,
    },
    RoutesRefused {
        generation: Generation,
        why: String,
    },
    JobEnded {
        job: JobNumber,
        end: JobEnd,
    },
    /// The proxy was asked, or could not be.
    CachePurged {
        purge: u32,
        answers: u64,
        failure: Option<String>,
    },
    /// The hook was asked that was due since then.
    Purged {
        since: Timestamp,
        attempts: u32,
        failure: Option<String>,
    },
}
