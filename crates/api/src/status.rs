//! Status: what is known, and since when; "unknown" where it is unknown.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub server: ServerInfo,
    pub environments: Vec<EnvironmentStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    pub version: String,
    pub pid: u32,
    pub started_ms: u64,
    pub now_ms: u64,
    pub state_dir: String,
    /// Number of the last event on the record.
    pub seq: u64,
    pub proxy: ProxyStatus,
    /// The program that this server runs.
    #[serde(default)]
    pub binary: String,
    /// How it took over from an earlier one, if it did.
    #[serde(default)]
    pub upgraded: Option<crate::Upgraded>,
    /// Copies that are held by a shim of another program than the server's: they go on, and are replaced as copies
    /// are replaced.
    #[serde(default)]
    pub older_shims: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum ProxyStatus {
    Serving {
        pid: u32,
        generation: u64,
        #[serde(default)]
        version: String,
    },
    /// It may well serve: we cannot tell.
    Unreachable { why: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentStatus {
    pub project: String,
    pub environment: String,
    pub health: Health,
    /// Why it is not healthy, or what it does.
    pub summary: String,
    pub listen: Option<String>,
    pub host: Option<String>,
    /// Where visitors reach it, with TLS first.
    #[serde(default)]
    pub urls: Vec<UrlStatus>,
    /// Of its host names, where it speaks TLS.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// What holds for it because it shares an address or the proxy with another environment.
    #[serde(default)]
    pub shared: Vec<String>,
    pub stable: Option<ReleaseInfo>,
    pub stable_since_ms: Option<u64>,
    pub warm: Option<WarmInfo>,
    pub rollout: Option<RolloutStatus>,
    pub services: Vec<ServiceStatus>,
    pub routes: RoutesStatus,
    pub maintenance: Option<String>,
    /// Of the hook that empties what stands before the environment, where it was ever asked.
    #[serde(default)]
    pub purge: Option<PurgeStatus>,
    pub queued: u32,
    pub traffic: Vec<TrafficStatus>,
    /// Releases that a rollback can go to, newest first.
    pub retained: Vec<ReleaseInfo>,
    /// Where `rollback` without a name goes.
    pub rollback_target: Option<String>,
    pub contract_due_ms: Option<u64>,
    pub contracted_by: Option<String>,
    /// The last rollout that ended.
    pub last: Option<RolloutInfo>,
    pub ended: Vec<EndedInfo>,
    pub jobs: Vec<crate::JobInfo>,
    /// Newest first.
    #[serde(default)]
    pub purges: Vec<PurgeInfo>,
    /// What became of certificates, newest first; how they stand is in `certificates`.
    #[serde(default)]
    pub certificate_news: Vec<CertificateNews>,
    /// Of Fairway itself, that this environment has seen; newest first.
    #[serde(default)]
    pub upgrades: Vec<UpgradeInfo>,
}

/// One purge: by `fairway purge`, or of the hook after a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeInfo {
    pub at_ms: u64,
    pub by: String,
    /// The rollout that it followed from; none: somebody asked.
    pub rollout: Option<u32>,
    /// None: all.
    pub service: Option<String>,
    /// Empty: all.
    pub paths: Vec<String>,
    /// How many more there were.
    pub paths_more: u32,
    /// `done`, `failed`, `under way` or `superseded`.
    pub outcome: String,
    /// Answers that the proxy had kept.
    pub answers: Option<u64>,
    /// Whose hook was asked.
    pub release: Option<String>,
    /// How often the hook was asked, once that is over.
    pub attempts: Option<u32>,
    pub cause: Option<String>,
}

/// What became of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateNews {
    pub at_ms: u64,
    pub names: Vec<String>,
    /// `issued`, `renewed`, `works again`, `failed`, or `tried again` as long as nothing has come of that.
    pub outcome: String,
    /// Where it comes from: the authority's host, a file, or `self-signed`.
    pub source: Option<String>,
    /// Who asked for it; `fairway` for what it does by itself.
    pub by: String,
    /// The end of the one that served from then on.
    pub until_ms: Option<u64>,
    /// Since when that had failed.
    pub failing_since_ms: Option<u64>,
    /// `certificate/…`
    pub code: Option<String>,
    pub cause: Option<String>,
}

/// An upgrade of Fairway that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    /// Versions.
    pub from: String,
    pub to: String,
    pub by: String,
    pub ended_ms: u64,
    /// `done`, `refused`, `came back` or `interrupted`.
    pub outcome: String,
    pub cause: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlStatus {
    /// `https://shop.example`
    pub url: String,
    /// Visitors are sent on to the same address with TLS.
    #[serde(default)]
    pub redirects: bool,
    /// The end of the certificate that is shown there; none without TLS.
    #[serde(default)]
    pub until_ms: Option<u64>,
}

/// How near the end of a certificate is that no other is in sight for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Within 14 days.
    Soon,
    /// Within three days.
    Now,
    /// Browsers refuse to connect.
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeStatus {
    /// Since it is asked, or when that ended.
    pub at_ms: u64,
    /// Whose hook it is.
    pub release: String,
    pub state: PurgeState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum PurgeState {
    UnderWay,
    Done { attempts: u32 },
    Failed { attempts: u32, why: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub name: String,
    /// The authority's host, a file on the machine, or `self-signed`.
    #[serde(default)]
    pub source: String,
    /// Who has signed the one that is shown now.
    #[serde(default)]
    pub issuer: Option<String>,
    /// None as long as it is renewed in time.
    #[serde(default)]
    pub ending: Option<Ending>,
    /// The end of the certificate that is shown now; none: the name cannot be asked over TLS.
    pub until_ms: Option<u64>,
    pub state: CertificateState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CertificateState {
    /// From an authority.
    Valid {
        renew_ms: u64,
        /// The authority has said when (RFC 9773), not our own rule.
        #[serde(default)]
        suggested: bool,
    },
    /// One is being ordered; `step` says how far that is.
    Ordering {
        step: String,
    },
    /// The last order came to nothing, and is tried again by itself.
    Failed {
        why: String,
        hint: Option<String>,
        retry_ms: u64,
    },
    /// Files of the user's own.
    Manual,
    SelfSigned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All wanted copies ready, the route table in force.
    Serving,
    /// Serves, with less than it should have.
    Degraded,
    /// A service that should answer has no copy that could.
    Failing,
    /// Taken down, or nothing deployed.
    Down,
    /// The proxy or an instance does not tell.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseInfo {
    /// `r12`
    pub name: String,
    pub created_ms: u64,
    pub created_by: String,
    pub title: Option<String>,
    pub commit: Option<String>,
    pub dirty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmInfo {
    pub release: String,
    pub until_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    pub number: u32,
    /// `deploy` or `rollback`
    pub kind: String,
    pub to: String,
    pub from: Option<String>,
    pub strategy: String,
    pub requested_by: String,
    pub requested_ms: u64,
    pub reason: Option<String>,
    pub phase: String,
    pub phase_since_ms: u64,
    /// The engine's own words.
    pub waiting: String,
    /// When the waiting ends by itself.
    pub waiting_until_ms: Option<u64>,
    pub paused_by: Option<String>,
    /// Percent that is set now.
    pub weight: u32,
    pub steps: Vec<StepInfo>,
    pub step: Option<u32>,
    pub switched_ms: Option<u64>,
    pub approvals: Vec<String>,
    pub approvals_needed: u32,
    /// Why it is being aborted.
    pub cause: Option<String>,
    /// What it is judged by now; none where nothing is.
    pub evidence: Option<crate::EvidenceStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    pub weight: u32,
    pub hold_ms: u64,
    pub approve: bool,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutInfo {
    pub number: u32,
    pub kind: String,
    pub to: String,
    pub from: Option<String>,
    pub strategy: String,
    pub requested_by: String,
    pub requested_ms: u64,
    pub switched_ms: Option<u64>,
    pub ended_ms: u64,
    /// `completed`, `rolled back`, `failed`, `superseded`, `taken down`
    pub outcome: String,
    pub cause: Option<String>,
    /// The cause with its numbers, where it was evidence: which gate, what it measured and against what.
    #[serde(default)]
    pub finding: Option<crate::GateStatus>,
    pub last_lines: Vec<String>,
    pub reason: Option<String>,
    pub title: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// `process`, `static`, `postgres`, `redis`
    pub kind: String,
    pub route: Option<String>,
    /// Copies wanted and ready of the release that serves.
    pub wanted: u32,
    pub ready: u32,
    pub instances: Vec<InstanceStatus>,
    /// When a copy that keeps failing is tried again.
    pub retry_ms: Option<u64>,
    /// Why it is not the number in fairway.toml that is wanted: somebody ran `fairway scale`.
    #[serde(default)]
    pub by_hand: Option<ByHand>,
}

/// A number of copies that holds in place of what would otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "until")]
pub enum ByHand {
    /// Over deploys; the fairway.toml of the newest release asks for `in_file` copies.
    TakenBack { in_file: u32 },
    /// The load decides again at `at_ms`.
    Time { at_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `api.r12.3`
    pub id: String,
    pub release: String,
    /// `starting`, `ready`, `suspect`, `down`, `draining`, `stopping`
    pub state: String,
    pub since_ms: u64,
    pub why: Option<String>,
    pub address: Option<String>,
    pub pid: Option<u32>,
    pub crashes: u32,
    pub weight: u32,
    /// Limits that the machine could not enforce, with the reason.
    pub not_enforced: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInfo {
    pub id: String,
    pub at_ms: u64,
    pub how: String,
    pub last_lines: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesStatus {
    pub generation: u64,
    pub applied: u64,
    pub refused: Option<String>,
}

/// Per service and release, since the proxy started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficStatus {
    pub service: String,
    pub release: String,
    /// Percent set in the route table.
    pub weight: u32,
    pub requests: u64,
    /// Answers with 5xx, and requests that got none.
    pub errors: u64,
    pub in_flight: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// One probe of `fairway check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub what: String,
    pub ok: bool,
    pub detail: String,
}
