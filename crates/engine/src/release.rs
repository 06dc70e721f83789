//! A release: immutable once it is on the record.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::edge::Entrance;
use crate::evidence::Evidence;
use crate::id::{ReleaseNumber, ServiceName, TreeDigest};
use crate::monitoring::Monitoring;
use crate::purge::PurgeHook;
use crate::service::{EnvValue, ServiceSpec};
use crate::strategy::Strategy;
use crate::time::{Timestamp, duration_ms};

/// What one environment runs: every service with its artifact, the resolved configuration (secret versions,
/// not values) and the migrations. Made once, never changed; a rollback runs exactly these bytes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub number: ReleaseNumber,
    pub created_at: Timestamp,
    pub created_by: String,
    pub spec: ReleaseSpec,
}

/// The content of a release before it has a number: what a deploy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    pub source: Source,
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    pub jobs: ReleaseJobs,
    pub deploy: DeploySettings,
    pub listen: Listen,
    #[serde(default)]
    pub monitoring: Monitoring,
    #[serde(default)]
    pub entrance: Entrance,
}

/// Where the code came from, for people and for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub commit: Option<String>,
    pub branch: Option<String>,
    /// `--tag`, or the first line of the commit message.
    pub title: Option<String>,
    /// True when the work tree had changes that are in no commit.
    pub dirty: bool,
    /// E-mail addresses of the authors of the commits since the last release.
    pub authors: Vec<String>,
}

/// Where the environment's public requests arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// `127.0.0.1:8080`
    pub address: String,
    /// Public host name; none = any.
    pub host: Option<String>,
}

/// Commands that belong to the release and run once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseJobs {
    /// Before any new instance starts. Must leave the schema usable by the release that serves.
    pub expand: Option<JobSpec>,
    /// After commit and `contract_after`; afterwards releases older than this one cannot come back.
    pub contract: Option<JobSpec>,
    #[serde(with = "duration_ms")]
    pub contract_after: Duration,
    /// Against the new version over its preview route, before public traffic.
    pub smoke: Option<JobSpec>,
    /// The user's own verification, after smoke.
    pub verify: Option<JobSpec>,
    pub seed: Option<JobSpec>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    pub command: Vec<String>,
    pub artifact: TreeDigest,
    pub workdir: String,
    pub env: BTreeMap<String, EnvValue>,
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
    pub user: Option<String>,
}

/// How this release is brought in and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploySettings {
    pub strategy: Strategy,
    /// How long 100 % on the new version is watched before the rollout commits.
    #[serde(with = "duration_ms")]
    pub bake: Duration,
    /// How long after the switch the old version stays started, so that a rollback is one routing change.
    #[serde(with = "duration_ms")]
    pub keep_warm: Duration,
    /// How many releases stay startable besides the one that serves.
    pub retain: u32,
    /// People other than the requester who must approve before the rollout starts.
    pub approvers: u32,
    /// From one phase to the next, when the phase has no deadline of its own.
    #[serde(with = "duration_ms")]
    pub phase_deadline: Duration,
    #[serde(default)]
    pub evidence: Evidence,
    #[serde(default)]
    pub purge: Option<PurgeHook>,
}
