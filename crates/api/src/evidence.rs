//! What a rollout is judged by, as it stands.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Share, 0 to 1, of the requests that the new version got in this step; none before the first.
    pub share: Option<f64>,
    /// Percent of public requests of which the new version gets a copy.
    pub mirror: u32,
    /// Name of the A/B test that this step is.
    pub experiment: Option<String>,
    /// When the proxy's counters were last read.
    pub looked_ms: Option<u64>,
    /// When the hold or the bake is over, or what it is prolonged to for want of evidence.
    #[serde(default)]
    pub until_ms: Option<u64>,
    pub gates: Vec<GateStatus>,
    pub arms: Vec<ArmStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateStatus {
    pub name: String,
    #[serde(default)]
    pub kind: GateKind,
    #[serde(default)]
    pub about: About,
    /// `passing`, `failing`, `waiting`, `no data`, `skipped`
    pub verdict: String,
    /// Why it cannot say more.
    pub reason: Option<String>,
    /// The service that it is about.
    pub service: Option<String>,
    /// Share (0 to 1), seconds, E-value, or what the source said.
    pub value: Option<f64>,
    /// Of `value`, `stable` and, but for `max_vs_stable`, of `threshold`.
    #[serde(default)]
    pub unit: Unit,
    /// What the value is held against: `max`, `min`, `max_vs_stable`, `evidence`, `success`.
    pub bound: Option<String>,
    pub threshold: Option<f64>,
    /// The same measure of stable.
    pub stable: Option<f64>,
    /// Requests that the value rests on, and how many it needs.
    pub samples: u64,
    pub needed: u64,
    pub next_look_ms: Option<u64>,
    /// The smallest ratio to stable's rate that the requests so far could have shown.
    pub detectable_ratio: Option<f64>,
    /// Of a count test.
    #[serde(default)]
    pub counts: Option<CountsStatus>,
    /// All of it in one sentence, as the record has it.
    pub text: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// The sequential count test: the new version against stable.
    Count,
    /// One of the release's own gates.
    #[default]
    Gate,
    /// Asks for nothing, and undoes the release when it fires.
    Trigger,
}

/// What a gate looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Answers of class 5xx, and requests without an answer.
    Errors,
    Slowness,
    /// Attempts that got no connection to the version.
    Connections,
    /// Requests wait, and none is answered.
    Silence,
    /// A critical alert.
    Alert,
    /// What a query, a command or a webhook says.
    #[default]
    Source,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 1.
    Share,
    Seconds,
    /// How much more likely the counts are when the new version is worse than when it is not.
    Evidence,
    /// Whatever the source counts in.
    #[default]
    Plain,
}

/// What the count test has counted over the whole rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsStatus {
    pub new_requests: u64,
    /// What the gate is about: errors, slow answers, attempts without a connection, requests that wait.
    pub new_bad: u64,
    pub stable_requests: u64,
    pub stable_bad: u64,
    /// Share, 0 to 1, of the requests that the test reckons with.
    pub share: f64,
    /// Answers slower than this count; none for errors.
    pub slow_above_ms: Option<u64>,
}

/// One release of one service since the step began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmStatus {
    pub service: String,
    pub release: String,
    pub requests: u64,
    pub errors: u64,
    /// Seconds.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}
