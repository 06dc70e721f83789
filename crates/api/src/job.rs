//! Jobs: migrations, seeds and one-off commands.

use serde::{Deserialize, Serialize};

/// `POST …/jobs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum JobRequest {
    Expand,
    Contract,
    Smoke,
    Seed,
    OneOff { service: Option<String>, command: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    pub number: u32,
    pub kind: String,
    pub release: String,
    pub requested_by: String,
    pub started_ms: u64,
    pub ended_ms: Option<u64>,
    pub outcome: JobOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JobOutcome {
    Running,
    Succeeded,
    Failed { cause: String, last_lines: Vec<String> },
    Lost { why: String },
}
