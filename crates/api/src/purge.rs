//! Emptying caches by hand.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PurgeRequest {
    /// None: all of the environment.
    pub service: Option<String>,
    /// Answers whose path is one of these or below it; empty: all.
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Answers that the proxy had kept.
    pub answers: u64,
    /// Whether the hook of the release that serves is asked; how that goes is told by events and by status.
    pub hook: bool,
    /// Number of the last event before it was asked.
    pub seq: u64,
}
