//! Events as they are told: `GET …/events?after=N&follow=true`, one JSON object a line.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub actor: String,
    pub project: String,
    pub environment: String,
    /// Stable name of the fact, `rollout_planned`.
    pub kind: String,
    /// One sentence for people.
    pub summary: String,
    /// The fields of the fact.
    pub detail: serde_json::Value,
}
