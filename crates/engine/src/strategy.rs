//! How traffic moves from the release that serves to the one that comes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::duration_ms;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Strategy {
    /// Batch by batch; each batch is ready before the next, capacity never under the floor.
    Rolling { max_surge: u32, max_unavailable: u32 },
    /// All new copies beside the old, then one switch.
    BlueGreen {
        /// Hold before the switch until somebody promotes.
        approve: bool,
    },
    /// Steps of weight. Stable keeps full capacity until the rollout commits.
    Canary { steps: Vec<Step>, matches: Vec<Match>, sticky: bool },
}

impl Strategy {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Strategy::Rolling { .. } => "rolling",
            Strategy::BlueGreen { .. } => "blue-green",
            Strategy::Canary { .. } => "canary",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Percent of public requests that go to the new version, 0 to 100.
    pub weight: u32,
    #[serde(with = "duration_ms")]
    pub hold: Duration,
    /// Wait for `promote` after the hold.
    pub approve: bool,
    /// Percent of public requests of which the new version gets a copy whose answer nobody sees.
    #[serde(default)]
    pub mirror: u32,
    /// The step is an A/B test of this name: it reports per side.
    #[serde(default)]
    pub experiment: Option<String>,
}

/// A request that matches goes to the new version whatever the weight: testers first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Match {
    Header { name: String, value: String },
    Cookie { name: String, value: String },
}
