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
    pub gates: Vec<GateStatus>,
    pub arms: Vec<ArmStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateStatus {
    pub name: String,
    /// `passing`, `failing`, `waiting`, `no data`, `skipped`
    pub verdict: String,
    /// Why it cannot say more.
    pub reason: Option<String>,
    /// The service that it is about.
    pub service: Option<String>,
    /// Share (0 to 1), seconds, E-value, or what the source said.
    pub value: Option<f64>,
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
    /// All of it in one sentence, as the record has it.
    pub text: String,
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
